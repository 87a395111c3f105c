"""What was compiled ahead of time for an NPU, and how it ran in the NPU's emulation."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.judged import GoldenCheck, Parity, PrecisionLoss, Proportion


@dataclass(frozen=True)
class NpuFile:
    """The int8 file, compiled for one generation of Qualcomm's NPU."""

    generation: str
    """Of the NPU, as Qualcomm numbers them: "75"."""
    file: str = ""
    """Its path inside the bundle; empty where none is shipped."""
    sha256: str = ""
    size_bytes: int = 0
    chip: str = ""
    """That the compiler took for the generation: "SM8650"."""
    compiler: str = ""
    """Name and version: "onnxruntime-qnn 2.7.0"."""
    compile_s: float = 0.0
    on_cpu: tuple[str, ...] = ()
    """Operators that were left to the CPU, in the file's order: the first quantises the images, the last turns the
    scores into floats again."""
    agreement: Proportion | None = None
    """With the teacher, in the emulation; None where it did not run."""
    cpu_agreement: Proportion | None = None
    """Of the int8 file with the teacher, on the CPU and the same images."""
    parity: Parity | None = None
    """Of its scores in the emulation with those of the int8 file on the CPU."""
    loss: PrecisionLoss | None = None
    """What it decides otherwise than the int8 file on the CPU."""
    golden: GoldenCheck | None = None
    """On the bundle's golden images, against the int8 file on the CPU."""
    problem: str = ""
    """Why it is not shipped; empty where it is."""

"""Compile ONNX files for Qualcomm's NPU and run them in its emulation, in a process that may die of it.

What comes out is an ONNX file whose nodes hold the compiled network. An NPU that the compiler does not know is not
refused by it but compiled for as the oldest that it knows: so the generation is read back out of the binary.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerecover.errors import BadInputError, MissingError, StageError, pip_line
from edgerecover.runtime.machine.fresh import Conversation, answer_all
from edgerecover.runtime.machine.silence import silence
from edgerecover.runtime.session.onnxruntime import first_line, import_onnxruntime, open_session
from edgerecover.runtime.session.plugins import devices_of, is_plugin, plugin_version
from edgerecover.runtime.session.providers import QNN

COMPILE_TIMEOUT_S = 1800.0
SCORE_TIMEOUT_S = 7200.0
_LOG_FATAL_ONLY = 4
_ARCHITECTURE = re.compile(rb"\bsoc_type=(\w+);arch=(\d+);")
"""What the compiler writes about itself into each binary (onnxruntime-qnn 2.7.0)."""
_OPTIONS = {"backend_type": "htp", "htp_graph_finalization_optimization_mode": "3"}
"""Mode 3: the longest preparation for the fastest graph (QNN-ExecutionProvider.html, configuration options)."""


def require_npu_compiler() -> None:
    """Find out whether files can be compiled for the NPU here.

    Raises:
        MissingError: onnxruntime-qnn is not installed, or does not load.
    """
    if not is_plugin(QNN):
        install = pip_line("install 'edgerecover[qnn]'")
        raise MissingError(
            "onnxruntime-qnn, which compiles for the NPU and emulates it, is not installed",
            hint=f"{install}; it has wheels for Python 3.11 and later, on Windows and on Linux x86-64 with glibc 2.35",
        )
    devices_of(QNN, import_onnxruntime())


@dataclass(frozen=True)
class Compiled:
    """What the compiler made."""

    chip: str
    """That it took for the generation: "SM8650"."""
    seconds: float
    compiler: str
    """Name and version of the package."""


class NpuProcess:
    """A fresh process that compiles and emulates. A context manager: at its end the process is gone."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            StageError: it could not be started.
        """
        self._conversation = Conversation(__name__, what="onnxruntime-qnn")

    def compile(self, onnx: Path, generation: str, out: Path) -> Compiled:
        """Write `onnx`, compiled for NPUs of one generation, to `out`.

        Args:
            onnx: a file of static shapes.
            generation: of the NPU: "75".
            out: ONNX file to write, in a folder that exists; absent afterwards if the compiler fails.

        Raises:
            BadInputError: the compiler refuses the file, or does not know the generation.
            MissingError: onnxruntime-qnn is not installed.
            StageError: the process died or did not finish.
        """
        answer = self._conversation.ask(
            "compile",
            COMPILE_TIMEOUT_S,
            onnx=str(onnx.absolute()),
            generation=generation,
            out=str(out.absolute()),
        )
        return Compiled(str(answer["chip"]), float(answer["seconds"]), str(answer["compiler"]))

    def score(self, model: Path, images: Path, out: Path) -> dict[str, int]:
        """Run a file on images in the NPU's emulation.

        Args:
            model: an ONNX file, compiled or not.
            images: .npy file of network inputs, float32 (N, C, H, W).
            out: .npy file to write: class scores, float32 (N, K).

        Returns:
            How many nodes each provider ran.

        Raises:
            BadInputError: it does not run there.
            MissingError: onnxruntime-qnn is not installed, or ran nothing.
            StageError: the process died or did not finish.
        """
        answer = self._conversation.ask(
            "score",
            SCORE_TIMEOUT_S,
            model=str(model.absolute()),
            images=str(images.absolute()),
            out=str(out.absolute()),
        )
        return {str(name): int(number) for name, number in answer["nodes"].items()}

    def __enter__(self) -> NpuProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._conversation.close()


# --- in the fresh process -------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Compile and score what the lines on stdin ask."""
    return answer_all({"compile": _compile, "score": _score})


def _compile(onnx: str, generation: str, out: str) -> dict[str, Any]:
    require_npu_compiler()
    runtime = import_onnxruntime()
    runtime.set_default_logger_severity(_LOG_FATAL_ONLY)
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_embed_mode", "1")
    options.add_session_config_entry("ep.context_file_path", out)
    options.add_provider_for_devices(devices_of(QNN, runtime)[:1], {**_OPTIONS, "htp_arch": generation})
    Path(out).unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        with silence():
            runtime.InferenceSession(onnx, options, enable_fallback=0)
        seconds = time.perf_counter() - started
        found = _ARCHITECTURE.search(Path(out).read_bytes())
    except Exception as error:  # its error classes share no base but Exception
        Path(out).unlink(missing_ok=True)
        raise BadInputError(
            f"{Path(onnx).name}: cannot be compiled for the NPU: {first_line(error)}",
            hint="the NPU takes Q/DQ files of static shapes: export it with `edgerecover run --target android-qnn`",
        ) from error
    compiler = f"onnxruntime-qnn {plugin_version(QNN)}"
    made = found.group(2).decode() if found else "unknown"
    if found is None or made != generation:
        Path(out).unlink()
        raise StageError(
            f"{compiler} was asked for NPU generation {generation} and compiled for {made}",
            hint="it may not know this generation: install another version, or take it out of the target's "
            "npu_generations",
        )
    return {"chip": found.group(1).decode(), "seconds": seconds, "compiler": compiler}


def _score(model: str, images: str, out: str) -> dict[str, Any]:
    import numpy as np

    require_npu_compiler()
    session = open_session(Path(model), [QNN], strict=True)
    np.save(out, session.run(np.load(images)))
    return {"nodes": session.nodes_by_provider}


if __name__ == "__main__":
    sys.exit(main())

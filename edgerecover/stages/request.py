"""What a user asks of a command; the command line's flags, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import Precision
from edgerecover.config import Profile, Target
from edgerecover.models.name.flags import NO_FLAGS, LiveNetwork, ModelFlags
from edgerecover.pruning import Pruning
from edgerecover.recovery.checkpoints import EVERY_S
from edgerecover.synthesis.sets import SPLITS
from edgerecover.validation.evaluation import LabelledArrays


@dataclass(frozen=True)
class Request:
    """Of `run`."""

    model_path: Path
    target: Target
    profile: Profile
    out: Path
    work: Path
    """Where dreams and recoveries are kept between runs."""
    flags: ModelFlags = NO_FLAGS
    """How to open the model and its teacher."""
    teacher: Path | None = None
    teacher_arch: str | LiveNetwork | None = None
    """The teacher's architecture where it is not the student's."""
    pruning: Pruning | None = None
    """How to prune a dense model; None takes the model as it is."""
    eval_data: Path | LabelledArrays | None = None
    record: Path | None = None
    """Activation record of the teacher."""
    seed: int = 0
    device: str = "auto"
    batch: int | None = 1
    """Static batch size of the exported file; None exports a dynamic one."""
    precisions: tuple[Precision, ...] = ()
    """That may be shipped, beside float32; none names all that the target can use."""
    fresh: bool = False
    """Make everything again, even what an earlier run has finished."""
    checkpoint_every_s: float = EVERY_S
    """Within a stage, how often what is half done is written to `work`."""


@dataclass(frozen=True)
class FileRequest:
    """Of `validate`."""

    model_path: Path
    """The ONNX file."""
    target: Target
    profile: Profile
    work: Path
    """Where dreams are kept between runs."""
    out: Path | None = None
    """Where the bundle goes; None packs none."""
    teacher: Path | None = None
    """PyTorch checkpoint or ONNX file; None: the TOML file beside the model says."""
    student: Path | None = None
    """The PyTorch checkpoint that the file was exported from."""
    pruned: Path | None = None
    """The PyTorch checkpoint before its recovery."""
    flags: ModelFlags = NO_FLAGS
    """How to open the PyTorch networks."""
    teacher_arch: str | LiveNetwork | None = None
    """Of the teacher, where it is another."""
    eval_data: Path | LabelledArrays | None = None
    record: Path | None = None
    """Of the teacher's activations, for its dreams."""
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class DreamRequest:
    """Of `synthesize`."""

    teacher: Path
    """The dense checkpoint."""
    profile: Profile
    out: Path
    work: Path
    """Where dreams are kept between runs."""
    splits: tuple[str, ...] = SPLITS
    """Of `train`, `calibration`, `held_back`."""
    flags: ModelFlags = NO_FLAGS
    """How to open the teacher."""
    record: Path | None = None
    """Of the teacher's activations on real data, to be matched beside batch norm's statistics."""
    seed: int = 0
    device: str = "auto"

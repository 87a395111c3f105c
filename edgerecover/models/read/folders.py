"""Which file in a folder holds the weights, by the names that common libraries use."""

from __future__ import annotations

from pathlib import Path

from edgerecover.errors import UNREADABLE_HINT, BadInputError

WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Names that timm and transformers use, in the order in which these libraries look for them."""

DISTRIBUTED_METADATA = ".metadata"
"""The file that marks a folder as one of torch.distributed.checkpoint."""

_SUFFIXES = (".safetensors", ".pt", ".pth", ".pt2", ".bin", ".ckpt", ".pkl", ".tar", ".onnx")
_NUM_SHOWN = 6
_NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin", "scaler.pt")
"""Files that the trainers of transformers and accelerate leave beside the weights."""

_FOREIGN = (
    ("saved_model.pb", "a TensorFlow SavedModel"),
    ("Manifest.json", "a Core ML package"),
    ("version", "an unpacked archive of torch.save"),
    ("byteorder", "an unpacked archive of torch.save"),
)


def weights_in(path: Path) -> Path:
    """The file with the weights: `path` itself, or the one in the folder `path`.

    A folder of torch.distributed.checkpoint is returned as it is.

    Raises:
        BadInputError: the folder holds no weights, several files of weights, or a format that is not supported.
    """
    if not path.is_dir() or (path / DISTRIBUTED_METADATA).is_file():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    _refuse_deepspeed(path, entries)
    files = [file for file in entries if file.suffix.lower() in _SUFFIXES and file.name not in _NOT_WEIGHTS]
    files = [file for file in files if file.is_file()]
    if len(files) == 1:
        return files[0]
    if files:
        more = f" and {len(files) - _NUM_SHOWN} more" if len(files) > _NUM_SHOWN else ""
        raise BadInputError(
            f"{path}: holds several weight files: {', '.join(file.name for file in files[:_NUM_SHOWN])}{more}",
            hint="give the path of one of them",
        )
    for name, kind in _FOREIGN:
        if (path / name).exists():
            raise BadInputError(f"{path}: is {kind}, not a checkpoint", hint="give a file that torch.save wrote")
    raise BadInputError(
        f"{path}: is a folder without weights", hint=f"it should hold {WEIGHT_FILES[0]}, or exactly one checkpoint file"
    )


def home_of(path: Path) -> Path:
    """The folder that holds a checkpoint found by `weights_in`, and model.toml and cards beside it."""
    return path if path.is_dir() else path.parent


def is_usual_name(path: Path) -> bool:
    """Whether a library would take this file for the weights that the card beside it describes."""
    return path.name in WEIGHT_FILES


def _refuse_deepspeed(path: Path, entries: list[Path]) -> None:
    """Refuse checkpoints of DeepSpeed's engine: a file `latest` and a folder of states, or such a folder itself."""
    inner = [file for entry in entries if entry.is_dir() for file in entry.glob("*_optim_states.pt")]
    states = inner or [entry for entry in entries if entry.name.endswith("_optim_states.pt")]
    if any(file.name.startswith(("zero_pp_rank_", "bf16_zero_pp_rank_", "fp16_zero_pp_rank_")) for file in states):
        raise BadInputError(
            f"{path}: is a DeepSpeed ZeRO checkpoint, whose weights are split over several files",
            hint="join them with the script that DeepSpeed left there: python zero_to_fp32.py . weights",
        )

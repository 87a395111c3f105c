"""The door for everything that needs networks: from paths and flags to a checked teacher and student.

Shapes: N images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, ModelFacts, Pattern, Sparsity
from edgerecover.errors import BadInputError
from edgerecover.models.architectures import build, load_into, mismatch
from edgerecover.models.channels import SAME_CHANNELS, ChannelMap, match_channels
from edgerecover.models.completion import completed, no_architecture
from edgerecover.models.formats import Container, detect
from edgerecover.models.load import Checkpoint, read_checkpoint
from edgerecover.models.macs import count_macs
from edgerecover.models.onnx_file import onnx_facts
from edgerecover.models.recognise import num_torchvision_classes, recognise, without_auxiliary_heads
from edgerecover.models.sparsity import measure, prunable_weights
from edgerecover.models.spec import ModelSpec, resolve
from edgerecover.models.whole_modules import WholeModule, load_module
from edgerecover.models.widths import failing_layer, is_narrower, narrow_to

if TYPE_CHECKING:
    from torch import Tensor, nn

_WITH_AUXILIARY_HEADS = ("torchvision:inception_v3", "torchvision:googlenet")


@dataclass(frozen=True)
class Models:
    """A teacher and a student that belong together, both float32, on the CPU and in eval mode."""

    student: nn.Module
    teacher: nn.Module
    masks: dict[str, Tensor]
    """bool, by parameter name, True where the student's weight is kept: the explicit masks, and where there is
    none, every Conv or Linear weight that is not zero, for layers that have zeros."""
    input: InputSpec
    num_classes: int
    classes: tuple[str, ...] | None
    architecture: str
    student_facts: ModelFacts
    teacher_facts: ModelFacts
    warnings: tuple[str, ...]
    """What the user should know although the run can go on."""
    channels: ChannelMap = SAME_CHANNELS
    """The teacher's channels that a channel-pruned student kept."""


@dataclass(frozen=True)
class _Opened:
    """A checkpoint in its architecture."""

    checkpoint: Checkpoint
    """With its keys as the network spells them."""
    network: nn.Module
    dense: nn.Module | None
    """Of a channel-pruned checkpoint, the architecture as its factory builds it, with fresh weights."""


def inspect(
    model_path: Path,
    *,
    arch: str | None,
    input_flags: InputSpec | None,
    trust_code: bool,
    trust_pickle: bool = False,
) -> ModelFacts:
    """Find out what a checkpoint or an ONNX file holds. Without a known architecture, its weights alone are looked at.

    Raises:
        BadInputError: the checkpoint, the TOML file beside it, or the architecture named there cannot be used.
    """
    if detect(model_path) is Container.ONNX:
        return onnx_facts(model_path)
    checkpoint = read_checkpoint(model_path)
    said = resolve(model_path, arch=arch, teacher=None, input_flags=input_flags, trust_code=trust_code)
    spec = completed(said, checkpoint, trust_pickle=trust_pickle)
    if spec.architecture is None:
        return _facts(checkpoint, spec, None, num_classes=None)
    opened = _open_student(checkpoint, spec, spec.architecture)
    num_classes = _checked_num_classes(opened.network, spec.input, spec) if spec.input else None
    return _facts(opened.checkpoint, spec, opened.network, num_classes=num_classes, dense=opened.dense)


def open_models(
    model_path: Path,
    *,
    arch: str | None,
    teacher: Path | None,
    input_flags: InputSpec | None,
    trust_code: bool,
    will_prune: bool,
    trust_pickle: bool = False,
) -> Models:
    """Open a student and its teacher: the one given, the dense weights inside, or the model itself.

    Args:
        model_path: the student's checkpoint.
        arch: `--arch`, relative to the working directory; None: the TOML file says, or keys and shapes tell.
        teacher: `--teacher`; None: the TOML file says, or the teacher is inside.
        input_flags: the input that flags describe; None: the TOML file or torchvision's own weights say.
        trust_code: Python that the TOML file names may run without a trust record.
        will_prune: the caller prunes the student, so a dense model is its own teacher.
        trust_pickle: whole modules may really be unpickled, which runs code that their files name.

    Raises:
        BadInputError: anything about the files that keeps them from being recovered; the message says which.
    """
    checkpoint = read_checkpoint(model_path)
    said = resolve(model_path, arch=arch, teacher=teacher, input_flags=input_flags, trust_code=trust_code)
    spec = completed(said, checkpoint, trust_pickle=trust_pickle)
    architecture, input = _required(checkpoint, spec)
    opened = _open_student(checkpoint, spec, architecture)
    if trust_pickle and spec.teacher_path is not None and opened.dense is None:
        opened = replace(opened, dense=_wider_module(spec.teacher_path, opened.network))
    checkpoint, student = opened.checkpoint, opened.network
    num_classes = _checked_num_classes(student, input, spec)
    student_facts = _facts(checkpoint, spec, student, num_classes=num_classes, dense=opened.dense)
    teacher_checkpoint = _teacher_checkpoint(checkpoint, spec, student_facts.sparsity, will_prune)
    teacher_network = _open_teacher(teacher_checkpoint, opened.dense or student, architecture, num_classes)
    _checked_num_classes(teacher_network, input, spec, role="teacher ")
    teacher_facts = _facts(teacher_checkpoint, spec, teacher_network, num_classes=num_classes)
    return Models(
        student=student,
        teacher=teacher_network,
        masks=_masks(checkpoint, student),
        input=input,
        num_classes=num_classes,
        classes=spec.classes,
        architecture=architecture,
        student_facts=student_facts,
        teacher_facts=teacher_facts,
        warnings=_warnings(teacher_facts),
        channels=match_channels(teacher_network, student, input.shape) if opened.dense else SAME_CHANNELS,
    )


def open_network(
    model_path: Path,
    *,
    arch: str | None,
    input_flags: InputSpec | None,
    trust_code: bool,
    trust_pickle: bool = False,
) -> tuple[nn.Module, InputSpec | None]:
    """Open one checkpoint in its architecture, and say what its input looks like where that is known.

    Raises:
        BadInputError: the checkpoint or its architecture cannot be used, or no architecture is named or recognised.
    """
    checkpoint = read_checkpoint(model_path)
    said = resolve(model_path, arch=arch, teacher=None, input_flags=input_flags, trust_code=trust_code)
    spec = completed(said, checkpoint, trust_pickle=trust_pickle)
    return _open_student(checkpoint, spec, _required_architecture(checkpoint, spec)).network, spec.input


# --- architecture and input -----------------------------------------------------------------------------


def _required_architecture(checkpoint: Checkpoint, spec: ModelSpec) -> str:
    if spec.architecture is None:
        raise no_architecture(checkpoint)
    return spec.architecture


def _required(checkpoint: Checkpoint, spec: ModelSpec) -> tuple[str, InputSpec]:
    architecture = _required_architecture(checkpoint, spec)
    if spec.input is None:
        example = checkpoint.example_shape
        given = f" (its example input has {','.join(map(str, example[1:]))}), --mean and --std" if example else ""
        raise BadInputError(
            f"{checkpoint.path}: what the network's input looks like is not known",
            hint=f"give --input-shape{given}, or an [input] table with shape, mean and std in model.toml beside it",
        )
    return architecture, spec.input


def _open_student(checkpoint: Checkpoint, spec: ModelSpec, architecture: str) -> _Opened:
    """The network with the checkpoint's weights, its layers as narrow as these."""
    guess = _guessed_num_classes(checkpoint, spec, architecture)
    network = _built(spec, architecture, guess)
    fitted = _fitted_keys(checkpoint, network, architecture)
    if guess is not None and mismatch(network, fitted.tensors):
        # The guess was wrong, or the factory's own default is right: let it be the judge.
        default = _built(spec, architecture, None)
        if not mismatch(default, fitted.tensors):
            network = default
    what = f"{checkpoint.path} ({architecture})"
    dense = _narrowed(network, fitted, spec.input, what) if mismatch(network, fitted.tensors) else None
    load_into(network, fitted.tensors, what=what)
    return _Opened(fitted, network.eval(), dense)


def _built(spec: ModelSpec, architecture: str, num_classes: int | None) -> nn.Module:
    return load_module(spec.module) if spec.module else build(architecture, spec.base_dir, num_classes)


def _wider_module(teacher_path: Path, student: nn.Module) -> nn.Module | None:
    """The teacher's own pickled module, where the student's has lost channels of it; else None."""
    if not teacher_path.is_file():
        return None
    teacher = read_checkpoint(teacher_path)
    own = student.state_dict()
    if not teacher.classes or not is_narrower(own, teacher.tensors):
        return None
    return load_module(WholeModule(teacher.path, teacher.under, teacher.classes[0])).eval()


def _narrowed(network: nn.Module, checkpoint: Checkpoint, input: InputSpec | None, what: str) -> nn.Module | None:
    """Make the layers as narrow as a channel-pruned checkpoint's; returns the network as it was, None if it is still.

    Raises:
        BadInputError: the narrower layers do not fit together.
    """
    differences, dense = mismatch(network, checkpoint.tensors), copy.deepcopy(network).eval()
    if input is None or not narrow_to(network, checkpoint.tensors):
        return None
    if failure := failing_layer(network.eval(), input.shape):
        name, error = failure
        raise BadInputError(
            f"{what}: the checkpoint does not fit the architecture\n{differences}\n"
            f"  nor does it fit as a channel-pruned one: the forward pass fails at {name or 'the top'} ({error})",
            hint="name the architecture that the checkpoint was trained with (--arch or model.toml)",
        )
    return dense


def _guessed_num_classes(checkpoint: Checkpoint, spec: ModelSpec, architecture: str) -> int | None:
    """Output size of the classifying layer; of a user's network, of the last layer in the checkpoint."""
    if architecture.startswith("torchvision:"):
        return num_torchvision_classes(checkpoint.tensors, architecture.partition(":")[2])
    if spec.classes:
        return len(spec.classes)
    sizes = [tensor.shape[0] for tensor in checkpoint.tensors.values() if tensor.dim() >= 2]
    return int(sizes[-1]) if sizes else None


def _fitted_keys(checkpoint: Checkpoint, network: nn.Module, architecture: str) -> Checkpoint:
    """Put back a prefix such as `model.` when it is the network's own, and drop heads only training uses."""
    keys = network.state_dict().keys()
    # TorchScript keeps buffers that state_dict() leaves out.
    checkpoint = checkpoint.without({name for name, _ in network.named_buffers() if name not in keys})
    for start in range(len(checkpoint.prefixes)):
        prefix = "".join(checkpoint.prefixes[start:])
        if keys and all(key.startswith(prefix) for key in keys):
            return checkpoint.with_prefix(prefix)
    if architecture not in _WITH_AUXILIARY_HEADS:
        return checkpoint
    return checkpoint.without(checkpoint.tensors.keys() - without_auxiliary_heads(checkpoint.tensors).keys())


def _checked_num_classes(network: nn.Module, input: InputSpec, spec: ModelSpec, role: str = "") -> int:
    """K, from the logits of a black and a white image.

    Raises:
        BadInputError: the forward pass fails, does not give finite (N, K) logits with K ≥ 2, or K is not the class
            names'.
    """
    import torch

    what = f"{role}{spec.architecture} on images of shape {list(input.shape)} (from {spec.input_source})"
    black_and_white_NCHW = torch.tensor(input.bounds()).view(2, -1, 1, 1).expand(2, *input.shape).contiguous()
    try:
        with torch.no_grad():
            logits_NK = network(black_and_white_NCHW)
    except Exception as error:  # the user's network raises anything
        raise BadInputError(
            f"{what}: the forward pass failed with {type(error).__name__}: {error}",
            hint="check the input's shape [C, H, W] (--input-shape or model.toml)",
        ) from error
    if not isinstance(logits_NK, torch.Tensor) or logits_NK.dim() != 2 or len(logits_NK) != 2:
        found = list(logits_NK.shape) if isinstance(logits_NK, torch.Tensor) else type(logits_NK).__name__
        raise BadInputError(
            f"{what}: a classifier's logits of shape (2, K) were expected for 2 images, found {found}",
            hint="name a factory whose network returns the logits alone in eval mode",
        )
    if not bool(logits_NK.isfinite().all()):
        raise BadInputError(f"{what}: the logits of a black or a white image are NaN or infinite")
    num_classes = logits_NK.shape[1]
    if num_classes < 2:
        raise BadInputError(
            f"{what}: a single logit comes out, and one class leaves nothing to decide",
            hint="a binary classifier needs two logits: let its factory append a layer that turns x into [0, x]",
        )
    if spec.classes and len(spec.classes) != num_classes:
        raise BadInputError(
            f"{what}: {num_classes} classes come out, but model.toml names {len(spec.classes)}",
            hint="correct `classes` in model.toml",
        )
    return num_classes


# --- teacher --------------------------------------------------------------------------------------------


def _teacher_checkpoint(checkpoint: Checkpoint, spec: ModelSpec, sparsity: Sparsity, will_prune: bool) -> Checkpoint:
    path = spec.teacher_path
    if path is not None and not _same_file(path, checkpoint.path):
        if not path.exists():
            raise BadInputError(f"teacher {path}: no such file", hint="correct --teacher, or teacher in model.toml")
        return read_checkpoint(path)
    if checkpoint.dense_tensors is not None:
        return replace(checkpoint, tensors=checkpoint.dense_tensors, masks={}, dense_tensors=None)
    is_dense = sparsity.pattern is Pattern.DENSE
    if is_dense and will_prune:
        return checkpoint
    if is_dense:
        raise BadInputError(
            f"{checkpoint.path}: the model is dense and no teacher is given, so there is nothing to recover",
            hint="--pattern unstructured --sparsity 0.75 prunes it first, with itself as the teacher",
        )
    pruned = "whole channels" if sparsity.pattern is Pattern.CHANNEL else f"{sparsity.sparsity:.1%} of the weights"
    raise BadInputError(
        f"{checkpoint.path}: {pruned} are {'gone' if sparsity.pattern is Pattern.CHANNEL else 'zero'}, "
        "no teacher is given, and the dense weights are not inside",
        hint="give the dense model with --teacher, or as teacher in model.toml",
    )


def _same_file(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _open_teacher(checkpoint: Checkpoint, student: nn.Module, architecture: str, num_classes: int) -> nn.Module:
    network = copy.deepcopy(student)
    fitted = _fitted_keys(checkpoint, network, architecture)
    if mismatch(network, fitted.tensors):
        _refuse_other_teacher(fitted, student, architecture, num_classes)
    load_into(network, fitted.tensors, what=f"teacher {checkpoint.path} ({architecture})")
    return network.eval()


def _refuse_other_teacher(teacher: Checkpoint, student: nn.Module, architecture: str, num_classes: int) -> None:
    """Say in the field's words what the differing keys and shapes mean, where that can be told."""
    teacher_classes = _other_num_classes(teacher.tensors, student.state_dict(), num_classes)
    if teacher_classes is not None:
        raise BadInputError(
            f"teacher {teacher.path}: tells {teacher_classes} classes apart, the student {num_classes}",
            hint="recovery needs the dense model that the student was pruned from",
        )
    raise BadInputError(
        f"teacher {teacher.path}: is {recognise(teacher.tensors) or 'of another architecture'}, the student is "
        f"{architecture}\n{mismatch(student, teacher.tensors)}",
        hint="recovery needs the dense model that the student was pruned from",
    )


def _other_num_classes(teacher: Mapping[str, Tensor], student: Mapping[str, Tensor], num_classes: int) -> int | None:
    """Classes of a teacher that differs from the student in nothing but the output size of the last layer."""
    differing = [key for key, tensor in student.items() if key in teacher and teacher[key].shape != tensor.shape]
    sizes = {(student[key].shape[0], teacher[key].shape[0]) for key in differing}
    same_otherwise = all(student[key].shape[1:] == teacher[key].shape[1:] for key in differing)
    if same_otherwise and len(sizes) == 1:
        student_size, teacher_size = sizes.pop()
        return teacher_size if student_size == num_classes else None
    return None


def _warnings(teacher: ModelFacts) -> tuple[str, ...]:
    warnings = []
    if teacher.sparsity.pattern is not Pattern.DENSE:
        warnings.append(
            f"the teacher {Path(teacher.path).name} is itself sparse ({teacher.sparsity.sparsity:.1%} zeros): "
            "recovery can only approach what it knows"
        )
    if not teacher.num_batch_norms:
        warnings.append(
            "the network has no batch norm statistics: dreams rest on its class scores alone, which is less evidence; "
            "expect less from recovery, and judge it with --eval-data where you can"
        )
    return tuple(warnings)


# --- facts ----------------------------------------------------------------------------------------------


def _masks(checkpoint: Checkpoint, student: nn.Module) -> dict[str, Tensor]:
    parameters = dict(student.named_parameters(remove_duplicate=False))
    explicit = {name: mask for name, mask in checkpoint.masks.items() if name in parameters}
    found = {name: weight != 0 for name, weight in prunable_weights(student).items() if name not in explicit}
    return explicit | {name: mask for name, mask in found.items() if not bool(mask.all())}


def _facts(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    network: nn.Module | None,
    *,
    num_classes: int | None,
    dense: nn.Module | None = None,
) -> ModelFacts:
    tensors = checkpoint.tensors
    weights = {key: t for key, t in tensors.items() if t.dim() >= 2 and t.is_floating_point()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [tensor for key, tensor in tensors.items() if not key.endswith(statistics)]
    parameters = learned if network is None else list(network.parameters())
    return ModelFacts(
        path=str(checkpoint.path),
        sha256=checkpoint.sha256,
        size_bytes=checkpoint.size_bytes,
        format=checkpoint.format,
        architecture=spec.architecture,
        architecture_source=spec.architecture_source,
        num_parameters=sum(parameter.numel() for parameter in parameters),
        num_batch_norms=sum(key.endswith("running_mean") for key in tensors),
        num_classes=num_classes,
        has_masks=bool(checkpoint.masks),
        teacher_inside=checkpoint.dense_tensors is not None,
        sparsity=measure(network if network is not None else weights, narrower=dense is not None),
        input=spec.input,
        input_source=spec.input_source,
        macs_kept=macs_kept(network, dense, spec.input) if network is not None and dense is not None else None,
    )


def macs_kept(network: nn.Module, dense: nn.Module, input: InputSpec | None) -> float | None:
    """Fraction of the dense network's MACs that a narrower one needs; None when the input's shape is not known."""
    return count_macs(network, input.shape) / count_macs(dense, input.shape) if input else None

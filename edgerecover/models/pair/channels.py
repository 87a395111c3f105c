"""Which of a teacher's channels a channel-pruned student kept, in every narrower module.

Both networks are run once on *labels* instead of features: the output of every convolution and linear layer is replaced
by random numbers that identify the teacher's channels, and normalisation layers pass their input on. Everything else
that the networks do with channels (add, concatenate, shuffle, pad, flatten) happens to the labels too, so a channel of
the student is the teacher's channel with the same label. In a layer that lost outputs, the student's weight rows are
compared with the teacher's over the inputs that both have.

Shapes: C channels, O outputs and I inputs of a layer.
"""

from __future__ import annotations

import zlib
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.models.network.sparsity import prunable_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerecover.models.network.linear_calls import LinearCall

MAX_ROW_DISTANCE = 0.5
"""Largest 1 - cosine of two weight rows that may be the same filter: fine-tuning turns them, others are near 1."""

_LABEL_TOLERANCE = 2e-6
_MAX_INPUTS = 1024
"""Inputs over which rows are compared: more do not help, and the first Linear layer of a VGG has 25,088."""
_UNKNOWN = -1


@dataclass(frozen=True)
class ChannelMap:
    """The teacher's channels that a student kept, for every module that is narrower than the teacher's."""

    kept: Mapping[str, Tensor | None]
    """int64 (C,) by module, or by weight for the output of its linear call: the teacher's channel for each of the
    student's; None if unknown. Modules that are missing here have all of the teacher's channels."""
    related: bool = True
    """False for a student of another architecture, whose channels are not the teacher's."""

    def of_teacher(self, name: str, values: Tensor, dim: int) -> Tensor | None:
        """The teacher's values for the student's channels, in the student's order; None if unknown.

        Args:
            name: name of a module, BN layers and blocks included, or of a weight.
            values: the teacher's, with its channels along `dim`.
            dim: axis of the channels.
        """
        if not self.related:
            return None
        if name not in self.kept:
            return values
        kept = self.kept[name]
        return None if kept is None else values.index_select(dim, kept.to(values.device))


SAME_CHANNELS = ChannelMap({})
"""For a student as wide as its teacher."""

UNRELATED = ChannelMap({}, related=False)
"""For a student of another architecture."""


def match_channels(teacher: nn.Module, student: nn.Module, input_shape: tuple[int, int, int]) -> ChannelMap:
    """Find the teacher's channel for each of the student's, from the weights alone, even after some fine-tuning.

    Args:
        teacher: the dense network, on the CPU and in eval mode; not changed.
        student: the same network with fewer channels in some layers; not changed.
        input_shape: (C, H, W).
    """
    import torch

    images = torch.zeros(1, *input_shape)
    taught = _teacher_labels(teacher, images)
    kept: dict[str, Tensor | None] = {}

    def label(name: str, call: LinearCall, output: Tensor) -> Tensor:
        if name not in taught.calls:
            return output
        labels, its = taught.labels[name], taught.calls[name]
        if output.shape == labels.shape:
            return labels.clone()
        sources = _same_labels(taught.inputs[name], _signature(call.inputs, call.channel_dim))
        rows = _matching_rows(its, call, sources)
        if rows is None:
            return torch.full_like(output, torch.nan)
        return labels.index_select(call.channel_dim, rows)

    def record(name: str, output: Tensor, dim: int) -> None:
        if name in taught.outputs and output.shape[dim] != len(taught.outputs[name]):
            sources = _same_labels(taught.outputs[name], _signature(output, dim))
            kept[name] = sources if bool((sources != _UNKNOWN).all()) else None

    with torch.no_grad(), _label_channels(student, label, record):
        student(images)
    return ChannelMap(kept)


def descent(teacher: nn.Module, student: nn.Module, input_shape: tuple[int, int, int]) -> ChannelMap:
    """The channels that a student kept whose own definition is narrower, such as a VGG built from a list of widths.

    Its modules must be the teacher's by name and kind, none of its weights larger, and the rows of every narrower layer
    among the teacher's. Otherwise `UNRELATED`: a smaller network of the same family shares names, not filters.

    Args:
        teacher: on the CPU and in eval mode; not changed.
        student: on the CPU and in eval mode; not changed.
        input_shape: (C, H, W).
    """
    if not _could_descend(teacher, student):
        return UNRELATED
    try:
        channels = match_channels(teacher, student, input_shape)
    except Exception:  # equal modules that two definitions run in different ways; their code raises anything
        return UNRELATED
    narrower = [rows is not None for rows in channels.kept.values()]
    return channels if narrower and all(narrower) and _same_rows(teacher, student, channels) else UNRELATED


def _could_descend(teacher: nn.Module, student: nn.Module) -> bool:
    kinds_t, kinds_s = ({name: type(m).__name__ for name, m in n.named_modules() if name} for n in (teacher, student))
    state_t, state_s = teacher.state_dict(), student.state_dict()
    return (
        kinds_t == kinds_s
        and state_t.keys() == state_s.keys()
        and all(
            tensor.dim() == state_t[key].dim()
            and tensor.shape[2:] == state_t[key].shape[2:]
            and all(has <= full for has, full in zip(tensor.shape, state_t[key].shape, strict=True))
            for key, tensor in state_s.items()
        )
    )


def _same_rows(teacher: nn.Module, student: nn.Module, channels: ChannelMap) -> bool:
    """Whether layers that kept all channels have weights similar to the teacher's."""
    import torch.nn.functional as F

    taught = prunable_weights(teacher)
    for key, weight in prunable_weights(student).items():
        if key in channels.kept or key not in taught or weight.shape != taught[key].shape or not bool(weight.any()):
            continue
        if 1 - float(F.cosine_similarity(weight.flatten(), taught[key].flatten(), 0)) > MAX_ROW_DISTANCE:
            return False
    return True


@dataclass(frozen=True)
class _TeacherLabels:
    labels: dict[str, Tensor]
    """Labels that replace a linear call's output, in its shape."""
    calls: dict[str, LinearCall]
    inputs: dict[str, Tensor]
    """Signatures (C, 2) of the channels that enter a call."""
    outputs: dict[str, Tensor]
    """Signatures (C, 2) of the channels that leave a call or module."""


def _teacher_labels(teacher: nn.Module, images: Tensor) -> _TeacherLabels:
    import torch

    taught = _TeacherLabels({}, {}, {}, {})

    def label(name: str, call: LinearCall, output: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        # Positive, so that activations leave labels apart, and below 1, so that none saturates. Each channel has a
        # level of its own, so that pooling leaves them apart too.
        shape = [1] * output.dim()
        shape[call.channel_dim] = -1
        levels = torch.rand(output.shape[call.channel_dim], generator=random).view(shape)
        taught.labels[name] = 0.1 + 0.8 * levels + 0.1 * torch.rand(output.shape, generator=random)
        taught.inputs[name] = _signature(call.inputs, call.channel_dim)
        taught.calls[name] = call
        return taught.labels[name].clone()

    def record(name: str, output: Tensor, dim: int) -> None:
        taught.outputs[name] = _signature(output, dim)

    with torch.no_grad(), _label_channels(teacher, label, record):
        teacher(images)
    return taught


@contextmanager
def _label_channels(
    network: nn.Module,
    label: Callable[[str, LinearCall, Tensor], Tensor],
    record: Callable[[str, Tensor, int], None],
) -> Iterator[None]:
    """Let linear calls return `label(name, call, output)` and norms their input; `record` sees all outputs.

    A call has the name of its weight, or its number if the weight is computed. Modules' outputs are recorded too.
    """
    import torch
    import torch.nn.functional as F

    from edgerecover.models.network.linear_calls import ForwardMode
    from edgerecover.models.network.norms import batch_norms_of, first_tensor

    names = {id(weight): name for name, weight in network.named_parameters()}
    norms = (F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm)

    class Labels(ForwardMode):
        num_calls = 0

        def linear(self, call: LinearCall, output: Tensor) -> Tensor:
            self.num_calls += 1
            name = names.get(id(call.weight), f"call {self.num_calls}")
            output = label(name, call, output)
            record(name, output, call.channel_dim)
            return output

        def other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            return (args[0] if args else kwargs["input"]).clone() if function in norms else result

    # Frozen and custom norms compute with plain operators, which are not in `norms`.
    layers = set(batch_norms_of(network).values())

    def keep(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if not isinstance(output, torch.Tensor) or output.dim() < 2:
                return output
            if module in layers and (entering := first_tensor(inputs, named)) is not None:
                output = entering.clone()
            record(name, output, 1)
            return output

        return hook

    handles = [
        module.register_forward_hook(keep(name), with_kwargs=True) for name, module in network.named_modules() if name
    ]
    try:
        with Labels():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _signature(labels: Tensor, dim: int) -> Tensor:
    """Two numbers (C, 2) that identify channels along `dim`: the mean over the rest, plain and weighted by a ramp."""
    import torch

    values = labels.movedim(dim, 0).flatten(1).double()
    ramp = torch.linspace(0.5, 1.5, values.shape[1], dtype=torch.double)
    return torch.stack([values.mean(1), (values * ramp).mean(1)], 1)


def _same_labels(teacher_C2: Tensor, student_C2: Tensor) -> Tensor:
    """The teacher's channel with the same signature as each of the student's, each used once; `_UNKNOWN` if none."""
    import torch

    sources = torch.full((len(student_C2),), _UNKNOWN)
    waiting = teacher_C2[:, 0].argsort(stable=True).tolist()
    teacher, student = teacher_C2.tolist(), student_C2.tolist()
    levels = [teacher[t][0] for t in waiting]
    for s, (level, tilt) in enumerate(student):
        first, last = (bisect(levels, level + edge) for edge in (-_LABEL_TOLERANCE, _LABEL_TOLERANCE))
        differences = [(abs(levels[i] - level) + abs(teacher[waiting[i]][1] - tilt), i) for i in range(first, last)]
        if differences and min(differences)[0] <= 2 * _LABEL_TOLERANCE:
            nearest = min(differences)[1]
            levels.pop(nearest)
            sources[s] = waiting.pop(nearest)
    return sources


def _matching_rows(teacher: LinearCall, student: LinearCall, sources_I: Tensor) -> Tensor | None:
    """The teacher's output for each of the student's in a call, given the inputs' channels; None if one is missing."""
    num_inputs = teacher.weight.shape[1] * teacher.groups
    if not teacher.is_transposed and teacher.groups == num_inputs == teacher.num_outputs > 1:
        return sources_I if bool((sources_I != _UNKNOWN).all()) else None
    if teacher.is_transposed:
        return None
    if teacher.groups != 1:
        return _matching_rows_of_groups(teacher, student, sources_I)
    known = (sources_I != _UNKNOWN).nonzero().flatten()
    if not len(known):
        return None
    known = known[:: 1 + len(known) // _MAX_INPUTS]
    weight_t, weight_s = teacher.weight.detach(), student.weight.detach()
    rows_t, rows_s = weight_t[:, sources_I[known]].flatten(1), weight_s[:, known].flatten(1)
    return _assign(_row_distances(rows_s, rows_t))


def _matching_rows_of_groups(teacher: LinearCall, student: LinearCall, sources_I: Tensor) -> Tensor | None:
    """`_matching_rows` for grouped convolutions with as many groups as the teacher's."""
    import torch

    if student.groups != teacher.groups or bool((sources_I == _UNKNOWN).any()):
        return None
    weight_t, weight_s = (
        call.weight.detach().reshape(call.groups, -1, *call.weight.shape[1:]) for call in (teacher, student)
    )
    found = []
    for group, sources in enumerate(sources_I.view(teacher.groups, -1)):
        inside = sources - group * weight_t.shape[2]
        if bool(((inside < 0) | (inside >= weight_t.shape[2])).any()):
            return None
        rows = _assign(_row_distances(weight_s[group].flatten(1), weight_t[group][:, inside].flatten(1)))
        if rows is None:
            return None
        found.append(rows + group * weight_t.shape[1])
    return torch.cat(found)


def _row_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine between all pairs of rows, plus a little for different lengths; 0 between two rows of zeros."""
    lengths_s, lengths_t = (rows.double().norm(dim=1, keepdim=True) for rows in (student, teacher))
    tiny = 1e-300
    unit_s, unit_t = (
        (rows.double() / lengths.clamp_min(tiny)).float()
        for rows, lengths in ((student, lengths_s), (teacher, lengths_t))
    )
    ratio = lengths_s.clamp_min(tiny).log() - lengths_t.clamp_min(tiny).log().T
    distances: Tensor = 1 - unit_s @ unit_t.T + 0.01 * ratio.abs().clamp_max(1).float()
    return distances.masked_fill((lengths_s == 0) & (lengths_t == 0).T, 0.0)


def _assign(distances_ST: Tensor) -> Tensor | None:
    """Assign one teacher row to each student row, nearest pairs first; None if a row has none near enough."""
    import torch

    if distances_ST.shape[0] > distances_ST.shape[1]:
        return None
    distances_ST = distances_ST.clone()
    assigned = torch.full((len(distances_ST),), _UNKNOWN)
    for row in distances_ST.min(1).values.argsort(stable=True).tolist():
        column = int(distances_ST[row].argmin())
        if float(distances_ST[row, column]) > MAX_ROW_DISTANCE:
            return None
        assigned[row] = column
        distances_ST[:, column] = torch.inf
    return assigned

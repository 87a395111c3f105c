"""Reading a checkpoint into plain float32 tensors, however they are wrapped, without running code from it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import DENSE_MAX_SPARSITY
from edgerecover.models.read.archives import read_exported, read_torchscript
from edgerecover.models.read.cards import Card
from edgerecover.models.read.file_masks import Doubt
from edgerecover.models.read.formats import COPY_HINT, SAVE_HINT, Container, detect, onnx_error
from edgerecover.models.read.leftovers import counters, list_some
from edgerecover.models.read.own_cards import card_in
from edgerecover.models.read.parts import digest_of, read_distributed, read_shards, size_of
from edgerecover.models.read.records import PickleError, printable
from edgerecover.models.read.states import State, read_state
from edgerecover.models.read.tensors import TensorReader, is_tensor
from edgerecover.models.read.torch_files import Content, NoWeightsError, open_archive, read_stream, read_zip
from edgerecover.models.read.wrappings import find_weights
from edgerecover.models.read.zips import ZipError

if TYPE_CHECKING:
    from torch import Tensor

_USUAL_NAMES = re.compile(
    r"collections\.\w+|argparse\.Namespace|_codecs\.encode|(__builtin__|builtins)\.(set|dict|list|slice|complex)|__torch__.*"
    r"|numpy(\._?core\.multiarray)?\.(dtype|ndarray|scalar|_reconstruct)|torch\.(_utils|nn|storage|_tensor)\..*|torch\.serialization\._get_layout"
    r"|torch\.(\w*Storage|Size|device|dtype|Tensor|bool|u?int\d+|b?float\w+|complex\d+|q\w*int\d+|per_\w+|sparse_\w+)"
)
"""Names that checkpoints commonly import; others are shown to the user."""

_SMALL = 1e-6
_MIN_SMALL = 0.2
"""Of all weights; in trained networks, few channels fade by themselves."""
_NUM_NAMES_SHOWN = 3
_MASK_NAME = re.compile(r"(?:^|[^a-z])masks?(?:[^a-z]|$)", re.IGNORECASE)
_MASK_SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".safetensors")
"""Of files that may hold masks: "resnet20_masks.npz", but not "maskrcnn.pth"."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: CPU tensors, floating ones as float32, under the keys of a plain state_dict."""

    path: Path
    sha256: str
    size_bytes: int
    wording: str
    """The format in words, without the doubts that `format` adds."""
    tensors: dict[str, Tensor]
    """The weights, with masks of any tool applied."""
    masks: dict[str, Tensor]
    """Explicit masks by weight key: bool, True where the weight is kept; masks that keep everything are left out."""
    dense_tensors: dict[str, Tensor] | None
    """The teacher inside: the weights before masking, if any masked weight is not zero."""
    prefixes: tuple[str, ...] = ()
    """Prefixes that all keys shared and that were removed, outermost first."""
    classes: tuple[str, ...] = ()
    """Classes of a pickled module and its submodules, outermost first; none of them was imported."""
    under: tuple[str, ...] = ()
    """Keys that lead to the weights in the file."""
    arch: str | None = None
    """The name of an architecture that the training script left beside the weights."""
    card: Card | None = None
    """What the file itself says about its classes and its input."""
    example_shape: tuple[int, ...] | None = None
    """Shape (N, C, H, W) of the example input that the file was made with."""
    own_keys: dict[str, str] = field(default_factory=dict)
    """Key in the file, by key in `tensors`, where a wrapper or a pruning tool spells it differently."""
    aside: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that tools keep beside weights (masks, counts); a network that has such buffers gets them back."""
    mask_keys: frozenset[str] = frozenset()
    """Keys in `aside` of the masks that were used."""
    doubts: tuple[Doubt, ...] = ()
    """Tensors that may change the weights but were not used."""

    @property
    def is_of_lightning(self) -> bool:
        """Whether it holds a whole Lightning module: a network, and metrics, losses and the like beside it."""
        return self.wording.startswith("Lightning")

    @property
    def format(self) -> str:
        """The format in words; see `ModelFacts.format`."""
        return ", ".join((self.wording, *(doubt.text for doubt in self.doubts)))

    def as_spelled(self, keys: Set[str]) -> Checkpoint:
        """The checkpoint under the keys of a network, which may be spelled as in the file or have a tool's buffers.

        Raises:
            BadInputError: the weights need something else to be complete, and the network does not have it either.
        """
        doubts = tuple(doubt for doubt in self.doubts if not doubt.keys or not keys >= set(doubt.keys))
        if blocking := next((doubt for doubt in doubts if doubt.hint), None):
            raise BadInputError(f"{self.path}: {blocking.text}", hint=blocking.hint)
        names = {name: own for name, own in self.own_keys.items() if own in keys and name not in keys}
        aside = {key: tensor for key, tensor in self.aside.items() if key in keys}
        tensors, masks, dense = (
            {names.get(key, key): tensor for key, tensor in kept.items()}
            for kept in (self.tensors, self.masks, self.dense_tensors or {})
        )
        if dense:  # a network that applies its masks itself must not mask its teacher
            dense |= {
                key: tensor.new_ones(tensor.shape) if key in self.mask_keys else tensor for key, tensor in aside.items()
            }
        idle = counters(tensors, keys)
        words = f", {len(idle)} counters left out, {list_some(idle)}" if idle else ""
        return replace(
            self, wording=self.wording + words, tensors=tensors | aside, masks=masks, dense_tensors=dense or None,
            doubts=doubts, own_keys={}, aside={},
        ).without(idle)  # fmt: skip

    def with_prefix(self, prefix: str) -> Checkpoint:
        """The checkpoint with `prefix` before every key."""
        dense = self.dense_tensors
        return replace(
            self,
            tensors=_add_prefix(self.tensors, prefix),
            masks=_add_prefix(self.masks, prefix),
            dense_tensors=_add_prefix(dense, prefix) if dense is not None else None,
            prefixes=(),
            own_keys={prefix + key: prefix + own for key, own in self.own_keys.items()},
            # NNCF keeps masks at the top of the network, wherever the layers are.
            aside=self.aside | _add_prefix(self.aside, prefix),
            mask_keys=self.mask_keys | {prefix + key for key in self.mask_keys},
            doubts=tuple(doubt.with_prefix(prefix) for doubt in self.doubts),
        )

    def without_prefix(self, prefix: str) -> Checkpoint:
        """The checkpoint without a prefix that all its weights share."""
        dense = self.dense_tensors
        return replace(
            self,
            wording=f"{self.wording}, prefix '{printable(prefix)}'",
            tensors=_bare(self.tensors, prefix),
            masks=_bare(self.masks, prefix),
            dense_tensors=_bare(dense, prefix) if dense is not None else None,
            own_keys={key.removeprefix(prefix): own.removeprefix(prefix) for key, own in self.own_keys.items()},
            aside=_bare(self.aside, prefix),
            mask_keys=frozenset(key.removeprefix(prefix) for key in self.mask_keys),
            doubts=tuple(doubt.without_prefix(prefix) for doubt in self.doubts),
        )

    def under_prefix(self, prefix: str) -> Checkpoint:
        """What stands under a prefix alone, without the prefix: the network inside a Lightning module."""
        others = [key for key in self.tensors if not key.startswith(prefix)]
        words = f", {list_some(others)} beside it left out" if others else ""
        inside = self.without(others).without_prefix(prefix)
        return replace(inside, wording=inside.wording + words)

    def without(self, names: Collection[str]) -> Checkpoint:
        """The checkpoint without these tensors."""
        if not names:
            return self
        tensors, masks, dense = (
            {key: tensor for key, tensor in kept.items() if key not in names}
            for kept in (self.tensors, self.masks, self.dense_tensors or {})
        )
        return replace(self, tensors=tensors, masks=masks, dense_tensors=dense or None)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights of any format that docs/reference/formats.md lists, detected by content, not by suffix.

    Where a file holds weights and their running average (EMA, SWA), the average is taken if it has every tensor of the
    weights and as many zeros; an average over the pruning step has lost them.

    Raises:
        BadInputError: there is no such file, it is not a checkpoint or holds no tensors, or tensors are NaN, infinite,
            8-bit, complex, packed or absurdly large, or batch norm variances are negative.
    """
    with _open(path, detect(path)) as content, _faults_of(path, content):
        found = find_weights(content.root)
        own, average = (
            read_state(path, content.reader, weights, found.masks) if weights else None
            for weights in (found.plain, found.average)
        )
        chosen, words = _chosen(own, average)
    wording = [_wording(content, chosen), *words, *content.notes, *found.unused, *_beside(content, chosen)]
    wording += [f"prefix '{''.join(chosen.prefixes)}'"] if chosen.prefixes else []
    wording += [f"{chosen.cast_from} read as float32"] if chosen.cast_from else []
    return Checkpoint(
        path=path,
        sha256=digest_of(path),
        size_bytes=size_of(path),
        wording=", ".join([*wording, *chosen.words]),
        tensors=chosen.tensors,
        masks=chosen.masks,
        dense_tensors=chosen.dense_tensors,
        prefixes=chosen.prefixes,
        classes=chosen.weights.classes,
        under=chosen.weights.under,
        arch=found.arch,
        card=card_in(content.root),
        example_shape=content.example_shape,
        own_keys=chosen.own_keys,
        aside=chosen.aside,
        mask_keys=chosen.mask_keys,
        doubts=(*chosen.doubts, *_doubts_of_files(path, chosen), *_doubts_of_values(chosen)),
    )


def _doubts_of_files(path: Path, chosen: State) -> list[Doubt]:
    """Files of masks beside a checkpoint that is dense without them."""
    if chosen.masks or _fraction_zero(chosen.tensors) > DENSE_MAX_SPARSITY:
        return []
    try:
        files = [one for one in path.parent.iterdir() if one.suffix.lower() in _MASK_SUFFIXES and one != path]
    except OSError:  # the folder may not be listed, and the file was read
        return []
    names = sorted(printable(one.name) for one in files if _MASK_NAME.search(one.stem))
    why = 'not used: put them into the checkpoint, under "masks"'
    return [Doubt(f"{list_some(names)} beside it may be its masks, {why}", ())] if names else []


def _doubts_of_values(chosen: State) -> list[Doubt]:
    """Weights that are nearly zero in a checkpoint that is dense: some tools leave 1e-12 where they pruned."""
    weights = [tensor for tensor in chosen.tensors.values() if tensor.dim() >= 2 and tensor.is_floating_point()]
    if chosen.masks or _fraction_zero(chosen.tensors) > DENSE_MAX_SPARSITY:
        return []
    num_small = sum(int((tensor.abs() < _SMALL * tensor.abs().max()).sum()) for tensor in weights if tensor.numel())
    share = num_small / max(1, sum(tensor.numel() for tensor in weights))
    if share < _MIN_SMALL:
        return []
    what = f"{share:.1%} of the weights are below a millionth of their layer's largest"
    return [Doubt(f"{what}, but not zero: where they were pruned, set them to zero", ())]


# --- from bytes to a tree -------------------------------------------------------------------------------


@contextmanager
def _open(path: Path, container: Container) -> Iterator[Content]:
    """Open the file; its content can be read while the context lasts."""
    if container is Container.ONNX:
        raise onnx_error(path)
    if container is Container.SAFETENSORS:
        yield Content(_read_safetensors(path), TensorReader(_no_storage), "safetensors")
        return
    if container in (Container.SHARDS, Container.DISTRIBUTED):
        with _damage(path):
            content = read_distributed(path) if container is Container.DISTRIBUTED else read_shards(path, _read_shard)
        yield content
        return
    read_archive = {
        Container.ZIP: read_zip, Container.TORCHSCRIPT: read_torchscript, Container.EXPORTED: read_exported
    }  # fmt: skip
    with path.open("rb") as file:
        if container is Container.PICKLE:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                with _damage(path):
                    content = read_stream(stream, len(stream))
                yield content
            return
        with open_archive(path) as archive:
            with _damage(path):
                content = read_archive[container](archive)
            yield content


def _read_shard(path: Path) -> dict[str, Tensor]:
    with _open(path, detect(path)) as content, _faults_of(path, content):
        entries = content.root if isinstance(content.root, dict) else {}
        return {key: content.reader.tensor(value) for key, value in entries.items() if is_tensor(value)}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except Exception as error:  # hostile bytes raise anything
        reason = f"the safetensors file is damaged ({_first_line(error)})"
        raise BadInputError(f"{path}: {reason}", hint=COPY_HINT) from error


def _no_storage(key: str) -> bytearray:
    raise PickleError(f"storage {key[:40]!r} is not in the file")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged or hostile file raises into a message for people."""
    try:
        yield
    except BadInputError:
        raise
    except NoWeightsError as error:
        raise BadInputError(f"{path}: {error}", hint=error.hint or SAVE_HINT) from error
    except (ZipError, PickleError) as fault:
        raise BadInputError(
            f"{path}: cannot be read as a checkpoint; it is damaged, truncated or something else ({fault})",
            hint=f"{COPY_HINT} If so, {SAVE_HINT}",
        ) from fault
    except Exception as error:  # hostile bytes raise anything
        raise BadInputError(
            f"{path}: cannot be read as a checkpoint; it is damaged, truncated or something else "
            f"({type(error).__name__}: {_first_line(error)})",
            hint=f"{COPY_HINT} If so, {SAVE_HINT}",
        ) from error


@contextmanager
def _faults_of(path: Path, content: Content) -> Iterator[None]:
    """Turn errors of the search for weights into messages, which also name what the file wanted to import."""
    try:
        with _damage(path):
            yield
    except BadInputError as error:
        if not isinstance(error.__cause__, NoWeightsError):
            raise
        foreign = _foreign(content)
        also = f"; it holds Python objects ({foreign}), which are never run" if foreign else ""
        raise BadInputError(f"{path}: {error.__cause__}{also}", hint=error.hint) from error.__cause__


def _first_line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 200)


# --- of two sets of weights, one ----------------------------------------------------------------------


def _add_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _bare(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


def _chosen(own: State | None, average: State | None) -> tuple[State, list[str]]:
    """The weights or their average, and what to tell the user about the other."""
    if own is None or average is None:
        only = own or average
        assert only is not None, "find_weights gives one of them"
        return only, [] if own else ["the running average (EMA) of the weights"]
    wanted = {key for key in own.tensors if not key.endswith("num_batches_tracked")}
    if not wanted <= average.tensors.keys():
        return own, [f"not their average under '{'.'.join(average.weights.under)}', which lacks tensors"]
    if _fraction_zero(own.tensors) > _fraction_zero(average.tensors) + DENSE_MAX_SPARSITY:
        return own, [f"not their average under '{'.'.join(average.weights.under)}', which has fewer zeros"]
    if own.masks and own.dense_tensors is None:  # what an average has under the masks is from before they were complete
        average = replace(average, dense_tensors=None)
    beside = f" beside the plain ones under '{'.'.join(own.weights.under)}'" if own.weights.under else ""
    return average, [f"the running average (EMA) of the weights{beside}"]


def _fraction_zero(tensors: Mapping[str, Tensor]) -> float:
    weights = [tensor for tensor in tensors.values() if tensor.dim() >= 2]
    num_values = sum(weight.numel() for weight in weights)
    return sum(weight.numel() - int(weight.count_nonzero()) for weight in weights) / max(1, num_values)


# --- words ----------------------------------------------------------------------------------------------


def _wording(content: Content, chosen: State) -> str:
    weights = chosen.weights
    wording = content.kind if content.kind not in ("state_dict", "pickle") or not weights.kind else weights.kind
    if wording == "pickle":
        wording = "state_dict by pickle.dump"
    wording += f" of class {weights.classes[0]}" if weights.classes else ""
    wording += f" under '{'.'.join(map(printable, weights.under))}'" if weights.under else ""
    return f"{wording}, weights read without running it" if weights.classes else wording


def _beside(content: Content, chosen: State) -> list[str]:
    foreign = "" if chosen.weights.classes else _foreign(content)
    return [f"Python objects beside them left unopened ({foreign})"] if foreign else []


def _foreign(content: Content) -> str:
    """Names that unpickling would have imported beyond the usual, for messages."""
    foreign = sorted(name for name in content.names if not _USUAL_NAMES.fullmatch(name))
    more = f" and {len(foreign) - _NUM_NAMES_SHOWN} more" if len(foreign) > _NUM_NAMES_SHOWN else ""
    return ", ".join(map(printable, foreign[:_NUM_NAMES_SHOWN])) + more

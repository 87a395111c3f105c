"""Entries of a state_dict that are not weights, and packed weights that only the tool that packed them can unpack."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgerecover.models.read.records import printable

if TYPE_CHECKING:
    from torch import Tensor

_COUNTS = "operation counts of a profiler"

_BOOKKEEPING = (
    (
        "operation counts of a profiler",
        r"(?:.*\.)?(?:total_(?:ops|params|time)|__(?:flops|macs|params|batch_counter)__)",
    ),
    (
        "fake quantisation of torch.ao.quantization",
        r"(?:.*\.)?(?:weight_fake_quant|(?:\w+_)?activation_post_process(?:_\d+)?)\..*",
    ),
    ("weights that apex ASP pruned", r"(?:.*\.)?__[^.]+_mma_pruned_p"),
    ("fake quantisation of NVIDIA Model Optimizer", r"(?:.*\.)?(?:weight|input|output)_quantizer\._?amax"),
    ("fake quantisation of NNCF", r"(?:.*\.)?(?:__nncf_hooks|_nncf)\..*|(?:.*\.)pre_ops\.\d+\.op\..*"),
)
"""What a tool left behind, and a pattern for the whole key of its tensors."""

_COMPILED = tuple((words, re.compile(pattern)) for words, pattern in _BOOKKEEPING)

_TORCHSTAT = frozenset(
    ("input_shape", "output_shape", "parameter_quantity", "inference_memory", "MAdd", "duration", "Flops", "Memory")
)
"""Buffers that torchstat registers in every layer; only together do the names identify it."""

_FOREIGN_FORMS = (
    (
        r"(?:.*\.)?_?flat_param(?:_\d+)?",
        "is flattened by FSDP, and the shapes of the weights in it are not in the file",
        "save the full state_dict: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
        "options=StateDictOptions(full_state_dict=True, cpu_offload=True))",
    ),
    (
        r"(?:.*\.)?_packed_params(?:\..*)?",
        "is packed by torch.ao.quantization: the layer is an int8 one, whose float weights are gone",
        "give the float network, from before torch.ao.quantization.convert; edgerecover quantises what it exports",
    ),
    (
        r"(?:.*\.)?(?:weight_packed|weight_shape|compressed|bitmask|row_offsets)",
        "is packed by compressed-tensors",
        "decompress it: load it with transformers, or compressed_tensors' ModelCompressor, and save the state_dict",
    ),
    (
        r"(?:.*\.)?(?:weight\.(?:absmax|quant_map|nested_absmax|quant_state\..*)|SCB)",
        "is of a layer quantised by bitsandbytes",
        "dequantise it (model.dequantize()) and save the state_dict",
    ),
)
"""Pattern for the whole key, why such a tensor cannot be recovered from, and what to do."""

_FOREIGN_COMPILED = tuple((re.compile(pattern), fault, hint) for pattern, fault, hint in _FOREIGN_FORMS)

_LORA = re.compile(
    r"(?:.*\.)?(?:lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)|hada_w\d_[ab]|lokr_w\d.*)(?:\..*)?"
)
MERGE_HINT = "merge the adapter into the weights (PEFT: model = model.merge_and_unload()) and save the state_dict"


@dataclass(frozen=True)
class ForeignForm:
    """A packed tensor that only the tool that packed it can unpack."""

    key: str
    fault: str
    """What is wrong with it, in words that follow its name."""
    hint: str


def foreign_form(keys: Collection[str]) -> ForeignForm | None:
    """The first tensor that only the tool that packed it can unpack; None if there is none."""
    for key in keys:
        for pattern, fault, hint in _FOREIGN_COMPILED:
            # Compressed weights come with their shape; the names alone could be anybody's.
            if pattern.fullmatch(key) and ("compressed-tensors" not in fault or _is_compressed(key, keys)):
                return ForeignForm(key, fault, hint)
    return None


def _is_compressed(key: str, keys: Collection[str]) -> bool:
    path, _, leaf = key.rpartition(".")
    partner = {"weight_packed": "weight_shape", "weight_shape": "weight_packed", "bitmask": "compressed"}
    return f"{path}.{partner.get(leaf, 'bitmask')}".removeprefix(".") in keys


def is_adapter(key: str) -> bool:
    """Whether a key belongs to a low-rank adapter (as PEFT writes), which changes the weight beside it."""
    return bool(_LORA.fullmatch(key))


def take_leftovers(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take bookkeeping out of `tensors`, in place; returns what was taken and what to tell the user."""
    has_torchstat = any(key.rpartition(".")[2] == "parameter_quantity" for key in tensors)
    taken: dict[str, Tensor] = {}
    num_by_words: dict[str, int] = {}
    for key in list(tensors):
        words = next((words for words, pattern in _COMPILED if pattern.fullmatch(key)), "")
        if has_torchstat and key.rpartition(".")[2] in _TORCHSTAT:
            words = _COUNTS
        if words and (words != _COUNTS or tensors[key].numel() <= 4):
            taken[key] = tensors.pop(key)
            num_by_words[words] = num_by_words.get(words, 0) + 1
    return taken, [f"{words} left out ({num} tensors)" for words, num in num_by_words.items()]


def counters(tensors: Mapping[str, Tensor], known: Collection[str]) -> list[str]:
    """Keys of single integers that are not `known` to the network: steps, versions, flags; never weights."""
    return [
        key
        for key, tensor in tensors.items()
        if key not in known and tensor.numel() <= 1 and not tensor.is_floating_point()
    ]


def list_some(keys: Collection[str]) -> str:
    """The first key and the number of others, for messages: `'layer.mask' and 3 more`."""
    first = printable(next(iter(keys)))
    return f"'{first}'" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")

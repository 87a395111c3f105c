"""From a float32 ONNX file to MNN's own kind of file, with its zeros left out where MNN's kernels then do less.

Shapes: O output channels, I input channels per group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.models.onnx.file import read_onnx
from edgerecover.models.onnx.weights import OnnxWeight
from edgerecover.runtime.engine.mnn_file import BLOCK_O, LEAST_ZEROS, SUFFIX, convert
from edgerecover.runtime.machine.mnn_module import MNN

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOSTLY = 0.9
"""Share of a network's zeros that must stand in whole blocks for it to be treated as pruned in blocks. At random, 95 %
of zeros put 0.86 of them there."""


def file_for(runtime: str, onnx: Path, folder: Path | None = None) -> Path:
    """What a runtime opens of a network: the ONNX file; for MNN its own file, made where it is not there yet.

    Args:
        runtime: "onnxruntime", "openvino" or "mnn".
        onnx: the file, checked beforehand if it is a stranger's.
        folder: where MNN's file goes; None: beside the ONNX file.

    Raises:
        BadInputError: MNN does not take the file.
        MissingError: MNN is not installed.
    """
    if runtime != MNN:
        return onnx
    out = (folder or onnx.parent) / f"{onnx.stem}{SUFFIX}"
    if not out.is_file():
        file = read_onnx(onnx)
        if file.is_quantized or file.is_half:
            kind = "int8" if file.is_quantized else "float16"
            raise BadInputError(
                f"{onnx.name} is {kind}, and MNN is given float32 files alone",
                hint="MNN's converter crashes on int8 (Q/DQ); it computes float16 files in float32",
            )
        convert(onnx, out, block_O=block_of(zeros_of(file.weights())))
    return out


def zeros_of(weights: Iterable[OnnxWeight]) -> Iterator[NDArray[Any]]:
    """Where each weight is zero, (O, I × kernel); those of more groups or of a hidden order are left out."""
    import numpy as np

    for weight in weights:
        if weight.input_axis is not None and weight.is_zero.ndim >= 2:
            output_axis = 1 if weight.is_zero.ndim == 2 and weight.input_axis == 0 else 0
            zeros = np.moveaxis(weight.is_zero, output_axis, 0)
            yield zeros.reshape(len(zeros), -1)


def block_of(zeros: Iterable[NDArray[Any]]) -> int:
    """How many output channels in a row share their zeros: `BLOCK_O`, or 1.

    Args:
        zeros: of each weight, bool (O, I × kernel).
    """
    import numpy as np

    num_zeros = num_in_blocks = 0
    for zeros_OI in zeros:
        if zeros_OI.mean() > LEAST_ZEROS[BLOCK_O]:
            whole_OI = zeros_OI[: len(zeros_OI) // BLOCK_O * BLOCK_O]
            num_zeros += int(np.count_nonzero(whole_OI))
            blocks = whole_OI.reshape(-1, BLOCK_O, zeros_OI.shape[1]).all(axis=1)
            num_in_blocks += BLOCK_O * int(np.count_nonzero(blocks))
    return BLOCK_O if num_zeros and num_in_blocks >= _MOSTLY * num_zeros else 1

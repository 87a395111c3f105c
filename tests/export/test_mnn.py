import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgerecover.errors import BadInputError
from edgerecover.export.mnn import block_of, file_for, zeros_of
from edgerecover.models.onnx.file import read_onnx

RANDOM = np.random.default_rng(0)


def at_random(share, shape=(64, 32)):
    return RANDOM.random(shape) < share


def in_blocks(share, shape=(64, 32)):
    return np.repeat(at_random(share, (shape[0] // 4, shape[1])), 4, axis=0)


@pytest.mark.parametrize(
    ("zeros", "block_O"),
    [
        ([], 1),
        ([at_random(0.0)], 1),
        ([at_random(0.8)], 1),
        ([at_random(0.95)], 1),
        ([in_blocks(0.8)], 4),
        ([in_blocks(0.8), at_random(0.05)], 4),
        ([in_blocks(0.8), at_random(0.8)], 1),
        ([np.ones((66, 32), bool)], 4),
    ],
)
def test_blocks_are_seen_where_nearly_all_zeros_stand_in_them(zeros, block_O):
    assert block_of(zeros) == block_O


def test_outputs_come_first_whatever_the_layer(write_onnx, tmp_path):
    """A Conv has its outputs first, a Gemm last."""
    path = write_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    for one in model.graph.initializer:
        weight = numpy_helper.to_array(one).copy()
        (weight if weight.ndim == 4 else weight.T)[3] = 0.0
        one.CopyFrom(numpy_helper.from_array(weight, one.name))
    onnx.save(model, path)
    found = list(zeros_of(read_onnx(path).weights()))
    assert [one.shape for one in found] == [(8, 27), (5, 8)]
    assert all(one[3].all() and not np.delete(one, 3, 0).any() for one in found)


def test_other_runtimes_open_the_onnx_file(tmp_path):
    assert file_for("openvino", tmp_path / "net.onnx") == tmp_path / "net.onnx"


def test_mnn_gets_its_own_file_which_is_made_once(write_onnx, tmp_path):
    pytest.importorskip("_mnncengine", reason="MNN is an extra")
    path = write_onnx(tmp_path / "net.onnx")
    made = file_for("mnn", path)
    assert made == tmp_path / "net.mnn"
    first = made.stat().st_mtime_ns
    assert file_for("mnn", path).stat().st_mtime_ns == first
    (tmp_path / "elsewhere").mkdir()
    assert file_for("mnn", path, tmp_path / "elsewhere").read_bytes() == made.read_bytes()


def test_mnn_is_given_float32_alone(write_onnx, tmp_path):
    with pytest.raises(BadInputError, match=r"half\.onnx is float16, and MNN is given float32 files alone"):
        file_for("mnn", write_onnx(tmp_path / "half.onnx", dtype="float16"))

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgerecover.errors import BadInputError
from edgerecover.runtime.engine import mnn_file
from edgerecover.runtime.engine.mnn_file import convert
from edgerecover.runtime.session.opening import open_model
from edgerecover.runtime.session.providers import CPU

pytest.importorskip("_mnncengine", reason="MNN is an extra")

OFFLINE = """
import sys

ALLOWED = {"socket.gethostname"}

def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")):
        if event not in ALLOWED:
            raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
from edgerecover.runtime.engine.mnn_file import main

status = main(sys.argv[1:])
loaded = [name for name in sys.modules if name.split(".")[0] in ("MNN", "aliyun", "pip", "urllib3", "requests")]
print(f"status {status}, loaded {loaded}")
"""


def sparse(onnx_path, make):
    """The file with the zeros that `make` puts into its convolution."""
    model = onnx.load(onnx_path)
    (conv,) = (one for one in model.graph.initializer if one.name == "conv.weight")
    weight = numpy_helper.to_array(conv).copy()
    make(weight)
    conv.CopyFrom(numpy_helper.from_array(weight, conv.name))
    onnx.save(model, onnx_path)
    return onnx_path


def in_blocks(weight):
    weight[:4, :, 0] = weight[4:, :, 2] = 0.0
    weight[:, :1] = 0.0


def test_it_is_made_without_a_network_and_without_other_programs(write_onnx, tmp_path):
    """The console script of MNN runs pip and reports to its makers; what is used here does neither."""
    onnx_path = write_onnx(tmp_path / "net.onnx")
    command = [sys.executable, "-c", OFFLINE, "--onnx", str(onnx_path), "--out", str(tmp_path / "net.mnn")]
    without_network = ["unshare", "--net", "--map-root-user"]
    try:
        cut_off = subprocess.run([*without_network, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        cut_off = False
    done = subprocess.run(
        [*(without_network if cut_off else []), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.splitlines()[-1] == "status 0, loaded []", done.stderr
    assert (tmp_path / "net.mnn").stat().st_size > 0


def test_the_same_file_gives_the_same_bytes(write_onnx, tmp_path):
    onnx_path = write_onnx(tmp_path / "net.onnx")
    for name in ("first.mnn", "second.mnn"):
        convert(onnx_path, tmp_path / name)
    assert (tmp_path / "first.mnn").read_bytes() == (tmp_path / "second.mnn").read_bytes()


@pytest.mark.parametrize(("block_O", "leaves_out"), [(1, False), (4, True)])
def test_zeros_in_blocks_are_left_out_where_it_is_told_of_blocks(write_onnx, tmp_path, block_O, leaves_out):
    """Of 216 weights, 120 are zeros in blocks of four: 56 %, between the two limits."""
    dense = write_onnx(tmp_path / "dense.onnx")
    convert(dense, tmp_path / "dense.mnn", block_O=block_O)
    blocks = sparse(write_onnx(tmp_path / "blocks.onnx"), in_blocks)
    convert(blocks, tmp_path / "blocks.mnn", block_O=block_O)
    sizes = [(tmp_path / name).stat().st_size for name in ("dense.mnn", "blocks.mnn")]
    assert (sizes[0] != sizes[1]) is leaves_out
    images = np.random.default_rng(1).standard_normal((5, 3, 8, 8), np.float32)
    theirs, ours = (
        open_model(path, runtime, (CPU,), num_threads=1).run(images)
        for path, runtime in ((blocks, "onnxruntime"), (tmp_path / "blocks.mnn", "mnn"))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_few_weights_make_a_small_file(write_onnx, tmp_path):
    def prune(weight):
        weight.reshape(-1)[: int(0.9 * weight.size)] = 0.0

    convert(write_onnx(tmp_path / "dense.onnx"), tmp_path / "dense.mnn")
    convert(sparse(write_onnx(tmp_path / "sparse.onnx"), prune), tmp_path / "sparse.mnn")
    dense, pruned = ((tmp_path / name).stat().st_size for name in ("dense.mnn", "sparse.mnn"))
    # A kept weight takes four bytes, and four for its place: 216 × 4 bytes become 22 × 8, and a few for the table.
    assert dense - pruned > 300


def test_a_conversion_that_hangs_or_crashes_is_the_files_fault(write_onnx, tmp_path, monkeypatch):
    onnx_path = write_onnx(tmp_path / "net.onnx")
    with pytest.raises(BadInputError, match="did not finish within"):
        convert(onnx_path, tmp_path / "net.mnn", timeout_s=0.001)
    killed = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(mnn_file, "run_fresh", lambda *_, **__: killed)
    with pytest.raises(BadInputError, match=r"crashes on it \(signal 11\)"):
        convert(onnx_path, tmp_path / "net.mnn")

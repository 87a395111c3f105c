import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edgerecover.errors import BadInputError, MissingError, pip_line
from edgerecover.runtime.engine.mnn_file import convert
from edgerecover.runtime.machine import mnn_module
from edgerecover.runtime.session.opening import open_model
from edgerecover.runtime.session.providers import CPU

_mnncengine = pytest.importorskip("_mnncengine", reason="MNN is an extra")

SHAPE = (3, 8, 8)


def images(num_images):
    return np.random.default_rng(1).standard_normal((num_images, *SHAPE), np.float32)


def opened(path, **options):
    return open_model(path, "mnn", (CPU,), **{"num_threads": 1, "shape_CHW": SHAPE, **options})


@pytest.fixture
def reference(write_onnx, tmp_path):
    return open_model(write_onnx(tmp_path / "plain.onnx"), "onnxruntime", (CPU,), num_threads=1).run(images(9))


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 1},
        {"batch": 7},
        {"opset": 13},
        {"channels_last": True},
        {"sides": (None, None)},
        {"extra_outputs": True},
        {"external": "weights.bin"},
        {"zeros": range(0, 200)},
    ],
    ids=str,
)
def test_it_answers_as_onnxruntime_does(write_onnx, tmp_path, options):
    path = write_onnx(tmp_path / "net.onnx", **options)
    reference = open_model(path, "onnxruntime", (CPU,), num_threads=1, shape_CHW=SHAPE, num_values=5).run(images(9))
    session = opened(path, strict=True, num_values=5)
    scores = session.run(images(9))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference, atol=1e-4)
    assert session.outputs[session.output_indices[0]] != "features"


def test_what_it_says_of_itself(write_onnx, tmp_path, capfd):
    session = opened(write_onnx(tmp_path / "net.onnx", batch=2))
    assert (session.runtime, session.provider, session.providers) == ("mnn", "CPU", ("CPU",))
    assert session.version == _mnncengine.version()
    assert (session.num_threads, session.batch, session.copies, session.cuda_graph) == (1, 2, False, False)
    assert session.load_ms > 0
    assert session.nodes_by_provider["CPU"] >= 3
    assert not [name for name in sys.modules if name.startswith("MNN.tools")]
    assert session.notes == ("floating point in float32 (precision: high)",)
    assert capfd.readouterr() == ("", "")


def test_its_own_file_answers_as_the_onnx_file_it_was_made_of(write_onnx, tmp_path, reference):
    onnx = write_onnx(tmp_path / "net.onnx")
    convert(onnx, tmp_path / "net.mnn")
    onnx.unlink()
    session = opened(tmp_path / "net.mnn", batch=4)
    np.testing.assert_allclose(session.run(images(9)), reference, atol=1e-4)
    assert (session.batch, session.path.name) == (4, "net.mnn")


def test_nothing_is_left_of_a_conversion(write_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    session = opened(write_onnx(tmp_path / "net.onnx"))
    session.run(images(1))
    del session
    (tmp_path / "broken.onnx").write_bytes(b"not an ONNX file")
    with pytest.raises(BadInputError, match="does not take it"):
        opened(tmp_path / "broken.onnx")
    assert not list((tmp_path / "temporary").iterdir())


def test_scores_of_one_call_outlive_the_next(write_onnx, tmp_path):
    session = opened(write_onnx(tmp_path / "net.onnx", batch=1))
    first = session.run_batch(session.feed(images(2)[:1]))[0]
    kept = first.copy()
    session.run_batch(session.feed(images(2)[1:]))
    np.testing.assert_array_equal(first, kept)


def test_a_device_that_it_does_not_run_on(write_onnx, tmp_path):
    path = write_onnx(tmp_path / "net.onnx", batch=1)
    assert open_model(path, "mnn", ("GPU",)).provider == "CPU"
    with pytest.raises(MissingError, match=r"asked for GPU and runs net\.onnx on the CPU"):
        open_model(path, "mnn", ("GPU",), strict=True)


def test_what_cannot_be_run_is_refused_in_one_line(write_onnx, tmp_path, capfd):
    (tmp_path / "broken.onnx").write_bytes(b"not an ONNX file" * 20)
    (tmp_path / "broken.mnn").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"broken\.onnx: MNN's converter does not take it") as caught:
        opened(tmp_path / "broken.onnx")
    assert "\n" not in caught.value.message
    with pytest.raises(BadInputError, match=r"broken\.mnn: MNN cannot open it"):
        opened(tmp_path / "broken.mnn")
    with pytest.raises(BadInputError, match="MNN's converter does not take it"):
        opened(write_onnx(tmp_path / "net.onnx", operator="Shuffle"))
    with pytest.raises(BadInputError, match="no such file"):
        opened(tmp_path / "gone.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_machine_without_it(write_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(mnn_module, "PathFinder", SimpleNamespace(find_spec=lambda name, path: None))
    with pytest.raises(MissingError, match="MNN is not installed") as caught:
        opened(write_onnx(tmp_path / "net.onnx"))
    assert caught.value.exit_code == 3
    assert caught.value.hint == pip_line("install 'MNN>=3.6.1,<4'")

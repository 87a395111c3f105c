import tempfile

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.session import CHUNK_WHEN_DYNAMIC, CPU, open_session


def images(num_images, shape=(3, 4, 4)):
    return np.random.default_rng(1).standard_normal((num_images, *shape), np.float32)


@pytest.mark.parametrize("num_images", [1, 4, 9, CHUNK_WHEN_DYNAMIC + 1])
def test_batches_do_not_change_the_logits(classifier, dynamic_classifier, num_images):
    static = open_session(classifier, [CPU], num_threads=1)
    dynamic = open_session(dynamic_classifier, [CPU], num_threads=1)
    assert (static.batch, dynamic.batch) == (4, None)
    logits = static.run(images(num_images))
    assert logits.shape == (num_images, 5)
    one_by_one = np.concatenate([dynamic.run(image[None]) for image in images(num_images)])
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)
    np.testing.assert_allclose(dynamic.run(images(num_images)), one_by_one, atol=1e-5)


def test_nodes_are_counted_by_the_provider_that_ran_them(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "traces"))
    (tmp_path / "traces").mkdir()
    session = open_session(classifier, [CPU], num_threads=1)
    assert list(session.nodes_by_provider) == [CPU]
    assert session.nodes_by_provider[CPU] >= 3
    assert session.provider == CPU
    assert not list((tmp_path / "traces").iterdir())


def test_threads_are_the_ones_asked_for_or_those_onnxruntime_started(classifier):
    assert open_session(classifier, [CPU], num_threads=3).num_threads == 3
    assert open_session(classifier, [CPU]).num_threads >= 1


def test_a_provider_that_is_not_here_gives_way_to_the_cpu(classifier, capfd):
    session = open_session(classifier, ["NoSuchExecutionProvider", CPU], num_threads=1)
    assert session.provider == CPU
    assert session.providers == (CPU,)
    assert capfd.readouterr() == ("", "")


def test_strict_refuses_a_provider_that_ran_nothing(classifier):
    with pytest.raises(MissingError, match=r"NoSuchExecutionProvider .* ran no node .* nodes on CPU") as caught:
        open_session(classifier, ["NoSuchExecutionProvider"], num_threads=1, strict=True)
    assert "onnxruntime build" in caught.value.hint
    assert open_session(classifier, [CPU], num_threads=1, strict=True).provider == CPU


@pytest.mark.parametrize("content", [b"", b"not an ONNX file" * 20, b"\x08\x0a" * 100])
def test_a_broken_file_is_bad_input_and_quiet(tmp_path, capfd, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(BadInputError, match=r"broken\.onnx"):
        open_session(tmp_path / "broken.onnx", [CPU])
    assert capfd.readouterr() == ("", "")


def test_a_truncated_file_is_bad_input(classifier):
    classifier.write_bytes(classifier.read_bytes()[:-200])
    with pytest.raises(BadInputError, match="cannot open it"):
        open_session(classifier, [CPU])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.onnx: no such file"):
        open_session(tmp_path / "nothing.onnx", [CPU])


def test_a_file_that_is_no_image_classifier(tmp_path):
    graph = make_graph(
        [make_node("Add", ["a", "b"], ["c"])],
        "sum",
        [make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "ab"],
        [make_tensor_value_info("c", onnx.TensorProto.FLOAT, [2])],
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), tmp_path / "sum.onnx")
    with pytest.raises(BadInputError, match="one floating-point input"):
        open_session(tmp_path / "sum.onnx", [CPU])


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 5, 4), (0, 3, 4, 4)])
def test_images_of_another_shape_are_refused(classifier, shape):
    with pytest.raises(BadInputError, match=r"\(N, 3, 4, 4\)"):
        open_session(classifier, [CPU], num_threads=1).run(np.zeros(shape, np.float32))

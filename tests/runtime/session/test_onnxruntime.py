import tempfile

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.runtime.session.opened import CHUNK_WHEN_DYNAMIC


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


def test_int8_can_be_summed_as_the_file_says(int8_classifier):
    """Whatever the processor has. Without VNNI onnxruntime's own sums saturate, of signed activations, too."""
    path, images_NCHW, meant_NK = int8_classifier
    session = open_session(path, [CPU], num_threads=1, exact_int8=True)
    np.testing.assert_allclose(session.run(images_NCHW), meant_NK, atol=1e-5)
    assert session.nodes_by_provider[CPU] >= 1
    # With VNNI the scores are the same without the entry: that it was asked for is seen here alone.
    entry = "session.x64quantprecision"
    assert session._session.get_session_options().get_session_config_entry(entry) == "1"
    plain = open_session(path, [CPU], num_threads=1)._session.get_session_options()
    with pytest.raises(RuntimeError, match=entry):
        plain.get_session_config_entry(entry)


def test_a_weight_in_int8_alone_does_not_round_what_it_is_multiplied_by(tmp_path):
    """By default onnxruntime 1.32 rounds it to 8 bits: findings/onnxruntime-rounds-activations-of-int8-weights.sh."""
    random = np.random.default_rng(0)
    weight = random.integers(-100, 100, (48, 16)).astype(np.int8)
    stored = {"w": weight, "s": np.float32(0.01), "z": np.int8(0)}
    nodes = [
        make_node("Flatten", ["input"], ["flat"]),
        make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        make_node("MatMul", ["flat", "wd"], ["logits"]),
    ]
    graph = make_graph(
        nodes,
        "g",
        [make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 4, 4])],
        [make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 16])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", [CPU], num_threads=1, exact_int8=True)
    meant = images(4).reshape(4, 48).astype(np.float64) @ (weight.astype(np.float64) * 0.01)
    assert np.abs(session.run(images(4)) - meant).max() < 1e-4 * meant.std()


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


# --- files as others write them -----------------------------------------------------------------------------

SHAPE = (3, 8, 8)


@pytest.fixture
def reference(write_onnx, tmp_path):
    """What the plain file answers to these images."""
    return open_session(write_onnx(tmp_path / "plain.onnx"), [CPU], num_threads=1).run(images(9, SHAPE))


@pytest.mark.parametrize(
    "options",
    [
        *({"opset": opset} for opset in (11, 13, 17, 20, 22, 23)),
        {"batch": 1},
        {"batch": 7},
        {"dtype": "float16"},
        {"channels_last": True},
        {"channels_last": True, "batch": 4, "dtype": "float16"},
        {"names": ("pixel_values:0", "StatefulPartitionedCall/output")},
        {"sides": ("height", "width")},
        {"sides": (None, None), "channels_last": True},
        {"extra_outputs": True},
        {"external": "weights.bin"},
    ],
    ids=str,
)
def test_files_of_any_make_answer_alike(write_onnx, tmp_path, reference, options):
    path = write_onnx(tmp_path / "net.onnx", **options)
    session = open_session(path, [CPU], num_threads=1, strict=True, shape_CHW=SHAPE, num_values=5)
    scores = session.run(images(9, SHAPE))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference, atol=2e-2 if options.get("dtype") == "float16" else 1e-4)
    assert session.outputs[session.output_indices[0]] != "features"


def test_the_classes_settle_which_output_is_meant(write_onnx, tmp_path):
    path = write_onnx(tmp_path / "net.onnx", extra_outputs=True)
    assert open_session(path, [CPU], num_threads=1, num_values=5).run(images(2, SHAPE)).shape == (2, 5)
    assert open_session(path, [CPU], num_threads=1, num_values=8).run(images(2, SHAPE)).shape == (2, 8)
    with pytest.raises(BadInputError, match=r"K = 10 was expected, found features float32 \(1, 8\), logits"):
        open_session(path, [CPU], num_threads=1, num_values=10).run(images(2, SHAPE))


def test_a_batch_that_is_open_in_name_only(write_onnx, tmp_path, reference):
    """A Reshape to one image, as exporters leave it: the file says N and means 1."""
    path = write_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.op_type = "Reshape"
    del flatten.attribute[:]
    flatten.input.append("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 8]), "shape"))
    onnx.save(model, path)
    scores = open_session(path, [CPU], num_threads=1).run(images(9, SHAPE))
    np.testing.assert_allclose(scores, reference, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "uint8"}, r"floating-point input \(N, 3, 8, 8\) was expected, found input tensor\(uint8\)"),
        ({"sides": (9, 8)}, r"found input tensor\(float\) \(batch, 3, 9, 8\)"),
        ({"batch": 2**40}, r"found input tensor\(float\) \(1099511627776, 3, 8, 8\)"),
        ({"ir_version": 99}, "IR version"),
        ({"opset": 99}, "99"),
        ({"operator": "Shuffle"}, "Shuffle"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_in_one_line(write_onnx, tmp_path, options, words):
    path = write_onnx(tmp_path / "net.onnx", **options)
    with pytest.raises(BadInputError, match=words) as caught:
        open_session(path, [CPU], num_threads=1, shape_CHW=SHAPE)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert "onnxruntime_src" not in caught.value.message


def test_hints_fit_the_failure(write_onnx, tmp_path):
    hints = {}
    for name, options in {"ir": {"ir_version": 99}, "opset": {"opset": 99}, "own": {"operator": "Shuffle"}}.items():
        with pytest.raises(BadInputError) as caught:
            open_session(write_onnx(tmp_path / f"{name}.onnx", **options), [CPU])
        hints[name] = caught.value.hint
    assert "ir_version" in hints["ir"]
    assert "lower opset" in hints["opset"]
    assert "standard ONNX operators" in hints["own"]

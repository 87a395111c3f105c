import subprocess
import sys

import numpy as np
import onnx
import pytest

from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.session.opening import RUNTIMES, open_model
from edgerecover.runtime.session.providers import CPU

openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra")

SHAPE = (3, 8, 8)


def images(num_images, shape=SHAPE):
    return np.random.default_rng(1).standard_normal((num_images, *shape), np.float32)


def opened(path, **options):
    return open_model(path, "openvino", (CPU,), **{"num_threads": 1, "shape_CHW": SHAPE, **options})


@pytest.fixture
def reference(write_onnx, tmp_path):
    return open_model(write_onnx(tmp_path / "plain.onnx"), "onnxruntime", (CPU,), num_threads=1).run(images(9))


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 1},
        {"batch": 7},
        {"opset": 13},
        {"dtype": "float16", "batch": 1},
        {"channels_last": True},
        {"sides": (None, None)},
        {"extra_outputs": True},
        {"external": "weights.bin"},
    ],
    ids=str,
)
def test_it_answers_as_onnxruntime_does(write_onnx, tmp_path, reference, options):
    session = opened(write_onnx(tmp_path / "net.onnx", **options), strict=True, num_values=5)
    scores = session.run(images(9))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference, atol=2e-2 if "dtype" in options else 1e-4)
    assert session.outputs[session.output_indices[0]] != "features"


def with_weight(path, tensor):
    """Flatten and a MatMul with a weight of 192 by 5 that is cast to float32."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Cast", ["w"], ["cast"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["flat", "cast"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, *SHAPE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 5])],
        [tensor],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_tensors_that_openvino_misreads_are_refused_by_name(tmp_path, kind):
    """findings/openvino-float8-in-int32-data.sh shows the numbers that it gives."""
    values = np.random.default_rng(0).integers(-3, 4, (192, 5)).astype(np.float32)
    data_type = getattr(onnx.TensorProto, kind)
    misread = onnx.helper.make_tensor("w", data_type, values.shape, values.ravel())
    assert misread.int32_data
    path = with_weight(tmp_path / "misread.onnx", misread)
    with pytest.raises(BadInputError, match=r"OpenVINO 20\S+ misreads it: 'w' of bfloat16 or float8"):
        opened(path)
    expected = open_model(path, "onnxruntime", (CPU,), num_threads=1, shape_CHW=SHAPE).run(images(2))
    raw = onnx.numpy_helper.from_array(values.astype(onnx.helper.tensor_dtype_to_np_dtype(data_type)), "w")
    found = opened(with_weight(tmp_path / "raw.onnx", raw)).run(images(2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_what_it_says_of_itself(write_onnx, tmp_path):
    session = opened(write_onnx(tmp_path / "net.onnx", batch=1))
    assert (session.runtime, session.provider, session.providers) == ("openvino", "CPU", ("CPU",))
    assert openvino.__version__.startswith(session.version)
    assert (session.num_threads, session.batch, session.copies, session.cuda_graph) == (1, 1, False, False)
    assert session.load_ms > 0
    assert session.nodes_by_provider["CPU"] >= 3


def test_float32_files_run_in_float32_whatever_the_processor_would_rather(write_onnx, tmp_path):
    session = opened(write_onnx(tmp_path / "net.onnx", batch=1))
    assert set(session.layers_by_arithmetic) == {"f32"}
    own = str(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name())
    assert session.notes[0].startswith("floating point in f32, as the file says")
    assert ("own choice on this machine is" in session.notes[0]) == (own != "f32")


def test_an_open_batch_is_compiled_for_the_size_that_is_known(write_onnx, tmp_path, reference):
    path = write_onnx(tmp_path / "net.onnx")
    assert opened(path).batch is None
    assert opened(path, batch=4).batch == 4
    np.testing.assert_allclose(opened(path, batch=4).run(images(9)), reference, atol=1e-4)


def test_scores_of_one_call_outlive_the_next(write_onnx, tmp_path):
    session = opened(write_onnx(tmp_path / "net.onnx", batch=1))
    first = session.run_batch(session.feed(images(2)[:1]))[0]
    kept = first.copy()
    session.run_batch(session.feed(images(2)[1:]))
    np.testing.assert_array_equal(first, kept)


def test_a_device_that_is_not_here(write_onnx, tmp_path):
    path = write_onnx(tmp_path / "net.onnx", batch=1)
    session = open_model(path, "openvino", ("NPU", "CPU"), num_threads=1)
    assert session.provider == "CPU"
    assert session.notes[-1] == "NPU not here: run on CPU"
    with pytest.raises(MissingError, match=r"asked for NPU and would run net\.onnx on CPU"):
        open_model(path, "openvino", ("NPU",), strict=True)


@pytest.mark.parametrize("content", [b"", b"not an ONNX file" * 20, b"\x08\x0a" * 100])
def test_a_broken_file_is_bad_input_and_quiet(tmp_path, capfd, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(
        BadInputError, match=r"broken\.onnx: OpenVINO cannot open it|broken\.onnx: one floating"
    ) as caught:
        opened(tmp_path / "broken.onnx")
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_run_is_refused_in_one_line(write_onnx, tmp_path):
    for options, words in (({"dtype": "uint8"}, "found input u8"), ({"operator": "Shuffle"}, "Shuffle")):
        with pytest.raises(BadInputError, match=words):
            opened(write_onnx(tmp_path / "net.onnx", **options))
    with pytest.raises(BadInputError, match="no such file"):
        opened(tmp_path / "gone.onnx")


def test_int8_runs_in_int8(write_onnx, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self._left = iter([{"input": images(1)} for _ in range(4)])

        def get_next(self):
            return next(self._left, None)

    source = write_onnx(tmp_path / "net.onnx", batch=1, opset=18)
    model = onnx.load(source)
    onnx.save(onnx.shape_inference.infer_shapes(model), source)
    quantize_static(source, tmp_path / "int8.onnx", Images(), quant_format=QuantFormat.QDQ)
    kinds = opened(tmp_path / "int8.onnx").layers_by_arithmetic
    assert kinds.keys() & {"i8", "u8"}


def test_int8_can_be_computed_as_the_file_says(int8_classifier):
    """Its own int8 kernels saturate without VNNI, as onnxruntime's do."""
    path, images_NCHW, meant_NK = int8_classifier
    session = opened(path, shape_CHW=(32, 4, 4), exact_int8=True)
    np.testing.assert_allclose(session.run(images_NCHW), meant_NK, atol=1e-5)
    assert session.layers_by_arithmetic.keys() == {"f32"}


def test_importing_it_sends_nothing():
    """The module that reports the import is not loaded; converting models, which it is for, still can be asked for."""
    program = (
        "import sys; from edgerecover.runtime.session.openvino import import_openvino; import_openvino(); "
        "print([name for name in sys.modules if 'telemetry' in name], 'openvino.tools.ovc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_no_such_runtime(write_onnx, tmp_path):
    with pytest.raises(BadInputError, match="'abacus'") as caught:
        open_model(write_onnx(tmp_path / "net.onnx"), "abacus", (CPU,))
    assert all(runtime in caught.value.hint for runtime in RUNTIMES)

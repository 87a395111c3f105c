"""What is found out about an ONNX file before onnxruntime may see it."""

import math
import pickle
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx.helper import make_function, make_node, make_opsetid

from edgerecover.artifacts import Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.onnx.file import last_activation, own_operators, read_onnx
from edgerecover.runtime.session.onnxruntime import CPU, open_session

SHAPE = (3, 8, 8)


def test_facts_are_those_of_the_file(write_onnx, tmp_path):
    file = read_onnx(write_onnx(tmp_path / "net.onnx", opset=17, zeros=range(54)))
    assert (file.opset, file.external, file.is_quantized, file.is_half) == (17, (), False, False)
    assert [(layer.name, layer.num_weights, layer.num_zeros) for layer in file.sparsity.layers] == [
        ("conv.weight", 216, 54),
        ("fc.weight", 40, 0),
    ]
    assert file.sparsity.pattern is Pattern.UNSTRUCTURED
    assert file.facts.num_parameters == 256
    exported = file.exported(batch=None)
    assert (exported.num_weights, exported.num_nonzero, exported.size_bytes) == (256, 202, file.path.stat().st_size)


INT8_WEIGHT = np.array([[7, 1, 2, 3], [3, 7, 7, 4]], np.int8)  # 3 of 8 are its zero point
ZERO, ONE = np.int8(7), np.float32(1)
QUANTIZE = make_node("QuantizeLinear", ["flat", "s", "xz"], ["x"])
LINEAR = {"w": INT8_WEIGHT.T.copy(), "z": ZERO, "s": ONE, "xz": np.uint8(0)}
CONVOLVED = {**LINEAR, "w": INT8_WEIGHT[:, :, None, None]}
TO_FLOAT = [make_node("Cast", ["y"], ["f"], to=TensorProto.FLOAT)]
DEQUANTIZE = [make_node("DequantizeLinear", ["y", "s", "xz"], ["f"])]


@pytest.mark.parametrize(
    ("nodes", "stored"),
    [
        ([QUANTIZE, make_node("MatMulInteger", ["x", "w", "xz", "z"], ["y"]), *TO_FLOAT], LINEAR),
        (
            [
                QUANTIZE,
                make_node("QGemm", ["x", "s", "xz", "w", "s", "z"], ["f"], domain="com.microsoft", transB=0),
            ],
            LINEAR,
        ),
        (
            [QUANTIZE, make_node("QLinearMatMul", ["x", "s", "xz", "w", "s", "z", "s", "xz"], ["y"]), *DEQUANTIZE],
            LINEAR,
        ),
        (
            [
                make_node("QuantizeLinear", ["input", "s", "xz"], ["x"]),
                make_node("ConvInteger", ["x", "w", "xz", "z"], ["y"]),
                *TO_FLOAT,
            ],
            CONVOLVED,
        ),
        (
            [
                make_node("QuantizeLinear", ["input", "s", "xz"], ["x"]),
                make_node("QLinearConv", ["x", "s", "xz", "w", "s", "z", "s", "xz"], ["y"]),
                *DEQUANTIZE,
            ],
            CONVOLVED,
        ),
        (
            [make_node("Mul", ["w", "w_mask"], ["masked"]), make_node("MatMul", ["flat", "masked"], ["f"])],
            {"w": np.full((4, 2), 3, np.float32), "w_mask": (INT8_WEIGHT.T != 7).astype(np.float32)},
        ),
    ],
    ids=["MatMulInteger", "QGemm", "QLinearMatMul", "ConvInteger", "QLinearConv", "mask"],
)
def test_zeros_of_layers_that_others_write_are_counted(tmp_path, nodes, stored):
    """Files that onnxruntime runs: what is counted is a layer of theirs, not only a node of that name."""
    flat = make_node("Flatten", ["input"], ["flat"])
    last = make_node("Flatten", ["f"], ["logits"])
    graph = onnx.helper.make_graph(
        [flat, *nodes, last],
        "g",
        [onnx.helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 1, 1])],
        [onnx.helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    opsets = [make_opsetid("", 18), make_opsetid("com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    assert open_session(tmp_path / "m.onnx", [CPU], num_threads=1, shape_CHW=(4, 1, 1)).num_values == 2
    file = read_onnx(tmp_path / "m.onnx")
    assert [(layer.name, layer.num_weights, layer.num_zeros) for layer in file.sparsity.layers] == [("w", 8, 3)]
    assert file.is_quantized is ("w_mask" not in stored)
    assert file.facts.uncounted == ()


def test_sparse_initializers_are_counted_and_run(tmp_path):
    weight = np.array([[0, 2], [3, 0], [0, 0], [4, 5]], np.float32)
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(weight[weight != 0], "w"),
        indices=numpy_helper.from_array(np.flatnonzero(weight)),
        dims=weight.shape,
    )
    graph = onnx.helper.make_graph(
        [make_node("Flatten", ["input"], ["flat"]), make_node("MatMul", ["flat", "w"], ["logits"])],
        "g",
        [onnx.helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 1, 1])],
        [onnx.helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        sparse_initializer=[sparse],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    scores = open_session(tmp_path / "m.onnx", [CPU], num_threads=1).run(np.ones((1, 4, 1, 1), np.float32))
    np.testing.assert_array_equal(scores, [[7, 7]])
    file = read_onnx(tmp_path / "m.onnx")
    assert [(layer.name, layer.num_weights, layer.num_zeros) for layer in file.sparsity.layers] == [("w", 8, 4)]
    assert file.facts.num_parameters == 8


def test_half_precision_is_noticed(write_onnx, tmp_path):
    assert read_onnx(write_onnx(tmp_path / "half.onnx", dtype="float16")).is_half


def test_weights_beside_the_file_count(write_onnx, tmp_path):
    inside = read_onnx(write_onnx(tmp_path / "inside.onnx", zeros=range(54)))
    file = read_onnx(write_onnx(tmp_path / "net.onnx", zeros=range(54), external="net.onnx.data"))
    assert file.external == ("net.onnx.data",)
    assert file.sparsity == inside.sparsity
    assert file.facts.size_bytes == sum((tmp_path / name).stat().st_size for name in ("net.onnx", "net.onnx.data"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no graph"),
        (b"not an ONNX file" * 20, "not an ONNX file"),
        (b"\x80\x02}q\x00.", "not an ONNX file"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(BadInputError, match=words):
        read_onnx(tmp_path / "net.onnx")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="is not a file"):
        read_onnx(tmp_path)
    with pytest.raises(BadInputError, match="no such file"):
        read_onnx(tmp_path / "net.onnx")


# --- files beside it ----------------------------------------------------------------------------------------


def edited(path, edit):
    """The file with its tensors changed by hand; nothing is loaded or checked on the way."""
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def set_external(tensor, **fields):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in fields.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "a/../../secret.bin",
        "C:\\secret.bin",
        "\\\\host\\share",
        "",
        "a\nb",
        "..\\secret.bin",
    ],
)
def test_weights_outside_of_the_folder_are_refused(write_onnx, tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (tmp_path / "net").mkdir()
    path = write_onnx(tmp_path / "net" / "net.onnx")
    edited(path, lambda model: set_external(model.graph.initializer[0], location=location))
    with pytest.raises(BadInputError, match="not a file in its own folder"):
        read_onnx(path)


def test_a_link_out_of_the_folder_is_refused(write_onnx, tmp_path):
    (tmp_path / "net").mkdir()
    path = write_onnx(tmp_path / "net" / "net.onnx", external="net.data")
    shutil.move(tmp_path / "net" / "net.data", tmp_path / "secret.data")
    with pytest.raises(BadInputError, match=r"net\.data, which is missing"):
        read_onnx(path)
    (tmp_path / "net" / "net.data").symlink_to(tmp_path / "secret.data")
    with pytest.raises(BadInputError, match="link that leads out"):
        read_onnx(path)


def in_attribute(model, tensor):
    model.graph.node.append(make_node("Constant", [], ["unused"], value=tensor))


def in_branch(model, tensor):
    branch = onnx.GraphProto(name="branch")
    branch.node.append(make_node("Constant", [], ["unused"], value=tensor))
    model.graph.node.append(make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch))


def in_function(model, tensor):
    nodes = [make_node("Constant", [], ["b"], value=tensor)]
    model.functions.append(make_function("acme", "F", ["a"], ["b"], nodes, [make_opsetid("", 18)]))


def in_sparse(model, tensor):
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[4]))


@pytest.mark.parametrize("place", [in_attribute, in_branch, in_function, in_sparse])
def test_no_place_in_the_file_is_overlooked(write_onnx, tmp_path, place):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    set_external(tensor, location="/etc/passwd")
    path = edited(write_onnx(tmp_path / "net.onnx"), lambda model: place(model, tensor))
    with pytest.raises(BadInputError, match="not a file in its own folder"):
        read_onnx(path)


@pytest.mark.parametrize(
    "fields",
    [{"offset": 10}, {"offset": -4}, {"offset": "x"}, {"length": 4}, {"length": 2**60}, {"offset": 2**62}],
)
def test_bytes_that_are_not_there_are_refused(write_onnx, tmp_path, fields):
    path = write_onnx(tmp_path / "net.onnx", external="net.data")
    size_bytes = 216 * 4
    (tmp_path / "net.data").write_bytes(bytes(size_bytes))
    edit = {"location": "net.data", "length": size_bytes, **fields}
    edited(path, lambda model: set_external(model.graph.initializer[0], **edit))
    with pytest.raises(BadInputError, match="does not fit bytes"):
        read_onnx(path)


@pytest.mark.parametrize("dims", [(2**31, 2**31), (-1, 3, 3, 3), (8, 3, 3, 4), (2**62, 4)])
def test_claims_of_a_size_are_not_believed(write_onnx, tmp_path, dims):
    def edit(model):
        model.graph.initializer[0].dims[:] = dims

    with pytest.raises(BadInputError, match="weight cannot be read"):
        read_onnx(edited(write_onnx(tmp_path / "net.onnx"), edit))


def test_a_sparse_tensor_cannot_claim_any_size(write_onnx, tmp_path):
    def edit(model):
        one = numpy_helper.from_array(np.ones(1, np.float32), "conv.weight")
        index = numpy_helper.from_array(np.zeros(1, np.int64), "index")
        del model.graph.initializer[0]
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=one, indices=index, dims=[2**40, 3, 3, 3]))

    with pytest.raises(BadInputError, match="not possible"):
        read_onnx(edited(write_onnx(tmp_path / "net.onnx"), edit))


def test_own_operators_are_named_unless_the_file_defines_them(write_onnx, tmp_path):
    path = write_onnx(tmp_path / "net.onnx", operator="Shuffle")
    assert own_operators(read_onnx(path).model) == ("acme.Shuffle",)
    nodes = [make_node("Identity", ["a"], ["b"])]
    function = make_function("acme", "Shuffle", ["a"], ["b"], nodes, [make_opsetid("", 18)])
    edited(path, lambda model: model.functions.append(function))
    assert own_operators(read_onnx(path).model) == ()


# --- any damage ---------------------------------------------------------------------------------------------

_EDIT = st.tuples(st.sampled_from(["set", "cut", "insert"]), st.floats(0, 1), st.binary(min_size=1, max_size=8))
_NUMBERS = st.sampled_from([0, -1, 1, 2, 7, 255, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63)])
_OPERATORS = st.sampled_from(["Conv", "MaxPool", "Gemm", "MatMul", "Reshape", "Transpose", "Slice", "Pad", "LSTM"])
_ATTRIBUTES = st.sampled_from(["kernel_shape", "strides", "pads", "dilations", "group", "axis", "perm", "transA"])


def outcome(path):
    """ "read and ran", or the kind of refusal; any other exception is a failure of the test."""
    try:
        read_onnx(path)
        session = open_session(path, [CPU], num_threads=1, shape_CHW=SHAPE)
        scores = session.run(np.zeros((2, *SHAPE), np.float32))
    except BadInputError:
        return "refused"
    assert scores.shape[0] == 2
    return "ran"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tmp_path_factory.mktemp("sound") / "net.onnx"


@given(edits=st.lists(_EDIT, min_size=1, max_size=6))
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_are_refused_or_harmless(write_onnx, sound, edits):
    content = bytearray(write_onnx(sound, opset=13).read_bytes())
    for kind, where, piece in edits:
        at = math.floor(where * (len(content) - 1))
        if kind == "insert":
            content[at:at] = piece
        else:
            content[at : at + len(piece)] = piece if kind == "set" else b""
    sound.write_bytes(content)
    assert outcome(sound) in ("ran", "refused")


@pytest.mark.parametrize(
    ("nodes", "of_scores", "of_all"),
    [
        ([("Sigmoid", ["s"], "p"), ("Concat", ["b", "p"], "y")], "sigmoid", "none"),
        ([("Concat", ["b", "s"], "y")], "none", "none"),
        ([("Concat", ["b", "s"], "both"), ("Sigmoid", ["both"], "z"), ("Transpose", ["z"], "y")], "sigmoid", "sigmoid"),
        ([("Identity", ["y"], "y")], "none", "none"),
        ([("Concat", [], "y")], "none", "none"),
    ],
)
def test_scores_are_the_last_part_of_candidates(nodes, of_scores, of_all):
    graph = onnx.GraphProto(node=[make_node(kind, given, [made]) for kind, given, made in nodes])
    graph.output.add().name = "y"
    model = onnx.ModelProto(graph=graph)
    assert last_activation(model, of_last_part=True).value == of_scores
    assert last_activation(model).value == of_all


@given(data=st.data())
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_graph_is_refused_or_harmless(write_onnx, sound, data):
    model = onnx.load(write_onnx(sound, opset=13))
    for _ in range(data.draw(st.integers(1, 4))):
        node = data.draw(st.sampled_from(list(model.graph.node)))
        change = data.draw(st.sampled_from(["operator", "attribute", "dims", "input", "version"]))
        if change == "operator":
            node.op_type = data.draw(_OPERATORS)
        elif change == "attribute":
            attribute = node.attribute.add()
            attribute.name, attribute.type = data.draw(_ATTRIBUTES), onnx.AttributeProto.INTS
            attribute.ints.extend(data.draw(st.lists(_NUMBERS, max_size=4)))
        elif change == "dims":
            tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
            tensor.dims[data.draw(st.integers(0, len(tensor.dims) - 1))] = data.draw(_NUMBERS)
        elif change == "input":
            names = ["", *(n.output[0] for n in model.graph.node), "conv.weight", "fc.weight", "input"]
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        else:
            model.opset_import[0].version = data.draw(st.sampled_from([-1, 0, 1, 6, 11, 99]))
    sound.write_bytes(model.SerializeToString())
    assert outcome(sound) in ("ran", "refused")


def test_a_checkpoint_that_is_called_onnx_is_told(tmp_path):
    (tmp_path / "net.onnx").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(BadInputError, match="is not an ONNX file") as caught:
        read_onnx(tmp_path / "net.onnx")
    assert "rename it to .pt" in caught.value.hint

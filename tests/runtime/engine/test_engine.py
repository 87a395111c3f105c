"""Real builds by TensorRT-RTX, which needs no GPU for them; what needs one is pretended in test_tensorrt_session.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_function, make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from edgerecover.artifacts import (
    TENSORRT,
    TENSORRT_RTX,
    BatchRange,
    EngineFacts,
    EngineRecipe,
    HardwareCompatibility,
    Precision,
    from_json,
    to_json,
)
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.engine import engine as engine_module
from edgerecover.runtime.engine.build import build_here
from edgerecover.runtime.engine.engine import build_engine, check_accepted, facts_path, read_facts, ready_engine
from edgerecover.runtime.machine.cuda import this_gpu

RTX = EngineRecipe(TENSORRT_RTX, compute_capabilities=("8.6", "8.9", "12.0"))


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86_64 Linux, Windows)")


def save(path: Path, nodes, weights, batch=1, functions=()) -> Path:
    graph = make_graph(
        nodes,
        "classifier",
        [make_tensor_value_info("input", TensorProto.FLOAT, [batch, 4, 8, 8])],
        [make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [make_opsetid("", 18), make_opsetid("own", 1)]
    onnx.save(make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions)), path)
    return path


def two_four(weights_OIHW):
    """Two of every four input channels set to zero."""
    kept = np.zeros(weights_OIHW.shape, np.float32)
    kept[:, ::2] = weights_OIHW[:, ::2]
    return kept


def classifier(path: Path, kind: str, batch=1) -> Path:
    """Conv, mean, Gemm in one of several precisions, written by hand."""
    random = np.random.default_rng(0)
    conv = random.standard_normal((8, 4, 3, 3), np.float32)
    weights = {"fc": random.standard_normal((8, 5), np.float32), "bias": np.ones(8, np.float32)}
    tail = [
        make_node("Relu", ["a"], ["b"]),
        make_node("GlobalAveragePool", ["b"], ["c"]),
        make_node("Flatten", ["c"], ["d"]),
        make_node("Gemm", ["d", "fc"], ["logits"]),
    ]
    if kind in ("fp32", "sparse"):
        weights["conv"] = two_four(conv) if kind == "sparse" else conv
        return save(path, [make_node("Conv", ["input", "conv", "bias"], ["a"], name="conv"), *tail], weights, batch)
    if kind == "fp16":
        weights |= {"conv": conv.astype(np.float16), "bias": weights["bias"].astype(np.float16)}
        head = [
            make_node("Cast", ["input"], ["x"], to=TensorProto.FLOAT16),
            make_node("Conv", ["x", "conv", "bias"], ["a16"], name="conv"),
            make_node("Cast", ["a16"], ["a"], to=TensorProto.FLOAT),
        ]
        return save(path, [*head, *tail], weights, batch)
    weights |= {"conv": np.clip(conv * 40, -127, 127).astype(np.int8), "scale": np.float32(0.025)}
    head = [
        make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"], name="quantize"),
        make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"], name="dequantize"),
        make_node("DequantizeLinear", ["conv", "scale", "zero"], ["w"], name="dequantize_weight"),
    ]
    weights["zero"] = np.int8(0)
    if kind == "int8 with int32 bias":
        weights |= {"bias": np.ones(8, np.int32), "zero32": np.int32(0)}
        head.append(make_node("DequantizeLinear", ["bias", "scale", "zero32"], ["b32"], name="dequantize_bias"))
    bias = "b32" if kind == "int8 with int32 bias" else "bias"
    return save(path, [*head, make_node("Conv", ["x", "w", bias], ["a"], name="conv"), *tail], weights, batch)


# --- building -----------------------------------------------------------------------------------------------


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
@pytest.mark.parametrize(
    ("kind", "taken"), [("fp32", "Float"), ("fp16", "Half"), ("int8", "Int8"), ("sparse", "Float")]
)
def test_real_engines_for_three_gpus(tmp_path: Path, kind: str, taken: str, capability: str) -> None:
    recipe = EngineRecipe(TENSORRT_RTX, compute_capabilities=(capability,), sparse_weights=kind == "sparse")
    facts = build_here(classifier(tmp_path / "m.onnx", kind), recipe, tmp_path / "m.engine")
    assert facts.size_bytes == (tmp_path / "m.engine").stat().st_size > 1000
    assert facts.key.compute_capabilities == (capability,)
    assert facts.layers_by_type.get(taken, 0) >= 1  # the file's own types decide
    assert ("Int8" in facts.layers_by_type, "Half" in facts.layers_by_type) == (kind == "int8", kind == "fp16")
    assert facts.num_layers == sum(facts.layers_by_type.values())
    assert facts.sparse is None  # TensorRT-RTX picks kernels on the device


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("kind", ["sparse", "fp16", "int8"])
def test_the_sparse_flag_leaves_the_engine_as_it_is(tmp_path: Path, kind: str) -> None:
    """What reports and docs/how-to/build-an-engine.md say of TensorRT-RTX."""
    onnx_path = classifier(tmp_path / "m.onnx", kind)
    plain, sparse = (
        build_engine(onnx_path, replace(RTX, sparse_weights=asked), tmp_path / "m.engine").sha256
        for asked in (False, True)
    )
    assert plain == sparse


def with_zero_points(path: Path, kind: type) -> Path:
    """Q/DQ with zero point 0 around a convolution's input: exact for activations of 0 to 1 in uint8."""
    weights = {
        "xs": np.float32(1 / 255), "xz": kind(0), "w": np.ones((5, 4, 1, 1), np.int8), "ws": np.float32(0.25),
        "wz": np.int8(0),
    }  # fmt: skip
    nodes = [
        make_node("QuantizeLinear", ["input", "xs", "xz"], ["q"]),
        make_node("DequantizeLinear", ["q", "xs", "xz"], ["x"]),
        make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        make_node("Conv", ["x", "wd"], ["a"]),
        make_node("GlobalAveragePool", ["a"], ["b"]),
        make_node("Flatten", ["b"], ["logits"]),
    ]
    return save(path, nodes, {name: np.asarray(value) for name, value in weights.items()})


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_unsigned_activations_that_would_be_read_as_signed_are_refused(tmp_path: Path) -> None:
    """onnxruntime is the judge of what is at stake: the same file with int8 gives half of the answer."""
    import onnxruntime

    images = np.ones((1, 4, 8, 8), np.float32)
    answers = [
        onnxruntime.InferenceSession(
            with_zero_points(tmp_path / "m.onnx", kind), providers=["CPUExecutionProvider"]
        ).run(None, {"input": images})[0]
        for kind in (np.uint8, np.int8)
    ]
    np.testing.assert_allclose(answers[0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(answers[1], 127 / 255, rtol=1e-5)
    unsigned = with_zero_points(tmp_path / "u.onnx", np.uint8)
    with pytest.raises(BadInputError, match=r"misreads it: its uint8 activations .* cut off at half their range"):
        build_engine(unsigned, RTX, tmp_path / "u.engine")
    assert not (tmp_path / "u.engine").exists()
    assert not check_accepted(unsigned, TENSORRT_RTX).accepted
    signed = check_accepted(with_zero_points(tmp_path / "s.onnx", np.int8), TENSORRT_RTX)
    assert (signed.accepted, signed.warnings) == (True, ())


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_turing_is_told_that_it_needs_float16(tmp_path: Path) -> None:
    turing = replace(RTX, compute_capabilities=("7.5",))
    with pytest.raises(BadInputError) as caught:
        build_engine(classifier(tmp_path / "m.onnx", "fp32"), turing, tmp_path / "m.engine")
    assert "give it a float16 file" in caught.value.hint


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_what_stands_at_the_end_of_a_build(tmp_path: Path) -> None:
    out = tmp_path / "m.engine"
    facts = build_engine(classifier(tmp_path / "m.onnx", "fp32"), RTX, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.engine",
        "m.engine.json",
        "m.engine.layers.json",
        "m.onnx",
    ]
    assert read_facts(out) == facts
    assert from_json(EngineFacts, json.loads(json.dumps(to_json(facts)))) == facts
    layers = json.loads((tmp_path / "m.engine.layers.json").read_text())
    assert layers["source"] == "build log"
    assert any("conv" in layer["Name"] for layer in layers["layers"])


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_open_batch_takes_a_profile(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", "fp32", batch="batch")
    facts = build_here(model, replace(RTX, batch=BatchRange(1, 4, 8)), tmp_path / "m.engine")
    assert facts.recipe.batch == BatchRange(1, 4, 8)
    with pytest.raises(BadInputError, match=r"\(\?, 4, 8, 8\) has a dynamic batch size") as caught:
        build_here(model, RTX, tmp_path / "m.engine")
    assert "--batch-range 1,1,8" in caught.value.hint


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_capabilities": ("8.7",)}, r"builds no engine for compute capability 8\.7"),
        ({"batch": BatchRange(1, 4, 8)}, "static batch of 1"),
        ({"dla_core": 0}, "TensorRT-RTX has no dla_core"),
        (
            {"version_compatible": True, "hardware_compatibility": HardwareCompatibility.AMPERE_PLUS},
            "TensorRT-RTX has no version_compatible, hardware_compatibility",
        ),
    ],
)
def test_recipes_that_cannot_be_followed(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build_here(classifier(tmp_path / "m.onnx", "fp32"), replace(RTX, **change), tmp_path / "m.engine")
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.skipif(this_gpu() is not None, reason="TensorRT may be here, and would build")
def test_tensorrt_without_a_driver_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        build_engine(classifier(tmp_path / "m.onnx", "fp32"), EngineRecipe(TENSORRT), tmp_path / "m.engine")
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="its folder does not exist"):
        build_engine(tmp_path / "m.onnx", RTX, tmp_path / "nowhere" / "m.engine")


# --- hostile files ------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return classifier(tmp_path / "good.onnx", "fp32").read_bytes()


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"\xff" * 500, lambda b: b[: len(b) // 2], lambda b: None])
def test_files_that_are_no_models(tmp_path: Path, good: bytes, damage) -> None:
    model = tmp_path / "m.onnx"
    if (content := damage(good)) is not None:
        model.write_bytes(content)
    with pytest.raises(BadInputError, match=r"m\.onnx: "):
        build_here(model, RTX, tmp_path / "m.engine")
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("name", "message"), [(b"Relu", "(not UTF-8)"), (b"input", "m.onnx: ")])
def test_names_that_are_not_text(tmp_path: Path, good: bytes, name: bytes, message: str) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(good.replace(name, name[:-1] + b"\xff"))
    with pytest.raises(BadInputError) as caught:
        build_here(model, RTX, tmp_path / "m.engine")
    assert message in str(caught.value)


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_file_that_crashes_the_parser_ends_in_a_message(tmp_path: Path) -> None:
    """A function that calls itself overflows its stack: that is why building has a process of its own."""
    itself = make_function(
        "own", "F", ["x"], ["y"], [make_node("F", ["x"], ["y"], domain="own")], [make_opsetid("own", 1)]
    )
    model = save(tmp_path / "m.onnx", [make_node("F", ["input"], ["logits"], domain="own")], {}, functions=[itself])
    with pytest.raises(BadInputError, match="TensorRT crashes on it"):
        build_engine(model, RTX, tmp_path / "m.engine")
    acceptance = check_accepted(model)
    assert not acceptance.accepted
    assert "crashes" in acceptance.problems[0]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_file_that_never_ends_is_ended(tmp_path: Path) -> None:
    """25 functions that each call the next one twice."""
    functions = [make_function("own", "F0", ["x"], ["y"], [make_node("Relu", ["x"], ["y"])], [make_opsetid("", 18)])]
    for depth in range(1, 26):
        inner = [make_node(f"F{depth - 1}", [a], [b], domain="own") for a, b in (("x", "t"), ("t", "y"))]
        functions.append(make_function("own", f"F{depth}", ["x"], ["y"], inner, [make_opsetid("own", 1)]))
    model = save(tmp_path / "m.onnx", [make_node("F25", ["input"], ["logits"], domain="own")], {}, functions=functions)
    with pytest.raises(BadInputError, match="did not finish within 2 s"):
        build_engine(model, RTX, tmp_path / "m.engine", timeout_s=2)


# --- acceptance ---------------------------------------------------------------------------------------------


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_the_stand_in_takes_symmetric_int8_and_says_what_it_is(tmp_path: Path) -> None:
    acceptance = check_accepted(classifier(tmp_path / "m.onnx", "int8"), TENSORRT)
    assert acceptance.accepted
    assert acceptance.stand_in
    assert acceptance.by.startswith("TensorRT-RTX ")
    assert acceptance.num_layers > 5
    assert not check_accepted(tmp_path / "m.onnx", TENSORRT_RTX).stand_in


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_int32_bias_is_refused_by_name(tmp_path: Path) -> None:
    """What onnxruntime's quantiser writes unless told otherwise."""
    model = classifier(tmp_path / "m.onnx", "int8 with int32 bias")
    acceptance = check_accepted(model)
    assert not acceptance.accepted
    assert acceptance.problems[0].startswith("node dequantize_bias (DequantizeLinear): input has type Int32")
    with pytest.raises(BadInputError, match="dequantize_bias") as caught:
        build_here(model, RTX, tmp_path / "m.engine")
    assert "QuantizeBias False" in caught.value.hint


def test_acceptance_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        check_accepted(tmp_path / "m.onnx")


# --- reuse --------------------------------------------------------------------------------------------------


class Told:
    """A `Progress` that remembers its notes."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)

    def task(self, title, total, unit):
        return engine_module.SILENT.task(title, total, unit)


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_engine_is_reused_until_something_changes(tmp_path: Path) -> None:
    model, cache, told = classifier(tmp_path / "m.onnx", "fp32"), tmp_path / "cache", Told()
    first = ready_engine(model, RTX, cache, progress=told)
    assert "because there is none yet" in told.notes[-1]
    assert ready_engine(model, RTX, cache, progress=told) == first
    assert "reused" in told.notes[-1]
    half = replace(RTX, compute_capabilities=("8.6",))
    assert ready_engine(model, half, cache, progress=told).key.compute_capabilities == ("8.6",)
    assert "because the recipe changed: compute_capabilities" in told.notes[-1]
    classifier(model, "fp16")
    changed = ready_engine(model, half, cache, progress=told)
    assert "because the ONNX file changed" in told.notes[-1]
    assert changed.layers_by_type["Half"] >= 1


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("damage", ["truncated engine", "no facts", "other facts", "another version"])
def test_an_engine_that_cannot_be_trusted_is_built_again(tmp_path: Path, damage: str) -> None:
    model, told = classifier(tmp_path / "m.onnx", "fp32"), Told()
    first = ready_engine(model, RTX, tmp_path)
    engine = tmp_path / first.file
    if damage == "truncated engine":
        engine.write_bytes(engine.read_bytes()[:1000])
    elif damage == "no facts":
        facts_path(engine).unlink()
    elif damage == "other facts":
        facts_path(engine).write_text("[]")
    else:
        old = replace(first, key=replace(first.key, version="1.2.0"))
        facts_path(engine).write_text(json.dumps(to_json(old)))
    again = ready_engine(model, RTX, tmp_path, progress=told)
    assert "built by" in told.notes[-1]
    if damage == "another version":
        assert f"because TensorRT-RTX 1.2.0 → {first.key.version}" in told.notes[-1]
    assert read_facts(engine) == again


def test_facts_of_another_engine_do_not_count(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    assert read_facts(engine) is None
    facts_path(engine).write_text("{" * 100_000)
    assert read_facts(engine) is None


def test_a_recipe_survives_json() -> None:
    recipe = EngineRecipe(
        TENSORRT,
        Precision.INT8,
        BatchRange(1, 2, 4),
        workspace_mb=1024,
        sparse_weights=True,
        tf32=False,
        version_compatible=True,
        hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY,
        dla_core=1,
    )
    assert from_json(EngineRecipe, json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_folder_without_room_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(tmp_path / "m.onnx", "fp32")
    blocked = tmp_path / "m.engine"
    blocked.mkdir()
    (blocked / "something").write_text("")
    with pytest.raises(BadInputError, match="cannot be written"):
        build_engine(model, RTX, blocked)
    shutil.rmtree(blocked)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

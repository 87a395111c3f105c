"""Engines really built by TensorRT-RTX, and its parser asked for targets that build on the device."""

from dataclasses import replace

import pytest

from edgerecover.artifacts import TENSORRT, TENSORRT_RTX, BatchRange, Precision, Variant
from edgerecover.config import Fact, load_target
from edgerecover.errors import BadInputError, MissingError
from edgerecover.export.onnx import export
from edgerecover.models.onnx.file import read_onnx
from edgerecover.stages.engine import build_engines, builder_notes, require_builder
from tests.conftest import INPUT

pytestmark = pytest.mark.tensorrt


@pytest.fixture(autouse=True)
def _rtx():
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86_64 Linux, Windows)")


@pytest.fixture
def float32(teacher, tmp_path):
    exported = export(teacher, INPUT, tmp_path / "fp32.onnx", opset=18, batch=None)
    return Variant(Precision.FP32, exported, "as exported", (), "")


@pytest.fixture
def refused(tmp_path):
    """What TensorRT's parser has no operator for."""
    from onnx import TensorProto, save
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    graph = make_graph(
        [make_node("Det", ["input"], ["logits"])],
        "determinants",
        [make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
    )
    path = tmp_path / "int8.onnx"
    save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return Variant(Precision.INT8, replace(read_onnx(path).exported(1), path=str(path)), "int8", (), "")


def test_an_rtx_target_ships_engines_with_facts_and_layers(float32, tmp_path):
    made = build_engines([float32], load_target("rtx-40"), tmp_path, open_batch=True)
    assert sorted(made.files) == [
        "engines/fp32.engine", "engines/fp32.engine.json", "engines/fp32.engine.layers.json",
    ]  # fmt: skip
    (facts,) = made.built
    assert facts.size_bytes == made.files["engines/fp32.engine"].stat().st_size
    assert facts.key.compute_capabilities == ("8.9",)
    assert made.recipes[Precision.FP32].batch == BatchRange(1, 1, 8)


def test_a_variant_that_does_not_build_is_unfit_and_the_others_are_shipped(float32, refused, tmp_path):
    made = build_engines([float32, refused], load_target("rtx-40"), tmp_path, open_batch=True)
    assert [facts.recipe.precision for facts in made.built] == [Precision.FP32]
    assert "Det" in made.unfit[Precision.INT8]


def test_where_not_even_float32_builds_there_is_an_error(refused, tmp_path):
    with pytest.raises(BadInputError, match="Det"):
        build_engines([replace(refused, precision=Precision.FP32)], load_target("rtx-40"), tmp_path, open_batch=False)


def test_for_a_jetson_the_parser_is_asked_and_the_device_builds(float32, refused, tmp_path):
    made = build_engines([float32, refused], load_target("jetson-orin-nano"), tmp_path, open_batch=True)
    assert (made.built, made.files) == ((), {})
    assert made.recipes[Precision.FP32].runtime == TENSORRT
    assert "Det" in made.unfit[Precision.INT8]
    assert made.notes == ()


def test_a_float32_file_that_the_parser_refuses_is_only_doubted(refused, tmp_path):
    made = build_engines(
        [replace(refused, precision=Precision.FP32)], load_target("jetson-orin-nano"), tmp_path, open_batch=False
    )
    assert "may reject the float32 file" in made.notes[0]
    assert made.unfit == {}


def test_a_target_that_runs_onnx_files_has_no_engines(float32, tmp_path):
    made = build_engines([float32], load_target("raspberry-pi-5"), tmp_path, open_batch=False)
    assert (made.recipes, made.files, made.notes) == ({}, {}, ())


def test_a_missing_builder_is_missed_before_the_work(monkeypatch):
    def missing(runtime):
        assert runtime == TENSORRT_RTX
        raise MissingError("TensorRT-RTX is not installed", hint="pip install 'edgerecover[tensorrt-rtx]'")

    monkeypatch.setattr("edgerecover.stages.engine.import_tensorrt", missing)
    require_builder(load_target("jetson-orin-nano"))
    with pytest.raises(MissingError):
        require_builder(load_target("rtx-50"))


def test_a_target_of_the_turing_generation_is_told_beforehand():
    rtx = load_target("rtx-30")
    turing = rtx.model_copy(update={"compute_capability": Fact(value="7.5", source="choice: a test")})
    assert "no float32 fully connected layer" in builder_notes(turing)[0]
    assert builder_notes(rtx) == builder_notes(load_target("x86-cpu")) == ()

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgerecover.artifacts import OutputSpec, Precision, RefusedVariant, TaskKind, Variant, sha256_of
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.export.precision import SCHEMES, Calibration, make, make_variants, scheme_named
from edgerecover.export.two_four import check_two_four
from edgerecover.models.network.detectors import return_candidates
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.tasks.measure import measure_of
from tests import detectors
from tests.detectors import MAKERS, draw
from tests.export.precision.conftest import (
    INPUT,
    Builder,
    ImagesInMemory,
    random_images,
    residual,
    run,
    transformer,
)
from tests.pairs import measure_of_classes

ALL = (Precision.FP32, Precision.FP16, Precision.INT8)


def calibrated(float32, images):
    measure = measure_of_classes(5)
    return Calibration(ImagesInMemory(images), measure.read(run(Path(float32.path), images)), measure)


def made(float32, tmp_path, wanted=ALL, scheme="u8s8", images=None, **options):
    calibration = calibrated(float32, random_images(64) if images is None else images)
    return make_variants(float32, wanted, SCHEMES[scheme], calibration, INPUT, tmp_path, **options)


@pytest.mark.parametrize("model", [residual(batch=1), residual(batch_norm=True, relu6=True), transformer()])
def test_each_precision_is_a_file_that_onnxruntime_runs(save, tmp_path, model):
    float32 = save(model)
    fp32, fp16, int8 = made(float32, tmp_path, max_points_lost=10.0)
    assert (fp32.file, fp32.tries) == (float32, ())
    images = random_images(8, seed=3)
    expected = run(Path(float32.path), images)
    for variant, name in ((fp16, "fp16.onnx"), (int8, "int8.onnx")):
        path = tmp_path / name
        assert (variant.file.path, variant.file.sha256) == (str(path), sha256_of(path))
        assert (variant.kept_higher, variant.reason) == ((), "")
        assert sum(one.chosen for one in variant.tries) == 1
        found = open_session(path, [CPU], num_threads=1, exact_int8=True).run(images)
        assert np.abs(found - expected).max() < 0.5 * expected.std()
    assert fp16.file.num_weights == int8.file.num_weights > 0
    assert "u8s8" in int8.scheme
    assert "64 images" in int8.scheme


def test_the_same_inputs_give_the_same_files(save, tmp_path):
    float32 = save(residual())
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        digests.append([v.file.sha256 for v in made(float32, tmp_path / name, max_points_lost=10.0)])
    assert digests[0] == digests[1]


def test_zeros_and_two_of_four_survive_in_the_files(save, tmp_path):
    model = residual()
    (tensor,) = (t for t in model.graph.initializer if t.name == "fc.weight")
    weight = onnx.numpy_helper.to_array(tensor).copy()
    weight[:, ::4] = weight[:, 1::4] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "fc.weight"))
    float32 = save(model)
    before = check_two_four(Path(float32.path)).num_dense_groups
    for variant in made(float32, tmp_path, max_points_lost=10.0)[1:]:
        found = check_two_four(Path(variant.file.path))
        assert found.num_layers > 0
        assert found.num_dense_groups <= before
        assert variant.file.num_nonzero <= variant.file.num_weights - weight.size // 2


def outlier():
    """One layer of three whose input has an outlying channel that eight bits per tensor cannot hold beside the rest."""
    b = Builder(3)
    x = b.add("Conv", ["input", b.weight("first.weight", 8, 3, 1, 1)], "a")
    scale = np.ones((1, 8, 1, 1))
    scale[0, 0] = 3000.0
    x = b.add("Mul", [x, b.weight("scale", values=scale)], "spread")
    weight = b._random.standard_normal((8, 8, 1, 1))
    weight[:, 0] = 1e-6
    x = b.add("Conv", [x, b.weight("hurt.weight", 8, 8, 1, 1, values=weight)], "b")
    x = b.add("Relu", [x], "c")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "d")], "e")
    y = b.add("Conv", [b.add("Relu", ["a"], "f"), b.weight("third.weight", 8, 8, 1, 1)], "g")
    y = b.add("Flatten", [b.add("GlobalAveragePool", [y], "h")], "i")
    x = b.add("Concat", [x, y], "j", axis=1)
    return b.model(b.add("Gemm", [x, b.weight("fc.weight", 5, 16)], "logits", transB=1))


def test_the_fewest_layers_that_reach_the_limit_stay_float32_and_are_named(save, tmp_path):
    (int8,) = made(save(outlier()), tmp_path, [Precision.INT8], images=random_images(256), max_points_lost=5.0)
    assert isinstance(int8, Variant)
    assert int8.kept_higher == ("hurt",)
    assert "more than the 5 allowed" in int8.reason
    assert int8.tries[-1].name.endswith("1 layer kept in float32")
    assert int8.tries[-1].chosen
    assert all(one.points_lost > 5 for one in int8.tries[:-1])


def test_layers_are_ranked_on_as_many_images_however_busy_the_machine_is(save, tmp_path, monkeypatch):
    """Else other layers would stay float32, and the same run would make another file."""
    monkeypatch.setattr(make.time, "perf_counter", itertools.count(0, 10_000).__next__)
    ranked_on, cost_of = [], make.Trial.cost_of

    def count(trial, model, *, num_images=None):
        ranked_on.append(num_images)
        return cost_of(trial, model, num_images=num_images)

    monkeypatch.setattr(make.Trial, "cost_of", count)
    made(save(outlier()), tmp_path, [Precision.INT8], images=random_images(256), max_points_lost=5.0)
    assert set(ranked_on) == {None, 64}, "all, or those that layers are ranked on"


def test_what_cannot_reach_the_limit_is_refused_with_what_was_tried(save, tmp_path):
    (int8,) = made(save(outlier()), tmp_path, [Precision.INT8], images=random_images(256), max_points_lost=-100.0)
    assert isinstance(int8, RefusedVariant)
    assert "-100 are allowed" in int8.reason
    assert not any(one.chosen for one in int8.tries)
    assert len(int8.tries) == 5
    assert not (tmp_path / "int8.onnx").exists()


def test_what_is_lost_is_told_in_the_words_of_the_task(save, tmp_path):
    images, float32 = random_images(64), save(outlier())
    measure = measure_of(OutputSpec(TaskKind.MULTI_LABEL, (5,)))
    calibration = Calibration(ImagesInMemory(images), measure.read(run(Path(float32.path), images)), measure)
    (int8,) = make_variants(
        float32, [Precision.INT8], SCHEMES["u8s8"], calibration, INPUT, tmp_path, max_points_lost=-100.0
    )
    assert "points of Jaccard index with the teacher on the calibration images" in int8.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd", "fcos", "retinanet"])
def test_candidates_of_a_detector_are_judged_by_their_boxes(tmp_path, name):
    """Scores lie beside pixels in one tensor; eight bits for both would leave every box the same score."""
    network = draw(MAKERS[name]())
    return_candidates(network, name)
    with torch.no_grad():
        shape = tuple(network(torch.zeros(1, *detectors.INPUT.shape)).shape[1:])
    exported = export(network, detectors.INPUT, tmp_path / "float32.onnx", opset=18)
    measure = measure_of(OutputSpec(TaskKind.DETECTION, shape, input_sides=detectors.SIDES))
    images = np.random.default_rng(0).normal(size=(32, *detectors.INPUT.shape)).astype(np.float32)
    expected = run(tmp_path / "float32.onnx", images).reshape(len(images), -1)
    calibration = Calibration(ImagesInMemory(images), measure.read(expected), measure)
    (int8,) = make_variants(
        exported, [Precision.INT8], SCHEMES["u8s8"], calibration, detectors.INPUT, tmp_path, max_points_lost=100.0
    )
    assert int8.kept_higher == ()
    found = run(tmp_path / "int8.onnx", images).reshape(len(images), -1)
    assert (found != expected).any()
    scores, its_scores = (measure.quantities(values)["scores"] for values in (expected, found))
    assert np.corrcoef(scores.ravel(), its_scores.ravel())[0, 1] > 0.98
    lost = 100 * (1 - measure.share(measure.read(found), measure.read(expected)).mean())
    assert next(one.points_lost for one in int8.tries if one.chosen) == pytest.approx(lost, abs=1e-3)


@pytest.mark.parametrize(("limit", "passes"), [(1.0, True), (0.0, False)])
def test_one_image_of_few_may_be_lost_unless_none_may(save, tmp_path, limit, passes):
    """The teacher decides one image, of which float32 is barely sure, as float32 does and as no int8 does."""
    float32 = save(residual())
    images = random_images(8)
    exact = run(Path(float32.path), images)
    (free,) = made(float32, tmp_path, [Precision.INT8], images=images, max_points_lost=100.0)
    rounded = run(Path(free.file.path), images)
    assert (rounded.argmax(1) == exact.argmax(1)).all()
    narrow = outlier()
    float32 = save(narrow, "narrow")
    images = random_images(256)
    exact = run(Path(float32.path), images)
    (free,) = made(float32, tmp_path, [Precision.INT8], images=images, max_points_lost=100.0)
    chosen = next(one for one in free.tries if one.chosen)
    changed = run(Path(free.file.path), images).argmax(1) != exact.argmax(1)
    # Seven images that no try changes, and one that this one does.
    few = np.concatenate([images[~changed][:7], images[changed][:1]])
    assert chosen.points_lost > 0
    (answer,) = made(float32, tmp_path, [Precision.INT8], images=few, max_points_lost=limit)
    whole = [one for one in answer.tries if "kept" not in one.name]
    assert any(0 < one.points_lost <= 12.5 for one in whole)
    assert (isinstance(answer, Variant) and answer.kept_higher == ()) == passes


def test_a_network_without_layers_has_no_int8(save, tmp_path):
    b = Builder()
    x = b.add("Flatten", [b.add("GlobalAveragePool", ["input"], "a")], "b")
    x = b.add("Concat", [x, x], "c", axis=1)
    x = b.add("Slice", [x, b.integers("s", [0]), b.integers("e", [5]), b.integers("axes", [1])], "logits")
    (int8,) = made(save(b.model(x)), tmp_path, [Precision.INT8])
    assert "none has a stored float32 weight" in int8.reason


def test_loss_is_counted_from_another_file_where_one_is_given(save, tmp_path):
    """A file that has moved away from the first one has lost what it lost, however well it is quantised."""
    first, moved = save(residual(Builder(0)), "first"), save(residual(Builder(1)), "moved")
    images = random_images(64)
    calibration = calibrated(first, images)
    own, counted = (
        make_variants(moved, [Precision.FP16], SCHEMES["u8s8"], calibration, INPUT, tmp_path, counted_from=from_)[
            0
        ].tries[0]
        for from_ in (None, first)
    )
    agreement = float((run(Path(moved.path), images).argmax(1) == calibration.teacher_answers).mean())
    assert own.points_lost == pytest.approx(0.0, abs=2.0)
    assert counted.points_lost == pytest.approx(100 * (1 - agreement), abs=2.0)


def test_answers_must_belong_to_the_images(save, tmp_path):
    float32 = save(residual())
    calibration = Calibration(ImagesInMemory(random_images(8)), np.zeros(7), measure_of_classes(5))
    with pytest.raises(ValueError, match="teacher's answers to 8 images"):
        make_variants(float32, ALL, SCHEMES["u8s8"], calibration, INPUT, tmp_path)


def test_an_unknown_scheme_is_named_with_those_there_are():
    with pytest.raises(BadInputError, match="'u4s4' is not known") as caught:
        scheme_named("u4s4")
    assert "tensorrt" in caught.value.hint


def test_tensorrt_takes_the_files(save, tmp_path):
    """By the parser and builder of TensorRT-RTX, which work without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    _, fp16, int8 = made(save(residual(batch=1)), tmp_path, scheme="tensorrt", max_points_lost=10.0)
    for variant in (fp16, int8):
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        problems = (
            []
            if parser.parse_from_file(variant.file.path)
            else [parser.get_error(i).desc() for i in range(parser.num_errors)]
        )
        assert problems == []
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        assert builder.build_serialized_network(network, config) is not None

from types import SimpleNamespace

import pytest

from edgerecover.artifacts import TENSORRT, TENSORRT_RTX, BatchRange, EngineRecipe, Precision
from edgerecover.config import load_target
from edgerecover.errors import BadInputError
from edgerecover.export.engines import precision_of, recipe_for


def test_an_rtx_target_names_its_gpu():
    recipe = recipe_for(load_target("rtx-40"), Precision.FP16, batch=BatchRange(1, 1, 8))
    assert (recipe.runtime, recipe.compute_capabilities, recipe.precision) == (TENSORRT_RTX, ("8.9",), Precision.FP16)
    assert recipe.batch == BatchRange(1, 1, 8)


def test_a_jetson_builds_for_itself():
    target = load_target("jetson-orin-nano")
    recipe = recipe_for(target, Precision.INT8, sparse_weights=False)
    assert recipe == EngineRecipe(TENSORRT, Precision.INT8, workspace_mb=target.workspace_mb.value)


def test_sparse_kernels_are_allowed_where_the_target_has_them():
    assert recipe_for(load_target("jetson-orin-nano"), Precision.FP32).sparse_weights
    assert not recipe_for(load_target("jetson-nano"), Precision.FP32).sparse_weights


def test_targets_that_run_no_engines():
    with pytest.raises(BadInputError, match="not engines"):
        recipe_for(load_target("raspberry-pi-5"), Precision.FP32)


@pytest.mark.parametrize(
    ("quantized", "half", "precision"),
    [(True, True, Precision.INT8), (False, True, Precision.FP16), (False, False, Precision.FP32)],
)
def test_the_lowest_precision_in_a_file(quantized, half, precision):
    assert precision_of(SimpleNamespace(is_quantized=quantized, is_half=half)) is precision

from dataclasses import replace

import pytest

from edgerecover.artifacts import (
    TENSORRT,
    TENSORRT_RTX,
    EngineFacts,
    EngineKey,
    EngineRecipe,
    Gpu,
    HardwareCompatibility,
)
from edgerecover.runtime.engine import key as engine_key
from edgerecover.runtime.engine.key import onnx_digest, recipe_here, why_rebuild

ORIN = EngineKey(TENSORRT, "10.3.0", ("8.7",), "Orin", "a" * 64)
RECIPE = EngineRecipe(TENSORRT)


def facts(key: EngineKey = ORIN, recipe: EngineRecipe = RECIPE) -> EngineFacts:
    return EngineFacts("m.engine", "b" * 64, 10, key, recipe, 1.0, 0, {}, "", None, (), ())


def test_the_same_machine_and_file_need_no_rebuild() -> None:
    assert why_rebuild(facts(), ORIN, RECIPE) == ""


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (replace(ORIN, version="10.16.2"), "TensorRT 10.3.0 → 10.16.2"),
        (replace(ORIN, compute_capabilities=("8.6",), gpu="RTX A2000"), "compute capability 8.7 → 8.6"),
        (replace(ORIN, compute_capabilities=(), gpu=""), "compute capability 8.7 → no GPU"),
        (replace(ORIN, gpu="Orin Nano"), "GPU Orin → Orin Nano"),
        (replace(ORIN, onnx_sha256="c" * 64), "the ONNX file changed"),
        (replace(ORIN, runtime=TENSORRT_RTX), "TensorRT → TensorRT-RTX"),
    ],
)
def test_every_difference_is_said_in_words(here: EngineKey, reason: str) -> None:
    assert why_rebuild(facts(), here, RECIPE) == reason


def test_a_changed_recipe_names_what_changed() -> None:
    assert why_rebuild(facts(), ORIN, replace(RECIPE, workspace_mb=512)) == (
        "the recipe changed: workspace_mb None → 512"
    )


@pytest.mark.parametrize(
    ("version", "reason"), [("10.9.1", ""), ("11.0.0", ""), ("10.2.9", "TensorRT 10.3.0 → 10.2.9")]
)
def test_version_compatible_engines_go_forward_alone(version: str, reason: str) -> None:
    recipe = replace(RECIPE, version_compatible=True)
    assert why_rebuild(facts(recipe=recipe), replace(ORIN, version=version), recipe) == reason


@pytest.mark.parametrize(
    ("level", "capability", "runs"),
    [
        (HardwareCompatibility.AMPERE_PLUS, "8.9", True),
        (HardwareCompatibility.AMPERE_PLUS, "7.2", False),
        (HardwareCompatibility.SAME_COMPUTE_CAPABILITY, "8.7", True),
        (HardwareCompatibility.SAME_COMPUTE_CAPABILITY, "8.9", False),
    ],
)
def test_hardware_compatibility(level: HardwareCompatibility, capability: str, runs: bool) -> None:
    recipe = replace(RECIPE, hardware_compatibility=level)
    here = replace(ORIN, compute_capabilities=(capability,), gpu="another")
    assert (why_rebuild(facts(recipe=recipe), here, recipe) == "") is runs


@pytest.mark.parametrize(
    ("built_for", "gpu", "reason"),
    [
        (("8.6", "8.9"), Gpu("RTX 4090", "8.9"), ""),
        (("8.6",), Gpu("RTX 4090", "8.9"), "compute capability 8.6 → 8.9 (RTX 4090)"),
        ((), Gpu("RTX 4090", "8.9"), ""),
        ((), Gpu("RTX 2080", "7.5"), "compute capability 8.0 and later → 7.5 (RTX 2080)"),
        (("8.6",), None, ""),
    ],
)
def test_an_rtx_engine_runs_on_the_gpus_it_was_built_for(
    monkeypatch: pytest.MonkeyPatch, built_for: tuple[str, ...], gpu: Gpu | None, reason: str
) -> None:
    monkeypatch.setattr(engine_key, "this_gpu", lambda: gpu)
    key = EngineKey(TENSORRT_RTX, "1.7.1.116", built_for, "", "a" * 64)
    recipe = EngineRecipe(TENSORRT_RTX, compute_capabilities=built_for)
    assert why_rebuild(facts(key, recipe), key, recipe) == reason


@pytest.mark.parametrize(
    ("asked", "gpu", "built"),
    [
        (("8.6",), Gpu("RTX 4090", "8.9"), ("8.9",)),
        (("8.6", "8.9"), Gpu("RTX 4090", "8.9"), ("8.6", "8.9")),
        ((), Gpu("RTX 2080", "7.5"), ("7.5",)),
        (("8.6",), None, ("8.6",)),
    ],
)
def test_what_is_built_on_a_device_is_built_for_it(monkeypatch, asked, gpu, built) -> None:
    monkeypatch.setattr(engine_key, "this_gpu", lambda: gpu)
    assert recipe_here(EngineRecipe(TENSORRT_RTX, compute_capabilities=asked)).compute_capabilities == built
    assert recipe_here(RECIPE) == RECIPE


def test_the_digest_covers_weights_beside_the_file(tmp_path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"graph")
    alone = onnx_digest(model)
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    beside = onnx_digest(model)
    (tmp_path / "model.onnx.data").write_bytes(b"others!")
    assert len({alone, beside, onnx_digest(model)}) == 3

"""Recipes as the builder's config takes them.

TensorRT itself is not here. TensorRT-RTX has its builder's interface, so the flags of TensorRT are set on a real config
of TensorRT-RTX and read back from it; older versions, which have less, are stood in for by what their API lists.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgerecover.artifacts import TENSORRT, TENSORRT_RTX, EngineRecipe, HardwareCompatibility, Precision
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.engine.config import (
    configure,
    describe,
    dla_fallbacks,
    timing_cache_bytes,
    use_timing_cache,
)
from edgerecover.runtime.engine.network import _creation_flags, _strongly_typed, parse_onnx
from edgerecover.runtime.machine.tensorrt_module import Log

RECIPE = EngineRecipe(TENSORRT)


@pytest.fixture
def network(classifier):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86_64 Linux, Windows)")
    return parse_onnx(classifier, EngineRecipe(TENSORRT_RTX), Log())


@pytest.mark.tensorrt
@pytest.mark.parametrize("asked", [True, False])
def test_flags_say_what_the_recipe_says(network, classifier, asked):
    recipe = replace(RECIPE, sparse_weights=asked, version_compatible=asked, tf32=not asked, workspace_mb=200)
    config = configure(network, recipe, classifier)
    flags = network.module.BuilderFlag
    assert config.get_flag(flags.SPARSE_WEIGHTS) is asked
    assert config.get_flag(flags.VERSION_COMPATIBLE) is asked
    assert config.get_flag(flags.TF32) is not asked
    assert config.get_memory_pool_limit(network.module.MemoryPoolType.WORKSPACE) == 200 * 10**6
    assert config.profiling_verbosity == network.module.ProfilingVerbosity.DETAILED


@pytest.mark.tensorrt
def test_hardware_compatibility_reaches_the_config(network, classifier):
    configure(network, replace(RECIPE, hardware_compatibility=HardwareCompatibility.AMPERE_PLUS), classifier)
    # TensorRT-RTX answers that it does not have it: the call was made, with a value that it knows.
    assert any("setHardwareCompatibilityLevel" in text for text in network.log.texts("WARNING"))


@pytest.mark.tensorrt
def test_a_device_without_the_accelerator(network, classifier):
    with pytest.raises(MissingError, match=r"DLA core 0 was requested, but TensorRT .* finds 0"):
        configure(network, replace(RECIPE, dla_core=0), classifier)


@pytest.mark.tensorrt
def test_layers_that_the_accelerator_leaves_are_listed(network, classifier):
    recipe = replace(RECIPE, dla_core=0)
    pretended = replace(network, builder=Counting(network.builder, num_DLA_cores=2))
    config = configure(pretended, recipe, classifier)
    module = network.module
    assert config.default_device_type == module.DeviceType.DLA
    assert config.get_flag(module.BuilderFlag.GPU_FALLBACK)
    names = dla_fallbacks(config, pretended, recipe)
    assert len(names) == network.definition.num_layers  # no layer can run on what is not there
    assert dla_fallbacks(config, network, RECIPE) == ()


class Counting:
    """The real builder, with another number of accelerators."""

    def __init__(self, builder, **others):
        self._builder = builder
        self.__dict__.update(others)

    def __getattr__(self, name):
        return getattr(self._builder, name)


@pytest.mark.tensorrt
def test_tensorrt_builds_for_its_own_gpu_alone(network, classifier):
    with pytest.raises(BadInputError, match="builds for the GPU that it builds on"):
        configure(network, replace(RECIPE, compute_capabilities=("8.6",)), classifier)


@pytest.mark.tensorrt
def test_compute_capabilities_are_named_for_rtx(network, classifier):
    config = configure(network, EngineRecipe(TENSORRT_RTX, compute_capabilities=("8.6", "12.0")), classifier)
    known = network.module.ComputeCapability
    assert config.num_compute_capabilities == 2
    assert [config.get_compute_capability(index) for index in (0, 1)] == [known.SM86, known.SM120]


@pytest.mark.tensorrt
@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_is_offered_to_tensorrt_and_not_to_rtx(network, classifier, tmp_path):
    config = configure(network, RECIPE, classifier)
    cache = tmp_path / "timing"
    cache.write_bytes(b"of another version")
    use_timing_cache(config, network, RECIPE, cache)
    assert config.get_timing_cache() is not None
    assert isinstance(timing_cache_bytes(config, RECIPE), bytes)
    assert timing_cache_bytes(config, replace(RECIPE, runtime=TENSORRT_RTX)) == b""


# --- older versions -----------------------------------------------------------------------------------------


class Kinds(SimpleNamespace):
    pass


def module_of(version, **kinds):
    return SimpleNamespace(__version__=version, NetworkDefinitionCreationFlag=Kinds(**kinds))


TENSORRT_8 = module_of("8.2.1.9", EXPLICIT_BATCH=0, EXPLICIT_PRECISION=1)
TENSORRT_10 = module_of("10.3.0", EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
TENSORRT_11 = module_of("11.1.0", STRONGLY_TYPED=1)


@pytest.mark.parametrize(
    ("module", "dla_core", "strongly", "flags"),
    [
        (TENSORRT_8, None, False, 0b01),
        (TENSORRT_10, None, True, 0b10),
        (TENSORRT_10, 0, False, 0b00),
        (TENSORRT_11, None, True, 0b10),
        (TENSORRT_11, 0, True, 0b10),
    ],
)
def test_how_a_network_is_created(module, dla_core, strongly, flags):
    recipe = replace(RECIPE, dla_core=dla_core)
    assert _strongly_typed(module, recipe) is strongly
    assert _creation_flags(module, strongly) == flags


class OldConfig:
    """IBuilderConfig of TensorRT 8.2, as far as a recipe without a profile touches it (its pyCore.cpp)."""

    def __init__(self):
        self.flags = set()
        self.max_workspace_size = 0

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


def old_network():
    names = ("FP16", "INT8", "GPU_FALLBACK", "TF32", "SPARSE_WEIGHTS")
    module = SimpleNamespace(
        __version__="8.2.1.9",
        BuilderFlag=SimpleNamespace(**{name: name for name in names}),
        ProfilingVerbosity=SimpleNamespace(DETAILED="DETAILED"),
    )
    one = SimpleNamespace(name="input", shape=(1, 3, 4, 4))
    definition = SimpleNamespace(num_inputs=1, get_input=lambda index: one)
    builder = SimpleNamespace(create_builder_config=OldConfig)
    return SimpleNamespace(module=module, builder=builder, definition=definition, log=Log(), strongly_typed=False)


@pytest.mark.parametrize(
    ("precision", "flags"), [(Precision.FP32, set()), (Precision.FP16, {"FP16"}), (Precision.INT8, {"INT8"})]
)
def test_tensorrt_8_is_told_the_precision_by_flags(tmp_path, precision, flags):
    config = configure(old_network(), replace(RECIPE, precision=precision, workspace_mb=64), tmp_path / "m.onnx")
    assert config.flags == flags
    assert config.max_workspace_size == 64 * 10**6


@pytest.mark.parametrize(
    "change", [{"version_compatible": True}, {"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS}]
)
def test_what_tensorrt_8_does_not_have_is_said(tmp_path, change):
    with pytest.raises(BadInputError, match=r"TensorRT 8\.2\.1\.9 builds no "):
        configure(old_network(), replace(RECIPE, **change), tmp_path / "m.onnx")


def test_a_recipe_in_words():
    assert describe(EngineRecipe(TENSORRT_RTX, compute_capabilities=("8.6", "8.9"))) == "TensorRT-RTX for 8.6, 8.9"
    assert describe(RECIPE) == "TensorRT"

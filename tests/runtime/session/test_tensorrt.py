# ruff: noqa: N815 - the driver spells its functions so
"""There is no GPU here. What these tests run is our side of the interface: driver and TensorRT have stand-ins.

The driver's stand-in keeps "device memory" on the host and does what is in a stream only when it is waited for, so that
a copy forgotten, out of order or read too early shows. What is not shown: that the real ones behave as documented.
"""

import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgerecover.artifacts import TENSORRT, TENSORRT_RTX, EngineFacts, EngineKey, EngineRecipe, sha256_of, to_json
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.runtime.engine.engine import facts_path
from edgerecover.runtime.machine import cuda
from edgerecover.runtime.session.opening import open_model
from edgerecover.runtime.session.tensorrt import open_engine

OUT_OF_MEMORY = 2


class PretendDriver:
    """As much of libcuda as `Cuda` calls."""

    def __init__(self, memory_bytes=1 << 20):
        self.free_bytes = memory_bytes
        self.blocks, self.pending, self.captured, self.graphs = {}, [], None, {}
        self.launches = 0

    def submit(self, work):
        (self.pending if self.captured is None else self.captured).append(work)

    def cuGetErrorString(self, status, text):
        text._obj.value = b"pretended failure"
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device, index):
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"Pretend Orin"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def _handle(self, handle):
        handle._obj.value = 0x1000 + len(self.blocks) + len(self.graphs)
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        return self._handle(context)

    def cuCtxSetCurrent(self, context):
        return 0

    def cuStreamCreate(self, stream, flags):
        return self._handle(stream)

    def _allocate(self, address, size):
        if size.value > self.free_bytes:
            return OUT_OF_MEMORY
        block = (ctypes.c_char * size.value)()
        address._obj.value = ctypes.addressof(block)
        self.blocks[address._obj.value] = block
        self.free_bytes -= size.value
        return 0

    def cuMemAlloc_v2(self, address, size):
        return self._allocate(address, size)

    def cuMemHostAlloc(self, address, size, flags):
        return self._allocate(address, size)

    def _free(self, address):
        self.free_bytes += len(self.blocks.pop(address.value))
        return 0

    cuMemFree_v2 = cuMemFreeHost = _free

    def _copy(self, to, source, size, stream):
        to, source, size = to.value, source.value, size.value
        self.submit(lambda: ctypes.memmove(to, source, size))
        return 0

    cuMemcpyHtoDAsync_v2 = cuMemcpyDtoHAsync_v2 = _copy

    def cuStreamSynchronize(self, stream):
        pending, self.pending = self.pending, []
        for work in pending:
            work()
        return 0

    def cuEventCreate(self, event, flags):
        return self._handle(event)

    def cuEventRecord(self, event, stream):
        return 0

    def cuEventSynchronize(self, event):
        return self.cuStreamSynchronize(None)

    def cuEventElapsedTime(self, elapsed, start, end):
        elapsed._obj.value = 1.5
        return 0

    def cuStreamBeginCapture_v2(self, stream, mode):
        self.captured = []
        return 0

    def cuStreamEndCapture(self, stream, graph):
        graph._obj.value = 1 + len(self.graphs)
        self.graphs[graph._obj.value], self.captured = self.captured, None
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):
        executable._obj.value = graph.value
        return 0

    def cuGraphLaunch(self, executable, stream):
        self.launches += 1
        self.pending.extend(self.graphs[executable.value])
        return 0

    def cuGraphDestroy(self, graph):
        return 0

    cuGraphExecDestroy = cuEventDestroy_v2 = cuStreamDestroy_v2 = cuDevicePrimaryCtxRelease_v2 = cuGraphDestroy


WEIGHTS = np.random.default_rng(0).standard_normal((3 * 4 * 4, 5)).astype(np.float32)


def scores_of(images_NCHW):
    return images_NCHW.reshape(len(images_NCHW), -1) @ WEIGHTS


class PretendContext:
    def __init__(self, engine, driver):
        self.engine, self.driver, self.addresses, self.shape = engine, driver, {}, None
        self.executions = 0

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        self.shape = shape
        return least[0] <= shape[0] <= most[0]

    def get_tensor_shape(self, name):
        return self.shape if name == "input" else (self.shape[0], 5)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self.executions += 1
        shape, addresses = self.shape, dict(self.addresses)

        def run():
            count = int(np.prod(shape))
            images = np.frombuffer((ctypes.c_char * (4 * count)).from_address(addresses["input"]), np.float32)
            scores = scores_of(images.reshape(shape))
            ctypes.memmove(addresses["logits"], scores.ctypes.data, scores.nbytes)

        self.driver.submit(run)
        return self.engine.sound


class PretendEngine:
    num_io_tensors, num_layers = 2, 7

    def __init__(self, driver, batch, sound=True):
        self.driver, self.batch, self.sound = driver, batch, sound

    def get_tensor_name(self, index):
        return ("input", "logits")[index]

    def get_tensor_mode(self, name):
        return name == "input"

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name):
        first = -1 if isinstance(self.batch, tuple) else self.batch
        return (first, 3, 4, 4) if name == "input" else (first, 5)

    def get_tensor_profile_shape(self, name, index):
        sizes = self.batch if isinstance(self.batch, tuple) else (self.batch,) * 3
        return [(size, 3, 4, 4) for size in sizes]

    def create_execution_context(self):
        return PretendContext(self, self.driver)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with the pretended driver and TensorRT 10.3; `engine` is what every file holds."""
    driver = PretendDriver()
    cuda.this_gpu.cache_clear()
    monkeypatch.setattr(cuda, "_driver", lambda: driver)
    module = ModuleType("tensorrt")
    module.__version__ = "10.3.0"
    module.ILogger = type("ILogger", (), {})
    module.TensorIOMode = SimpleNamespace(INPUT=True)
    machine = SimpleNamespace(driver=driver, engine=PretendEngine(driver, 2))

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            if plan != b"plan":
                self.logger.log(SimpleNamespace(name="ERROR"), "Serialization assertion header.magicTag failed.")
                return None
            return machine.engine

    module.Runtime = Runtime
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    yield machine
    cuda.this_gpu.cache_clear()


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "m.engine"
    path.write_bytes(b"plan")
    return path


def images(count):
    return np.random.default_rng(count).standard_normal((count, 3, 4, 4)).astype(np.float32)


def test_scores_come_back_through_all_copies(gpu, plan):
    session = open_model(plan, TENSORRT, [])
    assert (session.batch, session.shape_CHW, session.outputs, session.num_values) == (2, (3, 4, 4), ("logits",), 5)
    assert (session.provider, session.copies, session.cuda_graph) == ("Pretend Orin", True, False)
    assert session.version == "10.3.0"
    np.testing.assert_allclose(session.run(images(5)), scores_of(images(5)), rtol=1e-5)


def test_outputs_are_copies(gpu, plan):
    session = open_engine(plan, TENSORRT)
    (first,) = session.run_batch(images(2))
    kept = first.copy()
    session.run_batch(images(2) + 1)
    np.testing.assert_array_equal(first, kept)


def test_an_open_batch_runs_at_every_size_of_its_profile(gpu, plan):
    gpu.engine = PretendEngine(gpu.driver, (1, 4, 8))
    session = open_engine(plan, TENSORRT)
    assert session.batch is None
    for count in (1, 8, 3):
        np.testing.assert_allclose(session.run_batch(images(count))[0], scores_of(images(count)), rtol=1e-5)
    np.testing.assert_allclose(session.run(images(19)), scores_of(images(19)), rtol=1e-5)
    with pytest.raises(BadInputError, match="batches of 1 to 8, found 9"):
        session.run_batch(images(9))


def test_an_open_batch_can_be_settled(gpu, plan):
    gpu.engine = PretendEngine(gpu.driver, (1, 4, 8))
    assert open_engine(plan, TENSORRT, batch=4).batch == 4
    with pytest.raises(BadInputError, match="batches of 1 to 8, and 16"):
        open_engine(plan, TENSORRT, batch=16)


def test_a_captured_graph_is_replayed_and_captured_anew_for_another_batch(gpu, plan):
    gpu.engine = PretendEngine(gpu.driver, (1, 4, 8))
    session = open_engine(plan, TENSORRT, cuda_graph=True)
    for count in (4, 4, 4, 2):
        np.testing.assert_allclose(session.run_batch(images(count))[0], scores_of(images(count)), rtol=1e-5)
    assert gpu.driver.launches == 4
    assert len(gpu.driver.graphs) == 2
    assert session.cuda_graph


def test_time_on_the_gpu_alone(gpu, plan):
    session = open_engine(plan, TENSORRT)
    session.run_batch(images(2))
    assert session.enqueue_ms() == 1.5


def test_memory_is_given_back(gpu, plan):
    before = gpu.driver.free_bytes
    session = open_engine(plan, TENSORRT)
    session.run_batch(images(2))
    assert gpu.driver.free_bytes < before
    session.close()
    session.close()
    assert gpu.driver.free_bytes == before


def test_too_large_for_the_gpu(gpu, plan):
    gpu.driver.free_bytes = 100
    with pytest.raises(BadInputError, match="out of memory"):
        open_engine(plan, TENSORRT)


def test_an_engine_that_does_not_run(gpu, plan):
    gpu.engine = PretendEngine(gpu.driver, 2, sound=False)
    with pytest.raises(StageError, match=r"TensorRT 10\.3\.0: the engine did not run"):
        open_engine(plan, TENSORRT).run_batch(images(2))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"pla"])
def test_files_that_are_no_engines(gpu, plan, content):
    plan.write_bytes(content)
    with pytest.raises(BadInputError, match=r"which is no engine|cannot open it: Serialization") as caught:
        open_engine(plan, TENSORRT)
    assert "Traceback" not in str(caught.value)


ORIN = EngineKey(TENSORRT, "10.3.0", ("8.7",), "Pretend Orin", "a" * 64)


def write_facts(plan, key=ORIN, recipe=None):
    recipe = recipe or EngineRecipe(TENSORRT)
    digest, source = sha256_of(plan), "engine inspector"
    facts = EngineFacts(plan.name, digest, 4, key, recipe, 1.0, 7, {"Half": 7}, source, None, (), ())
    facts_path(plan).write_text(json.dumps(to_json(facts)))


def test_facts_of_this_machine_let_it_open(gpu, plan):
    write_facts(plan)
    assert open_engine(plan, TENSORRT).notes == ("layers: 7 in Half (engine inspector)",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "10.16.2"}, "TensorRT 10.16.2 → 10.3.0"),
        ({"compute_capabilities": ("8.6",)}, "compute capability 8.6 → 8.7"),
        ({"gpu": "another"}, "GPU another → Pretend Orin"),
        ({"runtime": TENSORRT_RTX}, "is an engine of tensorrt-rtx, and tensorrt was asked for"),
    ],
)
def test_a_foreign_engine_never_reaches_tensorrt(gpu, plan, change, reason):
    gpu.engine = None  # opening it would fail in another way
    write_facts(plan, replace(ORIN, **change))
    with pytest.raises(BadInputError, match=reason):
        open_engine(plan, TENSORRT)


def test_code_in_an_engine_runs_only_when_allowed(gpu, plan):
    write_facts(plan, recipe=EngineRecipe(TENSORRT, version_compatible=True))
    with pytest.raises(BadInputError, match="holds code"):
        open_engine(plan, TENSORRT)
    assert open_engine(plan, TENSORRT, host_code_allowed=True).batch == 2


def test_without_a_driver_an_engine_is_missing_its_gpu(plan, monkeypatch):
    monkeypatch.setattr(cuda, "_LIBRARIES", ("libcuda-that-is-not-there.so.1",))
    cuda._driver.cache_clear()
    cuda.this_gpu.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(MissingError, match="no CUDA driver found") as caught:
        open_model(plan, TENSORRT, [])
    assert caught.value.exit_code == 3
    assert "NVIDIA GPU" in caught.value.hint
    assert cuda.this_gpu() is None
    cuda._driver.cache_clear()
    cuda.this_gpu.cache_clear()


@pytest.mark.tensorrt
@pytest.mark.skipif(cuda.this_gpu() is not None, reason="it would be run here")
def test_a_real_engine_without_a_gpu(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86_64 Linux, Windows)")
    path = tmp_path / "m.engine"
    path.write_bytes(b"whatever it holds")
    with pytest.raises(MissingError, match="CUDA driver"):
        open_model(path, TENSORRT_RTX, [])


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(BadInputError, match="no such file"):
        open_engine(tmp_path / "m.engine", TENSORRT)

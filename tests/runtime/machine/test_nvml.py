"""A driver in Python, called as the C library is."""

import ctypes

from edgerecover.runtime.machine.nvml import open_nvml


class Driver:
    """Answers through pointers, as nvml.h says; what is None it does not support."""

    def __init__(self, reasons=0, energy=5_000, num_gpus=1):
        self._reasons, self._energy, self._num_gpus = reasons, energy, num_gpus

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):
        return 0 if index.value < self._num_gpus else 2

    def nvmlDeviceGetName(self, device, buffer, length):
        assert length.value == len(buffer)
        buffer.value = b"NVIDIA GeForce RTX 4090"
        return 0

    def nvmlSystemGetDriverVersion(self, buffer, length):
        buffer.value = b"580.65"
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, value):
        if self._energy is None:
            return 3
        _set(value, ctypes.c_ulonglong, self._energy)
        return 0

    def nvmlDeviceGetClockInfo(self, device, kind, value):
        assert kind == 1
        _set(value, ctypes.c_uint, 2520)
        return 0

    def nvmlDeviceGetTemperature(self, device, sensor, value):
        _set(value, ctypes.c_uint, 71)
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device, value):
        _set(value, ctypes.c_ulonglong, self._reasons)
        return 0


def _set(pointer, kind, number):
    ctypes.cast(pointer, ctypes.POINTER(kind)).contents.value = number


def test_what_a_gpu_tells():
    gpu = open_nvml(library=Driver())
    assert (gpu.name(), gpu.driver()) == ("NVIDIA GeForce RTX 4090", "580.65")
    assert (gpu.energy_mj(), gpu.clock_mhz(), gpu.temperature_c()) == (5000, 2520, 71)
    assert gpu.throttle_reasons() == set()


def test_reasons_that_slow_down_are_told_and_idle_is_not():
    assert open_nvml(library=Driver(reasons=0x1)).throttle_reasons() == set()
    assert open_nvml(library=Driver(reasons=0x44)).throttle_reasons() == {"GPU power cap", "GPU too hot (hardware)"}


def test_what_is_not_supported_is_not_known():
    assert open_nvml(library=Driver(energy=None)).energy_mj() is None
    assert open_nvml(index=3, library=Driver()) is None
    assert open_nvml(library=object()) is None

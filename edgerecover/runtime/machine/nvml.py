"""The few things that NVIDIA's driver tells about a GPU, through its C library. Stdlib only.

Signatures and constants: NVML API Reference Guide (nvml.h). A call that a GPU does not support tells
nothing.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SUCCESS = 0
_CLOCK_SM = 1
_TEMPERATURE_GPU = 0
_MAX_NAME = 96
_THROTTLE_REASONS = {
    0x4: "GPU power cap",
    0x8: "GPU hardware slowdown",
    0x20: "GPU too hot (software)",
    0x40: "GPU too hot (hardware)",
    0x80: "GPU power brake",
}
"""nvmlClocksEventReason*: those that slow down. Not counted: idle, clocks that the user set, display settings."""


class Nvml:
    """One GPU. Made by `open_nvml`."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library, self._device = library, device

    def name(self) -> str | None:
        """Of the GPU: "NVIDIA GeForce RTX 4090"."""
        return self._text("nvmlDeviceGetName", self._device)

    def driver(self) -> str | None:
        """Version of the driver."""
        return self._text("nvmlSystemGetDriverVersion")

    def energy_mj(self) -> float | None:
        """Millijoules since the driver was loaded (Volta and newer)."""
        return self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)

    def clock_mhz(self) -> float | None:
        """Of the multiprocessors, now."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, _CLOCK_SM)

    def temperature_c(self) -> float | None:
        """Of the chip, now."""
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint, _TEMPERATURE_GPU)

    def throttle_reasons(self) -> set[str]:
        """Why clocks are held down now; empty where nothing is known."""
        bits = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong)
        return {reason for bit, reason in _THROTTLE_REASONS.items() if int(bits or 0) & bit}

    def _number(self, function: str, kind: Any, *arguments: int) -> float | None:
        value = kind()
        call = getattr(self._library, function, None)
        if call is None or call(self._device, *arguments, ctypes.byref(value)) != _SUCCESS:
            return None
        return float(value.value)

    def _text(self, function: str, *arguments: Any) -> str | None:
        buffer = ctypes.create_string_buffer(_MAX_NAME)
        call = getattr(self._library, function, None)
        if call is None or call(*arguments, buffer, ctypes.c_uint(_MAX_NAME)) != _SUCCESS:
            return None
        return buffer.value.decode(errors="replace")


def open_nvml(index: int = 0, library: Any = None) -> Nvml | None:
    """The GPU of that number; None where there is no such GPU or no driver.

    Args:
        index: as the driver counts.
        library: the loaded C library; None loads the system's.
    """
    try:
        loaded = library if library is not None else ctypes.CDLL(_LIBRARY)
        device = ctypes.c_void_p()
        if loaded.nvmlInit_v2() != _SUCCESS:
            return None
        if loaded.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != _SUCCESS:
            return None
    except (OSError, AttributeError):
        return None
    return Nvml(loaded, device)

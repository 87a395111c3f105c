"""Which machine this is, and whether it is the one a target describes. Stdlib only."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgerecover.artifacts import Host

_CPU_INFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_SAME_MACHINE = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def this_host() -> Host:
    """Describe this machine; what the system does not tell stays empty."""
    return Host(
        machine=_canonical(platform.machine()),
        cpu=_cpu_name() or platform.processor() or platform.machine(),
        num_cores=_num_cores(),
        system=f"{platform.system()} {platform.release()}",
        board=_board(),
    )


def is_target(machine: str, board: str | None, host: Host) -> bool:
    """Whether `host` has a target's machine ("any" fits all) and, when given, the board's text."""
    if machine != "any" and _canonical(machine) != _canonical(host.machine):
        return False
    return board is None or board.casefold() in host.board.casefold()


_X86 = "avx avx2 fma avx_vnni avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16"
_ARM = "asimd asimdhp asimddp i8mm bf16 sve sve2"
INSTRUCTIONS = tuple(f"{_X86} {_ARM}".split())
"""Those that decide which kernels a network runs on, by the names that Linux gives them."""


def instructions(root: Path = Path("/")) -> tuple[str, ...]:
    """Which of INSTRUCTIONS the first core has; empty where the system does not tell."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    fields = (line.partition(":") for line in lines)
    flags = next((value.split() for key, _, value in fields if key.strip() in ("flags", "Features")), [])
    return tuple(name for name in INSTRUCTIONS if name in flags)


def _canonical(machine: str) -> str:
    """One name per instruction set: AMD64 is x86_64 and arm64 is aarch64."""
    return _SAME_MACHINE.get(machine.lower(), machine.lower())


def _cpu_name() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), "")


def _board() -> str:
    try:
        return _BOARD.read_bytes().decode(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _num_cores() -> int:
    """Cores this process may use, which containers and taskset make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

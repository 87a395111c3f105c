"""Which machine this is, and whether it is the one a target describes. Stdlib only.

Where a function takes a `root`, files are read below it, so that another machine's can be looked at.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from edgerecover.artifacts import Gpu, Host, TargetMachine
from edgerecover.artifacts.machine import ISA

_ROOT = Path("/")
_SAME_MACHINE = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_COMMAND_TIMEOUT_S = 15.0

_ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "Carmel",
}
"""Implementer and part number of Arm processors, which have no model name: sys-utils/lscpu-arm.c of util-linux."""

_SYSCTL_ISA = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}
"""macOS's names: developer.apple.com, "Determining Instruction Set Characteristics"."""

_PCI_VENDORS = {"0x8086": "Intel", "0x1002": "AMD"}


def this_host() -> Host:
    """Describe this machine; what the system does not tell stays empty."""
    info, sysctl = _cpu_info(_ROOT), _sysctl() if sys.platform == "darwin" else {}
    return Host(
        machine=_canonical(platform.machine()),
        cpu=_cpu_name(info) or sysctl.get("machdep.cpu.brand_string") or platform.processor() or platform.machine(),
        num_cores=num_cores(),
        system=f"{_system()} {platform.release()}",
        board=_board(_ROOT),
        isa=_isa(info) or tuple(name for key, name in _SYSCTL_ISA.items() if sysctl.get(key) == "1"),
        gpus=_gpus(_ROOT),
        l4t=_l4t(_ROOT),
    )


def is_target(target: TargetMachine, host: Host) -> bool:
    """Whether `host` is, and has, what the target asks for."""
    return not differences(target, host)


def is_this_machine(target: TargetMachine) -> bool:
    """Whether this machine is, and has, what the target asks for."""
    return is_target(target, this_host())


def differences(target: TargetMachine, host: Host) -> tuple[str, ...]:
    """What tells `host` from the target, for people: "the processor has no avx512_vnni"."""
    found = []
    if target.machine != "any" and _canonical(target.machine) != _canonical(host.machine):
        found.append(f"the processor is {host.machine}, not {target.machine}")
    if target.board is not None and target.board.casefold() not in host.board.casefold():
        found.append(f"the board is {host.board or 'none that is named'}, not {target.board}")
    if target.system is not None and target.system != host.system.partition(" ")[0]:
        found.append(f"the system is {host.system}, not {target.system}")
    if missing := [name for name in target.isa if name not in host.isa]:
        found.append(f"the processor has no {', no '.join(missing)}")
    if extra := [name for name in target.without_isa if name in host.isa]:
        found.append(f"the processor has {', '.join(extra)}, which the target has not")
    if target.compute_capability is not None and not any(
        gpu.compute_capability == target.compute_capability for gpu in host.gpus
    ):
        found.append(f"no GPU here has compute capability {target.compute_capability}")
    if target.gpu is not None and not any(target.gpu.casefold() in gpu.name.casefold() for gpu in host.gpus):
        found.append(f"there is no {target.gpu} GPU here")
    if target.l4t is not None and host.l4t and host.l4t.partition(".")[0] != target.l4t:
        found.append(f"it runs Jetson Linux {host.l4t}, not {target.l4t}.x")
    return tuple(found)


def _canonical(machine: str) -> str:
    """One name per instruction set: AMD64 is x86_64 and arm64 is aarch64."""
    return _SAME_MACHINE.get(machine.lower(), machine.lower())


def _system() -> str:
    """As `platform.system()`, which calls Android Linux before Python 3.13."""
    return "Android" if hasattr(sys, "getandroidapilevel") else platform.system()


# --- processor ----------------------------------------------------------------------------------------------


def _cpu_info(root: Path) -> dict[str, str]:
    """Each field of /proc/cpuinfo as the first processor has it."""
    info: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            info.setdefault(key.strip(), value.strip())
    return info


def _cpu_name(info: Mapping[str, str]) -> str:
    part = (info.get("CPU implementer", ""), info.get("CPU part", ""))
    return info.get("model name") or _ARM_PARTS.get(part, "")


def _isa(info: Mapping[str, str]) -> tuple[str, ...]:
    """x86 kernels call them flags, Arm ones Features."""
    words = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name in ISA if name in words)


def _sysctl() -> dict[str, str]:
    lines = _output("sysctl", "machdep.cpu.brand_string", "hw.optional").splitlines()
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def num_cores() -> int:
    """Cores this process may use, which containers and taskset make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- board and GPUs -----------------------------------------------------------------------------------------


def _board(root: Path) -> str:
    return _text(root / "proc/device-tree/model").strip("\0 \n")


def _l4t(root: Path) -> str:
    """From "# R36 (release), REVISION: 4.3, GCID: …"."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2]}" if found else ""


@lru_cache
def _gpus(root: Path) -> tuple[Gpu, ...]:
    """NVIDIA's as nvidia-smi tells them, then the others that Linux has a display driver for."""
    query = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
    return (*_nvidia_gpus(_output("nvidia-smi", *query)), *_other_gpus(root))


def _nvidia_gpus(csv: str) -> list[Gpu]:
    rows = [[cell.strip() for cell in line.split(",")] for line in csv.splitlines()]
    # A Tegra's GPU, and older drivers, answer "[N/A]" or "[Not Supported]" where they do not know.
    return [Gpu(*("" if cell.startswith("[") else cell for cell in row)) for row in rows if len(row) == 3]


def _other_gpus(root: Path) -> list[Gpu]:
    found = []
    for folder in sorted((root / "sys/class/drm").glob("card[0-9]*/device")):
        if re.fullmatch(r"card\d+", folder.parent.name):  # card0-HDMI-A-1 is a connector
            vendor = _PCI_VENDORS.get(_text(folder / "vendor").strip())
            found += [Gpu(f"{vendor} GPU {_text(folder / 'device').strip()}".strip())] if vendor else []
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command of the system prints; nothing where it is missing, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""

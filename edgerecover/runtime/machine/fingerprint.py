"""Which machine a baseline was taken on, as far as it moves latencies. Stdlib only."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from edgerecover.artifacts import Fingerprint, Host
from edgerecover.runtime.machine import sysfs
from edgerecover.runtime.machine.nvml import Nvml


def fingerprint(
    host: Host, versions: Mapping[str, str], root: Path = Path("/"), nvml: Nvml | None = None
) -> Fingerprint:
    """Everything that is known of it; what is not known has no entry.

    Args:
        host: this machine.
        versions: of the runtimes in use, by name.
        root: of /proc, /sys, /var and /etc.
        nvml: the GPU in use, where there is one.
    """
    quota = sysfs.cpu_quota(root)
    facts: dict[str, str | None] = {
        "machine": host.machine,
        "board": host.board,
        "cpu": host.cpu,
        "cores": str(host.num_cores),
        "instructions": " ".join(host.isa),
        "governor": sysfs.governor(root, [0]),
        "power mode": sysfs.power_mode(root),
        "cpu quota": None if quota is None else f"{quota:g}",
        "system": host.system,
        "gpu": nvml.name() if nvml else None,
        "driver": nvml.driver() if nvml else None,
        "python": platform.python_version(),
        **versions,
    }
    return Fingerprint({name: fact for name, fact in facts.items() if fact})

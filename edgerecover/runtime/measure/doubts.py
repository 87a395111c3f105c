"""What about a measurement makes its numbers less than they seem, in words. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator

from edgerecover.artifacts import Conditions, Latency

MAX_BUSY_SHARE = 0.1
"""Of the cores in use, taken by others."""
MAX_STOLEN = 0.01
MAX_DRIFT = 0.05
MAX_CLOCK_SPREAD = 0.1
LEAST_FOR_P99 = 200
"""Below it, p99 rests on two queries."""
_STEADY_GOVERNORS = ("performance", "userspace")


def doubts(latency: Latency) -> tuple[str, ...]:
    """A line for each thing that was noticed; none when nothing was."""
    cores = len(latency.cores) or latency.host.num_cores
    found = list(_of_samples(latency))
    if latency.conditions is not None:
        found += _of_neighbours(latency.conditions, cores)
        found += _of_clocks(latency.conditions)
    return tuple(found)


def _of_samples(latency: Latency) -> Iterator[str]:
    change = latency.drift - 1
    if abs(change) > MAX_DRIFT:
        word = "slower" if change > 0 else "faster"
        yield f"queries got {abs(change):.0%} {word} between the first and the last third of the measurement"
    if not latency.settled:
        yield "queries were still getting faster when the warm-up had lasted as long as it may"
    if len(latency.samples_ms) < LEAST_FOR_P99:
        yield f"p99 of {len(latency.samples_ms)} queries is little more than the slowest of them"


def _of_neighbours(conditions: Conditions, cores: int) -> Iterator[str]:
    on = f"{cores} core" if cores == 1 else f"{cores} cores"
    if conditions.load_before is not None and conditions.load_before >= cores:
        yield f"load {conditions.load_before:.1f} on {on} before it began: a busy machine"
    if conditions.busy_elsewhere is not None and conditions.busy_elsewhere > MAX_BUSY_SHARE * cores:
        yield f"other processes took {conditions.busy_elsewhere:.1f} of {on} meanwhile"
    if conditions.stolen is not None and conditions.stolen > MAX_STOLEN:
        yield f"the hypervisor gave {conditions.stolen:.0%} of the time to other guests"
    if conditions.cpu_quota is not None and conditions.cpu_quota < cores:
        yield f"the control group allows {conditions.cpu_quota:g} of {on}: queries can be paused in their middle"


def _of_clocks(conditions: Conditions) -> Iterator[str]:
    if conditions.throttled:
        yield f"clocks were held down: {', '.join(conditions.throttled)}"
    pairs = (
        ("CPU", conditions.cpu_mhz_lowest, conditions.cpu_mhz_highest),
        ("GPU", conditions.gpu_mhz_lowest, conditions.gpu_mhz_highest),
    )
    for name, lowest, highest in pairs:
        if lowest is not None and highest and lowest < (1 - MAX_CLOCK_SPREAD) * highest:
            yield f"the {name}'s clock moved between {lowest:,.0f} and {highest:,.0f} MHz"
    if conditions.power_mode is not None:
        if conditions.clocks_locked is False:
            yield f"clocks are not locked in power mode {conditions.power_mode}: `sudo jetson_clocks` locks them"
    elif conditions.governor is not None and conditions.governor not in _STEADY_GOVERNORS:
        yield f"the CPU's clock follows {conditions.governor}: numbers are steadier with the governor `performance`"

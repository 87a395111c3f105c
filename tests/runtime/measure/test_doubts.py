import dataclasses

import pytest

from edgerecover.artifacts import Conditions, Host, Latency
from edgerecover.runtime.measure.doubts import doubts

QUIET = Latency(
    scope="one call",
    runtime="onnxruntime 1",
    provider="CPUExecutionProvider",
    nodes_by_provider={},
    num_threads=1,
    batch=1,
    host=Host("x86_64", "EPYC", 2, "Linux"),
    host_is_target=True,
    warmup_ms=(1.0,),
    samples_ms=(1.0,) * 300,
    load_ms=1.0,
    memory_before_bytes=0,
    memory_peak_bytes=0,
    conditions=Conditions(
        3,
        governor="performance",
        load_before=0.1,
        busy_elsewhere=0.1,
        stolen=0.0,
        cpu_mhz_lowest=2390,
        cpu_mhz_highest=2400,
        throttled=(),
    ),
)


def test_a_quiet_machine_gives_no_doubt():
    assert doubts(QUIET) == ()
    assert doubts(dataclasses.replace(QUIET, conditions=None)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load_before": 3.2}, "load 3.2 on 2 cores before it began: a busy machine"),
        ({"busy_elsewhere": 0.5}, "other processes took 0.5 of 2 cores meanwhile"),
        ({"stolen": 0.03}, "the hypervisor gave 3% of the time to other guests"),
        ({"cpu_quota": 1.5}, "the control group allows 1.5 of 2 cores"),
        ({"throttled": ("under-voltage",)}, "clocks were held down: under-voltage"),
        ({"cpu_mhz_lowest": 1200.0}, "the CPU's clock moved between 1,200 and 2,400 MHz"),
        ({"gpu_mhz_lowest": 306.0, "gpu_mhz_highest": 624.0}, "the GPU's clock moved between 306 and 624 MHz"),
        ({"governor": "powersave"}, "follows powersave"),
        ({"power_mode": "15W (0)", "clocks_locked": False, "governor": "schedutil"}, "sudo jetson_clocks"),
    ],
)
def test_what_the_machine_did(changes, words):
    (doubt,) = doubts(dataclasses.replace(QUIET, conditions=dataclasses.replace(QUIET.conditions, **changes)))
    assert words in doubt


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples_ms": (1.0,) * 150 + (1.2,) * 150}, "20% slower between the first and the last third"),
        ({"samples_ms": (1.0,) * 150 + (0.5,) * 150}, "50% faster"),
        ({"settled": False}, "still getting faster"),
        ({"samples_ms": (1.0,) * 30}, "p99 of 30 queries"),
    ],
)
def test_what_the_samples_did(changes, words):
    (doubt,) = doubts(dataclasses.replace(QUIET, **changes))
    assert words in doubt


def test_one_core_is_half_of_two():
    busy = dataclasses.replace(QUIET.conditions, busy_elsewhere=0.16)
    assert doubts(dataclasses.replace(QUIET, conditions=busy)) == ()
    (doubt,) = doubts(dataclasses.replace(QUIET, conditions=busy, cores=(0,)))
    assert doubt == "other processes took 0.2 of 1 core meanwhile"

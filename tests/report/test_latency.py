import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgerecover.artifacts import Conditions, Energy, Fingerprint, Host, Latency, Ratio
from edgerecover.artifacts.bench import Bench, Lane
from edgerecover.artifacts.race import Raced
from edgerecover.report.latency import (
    conditions_words,
    histogram,
    milliseconds,
    print_bench,
    ratio_words,
    sparkline,
    steps_for,
)


def latency(scale=1.0, **changes):
    samples = scale * np.random.default_rng(0).gamma(20, 0.05, 600)
    plain = Latency(
        scope="one onnxruntime call, images in and scores out in host memory",
        runtime="onnxruntime 1.31.1",
        provider="CPUExecutionProvider",
        nodes_by_provider={"CPUExecutionProvider": 52},
        num_threads=2,
        batch=1,
        host=Host("x86_64", "Intel(R) Xeon(R) Platinum 8488C", 2, "Linux 6.8.0"),
        host_is_target=False,
        warmup_ms=(4.0,) * 50,
        samples_ms=tuple(samples.tolist()),
        load_ms=21.3,
        memory_before_bytes=48_000_000,
        memory_peak_bytes=63_400_000,
        round_sizes=(20,) * 30,
        conditions=Conditions(31, load_before=3.2, busy_elsewhere=0.0, throttled=()),
        fingerprint=Fingerprint({"cpu": "Xeon"}),
    )
    return dataclasses.replace(plain, **changes)


def lane(name, raced_latency=None, **changes):
    return Lane(name, name, "0" * 64, "onnxruntime", None, None, Raced(name, raced_latency, **changes))


@pytest.fixture
def bench():
    new, old = lane("model.onnx", latency()), lane("dense.onnx", latency(3.0))
    new = dataclasses.replace(new, compared_with=old.name, slower=new.raced.latency.slower_than(old.raced.latency))
    return Bench("0.1.0", "2026-03-01T09:30:00+00:00", "raspberry-pi-5", 33.0, (new, old))


def shown(bench, encoding="utf-8", width=80):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    print_bench(Console(file=out, width=width), bench)
    out.flush()
    return raw.getvalue().decode(encoding)


def test_one_screen_says_it_all(bench):
    text = shown(bench)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    for expected in (
        "latency of model.onnx for raspberry-pi-5",
        "Round by round against dense.onnx",
        "3.00× faster (3.00–3.00)",
        f"p50 {milliseconds(bench.lanes[0].raced.latency.percentile_ms(50))}",
        "600 queries",
        "host memory; batch 1",
        "Xeon(R) Platinum 8488C, 2 cores",
        "15.4 MB more than the bare runtime",
        "against the limit of 33 ms, but this machine is not the target, so this settles nothing",
        "load 3.2 on 2 cores before it began: a busy machine",
        bench.lanes[0].raced.latency.fingerprint.digest,
    ):
        assert expected in words, expected
    assert "accuracy" not in words


def test_what_could_not_be_measured_stands_beside_what_could(bench):
    failed = lane("int8, openvino", error="OpenVINO cannot be imported", hint="pip install 'edgerecover[openvino]'")
    words = " ".join(shown(dataclasses.replace(bench, lanes=(*bench.lanes, failed))).split())
    assert "int8, openvino OpenVINO cannot be imported pip install 'edgerecover[openvino]'" in words
    only = " ".join(shown(dataclasses.replace(bench, lanes=(failed,))).split())
    assert "Not measured" in only
    assert "Warnings" not in only


def test_a_terminal_that_knows_ascii_alone_gets_drawings_in_ascii(bench):
    text = shown(bench, encoding="ascii")
    spread = next(line for line in text.splitlines() if "spread" in line)
    assert "?" not in spread
    assert "#" in spread
    assert steps_for(Console(file=io.StringIO())) == "▁▂▃▄▅▆▇█"


def test_names_of_any_text_are_no_markup(bench):
    odd = dataclasses.replace(bench.lanes[0], name="[bold]x[/nonsense].onnx")
    assert "[bold]x[/nonsense].onnx" in shown(dataclasses.replace(bench, lanes=(odd, bench.lanes[1])))


def test_energy_and_conditions_where_they_are_known(bench):
    metered = latency(energy=Energy(12.34, "INA3221 VDD_IN, the whole board", 600))
    text = shown(dataclasses.replace(bench, lanes=(lane("a", metered),)))
    assert "12.3 mJ per query: INA3221 VDD_IN, the whole board" in text
    conditions = Conditions(
        3, power_mode="15W (0)", clocks_locked=True, gpu_mhz_lowest=306, gpu_mhz_highest=624,
        temperature_before_c=51, temperature_peak_c=51.2, stolen=0.01, throttled=("over-current",),
    )  # fmt: skip
    assert conditions_words(conditions) == (
        "power mode 15W (0), clocks locked, GPU at 306–624 MHz, 51 °C, 1.0% stolen by the hypervisor, throttled"
    )
    assert conditions_words(Conditions(0)) == ""


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=200))
def test_a_histogram_loses_no_query(samples):
    counts, low, high = histogram(samples)
    assert sum(counts) == len(samples)
    assert min(samples) == low <= high <= max(samples)


def test_one_pause_does_not_flatten_the_rest():
    counts, _, high = histogram([1.0 + n / 1000 for n in range(300)] + [500.0])
    assert high < 2
    assert max(counts) < 30


def test_sparklines_and_numbers():
    assert sparkline([0, 4, 8], "abcdefgh") == "aeh"
    assert sparkline([0.0, 0.0], "ab") == "aa"
    told = [milliseconds(value) for value in (0.00567, 0.5, 1.2345, 12.345, 66.66, 123.4, 1234.5, 0.0)]
    assert told == ["0.0057", "0.5000", "1.234", "12.35", "66.66", "123.4", "1,234", "0.000"]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Ratio(0.5, 0.4, 0.5), ("2.00× faster", "(2.00–2.50)")),
        (Ratio(2.0, 1.9, 2.1), ("2.00× slower", "(1.90–2.10)")),
        (Ratio(1.01, 0.99, 1.02), ("about as fast", "(0.99–1.02 × its time)")),
        (Ratio(0.8, 0.6, 1.1), ("about as fast", "(0.60–1.10 × its time)")),
        (Ratio(0.5, 0.0, 0.6), ("2.00× faster", "(1.67–∞)")),
    ],
)
def test_ratios_in_words(ratio, words):
    assert ratio_words(ratio) == words

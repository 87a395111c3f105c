import dataclasses
import math

import pytest

from edgerecover.report.html.blocks import Row, Scale, Table, Tick, Whisker
from edgerecover.report.html.latency import _scale, engines_section, latency_section, race_section


def whiskers(section):
    (table,) = (block for block in section.blocks if isinstance(block, Table) and "agreement" in block.header)
    return {row[0]: next((cell for cell in row if isinstance(cell, Whisker)), None) for row in table.rows}


def test_without_race_and_engines_there_is_no_section_of_them(report):
    assert race_section(report) is None
    assert engines_section(report) is None


def test_the_faster_variant_stands_right_of_the_dense_networks_line(full_report):
    found = whiskers(race_section(full_report))
    (faster,) = (whisker for name, whisker in found.items() if name.startswith("int8"))
    assert faster.low <= faster.value <= faster.high
    assert faster.low > faster.reference
    (same,) = (whisker for name, whisker in found.items() if name.startswith("fp32"))
    assert same.value == pytest.approx(same.reference)
    assert [whisker for name, whisker in found.items() if name.startswith("fp16")] == [None]


def test_the_scale_of_the_race_has_numbers_where_the_marks_stand(full_report):
    section = race_section(full_report)
    (table,) = (block for block in section.blocks if isinstance(block, Table) and "agreement" in block.header)
    (scale,) = (cell for row in table.rows for cell in row if isinstance(cell, Scale))
    middle = len(scale.ticks) // 2
    assert scale.ticks[middle] == Tick(0.5, "1×")
    assert len(scale.ticks) >= 3
    places = [tick.at for tick in scale.ticks]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= 1
    assert all(whisker.rules == tuple(places) for whisker in whiskers(section).values() if whisker)


@pytest.mark.parametrize(
    ("furthest", "labels"),
    [
        (1.25, ["0.8×", "1×", "1.25×"]),
        (2.1, ["0.5×", "1×", "2×"]),
        (9, ["0.25×", "1×", "4×"]),
        (1000, ["0.01×", "1×", "100×"]),
    ],
)
def test_a_scale_has_three_to_five_numbers(furthest, labels):
    assert [tick.label for tick in _scale(math.log(furthest)).ticks] == labels


def test_rounds_are_drawn_where_there_were_several(full_report):
    def charts(latency):
        section = latency_section(dataclasses.replace(full_report, latency=latency))
        return [part.caption for block in section.blocks if isinstance(block, Row) for part in block.blocks]

    assert "Median of each round, in milliseconds" in charts(full_report.latency)
    once = dataclasses.replace(full_report.latency, round_sizes=())
    assert "Median of each round, in milliseconds" not in charts(once)

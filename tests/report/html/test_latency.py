import dataclasses

import pytest

from edgerecover.report.html.blocks import Row, Table, Whisker
from edgerecover.report.html.latency import engines_section, latency_section, race_section


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


def test_rounds_are_drawn_where_there_were_several(full_report):
    def charts(latency):
        section = latency_section(dataclasses.replace(full_report, latency=latency))
        return [part.caption for block in section.blocks if isinstance(block, Row) for part in block.blocks]

    assert "Median of each round, in milliseconds" in charts(full_report.latency)
    once = dataclasses.replace(full_report.latency, round_sizes=())
    assert "Median of each round, in milliseconds" not in charts(once)

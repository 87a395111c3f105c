"""Limits that keep the package easy to walk; `scripts/measure_layout.py` prints what they are about."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgerecover"


@pytest.fixture(scope="module")
def layout():
    spec = importlib.util.spec_from_file_location("measure_layout", ROOT / "scripts" / "measure_layout.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_is_long(layout):
    lengths = {name: len(source.splitlines()) for name, source in layout.sources(PACKAGE).items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_long(layout):
    functions = layout.functions_of(layout.sources(PACKAGE))
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node in functions}
    assert len(lengths) > 1000
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_no_function_takes_many_parameters(layout):
    functions = layout.functions_of(layout.sources(PACKAGE))
    numbers = {name: layout.num_parameters(node) for name, node in functions}
    assert {name: number for name, number in numbers.items() if number > 10} == {}


def test_the_command_that_conducts_is_short(layout):
    assert len((PACKAGE / "commands" / "run.py").read_text(encoding="utf-8").splitlines()) < 250


def test_few_names_are_at_the_top(layout):
    names = layout.names_at_top(PACKAGE)
    assert len(names) <= 28, names  # 28 since tasks: docs/adr/0052

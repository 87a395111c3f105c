import itertools

import pytest
from grid import DEFAULT, METHODS, Cell, chosen_cells, pattern_flags
from networks import NETWORKS

from edgerecover.config import shipped_names


@pytest.mark.parametrize(
    ("pattern", "flags"),
    [
        ("75", "--pattern unstructured --sparsity 0.75"),
        ("layerwise90", "--pattern layerwise --sparsity 0.9"),
        ("2:4", "--pattern 2:4"),
        ("channel50", "--pattern channel --sparsity 0.5"),
    ],
)
def test_a_pattern_is_what_a_user_types(pattern, flags):
    assert pattern_flags(pattern) == flags.split()


@pytest.mark.parametrize("pattern", ["0", "100", "0.75", "4:8", "channel"])
def test_other_patterns_are_refused(pattern):
    with pytest.raises(SystemExit, match="2:4"):
        pattern_flags(pattern)


def test_the_default_table_names_what_there_is():
    cells = [cell for block in DEFAULT for cell in block.cells()]
    assert len(set(cells)) == len(cells)
    assert {cell.network for cell in cells} <= NETWORKS.keys()
    assert {cell.method for cell in cells} == METHODS.keys()
    assert {name for method in METHODS.values() for name in (method.images, method.recovery)} <= {
        *shipped_names("profiles")
    }


def test_flags_replace_the_default_table():
    assert chosen_cells(None, ["fast"], ["75", "2:4"], [1]) == [
        Cell("resnet20", 1, "fast", "75"),
        Cell("resnet20", 1, "fast", "2:4"),
    ]


def test_cells_of_one_process_stand_together():
    cells = chosen_cells(None, None, None, None)
    processes = [(cell.network, cell.seed, cell.method) for cell in cells]
    changes = sum(one != next_one for one, next_one in itertools.pairwise(processes))
    assert changes + 1 == len(set(processes))

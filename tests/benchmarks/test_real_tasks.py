"""Networks as people have them: their task is recognised where it is certain, and else asked about."""

from pathlib import Path

import pytest
import real_tasks
import torch
from real_tasks import CASES, Row

from edgerecover.artifacts import InputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.outputs import find_output
from edgerecover.models.name.spec import ModelSpec


def found(network, name, task=None):
    input = InputSpec((3, *CASES[name].sides), (0.5,) * 3, (0.25,) * 3)
    return find_output(network, input, ModelSpec("nets.py:make", "--arch", Path(), None, input, "", None, task=task))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_own])
def test_a_task_is_recognised_or_asked_about_and_taken_where_it_is_named(name):
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = case.make().eval()
    if case.recognised is None:
        with pytest.raises(BadInputError) as caught:
            found(network, name)
        assert "--task " + case.task.split("-")[0] in caught.value.hint
    else:
        assert found(network, name).task is TaskKind(case.recognised)
    assert found(network, name, TaskKind(case.task)).task is TaskKind(case.task)


def test_the_table_has_a_line_for_each_network():
    rows = [
        Row("unet", 0, 41.26, "PASS mean IoU 40 %", ("beware",), 0.9991, 13_000_000),
        Row("mask", 2, 3.0, "error: no", (), None, 0),
    ]
    *_, unet, mask = real_tasks.table(rows).splitlines()
    assert unet == "| unet | segmentation, recognised | 0 | PASS mean IoU 40 % | 99.9 % | 13 MB | 41 s |"
    assert mask == "| mask | segmentation, named | 2 | error: no |  | 0 MB | 3 s |"


@pytest.mark.slow
def test_maps_of_values_go_through_a_whole_run(tmp_path):
    row = real_tasks.run("depth", tmp_path)
    assert row.exit_code in (0, 5), row.said  # dreams are few: it may be no better than pruned
    assert "closeness to the teacher" in row.said
    assert row.parity > 0.999

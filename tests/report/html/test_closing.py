import dataclasses
import shlex

import pytest

from edgerecover.artifacts import GateStatus
from edgerecover.cli import app
from edgerecover.report.html.blocks import Steps, Text, Words
from edgerecover.report.html.closing import next_section, words, words_section
from edgerecover.report.html.report import report_page


def commands(report, bundle):
    (steps,) = (block for block in next_section(report, bundle).blocks if isinstance(block, Steps))
    return [shlex.split(step.commands) for step in steps.steps]


def test_what_to_do_next_names_this_bundle(full_report):
    found = commands(full_report, "my model.jetson-orin.bundle")
    assert all(any("my model.jetson-orin.bundle" in word for word in command) for command in found)
    assert ["python3", "my model.jetson-orin.bundle/runner.pyz", "my model.jetson-orin.bundle"] in found
    assert ["scp", "-r", "my model.jetson-orin.bundle", "USER@DEVICE:"] in found


def test_an_archive_is_unpacked_first(full_report):
    unpack, verify, *_ = commands(full_report, "a.bundle.tar")
    assert unpack == ["edgerecover", "bundle", "unpack", "a.bundle.tar"]
    assert verify == ["edgerecover", "bundle", "verify", "a.bundle"]


def test_its_commands_and_options_exist(full_report):
    import typer.main

    top = typer.main.get_command(app)
    for _, *arguments in (command for command in commands(full_report, "a.bundle.tar") if command[0] == "edgerecover"):
        command = top.commands[arguments.pop(0)]
        if hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (GateStatus.NEEDS_DEVICE, "1 of 1 gates can only be settled on jetson-orin."),
        (GateStatus.PASS, "Every gate has been settled on this machine."),
    ],
)
def test_it_says_what_is_left_for_the_device(report, status, told):
    gate = dataclasses.replace(report.gates[0], status=status)
    first = next_section(dataclasses.replace(report, gates=(gate,)), "a.bundle").blocks[0]
    assert first == Text(told)


def test_every_word_that_a_section_links_to_is_explained(full_report):
    (explained,) = (block for block in words_section().blocks if isinstance(block, Words))
    anchors = [word.anchor for word in explained.words]
    assert len(set(anchors)) == len(anchors)
    for section in report_page(full_report).sections:
        assert set(section.words) <= set(explained.words)


def test_code_is_quoted_in_words():
    (student,) = words("student")
    assert "“pruned”" in student.meaning
    assert "`" not in student.meaning

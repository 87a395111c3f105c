"""The shipped targets: facts with sources, boards told apart. And the reference pages on TOML files."""

import re
from pathlib import Path

import pytest

from edgerecover.config import (
    Fact,
    ModelFile,
    ModelFileInput,
    Target,
    load_target,
    parse,
    read_toml,
    shipped_names,
)

TARGETS = [
    "jetson-orin",
    "jetson-orin-agx",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "onnx-generic",
    "raspberry-pi-5",
    "x86-cpu",
]
BOARDS = {
    "jetson-orin-nano": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "jetson-orin-nx": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
    "jetson-orin-agx": "NVIDIA Jetson AGX Orin Developer Kit",
    "raspberry-pi-5": "Raspberry Pi 5 Model B Rev 1.0",
}
DOCS = Path(__file__).parents[1] / "docs" / "reference"


def test_the_shipped_targets_are_these():
    assert shipped_names("targets") == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_shipped_target_loads_under_its_file_name(name):
    assert load_target(name).name == name


@pytest.mark.parametrize("name", TARGETS)
def test_every_source_is_a_document_a_measurement_or_a_stated_choice(name):
    target = load_target(name)
    facts = {key: fact for key in type(target).model_fields if isinstance(fact := getattr(target, key), Fact)}
    assert facts
    for key, fact in facts.items():
        known_from = re.search(
            r"https://|^choice: .{20,}|/proc/device-tree|platform\.machine\(\)|measured:", fact.source
        )
        assert known_from, f"{key}: {fact.source}"


@pytest.mark.parametrize(("name", "board"), BOARDS.items())
def test_a_board_matches_its_own_target_alone(name, board):
    matching = [other for other in BOARDS if load_target(other).board.value in board]
    assert matching == [name]


def test_the_orin_family_matches_every_orin_and_no_other_board():
    family = load_target("jetson-orin").board.value
    assert {name for name, board in BOARDS.items() if family in board} == {
        name for name in BOARDS if name.startswith("jetson-orin-")
    }


def test_a_raspberry_pi_500_is_not_a_raspberry_pi_5():
    assert load_target("raspberry-pi-5").board.value not in "Raspberry Pi 500 Rev 1.0"


def test_the_orin_family_promises_no_more_than_its_smallest_member():
    family = load_target("jetson-orin")
    members = [load_target(name) for name in TARGETS if name.startswith("jetson-orin-")]
    assert family.memory_gib.value == min(member.memory_gib.value for member in members)
    assert family.max_memory_mb.value == min(member.max_memory_mb.value for member in members)
    assert family.max_file_mb.value == min(member.max_file_mb.value for member in members)
    for same in ("opset", "precisions", "sparse", "compute_capability", "stack"):
        assert {getattr(member, same).value for member in members} == {getattr(family, same).value}


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("onnx-generic", "x86-cpu")])
def test_memory_limit_is_at_most_a_quarter_of_the_memory(name):
    target = load_target(name)
    assert target.max_memory_mb.value * 1e6 <= target.memory_gib.value * 2**30 / 4


def test_the_generic_target_is_every_machine_and_sets_no_limit():
    target = load_target("onnx-generic")
    assert target.machine.value == "any"
    assert (target.max_p99_ms, target.max_file_mb, target.max_memory_mb) == (None, None, None)


# --- the reference pages ---------------------------------------------------------------------------


def toml_blocks(page):
    return re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def documented_keys(page):
    return set(re.findall(r"^\| `([a-z0-9_.]+)` \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE))


def test_the_page_on_targets_describes_every_key():
    assert set(Target.model_fields) <= documented_keys("targets.md")


def test_the_example_of_ones_own_target_loads(tmp_path):
    path = tmp_path / "door-camera.toml"
    path.write_text(toml_blocks("targets.md")[-1], encoding="utf-8")
    assert load_target(str(path)).max_p99_ms.value == 66.6


def test_the_table_of_shipped_targets_shows_their_limits():
    page = (DOCS / "targets.md").read_text(encoding="utf-8")
    for target in map(load_target, TARGETS):
        limits = [(target.max_p99_ms, "ms"), (target.max_memory_mb, "MB"), (target.max_file_mb, "MB")]
        cells = [f"{limit.value:g} {unit}" if limit else "–" for limit, unit in limits]
        row = re.search(rf"^\| `{target.name}` \| .*$", page, re.MULTILINE)[0]
        assert row.endswith(f"| {' | '.join(cells)} |")


def test_the_page_on_model_toml_describes_every_key():
    expected = set(ModelFile.model_fields) - {"input"} | {f"input.{key}" for key in ModelFileInput.model_fields}
    assert documented_keys("model-toml.md") == expected


def test_the_example_of_a_model_toml_loads(tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(toml_blocks("model-toml.md")[0], encoding="utf-8")
    assert parse(ModelFile, read_toml(path), path).teacher == "dense.pt"

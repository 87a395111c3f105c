import json

import pytest
import torch

from edgerecover.artifacts import Descent, Lineage, Rung
from edgerecover.recovery.ladder import Recovered
from edgerecover.recovery.store import read_recovered, recovery_key, replace_file, weights_of, write_recovered

RUNGS = (Rung("pruned", 0.4, 2.0, 0.0), Rung("distillation", 0.9, 0.1, 3.5, chosen=True))
LINEAGE = Lineage(Descent.TRAINED, 0.25, ("1.weight",))


@pytest.fixture
def recovered(teacher):
    with torch.no_grad():
        teacher[11].weight += 1.0
    return Recovered(teacher, RUNGS, LINEAGE, ("a quarter of the rate",))


@pytest.fixture
def folder(tmp_path, recovered):
    write_recovered(tmp_path / "recovered", recovered)
    return tmp_path / "recovered"


def test_a_recovery_is_found_again(folder, recovered, student_and_masks):
    student, _ = student_and_masks
    before = student[11].weight.clone()
    found = read_recovered(folder, student)
    assert found.rungs == RUNGS
    assert found.lineage == LINEAGE
    assert found.warnings == ("a quarter of the rate",)
    expected = recovered.student.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.student.state_dict().items())
    assert torch.equal(student[11].weight, before)
    assert not any(parameter.requires_grad for parameter in found.student.parameters())
    assert sorted(path.name for path in folder.iterdir()) == ["recovered.safetensors", "recovery.json"]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def without_sha256(path):
    facts = json.loads(path.read_text())
    del facts["sha256"]
    path.write_text(json.dumps(facts))


DAMAGE = {
    "weights gone": lambda weights, facts: weights.unlink(),
    "facts gone": lambda weights, facts: facts.unlink(),
    "one bit flipped": lambda weights, facts: flip_a_bit(weights),
    "weights truncated": lambda weights, facts: weights.write_bytes(weights.read_bytes()[:-1]),
    "facts truncated": lambda weights, facts: facts.write_text(facts.read_text()[:-1]),
    "facts are no object": lambda weights, facts: facts.write_text("[]"),
    "facts without digest": lambda weights, facts: without_sha256(facts),
    "facts of another version": lambda weights, facts: facts.write_text(
        facts.read_text().replace('"agreement"', '"score"')
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_recovery_is_not_there(folder, teacher, damage):
    damage(folder / "recovered.safetensors", folder / "recovery.json")
    assert read_recovered(folder, teacher) is None


def test_no_recovery_is_none(tmp_path, teacher):
    assert read_recovered(tmp_path, teacher) is None


def test_the_key_follows_everything_a_recovery_depends_on(student_and_masks, recovery):
    student, masks = student_and_masks

    def key(masks=masks, dreams="ab12", settings=recovery, seed=0):
        return recovery_key(student, masks, dreams, settings, seed)

    other_mask = {**masks, "0.weight": ~masks["0.weight"]}
    first = key()
    others = {
        key(masks=other_mask),
        key(masks={}),
        key(dreams="ab13"),
        key(settings=recovery.model_copy(update={"lr": 0.5})),
        key(seed=1),
    }
    assert len(others | {first}) == 6
    assert key() == first
    student[1].running_mean[0] += 1e-3
    assert key() != first


def test_weights_are_a_safetensors_file(teacher):
    from safetensors.torch import load

    loaded = load(weights_of(teacher))
    assert set(loaded) == set(teacher.state_dict())
    assert all(torch.equal(value, loaded[name]) for name, value in teacher.state_dict().items())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(TypeError):
        replace_file(path, None)
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]

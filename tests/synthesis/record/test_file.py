import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgerecover.errors import BadInputError
from edgerecover.synthesis.record.file import check_teacher, read_record, write_record
from edgerecover.synthesis.record.make import Recording
from edgerecover.synthesis.record.values import KINDS

SHAPE = (3, 8, 8)


@pytest.fixture
def record(teacher, labelled):
    return Recording("joint").record(teacher, labelled, 4)


@pytest.fixture
def written(record, tmp_path):
    path = tmp_path / "dense.record.safetensors"
    write_record(path, record)
    return path


def rewritten(path, change_facts=None, change_tensors=None):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["edgerecover_record"])
    tensors = load_file(path)
    if change_facts:
        change_facts(facts)
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, {"edgerecover_record": json.dumps(facts)})
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_survives_its_file(teacher, labelled, tmp_path, kind):
    record = Recording(kind, noise=0.5).record(teacher, labelled, 4)
    path = tmp_path / "r.safetensors"
    assert write_record(path, record) == path.stat().st_size
    back = read_record(path)
    assert (back.kind, back.num_images, back.noise, back.teacher_sha256, back.layers) == (
        record.kind, record.num_images, record.noise, record.teacher_sha256, record.layers,
    )  # fmt: skip
    assert len(back.sha256) == 64
    for mine, theirs in zip(record.blocks, back.blocks, strict=True):
        torch.testing.assert_close(theirs.mean_KC, mine.mean_KC, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(theirs.centre_U, mine.centre_U, rtol=0, atol=0)
        assert (theirs.basis_UC is None) == (mine.basis_UC is None)


def test_it_belongs_to_one_teacher(teacher, teacher_without_bn, record, written):
    check_teacher(record, written, teacher, SHAPE)
    with pytest.raises(BadInputError, match="made from a network with weights"):
        check_teacher(record, written, teacher_without_bn, SHAPE)
    with torch.no_grad():
        teacher[0].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(BadInputError, match="made from a network with weights"):
        check_teacher(record, written, teacher, SHAPE)


def test_names_that_the_teacher_does_not_have_are_refused(teacher, written):
    def rename(facts):
        facts["blocks"][0][0]["name"] = "nowhere"

    record = read_record(rewritten(written, rename))
    with pytest.raises(BadInputError, match="'nowhere', which the teacher lacks"):
        check_teacher(record, written, teacher, SHAPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(schema_version=99), "schema version 99"),
        (lambda f: f.update(kind="secret"), "unknown kind 'secret'"),
        (lambda f: f.update(num_images=0), "the record is empty"),
        (lambda f: f.update(blocks=[]), "the record is empty"),
        (lambda f: f.update(num_classes=5), "mean of block 0"),
        (lambda f: f["blocks"][0][0].update(channels=-1), "without nodes"),
        (lambda f: f["blocks"][0][0].update(rows=10**9), "of block 0 is not"),
        (lambda f: f["blocks"].append(f["blocks"][0]), "damaged"),
        (lambda f: f.pop("noise"), "field 'noise' is missing"),
    ],
)
def test_wrong_facts_are_refused(written, change, message):
    with pytest.raises(BadInputError, match=message):
        read_record(rewritten(written, change))


@pytest.mark.parametrize("part", ["centre", "scale", "basis", "mean", "factor"])
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t * float("nan"),
        lambda t: t[:-1],
        lambda t: t.to(torch.int8),
        lambda t: t[None],
        lambda t: torch.zeros(0),
    ],
    ids=["nan", "short", "integers", "extra dimension", "empty"],
)
def test_wrong_tensors_are_refused(written, part, change):
    def apply(tensors):
        tensors[f"0.{part}"] = change(tensors[f"0.{part}"]).contiguous()

    with pytest.raises(BadInputError, match=r"of block 0 is not|damaged"):
        read_record(rewritten(written, change_tensors=apply))


def test_a_scale_of_zero_is_refused(written):
    with pytest.raises(BadInputError, match="not positive"):
        read_record(rewritten(written, change_tensors=lambda tensors: tensors["0.scale"].zero_()))


def test_other_files_are_no_records(tmp_path):
    with pytest.raises(BadInputError, match=r"cannot be read|not an activation record"):
        read_record(tmp_path / "nothere")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(BadInputError, match="without a record in it"):
        read_record(tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("not a record")
    with pytest.raises(BadInputError, match="not an activation record"):
        read_record(tmp_path / "text")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_does_more_than_a_message(written, data):
    content = bytearray(written.read_bytes())
    header = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header + 40))] = data.draw(st.integers(0, 255))
    mutated = written.with_name("mutated")
    mutated.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(BadInputError):  # anything else fails the test
        read_record(mutated)

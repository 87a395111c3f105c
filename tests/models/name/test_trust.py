"""Code runs only while it is what the user trusted."""

import json
import os
import stat

import pytest

from edgerecover.errors import BadInputError
from edgerecover.models.name.trust import require_trust, trust


@pytest.fixture
def project(folder):
    (folder / "model.toml").write_text('architecture = "nets.py:tiny"\n')
    (folder / "parts").mkdir()
    (folder / "parts" / "block.py").write_text("WIDTH = 4\n")
    return folder


def refused(folder, needed="nets.py"):
    with pytest.raises(BadInputError) as caught:
        require_trust(folder, folder / needed)
    return f"{caught.value.message}\n{caught.value.hint}"


def test_an_untrusted_folder_is_refused_with_what_to_do(project):
    message = refused(project)
    assert "have not trusted" in message
    assert f"edgerecover trust {project}" in message
    assert "--trust-code" in message


def test_trust_records_toml_and_python_and_lets_them_run(project, trust_file):
    record = trust(project)
    assert set(record.files) == {"model.toml", "nets.py", "parts/block.py"}
    require_trust(project, project / "nets.py")
    require_trust(project / "parts" / "..", project / "model.toml")
    assert list(trust_file.parent.iterdir()) == [trust_file]


def test_changed_new_and_deleted_files_are_named(project):
    trust(project)
    (project / "nets.py").write_text("changed = True\n")
    (project / "torch.py").write_text("new = True\n")
    (project / "parts" / "block.py").unlink()
    message = refused(project)
    assert "changed: nets.py" in message
    assert "new: torch.py" in message
    assert "deleted: parts/block.py" in message
    trust(project)
    require_trust(project, project / "nets.py")


@pytest.mark.parametrize("name", ["nets.so", "parts/hidden.pyc", "parts/model.toml"])
def test_anything_that_could_be_imported_counts(project, name):
    trust(project)
    (project / name).write_bytes(b"\x00")
    assert f"new: {name}" in refused(project)


def test_environments_hidden_folders_and_caches_are_left_out(project):
    for name in (".git", "env", "__pycache__"):
        (project / name).mkdir()
        (project / name / "code.py").touch()
    (project / "env" / "pyvenv.cfg").touch()
    assert set(trust(project).files) == {"model.toml", "nets.py", "parts/block.py"}


def test_code_outside_the_folder_is_refused(project):
    (project.parent / "outside.py").touch()
    trust(project)
    assert "outside the trusted files" in refused(project, "../outside.py")


def test_linked_folders_are_followed_and_may_be_circular(project, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "code.py").touch()
    trust(project)
    (project / "linked").symlink_to(elsewhere)
    (project / "circle").symlink_to(project)
    assert "new: linked/code.py" in refused(project)


def test_nothing_to_trust(tmp_path):
    with pytest.raises(BadInputError, match=r"neither model\.toml nor Python"):
        trust(tmp_path)
    with pytest.raises(BadInputError, match="is not a folder"):
        trust(tmp_path / "absent")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"schema_version": 9}',
        b'{"schema_version": 1, "folders": {"/x": 3}}',
        b"[" * 100_000,
    ],
    ids=["cut", "not-text", "list", "version", "types", "deep"],
)
def test_a_broken_record_is_reported(project, trust_file, content):
    trust_file.parent.mkdir()
    trust_file.write_bytes(content)
    message = refused(project)
    assert str(trust_file) in message
    assert "delete that file" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_record_is_reported(project, trust_file):
    trust_file.parent.mkdir()
    trust_file.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(BadInputError, match="cannot be written"):
        trust(project)


def test_a_record_where_a_folder_stands_in_the_way_is_reported(project, trust_file):
    trust_file.parent.write_text("a file, not a folder")
    with pytest.raises(BadInputError, match=r"cannot be (used|written)"):
        trust(project)


def test_two_folders_are_kept_apart(project, tmp_path, trust_file):
    other = tmp_path / "other"
    other.mkdir()
    (other / "nets.py").touch()
    trust(project)
    trust(other)
    require_trust(project, project / "nets.py")
    assert set(json.loads(trust_file.read_text())["folders"]) == {str(project.resolve()), str(other.resolve())}


def test_a_profile_or_a_note_beside_the_model_revokes_nothing(project):
    trust(project)
    (project / "profile.toml").write_text('name = "mine"\n')
    (project / "notes.md").write_text("what was tried\n")
    require_trust(project, project / "model.toml")

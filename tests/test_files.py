import os

import numpy as np
import pytest

from edgerecover.files import building_beside, move_into_place, npy_bytes, replace_file


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "facts.json"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        replace_file(tmp_path / "taken", b"content")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_file_is_copied_whole(tmp_path):
    (tmp_path / "source").write_bytes(b"content")
    replace_file(tmp_path / "copy", tmp_path / "source")
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert names_in(tmp_path) == ["copy", "source"]


def build(out, *names):
    with building_beside(out) as building:
        building.mkdir()
        for name in names:
            (building / name).write_text(name)
        assert not (out / names[0]).exists()
        move_into_place(building, out)


def test_a_folder_takes_the_place_of_the_earlier_one(tmp_path):
    build(tmp_path / "parent" / "out", "a", "b")
    build(tmp_path / "parent" / "out", "c")
    assert names_in(tmp_path / "parent" / "out") == ["c"]
    assert names_in(tmp_path / "parent") == ["out"]


def test_what_a_folder_holds_is_on_disk_before_the_folder_is_in_its_place(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        assert not (tmp_path / "out").exists()
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    build(tmp_path / "out", "a", "b")
    assert {(tmp_path / "out" / name).stat().st_ino for name in ("a", "b")} <= set(synced)


def test_a_folder_that_fails_leaves_the_earlier_one_and_nothing_else(tmp_path):
    build(tmp_path / "out", "a")
    for out in (tmp_path / "out", tmp_path / "new" / "deep" / "out"):
        with pytest.raises(OSError, match="b/c"):
            build(out, "b/c")
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["a"]


def test_a_folder_that_cannot_be_renamed_leaves_the_earlier_one(tmp_path, monkeypatch):
    build(tmp_path / "out", "a")
    rename = type(tmp_path).rename

    def failing(self, target):
        if self.suffix == ".partial":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", failing)
    with pytest.raises(OSError, match="no"):
        build(tmp_path / "out", "b")
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["a"]


def test_npy_bytes_are_the_arrays_own(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "a.npy").write_bytes(npy_bytes(array))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), array)
    assert npy_bytes(array) == npy_bytes(array.copy())

"""What the processes of one run share; how several of them come out is in tests/commands/test_several.py."""

import pytest

from edgerecover import distributed
from edgerecover.distributed import wait_for_file
from edgerecover.errors import StageError


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(distributed, "_LOOK_EVERY_S", 0.0)


def test_another_process_s_file_is_waited_for():
    looks = iter([None, None, "file"])
    assert wait_for_file(lambda: next(looks), "a file") == "file"


def test_a_file_that_never_shows_is_an_error(monkeypatch):
    monkeypatch.setattr(distributed, "_VISIBLE_AFTER_S", 0.0)
    with pytest.raises(StageError, match="not visible from here") as caught:
        wait_for_file(lambda: None, "a file")
    assert "--work" in caught.value.hint

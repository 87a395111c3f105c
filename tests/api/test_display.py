import sys
import types
import warnings

import pytest

from edgerecover.api.display import is_notebook, watching
from edgerecover.errors import StageError


def test_without_ipython_there_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not is_notebook()
    assert "IPython" not in sys.modules


@pytest.mark.parametrize(("shell", "expected"), [(None, False), ("terminal", False), ("kernel", True)])
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch, shell, expected):
    running = None if shell is None else types.SimpleNamespace(**({"kernel": object()} if shell == "kernel" else {}))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: running))
    assert is_notebook() is expected


class Told:
    """What a caller hands in: the methods of `progress.Progress`."""

    def __init__(self):
        self.said = []

    def note(self, message, **numbers):
        self.said.append(message)


def test_an_object_is_told_everything(tmp_path, capsys):
    told = Told()
    with watching("recover", tmp_path, told) as progress:
        progress.note("hello")
    assert told.said == ["hello"]
    assert capsys.readouterr() == ("", "")


def test_silence(tmp_path, capsys):
    with watching("recover", tmp_path, False) as progress:
        progress.note("hello")
    assert capsys.readouterr() == ("", "")


def test_lines_elsewhere_go_to_stderr(tmp_path, capsys):
    with watching("recover", tmp_path, True) as progress:
        progress.note("hello")
    assert capsys.readouterr() == ("", "  hello\n")


def test_what_libraries_warn_of_goes_to_the_log(tmp_path, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with watching("recover", tmp_path, False) as progress, progress.task("work", 1, "step"):
            warnings.warn("a library's", UserWarning, stacklevel=1)
    (log,) = (tmp_path / "logs").iterdir()
    assert "a library's" in log.read_text()


def test_an_error_names_its_log(tmp_path):
    with pytest.raises(StageError) as caught, watching("recover", tmp_path, False):
        raise StageError("stage x failed", hint="try again")
    assert "stage x failed" in caught.value.log.read_text()

"""Against the real display protocol of IPython, where it is installed."""

import pytest

from edgerecover.report.notebook import NotebookBars

interactive = pytest.importorskip("IPython.core.interactiveshell")


@pytest.fixture
def shown(monkeypatch):
    """What IPython sends to a notebook: (data, whether an earlier output is updated), in order."""
    shell = interactive.InteractiveShell.instance()
    sent = []

    def publish(data, metadata=None, *, transient=None, update=False, **_):
        sent.append((data, update, (transient or {}).get("display_id")))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    yield sent
    interactive.InteractiveShell.clear_instance()


def test_one_output_is_updated(shown):
    seconds = iter(range(1000))
    bars = NotebookBars(clock=lambda: float(next(seconds)))
    bars.began("synthesize")
    with bars.task("synthesize", 4, "dreams") as task:
        task.advance(1, loss=2.5)
        assert "███░░░░░░░░░ synthesize: 25%" in repr(bars)
        task.advance(3, loss=1.5)
    bars.note("<b>a note</b>")
    bars.ended("synthesize", 9.0, False)
    bars.close()
    assert [update for _, update, _ in shown] == [False] + [True] * (len(shown) - 1)
    assert len({display_id for *_, display_id in shown}) == 1
    last = shown[-1][0]
    assert "&lt;b&gt;a note&lt;/b&gt;" in last["text/html"]
    assert last["text/plain"].splitlines()[0].startswith("synthesize: 4 dreams in ")
    assert "░" not in last["text/plain"]
    assert len(last["text/plain"].splitlines()) == 2


def test_nothing_is_shown_where_nothing_happened(shown):
    NotebookBars().close()
    assert shown == []


def test_a_stage_without_a_task_shows_its_name(shown):
    bars = NotebookBars()
    bars.began("export")
    assert shown[-1][0]["text/plain"] == "export …"
    bars.ended("export", 0.1, False)
    assert shown[-1][0]["text/plain"] == ""

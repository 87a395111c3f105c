"""A conversation with a process that may misbehave in every way."""

import pytest

from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.runtime.machine.fresh import Conversation

PARTNER = """
import os, sys, time
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.machine.fresh import answer_all

def refuse(kind):
    raise {"bad": BadInputError, "missing": MissingError}[kind]("no", hint="yes")

def babble():
    sys.stdout.write("to stdout\\n")
    os.system("echo from below")
    return {"said": 1}

def die(status):
    sys.stderr.write("last words\\n")
    sys.stderr.flush()
    os._exit(status)

def nonsense():
    os.write(3 if False else 1, b"")
    return [1]

def main(argv):
    return answer_all({
        "echo": lambda **details: details,
        "refuse": refuse,
        "babble": babble,
        "die": die,
        "kill": lambda: os.kill(os.getpid(), 9),
        "sleep": lambda: time.sleep(60),
        "fill memory": lambda: (_ for _ in ()).throw(MemoryError()),
        "nonsense": nonsense,
    })
"""


@pytest.fixture
def talk(tmp_path, monkeypatch):
    (tmp_path / "talking_partner.py").write_text(PARTNER)
    monkeypatch.syspath_prepend(tmp_path)
    with Conversation("talking_partner", what="the partner") as conversation:
        yield conversation


def test_one_thing_after_another(talk):
    assert talk.ask("echo", 30, a=1, b=[None, "ü"]) == {"a": 1, "b": [None, "ü"]}
    assert talk.ask("echo", 30) == {}


def test_what_libraries_print_is_no_answer(talk):
    assert talk.ask("babble", 30) == {"said": 1}
    assert talk.ask("echo", 30, still="here") == {"still": "here"}


def test_errors_come_back_as_they_are_and_the_talk_goes_on(talk):
    for kind, family in (("bad", BadInputError), ("missing", MissingError)):
        with pytest.raises(family, match="no") as caught:
            talk.ask("refuse", 30, kind=kind)
        assert caught.value.hint == "yes"
    with pytest.raises(BadInputError, match="more memory"):
        talk.ask("fill memory", 30)
    assert talk.ask("echo", 30) == {}


def test_a_death_is_told_with_its_last_words(talk):
    with pytest.raises(StageError, match=r"the partner ended with status 7 when asked to die: last words"):
        talk.ask("die", 30, status=7)
    with pytest.raises(StageError, match="the partner"):
        talk.ask("echo", 30)


def test_a_kill_is_told(talk):
    with pytest.raises(StageError, match="killed by signal 9 when asked to kill"):
        talk.ask("kill", 30)


def test_a_hang_is_ended(talk):
    with pytest.raises(StageError, match="did not sleep within"):
        talk.ask("sleep", 0.3)


def test_an_answer_that_is_none(talk):
    with pytest.raises(StageError, match="gave an unexpected answer"):
        talk.ask("nonsense", 30)

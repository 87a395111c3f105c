"""A bundle's way to a device and back, over a real ssh connection to a real sshd."""

import os
import signal
import socket
import stat
import sys
import threading
import time
import venv
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edgerecover.artifacts import Gate, GateStatus, sha256_of
from edgerecover.bundle.manifest import FileEntry
from edgerecover.errors import BadInputError, MissingError, StageError, VerificationError
from edgerecover.progress import SILENT
from edgerecover.remote import device as remote
from edgerecover.remote import ssh
from edgerecover.remote.destination import Destination
from edgerecover.remote.device import check_device, run_on

WAITING = Gate("latency_p99", GateStatus.NEEDS_DEVICE, 9.0, 5e4, "at most", "ms", "target toy", "settled elsewhere")


class Heard:
    """A `progress.Progress` that remembers, and calls back at a line."""

    def __init__(self, at="", call=lambda: None):
        self.notes, self.copied, self.total = [], 0, None
        self._at, self._call = at, call

    @contextmanager
    def task(self, title, total, unit):
        self.total = total
        yield self

    def advance(self, steps=1, **numbers):
        self.copied += steps

    def note(self, message):
        self.notes.append(message)
        if self._at and self._at in message:
            self._call()


def left_behind(device):
    return list(device.temporary.iterdir())


def soon_clean(device, timeout_s=20.0):
    end_s = time.monotonic() + timeout_s
    while left_behind(device) and time.monotonic() < end_s:
        time.sleep(0.05)
    return not left_behind(device)


def script(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# --- what works -----------------------------------------------------------------------------------------------


def test_a_bundle_goes_there_is_run_and_its_gates_are_settled(device, make_bundle):
    bundle = make_bundle("a b'c$(x).bundle", limits={"max_p99_ms": 5e4}, gates=(WAITING,), teacher=True)
    heard = Heard()
    result = run_on(bundle, device.access(), ("--threads", "1"), heard)
    assert result.bundle == bundle.name
    assert result.manifest_sha256 == sha256_of(bundle / "manifest.json")
    assert result.fastest == 0
    assert result.tried[0].latency.num_threads == 1
    assert [gate.status for gate in result.gates] == [GateStatus.PASS, GateStatus.PASS]
    assert heard.copied == heard.total > 0
    assert any("latency: model.onnx" in note for note in heard.notes)
    assert not left_behind(device)


def test_the_address_of_an_alias_and_a_shell_that_talks(start_sshd, make_bundle):
    """What a login shell prints before is not taken for an answer."""
    noisy = start_sshd('ForceCommand echo "welcome {"; echo edgerecover-agent nonsense; eval "$SSH_ORIGINAL_COMMAND"')
    alias = noisy.client()
    alias.write_text(f"Host board\n HostName 127.0.0.1\n Port {noisy.port}\nHost *\n" + alias.read_text())
    result = run_on(make_bundle(), replace(noisy.access(config=alias), destination=Destination("board")))
    assert result.verdict is GateStatus.PASS


def test_a_first_look_before_the_work(device):
    assert check_device(device.access()) == ".".join(map(str, sys.version_info[:3]))
    assert not left_behind(device)


def test_a_report_is_settled_by_the_result(device, make_bundle):
    from types import SimpleNamespace

    result = run_on(make_bundle(limits={"max_p99_ms": 1e-6}, gates=(WAITING,)), device.access())
    assert result.verdict is GateStatus.FAIL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "replace", lambda report, **changes: SimpleNamespace(**{**vars(report), **changes}))
        report = remote.settle(SimpleNamespace(gates=(WAITING,), latency=None, warnings=("w",), seed=3), result)
    assert [gate.status for gate in report.gates] == [GateStatus.FAIL, GateStatus.PASS]
    assert report.latency == result.tried[0].latency
    assert (report.warnings, report.seed) == (("w",), 3)


# --- no connection --------------------------------------------------------------------------------------------


def refused(access, *words):
    with pytest.raises(MissingError) as error:
        check_device(access)
    for word in words:
        assert word in error.value.message, error.value.message
    assert error.value.exit_code == 3
    assert error.value.hint
    return error.value.hint


def test_no_ssh_client(device, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "openssh-client" in refused(device.access(), "no ssh on this machine")


@pytest.mark.parametrize("checking", ["ask", "no", "accept-new"])
def test_an_unknown_host_key_is_never_accepted(device, tmp_path, checking):
    known = tmp_path / "known_hosts"
    known.write_text("")
    config = device.client(UserKnownHostsFile=known, StrictHostKeyChecking=checking)
    hint = refused(device.access(config=config), "host key is not known")
    assert f"ssh -p {device.port} " in hint
    assert known.read_text() == ""


def test_a_changed_host_key(device, tmp_path):
    known = tmp_path / "known_hosts"
    other = (device.folder / "other_key.pub").read_text().split()
    known.write_text(f"[127.0.0.1]:{device.port} {other[0]} {other[1]}\n")
    hint = refused(
        device.access(config=device.client(UserKnownHostsFile=known, StrictHostKeyChecking="no")), "host key"
    )
    assert f"ssh-keygen -R '[127.0.0.1]:{device.port}'" in hint


def test_no_key_that_is_accepted(device):
    config = device.client(IdentityFile=device.folder / "other_key")
    assert "ssh-copy-id" in refused(device.access(config=config), "does not accept a key", "Permission denied")


def test_nobody_listens(device):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        access = replace(device.access(), destination=Destination("127.0.0.1", None, closed.getsockname()[1]))
        assert "systemctl" in refused(access, "nothing listens there")


def test_no_machine_of_that_name(device):
    access = replace(device.access(), destination=Destination("nowhere.invalid"))
    assert "check the name" in refused(access, "no machine of that name")


def test_a_machine_that_does_not_answer(device, monkeypatch):
    """It takes the connection and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setitem(ssh._OPTIONS, "ConnectTimeout", "1")
        access = replace(device.access(), destination=Destination("127.0.0.1", None, silent.getsockname()[1]))
        refused(access, "does not answer", "timed out")


def test_a_configuration_that_ssh_refuses(device, tmp_path):
    config = tmp_path / "bad"
    config.write_text("Nonsense yes\n")
    assert "--ssh-config" in refused(device.access(config=config), "does not accept its configuration")
    with pytest.raises(BadInputError, match="no such file"):
        check_device(device.access(config=tmp_path / "absent"))


# --- a device that lacks something ----------------------------------------------------------------------------


def test_no_python(device):
    assert "--device-python" in refused(device.access(python="python3.99"), "has no python3.99")


def test_an_old_python(device, tmp_path):
    """The very line that is sent, in an interpreter that takes itself for 3.8."""
    old = script(
        tmp_path,
        "old",
        f"exec {sys.executable} -c 'import sys; sys.version_info = (3, 8, 10); exec(sys.argv[1])' \"$3\"",
    )
    assert "3.10" in refused(device.access(python=old), "is Python 3.8.10")


@pytest.mark.parametrize("python", ["-c", "python; reboot", "$(reboot)", "a b", "", "~root/python", "pyth\non"])
def test_a_python_that_is_no_path(device, python):
    with pytest.raises(BadInputError, match="--device-python"):
        check_device(device.access(python=python))


def test_python_in_the_home_folder():
    assert ssh.check_python("~/venv/bin/python") == "./venv/bin/python"
    assert ssh.check_python("python3.12") == "python3.12"
    assert ssh.check_python("/opt/python/bin/python3") == "/opt/python/bin/python3"


def test_no_numpy_there(device, make_bundle, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(MissingError, match=r"numpy cannot be imported") as error:
        run_on(make_bundle(), device.access(python=str(tmp_path / "bare/bin/python")))
    assert str(device.access().destination) in error.value.message
    assert "there: python3 -m pip install numpy" in error.value.hint
    assert not left_behind(device)


def test_no_room(device, make_bundle, monkeypatch):
    monkeypatch.setattr(remote, "_SPARE_BYTES", 1 << 60)
    heard = Heard()
    with pytest.raises(MissingError, match=r"no room for .* MB: .* has .* MB free"):
        run_on(make_bundle(), device.access(), (), heard)
    assert heard.total is None, "nothing is copied"


def test_a_disk_that_fills_up_while_copying(device, make_bundle, tmp_path):
    small = script(tmp_path, "small", f'ulimit -f 8; exec {sys.executable} "$@"')
    with pytest.raises(MissingError, match="could not store the bundle: File too large"):
        run_on(make_bundle(), device.access(python=small))
    assert soon_clean(device)


def test_a_changed_bundle_is_not_sent(device, make_bundle):
    bundle = make_bundle()
    (bundle / "limits.json").write_text("{}")
    with pytest.raises(VerificationError):
        run_on(bundle, device.access())


def test_a_bundle_that_its_runner_refuses(device, make_bundle):
    with pytest.raises(BadInputError, match=r"on ssh://.*bundle/report\.json cannot be read"):
        run_on(make_bundle(report_json=b"[]"), device.access())


# --- what goes wrong on the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["connected", "golden check", "latency"])
def test_a_lost_connection_is_an_error_and_leaves_nothing(device, make_bundle, at):
    bundle = make_bundle(task={"min_queries": 10_000, "min_duration_s": 30.0})
    with pytest.raises(MissingError, match="was lost"):
        run_on(bundle, device.access(), (), Heard(at, device.kill_sessions))
    assert soon_clean(device)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["connected", "latency"])
def test_ctrl_c_ends_what_runs_there_and_leaves_nothing(device, make_bundle, at):
    bundle = make_bundle(task={"min_queries": 10_000, "min_duration_s": 30.0})
    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_on(bundle, device.access(), (), Heard(at, interrupt))
    assert not left_behind(device), "the device has cleaned up before the desk goes on"
    assert time.monotonic() - started_s < 20


def test_ctrl_c_while_waiting_for_the_device(device, make_bundle):
    """A real signal, while the main thread waits for an event."""
    bundle = make_bundle(task={"min_queries": 10_000, "min_duration_s": 30.0})
    # Long before the end: 10,000 queries, the most there are, take a tenth of a second, and to begin takes longer.
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_on(bundle, device.access(), (), Heard("latency", timer.start))
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert not left_behind(device)


def test_a_device_that_works_for_long_shows_that_it_lives(device, monkeypatch):
    """Here it waits for a file that does not come; silence would be taken for the end."""
    monkeypatch.setattr(ssh, "SILENCE_TIMEOUT_S", 4.0)
    with remote._agent(device.access(), [("late", 1)], 0, ()) as connection:
        assert connection.event()["event"] == "ready"
        assert connection._next()["event"] == "alive"
        assert connection._next()["event"] == "alive"
    assert not left_behind(device)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ('edgerecover-agent {"event": "result", "status": 0, "text": "{}"}', StageError),
        ('edgerecover-agent {"event": "result", "status": 0, "text": "[NaN"}', StageError),
        ('edgerecover-agent {"event": "result", "status": -9, "text": null}', StageError),
        ('edgerecover-agent {"event": "result", "status": {}, "text": 7}', StageError),
        ('edgerecover-agent {"event": "\\u001b[2J"}', StageError),
        ("edgerecover-agent [", MissingError),
        ("", MissingError),
    ],
)
def test_a_device_that_answers_anything(device, make_bundle, tmp_path, monkeypatch, answer, error):
    monkeypatch.setattr(ssh, "SILENCE_TIMEOUT_S", 2.0)
    (tmp_path / "answer").write_text('edgerecover-agent {"event": "ready", "python": "\\u001b[31m3"}\n' + answer + "\n")
    liar = script(tmp_path, "liar", f"cat {tmp_path / 'answer'}; cat >/dev/null")
    heard = Heard()
    with pytest.raises(error) as raised:
        run_on(make_bundle(), device.access(python=liar), (), heard)
    shown = raised.value.message + raised.value.hint + "".join(heard.notes)
    assert "\x1b" not in shown


def test_a_result_of_another_bundle(device, make_bundle, tmp_path, monkeypatch):
    """The device states which manifest it has judged."""
    bundle = make_bundle()
    opened = remote.open_as_folder

    @contextmanager
    def another(path):
        with opened(path) as (verified, folder):
            yield replace(verified, own={**verified.own, "manifest.json": FileEntry("0" * 64, 1)}), folder

    monkeypatch.setattr(remote, "open_as_folder", another)
    with pytest.raises(VerificationError, match="another bundle"):
        run_on(bundle, device.access(), (), SILENT)

"""Work in a fresh interpreter, which measures itself alone and can crash alone. Stdlib only."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import edgerecover
from edgerecover.errors import ODD_END_HINT, BadInputError, EdgeRecoverError, MissingError, StageError

_FAMILIES = {kind.exit_code: kind for kind in (BadInputError, MissingError)}
_MAX_ANSWER_CHARACTERS = 1 << 26
_MAX_TOLD_CHARACTERS = 300


def run_fresh(
    module: str, arguments: Sequence[str], timeout_s: float, *, what: str
) -> subprocess.CompletedProcess[str]:
    """Call `main(arguments)` of an edgerecover module in a fresh interpreter; its return is the exit status.

    Args:
        module: its dotted name.
        arguments: with absolute paths: the interpreter runs in an empty folder.
        timeout_s: it is killed after that.
        what: it does, for messages: "the latency measurement".

    Raises:
        StageError: it did not end in time, or could not be started. The former's `__cause__` is a TimeoutExpired.
    """
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        try:
            return subprocess.run(
                _command(module, arguments),
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(
                f"{what} did not finish within {timeout_s:.0f} s",
                hint="the machine may be busy; retry when it is idle",
            ) from error
        except OSError as error:
            raise _start_error(what, error) from error


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    # -I keeps the current folder, which may be a stranger's, off the import path. This process's own path
    # goes last instead: it is how an editable or user install is found. Only edgerecover itself comes from where it
    # is running now, be that a checkout or a zip file: another version may be installed beside it.
    code = (
        "import importlib, json, sys; here, paths = json.loads(sys.argv[1]); sys.path.insert(0, here); "
        "import edgerecover; sys.path.remove(here); sys.path.extend(paths); "
        "sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:]))"
    )
    here = str(Path(edgerecover.__file__).absolute().parent.parent)
    search_path = json.dumps([here, [str(Path(entry).absolute()) for entry in sys.path if entry]])
    return [sys.executable, "-I", "-X", "utf8", "-c", code, search_path, module, *arguments]


def _start_error(what: str, error: OSError) -> StageError:
    return StageError(
        f"{what} could not start {sys.executable}: {error.strerror or error}",
        hint=ODD_END_HINT,
    )


class Conversation:
    """A fresh interpreter that is asked one thing after another: a JSON line in, a JSON line out.

    The other side is `answer_all`. A context manager: at its end the process is gone, whatever it was doing.
    """

    def __init__(self, module: str, *, what: str) -> None:
        """Start `main([])` of an edgerecover module; `what` it is goes into messages.

        Raises:
            StageError: it could not be started.
        """
        self._what = what
        self._ends = contextlib.ExitStack()
        folder = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="edgerecover-"))
        # Nobody reads a pipe of messages while answers are awaited: a file cannot fill up and block.
        self._messages = self._ends.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - so it is
        try:
            self._process = subprocess.Popen(
                _command(module, ()),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._ends.close()
            raise _start_error(what, error) from error
        self._lines: queue.Queue[str] = queue.Queue()
        # Blocked in a read, it takes no time from what is measured; a deadline works on every system.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            while line := self._process.stdout.readline(_MAX_ANSWER_CHARACTERS):
                self._lines.put(line)
        self._lines.put("")

    def ask(self, do: str, timeout_s: float, **details: Any) -> dict[str, Any]:
        """Have it `do` something, and wait for the answer.

        Raises:
            BadInputError, MissingError: as it raised there.
            StageError: it died, hung, or gave an unexpected answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._died(do) from error
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty as error:
            self.close()
            raise StageError(
                f"{self._what} did not {do} within {timeout_s:.0f} s",
                hint="the machine may be busy; retry when it is idle",
            ) from error
        if not line:
            raise self._died(do)
        return self._understood(line)

    def _understood(self, line: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(line)
            failure = answer.get("error")
            if failure is None:
                return answer
            family: type[EdgeRecoverError] = _FAMILIES.get(failure["exit_code"], StageError)
            raised = family(str(failure["message"]), hint=str(failure["hint"]))
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise StageError(
                f"{self._what} gave an unexpected answer: {line[:_MAX_TOLD_CHARACTERS]!r}",
                hint=ODD_END_HINT,
            ) from error
        raise raised

    def _died(self, do: str) -> StageError:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.close()
            return StageError(
                f"{self._what} closed its pipe when asked to {do}",
                hint=ODD_END_HINT,
            )
        self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, self._messages.tell() - 4096))
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1][:_MAX_TOLD_CHARACTERS]}" if lines else ""
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return StageError(
            f"{self._what} {ended} when asked to {do}{said}",
            hint=ODD_END_HINT,
        )

    def close(self) -> None:
        """End it now."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._ends.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer_all(deeds: Mapping[str, Callable[..., dict[str, Any]]]) -> int:
    """The side of the fresh interpreter: do what each line on stdin asks, until there is none. Returns 0.

    What libraries print to stdout goes to stderr: the pipe carries answers alone.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            details = json.loads(line)
            try:
                answer = deeds[details.pop("do")](**details)
            except EdgeRecoverError as error:
                answer = _failure(error.message, error.hint, error.exit_code)
            except MemoryError:
                answer = _failure("it needs more memory than there is", "", BadInputError.exit_code)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    return 0


def _failure(message: str, hint: str, exit_code: int) -> dict[str, Any]:
    return {"error": {"message": message, "hint": hint, "exit_code": exit_code}}

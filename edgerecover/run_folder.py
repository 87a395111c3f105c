"""The run folder (`--work`): one process at a time, and nothing left behind by one that died.

Each finished step lies in it under the digest of what it depends on (docs/adr/0002), so a run that is started again
resumes from there. Two processes would write the same files, so the folder is locked by the operating system, which
releases the lock the moment that its holder ends, however it ends.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from edgerecover.errors import BadInputError, unwritable_hint
from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress

SCRATCH_PREFIX = "export-"
"""Of the folders in it that hold files on their way into a bundle."""
_LOCK = "lock"
_HOLDER = "holder.json"


@contextmanager
def held(folder: Path, out: Path | None = None, progress: Progress = SILENT) -> Iterator[None]:
    """Hold a run folder alone inside the block; make it when it is missing.

    Half-written files of a process that was killed here are removed, beside the bundle at `out` too.

    Raises:
        BadInputError: it is in use by another process, or it cannot be written to.
    """
    from filelock import FileLock, Timeout

    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise BadInputError(
            f"--work {folder}: in use by {_holder(folder)}",
            hint="wait for it to end, or name another folder with --work",
        ) from None
    except (OSError, NotImplementedError) as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            if (folder / _HOLDER).is_file():
                progress.note(f"the last run was interrupted ({_holder(folder)}); resuming from its finished steps")
            replace_file(folder / _HOLDER, json.dumps(_myself()).encode())
            _remove_leftovers(folder, out)
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield
    finally:
        # While the lock is still held: another's note must not be removed.
        (folder / _HOLDER).unlink(missing_ok=True)
        if not was_there and [path.name for path in folder.iterdir()] == [_LOCK]:
            with suppress(OSError):  # input was refused before anything was made: leave no trace of it
                shutil.rmtree(folder)
        lock.release()


def discard(folder: Path) -> None:
    """Remove a step; one that is half removed does not count as finished."""
    if folder.exists():
        shutil.rmtree(folder)


def _unwritable(folder: Path, error: Exception) -> BadInputError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return BadInputError(
        f"--work {folder}: cannot be written: {reason}",
        hint=unwritable_hint(error, "name another folder with --work"),
    )


def _myself() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "since_utc": datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _holder(folder: Path) -> str:
    """Who wrote the note, in words."""
    try:
        note = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        since = str(note["since_utc"]).removesuffix("+00:00")
        words = f"process {int(note['pid'])} on {note['host']} (since {since} UTC: {str(note['command'])[:200]})"
        return "".join(c if c.isprintable() else "?" for c in words)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _remove_leftovers(folder: Path, out: Path | None) -> None:
    """Remove half-written files of a killed process. Nothing reads them, but they take space."""
    leftovers = [*folder.glob(f"{SCRATCH_PREFIX}*"), *folder.rglob(".*.tmp")]
    if out is not None:
        parent = out.absolute().parent
        leftovers += [path for end in ("partial", "old") for path in parent.glob(f".{out.name}.*.{end}")]
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

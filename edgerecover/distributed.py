"""The processes of one run, where `torchrun` has started several: who this one is, and what they tell each other.

Accelerate chooses devices and backend and joins the processes to a group of torch.distributed. All of them work on the
same folders. The first one alone prints, and alone writes what is shared, but for shards of images.
"""

# ruff: noqa: TID253 - talks of tensors; the command line imports it only where there are several processes

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from edgerecover.errors import (
    OUR_FAULT_HINT,
    BadInputError,
    EdgeRecoverError,
    MissingError,
    StageError,
    pip_line,
)
from edgerecover.files import replace_file

T = TypeVar("T")
_TIMEOUT = timedelta(days=30)
"""Processes wait for each other as long as it takes: one of them makes in hours what the others need."""
_LAST_WORDS_S = 3.0
"""How long the first process waits for another one to say why it ended."""
_VISIBLE_AFTER_S = 60.0
"""How long a network file system may take to show one process what another one wrote."""
_LOOK_EVERY_S = 0.1
_STUCK_S = 8.0
"""How long a process may take to hear that it is to stop; torchrun kills it after 30 seconds."""
_AGAIN = "the same command resumes from the finished steps"
_NOTE = "rank-{rank}.failed.json"


class LostError(StageError):
    """The processes cannot reach each other any more, or this one is to stop. The first one says why."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `size`-th of them, each in one process's share."""
        return list(items[self.rank :: self.size])

    def rows(self, num_rows: int) -> range:
        """This process's part of a batch: as many rows as the others', or one more."""
        return range(self.rank * num_rows // self.size, (self.rank + 1) * num_rows // self.size)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            self._talk(dist.barrier)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives the first process, in all of them; the others wait, however long it takes."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.is_first else None]
        self._talk(lambda: dist.broadcast_object_list(made))
        return made[0]  # type: ignore[no-any-return]

    def gathered(self, value: T) -> list[T]:
        """Of each process, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        self._talk(lambda: dist.all_gather_object(found, value))
        return found

    def sum(self, tensor: Tensor) -> Tensor:
        """Of all processes' tensors, which have one shape; the very tensor where there is one process."""
        if self.size == 1:
            return tensor
        total = tensor.clone().contiguous()
        self._talk(lambda: dist.all_reduce(total))
        return total

    def stacked(self, tensor: Tensor) -> Tensor:
        """All processes' tensors (R, …), which have one shape."""
        if self.size == 1:
            return tensor.unsqueeze(0)
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._talk(lambda: dist.all_gather(found, tensor.contiguous()))
        return torch.stack(found)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its sum over the processes, in one message; they are of one type and device."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._talk(lambda: dist.all_reduce(flat))
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _talk(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:  # of gloo and NCCL alike
            raise LostError(f"process {self.rank} of {self.size} lost the others: {error}", hint=_AGAIN) from error


ALONE = Ranks()


def are_several() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is alone, or the first of several."""
    return os.environ.get("RANK", "0") == "0" or not are_several()


@contextmanager
def joined(device: str, work: Path, say: Callable[[EdgeRecoverError], None] = lambda _: None) -> Iterator[Ranks]:
    """The processes of this run as a group; `ALONE` where `torchrun` has not started several.

    An error in another process than the first is kept in `work`, and the first one says it.

    Args:
        device: "auto", "cuda" or "cpu"; with CUDA, each process has a GPU of its node.
        work: folder of the run, which all processes see.
        say: how the first process tells an error that it cannot raise, because it is stuck in a library.

    Raises:
        MissingError: Accelerate is not installed, or a node has fewer GPUs than processes.
        StageError: another process ended; says which and why, as far as that is known.
    """
    if not are_several():
        yield ALONE
        return
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if not on_cpu and int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
        raise MissingError(
            f"{os.environ['LOCAL_WORLD_SIZE']} processes and {torch.cuda.device_count()} GPUs on {platform.node()}",
            hint="start as many processes on a node as it has GPUs: --nproc-per-node",
        )
    ranks = _join(on_cpu)
    note = work / _NOTE.format(rank=ranks.rank)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with _heard_when_stuck(ranks, work, say) as reached:
            try:
                note.unlink(missing_ok=True)
                ranks.wait()
                yield ranks
            finally:
                # torchrun stops the others when one has ended: that must not cut off what this one has to say.
                _ignore_stops()
                reached.set()
    except LostError as error:
        if ranks.is_first:
            raise _why(ranks, work, error) from error
        raise
    except Exception as error:
        if ranks.is_first:
            raise
        known = (
            error
            if isinstance(error, EdgeRecoverError)
            else StageError(
                f"{type(error).__name__}: {error}",
                hint=OUR_FAULT_HINT,
            )
        )
        _leave_note(note, known)
        lost = LostError(known.message, hint=known.hint)
        lost.exit_code = known.exit_code
        raise lost from error
    else:  # after an error, parting may wait for whom it has lost; the process ends anyway
        _part(ranks)
        signal.signal(signal.SIGTERM, before)


def leave(ranks: Ranks) -> None:
    """All part; what follows the first process does alone, and the others end: nobody waits for it or slows it."""
    ranks.wait()
    _part(ranks)


def _join(on_cpu: bool) -> Ranks:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingError(
            "several processes need Accelerate, which is not installed", hint=pip_line("install 'edgerecover[many]'")
        ) from error
    try:
        state = PartialState(cpu=on_cpu, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MissingError(
            f"the processes could not connect to each other: {error}",
            hint="start them with torchrun; MASTER_ADDR and MASTER_PORT must be reachable from every node",
        ) from error
    return Ranks(state.process_index, state.num_processes)


def _part(ranks: Ranks) -> None:
    if ranks.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def check_same(ranks: Ranks, what: str, digest: str) -> None:
    """Stop where the processes of a run hold different values.

    Raises:
        BadInputError: names the processes that differ from the first.
    """
    found = ranks.gathered(digest)
    if others := [str(rank) for rank, other in enumerate(found) if other != found[0]]:
        raise BadInputError(
            f"{what} differs between the processes of this run: process 0 has another than {', '.join(others)}",
            hint="every node must see the same files and the same versions",
        )


def wait_for_file(look: Callable[[], T | None], what: str) -> T:
    """What `look` finds, once another process's file can be seen from here.

    Args:
        look: returns None for as long as it is not there.
        what: names the file in the message.

    Raises:
        StageError: it cannot be seen after a minute.
    """
    until = time.monotonic() + _VISIBLE_AFTER_S
    while (found := look()) is None:
        if time.monotonic() > until:
            raise StageError(
                f"{what}: made by another process of this run, and not visible from here",
                hint="every process of a run needs the same --work, on a file system that all of them share",
            )
        time.sleep(_LOOK_EVERY_S)
    return found


# --- how a run of several ends -------------------------------------------------------------------------------


def _leave_note(note: Path, error: EdgeRecoverError) -> None:
    said = {"host": platform.node(), "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    with contextlib.suppress(OSError):  # then the first process says that this one ended, and not why
        replace_file(note, json.dumps(said).encode())


def _why(ranks: Ranks, work: Path, lost: LostError) -> EdgeRecoverError:
    """The error of the process that ended first, as far as it left word."""
    kept = f"finished work is kept in {work}; the same command resumes from it"
    until = time.monotonic() + _LAST_WORDS_S
    while True:
        for rank in range(1, ranks.size):
            note = work / _NOTE.format(rank=rank)
            try:
                said = json.loads(note.read_text(encoding="utf-8"))
                note.unlink()
            except (OSError, ValueError):
                continue
            error = StageError(
                f"process {rank} of {ranks.size}, on {said['host']}: {said['message']}", hint=said["hint"] or kept
            )
            error.exit_code = int(said["exit_code"])
            return error
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return StageError(
        f"this run of {ranks.size} processes was cut off: one of them was killed, ran out of memory or lost its node, "
        f"or all were told to stop ({lost.message})",
        hint=kept,
    )


def _stop(_number: int, _frame: object) -> None:
    """SIGTERM, by which torchrun and schedulers stop a process, becomes an error; another one adds nothing."""
    _ignore_stops()
    raise LostError("it was asked to stop (SIGTERM)", hint=_AGAIN)


@contextmanager
def _heard_when_stuck(ranks: Ranks, work: Path, say: Callable[[EdgeRecoverError], None]) -> Iterator[threading.Event]:
    """End this process, with the reason, where SIGTERM does not get through to it in time.

    Python runs a signal's handler between two steps of its own, and NCCL can wait forever in one of them for a dead
    process. Setting the event says that the signal got through, or that none is expected any more.
    """
    reached = threading.Event()
    listening, sending = socket.socketpair()
    sending.setblocking(False)

    def listen() -> None:
        while signals := listening.recv(64):
            if signal.SIGTERM in signals and not reached.wait(_STUCK_S):
                error: EdgeRecoverError = LostError("it waits for another one", hint=_AGAIN)
                if ranks.is_first:
                    error = _why(ranks, work, LostError(error.message, hint=_AGAIN))
                    say(error)
                os._exit(error.exit_code)

    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield reached
    finally:
        signal.set_wakeup_fd(before)
        sending.close()
        listener.join()
        listening.close()


def _ignore_stops() -> None:
    """Who sends the signal kills if the end takes too long: torchrun after 30 seconds."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

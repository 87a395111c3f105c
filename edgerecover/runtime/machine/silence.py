"""Keeping a talkative library off the user's terminal and out of the JSON on stdout. Stdlib only."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drop all that this process prints, warns and logs inside, from Python and from C++ alike.

    For the whole process, other threads included: keep the block short. Exceptions pass through.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            _null_descriptor(1),
            _null_descriptor(2),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _null_descriptor(descriptor: int) -> Iterator[None]:
    """Point a file descriptor at nothing: C++ writes there without asking Python."""
    _flush()
    try:
        kept = os.dup(descriptor)
    except OSError:  # a process without a terminal may have closed it
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def _flush() -> None:
    """Send what Python and C have buffered to where it was meant to go, before the descriptor changes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)

"""A bundle's runner on the device: copied there, run there, its result fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerecover.artifacts import DeviceResult, Report, from_json
from edgerecover.artifacts.strict_json import parse_object
from edgerecover.bundle.carry import open_as_folder
from edgerecover.errors import (
    ODD_END_HINT,
    BadInputError,
    EdgeRecoverError,
    MissingError,
    StageError,
    VerificationError,
)
from edgerecover.progress import SILENT, Progress
from edgerecover.remote.ssh import Access, Connection, connect
from edgerecover.runner.archive import runner_pyz
from edgerecover.runner.text import printable

_PIECE_BYTES = 1 << 16
_SPARE_BYTES = 64 << 20
"""Beside the bundle, for results and what runtimes put into temporary files."""
_FAMILY = {kind.exit_code: kind for kind in (BadInputError, MissingError, VerificationError)}
_FOLDER = "bundle"


def check_device(access: Access) -> str:
    """Connect and leave again, before hours of work. Returns the version of Python there.

    Raises:
        MissingError: it cannot be reached, or has no Python that will do.
    """
    with _agent(access, files=(), needed_bytes=0, arguments=None) as connection:
        return str(_ready(connection, access).get("python", ""))


def run_on(bundle: Path, access: Access, arguments: Sequence[str] = (), progress: Progress = SILENT) -> DeviceResult:
    """Copy a bundle to a device, run the runner there, and bring the result back. Nothing stays behind.

    The runner is this edgerecover's own: no program from the bundle is run.

    Args:
        bundle: verified first.
        access: of the device.
        arguments: of the runner, such as `--threads 1`.
        progress: shows the copy, and what the runner says.

    Raises:
        BadInputError, VerificationError: the bundle is not one, or not what its manifest lists.
        MissingError: the device cannot be reached, or lacks Python, space or the runtime; or the connection was lost.
        StageError: the device answered with something else than a result of this bundle.
    """
    runner = runner_pyz()
    arguments = (_FOLDER, *arguments)
    with open_as_folder(bundle) as (verified, folder):
        paths = verified.paths
        sizes = [("runner.pyz", len(runner)), *((f"{_FOLDER}/{p}", (folder / p).stat().st_size) for p in paths)]
        total_bytes = sum(size for _, size in sizes)
        with _agent(access, sizes, total_bytes + _SPARE_BYTES, arguments) as connection:
            python = _ready(connection, access).get("python")
            progress.note(f"{access.destination}: connected, Python {printable(str(python))}")
            _copy(connection, runner, [folder / path for path in paths], sizes, progress)
            done, said = _answer(connection, access, progress)
    return replace(_result(done, said, access, verified.manifest_sha256), bundle=bundle.resolve().name)


def settle(report: Report, result: DeviceResult) -> Report:
    """A run's report with what the device found: its gates, its latency and its warnings."""
    best = result.tried[result.fastest] if result.fastest is not None else None
    return replace(
        report,
        gates=result.gates,
        latency=best.latency if best is not None and best.latency is not None else report.latency,
        warnings=(*report.warnings, *(f"on the device: {warning}" for warning in result.warnings)),
    )


# --- the way there --------------------------------------------------------------------------------------------


def _agent(
    access: Access, files: Sequence[tuple[str, int]], needed_bytes: int, arguments: Sequence[str] | None
) -> Connection:
    connection = connect(access, Path(__file__).with_name("agent.py").read_bytes())
    header = {"files": files, "needed_bytes": needed_bytes, "arguments": arguments}
    try:
        connection.send(json.dumps(header).encode() + b"\n")
    except BaseException:  # Ctrl-C too leaves no process behind
        connection.close()
        raise
    return connection


def _ready(connection: Connection, access: Access) -> Mapping[str, Any]:
    event = connection.event()
    if event.get("event") == "ready":
        return event
    if event.get("event") == "no space":
        raise MissingError(
            f"{access.destination} has no room for {_megabytes(event.get('needed_bytes'))}: {_places(event)}",
            hint="free some space there",
        )
    raise _odd(access, event)


def _copy(
    connection: Connection,
    runner: bytes,
    paths: Sequence[Path],
    sizes: Sequence[tuple[str, int]],
    progress: Progress,
) -> None:
    """Exactly as many bytes as were announced: a file that changes meanwhile would shift all that follow."""
    total_kb = sum(-(-size // 1000) for _, size in sizes)
    with progress.task("copy", total_kb, "kB") as task:
        for (_, size), pieces in zip(sizes, [iter([runner]), *map(_pieces, paths)], strict=True):
            sent = 0
            for piece in pieces:
                sent += len(piece)
                if sent > size:
                    break
                connection.send(piece)
                task.advance(sent // 1000 - (sent - len(piece)) // 1000)
            if sent != size:
                raise BadInputError("the bundle changed while it was copied", hint="run the same command again")
            task.advance(-(-size // 1000) - size // 1000)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


# --- the way back ---------------------------------------------------------------------------------------------


def _answer(connection: Connection, access: Access, progress: Progress) -> tuple[Mapping[str, Any], list[str]]:
    """The runner's end, and what it said until then."""
    said: list[str] = []
    while True:
        event = connection.event()
        if event.get("event") == "said":
            said.append(printable(str(event.get("line", "")))[:500])
            if not said[-1].startswith(("error: ", "next:  ")):
                progress.note(said[-1].strip())
        elif event.get("event") == "not stored":
            raise MissingError(
                f"{access.destination} could not store the bundle: {printable(str(event.get('message')))[:200]}",
                hint="see that its folder for temporary files has space and may be written",
            )
        elif event.get("event") == "result":
            return event, said
        else:
            raise _odd(access, event)


def _result(done: Mapping[str, Any], said: Sequence[str], access: Access, digest: str) -> DeviceResult:
    status, text = done.get("status"), done.get("text")
    if not isinstance(text, str):
        raise _runner_error(access, status, said)
    try:
        result = from_json(DeviceResult, parse_object(text.encode()))
    except (ValueError, RecursionError) as error:
        raise StageError(
            f"{access.destination} answered with no result: {printable(str(error))[:300]}",
            hint=ODD_END_HINT,
        ) from error
    if result.manifest_sha256 != digest:
        raise VerificationError(
            f"{access.destination} answered for another bundle: manifest {printable(result.manifest_sha256)[:64]}, "
            f"sent was {digest}",
            hint="run the same command again",
        )
    return result


def _runner_error(access: Access, status: Any, said: Sequence[str]) -> EdgeRecoverError:
    """The runner's own error, with its own exit code and next step."""
    message = next((line.removeprefix("error: ") for line in said if line.startswith("error: ")), "")
    hint = next((line.removeprefix("next:  ") for line in said if line.startswith("next:  ")), "")
    if isinstance(status, int) and status in _FAMILY and message:
        return _FAMILY[status](f"on {access.destination}: {message}", hint=f"there: {hint}" if hint else "run it there")
    last = message or (said[-1] if said else "it said nothing")
    ended = f"by signal {-status}" if isinstance(status, int) and status < 0 else f"with status {status}"
    return StageError(f"on {access.destination} the runner ended {ended}: {last}", hint=hint)


def _odd(access: Access, event: Mapping[str, Any]) -> StageError:
    return StageError(
        f"{access.destination} gave an unexpected answer: {printable(str(event))[:200]}",
        hint=ODD_END_HINT,
    )


def _places(event: Mapping[str, Any]) -> str:
    places = event.get("places")
    found = [pair for pair in places if isinstance(pair, list) and len(pair) == 2] if isinstance(places, list) else []
    return ", ".join(f"{printable(str(place))[:100]} has {_megabytes(free)} free" for place, free in found)


def _megabytes(value: Any) -> str:
    return f"{value / 1e6:,.0f} MB" if isinstance(value, (int, float)) else "?"

"""The runner's command line. Stdlib: it runs where only Python and a runtime are installed."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from edgerecover import __version__
from edgerecover.artifacts import to_json
from edgerecover.bundle.signature import PublicKey
from edgerecover.bundle.verify import signature_words, verify_bundle
from edgerecover.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, BadInputError, EdgeRecoverError
from edgerecover.files import replace_file
from edgerecover.progress import SILENT
from edgerecover.runner.lines import Lines
from edgerecover.runner.run import Options, run_bundle
from edgerecover.runner.text import as_text, printable
from edgerecover.runtime.session.opening import RUNTIMES
from edgerecover.validation.gates import exit_code


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say. The result goes to stdout, what is being done and errors to stderr.

    Returns:
        The exit code: 0, 1 or 5 as the gates came out; others as `edgerecover.errors` has them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except EdgeRecoverError as error:
        _show_error(error.message, error.hint)
        if options.debug:
            traceback.print_exc()
        return error.exit_code
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        _show_error(
            f"internal error: {type(error).__name__}: {error}",
            "this is a bug in edgerecover; run again with --debug and report the traceback",
        )
        return EXIT_INTERNAL


def _run(options: argparse.Namespace) -> int:
    if options.verify_only:
        verified = verify_bundle(options.bundle, PublicKey(options.public_key) if options.public_key else None)
        words = signature_words(verified.signed, verified.signer)
        facts = {"verified": True, "signature": verified.signed.value, "files": sorted(verified.files)}
        text = f"{options.bundle}: {len(verified.files)} files match the manifest; {words}\n"
        sys.stdout.write(_json(facts) if options.json else text)
        return 0
    out = _place_for_result(options.out, options.bundle)
    progress = SILENT if options.quiet else Lines()
    result = run_bundle(options.bundle, _options_of(options), progress)
    _write(out, _json(to_json(result)))
    if options.json:
        sys.stdout.write(_json({"verdict": result.verdict.value, **to_json(result)}))
    else:
        sys.stdout.write(as_text(result))
        progress.note(f"written: {out}")
    return exit_code(result.verdict)


def _options_of(options: argparse.Namespace) -> Options:
    if absent := sorted(set(options.cores) - _cores_here()):
        here = ", ".join(map(str, sorted(_cores_here()))) or "no way to choose"
        raise BadInputError(f"--cores: there is no core {absent[0]} for this process", hint=f"it has {here}")
    return Options(
        runtime=options.runtime,
        providers=tuple(options.providers),
        num_threads=options.threads,
        cache=options.cache,
        cores=tuple(options.cores),
        trusted=PublicKey(options.public_key) if options.public_key else None,
        build_only=options.build_only,
    )


def _cores_here() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _show_error(message: str, hint: str) -> None:
    lines = [f"error: {message}", *([f"next:  {hint}"] if hint else [])]
    sys.stderr.write("".join(f"{printable(line)}\n" for text in lines for line in text.splitlines()))


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# --- where the result goes ------------------------------------------------------------------------------------


def _place_for_result(asked: Path | None, bundle: Path) -> Path:
    """A file that can be written, found out before minutes of measuring; never one inside the bundle.

    Raises:
        BadInputError: it would lie inside the bundle, or cannot be written.
    """
    inside = bundle.resolve()
    out = asked or Path.cwd() / "result.json"
    if asked is None and out.is_relative_to(inside):
        out = inside.with_name(f"{inside.name}.result.json")
    if out.resolve().is_relative_to(inside):
        raise BadInputError(
            f"--out {out} is inside the bundle, which must not change",
            hint="name a file elsewhere with --out",
        )
    if out.is_dir() or not os.access(out.resolve().parent, os.W_OK) or (out.exists() and not os.access(out, os.W_OK)):
        raise BadInputError(f"{out} cannot be written", hint="name a file that can be with --out")
    return out


def _write(out: Path, text: str) -> None:
    try:
        replace_file(out, text.encode())
    except OSError as error:
        raise BadInputError(
            f"{out} cannot be written: {error.strerror or error}", hint="name another file with --out"
        ) from error


# --- arguments ------------------------------------------------------------------------------------------------


def _list_of(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    def split(text: str) -> list[object]:
        return [kind(part.strip()) for part in text.split(",")]

    split.__name__ = f"comma-separated {kind.__name__}"  # argparse names it in its message
    return split


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "runner", description="Verify BUNDLE, check its answers, time it on this machine and settle its target's gates."
    )
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder or archive that edgerecover packed")
    parser.add_argument(
        "--public-key",
        type=Path,
        help="the bundle must be signed with its private key; needs the package model-signing",
    )
    parser.add_argument("--out", type=Path, help="where the result goes [result.json here; never inside BUNDLE]")
    parser.add_argument("--json", action="store_true", help="write the result to stdout as JSON")
    parser.add_argument("--runtime", choices=RUNTIMES, help="[the target's; onnxruntime on a machine that is not it]")
    parser.add_argument(
        "--providers",
        default=[],
        type=_list_of(str),
        help="execution providers of onnxruntime, best first, comma-separated",
    )
    parser.add_argument("--threads", type=int, help="of one operator [the runtime's choice]")
    parser.add_argument("--cores", default=[], type=_list_of(int), help="processor cores to stay on, for example 0,1")
    parser.add_argument("--cache", type=Path, help="where built engines are kept [the user's cache folder]")
    parser.add_argument("--build-only", action="store_true", help="stop when the engines are ready")
    parser.add_argument("--verify-only", action="store_true", help="check the files against the manifest, no more")
    parser.add_argument("--quiet", action="store_true", help="do not say what is being done")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.add_argument("--version", action="version", version=f"edgerecover {__version__}")
    return parser

"""`gate`: a bundle against its limits and the previous release."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgerecover.cli.console import as_json_text, print_json, stdout
from edgerecover.cli.following import following
from edgerecover.cli.inputs import whole_numbers
from edgerecover.cli.options import (
    LIMITS,
    MEASUREMENT,
    OUTPUT,
    EventsOption,
    JsonOption,
    QuietOption,
    SeedOption,
    switch,
)
from edgerecover.cli.signing import (
    CertificatesOption,
    IdentityOption,
    IssuerOption,
    PublicKeyOption,
    StagingOption,
    TrustConfigOption,
    trusted_by,
)
from edgerecover.commands.outputs import require_outside
from edgerecover.errors import (
    EXIT_PASS,
    BadInputError,
    EdgeRecoverError,
    unwritable_hint,
)

if TYPE_CHECKING:
    from edgerecover.artifacts import GateResult
    from edgerecover.gate.check import GateRequest

_FRACTION = "as a fraction of the baseline's. Default: the profile's."


def gate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle to gate; it is verified first.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", help="Previous release: a bundle, or its stored numbers (.json).", rich_help_panel=LIMITS
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="Profile whose limits apply: a name or a .toml file. Default: the bundle's own.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option("--limits", help="TOML file of limits that override the bundle's.", rich_help_panel=LIMITS),
    ] = None,
    max_latency_regression: Annotated[
        float | None,
        typer.Option(
            "--max-latency-regression",
            metavar="<fraction>",
            help=f"Allowed increase in latency, {_FRACTION}",
            min=0,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_size_regression: Annotated[
        float | None,
        typer.Option(
            "--max-size-regression",
            metavar="<fraction>",
            help=f"Allowed increase in file size, {_FRACTION}",
            min=0,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_memory_regression: Annotated[
        float | None,
        typer.Option(
            "--max-memory-regression",
            metavar="<fraction>",
            help=f"Allowed increase in memory, {_FRACTION}",
            min=0,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", help="Minimum seconds per model in each race.", min=0.0, max=60.0, rich_help_panel=MEASUREMENT
        ),
    ] = 3.0,
    races: Annotated[
        int,
        typer.Option(
            "--races",
            help="Maximum number of races while the latency is inconclusive.",
            min=1,
            max=20,
            rich_help_panel=MEASUREMENT,
        ),
    ] = 8,
    cores: Annotated[
        str | None,
        typer.Option("--cores", help="Pin the measurement to these cores, e.g. 0 or 0,1.", rich_help_panel=MEASUREMENT),
    ] = None,
    no_measure: Annotated[
        bool,
        switch(
            "--no-measure", help="Measure nothing here; take latencies from the bundle's report.", panel=MEASUREMENT
        ),
    ] = False,
    init_baseline: Annotated[
        bool, switch("--init-baseline", help="Make this release the baseline if there is none yet.", panel=LIMITS)
    ] = False,
    update_baseline: Annotated[
        bool, switch("--update-baseline", help="Replace the baseline with this release if no gate fails.", panel=LIMITS)
    ] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write the gates to this file as JUnit XML.", rich_help_panel=OUTPUT)
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            help="Append the gates to this file as Markdown, e.g. $GITHUB_STEP_SUMMARY.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    result: Annotated[
        Path | None, typer.Option("--result", help="Also write the --json output to this file.", rich_help_panel=OUTPUT)
    ] = None,
    public_key: PublicKeyOption = None,
    certificates: CertificatesOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_config: TrustConfigOption = None,
    staging: StagingOption = False,
    github: Annotated[bool, switch("--github", help="Write GitHub annotations to stderr.", panel=OUTPUT)] = False,
    exit_zero: Annotated[
        bool, switch("--exit-zero", help="Exit with 0 even if a gate fails or is inconclusive.", panel=OUTPUT)
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Gate BUNDLE on its limits and the previous release: PASS, FAIL, INCONCLUSIVE or SKIP for each gate."""
    for flag, path in (("--junit", junit), ("--summary", summary), ("--result", result)):
        if path is not None:
            require_outside(flag, path)
            if baseline is not None and path.absolute() == baseline.absolute():
                raise BadInputError(f"{flag} {path}: is the baseline file", hint=f"name another file with {flag}")
    outputs = _Outputs(bundle, junit, summary, result, github)
    with following("gate", events=events, quiet=quiet) as progress:
        try:
            request = _request(
                bundle,
                baseline,
                profile,
                limits,
                {
                    "max_latency_regression": max_latency_regression,
                    "max_size_regression": max_size_regression,
                    "max_memory_regression": max_memory_regression,
                },
                measure=not no_measure,
                seconds=seconds,
                max_races=races,
                cores=whole_numbers("--cores", cores, least=0),
                init=init_baseline,
                update=update_baseline,
                seed=seed,
                trusted=trusted_by(public_key, certificates, identity, issuer, trust_config, staging),
            )
            from edgerecover.gate.check import gate as judge

            found = judge(request, progress)
        except EdgeRecoverError as error:
            outputs.write_error(error)
            raise
        outputs.write(found)
        if as_json:
            print_json(_as_json(found))
        else:
            from edgerecover.gate.terminal import print_gates

            print_gates(stdout(), found)
        from edgerecover.validation.gates import exit_code

        raise typer.Exit(EXIT_PASS if exit_zero else exit_code(found.verdict))


def _request(
    bundle: Path,
    baseline: Path | None,
    profile: str | None,
    limits: Path | None,
    flags: dict[str, float | None],
    **settings: Any,
) -> GateRequest:
    from edgerecover.config import load_limits, load_profile
    from edgerecover.gate.check import GateRequest

    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if not math.isfinite(value):
            raise BadInputError(
                f"--{name.replace('_', '-')} {value}: expected a finite number", hint="for example 0.05"
            )
    return GateRequest(
        bundle=bundle,
        baseline=baseline,
        profile=load_profile(profile) if profile else None,
        limits=(load_limits(limits), limits.name) if limits else None,
        flags=given,
        **settings,
    )


@dataclass(frozen=True)
class _Outputs:
    """Where the result goes besides the terminal."""

    bundle: Path
    junit: Path | None
    summary: Path | None
    result: Path | None
    github: bool

    def write(self, found: GateResult) -> None:
        """Write every file that was asked for, and the annotations.

        Raises:
            BadInputError: one cannot be written.
        """
        from edgerecover.gate.annotations import annotations_of
        from edgerecover.gate.junit import junit
        from edgerecover.gate.markdown import markdown

        if self.junit is not None:
            _put(self.junit, junit(found))
        if self.summary is not None:
            _append(self.summary, markdown(found))
        if self.result is not None:
            _put(self.result, as_json_text(_as_json(found)).encode())
        if self.github:
            for line in annotations_of(found):
                typer.echo(line, err=True)

    def write_error(self, error: EdgeRecoverError) -> None:
        """Write why there is no result. A file that cannot be written is skipped: the error itself is shown."""
        from edgerecover.gate.annotations import annotation_of_error
        from edgerecover.gate.junit import junit_of_error
        from edgerecover.gate.markdown import markdown_of_error

        name = self.bundle.name
        with suppress(BadInputError):
            if self.junit is not None:
                created_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
                _put(self.junit, junit_of_error(name, error, created_utc))
        with suppress(BadInputError):
            if self.summary is not None:
                _append(self.summary, markdown_of_error(name, error))
        if self.github:
            typer.echo(annotation_of_error(error), err=True)


def _put(path: Path, content: bytes) -> None:
    from edgerecover.files import replace_file

    try:
        replace_file(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(
        f"{path} cannot be written: {error.strerror or error}",
        hint=unwritable_hint(error, "name a file in a folder that is there"),
    )


def _as_json(found: GateResult) -> dict[str, Any]:
    from edgerecover.artifacts import to_json

    return {"verdict": found.verdict.value, **to_json(found)}

"""The model card of a bundle, as Markdown: what its makers say, and what is known without measuring. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap

from edgerecover.artifacts import Origin, Stated
from edgerecover.bundle.sbom import Subject

_DATA_USED = {
    "none": "No real data had a part in recovery or judgement.",
    "record": "Statistics of real images, shipped as an activation record, steered the synthetic images.",
    "eval-only": "Real labelled images were judged, and never learnt from.",
    "record, eval-only": "Statistics of real images, shipped as an activation record, steered the synthetic images; "
    "real labelled images were judged, and never learnt from.",
}


def model_card(subject: Subject, lineage: Mapping[str, Origin], stated: Stated) -> str:
    """The card; the same run gives the same text. What was measured stands in the report."""
    return "\n".join(_lines(subject, lineage, stated)) + "\n"


def _lines(subject: Subject, lineage: Mapping[str, Origin], stated: Stated) -> Iterator[str]:
    channels, height, width = subject.input.shape
    yield f"# {_plain(stated.name) or 'Model card'}{f' {_plain(stated.version)}' if stated.version else ''}"
    yield ""
    if stated.description:
        yield from [*wrap(_plain(stated.description), 110), ""]
    yield f"- Task: {subject.output.description}"
    yield f"- Architecture: {_plain(subject.architecture)}"
    yield f"- Input: float32 (N, {channels}, {height}, {width}), after mean {_numbers(subject.input.mean)} and std "
    yield f"  {_numbers(subject.input.std)} of pixels in {_numbers(subject.input.range)}"
    yield f"- Target: {_plain(subject.target)}"
    yield f"- Licence: {_plain(stated.licence) or 'not stated'}"
    if stated.authors:
        yield f"- Authors: {', '.join(map(_plain, stated.authors))}"
    yield f"- Made with: edgerecover {subject.edgerecover_version}"
    for title, said in (("Intended uses", stated.intended_uses), ("Limitations", stated.limitations)):
        yield from ["", f"## {title}", ""]
        yield from [f"- {_plain(item)}" for item in said] or ["Not stated."]
    yield from ["", "## Data", "", _DATA_USED.get(subject.data_used, _plain(subject.data_used))]
    yield from ["", "## Made from", "", "| What | File | sha256 |", "|---|---|---|"]
    for origin in lineage.values():
        yield f"| {_plain(origin.what)} | {_plain(origin.file or origin.name) or '–'} | `{origin.sha256}` |"
    yield from ["", "Its measurements are in `report.md`."]


def _plain(text: str) -> str:
    """Somebody's text in one line, with nothing in it that Markdown would take for its own."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in line)


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"

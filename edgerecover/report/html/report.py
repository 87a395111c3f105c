"""The report as one self-contained HTML file: no network, no script, no font.

It embeds pictures and charts, follows the browser's dark mode, and prints. It never exceeds `MAX_BYTES`: it shows
fewer pictures instead.
"""

from __future__ import annotations

from edgerecover.artifacts import Gate, Report
from edgerecover.report.html.blocks import Page, Pictures, Section, Table, Text, chip_of
from edgerecover.report.html.classes import classes_section, images_section, pictures_of
from edgerecover.report.html.closing import next_section, words, words_section
from edgerecover.report.html.draw import MAX_BYTES, draw
from edgerecover.report.html.latency import engines_section, latency_section, npu_section, race_section
from edgerecover.report.html.provenance import provenance_section
from edgerecover.report.html.recovery import ladder_section, stages_section
from edgerecover.report.html.sparsity import sparsity_section
from edgerecover.report.html.summary import summary_section
from edgerecover.report.plain import make_plain
from edgerecover.report.words import gate_counts, gate_name, is_not_accuracy
from edgerecover.tasks.measure import words_of

_PICTURE_BYTES = (1_500_000, 400_000, 0)
_TEXT_LENGTHS = (2_000, 400, 80)
"""Tried one after the other until the page is small enough: bytes of pictures, and characters of a text."""


def html(
    report: Report, sheet_png: bytes | None = None, manifest_sha256: str | None = None, bundle: str = "BUNDLE"
) -> str:
    """The whole report as HTML of at most `MAX_BYTES` bytes.

    Args:
        report: its texts are untrusted.
        sheet_png: the bundle's contact sheet, which `report.sheet` describes; None shows no pictures.
        manifest_sha256: digest of the bundle's manifest; None if unknown.
        bundle: name of the bundle, for the commands that the page suggests.

    Raises:
        ValueError: the contact sheet is not what the report says.
    """
    report = make_plain(report)
    for picture_bytes, text_length in zip(_PICTURE_BYTES, _TEXT_LENGTHS, strict=True):
        pictures = pictures_of(report, sheet_png, picture_bytes)
        text = draw(report_page(report, pictures, manifest_sha256, bundle), text_length)
        if len(text.encode()) <= MAX_BYTES:
            return text
    raise ValueError(f"the report does not fit in {MAX_BYTES / 1e6:g} MB")


def report_page(
    report: Report, pictures: Pictures | None = None, manifest_sha256: str | None = None, bundle: str = "BUNDLE"
) -> Page:
    """What the page shows, in the order of the terminal's report."""
    sections = (
        summary_section(report),
        _warnings(report),
        _gates(report),
        stages_section(report),
        ladder_section(report),
        images_section(report, pictures),
        classes_section(report),
        sparsity_section(report),
        race_section(report),
        engines_section(report),
        npu_section(report),
        latency_section(report),
        next_section(report, bundle),
        words_section(),
        provenance_section(report, manifest_sha256),
    )
    return Page(
        title=f"{report.student.path} for {report.target}",
        badge=chip_of(report.verdict),
        lead=gate_counts(report.gates),
        lines=(
            f"{report.student.architecture or 'ONNX file'}, {report.student.num_parameters:,} parameters, "
            f"{report.student.pruned_to}",
            report.target_description,
            f"profile {report.profile}, seed {report.seed}, {report.device}, data used: {report.data_used}",
            f"edgerecover {report.edgerecover_version}, {report.created_utc}",
        ),
        sections=tuple(section for section in sections if section is not None),
        footer=is_not_accuracy(report),
    )


def _warnings(report: Report) -> Section | None:
    if not report.warnings:
        return None
    return Section("warnings", "Warnings", tuple(Text(warning, "warning") for warning in report.warnings[:100]))


def _gates(report: Report) -> Section:
    rows = tuple(
        (gate_name(gate.name, words_of(report.task)), chip_of(gate.status), *_numbers_of(gate), gate.message)
        for gate in report.gates
    )
    header = ("gate", "", "measured", "limit", "in words")
    table = Table("Every gate, what was measured and the limit", header, rows, (2, 3), stacks=True)
    return Section("gates", "Gates", (table,), words("gate", "parity", "mask", "host, target"))


def _numbers_of(gate: Gate) -> tuple[str, str]:
    unit = f" {gate.unit}" if gate.unit else ""
    sign = "≥" if gate.direction == "at least" else "≤"
    measured = "–" if gate.measured is None else f"{gate.measured:.4g}{unit}"
    return measured, f"{sign} {gate.limit:.4g}{unit}"

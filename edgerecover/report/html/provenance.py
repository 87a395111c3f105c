"""Where a release comes from: digests, settings, versions and the machine."""

from __future__ import annotations

from edgerecover.artifacts import Report
from edgerecover.report.html.blocks import Block, Row, Section, Table, facts_table
from edgerecover.report.words import input_words


def provenance_section(report: Report, manifest_sha256: str | None) -> Section:
    """Digests of all files, the settings, versions and machine of the run."""
    digests = {
        **({"bundle's manifest": manifest_sha256} if manifest_sha256 else {}),
        f"student {report.student.path}": report.student.sha256,
        f"teacher {report.teacher.path}": report.teacher.sha256,
        **({f"record {report.record.path}": report.record.sha256} if report.record else {}),
        f"exported {report.exported.path}": report.exported.sha256,
        **{
            f"{variant.precision.value} {variant.file.path}": variant.file.sha256
            for variant in report.variants
            if variant.file.path != report.exported.path
        },
    }
    run = {
        "edgerecover": report.edgerecover_version,
        "made": report.created_utc,
        "target": report.target,
        "profile": report.profile,
        "input": input_words(report.teacher),
        "seed": str(report.seed),
        "data used": report.data_used,
        "computed on": report.device,
        "exported by": report.exported.exporter,
        "student's format": report.student.format,
        **({"student's weights": _lineage(report)} if report.lineage else {}),
    }
    versions = Table("Versions", (), tuple(report.tool_versions.items()))
    machine = report.latency.fingerprint.facts if report.latency.fingerprint else {}
    blocks: list[Block] = [
        Table("SHA-256 of every file", (), tuple(digests.items())),
        Row((facts_table("Run", run), versions)),
    ]
    if machine:
        blocks.append(Table("The machine that measured", (), tuple(machine.items()), is_folded=True))
    return Section("provenance", "Provenance", tuple(blocks))


def _lineage(report: Report) -> str:
    assert report.lineage is not None
    return f"{report.lineage.descent.value} from the teacher's, deviation {report.lineage.deviation:.2g}"

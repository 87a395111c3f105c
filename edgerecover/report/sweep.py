"""A sweep as Markdown and as one HTML page; the terminal's table has the same rows. Stdlib, NumPy for intervals."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterator
from dataclasses import dataclass

from edgerecover.artifacts import PointFound, Sweep
from edgerecover.report.words import proportion, size
from edgerecover.tasks.measure import words_of


@dataclass(frozen=True)
class Row:
    """One point, for people; "" where there is nothing to say."""

    number: str
    name: str
    quality: str
    median: str
    size: str
    gates: str
    outcome: str
    on_front: bool


def header(sweep: Sweep) -> tuple[str, ...]:
    """Titles of the columns."""
    return ("", "point", sweep.measure, "median", "size", "gates", "")


def rows(sweep: Sweep) -> Iterator[Row]:
    """The points as rows, in the order that was asked for."""
    numbers = {found.point.name: str(number) for number, found in enumerate(sweep.found)}
    for found in sweep.found:
        yield Row(
            numbers[found.point.name],
            sweep.label(found),
            proportion(found.quality) if found.quality else "–",
            f"{found.median_ms:.3f} ms" if found.median_ms is not None else "–",
            size(found.size_bytes) if found.size_bytes is not None else "–",
            found.verdict.value if found.verdict else "",
            _outcome(found, numbers),
            found.on_front,
        )


def _outcome(found: PointFound, numbers: dict[str, str]) -> str:
    if not found.bundle:
        return "failed"
    if found.latency is None:
        return "not timed"
    return "front" if found.on_front else f"behind {numbers.get(found.behind, found.behind)}"


def notes(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """What the columns of the table mean, by name, and why a point failed."""
    what = "correct decisions" if sweep.measure == "accuracy" else "same decision as the teacher"
    words = words_of(sweep.task)
    if words.is_graded:
        yield sweep.measure, f"on {sweep.measured_on} (95 % interval). {words.rule}"
    else:
        yield sweep.measure, f"{what} on {sweep.measured_on} (95 % interval)"
    timed = next((found.latency for found in sweep.found if found.latency), None)
    if timed is not None:
        where = "the target" if timed.host_is_target else "this host, which is not the target"
        yield "median", f"of one query, batch {timed.batch}; all files raced together on {where}: {timed.host.cpu}"
    yield "front", "Pareto-optimal: no other point is as good in all three and better in one"
    for found in sweep.found:
        if found.error:
            yield sweep.label(found), found.error + (f"; {found.hint}" if found.hint else "")


def title(sweep: Sweep) -> str:
    """Title of the picture and of the page."""
    return f"{sweep.model} for {sweep.target}: {sweep.measure}, latency and size of {len(sweep.found)} points"


def markdown(sweep: Sweep, picture: str) -> str:
    """Table and notes.

    Args:
        sweep: what was found.
        picture: path of the picture, relative to where the text will stand.
    """
    table = [header(sweep), ("---",) * len(header(sweep))]
    for row in rows(sweep):
        name = f"**{row.name}**" if row.on_front else row.name
        table.append((row.number, name, row.quality, row.median, row.size, row.gates, row.outcome))
    lines = [f"# {title(sweep)}", "", *(_line(cells) for cells in table), ""]
    lines += [f"- {name}: {said}" for name, said in notes(sweep)]
    lines += ["", f"![{title(sweep)}]({picture})", "", _footer(sweep), ""]
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _footer(sweep: Sweep) -> str:
    return f"edgerecover {sweep.edgerecover_version}, {sweep.created_utc}"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
tr.front { font-weight: 600; } .table { overflow-x: auto; } svg { max-width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .25rem 0; }
"""


def html(sweep: Sweep, svg: str) -> str:
    """One page that needs nothing else: the picture is inside.

    Args:
        sweep: what was found.
        svg: the picture, as `front_svg` draws it.
    """
    cells = "".join(f"<th>{_text(name)}</th>" for name in header(sweep))
    body = "".join(
        f"<tr{' class=front' if row.on_front else ''}>"
        + "".join(
            f"<td>{_text(cell)}</td>"
            for cell in (row.number, row.name, row.quality, row.median, row.size, row.gates, row.outcome)
        )
        + "</tr>\n"
        for row in rows(sweep)
    )
    said = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>\n" for name, text in notes(sweep))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title(sweep))}</title><style>{_STYLE}</style></head>\n<body><h1>{_text(title(sweep))}</h1>\n"
        f'{svg}<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table></div>\n'
        f"<dl>{said}</dl><p>{_text(_footer(sweep))}</p></body></html>\n"
    )


def _text(value: str) -> str:
    return escaping.escape(value)

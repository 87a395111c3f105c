"""Two reports side by side as one HTML file, which needs no network as a report's own does not."""

from __future__ import annotations

from edgerecover.report.html.blocks import Block, Cell, Chip, Page, Section, Table, Text
from edgerecover.report.html.draw import MAX_BYTES, draw
from edgerecover.report.side_by_side import BETTER, SAME, UNCERTAIN, UNCLEAR, WORSE, SideBySide
from edgerecover.report.words import capital, count, gate_name
from edgerecover.tasks.measure import words_of

_TONES = {BETTER: "pass", WORSE: "fail", SAME: "plain", UNCERTAIN: "inconclusive", UNCLEAR: "inconclusive"}
_MOST_ROWS = 400


def side_by_side_html(both: SideBySide) -> str:
    """The comparison as HTML of at most `MAX_BYTES` bytes.

    Raises:
        ValueError: it is larger even with its texts shortened.
    """
    for text_length in (2_000, 200, 60):
        text = draw(side_by_side_page(both), text_length)
        if len(text.encode()) <= MAX_BYTES:
            return text
    raise ValueError(f"the comparison does not fit in {MAX_BYTES / 1e6:g} MB")


def side_by_side_page(both: SideBySide) -> Page:
    """What the page shows, in the order of the terminal's."""
    c, words = both, words_of(both.task)
    differing = tuple((fact.name, fact.a, fact.b) for fact in c.facts if fact.differs)
    same = tuple((fact.name, fact.a) for fact in c.facts if not fact.differs)
    measures: tuple[tuple[Cell, ...], ...] = tuple(
        (one.name, one.a_words, one.b_words, Chip(one.verdict, _TONES[one.verdict]), one.difference)
        for one in c.measures
    )
    header = ("", "A", "B", "", "B against A")
    gates = tuple(
        (gate_name(pair.name, words), pair.a or "–", pair.b or "–", "differs" if pair.differs else "")
        for pair in c.gates
    )
    sections = [
        Section("measured", "Measured: B against A", (
            Table("With 95 % intervals; compared where both measured the same", header, measures, (1, 2), stacks=True),
        )),
        Section("facts", "What they are", (
            Table("Differs", ("", "A", "B"), differing), Table("The same in both", (), same, is_folded=True)
        )),
        Section("gates", "Gates", (Table("Status of each gate", ("gate", "A", "B", ""), gates[:_MOST_ROWS]),)),
    ]  # fmt: skip
    if c.layers:
        rows = tuple((layer.name, layer.a or "–", layer.b or "–") for layer in c.layers[:_MOST_ROWS])
        blocks: list[Block] = [Table("Zeros of the layers that differ", ("layer", "A", "B"), rows, (1, 2))]
        if len(c.layers) > _MOST_ROWS:
            blocks.append(Text(f"And {count(len(c.layers) - _MOST_ROWS, 'more layer')}."))
        sections.append(Section("layers", "Zeros, layer by layer", tuple(blocks)))
    verdicts = [one.verdict for one in c.measures]
    told = ", ".join(
        f"{verdicts.count(word)} {word}" for word in (BETTER, WORSE, SAME, UNCERTAIN, UNCLEAR) if word in verdicts
    )
    what = "Agreement is how often two networks make the same decision on synthetic images; it is not accuracy."
    if words.is_graded:
        what = f"{capital(words.agreement)} compares two networks on synthetic images. {words.rule}"
    return Page(
        title="Two bundles side by side",
        badge=None,
        lead=f"Of {count(len(c.measures), 'measurement')} of B against A: {told}.",
        lines=(f"A: {c.a}", f"B: {c.b}"),
        sections=tuple(sections),
        footer=f"{what} Latencies compare only where machine, software and query are the same.",
    )

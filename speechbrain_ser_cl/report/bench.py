"""Writes the page about a bench: heat maps and tables."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from speechbrain_ser_cl.report.blocks import Block, Heat, Note, Section, Table
from speechbrain_ser_cl.report.page import write_page
from speechbrain_ser_cl.results.bench import CROSS, Cell, bench_tables
from speechbrain_ser_cl.results.text import percent


def write_bench_page(cells: Sequence[Cell], output: str | Path) -> None:
    """Writes all tables and heat maps of a bench as one HTML file.

    Arguments
    ---------
    cells : sequence of Cell
        All planned cells.
    output : str or pathlib.Path
        Output file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "bench.html"
    >>> write_bench_page([Cell("mel", "svm", "given", "a", "a", None)], path)
    >>> "INCOMPLETE" in path.read_text(encoding="utf-8")
    True
    """
    sections = []
    for name, table in bench_tables(cells):
        own = [cell for cell in cells if cell.protocol == name]
        blocks: list[Block] = []
        if table.about:
            blocks.append(Note(table.about, warning=True))
        if name == CROSS:
            keyed = sorted(own, key=lambda cell: cell.row)
            for row, some in groupby(keyed, lambda cell: cell.row):
                blocks.append(_heat(", ".join(row), list(some)))
        elif own:
            blocks.append(_heat("UAR % by corpus", own))
        words = sum(h in ("features", "classifier", "trained on") for h in table.header)
        blocks.append(
            Table(table.caption, table.header, table.rows, words, folded=bool(own))
        )
        blocks.append(Note(table.note))
        sections.append(Section(name, table.caption, blocks))
    write_page(output, "Bench of features and classifiers", [("", sections)])


def _heat(caption: str, cells: Sequence[Cell]) -> Heat:
    """Makes a heat map of UAR by row and tested corpus."""
    columns = list(dict.fromkeys(cell.test for cell in cells))
    rows: dict[str, dict[str, tuple[str, float]]] = {}
    for cell in cells:
        name = cell.train if cell.protocol == CROSS else ", ".join(cell.row)
        value = cell.pooled()["value"]
        rows.setdefault(name, {})[cell.test] = (percent(value), value or 0.0)
    if cells[0].protocol == CROSS:
        caption = f"{caption}: UAR %, trained on the row, tested on the column"
    return Heat(
        caption,
        columns,
        [
            (name, [row.get(c, ("–", 0.0)) for c in columns])
            for name, row in rows.items()
        ],
    )

"""Tables for other programs: CSV of every field of the rows, Markdown and LaTeX of what a page shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zipbatch.errors import printable
from zipbatch.report.page.model import Cell, Table

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#])")
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    '"': "''",
}


def csv_text(rows: Sequence[Mapping[str, Any]], over_seeds: Sequence[Mapping[str, Any]] = (), *, seeds: bool) -> str:
    """One line a row: axes, names and measures; intervals as two columns. With ``seeds``, ``row`` says ``single``, or
    ``mean``, which has standard deviations, too.
    """
    single = {"row": "single"} if seeds else {}
    lines = [_line(row, single) for row in rows] + [_line(row, {"row": "mean"}) for row in over_seeds]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(row: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    line: dict[str, Any] = dict(more)
    for key, value in row.items():
        if key.endswith("_ci95"):
            line |= {f"{key}_low": value[0] if value else None, f"{key}_high": value[1] if value else None}
        elif key in {"seeds", "seeds_of"}:
            line[key] = " ".join(map(str, value))
        elif not isinstance(value, dict):
            line[key] = value
    axes = {f"axis.{axis}" if axis in line else axis: value for axis, value in row.get("axes", {}).items()}
    return axes | line


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown, its notes below."""

    def cells(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |\n"

    head = cells([_in_markdown(column.title) for column in table.columns])
    rule = cells(["---:" if column.numeric else "---" for column in table.columns])
    body = "".join(cells([_in_markdown(_text(cell)) for cell in row]) for row in table.rows)
    notes = "".join(f"\n{_in_markdown(note)}\n" for note in table.notes)
    return head + rule + body + notes


def latex(table: Table) -> str:
    """A LaTeX ``tabular`` with the rules of the package booktabs; notes stand below as comments."""

    def cells(texts: Sequence[str]) -> str:
        return f"{' & '.join(texts)} \\\\\n"

    sides = "".join("r" if column.numeric else "l" for column in table.columns)
    head = cells([_in_latex(column.title) for column in table.columns])
    body = "".join(cells([_in_latex(_text(cell)) for cell in row]) for row in table.rows)
    notes = "".join(f"% {_one_line(note)}\n" for note in table.notes)
    return (
        f"% \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{sides}}}\n\\toprule\n{head}\\midrule\n{body}"
        f"\\bottomrule\n\\end{{tabular}}\n{notes}"
    )


TABLES: dict[str, Callable[[Table], str]] = {".md": markdown, ".tex": latex}
TABLE_SUFFIXES = (".csv", *TABLES)


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.more}".strip()


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))

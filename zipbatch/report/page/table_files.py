"""Tables for other programs: Markdown and LaTeX of what a page shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from zipbatch.errors import printable
from zipbatch.report.page.model import Cell, Table
from zipbatch.spelling import as_read

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


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.more}".strip()


def _one_line(text: str) -> str:
    return " ".join(printable(as_read(text)).split())


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))

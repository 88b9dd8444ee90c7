"""Rows in columns that fit a terminal: the one helper behind every table and listing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80
NOTHING = "–"
_GAP, _LEAST = 2, 8


@dataclass(frozen=True)
class Look:
    """How tables are shown: ``wide`` has every column however long, else 80 cells; colour is for terminals."""

    wide: bool = False
    colour: bool = False


PLAIN = Look()


@dataclass(frozen=True)
class Column:
    """One column. Those of the highest rank are the first to go where there is no room; rank 0 stays.

    ``least`` cells are never broken.
    """

    title: str
    _: KW_ONLY
    right: bool = False
    rank: int = 0
    least: int | None = None


def table_text(columns: Sequence[Column], rows: Sequence[Sequence[str]], look: Look, *, indent: str = "") -> str:
    """A title line and a line for each row; text that is too long goes on below. Says what ``wide`` would add."""
    room, widths = WIDTH - len(indent), _widths(columns, rows)
    kept = _kept(columns, rows, look, room=room)
    if not look.wide:
        widths = _fitted(columns, widths, kept, room=room)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for i in kept:
        side: Literal["left", "right"] = "right" if columns[i].right else "left"
        table.add_column(columns[i].title, justify=side, overflow="fold", width=widths[i])
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))
    text = _printed(table, width=sum(widths) + _GAP * len(columns), colour=look.colour)
    gone = [column.title for i, column in enumerate(columns) if i not in kept and _has_news(rows, i)]
    more = f"‹wide› adds: {', '.join(gone)}\n" if gone else ""
    return "".join(f"{indent}{line}\n" for line in (text + more).splitlines())


def pairs_text(values: Mapping[str, str], look: Look, *, indent: str = "  ") -> str:
    """A name and its text on each line; long text goes on below itself."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, Text(value))
    longest = max((cell_len(line) for value in values.values() for line in value.splitlines()), default=0)
    width = longest + max(map(len, values), default=0) + 2 * _GAP if look.wide else WIDTH - len(indent)
    return "".join(f"{indent}{line}\n" for line in _printed(table, width=width, colour=look.colour).splitlines())


def styled(text: str, style: str, look: Look) -> str:
    """Text in a colour, where colours are shown; as long as it is where ``wide`` says so, else on as many lines."""
    return _printed(
        Text(text, style=style), width=max(WIDTH, cell_len(text)) if look.wide else WIDTH, colour=look.colour
    )


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([len(column.title), *(cell_len(line) for row in rows for line in row[i].split("\n"))])
        for i, column in enumerate(columns)
    ]


def _fitted(columns: Sequence[Column], natural: Sequence[int], kept: Sequence[int], *, room: int) -> list[int]:
    """Widths with which the columns fit: text gives way, the widest first, numbers never do."""
    widths = list(natural)
    least = [n if c.right else min(n, c.least or _LEAST) for c, n in zip(columns, natural, strict=True)]
    while sum(widths[i] for i in kept) + _GAP * (len(kept) - 1) > room:
        loose = [i for i in kept if widths[i] > least[i]]
        if not loose:
            break
        widths[max(loose, key=lambda i: widths[i])] -= 1
    return widths


def _has_news(rows: Sequence[Sequence[str]], i: int) -> bool:
    return any(row[i] not in {"", NOTHING} for row in rows)


def _kept(columns: Sequence[Column], rows: Sequence[Sequence[str]], look: Look, *, room: int) -> list[int]:
    """Indices of the columns that are shown, in order: from rank 0 on, as long as they fit and say anything."""
    if look.wide:
        return list(range(len(columns)))
    widths, kept = _widths(columns, rows), [i for i, column in enumerate(columns) if column.rank == 0]
    room -= sum(widths[i] for i in kept) + _GAP * len(kept)
    for i in sorted(range(len(columns)), key=lambda i: columns[i].rank):
        if columns[i].rank == 0 or not _has_news(rows, i):
            continue
        if (room := room - widths[i] - _GAP) < -_GAP:
            break
        kept.append(i)
    return sorted(kept)


def _printed(what: Table | Text, *, width: int, colour: bool) -> str:
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=max(1, width),
        color_system="standard" if colour else None,
        force_terminal=colour,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(what)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())

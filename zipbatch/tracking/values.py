"""Names and numbers as every tracking package takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from zipbatch.report.progress import Progress
from zipbatch.results.evaluation import Measured, Numbers, ShareName
from zipbatch.tracking.base import Setting

USER = re.compile(r"(?<=://)[^/@\s]+@")
"""User and password in a URL."""
_MOST_TEXT = 500
_ODD = re.compile(r"[^A-Za-z0-9_. /-]+")


class Row(Protocol):
    """A row of a pipeline's table, of one seed or over several."""

    @property
    def axes(self) -> Mapping[str, str | None]: ...
    @property
    def purifier(self) -> str | None: ...
    @property
    def shares(self) -> Mapping[ShareName, Measured]: ...
    @property
    def numbers(self) -> Numbers: ...


def plain_name(text: str) -> str:
    """A name that all packages take: ``purified[badnets, zip]`` becomes ``purified/badnets-zip``."""
    odd = text.replace("[", "/").replace("]", "").replace(", ", "-")
    parts = (_ODD.sub("_", part).strip() for part in odd.split("/"))
    return "/".join(part for part in parts if part not in {"", ".", ".."})


def step_of(progress: Progress) -> int:
    """How far work has got, as a number that grows: steps, images seen in all epochs, or what is counted finest."""
    parts = {part.unit: part for part in progress.parts}
    if "epochs" in parts and "images" in parts:
        return max(0, parts["epochs"].done - 1) * (parts["images"].total or 0) + parts["images"].done
    return progress.parts[-1].done if progress.parts else 0


def progress_values(progress: Progress) -> dict[str, float]:
    """The measures of work that goes on, and its rate."""
    values = dict(progress.measures)
    if progress.per_s is not None and progress.parts:
        values[f"{progress.parts[-1].unit}_per_s"] = progress.per_s
    return values


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Setting]:
    """Nested settings by dotted names; lists as JSON, None left out, as users and passwords in URLs are."""
    found: dict[str, Setting] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in flat_settings(value).items()}
        elif isinstance(value, str | int | float):
            found[name] = USER.sub("", value)[:_MOST_TEXT] if isinstance(value, str) else value
        elif value is not None:
            found[name] = json.dumps(value)[:_MOST_TEXT]
    return found


def row_values(rows: Iterable[Row]) -> dict[str, float | None]:
    """``<axes>/<purifier>/<measure>`` -> its value, of each row of a table; ``none`` is a row without a defence."""
    found: dict[str, float | None] = {}
    seen: dict[str, int] = {}
    for row in rows:
        axes = [value for value in row.axes.values() if value is not None]
        name = "/".join(part.replace("/", "_") for part in (*axes, row.purifier or "none"))
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name}-{seen[name]}"
        found |= {f"{name}/{measure}": share.value for measure, share in row.shares.items()}
        found |= {f"{name}/{measure}": number.value for measure, number in row.numbers._asdict().items()}
    return found

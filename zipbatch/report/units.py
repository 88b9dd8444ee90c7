"""Sizes, times, shares and other values as people read them."""

from __future__ import annotations

import math

_STEPS = (("minute", 60, 90), ("hour", 3600, 48), ("day", 86_400, math.inf))
"""Units of time: seconds of one, and how many are told before the next is used."""
_SHORT = {"minute": "min", "hour": "h", "day": "d"}


def size_text(count: float) -> str:
    """Bytes as ``512 B``, ``1.5 MiB``, ``20.3 GiB``."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count:.0f} B" if units[0] == "B" else f"{size:.{1 if size < 100 else 0}f} {units[0]}"


def clock_text(seconds: float) -> str:
    """Seconds as a clock has them: ``0:21``, ``1:02:03``, ``2d 01:30``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about_text(seconds: float) -> str:
    """A guess in words: ``less than a minute``, ``about 2 minutes``, ``about an hour``, ``about 4 days``."""
    if seconds < 45:
        return "less than a minute"
    unit, length = next(step for step in _STEPS if seconds < step[1] * step[2])[:2]
    count = max(1, round(seconds / length))
    return f"about a{'n' if unit == 'hour' else ''} {unit}" if count == 1 else f"about {count} {unit}s"


def age_text(seconds: float) -> str:
    """How long ago: ``now``, ``5 min``, ``3 h``, ``12 d``."""
    unit, length = next(step for step in _STEPS if seconds < step[1] * step[2])[:2]
    return "now" if seconds < 60 else f"{int(seconds / length)} {_SHORT[unit]}"


def rate_text(per_s: float) -> str:
    """``4.1/s``, ``1450/s``."""
    return f"{per_s:.1f}/s" if per_s < 100 else f"{per_s:.0f}/s"


def share_text(value: float) -> str:
    """A share of 1 as ``.007`` or ``1.000``."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def plain_text(value: object) -> str:
    """A value as ``set`` and ``params`` take it, mappings as ``name=value``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(plain_text, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={plain_text(entry)}" for name, entry in value.items()) or "none"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

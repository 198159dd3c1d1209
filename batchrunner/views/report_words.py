"""Numbers and times in the words of a report."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


def counted(number: int, what: str) -> str:
    """Return *number* with *what* it counts: 1 shard, 2,000 shards."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def bytes_of(count: float) -> str:
    """Return a size as people write it: 640 bytes, 1.2 GB."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    digits = 1 if unit and count < 100 else 0
    return f"{count:,.{digits}f} {_UNITS[unit]}"


def day_and_time(seconds: float) -> str:
    """Return a time, in seconds since 1970 UTC, as 2026-11-27 09:32:13."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def long_duration(seconds: float) -> str:
    """Return a duration with two units: 0.84 s, 42.1 s, 3 min 10 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


def share(part: float, whole: float) -> str:
    """Return a share as percent; "<1 %" rather than "0 %" for what is there."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    return "<1 %" if percent < 1 else f"{percent:.0f} %"

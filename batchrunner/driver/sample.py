"""How much of a source a trial takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from batchrunner.errors import InvalidSpecError


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of a source to take: a number of *rows*, or a *share* of its bytes."""

    rows: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, text: str | float) -> Sample:
        """Read `100` as rows, and `0.01` or `1%` as a share.

        Raises:
            InvalidSpecError: It is none of these, or not above zero.
        """
        written = str(text)
        if re.fullmatch(r"[1-9][0-9]{0,14}", written):
            return cls(rows=int(written))
        number = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e-[0-9]{1,2})?)(%?)", written)
        share = float(number[1]) / (100 if number[2] else 1) if number else 0
        if not 0 < share <= 1:
            raise InvalidSpecError(
                f'a sample is a number of rows, such as 100, or a share, such as 0.01 or "1%"; not {text}'
            )
        return cls(share=share)

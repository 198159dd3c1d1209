"""What every mapping of a spec has in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.diagnosis import complaints, counted, visible
from batchrunner.spec.secrets import redacted

NEUTRAL: Final = "does not decide the output"
"""Marks a field that the fingerprint leaves out. A field without it counts, so none is forgotten."""

ORDERED: Final = "the order of the items decides the output"
"""Marks a mapping whose order counts."""


ADDED: Final = "added when fingerprints were stored already"
"""Marks a field that the fingerprint leaves out at its default, so that those stored stay true."""


class Section(BaseModel):
    """A frozen mapping without unknown keys, whose `repr` keeps its secrets.

    Raises:
        InvalidSpecError: When made of values that do not fit, all of them named.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    stands_for: ClassVar[str | None] = None
    """The field that is meant where a bare value stands in place of the mapping."""

    def __init__(self, /, **fields: Any) -> None:
        told = []
        try:
            super().__init__(**fields)
        except ValidationError as error:
            found = complaints(error, type(self))
            told = [f"  {visible(complaint.message)}" for complaint in found]
        if told:  # without pydantic's error as its cause, which holds every value
            lines = [f"{type(self).__name__}(...) does not fit:", *told, counted(len(told))]
            raise InvalidSpecError("\n".join(lines))

    # Without it pydantic would call __init__ for a section inside another, and lose the places.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if value is None:  # a key with nothing behind it
            return {}
        bare = isinstance(value, str | os.PathLike | list | tuple)
        return {cls.stands_for: value} if bare and cls.stands_for else value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields of *update*, checked as any other.

        Raises:
            InvalidSpecError: They do not fit.
        """
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**dict(self), **update})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, value if isinstance(value, Section) else redacted(value)

"""The base class of every mapping in a spec, and the marks that its fields carry."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.diagnosis import complaints, counted, visible
from batchrunner.spec.secrets import redacted

NEUTRAL: Final = "does not decide the output"
"""Marks a field that the fingerprint leaves out. Unmarked ones count, so that a new one is safe."""

ORDERED: Final = "the order of the items decides the output"
"""Marks a mapping whose order counts in the fingerprint."""

ADDED: Final = "added when fingerprints were stored already"
"""Marks a field that the fingerprint leaves out at its default, so that stored ones still match."""


class Section(BaseModel):
    """A frozen mapping that refuses unknown keys, and whose `repr` hides secrets.

    Raises:
        InvalidSpecError: Values are invalid; the error names all of them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    stands_for: ClassVar[str | None] = None
    """The field that the short form sets: a bare value in place of the mapping."""

    stands_for_a_list: ClassVar[str | None] = None
    """The field that a bare list sets, where it is another one."""

    @classmethod
    def short_field(cls, value: object) -> str | None:
        """Return the field that the short form *value* sets; None if the section has none."""
        if isinstance(value, list | tuple) and cls.stands_for_a_list:
            return cls.stands_for_a_list
        return cls.stands_for

    def __init__(self, /, **fields: Any) -> None:
        problems = []
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = [f"  {visible(one.message)}" for one in complaints(error, type(self))]
        if problems:  # raised out here, since pydantic's error as its cause would show every value
            title = f"{type(self).__name__}(...) does not fit:"
            raise InvalidSpecError("\n".join([title, *problems, counted(len(problems))]))

    # Without this, pydantic would call __init__ for a section inside another and lose its path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if value is None:  # `execution:` with nothing behind it
            return {}
        bare = isinstance(value, str | os.PathLike | list | tuple)
        short = cls.short_field(value) if bare else None
        value = {short: value} if short else value
        return cls._without_nulls(value) if isinstance(value, Mapping) else value

    @classmethod
    def _without_nulls(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what is null and has a default: so a profile switches off what it inherits."""
        optional = {
            name
            for field, info in cls.model_fields.items()
            if not info.is_required()
            for name in (field, info.alias)
        }
        return {key: item for key, item in value.items() if item is not None or key not in optional}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields of *update*, validated like a new one.

        Raises:
            InvalidSpecError: The new values are invalid.
        """
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**dict(self), **update})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, value if isinstance(value, Section) else redacted(value)

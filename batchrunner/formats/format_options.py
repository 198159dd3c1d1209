"""Options of a format: the keyword arguments of its class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.contract import Format
from batchrunner.formats.format_error import blamed
from batchrunner.user_code import contained

SCHEMA = "schema"
"""The option with the types of `source.schema`."""


def with_options(name: str, made: Format, options: Mapping[str, Any]) -> Format:
    """Return a format of the class of *made* with *options*.

    Raises:
        InvalidSpecError: The class does not take an option, or refuses its value.
    """
    known = [one for one in inspect.signature(type(made)).parameters if one != SCHEMA]
    for option in options:
        if option == SCHEMA and option not in inspect.signature(type(made)).parameters:
            raise InvalidSpecError(
                f"the format {name} takes no source.schema: it has types of its own, or its values do"
            )
        if option != SCHEMA and option not in known:
            raise InvalidSpecError(
                f"the format {name} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
    try:
        return contained(partial(type(made), **options))
    except ValueError as error:
        raise InvalidSpecError(str(error)) from error
    except Exception as error:  # the user's code may raise anything
        raise InvalidSpecError(
            f"the format {name} cannot be made with its options: {blamed(error, name)}"
        ) from error

"""The registry of hooks: which names a spec may use, and the hook that each stands for.

No hook runs because its package is installed: a spec names it, or Python hands it over.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

from batchrunner.errors import BatchRunnerError, CannotStartError, InvalidSpecError, describe
from batchrunner.hooks.calling import made_in_time, methods_of
from batchrunner.hooks.contract import METHODS
from batchrunner.user_code import contained

BUILT_IN: Mapping[str, str] = {
    "openlineage": "batchrunner.hooks.openlineage:OpenLineage",
    "webhook": "batchrunner.hooks.webhook:Webhook",
}

_GROUP = "batchrunner.hooks"
_OPTION = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_name(name: str) -> None:
    """Check that there is a hook called *name*, without loading it.

    Raises:
        ValueError: There is none; the message says what was meant, or which there are.
    """
    if name not in _targets() and not _TARGET.fullmatch(name):
        known = ", ".join(_targets())
        raise ValueError(
            f'there is no hook "{name[:60]}"; {_meant(name, _targets()) or f"known: {known}"}, or install '
            'the package that has it, or name "package.module:Class"'
        )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check the *options* of the built-in hook *name*; those of others are checked as they are made.

    Raises:
        InvalidSpecError: It takes no such options, or not such values.
    """
    if name in BUILT_IN:
        factory = _factory(name)
        _check_keywords(name, factory, options)
        getattr(factory, "check", lambda **_: None)(**options)


def hook_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of the options of each built-in hook, for editors and the reference."""
    return {name: _schema(_factory(name)) for name in BUILT_IN}


def make_hook(name: str, options: Mapping[str, Any], *, seconds: float) -> Any:
    """Return the hook called *name*, made with *options* in at most so many *seconds*.

    Raises:
        CannotStartError: It cannot be imported or made, or not in time.
        InvalidSpecError: It takes no such options, or is no hook.
    """
    try:
        factory = contained(partial(_factory, name))
        _check_keywords(name, factory, options)
        made = made_in_time(name, partial(factory, **options), seconds=seconds)
    except BatchRunnerError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise CannotStartError(
            f"the hook {name!r} cannot be made: {describe(error)}; correct its section under `hooks`, "
            "or remove it"
        ) from error
    check_hook(name, made)
    return made


def check_hook(name: str, hook: object) -> None:
    """Check that *hook* has at least one of the methods of a hook.

    Raises:
        InvalidSpecError: It has none.
    """
    if not methods_of(hook):
        theirs = (method for method in dir(hook) if method.startswith("on_"))
        meant = next((hint for method in theirs if (hint := _meant(method, METHODS))), "")
        raise InvalidSpecError(
            f"{name} is no hook: it has none of {', '.join(METHODS)}{'; ' if meant else ''}{meant}"
        )


def _factory(name: str) -> Callable[..., Any]:
    module, _, attribute = _targets().get(name, name).partition(":")
    found: Any = importlib.import_module(module)
    for step in attribute.split("."):
        found = getattr(found, step)
    return found  # type: ignore[no-any-return]  # what it is shows when it is called


def _schema(factory: Any) -> dict[str, Any]:
    """Return the schema of the options of *factory*, each described as its docstring does."""
    described = inspect.getdoc(factory.__init__) or ""
    words = {match[1]: " ".join(match[2].split()) for match in _OPTION.finditer(described)}
    options = {
        name: {"description": words.get(name, ""), **_default(option)}
        for name, option in inspect.signature(factory).parameters.items()
    }
    title = (inspect.getdoc(factory) or "").partition("\n")[0]
    needed = [one.name for one in inspect.signature(factory).parameters.values() if _is_needed(one)]
    required = {"required": needed} if needed else {}
    return {"description": title, "properties": options, **required, "additionalProperties": False}


def _default(option: inspect.Parameter) -> dict[str, Any]:
    default = option.default
    plain = [*default] if isinstance(default, tuple) else default
    return {} if default in {None, option.empty} else {"default": plain}


def _check_keywords(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            meant = _meant(option, parameters) or f"known: {', '.join(parameters) or 'none'}"
            raise InvalidSpecError(f'{name}: unknown option "{option[:60]}"; {meant}')
    missing = [
        one.name for one in parameters.values() if _is_needed(one) and one.name not in options
    ]
    if missing:
        raise InvalidSpecError(f"{name}: {' and '.join(missing)} must be given")


def _is_needed(parameter: inspect.Parameter) -> bool:
    positional = parameter.kind is parameter.VAR_POSITIONAL
    return parameter.default is parameter.empty and not positional


def _meant(word: str, known: Iterable[str]) -> str:
    import difflib  # slow to import, and only a typo needs it

    nearest = difflib.get_close_matches(word.lower()[:60], list(known), n=1)
    return f'did you mean "{nearest[0]}"?' if nearest else ""


@cache  # it looks through all installed packages
def _targets() -> Mapping[str, str]:
    from importlib.metadata import entry_points

    installed = {point.name: point.value for point in entry_points(group=_GROUP)}
    return dict(sorted({**installed, **BUILT_IN}.items()))

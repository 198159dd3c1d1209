"""The code of an object that is handed over in Python is also what it holds and reaches."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import importlib
import logging
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import time
import types

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from batchrunner.capability import code_of
from batchrunner.spec.fingerprint import differences, fields_of_code

SCRIPT = """
import functools

K = {k}

class Scorer:
    factor = 1
    def __init__(self, k):
        self.k = k
    def __call__(self, rows):
        return [self.k * self.factor for _ in rows]
    def score(self, rows):
        return self(rows)

class Configured:
    k = {k}
    def __call__(self, rows):
        return [self.k for _ in rows]

class Reaches:
    def __call__(self, rows):
        return [K for _ in rows]

def closing_over(k):
    def inner(rows):
        return [k for _ in rows]
    return inner

def a_global(rows):
    return [K for _ in rows]

def deep(rows):
    return a_global(rows)

def a_default(rows, k=K):
    return [k for _ in rows]

def a_keyword_default(rows, *, k=K):
    return [k for _ in rows]

@functools.cache
def cached(x):
    return x + K

def argument(rows, k, other=0):
    return [k for _ in rows]

def recursive(rows):
    return recursive(rows[1:]) if rows else [K]

closure, default = closing_over(K), a_default
keyword_default = a_keyword_default
partial, positional = functools.partial(argument, k=K), functools.partial(argument, K)
instance, method, static = Scorer(K), Scorer(K).score, Configured
through_a_class = Reaches()
a_lambda = lambda rows: [K for _ in rows]
two_lambdas = [lambda rows: 1, lambda rows: 2][{k} - 1]
nested = closing_over([closing_over(K)])
calls_cached = lambda rows: cached(1)
a_body = eval("lambda rows: {k}")
"""


def script(k=1):
    """Return what a script defines, whose file no longer exists, as in a notebook."""
    namespace = {"__name__": "a_script"}
    exec(SCRIPT.format(k=k), namespace)  # noqa: S102 - stands in for a cell of a notebook
    return namespace


def fields(capability):
    """The fields of the code of *capability*; they can be stored, as they are with each run."""
    found = fields_of_code(code_of([], handed_over=capability))
    assert len(orjson.dumps(found)) < 10_000
    return found


@pytest.mark.parametrize(
    ("capability", "difference"),
    [
        ("closure", "closure.k: 1 -> 2"),
        ("a_global", "global.K: 1 -> 2"),
        ("deep", "global.a_global.global.K: 1 -> 2"),
        ("recursive", "global.K: 1 -> 2"),
        ("default", "default.k: 1 -> 2"),
        ("keyword_default", "default.k: 1 -> 2"),
        ("partial", "partial.k: 1 -> 2"),
        ("positional", "partial.0: 1 -> 2"),
        ("instance", "instance.k: 1 -> 2"),
        ("method", "instance.k: 1 -> 2"),
        ("static", "class.k: 1 -> 2"),
        ("through_a_class", "instance.class.__call__.global.K: 1 -> 2"),
        ("a_lambda", "global.K: 1 -> 2"),
        ("calls_cached", "global.cached.global.K: 1 -> 2"),
        ("two_lambdas", "itself: changed"),
        ("a_body", "itself: changed"),
        ("nested", "closure.k.0.closure.k: 1 -> 2"),
    ],
)
def test_another_value_is_another_code_and_has_a_name(capability, difference):
    """Each way in which a value gets into a function without a trace in its source."""
    one, same, two = (fields(script(k)[capability]) for k in (1, 1, 2))

    assert [] == differences(one, same)
    assert f"capability.code.{difference}" in differences(one, two)


SETTINGS = """
K = 1
SHARED = {"rate": 1}
class C:
    V = 1
def scaled(x):
    return x * K
"""
USES = """
import functools
import a_settings
import a_settings as nicknamed

def reads(rows):
    return [a_settings.K for _ in rows]

def reads_inside(rows):
    return [nicknamed.K for _ in map(lambda row: nicknamed.K, rows)]

def reads_a_class(rows):
    return [a_settings.C.V for _ in rows]

def calls(rows):
    return [a_settings.scaled(1) for _ in rows]

def hands_on(rows):
    return [getattr(a_settings, "K") for _ in rows]

class Reads:
    def __call__(self, rows):
        return [a_settings.K for _ in rows]

class Scorer:
    T = 1
    table = {"rate": [1]}
    def __call__(self, rows):
        return [self.T for _ in rows]

class Inherits(Scorer):
    pass

def with_attribute(rows):
    return [with_attribute.k for _ in rows]

def reads_one(rows):
    return with_attribute(rows)

@functools.singledispatch
def convert(x):
    return x

def converts(rows):
    return [convert(row) for row in rows]

class Field:
    def __init__(self, k):
        self.k = k
    def __get__(self, instance, owner):
        return self.k

class Managed(Field):
    def __set__(self, instance, value):
        pass

class Described:
    plain, managed = Field(K), Managed(K)
    def __call__(self, rows):
        return [self.plain for _ in rows]

class Applies:
    def score(self, rows, k):
        return [k for _ in rows]
    __call__ = functools.partialmethod(score, k=K)

class Dispatches:
    @functools.singledispatchmethod
    def __call__(self, rows):
        return rows

def registered(k):
    return lambda x: k
with_attribute.k = 1
"""


@pytest.fixture(params=["module", "script"])
def uses(request, tmp_path, monkeypatch):
    """Return what a module, or a script, defines that uses the settings of another module."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "a_settings.py").write_text(SETTINGS)
    (tmp_path / "a_user.py").write_text("K = 1\n" + USES)

    def made(k=1):
        if request.param == "module":
            module = importlib.import_module("a_user")
        else:
            module = types.ModuleType("a_script")
            exec(f"K = {k}\n" + USES, vars(module))  # noqa: S102 - stands in for a cell of a notebook
        return module

    return made


@pytest.mark.parametrize(
    ("capability", "change", "difference"),
    [
        ("reads", "a_settings.K = 2", "global.a_settings.K: 1 -> 2"),
        ("reads_inside", "a_settings.K = 2", "global.nicknamed.K: 1 -> 2"),
        ("reads_a_class", "a_settings.C.V = 2", "global.a_settings.C.class.V: 1 -> 2"),
        ("calls", "a_settings.K = 2", "global.a_settings.scaled.global.K: 1 -> 2"),
        ("hands_on", "a_settings.K = 2", "global.a_settings.K: 1 -> 2"),
        ("hands_on", "a_settings.SHARED['rate'] = 2", "global.a_settings.SHARED.rate: 1 -> 2"),
        ("Reads", "a_settings.K = 2", "class.__call__.global.a_settings.K: 1 -> 2"),
        ("Reads()", "a_settings.K = 2", "instance.class.__call__.global.a_settings.K: 1 -> 2"),
        ("Scorer", "Scorer.T = 2", "class.T: 1 -> 2"),
        ("Scorer()", "Scorer.T = 2", "instance.class.T: 1 -> 2"),
        ("Scorer()", "Scorer.table['rate'][0] = 2", "instance.class.table.rate: [1] -> [2]"),
        ("Scorer", "Scorer.new = 2", "class.new: none -> 2"),
        ("Scorer", "Scorer.__call__ = registered(2)", "class.__call__.closure.k: none -> 2"),
        ("Inherits", "Scorer.T = 2", "base.Scorer.class.T: 1 -> 2"),
        ("with_attribute", "with_attribute.k = 2", "attribute.k: 1 -> 2"),
        ("reads_one", "with_attribute.k = 2", "global.with_attribute.attribute.k: 1 -> 2"),
        (
            "converts",
            "convert.register(int, registered(2))",
            "global.convert.registered.int.closure.k: none -> 2",
        ),
        (
            "Dispatches",
            "Dispatches.__dict__['__call__'].register(int, registered(2))",
            "class.__call__.registered.int.closure.k: none -> 2",
        ),
        ("Described", "Described.plain.__class__", None),
        ("Described()", "vars(Described)['plain'].k = 2", "instance.class.plain.k: 1 -> 2"),
        ("Described", "vars(Described)['managed'].k = 2", "class.managed.k: 1 -> 2"),
        (
            "Applies",
            "vars(Applies)['__call__'].keywords['k'] = 2",
            "class.__call__.partial.k: 1 -> 2",
        ),
    ],
)
def test_a_value_that_is_set_from_outside_is_another_code(uses, capability, change, difference):
    """A script sets it before it runs the batch; no source says so."""
    module = uses()
    before, same = (fields(eval(capability, vars(module))) for _ in range(2))  # noqa: S307
    exec(change, vars(module))  # noqa: S102

    after = fields(eval(capability, vars(module)))  # noqa: S307

    assert [] == differences(before, same)
    lines = differences(before, after)
    assert lines == [] if difference is None else f"capability.code.{difference}" in lines


def test_what_the_code_does_not_read_of_a_module_does_not_count(uses):
    """A counter, or another program's settings, would refuse each run."""
    module = uses()
    before = fields(module.reads)
    module.a_settings.SHARED["rate"] = 2
    module.a_settings.other = 3

    assert before == fields(module.reads)


def test_functions_that_call_one_another_through_modules_are_read_soon(tmp_path, monkeypatch):
    """A long chain of calls, and many objects of a class that begins it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "a_chain.py").write_text(
        "import a_chain\n"
        + "".join(f"def f{n}(x):\n    return a_chain.f{n + 1}(x)\n" for n in range(1500))
        + "def f1500(x):\n    return a_chain.K\nK = 1\n"
        + "class Step:\n    def __call__(self, x):\n        return a_chain.f0(x)\n"
    )
    chain = importlib.import_module("a_chain")
    began = time.process_time()
    before = fields_of_code(
        code_of([], handed_over=functools.partial(helper, x=[chain.Step()] * 1000))
    )
    assert time.process_time() - began < 10

    assert len(orjson.dumps(fields_of_code(code_of([], handed_over=chain.f0)))) < 1_000_000
    chain.K = 2

    assert before != fields_of_code(
        code_of([], handed_over=functools.partial(helper, x=[chain.Step()] * 1000))
    )


def test_another_function_of_the_same_module_is_another_code():
    """The module is the same, so its hash would not differ."""
    (line,) = differences(fields(helper), fields(other))

    assert re.fullmatch(r"capability\.code\.itself: \S+\.helper -> \S+\.other", line)


def test_what_is_in_a_dict_has_a_name():
    """Settings are nested, and one of them is what changed."""

    def using(rate):
        return functools.partial(helper, settings={"model": {"rate": rate, "beam": [4, [5]]}})

    assert ["capability.code.partial.settings.model.rate: 1 -> 2"] == differences(
        fields(using(1)), fields(using(2))
    )


def branching(flag):
    if flag:

        def inner(rows):
            return rows

    else:

        def inner(rows):
            return rows[:1]

    return inner


def test_two_functions_of_one_name_are_distinguished():
    """It matters which one is passed, and the hash of the module does not differ."""
    assert ["capability.code.itself: changed"] == differences(
        fields(branching(flag=True)), fields(branching(flag=False))
    )


def test_a_function_that_a_library_wraps_is_seen():
    """Not every decorator leaves a name behind."""

    def wrapped_around(k):
        namespace = {"__name__": "json.decoder"}  # as if it were of a library
        exec("def wrap(f):\n    return lambda rows: f(rows)", namespace)  # noqa: S102
        return namespace["wrap"](lambda rows: k)

    assert "capability.code.closure.f.closure.k: 1 -> 2" in differences(
        fields(wrapped_around(1)), fields(wrapped_around(2))
    )


def helper(rows):
    return rows


def other(rows):
    return rows


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Settings:
    rate: float
    words: set[str] = dataclasses.field(default_factory=set)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a, self.b = a, {"x"}


class Words(dict):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n,
        lambda n: n / 3,
        lambda n: f"text {n}",
        lambda n: f"\ud800 {n}",
        lambda n: {f"\ud800\n {n}": 1},
        lambda n: {"x" * 1000: n},
        lambda n: bytes([n]) * 1000,
        lambda n: [1, True, 1.0, "1", None][n],
        lambda n: (n, [n, {n}]),
        lambda n: [(1, 2), [1, 2], {1, 2}][n],
        lambda n: {"a": {"b": n}},
        lambda n: {n: "keys"},
        lambda n: frozenset([n, "x"]),
        lambda n: [str(i) for i in range(150_000 + n)],
        lambda n: {str(i): i for i in range(150_000 + n)},
        lambda n: np.arange(3) + n,
        lambda n: np.zeros(3, dtype=["i4", "f4", "i8"][n]),
        lambda n: np.zeros([(6,), (2, 3), (3, 2)][n]),
        lambda n: np.zeros(1 << 20) + n,
        np.float32,
        lambda n: np.array([f"{n}", None], dtype=object),
        lambda n: np.array([f"2020-01-0{n + 1}"], dtype="M8[D]"),
        lambda n: pd.DataFrame({"a": [n], "b": ["x"]}),
        lambda n: pa.table({"a": [n]}),
        lambda n: array.array("i", [n]),
        lambda n: re.compile("a", [0, re.IGNORECASE, re.DOTALL][n]),
        lambda n: pathlib.Path(f"/data/{n}"),
        lambda n: dt.datetime(2020, 1, 1 + n, tzinfo=dt.UTC),
        decimal.Decimal,
        lambda n: [Colour.RED, Colour.BLUE, 1][n],
        Settings,
        lambda n: Settings(1, {"a", f"{n}"}),
        lambda n: [Settings(n)] * 1000,
        Slotted,
        lambda n: Words(a=n),
        lambda n: collections.OrderedDict([("a", 1), ("b", 2)][:: [1, -1][n % 2]]),
        lambda n: collections.deque([n]),
        lambda n: collections.defaultdict([list, dict, set][n]),
        lambda n: types.SimpleNamespace(a=n),
        lambda n: functools.partial(max, n),
        lambda n: [max, min, len][n],
        lambda n: [np.mean, np.sum, np.add][n],
        lambda n: [np, pd, math][n],
        lambda n: [[helper], (helper,), {"0": helper}][n],
        lambda n: [Settings, Slotted, pd.DataFrame][n],
        lambda n: [helper, other][n % 2],
        lambda n: logging.getLogger(f"{n}"),
    ],
)
def test_any_change_of_a_value_is_seen_and_no_change_is_none(make):
    """Also of what is too large to be shown."""

    def holding(n):
        value = make(n)
        return lambda rows: value

    assert fields(holding(0)) == fields(holding(0))
    assert fields(holding(0)) != fields(holding(1))


def test_the_order_of_a_dict_does_not_count():
    """As little as that of arguments in a spec."""
    one, other = {"a": [1], "b": 2}, {"b": 2, "a": [1]}

    assert fields(functools.partial(helper, x=one)) == fields(functools.partial(helper, x=other))


def test_what_goes_in_circles_ends():
    """Objects know one another, functions call one another."""
    ring: list = [1]
    ring.append(ring)
    node = Settings(1)
    node.words = {"self": node, "ring": ring}  # type: ignore[assignment]

    def there(rows):
        return back(rows), node

    def back(rows):
        return there(rows), ring

    assert fields(there) == fields(there)
    before = fields(there)
    ring[0] = 2
    assert before != fields(there)


def test_a_large_graph_of_objects_ends_soon():
    """What cannot be looked through in a second counts by its type."""
    graph: object = 1
    for _ in range(40):
        graph = [graph, graph, {"x"}]  # 2 ** 40 ways to the end

    code = code_of([], handed_over=functools.partial(helper, x=graph))

    assert code.opaque


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        sys.stderr,
        (n for n in ()),
        os.environ,
        random.Random(),
        np.random.default_rng(),
        threading.Thread(),
    ],
)
def test_an_opaque_value_counts_by_its_type_and_is_named(value):
    """A client or a lock blocks no run, today or tomorrow; a warning says that it is not compared."""
    settings = Settings(1)
    settings.words = value

    code = code_of([], handed_over=functools.partial(helper, x=settings))

    fields = fields_of_code(code)
    assert code.opaque == (("partial", "x", "words"),)
    assert fields["capability.code.partial.x.rate"] == "1"
    assert fields["capability.code.partial.x.words"].startswith("a ")


def test_what_the_object_imports_when_it_runs_is_its_code(tmp_path, monkeypatch):
    """A function of a notebook that imports its helper inside."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_helper_inside.py").write_text("K = 1\n")
    namespace = {"__name__": "a_script"}
    exec("def f(rows):\n    from a_helper_inside import K\n    return [K]\n", namespace)  # noqa: S102

    assert "a_helper_inside.py" in code_of([], handed_over=namespace["f"]).modules


def test_the_module_of_an_object_counts_with_what_it_imports():
    """As it does for a target that is named."""
    import capabilities

    modules = code_of([], handed_over=capabilities.echo).modules

    assert modules == code_of(["capabilities:echo"]).modules


RICH = """
import sys, enum
from batchrunner.capability import code_of
from batchrunner.spec.fingerprint import fields_of_code

class Colour(enum.Enum):
    RED = "r"

class Model:
    def __init__(self):
        self.words = {"a", "b", "c", ("d", frozenset("xyz"))}
        self.table = {w: {w} for w in self.words}
        self.colours = {Colour.RED: {"x", "y"}}
        self.me = self

def f(rows, *, stop={"the", "a", "of"}):
    return [row for row in rows if row in {"one", "two", "three"}]

def g(rows, model=Model(), f=f, h=lambda r: r in {"p", "q", "r"}):
    return f(rows)

print(sorted(fields_of_code(code_of([], handed_over=g)).items()))
"""


@pytest.mark.parametrize("how", ["file", "prompt"])
def test_the_code_is_the_same_in_every_process(tmp_path, how):
    """Sets have another order in each of them."""
    path = tmp_path / "script.py"
    path.write_text(RICH)
    command = [sys.executable, *([str(path)] if how == "file" else ["-c", RICH])]

    outputs = {
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1
    assert "words" in outputs.pop()


def test_a_lot_of_data_is_looked_at_quickly():
    """Planning looks at all of it, at every start."""
    table = {f"word {n}": n for n in range(500_000)}
    began = time.process_time()

    assert fields(functools.partial(helper, x=table))
    assert time.process_time() - began < 5

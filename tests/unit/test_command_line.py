"""The command line itself: options that stand anywhere, names that are nearly right, specs checked."""

from __future__ import annotations

import json
import logging

import click
import pytest

from batchrunner.cli.main import _run, batchrunner
from batchrunner.errors import InvalidSpecError

FINE = "capability: json:dumps\nsource: in/*.jsonl\nsink: out\n"


@pytest.fixture(autouse=True)
def quiet():
    """The level of the logs as it was: `-v` changes it."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def ended(*arguments, capsys):
    """Code, stdout and stderr of the command, in this process."""
    code = _run(list(map(str, arguments)))
    return code, *capsys.readouterr()


def every_command(group, ctx, path=()):
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from every_command(command, ctx, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_takes_v():
    """`batchrunner run -v s.yaml` is what people write."""
    ctx = click.Context(batchrunner)
    commands = dict(every_command(batchrunner, ctx))

    assert {"run", "jobs submit", "runs list"} <= set(commands)
    for name, command in commands.items():
        options = [option for parameter in command.params for option in parameter.opts]
        assert options.count("-v") == options.count("--verbose") == 1, name


@pytest.mark.parametrize("place", [0, 1, 2])
def test_v_brings_the_traceback_wherever_it_stands(place, tmp_path, capsys):
    """It is added to the line at its end, when something went wrong."""
    line = ["plan", tmp_path / "nowhere.yaml"]
    assert "Traceback" not in ended(*line, capsys=capsys)[2]

    line.insert(place, "-v")
    code, _, said = ended(*line, capsys=capsys)

    assert code == 2
    assert said.startswith("Traceback")


@pytest.mark.parametrize(("typed", "meant"), [("validat", "validate"), ("jobs sumbit", "submit")])
def test_a_name_that_is_nearly_right_gets_a_suggestion(typed, meant, capsys):
    """At the top as below."""
    code, _, said = ended(*typed.split(), capsys=capsys)

    assert code == 2
    assert f"Did you mean '{meant}'?" in said


def test_a_spec_without_a_command_gets_the_line_to_paste(capsys):
    """What is typed first by a user of `make` or of a shell script."""
    code, _, said = ended("my spec.yaml", capsys=capsys)

    assert code == 2
    assert "To run that spec: batchrunner run 'my spec.yaml'" in said


def test_several_specs_are_checked_and_each_error_has_its_place(tmp_path, capsys):
    """For editors and for CI: all files of a folder, one line of code each."""
    (tmp_path / "fine.yaml").write_text(FINE)
    (tmp_path / "two.yaml").write_text(f"{FINE}nmae: x\nresume: maybe\n")
    (tmp_path / "target.yaml").write_text(FINE.replace("dumps", "dump_it"))
    paths = [tmp_path / name for name in ("fine.yaml", "two.yaml", "target.yaml", "gone.yaml")]

    code, printed, said = ended("validate", *paths, "-o", "json", capsys=capsys)

    records = json.loads(printed)
    assert code == 3
    assert f"{paths[0]}: ok" in said
    assert [(r["file"], r["line"], r["column"]) for r in records] == [
        (str(paths[1]), 4, 1),
        (str(paths[1]), 5, 9),
        (str(paths[2]), None, None),
        (str(paths[3]), None, None),
    ]
    assert records[0]["message"] == 'unknown key "nmae"; did you mean "name"?'
    assert ended("validate", paths[0], "-o", "json", capsys=capsys)[:2] == (0, "[]\n")


def test_a_target_that_is_nearly_right_gets_a_suggestion(tmp_path, monkeypatch, capsys):
    """The typo is in the spec or in the code: the name says which."""
    (tmp_path / "shouting.py").write_text("def upper(rows):\n    return rows\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "s.yaml").write_text(FINE.replace("json:dumps", "shouting:uper"))

    assert (
        "defines no 'uper'; did you mean upper?"
        in ended("validate", tmp_path / "s.yaml", capsys=capsys)[2]
    )


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("def f(rows): return rows", True),
        ("async def f(rows): return rows", True),
        ("class f: pass", False),
        ("import functools\nf = functools.partial(print)", False),
        ("import functools\n@functools.cache\ndef f(rows): return rows", False),
        (
            "try:\n    from nowhere import f\nexcept ImportError:\n    def f(rows): return rows",
            False,
        ),
    ],
)
def test_arguments_that_build_nothing_are_refused_before_the_start(
    code, refused, tmp_path, monkeypatch, capsys
):
    """A function would not get them, without a word."""
    (tmp_path / "given.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    target = "capability: {target: 'given:f', fn_constructor_kwargs: {a: 1}}"
    (tmp_path / "s.yaml").write_text(FINE.replace("capability: json:dumps", target))

    ended_with, _, said = ended("validate", tmp_path / "s.yaml", capsys=capsys)

    assert ended_with == (2 if refused else 0)
    assert ("s.yaml:1:56: capability.fn_constructor_kwargs:" in said) is refused
    assert ("use fn_kwargs" in said) is refused


def test_where_a_refusal_stands_survives_pickling(tmp_path):
    """Ray moves errors between processes."""
    import pickle

    from batchrunner.spec import BatchSpec

    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(f"{FINE}nmae: x\n", origin="s.yaml")
    moved = pickle.loads(pickle.dumps(caught.value))

    assert moved.problems == caught.value.problems != ()
    assert str(moved) == str(caught.value)


def test_memory_is_printed_in_the_units_that_people_use():
    """1.32952e+10 is no size."""
    from batchrunner.execute.ray_connection import listed

    assert listed({"CPU": 2.0, "memory": 1.32952e10}) == "CPU 2, memory 12.4 GiB"

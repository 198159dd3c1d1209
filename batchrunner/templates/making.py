"""Makes the folder of a template: all of it, or nothing of it, and never over a file that is there."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.templates import rows

_HERE = Path(__file__).parent
_ROWS_PER_FILE = 1000
_PICTURES = 96
_MODULES = (
    "argparse",
    "ast",
    "difflib",
    "doctest",
    "inspect",
    "pdb",
    "pickle",
    "tarfile",
    "typing",
)


@dataclass(frozen=True, slots=True)
class Template:
    """A folder to begin with.

    Attributes:
        summary: What it shows, in one line.
        write_data: Writes the data into the folder; returns what they are, for people.
        start: The line that starts the server that its spec needs; empty if it needs none.
    """

    summary: str
    write_data: Callable[[Path], str]
    start: str = ""


def _json_lines(folder: Path, name: str, some: Iterable[rows.Row]) -> int:
    """Write *some* rows into files of a thousand; return how many."""
    lines = [json.dumps(row) + "\n" for row in some]
    for number, first in enumerate(range(0, len(lines), _ROWS_PER_FILE)):
        path = folder / "data" / f"{name}-{number:02d}.jsonl"
        path.write_text("".join(lines[first : first + _ROWS_PER_FILE]), encoding="utf-8")
    return len(lines)


def _functions(folder: Path) -> str:
    count = _json_lines(folder, "functions", itertools.islice(rows.functions(), 3000))
    return f"{count:,} functions of this Python's standard library"


def _docstrings(folder: Path) -> str:
    count = _json_lines(folder, "docstrings", rows.docstrings())
    return f"{count:,} docstrings of this Python's standard library"


def _parquet(folder: Path) -> str:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(list(itertools.islice(rows.functions(), 3000)))
    parquet.write_table(table, folder / "data" / "functions.parquet", row_group_size=250)
    return f"{table.num_rows:,} functions of this Python's standard library, in Parquet"


def _pictures(folder: Path) -> str:
    """Write pictures of a walk into the Mandelbrot set, and one file that is none."""
    (folder / "data" / "pictures").mkdir()
    paths = [f"data/pictures/{number:02d}.ppm" for number in range(_PICTURES)]
    for number, path in enumerate(paths):
        picture = rows.fractal(-0.743644 + 0.131826j, width=3 * 0.93**number, pixels=64)
        (folder / path).write_bytes(picture if number != _PICTURES // 2 else b"no picture")
    (folder / "data" / "pictures.jsonl").write_text(
        "".join(json.dumps({"path": path}) + "\n" for path in paths)
    )
    return f"{_PICTURES} pictures of a fractal, one of them broken"


def _prompts(folder: Path) -> str:
    prompts = (
        {"id": row["id"], "prompt": f"What does {row['id'].partition(':')[0]} do?\n{row['text']}"}
        for row in itertools.islice(rows.docstrings(), 400)
    )
    return f"{_json_lines(folder, 'prompts', prompts):,} prompts about Python's standard library"


def _requests(folder: Path) -> str:
    """Write a batch file of OpenAI's; the server of the template refuses one of its requests."""
    count = _json_lines(folder, "requests", itertools.islice(rows.requests(), 400))
    return f"{count:,} requests about Python's standard library, in a batch file of OpenAI's"


def _evaluations(folder: Path) -> str:
    wanted = [
        {"datasets": [module], "models": [model], "config": {"level": level}}
        for module in _MODULES
        for model in ("zlib", "bz2", "lzma")
        for level in (1, 6, 9)
    ]
    text = "".join(json.dumps(row) + "\n" for row in wanted)
    (folder / "data" / "wanted.jsonl").write_text(text)
    return f"{len(wanted)} evaluations of compressors on modules of Python's standard library"


TEMPLATES = {
    "demo": Template("a batch on Ray, to kill and to resume", _functions),
    "jsonl": Template("JSON lines in and out, rows that fail, without Ray", _docstrings),
    "parquet-s3": Template(
        "Parquet on S3: a server on this machine, or a bucket", _parquet, "python s3.py bash"
    ),
    "images": Template("files that the rows name, one of them broken", _pictures),
    "llm-api": Template(
        "prompts to an API: asynchronous, with retries, offline too", _prompts, "python server.py &"
    ),
    "openai-batch": Template(
        "a Batch API of one's own: OpenAI's batch files in and out",
        _requests,
        "python server.py bash",
    ),
    "gpu": Template(
        "stages: prepared on CPUs, a model per worker, on a GPU or the CPU", _docstrings
    ),
    "capability-run": Template(
        "runs of an evaluation, recorded in an analytics store", _evaluations
    ),
}
"""By name, in the order in which `--list` shows them."""


def template_named(name: str) -> Template:
    """Return the template *name*.

    Raises:
        InvalidSpecError: There is none.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    near = difflib.get_close_matches(name, TEMPLATES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TEMPLATES)}."
    raise InvalidSpecError(
        f"there is no template {name!r}: {hint} The folder comes second: batchrunner init demo FOLDER"
    )


def make(name: str, folder: Path) -> str:
    """Make *folder* from the template *name*; return what its data are.

    The files get their names when all are written. If that fails, none is left, and if the process is
    killed, what it wrote is in a folder `.batchrunner-init-…` beside them.

    Raises:
        InvalidSpecError: There is no such template, or *folder* has a file of that name already.
        CannotStartError: The folder cannot be written.
    """
    template = template_named(name)
    try:
        _check_free(name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".batchrunner-init-") as staged:
            data = _write(name, template, Path(staged))
            _move(Path(staged), folder)
    except FileExistsError as error:
        raise _taken(name, folder, Path(error.filename)) from error
    except OSError as error:
        raise CannotStartError(
            f"{folder}: the template cannot be written ({error.strerror or error}): free space, or name "
            f"another folder: batchrunner init {name} FOLDER"
        ) from error
    return data


def _write(name: str, template: Template, staged: Path) -> str:
    source = _HERE / name
    for one in files_of(name):
        shutil.copyfile(source / one, staged / one)
    (staged / "data").mkdir()
    return template.write_data(staged)


def files_of(name: str) -> list[str]:
    """Return the names of the files that `make` copies for the template *name*."""
    return sorted(one.name for one in (_HERE / name).iterdir() if one.is_file())


def _move(staged: Path, folder: Path) -> None:
    made: list[Path] = []
    try:
        # The data first: a spec without its data could be run.
        (staged / "data").rename(folder / "data")
        made.append(folder / "data")
        for one in staged.iterdir():
            with (folder / one.name).open("xb") as file:
                made.append(folder / one.name)
                file.write(one.read_bytes())
    except BaseException:
        for path in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _check_free(name: str, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise _taken(name, folder, folder)
    for one in ("data", *files_of(name)):
        if os.path.lexists(folder / one):
            raise _taken(name, folder, folder / one)


def _taken(name: str, folder: Path, path: Path) -> InvalidSpecError:
    return InvalidSpecError(
        f"{path} exists already, and nothing was written: name another folder, as in "
        f"batchrunner init {name} {_free_name(folder)}"
    )


def _free_name(folder: Path) -> str:
    stem = str(folder) if folder.name else "new"
    stem = f"./{stem}" if stem.startswith("-") else stem  # no option
    names = (f"{stem}-{n}" for n in itertools.count(2))
    return shlex.quote(next(name for name in names if not os.path.lexists(name)))

r"""What the documentation says is what happens: its blocks are run, its specs are checked.

Each page is pasted, block by block, into one shell by a reader (`docs_reader.py`). The words
behind a block's language say what is done with it: `file=NAME` writes it, `run` runs it (`exit=N`:
and expects that code), `check` reads it as a spec or as the options of a job backend, `output` has
lines that the block before printed, where numbers may differ and … stands for anything. Bash and
Python without such a word do not occur: what cannot be run here is `text`, and YAML is parsed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from batchrunner import BatchSpec
from batchrunner.jobs.backend import options_of
from builders import read_part
from command import ENVIRONMENT, batchrunner
from docs_reader import Reader

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHER_PAGES = [
    ROOT / name
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "RELEASE.md", "benchmarks/README.md")
]
BUCKETS = ("corpus", "evals")  # which the pages name as the reader's
TO_READ = {"yaml", "text", ""}  # languages of blocks that may stand without a word
_BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return [(lang, words.split(), text) for lang, words, text in _BLOCK.findall(page.read_text())]


PAGES_WITH_CODE = [page for page in PAGES if any(words for _, words, _ in blocks(page))]
ON_RAY = (
    "README.md",
    "docs/how-to/clusters.md",
    "docs/how-to/from-map-batches.md",
    "docs/tutorials/first-job.md",
)
WITHOUT_RAY = {page.relative_to(ROOT).as_posix() for page in PAGES_WITH_CODE} - {*ON_RAY}


@pytest.fixture(scope="module")
def reader(moto):
    """One reader of all pages: the cluster that one page starts is there for the next one."""
    with a_reader(moto) as one:
        yield one


@pytest.fixture(scope="module")
def reader_without_ray(moto):
    """One for whom no Ray can start: `RAY_TMPDIR` is no folder."""
    with a_reader(moto, RAY_TMPDIR=os.devnull) as one:
        yield one


@contextmanager
def a_reader(moto, **environment):
    for bucket in BUCKETS:
        assert replace(moto, bucket=bucket).takes_writes()
    with tempfile.TemporaryDirectory(prefix="docs", ignore_cleanup_errors=True) as root:
        one = Reader(Path(root), s3_endpoint=moto.endpoint, **environment)
        yield one
        one.leave()


def check(language, text):
    if language == "yaml":
        BatchSpec.from_text(text, origin="docs", environ={"ACCESS_KEY": "a", "SECRET_KEY": "b"})
    else:
        exec(compile(text, "docs", "exec"), {"configure_job_backend": options_from_call})  # noqa: S102


def options_from_call(kind, **fields):
    return options_of(kind, fields)


def printed(line):
    """Return what finds *line* in an output."""
    pattern = re.sub(r"(\\ )+", r"\\s+", re.escape(line.strip()))
    return re.sub(r"\d+", r"\\d+", pattern).replace("…", ".*")


def paste(page, reader):
    """Do with each block what its words say, in an empty folder."""
    before, folder = "", reader.a_folder()
    for language, words, text in blocks(page):
        options = dict(word.partition("=")[::2] for word in words)
        if "file" in options:
            reader.write(options["file"], text, folder)
        if "check" in options:
            check(language, text)
        if "run" in options:
            done = reader.run(language, text, folder)
            before = done.stdout
            assert done.returncode == int(options.get("exit", 0)), f"{text}\n{before}"
        if "output" in options:
            missing = [line for line in text.splitlines() if not re.search(printed(line), before)]
            assert not missing, f"{missing} in\n{before}"


@pytest.mark.ray
@pytest.mark.parametrize("page", ON_RAY)
def test_a_page_pasted_into_an_empty_folder_does_what_it_says(page, reader):
    """A reader who copies the blocks has no more than the page gives, and a Ray with its token."""
    paste(ROOT / page, reader)


@pytest.mark.parametrize("page", sorted(WITHOUT_RAY))
def test_a_page_does_what_it_says_without_a_ray(page, reader_without_ray):
    """Most pages need none, and so do not wait for one another as the tests on Ray do."""
    paste(ROOT / page, reader_without_ray)


@pytest.mark.ray
def test_the_reader_of_the_pages_has_token_authentication_on(reader):
    """As Ray has it by default: otherwise the pages are tried on something that no reader has."""
    folder = reader.a_folder()
    start = "ray get-auth-token --generate > token && ray start --head"

    assert reader.run("bash", start, folder).returncode == 0
    alone = reader.run("bash", "ray status --address 127.0.0.1:6379", folder)
    assert "InvalidAuthToken" in alone.stdout


def test_every_block_is_run_checked_or_visibly_no_code():
    """A block that no test looks at is wrong sooner or later."""
    bare = [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for language, words, text in blocks(page)
        if not words and language not in TO_READ and not is_of_make(text)
    ]

    assert bare == []


def is_of_make(text):
    """Return whether all that is called is a target of ours, which CI makes."""
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return all(re.match(rf"make ({'|'.join(targets)})\b", line) for line in lines)


def test_what_is_shown_in_yaml_is_yaml():
    """A fragment that does not parse cannot be pasted."""
    for page in PAGES:
        for language, _, text in blocks(page):
            if language == "yaml":
                yaml.safe_load(text)


@pytest.mark.parametrize(
    "page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_between_pages_lead_somewhere(page):
    """A page that was moved leaves no dead ends."""
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", page.read_text())

    assert [link for link in links if not leads_somewhere(page, *link)] == []


def leads_somewhere(page, path, anchor):
    """Return whether GitHub shows a file there, and in it a heading of that anchor, if one is named."""
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    text = _BLOCK.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings}


def test_no_page_stands_in_the_navigation_of_the_site_twice():
    """A reader who meets a title again asks which of the two is right."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = re.findall(r"[\w/-]+\.md$", navigation, re.MULTILINE)

    assert len(pages) > 40
    assert sorted(set(pages)) == sorted(pages)


def test_the_reference_is_what_the_code_says():
    """`make docs` was not forgotten."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("quickstart", marks=pytest.mark.long),
        pytest.param("csv", marks=pytest.mark.long),
        pytest.param("full", marks=pytest.mark.ray),
    ],
)
def test_the_specs_that_need_no_folder_run(name, tmp_path):
    """From the repository as it is. The other ones are those of templates: `test_templates.py`."""
    (tmp_path / "demo").symlink_to(ROOT / "demo")

    done = batchrunner("run", ROOT / "specs" / f"{name}.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    parts = list((tmp_path / ".demo").glob("*/part-*"))
    assert parts
    assert all(read_part(part) for part in parts)


@pytest.mark.ray
def test_the_demo_ends_well():
    """`make demo` is the first thing that anyone tries."""
    done = subprocess.run(
        [sys.executable, "demo/demo.py"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same, byte for byte" in done.stdout
    assert "kill -9" in done.stdout

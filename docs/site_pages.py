"""What MkDocs needs to build the site from pages that GitHub shows, too: a hook of `mkdocs.yml`.

README.md and its like lie outside `docs/`, and are pages of the site without a second copy. Their
links, and those to them, are relative to the repository; in the site they lead to the same page.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "RELEASE.md": "releasing.md",
    "benchmarks/README.md": "benchmarks.md",
    "specs/README.md": "specs/index.md",
}
"""Path in the repository, and path in the site."""
_INSIDE = {page: source for source, page in OUTSIDE.items()}
_FOREIGN = "https://unpkg.com/iframe-worker/shim"
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
_FENCE = re.compile(r"^```(\w+)([^\n`]+)$", re.MULTILINE)
_MADE = re.compile(r"\A<!-- Made by .* -->\n+")
_API = re.compile(r"^<!-- (::: [\w.]+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Name anchors as GitHub does, and list the folders that the navigation names."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    config.nav = [_listed(entry) for entry in config.nav or []]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside `docs/`, and the specs that pages link to."""
    every = {**OUTSIDE, **{_path(spec): _path(spec) for spec in (ROOT / "specs").glob("*.yaml")}}
    for source, page in every.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links, words behind a block's language and API marks into what MkDocs reads."""
    here = page.file.src_uri
    if here.startswith("decisions/"):
        page.meta["search"] = {"boost": 0.3}  # a page on today's behaviour comes before its history
    markdown = _MADE.sub("", markdown)  # before its heading, MkDocs would not find the title
    text = _LINK.sub(lambda found: found[1] + _in_site(found[2], here), markdown)
    return _API.sub(r"\1", _FENCE.sub(_titled, text))


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Take our own file for the one that the offline search would ask another host for."""
    return output.replace(_FOREIGN, relpath("assets/frame_worker.js", dirname(page.url) or "."))


def on_post_template(output: str, **_: Any) -> str:
    """The same for the page that a server shows where there is none."""
    return output.replace(_FOREIGN, "/assets/frame_worker.js")


def slug(heading: str, separator: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def _in_site(link: str, here: str) -> str:
    source = _INSIDE.get(here, f"docs/{here}")
    target = normpath(f"{dirname(source)}/{link}".lstrip("/"))
    page = OUTSIDE.get(target, target.removeprefix("docs/"))
    return relpath(page, dirname(here) or ".")


def _titled(fence: re.Match[str]) -> str:
    """Show the name of the file that a block is; the other words are for our tests."""
    name = re.search(r"\bfile=(\S+)", fence[2])
    return f"```{fence[1]}" + (f' title="{name[1]}"' if name else "")


def _listed(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {title: _listed(inner) for title, inner in entry.items()}
    if isinstance(entry, list):
        return [_listed(inner) for inner in entry]
    return _pages_in(entry) if entry.endswith("/") else entry


def _pages_in(folder: str) -> list[str]:
    pages = sorted((ROOT / "docs" / folder).glob("*.md"), key=lambda page: page.stem != "README")
    first, *rest = pages
    return [f"{folder}{page.name}" for page in [first, *sorted(rest)]]


def _path(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()

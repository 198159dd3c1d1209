"""The site that `make docs` builds: every link leads somewhere, and no page asks another host."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from command import ENVIRONMENT

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
HEADS = {"stylesheet", "preload", "preconnect", "icon", "modulepreload", "dns-prefetch"}
ELSEWHERE = re.compile(r"^(https?:)?//")


class Links(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        self.loads += [value for name, value in attrs if (tag, name) in LOADS]
        if tag == "link" and HEADS & set((attributes.get("rel") or "").split()):
            self.loads.append(attributes["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**ENVIRONMENT, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {page: Links(page) for page in folder.rglob("*.html")}


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor_that_exist(site):
    """A reader at 3 a.m. follows one link, and not a second if that one is dead."""
    dead = [
        f"{page.name}: {link}"
        for page, found in site.items()
        for link in [*found.links, *found.loads]
        if page.name != "404.html" and not leads_somewhere(page, link, site)
    ]

    assert dead == []


def leads_somewhere(page, link, site):
    if re.match(r"[a-z]+:", link):
        return True
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in site[target].anchors)


def test_no_page_asks_another_host_for_anything(site):
    """It is read where there is no network, and no other host learns what is read."""
    loads = {load for found in site.values() for load in found.loads}
    styles = {style for page in site for style in page.parent.rglob("*.css")}
    imports = {
        url
        for style in styles
        for url in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", style.read_text())
    }

    assert [url for url in loads | imports if ELSEWHERE.match(url)] == []


def test_the_readme_is_the_front_page_with_the_names_of_the_files_that_its_blocks_are(site):
    """Without a second copy, which would be stale."""
    text = next(page for page in site if page.name == "index.html").read_text()

    assert "<h1" in text
    assert 'class="filename">spec.yaml<' in text
    assert "docs/how-to" not in text


def test_every_public_name_has_its_docstring_in_the_site(site):
    """The reference is made from the code, so no name is left out."""
    for module in ("batchrunner", "batchrunner.jobs", "batchrunner.analytics"):
        public = {name for name in __import__(module, fromlist=["_"]).__all__ if name[0] != "_"}
        anchors = set().union(*(found.anchors for found in site.values()))
        assert {name for name in public if f"{module}.{name}" not in anchors} == set()


def test_the_search_finds_a_page_where_there_is_no_network(site, chromium):
    """Opened from the folder, in which browsers start no worker for the search."""
    index = next(page for page in site if page.name == "index.html")
    page = chromium.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(240_000)

    page.goto(index.as_uri())
    page.keyboard.press("/")  # opens the search
    page.keyboard.type("troubleshooting")
    page.locator(".md-search-result__link[href*=troubleshooting]").first.wait_for()

    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []

"""The glossary, kept: one word for one thing, and sentences that name who acts."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
HIDDEN_ACTORS = re.compile(r"\b(whoever|somebody|nobody|anybody)\b", re.IGNORECASE)
TELLING = re.compile(
    r"(?<!\.)(?<!def )\b(tell|tells|told|telling)\b", re.IGNORECASE
)  # a file has .tell()


def rows():
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("| **")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words_not_used():
    return [word.strip() for row in rows() for word in row[2].split(",")]


def sources():
    return sorted((ROOT / "batchrunner").rglob("*.py"))


def pages():
    found = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")}
    return sorted(path for path in found if "decisions" not in path.parts and path != GLOSSARY)


def places(pattern, paths):
    """Where *pattern* stands; words of identifiers are words, and lines may break within a phrase."""
    found = []
    for path in paths:
        text = path.read_text()
        prose = re.sub(r"\s+#?\s*|_|\(\.\.?/[^)]*\)", lambda gap: " " * len(gap[0]), text)
        found += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            for match in pattern.finditer(prose)
        ]
    return found


def test_the_glossary_is_short():
    """A reader keeps some twenty words in mind, not sixty."""
    assert len(rows()) <= 25


def test_the_words_that_the_glossary_rules_out_are_nowhere():
    """Two words for one thing make a reader look for the difference."""
    phrases = ("s?\\s+".join(map(re.escape, word.split())) for word in words_not_used())
    setting = r"set(?:s|ting)? (?:[\w`/-]+\s+){0,3}aside"  # whichever form, whatever is set
    pattern = re.compile(rf"\b({'|'.join(phrases)}|{setting})s?\b", re.IGNORECASE)

    for text in ("rows set  aside", "repair sets it aside", "setting the damage aside"):
        assert pattern.search(text)  # the pattern finds what it should
    assert not pattern.search("`verify` puts it aside")
    assert places(pattern, [*sources(), *pages()]) == []


def test_sentences_name_who_acts():
    """`Whoever finds it` leaves the reader to guess: the next driver, a worker, or the user."""
    assert places(HIDDEN_ACTORS, [*sources(), *pages()]) == []


def test_code_returns_logs_and_raises():
    """`Tell` stands for return, log, raise, print and decide: say which."""
    assert places(TELLING, [*sources(), *pages()]) == []

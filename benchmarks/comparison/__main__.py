"""`python -m benchmarks.comparison`: measures, keeps the numbers, and writes the tables of the pages."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.comparison.contestants import CONTESTANTS, OURS, Contestant
from benchmarks.comparison.jobs.work import COST
from benchmarks.comparison.place import Job
from benchmarks.comparison.scenarios import TITLES, Trial
from benchmarks.machine import about_this_machine
from benchmarks.places import in_memory
from benchmarks.race import CHECKOUT, say

ROWS, FILES = 40_000, 40
RESULTS = Path(__file__).parents[1] / "results" / "comparison.json"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_ENVIRONMENT = CHECKOUT / ".bench" / "contestants"


def main() -> None:
    """Let the chosen contestants take their turns, each in a folder of its own."""
    options = _options()
    job = Job(
        rows=max(round(ROWS * options.scale), 200), files=max(round(FILES * options.scale), 4)
    )
    python = _their_python(options.contestants)
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    results = {one["name"]: one for one in kept.get("contestants", ())}
    for contestant in options.contestants:
        say(contestant.name)
        for one in _measured(contestant, job=job, python=python):
            results[contestant.name] = one
            _keep(results, path=options.out)


def _keep(results: dict[str, dict[str, Any]], *, path: Path) -> None:
    about = {
        **about_this_machine(),
        "microseconds_a_row": COST * 1e6,
        "contestants": [results[one.name] for one in CONTESTANTS if one.name in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _measured(contestant: Contestant, *, job: Job, python: Path) -> Iterator[dict[str, Any]]:
    """Yield what is known of *contestant* after each of its scenarios."""
    about = {
        "name": contestant.name,
        "settings": contestant.settings,
        "versions": _versions(contestant, python),
        "rows": job.rows,
        "files": job.files,
    }
    outcomes: dict[str, Any] = {}
    with in_memory() as place:
        trial = Trial(contestant, job=job, home=place.folder / "home", python=python)
        for key, outcome in trial.outcomes():
            say(f"  {key}: {outcome}")
            outcomes[key] = outcome.to_dict()
            yield {**about, "outcomes": {key: outcomes[key] for key in TITLES if key in outcomes}}


def _versions(contestant: Contestant, python: Path) -> dict[str, str]:
    if contestant.python == OURS:
        return {name: version(name) for name in contestant.packages}
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run(
        [python, "-c", code, *contestant.packages], check=True, capture_output=True, text=True
    )
    return dict(zip(contestant.packages, done.stdout.split(), strict=True))


def _their_python(contestants: list[Contestant]) -> Path:
    """Return the Python of the contestants that need one of their own; build it if need be."""
    python = _ENVIRONMENT / "bin" / "python"
    if all(contestant.python == OURS for contestant in contestants):
        return python
    if not python.exists():
        venv.create(_ENVIRONMENT, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--requirement", _REQUIREMENTS]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    return python


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument(
        "--only",
        dest="contestants",
        type=_contestants,
        default=list(CONTESTANTS),
        metavar="NAME;NAME",
        help=f"which contestants: {'; '.join(one.name for one in CONTESTANTS)}",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.01 is a quick look")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    return parser.parse_args()


def _contestants(text: str) -> list[Contestant]:
    by_name = {contestant.name: contestant for contestant in CONTESTANTS}
    names = [name.strip() for name in text.split(";")]
    if unknown := [name for name in names if name not in by_name]:
        raise argparse.ArgumentTypeError(f"no contestant {unknown[0]!r}: {'; '.join(by_name)}")
    return [by_name[name] for name in names]


if __name__ == "__main__":
    main()

"""`python -m benchmarks`: measures, keeps the numbers as JSON, and writes README.md from them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.machine import about_this_machine
from benchmarks.race import say
from benchmarks.readme import readme
from benchmarks.size import Size
from benchmarks.workloads import WORKLOADS

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the chosen workloads, one after the other."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        say(name)
        about = {
            **about_this_machine(),
            "scale": options.scale,
            "repeats": options.repeats,
        }
        result = WORKLOADS[name](Size(options.scale, options.repeats))
        (options.out / f"{name}.json").write_text(result.to_json(about))
        for goal in result.goals:
            say(f"  {'met' if goal.is_met else 'MISSED'}: {goal.text}: {goal.measured:.2f}")
    (options.out.parent / "README.md").write_text(readme(options.out))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(WORKLOADS),
        metavar="W1,noop",
        help=f"which workloads; by default all: {', '.join(WORKLOADS)}",
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.01 is a quick look")
    parser.add_argument(
        "--out",
        type=Path,
        default=_RESULTS,
        help="folder of the JSON files; README.md is written beside it",
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in WORKLOADS]:
        raise argparse.ArgumentTypeError(f"no workload {unknown[0]!r}: {', '.join(WORKLOADS)}")
    return names


if __name__ == "__main__":
    main()

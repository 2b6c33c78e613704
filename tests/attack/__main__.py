"""Attack the library with wrong calls, random networks, kills and damaged files, and count how it stands.

Fails where a result is wrong in silence, an error is an internal one, a valid call is refused, or something hangs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import tyro

from tests.attack import calls, damage, kills, networks
from tests.attack.cases import Case, run, table

Part = Literal["calls", "networks", "kills", "damage"]


@dataclass(frozen=True)
class Options:
    """What to attack."""

    seed: int = 0
    """Another seed attacks with other cases."""
    parts: tuple[Part, ...] = ("calls", "networks", "kills", "damage")
    """Which parts."""
    wrong_calls: int = 2500
    """How many wrong calls."""
    networks: int = 40
    """How many random networks."""
    kills: int = 60
    """How many killed processes."""
    files: int = 200
    """How many damaged files."""
    processes: int = 2
    """How many cases run at once."""


def cases(options: Options) -> Iterator[Case]:
    """Yield the cases of all parts."""
    if "calls" in options.parts:
        yield from calls.cases(options.seed, options.wrong_calls)
    if "networks" in options.parts:
        yield from networks.cases(options.seed, options.networks)
    if "kills" in options.parts:
        yield from kills.cases(options.seed, options.kills)
    if "damage" in options.parts:
        yield from damage.cases(options.seed, options.files)


def main(options: Options) -> int:
    """Run the cases, print each that fails and how many ended how, and return how many failed."""
    start = time.perf_counter()
    outcomes = run(list(cases(options)), options.processes)
    failed = sum(not outcome.ending.good for outcome in outcomes)
    print(table(outcomes))
    print(f"{failed} failed, with seed {options.seed}, in {time.perf_counter() - start:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)) > 0)

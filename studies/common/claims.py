"""What a study found beside what its paper has: the rows of docs/REPRODUCTION.md, and the file that holds them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr

from common.options import Options
from neurodyn.errors import InvalidValueError

FILE = "rows.json"
IDENTITY_LESS = ("out", "quiet", "root", "device")
"""The options that say where a study runs, and not what."""
AR, AR_SCALE, GAIT, PC, BEYOND = "AR", "AR, 2nd paper", "GAIT-prop", "PC", "Beyond the papers"
"""The papers, by the names that `PAPERS` explains."""
PAPERS = {
    AR: "Millidge, Tschantz, Seth, Buckley: Activation Relaxation (2020)",
    AR_SCALE: "Millidge, Tschantz, Seth, Buckley: Investigating the Scalability and Biological Plausibility of the "
    "Activation Relaxation Algorithm (2020)",
    GAIT: "Ahmad, van Gerven, Ambrogioni: GAIT-prop (2020)",
    PC: "Song, Lukasiewicz, Xu, Bogacz: Can the Brain Do Backpropagation? (2020)",
    BEYOND: "What is derived or claimed elsewhere, with the depth scaling of Innocenti, Achour, Buckley: μPC (2025)",
}


@dataclass(frozen=True)
class Row:
    """One claim of a paper, and what came out here.

    Parameters
    ----------
    paper
        One of `PAPERS`.
    where
        The figure, table or section.
    setting
        The paper's.
    claim
        Its number or statement.
    ours
        What was measured here, with the seeds and their spread.
    verdict
        "agrees", "differs: …", "undecided: …" or "no number in the paper", computed from what was measured.
    """

    paper: str
    where: str
    setting: str
    claim: str
    ours: str
    verdict: str

    def __post_init__(self) -> None:
        if self.paper not in PAPERS:
            raise InvalidValueError(f"paper of a row: {', '.join(PAPERS)}, not {self.paper!r}")


def holds(condition: bool | np.bool_ | xr.DataArray, otherwise: str) -> str:
    """Return the verdict on a claim that is true or not, and else what is the case instead."""
    return "agrees" if bool(condition) else f"differs: {otherwise}"


def settings(options: Options) -> dict[str, Any]:
    """Return what decides the results of a study, as JSON holds it."""
    plain = {name: value for name, value in dataclasses.asdict(options).items() if name not in IDENTITY_LESS}
    found: dict[str, Any] = json.loads(json.dumps(plain, default=str))
    return found


def write_rows(options: Options, here: str, rows: Sequence[Row], *, seconds: float | None = None) -> str:
    """Write a study's rows to its folder, and return them as text.

    Parameters
    ----------
    options
        Of the study.
    here
        The setting that ran, in words.
    rows
        What to write.
    seconds
        How long the computation took, if not all of it was done by this process; else the process's CPU time.
    """
    content = {
        "settings": settings(options),
        "here": here,
        "seconds": time.process_time() if seconds is None else seconds,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path = options.out / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    lines = [f"- {row.paper}, {row.where}: {row.claim}. Here: {row.ours}. {row.verdict}." for row in rows]
    return "\n".join(["Beside the papers:", *(fill(line, 120, subsequent_indent="  ") for line in lines)])


def read_rows(path: Path) -> Mapping[str, Any] | None:
    """Return what `write_rows` wrote into a folder; None if nothing, or not all of it, is there."""
    try:
        found = json.loads((path / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # as of what is no JSON, or no text
        return None
    return found if isinstance(found, dict) and {"settings", "here", "seconds", "rows"} <= found.keys() else None

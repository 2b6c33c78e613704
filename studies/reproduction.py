"""Run every study, and write docs/REPRODUCTION.md: what the papers claim, what came out here, and whether it agrees.

The studies run on the 10,000 digits of MNIST in the folder that NEURODYN_DATA names, in the format of MNIST's files, or
without it on the digits that scikit-learn ships, with settings that end within two hours on two cores. A study whose
rows are there already, of the same setting, is not run again; one that fails, or for which no time is left, is listed
as not run, with the command that would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from common.claims import PAPERS, read_rows, settings
from common.options import Options as StudyOptions
from common.options import parse

from neurodyn.checks import needed, positive, whole, writable_file, writable_folder
from neurodyn.errors import InvalidValueError
from neurodyn.progress import Bar

tyro = needed("tyro", extra="studies")

FOLDER = Path(__file__).resolve().parent
VARIABLE = "NEURODYN_DATA"
STUDIES: Mapping[str, str] = {
    "depth": "--epochs 3",
    "convergence": "--seeds 0 1 2",
    "alignment": "--seeds 0 1",
    "graphs": "--sizes 1 2 4 --seeds 0 1",
    "weak_feedback": "",
    "spike_detection": "--samples 10 --steps 16",
    "zero_divergence": "--samples 1000 --epochs 2 --hidden 1 3",
    "simplifications": "--epochs 2 --scan-epochs 1 --seeds 0 1",
    "frozen_pass": "--epochs 1 --seeds 0 1",
    "inference": "--hidden 1 3",
    "gamma_sweep": "--hidden 1 3 --times l 0 1 4",
    "runtime": "--widths 64 512 2048 --seconds 3",
    "scalability": "--pool 2 --epochs 2",
    "gait_training": "--pool 2 --hidden 2 --tower 100 40 10 --epochs 2",
    "accuracy-square": "--pool 4 --epochs 3 --rules backprop-square backprop-regularized gait",
    "accuracy": "--epochs 5 --rules backprop ar ar-simplified il z-il fa-z-il backprop-square backprop-regularized",
}
"""Each study, the quickest first, with the options that make it short; after a dash, what of a study runs apart."""
WITHOUT_DATA = ("weak_feedback", "runtime", "depth")
"""Those that take no data, or the small digits always."""
SMALL: Mapping[str, str] = {
    "gait_training": "",
    "accuracy-square": "--rules backprop-square backprop-regularized gait",
    "accuracy": "--rules backprop ar ar-simplified il z-il fa-z-il",
    "scalability": "",
}
"""The options where those for MNIST are not for the small digits."""


@dataclass(frozen=True)
class Options:
    """What to run.

    Parameters
    ----------
    out
        The folder for the studies' results, which hold what is not run again.
    document
        The table to write.
    hours
        After how long no further study is started, and those that run are stopped.
    jobs
        How many studies run at once, each with one thread.
    only
        Of the studies, these; the others are taken from their results, or listed as not run.
    quiet
        Show no progress.
    """

    out: Path = Path("results/reproduction")
    document: Path = Path("docs/REPRODUCTION.md")
    hours: float = 2.0
    jobs: int = 2
    only: tuple[str, ...] = tuple(STUDIES)
    quiet: bool = False

    def __post_init__(self) -> None:
        writable_folder("out", self.out)
        writable_file("document", self.document)
        positive("hours", self.hours)
        whole("jobs", self.jobs, least=1)
        if unknown := set(self.only) - set(STUDIES):
            raise InvalidValueError(f"only: {', '.join(sorted(unknown))}: the studies are {', '.join(STUDIES)}")


@dataclass(frozen=True)
class Task:
    """A study with its options."""

    name: str
    arguments: tuple[str, ...]
    out: Path

    @property
    def study(self) -> str:
        """The name of its script."""
        return self.name.partition("-")[0]

    @property
    def title(self) -> str:
        """What the study is about."""
        return (import_module(self.study).__doc__ or "").partition("\n")[0]

    @classmethod
    def of(cls, name: str, out: Path) -> Task:
        given = os.environ.get(VARIABLE)
        short = STUDIES[name] if given else SMALL.get(name, STUDIES[name])
        data = ["--dataset", "mnist"] if given and name not in WITHOUT_DATA else []
        return cls(name, (*data, *short.split()), out / name)

    @property
    def options(self) -> StudyOptions:
        paper = import_module(self.study).PAPER
        options: StudyOptions = parse(paper, None, [*self.arguments, "--out", str(self.out)])
        return options

    @property
    def command(self) -> str:
        return " ".join(["python", f"studies/{self.study}.py", *self.arguments])

    def result(self) -> Mapping[str, Any] | None:
        """Return what it has come to with these options, if it has."""
        found = read_rows(self.out)
        return found if found is not None and found["settings"] == settings(self.options) else None

    def figure(self, folder: Path) -> Path | None:
        """Copy the first figure that it has drawn to a folder, if there is one, and return it."""
        drawn = min(self.out.glob("*.png"), key=lambda path: (len(path.name), path.name), default=None)
        if drawn is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(drawn, folder / f"{self.name}.png"))

    def run(self, seconds: float) -> str:
        """Run it for so long at most, its output in a file beside its results, and return what became of it."""
        self.out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        command = [sys.executable, str(FOLDER / f"{self.study}.py"), *self.arguments, "--quiet", "--out", str(self.out)]
        with (self.out / "output.txt").open("w", encoding="utf-8") as output:
            try:
                done = subprocess.run(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "no time is left"
        taken = (time.monotonic() - began) / 60
        return f"{taken:.1f} minutes" if done.returncode == 0 else f"failed, see {self.out / 'output.txt'}"


def main(options: Options) -> None:
    """Run what has no rows yet, and write the document."""
    tasks = [Task.of(name, options.out) for name in STUDIES]
    end = time.monotonic() + 3600 * options.hours

    waiting = [task for task in tasks if task.name in options.only and task.result() is None]
    with (
        ThreadPoolExecutor(options.jobs) as pool,
        Bar(total=len(waiting), wanted=not options.quiet, unit="study", desc="studies") as bar,
    ):

        def work(task: Task) -> None:
            left = end - time.monotonic()
            became = task.run(left) if left > 0 else "no time is left"
            bar.write(f"{task.name}: {became}")
            bar.update()

        list(pool.map(work, waiting))
    options.document.parent.mkdir(parents=True, exist_ok=True)
    partial = options.document.with_suffix(".partial")
    partial.write_text(document(tasks, options.document.with_suffix("")), encoding="utf-8")
    partial.replace(options.document)
    print(f"Written: {options.document}")


def document(tasks: Sequence[Task], folder: Path) -> str:
    """Return the page: a table of each paper, what the studies drew and ran, and what was not run.

    Parameters
    ----------
    tasks
        The studies.
    folder
        Beside the page, for its figures.
    """
    found = {task.name: task.result() for task in tasks}
    head = ["where", "there", "claim", "here", "verdict", "study"]
    data = "the 10,000 digits of MNIST that `NEURODYN_DATA` names" if os.environ.get(VARIABLE) else "the small digits"
    parts = [
        "# Reproduction\n",
        f"What the papers claim, and what came out here on {data}. `make reproduction` writes this page, each row by",
        "its study, whose verdict is computed from what was measured. [Papers](papers.md) tells of the studies.\n",
    ]
    for paper, title in PAPERS.items():
        rows = [
            [row["where"], row["setting"], row["claim"], row["ours"], f"**{kind}**{rest}", f"`{task.study}`"]
            for task in tasks
            if (result := found[task.name]) is not None
            for row in result["rows"]
            if row["paper"] == paper
            for kind, rest in [split(row["verdict"])]
        ]
        if rows:
            parts += [f"## {paper}\n", f"{title}\n", grid(head, rows)]
    figures = [
        f"![{task.title}]({folder.name}/{figure.name})\n\n*`{task.command}`*\n"
        for task in tasks
        if found[task.name] is not None and (figure := task.figure(folder)) is not None
    ]
    if figures:
        parts += ["## What was drawn\n", *figures]
    ran = [
        [f"`{task.command}`", result["here"], f"{result['seconds'] / 60:.1f}"]
        for task in tasks
        if (result := found[task.name]) is not None
    ]
    if ran:
        parts += ["## What ran\n", "Minutes of one core; of `accuracy`, those that its epochs took by the clock.\n"]
        parts += [grid(["command", "setting", "minutes"], ran)]
    missing = [[f"`{task.study}`", f"`{task.command}`"] for task in tasks if found[task.name] is None]
    if missing:
        parts += ["## Not run\n", grid(["study", "the command that would"], missing)]
    return "\n".join(parts).rstrip() + "\n"


def split(verdict: str) -> tuple[str, str]:
    """Return the first word of a verdict, and the rest."""
    kind, colon, rest = verdict.partition(":")
    return kind, colon + rest


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""What an attack is made of: cases, each one expression, evaluated in a process of its own that may hang or die."""

import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from tqdm import tqdm

import neurodyn as nd

NAMES = "tests.attack.names"
"""The module in whose names an expression is evaluated."""
_MEMORY = 24 * 2**30
"""How much address space a process may take, in bytes, so that what would fill the machine fails instead."""
_SIGNATURE = re.compile(
    r"positional argument|required keyword|unexpected keyword|multiple values for|takes no (keyword )?arguments"
    r"|takes (exactly|at (most|least)) \w+ argument|expected at (most|least)"
    r"|Can't instantiate abstract class|expected \d+ arguments?, got"
)
"""How Python words its own errors of a wrong signature."""


class Expected(Enum):
    """What a case must end in."""

    WRONG = "an error of neurodyn, or Python's own of a wrong signature"
    RIGHT = "a right result"
    EITHER = "the one or the other"


class Ending(Enum):
    """What a case ended in."""

    REFUSED = "refused by neurodyn"
    SIGNATURE = "wrong signature"
    RIGHT = "valid and right"
    SILENT = "silently wrong"
    OVERCAUTIOUS = "valid, refused"
    INTERNAL = "internal error"
    HUNG = "hung"
    CRASHED = "crashed"

    @property
    def good(self) -> bool:
        return self in (Ending.REFUSED, Ending.SIGNATURE, Ending.RIGHT)


class Mismatch(Exception):
    """A result that is wrong, of a case that compares its result with a reference."""


@dataclass(frozen=True)
class Case:
    """An expression, and what it must end in.

    Parameters
    ----------
    subject
        The row of the table that it counts in.
    expression
        In the names of `names.py`, without single quotes.
    expected
        What it must end in.
    seconds
        After how long it counts as hung.
    """

    subject: str
    expression: str
    expected: Expected
    seconds: float = 60.0

    @property
    def reproducer(self) -> str:
        return f"{sys.executable} -c {shlex.quote(f'from {NAMES} import *; {self.expression}')}"


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and what it said."""

    case: Case
    ending: Ending
    message: str

    def __str__(self) -> str:
        return f"{self.ending.value}: {self.message}\n    {self.case.reproducer}"


def run(cases: Sequence[Case], workers: int) -> list[Outcome]:
    """Run cases in as many processes, print those that fail as they come, and return how all ended."""
    outcomes: list[Outcome] = []
    remaining, lock = iter(cases), Lock()
    with tqdm(total=len(cases), unit="case", disable=None) as bar, tempfile.TemporaryDirectory() as folder:

        def work(_: int) -> None:
            process = _Process(folder)
            try:
                while True:
                    with lock:
                        case = next(remaining, None)
                    if case is None:
                        return
                    outcome = process.run(case)
                    with lock:
                        outcomes.append(outcome)
                        bar.update()
                        if not outcome.ending.good:
                            bar.write(str(outcome))
            finally:
                process.end()

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
    return outcomes


class _Process:
    """A process that evaluates cases one by one, and is replaced when it hangs or dies."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([NAMES])
        self._start()

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._folder))
        self._process.start()
        theirs.close()
        self._stuck = False

    def end(self) -> None:
        self._connection.close()
        self._process.join(0.0 if self._stuck else 5.0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()

    def run(self, case: Case) -> Outcome:
        self._connection.send(case.expression)
        if self._connection.poll(case.seconds):
            try:
                return judge(case, *self._connection.recv())
            except EOFError:
                self._process.join()
                outcome = Outcome(case, Ending.CRASHED, f"exit code {self._process.exitcode}")
        else:
            self._stuck = True
            outcome = Outcome(case, Ending.HUNG, f"no end after {case.seconds:g} s")
        self.end()
        self._start()
        return outcome


def judge(case: Case, kind: str, message: str) -> Outcome:
    """Say how a case ended, given what its process reported."""
    endings = {
        "value": Ending.SILENT if case.expected is Expected.WRONG else Ending.RIGHT,
        "refused": Ending.OVERCAUTIOUS if case.expected is Expected.RIGHT else Ending.REFUSED,
        "signature": Ending.OVERCAUTIOUS if case.expected is Expected.RIGHT else Ending.SIGNATURE,
        "mismatch": Ending.SILENT,
        "other": Ending.INTERNAL,
    }
    return Outcome(case, endings[kind], message)


def _serve(connection: Connection, folder: str) -> None:
    os.setsid()  # so that what it starts ends with it
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.chdir(tempfile.mkdtemp(dir=folder))
    tempfile.tempdir = os.getcwd()
    names = vars(import_module(NAMES))
    while True:
        try:
            expression = connection.recv()
        except EOFError:
            return
        connection.send(evaluate(expression, dict(names)))
        nd.kernels()  # which one call may have chosen for all that follow


def evaluate(expression: str, names: dict[str, Any]) -> tuple[str, str]:
    """Evaluate an expression, and say what came of it: a kind that `judge` knows, and a message."""
    try:
        value = eval(expression, names)
        return "value", _short(value)
    except Mismatch as error:
        return "mismatch", str(error)
    except nd.NeurodynError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        if getattr(error, "__notes__", ()) or _last(error).filename == names["__file__"]:
            return "refused", f"by the user's own function: {_told(error)}"
        if not isinstance(error, TypeError):
            return "other", _told(error)
        return "signature" if _SIGNATURE.search(str(error)) else "other", _told(error)
    except BaseException as error:
        return "other", _told(error)


def _short(value: object) -> str:
    try:
        return f"returned {value!r}".split("\n")[0][:120]
    except Exception as error:
        return f"returned a {type(value).__name__} whose repr raises {type(error).__name__}"


def _last(error: BaseException) -> traceback.FrameSummary:
    return traceback.extract_tb(error.__traceback__)[-1]


def _told(error: BaseException) -> str:
    last = _last(error)
    where = last.filename.rpartition("site-packages/")[2]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} at {where}:{last.lineno}"


def table(outcomes: Sequence[Outcome]) -> str:
    """Return how many cases of each subject ended how."""
    endings = [each for each in Ending if each.good or any(outcome.ending is each for outcome in outcomes)]
    subjects = list(dict.fromkeys(outcome.case.subject for outcome in outcomes))
    wide = max(map(len, [*subjects, "all"]))
    rows = [f"{'':<{wide}}  {'cases':>7}" + "".join(f"  {each.value:>{max(7, len(each.value))}}" for each in endings)]
    for subject in [*subjects, "all"]:
        own = [outcome.ending for outcome in outcomes if subject in (outcome.case.subject, "all")]
        counts = "".join(f"  {own.count(each):>{max(7, len(each.value))}}" for each in endings)
        rows.append(f"{subject:<{wide}}  {len(own):>7}{counts}")
    return "\n".join(rows)

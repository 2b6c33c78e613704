"""Processes that tests start, and that do not outlive them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PATIENCE = 100.0
"""Seconds for a process; less than pytest gives a test."""


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments on one thread in the repository's root, and end it with all that it started."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@cache
def forks() -> ForkServerContext:
    """Return what starts processes from one that has imported what takes seconds, and has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["distributed", "h5netcdf", "hypothesis", "pytest", "torch._dynamo", "xarray", "zarr", "neurodyn.models"]
    )
    forkserver.ensure_running()
    return context


def call(function: Callable[..., object], *arguments: Any, **environment: str) -> tuple[int | None, str]:
    """Call a function of a module in a process of as many threads; return how that ended, and what was raised."""
    receiving, sending = forks().Pipe(duplex=False)
    process = forks().Process(target=_called, args=(sending, torch.get_num_threads(), environment, function, arguments))
    process.start()
    sending.close()
    process.join(PATIENCE)
    process.kill()
    process.join()
    raised = ""
    with receiving, suppress(EOFError):  # which is all that a process that was killed leaves
        raised = receiving.recv()
    return process.exitcode, raised


def _called(
    sending: Connection, threads: int, environment: dict[str, str], function: Callable[..., object], arguments: Any
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(threads)
    try:
        function(*arguments)
    except BaseException:
        sending.send(traceback.format_exc())
        raise

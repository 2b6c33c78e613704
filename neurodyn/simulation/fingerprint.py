"""Fingerprints: what a run or a sweep depends on, by which another one is told that its store is not its own."""

from __future__ import annotations

import functools
import platform
import re
import types
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.layers.kernels import kernels_in_use
from neurodyn.network.network import Network
from neurodyn.simulation.digest import digest, read_by

UNTIL = "until"
"""What a run may go on with another of, but not be over by."""
_DIGEST = re.compile("[0-9a-f]{32}")


def of_function(what: str, function: Callable[..., Any]) -> dict[str, str]:
    """Return the digests of a function and of each variable that it reads.

    Parameters
    ----------
    what
        What to call the function.
    function
        The function.
    """
    found = {what: digest(function, code=True)}
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    if isinstance(plain, types.FunctionType):
        for name, value in read_by(plain):
            found[f"{name!r}, which {what} reads,"] = digest(value)
    return found


def refuse_other(store: Path, kind: str, theirs: Mapping[str, str | None], own: Mapping[str, str | None]) -> None:
    """Refuse to go on with a store of another run or sweep.

    Parameters
    ----------
    store
        The store.
    kind
        What it is of, in a word.
    theirs, own
        The fingerprints of what wrote it, and of what would go on; None where it does not count.
    """
    for what in dict.fromkeys([*own, *theirs]):
        now, before = own.get(what, ""), theirs.get(what, "")
        if now is not None and before is not None and now != before:
            digests = _DIGEST.fullmatch(now) or _DIGEST.fullmatch(before)
            told = "" if digests else " ({!r}, and now {!r})".format(*first_difference(before, now))
            raise InvalidValueError(
                f"store {store} is of another {kind}: {what} is not what it was there{told}; choose another name, or "
                "remove it"
            )


def first_difference(one: str, other: str) -> tuple[str, str]:
    """Return the first lines in which two texts differ; all of them where one only is longer."""
    pairs = zip(f"{one}\n".splitlines(), f"{other}\n".splitlines(), strict=False)
    return next((pair for pair in pairs if pair[0] != pair[1]), (one, other))


def of_run(
    network: Network | Sequence[Network], data: Mapping[str, Any], settings: Mapping[str, object], like: Tensor
) -> dict[str, str]:
    """Return what a run in time depends on, as text or as digests, by what it is of.

    Parameters
    ----------
    network
        The declaration, or those that are stacked.
    data
        What is given besides, and is known by its digest.
    settings
        What is known by its text.
    like
        A tensor of the run's dtype, on its device.
    """
    device = torch.cuda.get_device_name(like.device) if like.device.type == "cuda" else like.device.type
    networks = [network] if isinstance(network, Network) else list(network)
    stages = [stage for each in networks for stage in each.stages]
    weights = [*(p for stage in stages for layer in stage.layers for p in layer.state_dict().values())]
    return {
        "an equation of the network": "\n".join(each.equations() for each in networks),
        "a weight of the network": digest(weights),
        "the network": digest(networks),
        **{what: digest(value) for what, value in data.items()},
        **{what: str(value) for what, value in settings.items()},
        "dtype": str(like.dtype),
        "the device": device,
        "what computes (kernels, threads, instructions of the processor)": (
            f"{kernels_in_use()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
        ),
        "the version of neurodyn, PyTorch, NumPy or Python": f"{versions_of_all()}, {version('neurodyn')}",
    }


def versions_of_all() -> str:
    """Return the versions on which numbers depend."""
    return f"Python {platform.python_version()}, PyTorch {torch.__version__}, NumPy {np.__version__}"

"""Fingerprints: what a function computes, and all that it reads, as digests that are the same in every process.

Code counts, and neither where it stands nor when it was loaded: the bytecode with its constants, the defaults, what the
function closes over, and the globals that it names. Of installed packages the names count alone, and their versions.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr
from neurodyn.layers.kernels import kernels_in_use
from neurodyn.network.network import Network

UNTIL = "until"
"""What a run may go on with another of, but not be over by."""
_DIGEST = re.compile("[0-9a-f]{32}")
_NO_PART_OF_A_CLASS = {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__slotnames__"}
_PACKAGES = {"site-packages", "dist-packages"}
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


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
        for name, value in _read_by(plain):
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


def digest(value: Any, *, code: bool = False) -> str:
    """Return the digest of a value; of a function, of its code alone if `code`."""
    walk = _Walk()
    if code and isinstance(value, types.FunctionType):
        walk.code(value)
    else:
        walk.add(value)
    return walk.sha.hexdigest()[:32]


def _read_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Iterate over the variables outside of a function that it reads, by their names."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(each) for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*inner)


def _installed(name: str | None) -> bool:
    """Tell whether a module is part of Python, or of an installed package, this one included."""
    if name is None or name == "__main__":
        return False
    if name.partition(".")[0] in ("neurodyn", "builtins"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names
    path = Path(file)  # one environment may lie on top of others
    return bool(_PACKAGES.intersection(path.parts)) or any(path.is_relative_to(folder) for folder in _INSTALLED)


def _without_caches(value: object, state: dict[Any, Any]) -> dict[Any, Any]:
    """Return what an object is made of, without what it has worked out of that and keeps."""
    return {
        name: each
        for name, each in state.items()
        if not (isinstance(name, str) and isinstance(getattr(type(value), name, None), functools.cached_property))
    }


class _Walk:
    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}

    def _say(self, *parts: object) -> None:
        self.sha.update("\0".join(map(str, (*parts, ""))).encode(errors="surrogateescape"))

    def add(self, value: Any) -> None:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
            self._say(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self._say("again", self._seen[id(value)][0])
            return
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, Tensor):
            self._array("tensor", value.detach().cpu())
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._say("array", value.dtype, value.shape)
            self.sha.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, (xr.DataArray, xr.Dataset)):
            self.add(value.to_dict(data="array"))
        elif isinstance(value, Mapping):
            self._say(type(value).__name__, len(value))
            for key, each in value.items():
                self.add(key)
                self.add(each)
        elif isinstance(value, (set, frozenset)):
            self._say(type(value).__name__, *sorted(digest(each) for each in value))
        elif isinstance(value, (list, tuple)):
            self._say(type(value).__name__, len(value))
            for each in value:
                self.add(each)
        else:
            self._object(value)

    def _array(self, kind: str, tensor: Tensor) -> None:
        self._say(kind, tensor.dtype, tuple(tensor.shape))
        if tensor.layout == torch.strided and not tensor.is_meta:
            self.sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

    def _object(self, value: Any) -> None:
        if isinstance(value, types.ModuleType):
            self._say("module", value.__name__, getattr(value, "__version__", ""))
        elif isinstance(value, types.FunctionType):
            if _installed(value.__module__):
                self._say("function", value.__module__, value.__qualname__)
            else:
                self.code(value)
                for name, each in _read_by(value):
                    self._say(name)
                    self.add(each)
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, type):
            self._say("class", value.__qualname__)
            if not _installed(value.__module__):
                for name, each in sorted(vars(value).items()):
                    if name not in _NO_PART_OF_A_CLASS:
                        self._say(name)
                        self.add(each)
        elif isinstance(value, torch.Generator):
            self.add(value.get_state())
        else:
            self._reduced(value)

    def _reduced(self, value: Any) -> None:
        """Add what an object would be copied from."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # what cannot be copied, such as an open file, counts by its class
            self._say("object", type(value).__qualname__)
            return
        if isinstance(parts, str):
            self._say("object", type(value).__qualname__, parts)
            return
        self.add(type(value))
        for part in parts[1:3]:
            self.add(_without_caches(value, part) if isinstance(part, dict) else part)
        for items in parts[3:5]:
            self.add(None if items is None else list(items))

    def code(self, function: types.FunctionType) -> None:
        """Add what a function does: its code and defaults."""
        self._code(function.__code__)
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)

    def _code(self, code: types.CodeType) -> None:
        self._say("code", code.co_name, code.co_argcount, code.co_names, code.co_varnames, code.co_freevars)
        self.sha.update(code.co_code)
        for constant in code.co_consts:
            self.add(constant)

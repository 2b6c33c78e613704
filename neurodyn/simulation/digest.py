"""Digests: what a value is, and what a function computes, with all that it reads, the same in every process.

Code counts, and neither where it stands nor when it was loaded: the bytecode with its constants, the defaults, what the
function closes over, the globals that it names, and what it names of modules. Of installed packages the names count
alone, and their versions.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import types
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.labelled import xr

_NO_PART_OF_A_CLASS = {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__slotnames__"}
_PACKAGES = {"site-packages", "dist-packages"}
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_MAPPINGS = (dict, OrderedDict, types.MappingProxyType)
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_WEAK = (weakref.ref, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


def digest(value: Any, *, code: bool = False) -> str:
    """Return the digest of a value; of a function, of its code alone if `code`."""
    walk = _Walk()
    if code and isinstance(value, types.FunctionType):
        walk.code(value)
    else:
        walk.add(value)
    return walk.sha.hexdigest()[:32]


def read_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Iterate over the variables outside of a function that it reads, by their names."""
    names = _names(function.__code__)
    variables = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not set yet
            variables[name] = cell.cell_contents
    variables |= {module.__name__: module for module in _imported(function.__code__, function.__globals__)}
    for name, value in variables.items():
        yield from _of_modules(name, value, names, set())


def _of_modules(name: str, value: Any, names: Collection[str], seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Iterate over a variable; where it is a module that is not installed, over what is named of that."""
    if not isinstance(value, types.ModuleType) or _installed(value.__name__):
        yield name, value
    elif id(value) not in seen:
        seen.add(id(value))
        for own in sorted(vars(value).keys() & names):
            yield from _of_modules(f"{name}.{own}", vars(value)[own], names, seen)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Iterate over the code of a function, and of those within it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _names(code: types.CodeType) -> set[str]:
    return {name for each in _codes(code) for name in each.co_names}


def _imported(code: types.CodeType, variables: Mapping[str, Any]) -> Iterator[types.ModuleType]:
    """Iterate over the modules that a function imports as it runs, but for installed ones."""
    for each in _codes(code):
        before: list[Any] = [0, None]  # how many packages up, and what is taken of the module
        for instruction in dis.get_instructions(each):
            if instruction.opname == "IMPORT_NAME":
                level, taken = before
                with suppress(Exception):  # which the function meets itself
                    name = importlib.util.resolve_name("." * level + instruction.argval, variables.get("__package__"))
                    if not _installed(name):
                        module = importlib.import_module(name)
                        for part in set(taken or ()) - vars(module).keys():
                            importlib.import_module(f"{name}.{part}")
                        yield module
            before = [before[1], instruction.argval]


def _installed(name: str | None) -> bool:
    """Tell whether a module is part of Python, or of an installed package, this one included."""
    if name is None or name == "__main__":
        return False
    package = name.partition(".")[0]
    if package in ("neurodyn", "builtins"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(package)
            file = spec.origin if spec is not None and spec.has_location else None
    if file is None:
        return package in sys.stdlib_module_names
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
        if type(value) in _PLAIN or isinstance(value, np.generic):
            self._say(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self._say("again", self._seen[id(value)][0])
            return
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, Tensor):
            self._tensor(value.detach().cpu())
        elif type(value) is np.ndarray and value.dtype != object:
            self._say("array", value.dtype, value.shape)
            self.sha.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, (xr.DataArray, xr.Dataset)):
            self.add(value.to_dict(data="array"))
        elif type(value) in _MAPPINGS:
            self._say(type(value).__name__, len(value))
            for key, each in value.items():
                self.add(key)
                self.add(each)
        elif type(value) in (set, frozenset):
            self._say(type(value).__name__, *sorted(digest(each) for each in value))
        elif type(value) in (list, tuple):
            self._say(type(value).__name__, len(value))
            for each in value:
                self.add(each)
        else:
            self._object(value)

    def _tensor(self, tensor: Tensor) -> None:
        self._say("tensor", tensor.layout, tensor.dtype, tuple(tensor.shape))
        if tensor.layout == torch.strided:
            if not tensor.is_meta:
                plain = tensor.resolve_conj().resolve_neg().contiguous()
                self.sha.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif tensor.layout in _SPARSE:
            sparse = tensor.to_sparse(layout=torch.sparse_coo).coalesce()
            self._tensor(sparse.indices())
            self._tensor(sparse.values())

    def _object(self, value: Any) -> None:
        if isinstance(value, types.ModuleType):
            self._say("module", value.__name__, getattr(value, "__version__", ""))
        elif isinstance(value, types.FunctionType):
            if _installed(value.__module__):
                self._say("function", value.__module__, value.__qualname__)
            else:
                self.code(value)
                for name, each in read_by(value):
                    self._say(name)
                    self.add(each)
                self.add(vars(value))
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, property):
            self.add([value.fget, value.fset, value.fdel])
        elif isinstance(value, (staticmethod, classmethod)):
            self._say(type(value).__name__)
            self.add(value.__func__)
        elif isinstance(value, _WEAK):  # it keeps what is someone else's
            self._say(type(value).__name__)
        elif isinstance(value, torch.Generator):
            self.add(value.get_state())
        else:
            self._reduced(value)

    def _class(self, value: type) -> None:
        self._say("class", value.__qualname__)
        if not _installed(value.__module__):
            self.add(type(value))
            self.add(value.__bases__)
            for name, each in sorted(vars(value).items()):
                if name not in _NO_PART_OF_A_CLASS:
                    self._say(name)
                    self.add(each)

    def _reduced(self, value: Any) -> None:
        """Add what an object would be copied from."""
        parts = _copied_from(value)
        if parts is None or isinstance(parts, str):  # as of an open file, or of a function with a cache
            self._say("object", type(value).__qualname__, parts)
            self.add(type(value))
            self.add(_without_caches(value, getattr(value, "__dict__", {})))
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


def _copied_from(value: Any) -> Any:
    """Return how an object would be copied: what it is made of, or its name; None where it cannot be."""
    known = copyreg.dispatch_table.get(type(value))
    try:
        return value.__reduce_ex__(4) if known is None else known(value)
    except Exception:
        return None

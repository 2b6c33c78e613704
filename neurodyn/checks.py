"""Checks of settings, with messages that say what would be right; each returns the setting as Python's own."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn.errors import InvalidTypeError, InvalidValueError, MissingExtraError, NeurodynError

Item = TypeVar("Item")


def number(what: str, value: float) -> float:
    """Return a setting as Python's number, and refuse what is no finite one.

    NumPy's numbers become Python's, so that one of single precision does not make all that follows single.
    """
    plain = _number(what, value)
    if not math.isfinite(plain):
        raise InvalidValueError(f"{what} must be finite, not {value!r}")
    return plain


def positive(what: str, value: float) -> float:
    """Return a setting as Python's number, and refuse what is no positive finite one."""
    plain = _number(what, value)
    if not (math.isfinite(plain) and plain > 0):
        raise InvalidValueError(f"{what} must be positive and finite, not {value!r}")
    return plain


def not_negative(what: str, value: float) -> float:
    """Return a setting as Python's number, and refuse one that is negative or not finite."""
    plain = number(what, value)
    if plain < 0:
        raise InvalidValueError(f"{what} must be ≥ 0, not {value!r}")
    return plain


def _number(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
        hint = "; pass the number in it, .item()" if scalar and not isinstance(value, np.generic) else ""
        raise InvalidTypeError(f"{what} must be a number, not {type(value).__name__}{hint}")
    try:
        return int(value) if isinstance(value, Integral) and abs(value) < 2**63 else float(value)
    except OverflowError:
        return math.inf


def whole(what: str, value: int, *, least: int) -> int:
    """Return a setting as Python's integer, and refuse one that is no integer, or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidTypeError(f"{what} must be an integer ≥ {least}, not {value!r}")
    if value < least:
        raise InvalidValueError(f"{what} must be an integer ≥ {least}, not {value!r}")
    if value >= 2**63:
        raise InvalidValueError(f"{what} must be less than 2**63, not {value!r}")
    return int(value)


def flag(what: str, value: bool) -> bool:
    """Return a setting as Python's boolean, and refuse what is none."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidTypeError(f"{what} must be True or False, not {value!r}")
    return bool(value)


def one_of(what: str, value: str, options: Collection[str]) -> None:
    """Refuse a setting that is none of some words."""
    if not isinstance(value, str) or value not in options:
        *first, last = map(repr, options)
        raise InvalidValueError(f"{what} is {', '.join(first)} or {last}, not {value!r}")


def listed(what: str, values: Iterable[Item]) -> tuple[Item, ...]:
    """Return what a list holds, and refuse what is none."""
    if isinstance(values, (Mapping, torch.Tensor)) or getattr(values, "shape", None) == (0,):
        raise InvalidTypeError(f"{what} must be a list, not a {type(values).__name__}")
    if not isinstance(values, (str, bytes)):
        try:
            return tuple(values)
        except TypeError:  # an array without axes is an Iterable, too
            pass
    raise InvalidTypeError(f"{what} must be a list, not {values!r}")


def file_path(what: str, path: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder, and refuse what is none."""
    if isinstance(path, str) and "://" in path:
        raise InvalidValueError(f"{what} must be a path of a file system, not a URL such as {path!r}")
    if isinstance(path, (str, os.PathLike)) and isinstance(os.fspath(path), str):
        return Path(path)
    raise InvalidTypeError(f"{what} must be a path, such as 'name', not {path!r}")


def writable_folder(what: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before what is to be written there takes its time."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise InvalidValueError(f"{what}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidValueError(f"{what}: {there} cannot be written to; name another folder")


def writable_file(what: str, path: Path) -> None:
    """Refuse a file that cannot be written, likewise."""
    writable_folder(what, path.parent)
    if path.is_dir():
        raise InvalidValueError(f"{what}: {path} is a folder; name a file in it")


@contextmanager
def users(what: str) -> Iterator[None]:
    """Say of an error that a user's function raises whose it is, by a note on it."""
    try:
        yield
    except NeurodynError:
        raise
    except Exception as error:
        error.add_note(f"raised by the function given as {what}")
        raise


def tensor_hint(given: object) -> str:
    """Say how a list or an array becomes the tensor that is wanted in its place; nothing of what is neither."""
    made = isinstance(given, (list, tuple)) or hasattr(given, "__array__")
    return f"; torch.as_tensor(…, dtype={torch.get_default_dtype()}) makes one of it" if made else ""


def check_dense(what: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that is sparse, or of another layout that most layers cannot read, or has no data."""
    if tensor.is_meta:
        raise InvalidTypeError(f"{what} must be a tensor with data, not one on the meta device")
    if tensor.layout != torch.strided:
        raise InvalidTypeError(f"{what} must be a dense tensor, not one of layout {tensor.layout}; call .to_dense()")
    if tensor.is_nested:
        raise InvalidTypeError(f"{what} must be a dense tensor, not a nested one; pad it with .to_padded_tensor(0.0)")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:  # it is more than the numbers in it
        raise InvalidTypeError(f"{what} must be a plain tensor, not a {type(tensor).__name__}; make one of it")


def ordinary(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is a dense one of `torch.Tensor` itself, of which a graph can be made."""
    dense = type(tensor) is torch.Tensor and tensor.layout == torch.strided and not tensor.is_nested
    return dense and not tensor.is_inference()


def made_ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that `check_dense` lets pass as an ordinary one without a graph; of its memory, where it can."""
    tensor = tensor.detach().as_subclass(torch.Tensor)
    return tensor.clone() if tensor.is_inference() else tensor


def native(what: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array in the machine's byte order, and refuse one of numbers that PyTorch lacks."""
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise InvalidTypeError(f"{what}: an array of {array.dtype}; convert it with .astype('float64')")
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def usable_device(what: str, device: torch.device | str | int) -> torch.device:
    """Return a device, and refuse one that is unknown, or not there."""
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(f"{what}: {device!r} is no device; 'cpu' and 'cuda' are") from error
    if known.type == "meta":
        raise InvalidValueError(f"{what}: tensors on 'meta' hold no numbers; take 'cpu'")
    try:
        torch.empty(0, device=known)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # PyTorch built without CUDA raises an AssertionError.
        raise InvalidValueError(f"{what}: there is no {known} that PyTorch can use here; take 'cpu'") from error
    return known


def needed(module: str, *, extra: str) -> Any:
    """Import a module that comes with one of neurodyn's extras.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"this needs {package}, which is not installed: pip install 'neurodyn[{extra}]'"
        ) from error

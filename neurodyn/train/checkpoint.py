"""Checkpoints of training runs: one file, written whole or not at all, checked when it is read, and never a program.

The file begins with a line that names the format and one with the SHA-256 of the rest, which `torch.load` reads with
`weights_only=True`: tensors, numbers and text, nothing that could run.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import FileError, InvalidTypeError, InvalidValueError, NotAFolderError
from neurodyn.simulation.partial import Lock, replacing, system_errors

_MAGIC = b"neurodyn checkpoint 2\n"
_FILE = "checkpoint.pt"
_CONTENT: dict[str, type | tuple[type, ...]] = {
    "description": dict,
    "start": Tensor,
    "epoch": int,
    "batch": int,
    "stopped": bool,
    "tensors": dict,
    "optimizer": dict,
    "scheduler": (dict, type(None)),
    "random": list,
    "history": dict,
}
"""What a state holds."""


class Checkpoint:
    """The checkpoint in a folder.

    Parameters
    ----------
    folder
        The folder; it is made when the first checkpoint is written.

    Raises
    ------
    NotADirectoryError
        If it is a file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise NotAFolderError(f"checkpoint: {self.folder} is a file; give a folder")
        self.path = self.folder / _FILE

    def exists(self) -> bool:
        """Tell whether there is one."""
        return self.path.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs from the folder.

        Raises
        ------
        OSError
            If one is there already, or the folder cannot be written to.
        """
        file = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(file)
        except BlockingIOError as error:
            raise FileError(
                f"checkpoint: another run trains with {self.folder} (process {file.read_text()}); wait for its end, or "
                "give another folder"
            ) from error
        except OSError as error:
            raise FileError(f"checkpoint: cannot write to {self.folder}: {error}") from error
        try:
            yield
        finally:
            lock.release()

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state in place of the one before, in one stroke: whoever reads finds either the one or the other.

        Raises
        ------
        OSError
            If it cannot be written; the one before stays.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        with replacing(self.path) as partial, partial.open("wb") as file, buffer.getbuffer() as content:
            file.write(_MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)

    def load(self) -> dict[str, Any]:
        """Return the state.

        Raises
        ------
        ValueError
            If the file is no checkpoint, damaged, or holds anything but data.
        """
        with system_errors(f"could not read {self.path}"):
            content = self.path.read_bytes()
        if not content.startswith(_MAGIC):
            raise InvalidValueError(
                f"{self.path} is no checkpoint that this version of neurodyn wrote; it was left as it is: give another "
                "folder as checkpoint="
            )
        digest, _, payload = content[len(_MAGIC) :].partition(b"\n")
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise InvalidValueError(
                f"{self.path} is damaged: its checksum does not fit its content; it was left as it is: put a copy in "
                "its place, or remove it to begin anew"
            )
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except Exception as error:  # of a file that is not what it says, reading may raise anything
            raise InvalidValueError(
                f"{self.path} holds more than tensors, numbers and text, and was not loaded; give another folder as "
                "checkpoint="
            ) from error
        if not (isinstance(state, dict) and all(isinstance(state.get(k), kind) for k, kind in _CONTENT.items())):
            raise self.foreign("it lacks parts, or they are of other types")
        return state

    def foreign(self, why: object) -> InvalidValueError:
        """Return the error of a file that is no state of a run of `fit`."""
        return InvalidValueError(
            f"{self.path} does not hold the state of a run of neurodyn ({why}); it was left as it is: give another "
            "folder as checkpoint="
        )


def storable(what: str, state: Any) -> Any:
    """Return a state in containers of Python's, with NumPy's numbers as Python's.

    Parameters
    ----------
    what
        Whose state, for messages.
    state
        Tensors, numbers, text, and containers of them.

    Raises
    ------
    TypeError
        If it holds anything else.
    """
    if isinstance(state, Mapping):
        return {storable(what, key): storable(what, value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(storable(what, value) for value in state)
    if isinstance(state, np.generic):
        return state.item()
    if state is None or isinstance(state, (Tensor, bool, int, float, str)):
        return state
    raise InvalidTypeError(
        f"checkpoint: the state of {what} holds a {type(state).__name__}, and only tensors, numbers and text are "
        "stored; train without checkpoint=, or with another"
    )


def check_same_run(folder: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a checkpoint of another run.

    Parameters
    ----------
    folder
        Where the checkpoint is.
    saved, now
        What describes the run of the checkpoint, and the one that is to go on: text and numbers by name.

    Raises
    ------
    ValueError
        If they differ; the message names the first difference.
    """
    for name in [*saved, *now]:
        before, after = saved.get(name), now.get(name)
        if before == after:
            continue
        if isinstance(before, str) and isinstance(after, str):
            pairs = zip(f"{before}\n".splitlines(), f"{after}\n".splitlines(), strict=False)
            before, after = next(((a, b) for a, b in pairs if a != b), (before, after))
        raise InvalidValueError(
            f"the checkpoint in {folder} is of another run: its {name} was {before!r}, and now is {after!r}; it was "
            "left as it is: give another folder as checkpoint=, or the same arguments to go on with it"
        )

"""Checkpoints of training runs: what they hold, who may write them, and which run they are of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from neurodyn.errors import FileError, InvalidTypeError, InvalidValueError, NotAFolderError
from neurodyn.simulation.fingerprint import first_difference
from neurodyn.simulation.partial import Lock
from neurodyn.simulation.states import StateFile

_FILE = "checkpoint.pt"
_CONTENT: dict[str, type | tuple[type, ...]] = {
    "description": dict,
    "start": Tensor,
    "epoch": int,
    "batch": int,
    "stopped": bool,
    "tensors": dict,
    "fixed": list,
    "training": list,
    "optimizer": dict,
    "scheduler": (dict, type(None)),
    "random": list,
    "history": dict,
}
"""What a state holds."""


class Checkpoint(StateFile):
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
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise NotAFolderError(f"checkpoint: {folder} is a file; give a folder")
        super().__init__(folder / _FILE, "checkpoint", 3, _CONTENT, "give another folder as checkpoint=")

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.path.parent

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
    """
    for name in [*saved, *now]:
        before, after = saved.get(name), now.get(name)
        if before == after:
            continue
        if isinstance(before, str) and isinstance(after, str):
            before, after = first_difference(before, after)
        raise InvalidValueError(
            f"the checkpoint in {folder} is of another run: its {name} was {before!r}, and now is {after!r}; it was "
            "left as it is: give another folder as checkpoint=, or the same arguments to go on with it"
        )

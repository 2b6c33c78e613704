"""Files of states from which something goes on: written whole or not at all, checked as they are read, no programs.

Such a file begins with a line that names the format and one with the SHA-256 of the rest, which `torch.load` reads with
`weights_only=True`: tensors, numbers and text, nothing that could run.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurodyn.errors import InvalidValueError
from neurodyn.simulation.partial import replacing, system_errors


@dataclass(frozen=True)
class StateFile:
    """A file of a state.

    Parameters
    ----------
    path
        Where.
    kind
        What it holds the state of, in a word, such as "checkpoint".
    version
        That of the format.
    content
        The types of the parts of a state, by name.
    remedy
        What is to be done where it cannot be gone on from, for messages.
    """

    path: Path
    kind: str
    version: int
    content: Mapping[str, type | tuple[type, ...]]
    remedy: str

    @property
    def _first_line(self) -> bytes:
        return f"neurodyn {self.kind} {self.version}\n".encode()

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
            file.write(self._first_line + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)

    def load(self) -> dict[str, Any]:
        """Return the state.

        Raises
        ------
        ValueError
            If the file is of another kind, damaged, or holds anything but data.
        """
        with system_errors(f"could not read {self.path}"):
            content = self.path.read_bytes()
        if not content.startswith(self._first_line):
            raise InvalidValueError(
                f"{self.path} is no {self.kind} that this version of neurodyn wrote; it was left as it is: "
                f"{self.remedy}"
            )
        digest, _, payload = content[len(self._first_line) :].partition(b"\n")
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise InvalidValueError(
                f"{self.path} is damaged: its checksum does not fit its content; it was left as it is: put a copy in "
                "its place, or remove it to begin anew"
            )
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except Exception as error:  # of a file that is not what it says, reading may raise anything
            raise InvalidValueError(
                f"{self.path} holds more than tensors, numbers and text, and was not loaded; {self.remedy}"
            ) from error
        if not (isinstance(state, dict) and all(isinstance(state.get(k), kind) for k, kind in self.content.items())):
            raise self.foreign("it lacks parts, or they are of other types")
        return state

    def foreign(self, why: object) -> InvalidValueError:
        """Return the error of a file that holds the state of something else."""
        return InvalidValueError(
            f"{self.path} does not hold the state of a run of neurodyn ({why}); it was left as it is: {self.remedy}"
        )

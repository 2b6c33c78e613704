"""The errors that neurodyn raises: one family, each also what Python would call it."""

from __future__ import annotations


class NeurodynError(Exception):
    """An error that neurodyn found: the message names what is wrong, and what would be right."""


class InvalidValueError(NeurodynError, ValueError):
    """A value that does not fit."""


class InvalidTypeError(NeurodynError, TypeError):
    """A value of a type that does not fit."""


class MissingFileError(NeurodynError, FileNotFoundError):
    """A file or folder that is not there."""


class ExistingFileError(NeurodynError, FileExistsError):
    """A file or folder that is there already, and would be lost."""


class NotAFolderError(NeurodynError, NotADirectoryError):
    """A file where a folder belongs."""


class FileError(NeurodynError, OSError):
    """A file that cannot be read, written or fetched."""


class InsufficientMemoryError(NeurodynError, MemoryError):
    """What memory cannot hold."""


class DivergenceError(InvalidValueError):
    """A run became non-finite, or its step had to shrink to nothing.

    Parameters
    ----------
    message
        What happened, and what may help.
    time
        When.
    population
        The first population, in the order of the declaration, that is not finite then.
    """

    def __init__(self, message: str, time: float, population: str) -> None:
        super().__init__(message)
        self.time = time
        self.population = population

    def __reduce__(self) -> tuple[type[DivergenceError], tuple[str, float, str]]:
        # Processes hand exceptions to each other; by default, with the message alone.
        return type(self), (str(self), self.time, self.population)

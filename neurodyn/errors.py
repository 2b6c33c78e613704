"""The errors that neurodyn raises: one family, each also what Python would call it.

What *refuses* something raises `InvalidValueError`, or `InvalidTypeError` where it is of another type, with a message
that names it and says what would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


class NeurodynError(Exception):
    """An error that neurodyn found: the message names what is wrong, and what would be right.

    Examples
    --------
    >>> import neurodyn as nd
    >>> try:
    ...     nd.Euler(-1.0)
    ... except nd.NeurodynError as error:
    ...     print(error)
    step of Euler must be positive and finite, not -1.0
    """


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


class MissingExtraError(NeurodynError, ImportError):
    """A package that is installed with one of neurodyn's extras, and is not there."""


class FileError(NeurodynError, OSError):
    """A file that cannot be read, written or fetched."""


class InsufficientMemoryError(MemoryError, NeurodynError):  # in this order, MemoryError's `__new__` makes it
    """What memory cannot hold."""


class LostWorkerError(NeurodynError, RuntimeError):
    """A process of an executor that has been killed, or cannot run what it is given."""


class DivergenceError(InvalidValueError):
    """A run became non-finite, or its step had to shrink to nothing.

    Parameters
    ----------
    message
        What happened, and what may help.
    time
        When, in units of time; None where it was no relaxation that diverged.
    population
        The first population, in the order of the declaration, that is not finite then; None likewise.

    Examples
    --------
    >>> import neurodyn as nd
    >>> unstable = nd.Network("unstable", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=1000.0)])
    >>> try:
    ...     nd.simulate(unstable, None, duration=1000.0, solver=nd.Euler(0.5))
    ... except nd.DivergenceError as error:
    ...     print(error.population)
    x
    """

    def __init__(self, message: str, time: float | None, population: str | None) -> None:
        super().__init__(message)
        self.time = time
        self.population = population

    def __reduce__(self) -> tuple[Any, ...]:
        # Processes hand exceptions to each other; by default, with the message alone.
        return type(self), (str(self), self.time, self.population)


class DivergedError(DivergenceError, ArithmeticError):
    """A training run became non-finite.

    Parameters
    ----------
    message
        What happened, where, and where the last good state is.
    epoch, batch
        Where, counted from 1.
    history
        The history of the epochs before.
    time, population
        As of `DivergenceError`, of the relaxation within the batch, where it was that which diverged.
    """

    def __init__(
        self,
        message: str,
        epoch: int,
        batch: int,
        history: xr.Dataset,
        time: float | None = None,
        population: str | None = None,
    ) -> None:
        super().__init__(message, time, population)
        self.epoch, self.batch, self.history = epoch, batch, history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.epoch, self.batch, self.history, self.time, self.population)

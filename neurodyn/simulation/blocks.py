"""What one task of a sweep does: the points of a block, one by one or at once, side by side, and into the store."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import users
from neurodyn.errors import InvalidTypeError, InvalidValueError, NeurodynError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.randomness import process_state, refusing_draws, seeded
from neurodyn.simulation.grid import Block, Grid, Where, seed_by, text
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.side_by_side import POINTS, Attributes, as_dataset, refuse_other, side_by_side

Point: TypeAlias = "Callable[..., xr.Dataset | Mapping[str, Any] | Network]"
"""A function of the parameters by name, that returns a dataset, numbers and arrays by name, or a declaration."""
Seed = Callable[[int], None]
"""What seeds the generators of random numbers."""
AtOnce: TypeAlias = "Callable[[list[Network]], xr.Dataset] | bool | None"
"""A function that runs networks together; True if that of a point takes many of them at once."""

_NETWORK = "network"
"""The dimension of what runs at once."""


@dataclass(frozen=True)
class Part:
    """What came of a block.

    Parameters
    ----------
    data
        The results side by side; None if every point failed.
    attributes
        What the result of each point says of itself, None where it failed.
    errors
        What went wrong at each, as text; None where errors are not recorded.
    """

    data: xr.Dataset | None
    attributes: Sequence[Attributes]
    errors: Sequence[str] | None


class _Form:
    """What the results of points have to be like: as is known, or as the first one."""

    def __init__(self, known: xr.Dataset | None) -> None:
        self._known, self._where = known, "at the first point of the sweep"

    def refuse_other(self, result: xr.Dataset, where: str) -> bool:
        """Refuse a result that is not, and tell whether it is the first one."""
        if self._known is None:
            self._known, self._where = result, f"at {where}"
            return True
        refuse_other(self._known, result, f"at {where}", self._where)
        return False


class Failure(Exception):
    """What ended a block: an error at one of its points, or in a run of several."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(where, error)
        self.where, self.error = where, error

    def raised(self, besides: str = "") -> Exception:
        """Return the error with a note that says where it was, and what is to be said besides."""
        self.error.add_note(f"sweep: at {self.where}{besides}")
        return self.error


@dataclass(frozen=True)
class Work:
    """What is to be done at the points of a grid: the functions of `sweep`, and whether errors are recorded."""

    point: Point
    at_once: AtOnce
    grid: Grid
    records: bool

    def do(self, block: Block, *, shared: bool, form: xr.Dataset | None = None) -> Part | Failure:
        """Return what comes of a block.

        Parameters
        ----------
        shared
            Whether other threads of this process run points, too.
        form
            What the result of a point has to be like, where that is known.
        """
        run = self._one_by_one if self.at_once is None else self._together
        try:
            if not shared:
                with seeded(0):
                    return run(block, _Form(form), seed_by)
            with refusing_drawn():
                return run(block, _Form(form), lambda _: None)
        except Failure as failure:
            return _portable(failure)
        except NeurodynError as error:
            return Failure(text(next(self.grid.points(block))), error)

    def _one_by_one(self, block: Block, form: _Form, seed: Seed) -> Part:
        pieces: list[tuple[list[int], xr.Dataset]] = []
        errors = [""] * block.points
        for place, (where, own) in enumerate(zip(self.grid.points(block), self.grid.seeds(block), strict=True)):
            try:
                seed(own)
                with users("point"):
                    result = as_dataset(self.point(**where), list(where))
                if form.refuse_other(result, text(where)):
                    refuse_too_large(
                        f"a block of {block.points:,} points", 2 * block.points * result.nbytes, "take a smaller block="
                    )
            except Exception as error:
                if not self.records:
                    raise Failure(text(where), error) from error
                errors[place] = _told(error)
            else:
                pieces.append(([place], result))
        return self._part(pieces, errors)

    def _together(self, block: Block, form: _Form, seed: Seed) -> Part:
        points = list(self.grid.points(block))
        errors = [""] * block.points
        run = self._of_columns(block) if self.at_once is True else self._of_networks(block, points, errors, seed)
        places = np.array([place for place, error in enumerate(errors) if not error], int)
        pieces: list[tuple[list[int], xr.Dataset]] = []
        for own, result in self._bisected(run, places, points, errors):
            try:
                piece = self._apart(result, len(own))
                form.refuse_other(piece.isel({POINTS: 0}, drop=True), text(points[own[0]]))
            except NeurodynError as error:
                raise Failure(_extent(points, own), error) from error
            pieces.append((own.tolist(), piece))
        return self._part(pieces, errors)

    def _part(self, pieces: Sequence[tuple[list[int], xr.Dataset]], errors: list[str]) -> Part:
        """Return what came of a block, by the places of its points."""
        attributes: list[Attributes] = [None] * len(errors)
        for own, piece in pieces:
            for place in own:
                attributes[place] = piece.attrs
        told = errors if self.records else None
        there = np.array([not error for error in errors]) if self.records else None
        return Part(side_by_side([piece for _, piece in pieces], there) if pieces else None, attributes, told)

    def _of_columns(self, block: Block) -> Callable[[NDArray[np.intp]], object]:
        columns = self.grid.columns(block)

        def run(places: NDArray[np.intp]) -> object:
            own = {
                name: values[places] if isinstance(values, Tensor) else [values[place] for place in places]
                for name, values in columns.items()
            }
            with users("point"), refusing_drawn():
                result = self.point(**own)
            if isinstance(result, Mapping) and not isinstance(result, xr.Dataset):
                return {name: _along_points(value) for name, value in result.items()}
            return result

        return run

    def _of_networks(
        self, block: Block, points: Sequence[Where], errors: list[str], seed: Seed
    ) -> Callable[[NDArray[np.intp]], object]:
        networks = self._declared(block, points, errors, seed)

        def run(places: NDArray[np.intp]) -> object:
            seed(0)  # what is drawn for all is the same in each block
            assert callable(self.at_once)
            with users("at_once"):
                return self.at_once([networks[place] for place in places.tolist()])

        return run

    def _declared(self, block: Block, points: Sequence[Where], errors: list[str], seed: Seed) -> dict[int, Network]:
        """Return the networks of a block's points by their places.

        To seed the generators takes as long as a small declaration, and few draw: one that does is made again.
        """
        before = process_state(), random.getstate()
        with suppress(Failure):
            networks = self._declared_by(points, errors, repeat(None))
            if (process_state(), random.getstate()) == before:
                return networks
        errors[:] = [""] * len(errors)
        seeds = repeat(None) if seed is not seed_by else self.grid.seeds(block)
        return self._declared_by(points, errors, seeds)

    def _declared_by(
        self, points: Sequence[Where], errors: list[str], seeds: Iterable[int | None]
    ) -> dict[int, Network]:
        networks: dict[int, Network] = {}
        for place, (where, own) in enumerate(zip(points, seeds, strict=False)):
            if own is not None:
                seed_by(own)
            try:
                network = self.point(**where)
                if not isinstance(network, Network):
                    raise InvalidTypeError(
                        f"sweep: with at_once the function returns a Network, and returned a {type(network).__name__}"
                    )
                networks[place] = network
            except Exception as error:
                with suppress(type(error)), users("point"):
                    raise
                if not self.records:
                    raise Failure(text(where), error) from error
                errors[place] = _told(error)
        return networks

    def _apart(self, run: object, count: int) -> xr.Dataset:
        """Return a run of several networks with these first."""
        whose = "the function" if self.at_once is True else "at_once"
        if self.at_once is not True and not isinstance(run, xr.Dataset):
            raise InvalidTypeError(f"sweep: at_once returns a dataset, and returned a {type(run).__name__}")
        data = as_dataset(run, list(self.grid.values))
        if data.sizes.get(_NETWORK) != count:
            raise InvalidValueError(
                f"sweep: {whose} returns a dataset with a dimension 'network' of the {count} points; its sizes are "
                f"{dict(data.sizes)}"
            )
        data = data.drop_vars(_NETWORK, errors="ignore")
        data = data.reset_coords([name for name, variable in data.coords.items() if _NETWORK in variable.dims])
        alike = [str(name) for name, variable in data.data_vars.items() if _NETWORK not in variable.dims]
        if alike:
            raise InvalidValueError(f"sweep: {whose} returns {alike[0]!r} without the dimension 'network'")
        return data.rename_dims({_NETWORK: POINTS}).transpose(POINTS, ...)

    def _bisected(
        self,
        run: Callable[[NDArray[np.intp]], object],
        places: NDArray[np.intp],
        points: Sequence[Where],
        errors: list[str],
    ) -> Iterator[tuple[NDArray[np.intp], object]]:
        """Iterate over what comes of some places; those that fail are found by halving."""
        if not len(places):
            return
        try:
            result = run(places)
        except MemoryError as error:
            error.add_note("a smaller block= takes less")
            raise Failure(_extent(points, places), error) from error
        except Exception as error:
            failed = error
        else:
            yield places, result
            return
        # Out of the handler, so that an error found by halving is not told as one that came in handling another.
        if len(places) > 1:
            for half in np.array_split(places, 2):
                for piece in self._bisected(run, half, points, errors):
                    if self.records:
                        yield piece
        if not self.records:  # where there are several, each half is right by itself
            raise Failure(_extent(points, places), failed) from failed
        if len(places) == 1:
            errors[places[0]] = _told(failed)


def _along_points(value: Any) -> Any:
    return ((_NETWORK,), value) if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1 else value


def _extent(points: Sequence[Where], places: NDArray[np.intp]) -> str:
    first, last = text(points[places[0]]), text(points[places[-1]])
    return first if len(places) == 1 else f"{first} to {last}, run at once"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _portable(failure: Failure) -> Failure:
    """Return a failure that another process can be told of."""
    failure.error.__traceback__ = failure.error.__traceback__ and failure.error.__traceback__.tb_next
    try:
        pickle.loads(pickle.dumps(failure.error))  # as an executor does; nothing is kept of it
    except Exception:
        return Failure(failure.where, InvalidValueError(_told(failure.error)))
    return failure


def refusing_drawn() -> AbstractContextManager[None]:
    """Refuse to go on where points that run side by side have drawn random numbers from the process's generators."""
    return refusing_draws(
        "sweep: the function draws random numbers from the process's generators, which points that run at the same "
        "time would share; draw from a torch.Generator that the point seeds, or run the points one by one, or in "
        "processes"
    )

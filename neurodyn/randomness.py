"""Random numbers of one's own: the generators of PyTorch, NumPy and Python, lent to one run at a time.

These generators are the process's. A run that draws from them in the course of several threads, or that is to go on
later as if nothing had come between, needs a state of its own: it is put into the generators while the run draws.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError

_LOCK = threading.RLock()
_NUMPY: np.random.RandomState = np.random.mtrand._rand
"""The generator behind `np.random.normal` and its like."""


class RandomStream:
    """A state of the generators that is one's own; within `with`, it is the one that all draw from.

    One thread at a time is within; another one waits. Between two uses, the state stays in the generators as long as
    nobody else needs them, so that to use a stream again and again costs nothing. `close` gives them back.

    Parameters
    ----------
    seed
        Of the state to begin with.
    device
        Whose generator is meant beside the CPU's, if it is a GPU.
    """

    _current: ClassVar[RandomStream | None] = None
    """The one whose state is in the generators."""
    _within: ClassVar[list[RandomStream]] = []
    """Those that are in use, each within the one before."""

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        python, numpy = random.Random(seed), np.random.RandomState(seed % 2**32)
        self._own: list[Any] = [
            torch.Generator().manual_seed(seed).get_state(),
            numpy.get_state(),
            python.getstate(),
        ]
        if self._device is not None:
            self._own.append(torch.Generator(self._device).manual_seed(seed).get_state())
        self._outside: list[Any] = []

    @classmethod
    def in_use(cls) -> bool:
        """Tell whether this thread draws from a stream, so that other threads that would have to wait."""
        free = _LOCK.acquire(blocking=False)
        try:
            return free and bool(cls._within)
        finally:
            if free:
                _LOCK.release()

    def __enter__(self) -> RandomStream:
        _LOCK.acquire()
        self._take()
        RandomStream._within.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        RandomStream._within.pop()
        if RandomStream._within:
            RandomStream._within[-1]._take()
        _LOCK.release()

    def close(self) -> None:
        """Put back into the generators what was in them before."""
        with _LOCK:
            if RandomStream._current is self:
                self._leave()

    def state(self) -> list[Tensor]:
        """Return the state as tensors."""
        with self:
            return _as_tensors(self._read())

    def load(self, state: Sequence[Tensor]) -> None:
        """Take on a state that `state` returned."""
        own = [state[0], _numpy_of_tensor(state[1]), _python_of_tensor(state[2]), *state[3:]]
        with self:
            self._write(own)

    def _take(self) -> None:
        current = RandomStream._current
        if current is self:
            return
        if current is not None:
            current._leave()
        self._outside = self._read()
        self._write(self._own)
        RandomStream._current = self

    def _leave(self) -> None:
        self._own = self._read()
        self._write(self._outside)
        RandomStream._current = None

    @staticmethod
    def _read_cpu() -> list[Any]:
        return [torch.get_rng_state(), _NUMPY.get_state(), random.getstate()]

    def _read(self) -> list[Any]:
        states = self._read_cpu()
        return states if self._device is None else [*states, torch.cuda.get_rng_state(self._device)]

    def _write(self, states: Sequence[Any]) -> None:
        torch.set_rng_state(states[0])
        _NUMPY.set_state(states[1])
        random.setstate(states[2])
        if self._device is not None:
            torch.cuda.set_rng_state(states[3], self._device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators of the CPU, a GPU's if it is given, NumPy's and Python's, and leave them as they were."""
    with _lent(RandomStream(seed, device)):
        yield


@contextmanager
def refusing_draws(message: str) -> Iterator[None]:
    """Refuse to go on where random numbers have been drawn that several would share.

    Raises
    ------
    ValueError
        If they have; with that message.
    """
    before = process_state()
    yield
    if process_state() != before:
        raise InvalidValueError(message)


def process_state() -> tuple[object, ...]:
    """Return the state of PyTorch's and NumPy's generators that this thread draws from, to be compared.

    Python's is left out, as libraries draw from it in threads of their own.
    """
    drawn, (_, keys, *rest), _ = _drawn_from()
    return (drawn.numpy().tobytes(), keys.tobytes(), *rest)


def generators() -> list[Tensor]:
    """Return the state of the generators that this thread draws from, as `RandomStream.state` returns one."""
    own = _as_tensors(_drawn_from())
    in_use = torch.cuda.default_generators  # none before the first use of a GPU
    return [*own, torch.cuda.get_rng_state()] if in_use else own


def _drawn_from() -> list[Any]:
    """Return the states of the CPU's generators that this thread draws from."""
    with _LOCK:
        # Within a stream, they are in the generators; elsewhere, a stream that is not closed has put them aside.
        current = None if RandomStream._within else RandomStream._current
        return RandomStream._read_cpu() if current is None else current._outside[:3]


@contextmanager
def drawing_from(state: Sequence[Tensor]) -> Iterator[None]:
    """Draw as the generators were when `generators` returned a state, and leave them as they are."""
    stream = RandomStream(0, torch.device("cuda", torch.cuda.current_device()) if len(state) > 3 else None)
    stream.load(state)
    with _lent(stream):
        yield


@contextmanager
def _lent(stream: RandomStream) -> Iterator[None]:
    try:
        with stream:
            yield
    finally:
        stream.close()


def _as_tensors(states: Sequence[Any]) -> list[Tensor]:
    return [states[0], _numpy_as_tensor(states[1]), _python_as_tensor(states[2]), *states[3:]]


def _numpy_as_tensor(state: Any) -> Tensor:
    _, keys, place, has_gauss, gauss = state
    more = np.array([place, has_gauss, np.float64(gauss).view(np.int64)], np.int64)
    return torch.from_numpy(np.concatenate([keys.astype(np.int64), more]))


def _numpy_of_tensor(state: Tensor) -> Any:
    *keys, place, has_gauss, gauss = state.tolist()
    return "MT19937", np.array(keys, np.uint32), place, has_gauss, float(np.int64(gauss).view(np.float64))


def _python_as_tensor(state: Any) -> Tensor:
    version, numbers, gauss = state
    bits = 0 if gauss is None else int(np.float64(gauss).view(np.int64))
    return torch.tensor([version, *numbers, gauss is not None, bits], dtype=torch.int64, device="cpu")


def _python_of_tensor(state: Tensor) -> Any:
    version, *numbers, has_gauss, bits = state.tolist()
    return version, tuple(numbers), float(np.int64(bits).view(np.float64)) if has_gauss else None

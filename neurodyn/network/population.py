"""Populations: units that obey one equation, or are held by a drive."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.drives import Drive
from neurodyn.network.names import check_name
from neurodyn.network.vectors import (
    ByValue,
    Vector,
    bounds_text,
    is_number,
    largest_of,
    least_of,
    text_of,
    uniform,
    vector,
)

Size = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Population(ByValue):
    """A population of units, which obeys τ dx/dt = −leak · x + Σ gain · map(source), plus noise.

    It is *dynamic*; or *instantaneous* with τ = 0, where it equals Σ gain · map(source) / leak at every moment; or
    *clamped* to a drive.

    Parameters
    ----------
    name
        Letters, digits and underscores; the name of its variable in a trajectory.
    size
        The number of units, or the shape (channels, rows, columns) of an image; None takes it from the data.
    tau
        The time constant τ ≥ 0, in units of time; a number, or a tensor of the population's shape, one for each unit.
        Like the other tensors here, it may require a gradient, for `nd.activity`.
    leak
        The leak, ≥ 0; likewise.
    initial
        Where a dynamic population starts: a number, a tensor of its shape, or a drive such as `ForwardValue(stage)`.
    clamp
        The drive that holds it, e.g. `Input()`. A drive that is absent (`Target(optional=True)` in a run without
        targets) leaves the population free.
    noise
        σ ≥ 0, a number or a tensor of its shape: σ dW is added to dx, with W of a Wiener process for each unit.
    bounds
        (low, high), where the state of a dynamic population stays: dx/dt is 0 where it would lead outside, and each
        step is clipped; with noise, each step as a whole: x ← clip(x + h F + σ ΔW). Numbers, of which one may be
        infinite, or tensors of its shape. A drive that holds the population may lead elsewhere.

    Raises
    ------
    TypeError, ValueError
        If the name, the size, τ, the leak, the start, the noise or the bounds are not as above.

    Notes
    -----
    Activity is a rate, or a membrane potential without spikes: a threshold with a reset, as of integrate-and-fire
    neurons, cannot be declared.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.Population("x", 300, tau=2.0).role
    'dynamic'
    >>> nd.Population("e", 300, tau=0.0).role
    'instantaneous'
    >>> nd.Population("image", (1, 28, 28), clamp=nd.Input()).shape
    (1, 28, 28)
    """

    name: str
    size: Size | None = None
    tau: Vector = 1.0
    leak: Vector = 1.0
    initial: Vector | Drive = 0.0
    clamp: Drive | None = None
    noise: Vector = 0.0
    bounds: tuple[Vector, Vector] | None = None

    def __post_init__(self) -> None:
        check_name("population", self.name)
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if self.size is not None and not (sizes and all(_counts(n) for n in sizes)):
            raise InvalidValueError(
                f"population {self.name}: its size is a positive number of units, or a tuple of them, not {self.size!r}"
            )
        if self.clamp is not None and not isinstance(self.clamp, Drive):
            raise InvalidTypeError(
                f"population {self.name}: clamp must be a drive such as Input(), not {_drive_meant(self.clamp)}"
            )
        if self.size is not None:
            shape = tuple(int(n or 0) for n in sizes)
            object.__setattr__(self, "size", shape if isinstance(self.size, tuple) else shape[0])
        for what in ("tau", "leak", "initial", "noise"):
            value = getattr(self, what)
            if what != "initial" or not isinstance(value, Drive):
                object.__setattr__(self, what, self._numbers(what, value))
        if least_of(self.tau) == 0 < largest_of(self.tau):
            raise InvalidValueError(
                f"population {self.name}: tau is 0 for some units and not for others; make two populations of them"
            )
        if self.instantaneous and self.leakless:
            raise InvalidValueError(f"population {self.name}: an instantaneous population needs a leak > 0")
        if self.noisy and (self.instantaneous or (self.clamp is not None and not self.clamp.optional)):
            raise InvalidValueError(
                f"population {self.name}: it is {self.role}, and noise enters the change dx of a dynamic population; "
                "leave noise out"
            )
        if self.instantaneous and not is_number(self.initial, 0.0):
            raise InvalidValueError(
                f"population {self.name}: it is instantaneous, and equals its input from the start; leave initial out"
            )
        if self.bounds is not None:
            object.__setattr__(self, "bounds", self._checked_bounds(self.bounds))
            if not isinstance(self.initial, Drive):
                own = self.initial.dtype if isinstance(self.initial, Tensor) else torch.float64
                self.check_within("its start", torch.as_tensor(self.initial, dtype=own, device="cpu"))

    def _checked_bounds(self, bounds: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        where = f"population {self.name}: bounds"
        if self.instantaneous or (self.clamp is not None and not self.clamp.optional):
            raise InvalidValueError(
                f"population {self.name}: it is {self.role}, and bounds are for a dynamic population; leave them out"
            )
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise InvalidTypeError(f"{where} are (low, high), not {bounds!r}")
        if any(end is None for end in bounds):
            raise InvalidTypeError(f"{where} are two numbers, not {bounds!r}; where there is none, ±math.inf")
        low, high = (
            sign * math.inf if isinstance(end, Real) and end == sign * math.inf else self._numbers(what, end)
            for what, end, sign in zip(("bounds, low", "bounds, high"), bounds, (-1.0, 1.0), strict=True)
        )
        lowest, highest = (torch.as_tensor(end, dtype=torch.float64, device="cpu") for end in (low, high))
        if bool((lowest >= highest).any()):
            raise InvalidValueError(f"{where}: low must be below high, and they are {bounds_text((low, high))}")
        return low, high

    def check_within(self, what: str, value: Tensor) -> None:
        """Refuse values, shape (…, units), that the bounds do not hold.

        Raises
        ------
        ValueError
            If there is one; the message calls them `what`.
        """
        if self.bounds is None:
            return
        low, high = self.bounds
        outside = (value < low) | (value > high)
        if bool(outside.any()):
            raise InvalidValueError(
                f"population {self.name}: {what} has {int(outside.sum())} values outside its bounds "
                f"{bounds_text(self.bounds)}; start inside, or change the bounds"
            )

    def _numbers(self, what: str, value: Vector) -> Vector:
        """Return a number, or one for each unit where they differ."""
        where = f"population {self.name}: {what}"
        numbers = vector(where, value)
        if isinstance(numbers, Tensor):
            if self.shape is None:
                raise InvalidValueError(
                    f"{where} is a tensor, one for each unit, and their number is unknown; declare size="
                )
            if numbers.ndim == 0:  # one number for all units that requires a gradient
                numbers = numbers.expand(self.shape)
            if tuple(numbers.shape) != self.shape:
                raise InvalidValueError(
                    f"{where} has the shape {tuple(numbers.shape)}, and the population {self.shape}"
                )
            numbers = uniform(numbers)
        if what in ("tau", "leak", "noise") and least_of(numbers) < 0:
            raise InvalidValueError(f"{where} must be ≥ 0, not {text_of(numbers)}")
        return numbers

    @property
    def instantaneous(self) -> bool:
        """Whether τ = 0."""
        return is_number(self.tau, 0.0)

    @property
    def noisy(self) -> bool:
        """Whether a unit has noise."""
        return largest_of(self.noise) > 0

    @property
    def leakless(self) -> bool:
        """Whether a unit has no leak."""
        return least_of(self.leak) == 0

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, e.g. (300,) or (32, 14, 14); None if the data are to tell."""
        return self.size if self.size is None or isinstance(self.size, tuple) else (self.size,)

    @property
    def role(self) -> Literal["dynamic", "instantaneous", "clamped"]:
        """What becomes of it in time, when every drive is present."""
        if self.clamp is not None:
            return "clamped"
        return "instantaneous" if self.instantaneous else "dynamic"


def _counts(value: object) -> bool:
    """Tell whether a value is a positive number of units."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < int(value) < 2**63


def _drive_meant(given: object) -> str:
    """Say what was given in place of a drive, and which drive was meant, where that can be told."""
    if isinstance(given, type):
        return f"the class {given.__name__}" + (f"; write {given.__name__}(…)" if issubclass(given, Drive) else "")
    held = isinstance(given, (Real, Tensor)) and not isinstance(given, bool)
    return type(given).__name__ + ("; nd.Constant(…) holds it at a number or a tensor" if held else "")

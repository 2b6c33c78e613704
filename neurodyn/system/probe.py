"""A function of someone's own, asked a few times before a run: what it must not do is found, and refused.

It is asked where the run starts, at the mirror image, a little beside it, and at random. Refused is what writes into
its argument, gives another value when asked again, makes of one sample what depends on others, or is not what it claims
to be. That it takes no such argument (an exception), or has no value there (NaN), tells nothing against it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError

_MOST_ODD = 1e-3
"""Which part of a sample's values may differ all the same: a step function may jump where others merely round."""
_SIZES = (1.0, 100.0)
"""At which sizes of the activity a claim to be linear is tried."""
_COARSE = 2.0**-8
"""The relative precision of products in single precision, where PyTorch may round their factors."""

Values = dict[str, Tensor]


class Probe:
    """A function to look at, and the tensors that it depends on.

    Parameters
    ----------
    name
        What messages call it.
    function
        The function, of all the `values`.
    values
        What it is given as the run starts, each of shape (sample, …).
    varied
        The names of those to vary.
    check
        Refuses a value of the run's number of samples that is not as it should be.
    advice
        What to do about a function that gives another value when asked again.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Values], Any],
        values: Mapping[str, Tensor],
        varied: Iterable[str],
        check: Callable[[Any], None],
        advice: str = "random numbers belong into a drive, such as Noisy, or are drawn once and kept",
    ) -> None:
        self.name, self._function, self._check, self._advice = name, function, check, advice
        self.values = dict(values)
        self.varied = [each for each in dict.fromkeys(varied) if values[each].is_floating_point()]
        self._generator = torch.Generator().manual_seed(0)

    def look(self, *, any_number: bool = False) -> None:
        """Refuse a function that writes into its argument, gives another value when asked again, or mixes samples.

        Parameters
        ----------
        any_number
            Whether it takes other numbers of samples than the run's.
        """
        start = {name: self.values[name] for name in self.varied}
        points = [
            start,
            {name: -tensor for name, tensor in start.items()},
            {name: tensor + 0.01 * self._draw(tensor) for name, tensor in start.items()},
            self.at_random(),
        ]
        found = [self.ask(point) for point in points]
        for point, value in zip(points, found, strict=True):
            again = None if value is None else self.ask(point)
            if value is not None and again is not None and _differ(value, again, _tolerance(value, 0.75)):
                raise InvalidValueError(
                    f"{self.name} gives another value when asked again: it has to depend on its argument alone, as it "
                    f"is evaluated any number of times; {self._advice}"
                )
        for point, value in ((points[0], found[0]), (points[-1], found[-1])):
            if value is not None:
                self._look_at_others(point, value)
                if any_number:
                    self._look_at_one_alone(point, value)

    def look_at_claims(self, *, linear: bool, homogeneous: bool) -> None:
        """Refuse a function that is said to be affine, or to give 0 for 0, and is not."""
        zero = self.ask({name: torch.zeros_like(self.values[name]) for name in self.varied})
        if zero is None:
            return
        if homogeneous and bool((zero != 0).any()):
            raise InvalidValueError(
                f"{self.name} says homogeneous = True, and gives {_largest(zero):.4g} for a source of 0; remove that "
                "line"
            )
        for size in _SIZES if linear else ():
            u, v = self.at_random(size), self.at_random(size)
            parts = [self.ask(u), self.ask(v), self.ask({name: u[name] + v[name] for name in u})]
            if any(part is None for part in parts):
                continue
            f_u, f_v, f_sum = (part.double() for part in parts if part is not None)
            allowed = _tolerance(zero, 0.5, products=True)
            floor = allowed * max(map(_largest, (f_u, f_v, zero))) + 100 * torch.finfo(zero.dtype).eps * size
            if _differ(f_u + f_v, f_sum + zero.double(), allowed, floor, where_finite=True):
                raise InvalidValueError(
                    f"{self.name} says linear = True, and is neither linear nor affine: at values u and v of a size of "
                    f"about {size:g}, f(u) + f(v) is not f(u + v) + f(0); remove that line"
                )

    def ask(self, changed: Mapping[str, Tensor] | None = None, samples: int | None = None) -> Tensor | None:
        """Return a copy of the function's value; None if it has none.

        Parameters
        ----------
        changed
            What it is given instead, by name.
        samples
            Of how many samples, where they are not as many as in the run.
        """
        given = {**self.values, **(changed or {})}
        # What cannot be varied is not copied: a large network would need its memory twice.
        own = {name: tensor.clone() if name in self.varied else tensor for name, tensor in given.items()}
        before = {name: own[name]._version for name in self.varied}
        try:
            value = self._function(own)
        except Exception:
            return None
        for name, version in before.items():
            if own[name]._version != version or not same(own[name], given[name]):
                raise InvalidValueError(
                    f"{self.name} writes into its argument, {name}, which others read, too; let it work on a copy, as "
                    "in 2 * x for x.mul_(2)"
                )
        if samples is None:
            self._check(value)
        elif not isinstance(value, Tensor) or value.ndim == 0 or len(value) != samples:
            return None
        return value.detach().clone() if isinstance(value, Tensor) else None

    def at_random(self, size: float = 1.0) -> Values:
        """Return random values of what is varied."""
        return {name: size * self._draw(self.values[name]) for name in self.varied}

    def _draw(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator, device="cpu").to(like)

    def _look_at_others(self, point: Values, value: Tensor) -> None:
        """Change some samples, and compare the rest: each pair of samples is parted by one bit of their places."""
        count = len(value)
        places = torch.arange(count, device=value.device)
        for bit in range((count - 1).bit_length()):
            for side in (0, 1):
                changed = (places >> bit & 1) == side
                found = next((each for each in map(self.ask, self._beside(point, changed)) if each is not None), None)
                if found is not None and _differ(value[~changed], found[~changed], _tolerance(value, 0.75)):
                    self._refuse_mixing()

    def _beside(self, point: Values, changed: Tensor) -> Iterator[Values]:
        """Yield a point with other values of some samples; where one cannot be, another may be."""
        for other in (self._draw, lambda x: 0.75 * x, lambda x: x.roll(1, 0)):
            yield {name: torch.where(changed.view(-1, *[1] * (x.ndim - 1)), other(x), x) for name, x in point.items()}

    def _look_at_one_alone(self, point: Values, value: Tensor) -> None:
        all_of_it = {**self.values, **point}
        if len(value) > 1:
            other = self.ask({name: tensor[:1] for name, tensor in all_of_it.items()}, 1)
        else:
            beside = {**self.values, **self.at_random()}
            other = self.ask({name: torch.cat([tensor, beside[name]]) for name, tensor in all_of_it.items()}, 2)
        if other is None or other.shape[1:] != value.shape[1:] or torch.equal(other[:1], value[:1]):
            return
        floor = 100 * torch.finfo(torch.float32).eps * max(map(_largest, point.values()), default=0.0)
        allowed = _tolerance(value, 0.5, products=True)
        if _differ(value[:1], other[:1], allowed, floor, where_finite=True):
            self._refuse_mixing()

    def _refuse_mixing(self) -> None:
        raise InvalidValueError(
            f"{self.name} mixes samples: what it makes of one depends on the others of its batch, and each is a "
            "network of its own; let it work along the axes after the first"
        )


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Leave every random state as it was."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002 - the state of those who use it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)


def _tolerance(value: Tensor, power: float, *, products: bool = False) -> float:
    eps = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
    rounds = torch.get_float32_matmul_precision() != "highest" or (value.is_cuda and torch.backends.cudnn.allow_tf32)
    if products and value.dtype == torch.float32 and rounds:
        eps = _COARSE
    # What computes in single precision within counts as exact in double precision, too.
    return max(float(eps**power), 10 * torch.finfo(torch.float32).eps if products else 0.0)


def same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, or none (NaN) in the same places."""
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _largest(value: Tensor) -> float:
    return float(value.abs().nan_to_num(0.0, 0.0).max()) if value.numel() else 0.0


def _differ(a: Tensor, b: Tensor, relative: float, absolute: float = 0.0, *, where_finite: bool = False) -> bool:
    """Tell whether values of the same samples differ by more than rounding.

    Parameters
    ----------
    a, b
        The values, shape (sample, …).
    relative, absolute
        What rounding may make of them, relative to the largest, and beside that.
    where_finite
        Whether only what is finite in both is compared.
    """
    if a.shape != b.shape or torch.equal(a, b):
        return a.shape != b.shape
    a, b = (value.double() if value.dtype == torch.float64 else value.float() for value in (a, b))
    finite = a.isfinite() & b.isfinite()
    allowed = absolute + relative * max(_largest(a), _largest(b))
    odd = torch.where(finite, (a - b).abs() > allowed, (a != b) & ~(a.isnan() & b.isnan()) & (not where_finite))
    return bool((odd.view(len(odd), -1).float().mean(1) > _MOST_ODD).any())

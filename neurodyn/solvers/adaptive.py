"""Embedded Runge–Kutta pairs with error control and dense output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.base import Recorder
from neurodyn.solvers.control import ErrorControlled, Stepper, row_weights
from neurodyn.solvers.past import Polynomials, refuse_order
from neurodyn.solvers.tableaux import BOSH3, DOPRI5, HEUN_EULER, TSIT5, Pair
from neurodyn.system.delays import part
from neurodyn.system.system import System

PAIRS: dict[str, Pair] = {"heun_euler": HEUN_EULER, "bosh3": BOSH3, "dopri5": DOPRI5, "tsit5": TSIT5}


@dataclass(frozen=True)
class Adaptive(ErrorControlled):
    """An embedded Runge–Kutta pair with proportional–integral step control.

    A step is accepted where ‖e / (atol + rtol · max(|x|, |x'|))‖ ≤ 1, in the root mean square over all units and
    samples, with e the difference of the pair's two solutions. Save points are interpolated by the pair's dense output.

    Parameters
    ----------
    method
        "heun_euler" 2(1), "bosh3" 3(2) (Bogacki–Shampine), "dopri5" 5(4) (Dormand–Prince), "tsit5" 5(4) (Tsitouras); or
        a `Pair` of one's own.
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.

    Raises
    ------
    ValueError
        If the method is unknown or a tolerance is not positive.

    References
    ----------
    E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I, §II.4 and II.6; for the control,
    K. Gustafsson, ACM Trans. Math. Softw. 17 (1991).

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.Adaptive("tsit5", rtol=1e-6, atol=1e-8), save_at=2)
    >>> round(float(run.x[-1].item()), 4)
    0.3679
    """

    takes_delays = True
    method: Literal["heun_euler", "bosh3", "dopri5", "tsit5"] | Pair = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-7

    def __post_init__(self) -> None:
        if not isinstance(self.method, Pair) and not (isinstance(self.method, str) and self.method in PAIRS):
            raise InvalidValueError(
                f"method of Adaptive: there is no {self.method!r}; there are {', '.join(PAIRS)}, or a Pair"
            )
        super().__post_init__()

    @property
    def pair(self) -> Pair:
        """The coefficients of the method."""
        return self.method if isinstance(self.method, Pair) else PAIRS[self.method]

    def check(self, system: System) -> None:
        super().check(system)
        refuse_order(system, "the Pair", self.pair.order, dense=self.pair.interpolant is not None)

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _PairStepper(system, self.pair, self.rtol, self.atol, start)


class _PairStepper(Stepper):
    """The rows are x, the slopes k_i and y; the last slope of a step is the first one of the next step."""

    def __init__(self, system: System, pair: Pair, rtol: float, atol: float, start: Tensor) -> None:
        super().__init__(system, rtol, atol, start, count=len(pair.b) + 2)
        self._pair, self.error_order = pair, pair.order
        stages = [(0.0, *row) for row in pair.a[1:]]
        none = [0.0] * len(pair.b)
        fixed = [*([1.0, *none[1 : len(row)]] for row in stages), none]
        by_h: list[Sequence[float]] = [*stages, pair.error]
        if system.echoes:  # what x and the slopes contribute to each power of θ
            fixed.append([1.0, *[0.0] * ((1 + len(pair.b)) * (1 + pair.dense.shape[1]) - 1)])
            by_h.append([*[0.0] * (1 + len(pair.b)), *chain(*([0.0, *row] for row in pair.dense.T.tolist()))])
        self._weights = row_weights(fixed, by_h, start)
        self._columns = [self.columns(0, len(row)) for row in stages]
        self._slopes, self._dense = self.columns(1, 1 + len(pair.b)), self.columns(0, 1 + len(pair.b))

    def attempt(self, h: float) -> float:
        weights = self._weights(h)
        self._of_error, self._of_powers = weights[len(self._columns)], weights[-1]
        if self.system.echoes:
            self.system.foresee(self.x, sorted({self.time + node * h for node in self._pair.nodes[1:]}))
        stages = zip(self._columns, weights, self.rows[2:-1], self._pair.nodes[1:], strict=False)
        for columns, of_rows, slope, node in stages:
            torch.mv(columns, of_rows, out=self.y.flat)
            self.evaluate(self.y, slope, node * h)
        return self.scaled_error()

    def error(self, out: Tensor) -> None:
        torch.mv(self._slopes, self._of_error, out=out)

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        powers = np.power.outer(np.asarray(thetas), np.arange(1, self._pair.dense.shape[1] + 1))
        weights = np.insert(h * powers @ self._pair.dense.T, 0, 1.0, axis=1)
        between = self.system.new_state()
        for of_rows, moment in zip(between.flat.new_tensor(weights.tolist()), moments, strict=True):
            torch.mv(self._dense, of_rows, out=between.flat)
            recorder.record(moment, between)

    def kept(self) -> dict[str, Any]:
        past = [] if self.system.timeline.past is None else self.system.timeline.past.steps()
        steps = []
        for end, piece in past:
            assert isinstance(piece, Polynomials), "which it has extended the past by"
            steps.append((piece.start, end, piece.coefficients.clone()))
        return {**super().kept(), "past": steps}

    def load(self, kept: Mapping[str, Any]) -> None:
        super().load(kept)
        past = self.system.timeline.past
        for start, end, coefficients in kept["past"]:
            assert past is not None, "a system with delays has one from its start on"
            past.extend(end, Polynomials(start, end, coefficients.to(self.system.device)))

    def remember(self, then: float, h: float) -> None:
        past = self.system.timeline.past
        assert past is not None, "a system with delays has one from its start on"
        rows = part(self._dense, past.window).t()
        weights = self._of_powers.view(-1, rows.shape[0])
        past.extend(then, Polynomials(self.time, then, weights @ rows))
        past.forget(then)

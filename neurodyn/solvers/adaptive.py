"""Embedded Runge–Kutta pairs with error control and dense output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neurodyn.solvers.base import Recorder
from neurodyn.solvers.control import ErrorControlled, Stepper
from neurodyn.solvers.tableaux import BOSH3, DOPRI5, HEUN_EULER, TSIT5, Pair
from neurodyn.system import System

PAIRS: dict[str, Pair] = {"heun_euler": HEUN_EULER, "bosh3": BOSH3, "dopri5": DOPRI5, "tsit5": TSIT5}


@dataclass(frozen=True)
class Adaptive(ErrorControlled):
    """An embedded Runge–Kutta pair with proportional–integral step control.

    A step is accepted where ‖e / (atol + rtol · max(|x|, |x'|))‖ ≤ 1, in the root mean square over all units and
    samples, with e the difference of the pair's two solutions. Save points are interpolated by the pair's dense output.

    Parameters
    ----------
    method
        "heun_euler" 2(1), "bosh3" 3(2) (Bogacki–Shampine), "dopri5" 5(4) (Dormand–Prince), "tsit5" 5(4) (Tsitouras).
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
    """

    method: Literal["heun_euler", "bosh3", "dopri5", "tsit5"] = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-7

    def __post_init__(self) -> None:
        if self.method not in PAIRS:
            raise ValueError(f"method of Adaptive: there is no {self.method!r}; there are {', '.join(PAIRS)}")
        super().__post_init__()

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _PairStepper(system, PAIRS[self.method], self.rtol, self.atol, start)


class _PairStepper(Stepper):
    """The rows of one matrix are x and the slopes k_i; the last slope of a step is the first of the next step."""

    def __init__(self, system: System, pair: Pair, rtol: float, atol: float, start: Tensor) -> None:
        rows = torch.empty(1 + len(pair.b), system.size, dtype=system.dtype, device=system.device)
        x, *self._slopes = (system.new_state(row) for row in rows)
        x.flat.copy_(start)
        super().__init__(system, rtol, atol, x, system.new_state(), self._slopes[0], self._slopes[-1])
        self._pair, self.error_order = pair, pair.order
        # For each stage after the first, and for the error, the weights of the rows: fixed ones, and by h.
        self._fixed = self._weights([*((1.0,) for _ in pair.a[1:]), ()])
        self._by_h = self._weights([*((0.0, *row) for row in pair.a[1:]), (0.0, *pair.error)])
        self._of_error = self._fixed[-1]
        self._rows = rows.t()

    def _weights(self, rows: Sequence[Sequence[float]]) -> Tensor:
        weights = np.zeros((len(rows), 1 + len(self._slopes)))
        for place, row in enumerate(rows):
            weights[place, : len(row)] = row
        return torch.as_tensor(weights, dtype=self.system.dtype).to(self.system.device)

    def attempt(self, h: float) -> float:
        *weights, self._of_error = torch.add(self._fixed, self._by_h, alpha=h).unbind()
        for stage, (of_rows, slope) in enumerate(zip(weights, self._slopes[1:], strict=True), start=2):
            torch.mv(self._rows[:, :stage], of_rows[:stage], out=self.y.flat)
            self.evaluate(self.y, slope)
        return self.scaled_error()

    def error(self, out: Tensor) -> None:
        torch.mv(self._rows[:, 1:], self._of_error[1:], out=out)

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        powers = np.power.outer(np.asarray(thetas), np.arange(1, self._pair.dense.shape[1] + 1))
        between = self.system.new_state()
        weights = np.insert(h * powers @ self._pair.dense.T, 0, 1.0, axis=1)
        for of_rows, moment in zip(self._weights(weights), moments, strict=True):
            torch.mv(self._rows, of_rows, out=between.flat)
            recorder.record(moment, between)

"""Embedded Runge–Kutta pairs with error control and dense output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
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
    """The slopes k_i of the step under way are rows of one matrix; the last one is the first of the next step."""

    def __init__(self, system: System, pair: Pair, rtol: float, atol: float, start: Tensor) -> None:
        self._matrix = torch.empty(len(pair.b), system.size, dtype=system.dtype, device=system.device)
        self._slopes = [system.new_state(row) for row in self._matrix]
        super().__init__(system, rtol, atol, start, self._slopes[0], self._slopes[-1])
        self._pair, self.error_order = pair, pair.order
        self._rows = [self._tensor(row) for row in pair.a]
        self._error = self._tensor(pair.error)

    def _tensor(self, values: tuple[float, ...] | NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=self.system.dtype, device=self.system.device)

    def attempt(self, h: float) -> float:
        for i in range(1, len(self._slopes)):
            torch.addmv(self.x.flat, self._matrix[:i].t(), self._rows[i], alpha=h, out=self.y.flat)
            self.evaluate(self.y, self._slopes[i])
        return h * self.scaled_norm(torch.mv(self._matrix.t(), self._error))

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        powers = np.power.outer(np.asarray(thetas), np.arange(1, self._pair.dense.shape[1] + 1))
        between = self.system.new_state()
        for weights, moment in zip(powers @ self._pair.dense.T, moments, strict=True):
            torch.addmv(self.x.flat, self._matrix.t(), self._tensor(weights), alpha=h, out=between.flat)
            recorder.record(moment, between)

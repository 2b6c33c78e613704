"""Any method of torchdiffeq, on the same system."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.solvers.base import Progress, Recorder, Report, Solver, Until, fastest, in_pieces
from neurodyn.system.state import State
from neurodyn.system.system import System

Field = Callable[[Tensor, Tensor], Tensor]
"""F of the time and the state."""


def _methods() -> dict[str, Any]:
    # Here, because torchdiffeq brings half of SciPy along, which takes long to import.
    from torchdiffeq._impl.odeint import SOLVERS

    methods: dict[str, Any] = SOLVERS
    return methods


def _options(method: type) -> set[str]:
    """Return the options that a method of torchdiffeq has, which itself would only warn of others."""
    initialisers = [vars(kind)["__init__"] for kind in method.__mro__[:-1] if "__init__" in vars(kind)]
    named = {
        name
        for each in initialisers
        for name, parameter in inspect.signature(each).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return named - {"self", "func", "y0", "rtol", "atol"}


def _root_mean_square(x: Tensor) -> Tensor:
    """Return the norm that torchdiffeq takes by default."""
    return x.abs().pow(2).mean().sqrt()


class TorchDiffEq(Solver):
    """Hand the system to `torchdiffeq.odeint`.

    Parameters
    ----------
    method
        The name of any of its methods, e.g. "dopri5", "adaptive_heun", "euler".
    rtol, atol
        The relative tolerance, and the absolute one in units of activity; a method of fixed step does not use them.
    options
        Its options, e.g. step_size=0.1.

    Raises
    ------
    ValueError
        If the method is unknown, or has no such option, or a tolerance is not positive.

    References
    ----------
    R. T. Q. Chen, torchdiffeq (2018), https://github.com/rtqichen/torchdiffeq.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.TorchDiffEq("dopri5"), save_at=2)
    >>> round(float(run.x[-1].item()), 3)
    0.368
    """

    def __init__(self, method: str = "dopri5", rtol: float = 1e-5, atol: float = 1e-7, **options: Any) -> None:
        if not isinstance(method, str) or method not in _methods():
            raise InvalidValueError(f"method of TorchDiffEq: there is no {method!r}; there are {', '.join(_methods())}")
        known = _options(_methods()[method])
        unknown = next((name for name in options if name not in known), None)
        if unknown is not None:
            raise InvalidValueError(
                f"options of TorchDiffEq: {method!r} has no {unknown!r}; it has {', '.join(sorted(known))}"
            )
        self.method, self.options = method, options
        self.rtol, self.atol = positive("rtol of TorchDiffEq", rtol), positive("atol of TorchDiffEq", atol)

    def __repr__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"TorchDiffEq(method={self.method!r}, rtol={self.rtol!r}, atol={self.atol!r}{options})"

    def solve(self, odeint: Callable[..., Tensor], field: Field, start: Tensor, times: Tensor, **more: Any) -> Tensor:
        """Return the states at some times, the first of which is the start's, by a function such as `odeint`."""
        settings = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": self.options or None}
        return odeint(field, start, times, **settings, **more)

    def with_graph_free_steps(self) -> TorchDiffEq:
        """Return the same method, where the size of a step has no graph.

        torchdiffeq differentiates through that of the first one, which shifts the times of all others, at which F is
        evaluated without a graph of the time.
        """
        if "norm" not in _options(_methods()[self.method]):
            return self
        norm = self.options.get("norm", _root_mean_square)
        options = {**self.options, "norm": lambda x: norm(x.detach())}
        return TorchDiffEq(self.method, self.rtol, self.atol, **options)

    def check(self, system: System) -> None:
        if not system.size:
            raise InvalidValueError(
                f"solver: network {system.network.name!r} has no dynamic population, and torchdiffeq integrates no "
                "empty state; use a solver of neurodyn"
            )

    def integrate(
        self,
        system: System,
        state: State,
        duration: float,
        recorder: Recorder,
        *,
        until: Until | None = None,
        progress: Progress | None = None,
    ) -> Report:
        if until is not None:
            raise InvalidValueError(
                "until: torchdiffeq cannot stop early; use a solver of neurodyn, e.g. Adaptive('dopri5')"
            )
        if recorder.times is None:
            raise InvalidValueError(
                "save_at: torchdiffeq does not show its steps; give a number of points or an array of times"
            )
        import torchdiffeq

        field = _Field(system, progress, _methods()[self.method].valid_callbacks())
        ends = np.concatenate([[0.0], system.timeline.jumps(duration), [duration]])
        for bounds, within in in_pieces(ends, recorder.times):
            system.timeline.enter(float(bounds[0]))
            times = np.union1d(bounds, within)
            path = self._piece(torchdiffeq.odeint, system, field, state, times)
            for time, flat in zip(times, path, strict=True):
                moment = system.new_state(flat)
                system.settle(moment, float(time))
                lost = system.first_bad(moment)
                if lost is not None:
                    when = system.timeline.origin + float(time)
                    raise DivergenceError(
                        f"population {lost} became non-finite at time {when:g}, with {self!r}", when, lost
                    )
                if time in within:
                    recorder.record(float(time), moment, settled=True)
            state.flat.copy_(path[-1])
        slope = system.new_state()
        system.field(state, slope, duration)
        return self.report(
            system,
            slope,
            None,
            time=duration,
            evaluations=field.evaluations,
            accepted=field.accepted,
            rejected=field.rejected,
        )

    def _piece(
        self, odeint: Callable[..., Tensor], system: System, field: _Field, state: State, times: NDArray[np.float64]
    ) -> Tensor:
        """Return the states at some times, from the first of them on, between which nothing jumps."""
        try:
            return self.solve(odeint, field, state.flat, torch.as_tensor(times, device=system.device))
        except AssertionError as error:
            slope = system.new_state()
            system.field(field.last, slope, field.time)
            time, (bad, speed) = system.timeline.origin + field.time, fastest(system, slope)
            raise DivergenceError(
                f"population {bad}, whose |dx/dt| is {speed:.3g}, made {self!r} give up at time {time:g}: {error}",
                time,
                bad,
            ) from error


class _Field:
    """F(t, x) as torchdiffeq calls it, with the callbacks through which it tells of its steps."""

    def __init__(self, system: System, progress: Progress | None, callbacks: set[str]) -> None:
        self._system, self._progress = system, progress
        self.last = system.new_state()
        self.time = 0.0
        self.evaluations = self.accepted = self.rejected = 0
        # torchdiffeq warns of a callback that a method does not call, so each is offered only where it is.
        self._tells_of_acceptance = "callback_accept_step" in callbacks
        for name in callbacks:
            setattr(self, name, getattr(self, f"_{name}", None))

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.evaluations += 1
        self.last = self._system.new_state(x)
        out = self._system.new_state()
        self._system.field(self.last, out, float(t) if self._system.timeline.driven else None)
        return out.flat

    def _callback_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.time = float(t0)
        if not self._tells_of_acceptance:
            self._callback_accept_step(t0, y0, dt)

    def _callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.accepted += 1
        if self._progress is not None:
            self._progress.update(float(dt))

    def _callback_reject_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.rejected += 1

"""The closed form as a function, for `torch.autograd` to differentiate.

The solvers write into buffers, and take the weights as constants. Here the graph reaches back to the inputs, the
targets, the starts, the parameters of every stage and the feedback weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vjp

from neurodyn.errors import InvalidValueError
from neurodyn.layers.stages import ForwardPass, Stage, StagePoint, evaluated, sources
from neurodyn.network.drives import Data, Drive
from neurodyn.network.maps import Feedback, Forward, Map
from neurodyn.network.parts import Coupling
from neurodyn.network.vectors import uniform
from neurodyn.system.bound import Inputs, inputs_by_name
from neurodyn.system.system import System

Blocks = dict[str, Tensor]
"""Activity by population, shape (sample, …)."""


class Differentiable:
    """The starts, clamps and couplings of a bound network, with their graphs.

    Parameters
    ----------
    system
        The system, which has checked what follows; linear and acyclic.
    inputs, targets, initial
        What the system is bound to.
    """

    def __init__(self, system: System, inputs: Inputs, targets: Tensor | None, initial: Mapping[str, Tensor]) -> None:
        self._system, network = system, system.network
        by_name = {name: x for name, x in inputs_by_name(network, inputs).items() if isinstance(x, Tensor)}
        forward = _Pass(network.forward, by_name[network.inputs[0]]) if network.forward else None
        data = Data(by_name, targets, forward, network.loss)
        self._points = {} if forward is None else forward.points
        self._zeros = {p.name: self._filled(p.name, 0.0) for p in network.populations}
        self._clamped = {name: self._value(name, network[name].clamp, data) for name in system.clamped}
        self.start = {
            name: self._value(name, initial.get(name, network[name].initial), data) for name in system.dynamic
        }

    def _filled(self, name: str, value: float) -> Tensor:
        shape = (self._system.samples, *self._system.shapes[name])
        return torch.full(shape, value, dtype=self._system.dtype, device=self._system.device)

    def _value(self, name: str, given: Tensor | Drive | float | None, data: Data) -> Tensor:
        value = given.value(name, data) if isinstance(given, Drive) else given
        assert value is not None, "System refuses an absent start, and holds no population whose clamp is absent"
        return self._zeros[name] + value

    def equilibrium(self) -> Blocks:
        """Return x*, one population after the other."""
        activity = dict(self._clamped)
        for name in self._system.structure.order or ():
            terms = [c.gain * self._through(c, activity) for c in self._system.network.into(name)]
            activity[name] = sum(terms, self._zeros[name]) / self._system.network[name].leak
        return {name: activity[name] for name in self._system.dynamic}

    def couple(self, deviation: Blocks) -> Blocks:
        """Return N e, of a deviation e that is 0 where a population is absent; absent where it is 0.

        The instantaneous populations pass it on.
        """
        network, instantaneous = self._system.network, self._system.instantaneous
        passed = dict(deviation)
        coupled: Blocks = {}
        for name in (*instantaneous, *self._system.dynamic):
            divisor = network[name].leak if name in instantaneous else network[name].tau
            terms = []
            for coupling in network.into(name):
                if any(source in passed for source in coupling.sources):
                    term = self._through(coupling, passed)
                    if not coupling.map.homogeneous:
                        term = term - self._through(coupling, self._zeros)
                    terms.append(coupling.gain / divisor * term)
            if terms:
                (passed if name in instantaneous else coupled)[name] = sum(terms, self._zeros[name])
        return coupled

    def drive(self) -> Blocks:
        """Return b of dx/dt = A x + b, what the clamps and the maps' offsets make of a state of 0."""
        network, instantaneous = self._system.network, self._system.instantaneous
        activity = {**self._zeros, **self._clamped}
        driven: Blocks = {}
        for name in (*instantaneous, *self._system.dynamic):
            divisor = network[name].leak if name in instantaneous else network[name].tau
            terms = [coupling.gain / divisor * self._through(coupling, activity) for coupling in network.into(name)]
            (activity if name in instantaneous else driven)[name] = sum(terms, self._zeros[name])
        return driven

    def _through(self, coupling: Coupling, activity: Mapping[str, Tensor]) -> Tensor:
        map_ = coupling.map
        sources = [activity.get(source, self._zeros[source]) for source in coupling.sources]
        source = sources[0]
        if isinstance(map_, Feedback):
            point = self._points[map_.stage] if map_.frozen else _Point(map_.stage, self._zeros[coupling.target])
            return point.pull_back(map_, source)
        if isinstance(map_, Forward):
            return map_.stage.apply(source)
        if type(map_).apply is Map.apply:
            raise InvalidValueError(f"coupling {coupling}: {type(map_).__name__} has no differentiable closed form")
        return map_.apply(*sources)


def of_several_rates(system: System, traced: Differentiable, times: NDArray[np.float64], step: float | None) -> Blocks:
    """Return the activity, shape (time, sample, …), of an acyclic linear system whose populations have rates λ_i.

    With N_ij what j passes on to i, and b the drive, the activity is a sum over the ways through the network::

        x_i(t) = Σ f[−λ_j, …, −λ_i] N_i… ⋯ N_…j x_j(0) + Σ f[0, −λ_j, …, −λ_i] N_i… ⋯ N_…j b_j

    with the divided differences f[…] of f(z) = e^{zt}, or (1 + hz)^n for n Euler steps. They do not depend on the order
    of the rates, so that ways that meet the same ones are added up.

    Parameters
    ----------
    system, traced
        The system, and its differentiable parts.
    times
        The times.
    step
        The Euler step h; None for the flow.
    """
    network = system.network
    rates: dict[str, float] = {}
    for name in system.dynamic:
        rate = uniform(network[name].leak / network[name].tau)
        if isinstance(rate, Tensor):
            raise InvalidValueError(
                f"population {name}: its units have rates leak/tau of their own, for which there is no differentiable "
                "closed form"
            )
        rates[name] = rate
    drive = traced.drive()
    parts: dict[str, dict[tuple[float, ...], Tensor]] = {name: {} for name in system.dynamic}
    activity: Blocks = {}
    for name in (name for name in system.structure.order or () if name in rates):
        _add(parts[name], (rates[name],), traced.start[name])
        _add(parts[name], (0.0, rates[name]), drive[name])
        activity[name] = drive[name].new_zeros(len(times), *drive[name].shape)
        for met, block in parts[name].items():
            weights = torch.as_tensor(_divided_differences(met, times, step), dtype=system.dtype, device=system.device)
            activity[name] = activity[name] + torch.tensordot(weights[:, None], block[None], 1)
            for target, passed in traced.couple({name: block}).items():
                _add(parts[target], (*met, rates[target]), passed)
    return activity


def _add(parts: dict[tuple[float, ...], Tensor], met: tuple[float, ...], block: Tensor) -> None:
    key = tuple(sorted(met))
    parts[key] = parts[key] + block if key in parts else block


def _divided_differences(
    rates: tuple[float, ...], times: NDArray[np.float64], step: float | None
) -> NDArray[np.float64]:
    """Return f[−λ_0, …, −λ_k] at each time, the corner of f of a bidiagonal matrix (Opitz' theorem)."""
    decay, shift = np.diag(-np.array(rates)), np.eye(len(rates), k=1)
    if step is None:
        # Where t < k the corner would be lost beside the other entries; weighted by (k/t)^k it is not.
        k = len(rates) - 1
        above = np.maximum(times, k)
        from scipy.linalg import expm  # here, because it takes long to import

        values = expm(times[:, None, None] * decay + above[:, None, None] * shift)
        corner: NDArray[np.float64] = values[:, 0, -1] * (times / np.maximum(above, 1.0)) ** k
        return corner
    iterate = np.eye(len(rates)) + step * (decay + shift)
    return np.array([np.linalg.matrix_power(iterate, round(time / step))[0, -1] for time in times])


class _Point(StagePoint):
    """A stage at an operating point, with a graph."""

    def __init__(self, stage: Stage, *x: Tensor) -> None:
        self.stage = stage
        self._x = x
        self._output = stage.apply(*x)

    @property
    def value(self) -> Tensor:
        return self._output

    def pull_back(self, map_: Feedback, v: Tensor) -> Tensor:
        """Return Jᵀ v, as the map takes it."""
        if len(self._x) > 1:
            return vjp(self.stage.apply, *self._x)[1](v)[map_.argument]  # type: ignore[no-any-return]
        inputs = list(self._x)
        for layer in self.stage.layers[:-1]:
            inputs.append(layer(inputs[-1].clone()))
        for place in reversed(range(len(inputs))):
            layer, psi = self.stage.layers[place], {}
            if map_.weights is not None and place in map_.weights.tensors:
                tensor = map_.weights.tensors[place]
                psi = {"weight": tensor.t() if isinstance(layer, nn.Linear) else tensor}
            if map_.derivative or place not in self.stage.activations:
                (v,) = vjp(lambda x, layer=layer, psi=psi: functional_call(layer, psi, (x.clone(),)), inputs[place])[1](
                    v
                )
        return v


class _Pass(ForwardPass):
    """The forward pass, with a graph."""

    points: dict[Stage, _Point]  # type: ignore[assignment]

    def __init__(self, stages: Sequence[Stage], inputs: Tensor) -> None:
        self.points = {}
        *_, self.output = evaluated(sources(stages), inputs, self._value).values()

    def _value(self, stage: Stage, *x: Tensor) -> Tensor:
        self.points[stage] = _Point(stage, *x)
        return self.points[stage].value

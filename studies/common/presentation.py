"""Pairs presented to predictive coding networks: what is recorded, and when φ lets each unit learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from common.training import loss
from neurodyn.models import predictive_coding as pc
from neurodyn.network.timing import SpikeDetector

OUTCOMES = ("at L − l only", "at L − l and again", "at another step", "never")
CHOSEN = 4
"""t_d, from which on the paper found no failure."""

Builder = Callable[[tuple[int, ...], int, int], nn.Sequential]
"""A function of the shape of an input, the number of classes and a seed, that returns a network."""


@dataclass(frozen=True)
class Case:
    """A network and how pairs are presented to it.

    Parameters
    ----------
    name
        For tables and figures.
    build
        Builds the network.
    steps
        T.
    dtype
        Of weights and activity.
    predict
        For how many steps a prediction phase runs before, without targets, from the activity that another input left;
        with 0, activity starts from the forward pass.
    rate
        α of learning during inference (algorithm 2); with 0, weights stay while a pair is presented.
    epochs
        For how many epochs the weights were trained by backprop.
    """

    name: str
    build: Builder
    steps: int
    dtype: torch.dtype = torch.float32
    predict: int = 0
    rate: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class Presentation:
    """What was recorded while pairs were presented.

    Parameters
    ----------
    network
        What ran.
    inputs
        Shape (sample, …).
    run
        The values and errors before each step; the targets are clamped from time 0 on, and a prediction phase has
        negative times.
    forward
        The forward pass's value of each layer, shape (sample, …).
    delta
        Backprop's ∂ℒ/∂x_l of each sample.
    gradients
        Backprop's gradients of each stage's parameters.
    """

    network: nd.Network
    inputs: Tensor
    run: xr.Dataset
    forward: dict[str, Tensor]
    delta: xr.Dataset
    gradients: list[tuple[Tensor, ...]]

    def layers(self, window: int) -> Iterator[tuple[int, xr.DataArray, xr.DataArray]]:
        """Yield t = L − l, the errors and their spikes of each layer, from time 0 on."""
        number = len(self.network.forward)
        for layer in range(1, number + 1):
            errors = self.run[f"e{layer}"]
            spikes = nd.analysis.spikes(errors, window, step=1.0)
            yield number - layer, errors.sel(time=slice(0, None)), spikes.sel(time=slice(0, None))

    def outcomes(self, window: int) -> NDArray[np.int64]:
        """Return which of `OUTCOMES` each unit of each sample had, from the first layer to the last, flat."""
        found = []
        for moment, _, spikes in self.layers(window):
            count, in_time = spikes.sum("time").to_numpy(), spikes.sel(time=moment).to_numpy()
            found.append(np.where(in_time, np.where(count > 1, 1, 0), np.where(count > 0, 2, 3)).ravel())
        return np.concatenate(found)

    def in_time(self) -> NDArray[np.floating]:
        """Return ε_l at t = L − l, flat as `outcomes` is."""
        return np.concatenate([errors.sel(time=moment).to_numpy().ravel() for moment, errors, _ in self.layers(CHOSEN)])

    def ulps(self) -> NDArray[np.floating]:
        """Return |∂ℒ/∂x_l| in units of the rounding error of x_l, flat as `outcomes` is."""
        parts = []
        for name, value in self.forward.items():
            spacing = torch.finfo(value.dtype).eps * value.abs().numpy(force=True)
            parts.append((np.abs(self.delta[name].to_numpy()) / spacing).ravel())
        return np.concatenate(parts)

    def update_distance(self, window: int) -> float:
        """Return ‖Δθ − Δθ_BP‖ / ‖Δθ_BP‖ over all parameters, with Δθ summed over the presentation."""
        off, size = 0.0, 0.0
        below = self.inputs.expand(int((self.run.time >= 0).sum()), *self.inputs.shape)
        for stage, exact, (_, errors, spikes) in zip(
            self.network.forward, self.gradients, self.layers(window), strict=True
        ):
            post = self.tensor(errors * spikes).flatten(0, 1) / -len(self.inputs)
            for found, expected in zip(stage.at(below.flatten(0, 1)).gradient(post), exact, strict=True):
                off += float((found - expected).double().square().sum())
                size += float(expected.double().square().sum())
            if f"x{stage.name}" in self.run:
                below = self.tensor(self.run[f"x{stage.name}"].sel(time=slice(0, None)))
        return float(np.sqrt(off / size))

    def tensor(self, recorded: xr.DataArray) -> Tensor:
        """Return what was recorded as a tensor, on the device on which it ran."""
        return torch.tensor(recorded.to_numpy(), device=self.inputs.device)


def present(case: Case, inputs: Tensor, targets: Tensor, module: nn.Sequential) -> Presentation:
    """Present pairs to a case's network for T steps, and record its values and errors."""
    network = pc.network(module, learning="fa-z-il", steps=case.steps)
    delta = nd.analysis.backprop(network, inputs, targets)
    forward, value = {}, inputs
    for stage in network.forward:
        value = forward[f"x{stage.name}"] = stage.forward(value)
    gradients = [torch.autograd.grad(loss(module, inputs, targets), stage.parameters) for stage in network.forward]

    start: dict[str, Tensor] = {}
    phases: list[xr.Dataset] = []
    if case.predict:
        left = {name: value.roll(1, 0) for name, value in forward.items()}
        phase = infer(network, inputs, None, left, case.predict)
        start = ends_at(phase, network, inputs)
        phases = [phase.isel(time=slice(-1)).assign_coords(time=phase.time[:-1] - case.predict)]
    if case.rate:
        phases.extend(learn(network, inputs, targets, start, case))
    else:
        phases.append(infer(network, inputs, targets, start, case.steps))
    run = xr.concat(phases, "time", combine_attrs="drop")
    return Presentation(network, inputs, run, forward, delta, gradients)


def infer(
    network: nd.Network, inputs: Tensor, targets: Tensor | None, start: Mapping[str, Tensor], steps: int
) -> xr.Dataset:
    """Run so many steps of inference with γ = 1; return hidden values and errors before each, and at the end."""
    number = len(network.forward)
    record = [*(f"x{layer}" for layer in range(1, number)), *(f"e{layer}" for layer in range(1, number + 1))]
    return nd.simulate(
        network, inputs, targets, duration=float(steps), solver=nd.Euler(1.0), record=record, initial=start
    )


def ends_at(run: xr.Dataset, network: nd.Network, inputs: Tensor) -> dict[str, Tensor]:
    """Return the hidden values at the end of a run from some inputs, for the next to start from."""
    hidden = [f"x{stage.name}" for stage in network.forward[:-1]]
    return {name: torch.tensor(run[name].isel(time=-1).to_numpy(), device=inputs.device) for name in hidden}


def learn(
    network: nd.Network, inputs: Tensor, targets: Tensor, start: Mapping[str, Tensor], case: Case
) -> list[xr.Dataset]:
    """Do as `infer`, while the weights learn at each step where φ lets them (algorithm 2)."""
    detectors = [SpikeDetector(CHOSEN) for _ in network.forward]
    steps = []
    for time in range(case.steps + 1):
        step = infer(network, inputs, targets, start, 1)
        now = step.isel(time=[0]).assign_coords(time=[float(time)])
        steps.append(now)
        below = inputs
        for stage, detector in zip(network.forward, detectors, strict=True):
            error = torch.tensor(now[f"e{stage.name}"].to_numpy()[0], device=inputs.device)
            change = stage.at(below).gradient(error * detector.step(error) / len(inputs))
            with torch.no_grad():
                for parameter, by in zip(stage.parameters, change, strict=True):
                    parameter.add_(by, alpha=case.rate)
            if f"x{stage.name}" in now:
                below = torch.tensor(now[f"x{stage.name}"].to_numpy()[0], device=inputs.device)
        start = ends_at(step, network, inputs)
    return steps

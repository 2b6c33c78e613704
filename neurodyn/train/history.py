"""The history of a training run: what was measured at each batch and epoch, as a labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

_WHAT = {
    "train_loss": ("1", "training loss, before each update"),
    "train_accuracy": ("1", "training accuracy, before each update"),
    "test_loss": ("1", "test loss"),
    "test_accuracy": ("1", "test accuracy"),
    "angle": ("degree", "angle between the update and backprop's gradient"),
    "relaxation_iterations": ("1", "iterations of the relaxation, for one batch"),
    "seconds": ("s", "time of training"),
}
"""The variables of a history: units and long name."""

Measured = Mapping[str, Tensor]
"""What was measured, float64: shape (seed,), or (seed, layer) for angles, by the variable's name."""


@dataclass
class History:
    """What has been measured so far in a training run.

    Parameters
    ----------
    seeds
        The seeds trained at once; None for a run of one.
    layers
        The names of the layers whose angles are measured.
    each_iteration
        Whether to keep what is measured at each batch, beside the averages over an epoch.
    """

    seeds: Sequence[int] | None
    layers: Sequence[str]
    each_iteration: bool

    def __post_init__(self) -> None:
        self._epochs: dict[str, list[Tensor]] = {}
        self._iterations: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._seconds = 0.0

    def add_batch(self, measured: Measured, samples: int, seconds: float) -> None:
        """Add what was measured at a batch of so many samples, and how long it took."""
        for name, value in measured.items():
            self._sums[name] = value * samples + self._sums.get(name, torch.zeros_like(value))
            if self.each_iteration:
                self._iterations.setdefault(name, []).append(value)
        self._samples += samples
        self._seconds += seconds

    def end_epoch(self, tested: Measured) -> None:
        """End an epoch: average over its samples, and add what was measured on the test set."""
        means = {name: total / self._samples for name, total in self._sums.items()}
        for name, value in {**means, **tested, "seconds": torch.tensor(self._seconds, dtype=torch.float64)}.items():
            self._epochs.setdefault(name, []).append(value)
        self._sums, self._samples, self._seconds = {}, 0, 0.0

    @property
    def last_loss(self) -> float:
        """The loss of the last epoch, on the test set if there is one; the mean over the seeds."""
        return float(self._epochs.get("test_loss", self._epochs.get("train_loss", [torch.zeros(0)]))[-1].mean())

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors and numbers."""
        stacked = [{k: torch.stack(v) for k, v in part.items()} for part in (self._epochs, self._iterations)]
        return {
            "epochs": stacked[0],
            "iterations": stacked[1],
            "sums": self._sums,
            "samples": self._samples,
            "seconds": self._seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned.

        Raises
        ------
        ValueError
            If it is of another run.
        """
        members = 1 if self.seeds is None else len(self.seeds)
        for part, count in (("epochs", 1), ("iterations", 1), ("sums", 0)):
            for name, values in state[part].items():
                each = () if name == "seconds" else (members, len(self.layers)) if name == "angle" else (members,)
                if name not in _WHAT or tuple(values.shape[count:]) != each:
                    raise ValueError(f"its history has {name!r} of the shape {tuple(values.shape)}")
        self._epochs = {name: list(values) for name, values in state["epochs"].items()}
        self._iterations = {name: list(values) for name, values in state["iterations"].items()}
        self._sums, self._samples, self._seconds = dict(state["sums"]), state["samples"], state["seconds"]

    def dataset(self, attributes: Mapping[str, str | int | float]) -> xr.Dataset:
        """Return the history of the epochs ended so far, as `fit` describes it."""
        variables = {name: self._variable("epoch", name, values) for name, values in self._epochs.items()}
        for name, values in self._iterations.items():
            variables[f"{name}_by_iteration"] = self._variable("iteration", name, values)
        coordinates: dict[str, Any] = {}
        for dim, part in (("epoch", self._epochs), ("iteration", self._iterations)):
            if part:
                count = len(next(iter(part.values())))
                coordinates[dim] = (dim, np.arange(1, count + 1), {"units": "1", "long_name": f"{dim} of training"})
        if self.seeds is not None:
            coordinates["seed"] = ("seed", list(self.seeds), {"units": "1", "long_name": "seed"})
        if any("layer" in variable[0] for variable in variables.values()):
            coordinates["layer"] = ("layer", list(self.layers))
        return xr.Dataset(variables, coordinates, dict(attributes))

    def _variable(self, dim: str, name: str, values: Sequence[Tensor]) -> tuple[tuple[str, ...], Any, dict[str, str]]:
        units, long_name = _WHAT[name]
        array, dims = torch.stack(list(values)).numpy(), (dim, "seed", "layer")[: 1 + values[0].ndim]
        if "seed" in dims:
            array, dims = np.moveaxis(array, 1, 0), ("seed", dim, *dims[2:])
            if self.seeds is None:
                array, dims = array[0], dims[1:]
        return dims, array.copy(), {"units": units, "long_name": long_name}

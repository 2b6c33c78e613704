"""The history of a training run: what was measured at each batch and epoch, as a labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodyn.labelled import xr
from neurodyn.train.metrics import Labels, Measurement, check_alike

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

NAMES = [*_WHAT, *(f"{name}_by_iteration" for name in _WHAT), "epoch", "iteration", "seed", "layer"]
"""The names that a history gives, which metrics have not."""

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
        self._labels: dict[str, Labels] = {}
        self._iterations: dict[str, list[Tensor]] = {}
        self._lately: dict[str, list[Tensor]] = {}
        """What of the iterations is still where it was measured."""
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._seconds = 0.0

    def add_batch(self, measured: Measured, samples: int, seconds: float) -> None:
        """Add what was measured at a batch of so many samples, and how long it took; a device is not waited for."""
        for name, value in measured.items():
            before = self._sums.get(name)
            # What a checkpoint brought is where that was read to.
            self._sums[name] = value * samples + (0.0 if before is None else before.to(value.device))
            if self.each_iteration:
                self._lately.setdefault(name, []).append(value)
        self._samples += samples
        self._seconds += seconds

    def _fetch(self) -> None:
        """Bring what was measured lately from the device."""
        for name, values in self._lately.items():
            self._iterations.setdefault(name, []).extend(torch.stack(values).cpu())
        self._lately = {}

    def begin(self, tested: Measured, metrics: Mapping[str, Measurement]) -> None:
        """Begin with epoch 0: add what was measured before any update, of which there are metrics."""
        self._labels = {name: each.labels for name, each in metrics.items()}
        for name, value in {**tested, **{name: each.values for name, each in metrics.items()}}.items():
            self._epochs[name] = [value]

    def end_epoch(self, tested: Measured, metrics: Mapping[str, Measurement]) -> None:
        """End an epoch: average over its samples, and add what was measured on the test set and by metrics."""
        for name, each in metrics.items():
            check_alike(name, self._labels[name], each.labels, "before training", "after an epoch")
        means = {name: total.cpu() / self._samples for name, total in self._sums.items()}
        seconds = torch.tensor(self._seconds, dtype=torch.float64, device="cpu")
        measured = {name: each.values for name, each in metrics.items()}
        for name, value in {**means, **tested, **measured, "seconds": seconds}.items():
            self._epochs.setdefault(name, []).append(value)
        self._sums, self._samples, self._seconds = {}, 0, 0.0

    @property
    def last_loss(self) -> float:
        """The loss of the last epoch, on the test set if there is one; the mean over the seeds."""
        return float(self._epochs.get("test_loss", self._epochs.get("train_loss", [torch.zeros(0)]))[-1].mean())

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors and numbers."""
        self._fetch()
        stacked = [{k: torch.stack(v) for k, v in part.items()} for part in (self._epochs, self._iterations)]
        return {
            "epochs": stacked[0],
            "labels": self._labels,
            "iterations": stacked[1],
            "sums": {name: total.cpu() for name, total in self._sums.items()},
            "samples": self._samples,
            "seconds": self._seconds,
        }

    def misfit(self, state: Mapping[str, Any]) -> str | None:
        """Return what in a state is not of this run; None if all is."""
        members = 1 if self.seeds is None else len(self.seeds)
        labels = state.get("labels", {})  # of which there were none before there were metrics
        own = {name: tuple(each["shape"]) for name, each in labels.items()} | {"angle": (len(self.layers),)}
        for part, counted in (("epochs", 1), ("iterations", 1), ("sums", 0)):
            for name, values in state[part].items():
                each = () if name == "seconds" else (members, *own.get(name, ()))
                if name not in [*_WHAT, *labels] or tuple(values.shape[counted:]) != each:
                    return f"{name} of the shape {tuple(values.shape)}"
        return None

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
        labels = state.get("labels", {})
        self._epochs = {name: list(values) for name, values in state["epochs"].items()}
        self._labels = labels
        self._iterations = {name: list(values) for name, values in state["iterations"].items()}
        self._sums, self._samples, self._seconds = dict(state["sums"]), state["samples"], state["seconds"]

    def dataset(self, attributes: Mapping[str, str | int | float]) -> xr.Dataset:
        """Return the history of the epochs ended so far, as `fit` describes it."""
        self._fetch()
        variables: dict[str, Any] = {}
        coordinates: dict[str, Any] = {}
        for dim, part, end in (("epoch", self._epochs, ""), ("iteration", self._iterations, "_by_iteration")):
            count = max(map(len, part.values()), default=0)
            variables |= {f"{name}{end}": self._variable(dim, name, values, count) for name, values in part.items()}
            if part:
                first = 0 if dim == "epoch" and self._labels else 1
                moments = np.arange(first, first + count)
                coordinates[dim] = (dim, moments, {"units": "1", "long_name": f"{dim} of training"})
        if self.seeds is not None:
            coordinates["seed"] = ("seed", list(self.seeds), {"units": "1", "long_name": "seed"})
        if "angle" in variables:
            coordinates["layer"] = ("layer", list(self.layers))
        for labels in self._labels.values():
            coordinates |= {
                name: (each["dims"], np.asarray(each["data"]), each["attrs"]) for name, each in labels["coords"].items()
            }
        return xr.Dataset(variables, coordinates, dict(attributes))

    def _variable(
        self, dim: str, name: str, values: Sequence[Tensor], count: int
    ) -> tuple[tuple[str, ...], Any, dict[str, Any]]:
        """Return a variable of so many moments; NaN in the first ones, of which there are no values."""
        array = torch.stack(list(values)).numpy()
        if name in self._labels:
            dims, attrs = ("seed", *self._labels[name]["dims"]), {"long_name": name, **self._labels[name]["attrs"]}
        else:
            dims = ("seed", "layer")[: array.ndim - 1]
            attrs = dict(zip(("units", "long_name"), _WHAT[name], strict=True))
        if len(array) < count:
            array = np.concatenate([np.full((count - len(array), *array.shape[1:]), np.nan), array])
        if dims:
            array, dims = np.moveaxis(array, 1, 0), ("seed", dim, *dims[1:])
            if self.seeds is None:
                array, dims = array[0], dims[1:]
        return dims or (dim,), array.copy(), attrs

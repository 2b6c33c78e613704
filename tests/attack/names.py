"""The names in which the cases' expressions are evaluated: small valid objects to call the library with."""

import functools
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import matplotlib as mpl
import numpy as np
import scipy.io
import torch
import xarray as xr
from matplotlib import pyplot as plt
from torch import nn
from torch.utils.data import TensorDataset

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from tests.attack import damage, kills, networks

__all__ = [
    "Decimal", "Doubled", "Fraction", "Path", "TensorDataset", "ar", "ar_net", "axes", "byte_data", "damage",
    "dataset", "fb", "fresh", "hooked", "kills", "linear", "linked", "loop", "math", "midpoint", "module", "nd", "net",
    "networks", "nn", "np", "pair", "pc", "pc_net", "plot", "poisoned", "pure", "run", "saved", "square",
    "square_stages", "squares", "stage", "stages", "t", "torch", "tp", "with_drive", "with_linear_map",
    "with_loss", "with_map", "with_module", "with_observable", "with_until", "x", "xr",
]  # fmt: skip

mpl.use("agg")


class Own(nd.Map):
    """A map of a function."""

    def __init__(self, apply: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._own = apply

    def apply(self, source: torch.Tensor) -> torch.Tensor:
        return self._own(source)


class OwnLinear(Own):
    """A map that says that it is linear."""

    linear = True


class OwnDrive(nd.Drive):
    """A drive of a function."""

    def __init__(self, value: Callable[[str, object], torch.Tensor]) -> None:
        self._own = value

    def value(self, population: str, data: object) -> torch.Tensor:
        return self._own(population, data)

    def __str__(self) -> str:
        return "own"


class Doubled(nd.Map):
    """A user's map."""

    linear = True

    def apply(self, source: torch.Tensor) -> torch.Tensor:
        return 2 * source


def x(samples: int = 4, units: int = 3, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Inputs, of numbers that no seed changes."""
    return torch.linspace(-1, 1, samples * units, dtype=dtype).view(samples, units)


def t(samples: int = 4, units: int = 2) -> torch.Tensor:
    """Targets."""
    return torch.eye(units)[torch.arange(samples) % units]


def pair(samples: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return x(samples), t(samples)


def module() -> nn.Sequential:
    return nd.mlp([3, 5, 2])


def square() -> nn.Sequential:
    """A module that target propagation can invert."""
    return tp.tower([3, 3, 3], outputs=2)


def square_stages() -> list[nd.Stage]:
    return nd.cut(tp.tower([3, 3]))


def linear() -> nn.Linear:
    return nn.Linear(3, 3)


def stage() -> nd.Stage:
    return nd.Stage([linear(), nn.Tanh()], "1")


def stages() -> list[nd.Stage]:
    return nd.cut(module())


def fb(of: nd.Stage | None = None) -> nd.FeedbackWeights:
    return nd.FeedbackWeights(of or stage(), seed=0, learned=True)


def net(*more: nd.Population) -> nd.Network:
    """Two populations, linear."""
    return nd.Network(
        "net", [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3), *more], [nd.Coupling("s", "a")]
    )


def loop() -> nd.Network:
    """Two populations that excite each other, and one that is instantaneous; not linear."""
    rate = nd.Forward(nn.Tanh())
    return nd.Network(
        "loop",
        [
            nd.Population("s", 3, clamp=nd.Input()),
            nd.Population("a", 3),
            nd.Population("b", 3, tau=2.0),
            nd.Population("c", 3, tau=0.0),
        ],
        [nd.Coupling("s", "a"), nd.Coupling("a", "c", rate), nd.Coupling("c", "b"), nd.Coupling("b", "a", rate, -0.5)],
        observables=[nd.Observable("size", lambda activity: activity["a"].square().sum(1), "size of a")],
    )


def midpoint() -> nd.Tableau:
    return nd.Tableau(2, ((), (0.5,)), (0.0, 1.0))


def pure() -> nd.Network:
    """One population without inputs."""
    return nd.Network("pure", [nd.Population("a", 3, initial=1.0)])


def ar_net() -> nd.Network:
    return ar.network(module())


def pc_net(**settings: object) -> nd.Network:
    return pc.network(module(), **settings)  # type: ignore[arg-type]


def fresh(suffix: str) -> Path:
    """Return a name that no file has."""
    return Path(f"{uuid4().hex}.{suffix}")


def linked(gain: float) -> nd.Network:
    """A declaration to sweep."""
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3)]
    return nd.Network("linked", populations, [nd.Coupling("s", "a", gain=gain)])


def _small(map: nd.Map, initial: nd.Drive | float = 0.0, **settings: Any) -> nd.Network:
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3, initial=initial)]
    return nd.Network("small", populations, [nd.Coupling("s", "a"), nd.Coupling("a", "a", map, 0.5)], **settings)


def with_map(apply: Any) -> xr.Dataset:
    return nd.simulate(_small(Own(apply)), x(), duration=1.0)


def with_linear_map(apply: Any) -> xr.Dataset:
    return nd.simulate(_small(OwnLinear(apply)), x(), duration=1.0)


def with_drive(value: Any) -> xr.Dataset:
    return nd.simulate(_small(Doubled(), OwnDrive(value)), x(), duration=1.0)


def with_observable(value: Any) -> xr.Dataset:
    network = _small(Doubled(), observables=[nd.Observable("seen", value, "seen")])
    return nd.simulate(network, x(), duration=1.0, record=["a", "seen"])


def with_loss(loss: Any) -> torch.Tensor | None:
    return nd.backward(ar.network(module(), loss=loss), x(), t())


def with_until(until: Any) -> xr.Dataset:
    return nd.simulate(net(), x(), duration=1.0, until=until)


def with_module(module: Any) -> torch.Tensor | None:
    return nd.backward(ar.network(module), x(), t())


def hooked(layer: nn.Module) -> nn.Module:
    """A layer whose hook changes what it gives."""
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def poisoned(layer: nn.Linear) -> nn.Linear:
    """A layer with a weight that is no number."""
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    return layer


def run() -> xr.Dataset:
    """A recorded run at every step of discrete inference."""
    return nd.simulate(pc_net(learning="z-il"), x(), t(), duration=3.0, solver=nd.Euler(1.0))


def dataset() -> xr.Dataset:
    return nd.simulate(net(), x(), duration=1.0, save_at=3)


def saved(name: str) -> Path:
    return nd.save(dataset(), name)


def axes() -> object:
    plt.close("all")
    return plt.figure().add_subplot()


def squares(a: float, b: float = 0.0) -> dict[str, float]:
    """A function to sweep."""
    return {"y": a * a + b}


@functools.cache
def byte_data(name: str) -> Path:
    """Make a folder with a few samples in a data set's published format."""
    folder = Path("byte_data", name)
    (folder / "cifar-10-batches-bin").mkdir(parents=True, exist_ok=True)
    (folder / "cifar-100-binary").mkdir(exist_ok=True)

    def idx(file: str, array: np.ndarray) -> None:
        sizes = np.array(array.shape, ">u4").tobytes()
        (folder / file).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())

    for split in ("train", "t10k"):
        idx(f"{split}-images-idx3-ubyte", np.zeros((2, 28, 28)))
        idx(f"{split}-labels-idx1-ubyte", np.zeros(2))
    for batch in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (folder / f"cifar-10-batches-bin/{batch}.bin").write_bytes(bytes(2 * 3073))
    for split in ("train", "test"):
        (folder / f"cifar-100-binary/{split}.bin").write_bytes(bytes(2 * 3074))
        images = np.zeros((32, 32, 3, 2), np.uint8)
        scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": images, "y": np.ones((2, 1), np.uint8)})
    return folder

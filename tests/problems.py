"""What tests share: networks with their equations written a second time in NumPy, and modules with data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A network, and its equations written a second time, dy/dt = rhs(y), with y by population."""

    network: nd.Network
    start: dict[str, Array]
    rhs: Callable[[dict[str, Array]], dict[str, Array]]
    """The slopes, given the activities; shape (sample, units) both."""
    inputs: Tensor | None = None

    @property
    def initial(self) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self.start.items()}

    def simulate(self, duration: float, **settings) -> xr.Dataset:
        return nd.simulate(self.network, self.inputs, duration=duration, initial=self.initial, **settings)

    def flat_rhs(self, _: float, flat: Array) -> Array:
        slopes = self.rhs(self.unflatten(flat))
        return np.concatenate([slopes[name].ravel() for name in self.start])

    @property
    def flat_start(self) -> Array:
        return np.concatenate([value.ravel() for value in self.start.values()])

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """Split a flat state, shape (n,), or flat states, shape (time, n), by population."""
        blocks: dict[str, Array] = {}
        first = 0
        for name, value in self.start.items():
            blocks[name] = flat[..., first : first + value.size].reshape(*flat.shape[:-1], *value.shape)
            first += value.size
        return blocks

    def reference(self, times: Array) -> dict[str, Array]:
        """Return SciPy's solution at increasing times, shape (time, sample, units) by population."""
        solution = solve_ivp(
            self.flat_rhs,
            (0.0, float(times[-1])),
            self.flat_start,
            method="DOP853",
            t_eval=times,
            rtol=1e-12,
            atol=1e-13,
        )
        return self.unflatten(solution.y.T)

    def error(self, trajectory: xr.Dataset) -> float:
        """Return the largest distance of a trajectory to the reference, over all times and populations."""
        reference = self.reference(trajectory.time.values)
        return max(float(np.abs(trajectory[name].values - value).max()) for name, value in reference.items())


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return scale * np.random.default_rng([seed, *shape]).standard_normal(shape)


def tensor(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.tensor(random(*shape, seed=seed, scale=scale))


def decay(tau: float = 1.0, leak: float = 1.0, start: float = 1.0) -> Problem:
    """One leaky unit, x(t) = x(0) exp(−leak t / τ)."""
    network = nd.Network("decay", [nd.Population("x", 1, tau=tau, leak=leak)])
    return Problem(network, {"x": np.array([[start]])}, lambda y: {"x": -leak / tau * y["x"]})


def oscillator(frequency: float = 2.0) -> Problem:
    """Two leakless populations that turn around each other."""
    network = nd.Network(
        "oscillator",
        [nd.Population("x", 2, leak=0.0), nd.Population("y", 2, leak=0.0)],
        [nd.Coupling("y", "x", gain=-frequency), nd.Coupling("x", "y", gain=frequency)],
    )
    start = {"x": random(3, 2, seed=1), "y": random(3, 2, seed=2)}
    return Problem(network, start, lambda s: {"x": -frequency * s["y"], "y": frequency * s["x"]})


def stiff_pair(ratio: float = 50.0) -> Problem:
    """A fast inhibitory population that follows a slow one."""
    network = nd.Network(
        "stiff pair",
        [nd.Population("slow", 2), nd.Population("fast", 2, tau=1 / ratio, leak=1.5)],
        [nd.Coupling("slow", "fast"), nd.Coupling("fast", "slow", gain=-2.0)],
    )
    start = {"slow": random(2, 2, seed=3), "fast": random(2, 2, seed=4)}

    def rhs(y: dict[str, Array]) -> dict[str, Array]:
        return {"slow": -y["slow"] - 2 * y["fast"], "fast": ratio * (-1.5 * y["fast"] + y["slow"])}

    return Problem(network, start, rhs)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def wilson_cowan(samples: int = 2, units: int = 3) -> Problem:
    """Excitatory and inhibitory rates; the populations hE and hI are their instantaneous total inputs.

    H. R. Wilson, J. D. Cowan, Biophys. J. 12 (1972), without refractoriness.
    """
    gains = {("E", "E"): 12.0, ("I", "E"): -4.0, ("E", "I"): 13.0, ("I", "I"): -11.0}
    tau = {"E": 1.0, "I": 2.0}
    network = nd.Network(
        "Wilson–Cowan",
        [
            nd.Population("P", units, clamp=nd.Input()),
            nd.Population("hE", units, tau=0.0),
            nd.Population("hI", units, tau=0.0),
            *(nd.Population(name, units, tau=t) for name, t in tau.items()),
        ],
        [
            nd.Coupling("P", "hE"),
            *(nd.Coupling(source, f"h{target}", gain=gain) for (source, target), gain in gains.items()),
            *(nd.Coupling(f"h{name}", name, nd.Forward(nn.Sigmoid())) for name in tau),
        ],
    )
    drive = random(samples, units, seed=5)
    start = {"E": np.full((samples, units), 0.3), "I": np.full((samples, units), 0.1)}

    def rhs(y: dict[str, Array]) -> dict[str, Array]:
        total_e = drive + 12.0 * y["E"] - 4.0 * y["I"]
        total_i = 13.0 * y["E"] - 11.0 * y["I"]
        return {"E": sigmoid(total_e) - y["E"], "I": (sigmoid(total_i) - y["I"]) / 2.0}

    return Problem(network, start, rhs, torch.tensor(drive))


def hopfield(units: int = 6, samples: int = 2) -> Problem:
    """Symmetrically coupled units in continuous time, dx/dt = −x + W tanh(x) + input.

    J. J. Hopfield, PNAS 81 (1984).
    """
    weights = random(units, units, seed=6)
    weights = weights + weights.T
    recurrent = nn.Linear(units, units, bias=False, dtype=torch.float64)
    with torch.no_grad():
        recurrent.weight.copy_(torch.tensor(weights))
    network = nd.Network(
        "Hopfield",
        [nd.Population("s", units, clamp=nd.Input()), nd.Population("x", units)],
        [nd.Coupling("s", "x"), nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), recurrent)))],
    )
    drive = random(samples, units, seed=7)
    start = {"x": random(samples, units, seed=8)}
    return Problem(network, start, lambda y: {"x": -y["x"] + np.tanh(y["x"]) @ weights.T + drive}, torch.tensor(drive))


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "decay": decay,
    "oscillator": oscillator,
    "stiff pair": stiff_pair,
    "Wilson–Cowan": wilson_cowan,
    "Hopfield": hopfield,
}


def integrators(degree: int) -> Problem:
    """Return a chain of leakless populations of which the last is t^degree / degree!, exactly."""
    names = [f"x{i}" for i in range(degree + 1)]
    network = nd.Network(
        "integrators",
        [nd.Population(name, 1, leak=0.0) for name in names],
        [nd.Coupling(a, b) for a, b in pairwise(names)],
    )
    start = {name: np.array([[1.0 if name == "x0" else 0.0]]) for name in names}

    def rhs(y: dict[str, Array]) -> dict[str, Array]:
        return {"x0": 0 * y["x0"], **{b: y[a] for a, b in pairwise(names)}}

    return Problem(network, start, rhs)


@dataclass(frozen=True)
class Example:
    """A feedforward module with inputs and targets."""

    module: nn.Sequential
    inputs: Tensor
    targets: Tensor

    def gradients(self) -> list[Tensor]:
        """Return what `torch.autograd` gives for the batch mean of ½‖y − t‖², one tensor a parameter."""
        loss = 0.5 * (self.module(self.inputs) - self.targets).square().sum() / len(self.inputs)
        return list(torch.autograd.grad(loss, list(self.module.parameters())))


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}


def mlp(activation: str = "tanh", seed: int = 0, dtype: torch.dtype = torch.float64) -> Example:
    module = nd.mlp([12, 9, 7, 5], activation=activation, seed=seed, dtype=dtype)
    return Example(module, tensor(6, 12, seed=seed).to(dtype), tensor(6, 5, seed=seed).to(dtype))


def cnn(activation: str = "tanh", seed: int = 0, dtype: torch.dtype = torch.float64) -> Example:
    """Return a small network with pooling, strides, padding, groups and dilation."""
    f = ACTIVATIONS[activation]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            f(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2, padding=2, groups=2, dilation=2),
            f(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6, 7),
            f(),
            nn.Linear(7, 3),
        ).to(dtype)
    return Example(module, tensor(4, 2, 12, 10, seed=seed).to(dtype), tensor(4, 3, seed=seed).to(dtype))


EXAMPLES: Mapping[str, Callable[..., Example]] = {"mlp": mlp, "cnn": cnn}

"""Random networks, with their vector fields written by hand in NumPy: against SciPy, and against `torch.autograd`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.attack.cases import Case, Expected, Mismatch

Array = NDArray[np.float64]
Random = np.random.Generator
Value = Callable[[Array, Array], Array]
"""What a coupling gives, of the activity of its source and of its target; shapes (sample, units)."""

SOLVERS = (
    *("None", "nd.Euler(0.05)", "nd.Heun(0.05)", "nd.RK4(0.05)", "nd.Exact()", "nd.Exact(0.05)"),
    *(f'nd.Adaptive("{method}")' for method in ("heun_euler", "bosh3", "dopri5", "tsit5")),
    *("nd.Stabilized()", 'nd.TorchDiffEq("dopri5")', 'nd.TorchDiffEq("bosh3", rtol=1e-4)'),
)
KINDS = ("acyclic", "cyclic", "linear", "flow")


def cases(seed: int, networks: int) -> Iterator[Case]:
    """Yield as many random networks, each with every solver, and as many equilibria and gradients."""
    for place in range(networks):
        kind, number = KINDS[place % len(KINDS)], 100_000 * seed + place
        for solver in SOLVERS:
            yield _case("trajectories", f'networks.trajectory("{kind}", {number}, {solver})')
        yield _case("equilibria", f'networks.equilibrium("{kind}", {number})')
        yield _case("equilibria", f'networks.steady("{kind}", {number})')
        yield from (_case("gradients", f'networks.gradient("{rule}", {number})') for rule in RULES)


def _case(subject: str, call: str) -> Case:
    return Case(subject, call, Expected.RIGHT, seconds=120.0)


# The activations, with their derivatives


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


ACTIVATIONS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (nn.Tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": (nn.ReLU, lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "sigmoid": (nn.Sigmoid, _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "softplus": (nn.Softplus, lambda x: np.logaddexp(0, x), _sigmoid),
    "leaky": (lambda: nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1)),
    "hardtanh": (nn.Hardtanh, lambda x: np.clip(x, -1, 1), lambda x: np.where(np.abs(x) < 1, 1.0, 0.0)),
}


SMOOTH = ("tanh", "sigmoid", "softplus")
"""Those whose derivative may be part of the dynamics: where F jumps, a state may slide, and no ODE says how."""


class Bump(nd.Map):
    """A user's map, x / (1 + x²)."""

    def apply(self, source: Tensor) -> Tensor:
        return source / (1 + source.square())


# A random network, and its equations


@dataclass(frozen=True)
class Link:
    """A coupling, and what it gives, by hand."""

    source: str
    target: str
    gain: float
    map: nd.Map
    value: Value


@dataclass(frozen=True)
class Specification:
    """A network in numbers, and its vector field, τ dx/dt = −leak x + Σ gain · value."""

    tau: dict[str, float]
    leak: dict[str, float]
    start: dict[str, Array]
    """Of each dynamic population."""
    inputs: dict[str, Array]
    sizes: dict[str, int]
    """Of every population; instantaneous ones stand after what they read."""
    links: tuple[Link, ...]
    linear: bool

    @property
    def network(self) -> nd.Network:
        populations = [
            nd.Population(name, size, self.tau[name], self.leak[name])
            if name not in self.inputs
            else nd.Population(name, size, clamp=nd.Input())
            for name, size in self.sizes.items()
        ]
        couplings = [nd.Coupling(link.source, link.target, link.map, link.gain) for link in self.links]
        return nd.Network("random", populations, couplings)

    def data(self, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the inputs and the initial values."""
        of = [{name: torch.tensor(x, dtype=dtype) for name, x in part.items()} for part in (self.inputs, self.start)]
        return of[0], of[1]

    def balance(self, flat: Array) -> Array:
        """Return τ dx/dt of a flat state."""
        activity = dict(self.inputs)
        first = 0
        for name, start in self.start.items():
            activity[name] = flat[first : first + start.size].reshape(start.shape)
            first += start.size
        for name, size in self.sizes.items():
            if self.tau.get(name) == 0:
                activity[name] = self._total(name, size, activity) / self.leak[name]
        slopes = [
            self._total(name, self.sizes[name], activity) - self.leak[name] * activity[name] for name in self.start
        ]
        return np.concatenate([slope.ravel() for slope in slopes])

    def _total(self, name: str, size: int, activity: Mapping[str, Array]) -> Array:
        samples = len(next(iter(activity.values())))
        total = np.zeros((samples, size))
        for link in self.links:
            if link.target == name:
                here = activity.get(name, total)
                total = total + link.gain * link.value(activity[link.source], here)
        return total

    @property
    def flat_tau(self) -> Array:
        return np.concatenate([np.full(x.size, self.tau[name]) for name, x in self.start.items()])

    @property
    def flat_start(self) -> Array:
        return np.concatenate([x.ravel() for x in self.start.values()])

    def slope(self, _: float, flat: Array) -> Array:
        return self.balance(flat) / self.flat_tau


def _linear(random: Random, inputs: int, outputs: int) -> tuple[nn.Linear, Array, Array]:
    layer = nn.Linear(inputs, outputs, bias=bool(random.integers(2)), dtype=torch.float64)
    weights = random.uniform(0.3, 1.0) * random.standard_normal((outputs, inputs)) / np.sqrt(inputs)
    bias = random.standard_normal(outputs) if layer.bias is not None else np.zeros(outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer, weights, bias


def _link(random: Random, source: str, target: str, sizes: Mapping[str, int], *, linear: bool, live: bool) -> Link:
    """Draw a coupling; `live` if its map may read the target."""
    n, m = sizes[source], sizes[target]
    layer, w, b = _linear(random, n, m)
    back, v, c = _linear(random, m, n)
    make, f, _ = ACTIVATIONS[str(random.choice(list(ACTIVATIONS)))]
    smooth, _, slope = ACTIVATIONS[str(random.choice(SMOOTH))]
    choices: list[tuple[nd.Map, Value]] = [
        (nd.Forward(layer), lambda s, t: s @ w.T + b),
        (nd.Feedback(nd.Stage(back), "live"), lambda s, t: s @ v),
    ]
    if n == m:
        square = nn.Linear(n, n, dtype=torch.float64)
        with torch.no_grad():
            square.weight.add_(2 * torch.eye(n, dtype=torch.float64))
        q, d = square.weight.detach().numpy().copy(), square.bias.detach().numpy().copy()
        choices += [
            (nd.Identity(), lambda s, t: s),
            (nd.Inverse(square), lambda s, t: np.linalg.solve(q, (s - d).T).T),
        ]
    if not linear:
        choices += [
            (nd.Forward(nn.Sequential(layer, make())), lambda s, t: f(s @ w.T + b)),
            (nd.Forward(nn.Sequential(make(), layer)), lambda s, t: f(s) @ w.T + b),
        ]
        if n == m:
            choices += [(nd.Forward(make()), lambda s, t: f(s)), (Bump(), lambda s, t: s / (1 + s**2))]
        if live:
            choices += [
                (nd.Feedback(nd.Stage([back, smooth()]), at=target), lambda s, t: (s * slope(t @ v.T + c)) @ v),
                (nd.Feedback(nd.Stage([smooth(), back]), at=target), lambda s, t: (s @ v) * slope(t)),
            ]
    map_, value = choices[random.integers(len(choices))]
    return Link(source, target, float(random.choice([-1, 1]) * random.uniform(0.3, 1.2)), map_, value)


def specify(kind: str, number: int, *, leaky: bool = False, taus: float = 5.0) -> Specification:
    """Draw a network.

    Parameters
    ----------
    kind
        "acyclic"; "cyclic"; "linear", either of them; or "flow", a chain of values and errors like predictive coding.
    number
        The seed.
    leaky
        Whether every population has a leak.
    taus
        The largest time constant; the smallest is its reciprocal.
    """
    random = np.random.default_rng([KINDS.index(kind), number])
    torch.manual_seed(number)
    samples = int(random.integers(1, 4))
    if kind == "flow":
        return _flow(random, samples, taus)
    inputs, instant, dynamic = random.integers(0, 3), random.integers(0, 3), random.integers(1, 5)
    roles = ["input"] * inputs + list(random.permutation(["instant"] * instant + ["dynamic"] * dynamic))
    names = [f"{role[0]}{place}" for place, role in enumerate(roles)]
    role = dict(zip(names, roles, strict=True))
    sizes = {name: int(random.choice([1, 2, 3, 3, 3, 5])) for name in names}
    acyclic, linear = kind == "acyclic" or (kind == "linear" and random.random() < 0.3), kind == "linear"
    links = []
    for place, target in enumerate(names):
        if role[target] == "input":
            continue
        earlier = [name for name in names[:place] if not acyclic or name != target]
        known = earlier if acyclic else [name for name in names if role[name] != "instant" or name in earlier]
        if role[target] == "instant" and not acyclic:
            known = [name for name in known if name != target]
        for source in random.choice(known, min(len(known), int(random.integers(0, 4))), replace=False) if known else ():
            live = role[target] == "dynamic" and not acyclic
            links.append(_link(random, str(source), target, sizes, linear=linear, live=live))

    def of(which: str, draw: Callable[[str], Array]) -> dict[str, Array]:
        return {name: draw(name) for name in names if role[name] == which}

    def leak(name: str) -> float:
        needed = leaky or role[name] == "instant" or random.random() < 0.8
        return float(random.uniform(0.4, 2.0)) if needed else 0.0

    tau = {name: _tau(random, taus) if role[name] == "dynamic" else 0.0 for name in names if role[name] != "input"}
    return Specification(
        tau,
        {name: leak(name) for name in tau},
        of("dynamic", lambda name: random.standard_normal((samples, sizes[name]))),
        of("input", lambda name: random.standard_normal((samples, sizes[name]))),
        sizes,
        tuple(links),
        linear,
    )


def _tau(random: Random, taus: float) -> float:
    return float(np.exp(random.uniform(-1, 1) * np.log(taus)))


def _flow(random: Random, samples: int, taus: float) -> Specification:
    """Draw values x_l and errors e_l = x_l − g_l(x_{l−1}), with τ dx_l/dt = −e_l + J_{l+1}ᵀ e_{l+1}."""
    layers = int(random.integers(2, 5))
    widths = random.integers(1, 6, layers + 1).tolist()
    sizes = {f"x{place}": width for place, width in enumerate(widths)}
    sizes |= {f"e{place}": width for place, width in enumerate(widths) if place > 0}
    links = []
    for lower, upper in pairwise(range(layers + 1)):
        layer, w, b = _linear(random, widths[lower], widths[upper])
        make, f, slope = ACTIVATIONS[str(random.choice(SMOOTH))]
        stage = nd.Stage([make(), layer], str(upper))
        x, e, below = f"x{upper}", f"e{upper}", f"x{lower}"
        identity: Value = lambda s, t: s  # noqa: E731
        links += [
            Link(x, e, 1.0, nd.Identity(), identity),
            Link(below, e, -1.0, nd.Forward(stage), lambda s, t, w=w, b=b, f=f: f(s) @ w.T + b),  # type: ignore[misc]
            Link(e, x, -1.0, nd.Identity(), identity),
        ]
        if lower > 0:
            back = lambda s, t, w=w, slope=slope: (s @ w) * slope(t)  # noqa: E731
            links.append(Link(e, below, 1.0, nd.Feedback(stage, "live"), back))
    values = [f"x{place}" for place in range(1, layers + 1)]
    tau = {name: _tau(random, taus) for name in values} | {f"e{place}": 0.0 for place in range(1, layers + 1)}
    return Specification(
        tau,
        {name: 0.0 if name in values else 1.0 for name in tau},
        {name: random.standard_normal((samples, sizes[name])) for name in values},
        {"x0": random.standard_normal((samples, widths[0]))},
        sizes,
        tuple(links),
        linear=False,
    )


# Trajectories


def trajectory(kind: str, number: int, solver: nd.Solver | None) -> None:
    """Compare a run with SciPy's; of a solver of fixed step with its own formula, step by step.

    Raises
    ------
    Mismatch
        If it is not as right as the solver says.
    """
    of = specify(kind, number)
    random = np.random.default_rng(number)
    dtype = torch.float32 if random.random() < 0.2 else torch.float64
    network = _cast(of.network, dtype)
    inputs, initial = of.data(dtype)
    step = getattr(solver, "step", getattr(solver, "euler_step", None))
    times = np.linspace(0, random.uniform(0.5, 5.0), 7) if step is None else step * np.arange(random.integers(3, 60))
    try:
        path = nd.simulate(network, inputs, duration=times[-1], initial=initial, solver=solver, save_at=times)
    except nd.NeurodynError:
        if isinstance(solver, nd.Exact) and not all(link.map.linear for link in of.links):
            return  # it has no closed form
        raise
    found = np.concatenate([path[name].values.reshape(len(times), -1) for name in of.start], axis=1)
    if step is None:
        wanted, growth = _by_scipy(kind, number, tuple(times.tolist()))
        rough = _tolerance(path.attrs, wanted)
    else:
        wanted, growth, rough = _by_hand(of, step, len(times), path.attrs["solver"]), 10.0, 0.0
    allowed = growth * (rough + 1e3 * torch.finfo(dtype).eps * max(1.0, float(np.abs(wanted).max())))
    error = float(np.abs(found - wanted).max())
    if not error <= allowed:
        raise Mismatch(f"error {error:.2e}, allowed {allowed:.2e}, with {path.attrs['solver']}, {dtype}")


def _cast(network: nd.Network, dtype: torch.dtype) -> nd.Network:
    for stage in network.stages:
        for layer in stage.layers:
            layer.to(dtype)
    return network


def _tolerance(attributes: Mapping[str, Any], wanted: Array) -> float:
    """Return what the errors of the steps, each within the solver's tolerance, may sum up to."""
    solver = eval(attributes["solver"], vars(nd).copy())
    largest = float(np.abs(wanted).max())
    if isinstance(solver, nd.Exact):
        return 1e-6 * max(1.0, largest)
    steps = min(60, attributes["accepted_steps"])
    return steps * math.sqrt(wanted.shape[1]) * (solver.rtol * largest + solver.atol)


@lru_cache(maxsize=4)
def _by_scipy(kind: str, number: int, times: tuple[float, ...]) -> tuple[Array, float]:
    """Return SciPy's trajectory, shape (time, n), and by how much a small error at the start may grow."""
    of = specify(kind, number)

    def solve(start: Array) -> Array:
        solution = solve_ivp(of.slope, (0.0, times[-1]), start, "DOP853", times, rtol=1e-10, atol=1e-11)
        return np.asarray(solution.y.T)

    nudge = 1e-6 * np.random.default_rng(0).standard_normal(len(of.flat_start))
    wanted, moved = solve(of.flat_start), solve(of.flat_start + nudge)
    return wanted, 3.0 * max(1.0, float(np.abs(moved - wanted).max() / np.abs(nudge).max()))


def _by_hand(of: Specification, h: float, count: int, solver: str) -> Array:
    rows = [of.flat_start]
    for _ in range(count - 1):
        x = rows[-1]
        k1 = of.slope(0, x)
        if solver.startswith("Heun"):
            x = x + h / 2 * (k1 + of.slope(0, x + h * k1))
        elif solver.startswith("RK4"):
            k2 = of.slope(0, x + h / 2 * k1)
            k3 = of.slope(0, x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + of.slope(0, x + h * k3))
        else:
            x = x + h * k1
        rows.append(x)
    return np.stack(rows)


# Equilibria


def _settled(of: Specification) -> Array | None:
    """Return where the dynamics go from the start; None if they do not settle, or it hangs on a small change there."""
    ends = []
    for nudge in (0.0, 1e-4):
        x = of.flat_start + nudge
        for _ in range(12):
            long = 100 * float(of.flat_tau.max())
            solution = solve_ivp(of.slope, (0.0, long), x, "LSODA", rtol=1e-9, atol=1e-11)
            x = solution.y[:, -1]
            if not solution.success or not np.abs(x).max() < 1e6:
                return None
            if np.abs(of.balance(x)).max() < 1e-8:
                break
        else:
            return None
        ends.append(x)
    return ends[0] if np.abs(ends[0] - ends[1]).max() < 1e-3 else None


def _distance(of: Specification, x: Array, residual: float) -> float:
    """Return how far from an equilibrium x a state of a residual may be: residual · ‖J⁻¹‖."""
    base, columns = of.balance(x), []
    for place in range(len(x)):
        moved = x.copy()
        moved[place] += 1e-6
        columns.append((of.balance(moved) - base) / 1e-6)
    smallest = float(np.linalg.svd(np.stack(columns, 1), compute_uv=False)[-1])
    return 10 * np.sqrt(len(x)) * residual / max(smallest, 1e-12) + 1e-7 * max(1.0, float(np.abs(x).max()))


def equilibrium(kind: str, number: int) -> None:
    """Compare the equilibrium with the end of a long run of SciPy's.

    Raises
    ------
    Mismatch
        If it is said to be reached, and stable, and the dynamics go elsewhere.
    """
    of = specify(kind, number, leaky=True, taus=float(np.random.default_rng(number).choice([1.0, 5.0, 300.0])))
    inputs, initial = of.data(torch.float64)
    wanted = _settled(of)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it did not converge stands in the attributes, too
            run = nd.equilibrium(of.network, inputs, initial=initial)
    except nd.NeurodynError:
        if wanted is None:
            return
        raise
    if not run.attrs["converged"] or not run.attrs.get("stable", 1):
        return
    _compare(of, wanted, np.concatenate([run[name].values.ravel() for name in of.start]), 1.5e-8)


def steady(kind: str, number: int) -> None:
    """Compare where a run until it is steady ends with the end of a long run of SciPy's.

    Raises
    ------
    Mismatch
        If it ends as converged elsewhere.
    """
    slowest = float(np.random.default_rng(number).choice([1.0, 5.0, 300.0]))
    of = specify(kind, number, leaky=True, taus=slowest)
    inputs, initial = of.data(torch.float64)
    wanted = _settled(of)
    try:
        run = nd.simulate(of.network, inputs, initial=initial, duration=400.0, until=nd.steady(1e-4), save_at=2)
    except nd.DivergenceError:
        if wanted is None:
            return
        raise
    if run.attrs["converged"]:
        _compare(of, wanted, np.concatenate([run[name].values[-1].ravel() for name in of.start]), 1e-4)


def _compare(of: Specification, wanted: Array | None, found: Array, residual: float) -> None:
    balance = float(np.abs(of.balance(found)).max())
    if balance > 1.001 * residual + 1e-12 * max(1.0, float(np.abs(found).max())):
        raise Mismatch(f"max |τ dx/dt| is {balance:.2e} there, and converged=1 says {residual:.1e}")
    if wanted is None:
        return
    error, allowed = float(np.abs(found - wanted).max()), _distance(of, wanted, residual)
    if not error <= allowed:
        raise Mismatch(f"the dynamics end {error:.2e} away, allowed {allowed:.2e}; time constants {of.tau}")


# Gradients


class Residual(nn.Module):
    """A random graph: layers that skip each other, with shared weights."""

    def __init__(self, width: int, f: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.f = nn.Linear(width, width), nn.Linear(width, width), f

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.f(self.first(x))
        return y * torch.sigmoid(self.second(x)) + self.first(self.f(self.second(y)))


def module(number: int, *, ends_linear: bool) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Draw a feedforward module with inputs and targets, in double precision."""
    random = np.random.default_rng([9, number])
    torch.manual_seed(number)
    samples, layers = int(random.integers(1, 6)), int(random.integers(1, 5))
    f = ACTIVATIONS[str(random.choice(list(ACTIVATIONS)))][0]
    parts: list[nn.Module] = []
    shape: tuple[int, ...] = (int(random.integers(1, 8)),)
    if random.random() < 0.4:
        channels, side = int(random.integers(1, 4)), int(random.integers(5, 9))
        shape = (channels, side, side)
        parts = [nn.Conv2d(channels, 3, 3, stride=int(random.integers(1, 3)), padding=int(random.integers(0, 2))), f()]
        parts += [nn.MaxPool2d(2) if random.random() < 0.5 else nn.AvgPool2d(2), nn.Flatten()]
    width = nn.Sequential(*parts)(torch.zeros(1, *shape)).shape[1]
    for place in range(layers):
        after = int(random.integers(1, 8))
        parts += [nn.Linear(width, after, bias=bool(random.integers(4))), f()]
        width = after
        if random.random() < 0.2 and place < layers - 1:
            parts.append(nn.LayerNorm(width))
    if ends_linear or random.random() < 0.5:
        parts.append(nn.Linear(width, width))
    whole = nn.Sequential(*parts).double()
    x = torch.randn(samples, *shape, dtype=torch.float64)
    return whole, x, torch.randn(samples, width, dtype=torch.float64)


RULES: Mapping[str, Callable[[nn.Sequential, Tensor], nd.Network]] = {
    "ar": lambda module, x: ar.network(module),
    "ar relaxing": lambda module, x: ar.network(module, output="relaxing"),
    "ar graph": lambda module, x: ar.graph(module, x),
    "ar residual": lambda module, x: ar.graph(module, x),
    "z-il": lambda module, x: pc.network(module, learning="z-il"),
}


def gradient(rule: str, number: int) -> None:
    """Compare the gradients of a rule that equals backprop with those of `torch.autograd`.

    Raises
    ------
    Mismatch
        If they differ.
    """
    whole, x, t = module(number, ends_linear=rule == "z-il")
    if rule == "ar residual":
        whole = nn.Sequential(whole, Residual(t.shape[1], nn.Tanh()), nn.LayerNorm(t.shape[1])).double()
    loss = 0.5 * (whole(x) - t).square().sum() / len(x)
    wanted = torch.autograd.grad(loss, list(whole.parameters()), materialize_grads=True)
    whole.zero_grad()
    found = nd.backward(RULES[rule](whole, x), x, t)
    if found is None or not torch.isclose(found, loss.detach(), rtol=1e-9):
        raise Mismatch(f"the loss is {found}, and by autograd {float(loss):.6g}")
    for name, parameter, right in zip(dict(whole.named_parameters()), whole.parameters(), wanted, strict=True):
        size = max(float(right.abs().max()), 1e-3 * max(float(each.abs().max()) for each in wanted), 1e-12)
        error = float((torch.zeros_like(right) if parameter.grad is None else parameter.grad).sub(right).abs().max())
        if not error <= 1e-7 * size:
            raise Mismatch(f"the gradient of {name} is off by {error / size:.1e} of its size")

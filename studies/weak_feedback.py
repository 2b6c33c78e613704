"""The circuit with weak feedback: input and feedback present together, one activity per layer.

For each γ: (1) relaxation from the forward pass; (2) the distance of the equilibrium from the targets of ITP and
GAIT-prop, which falls with γ; (3) the time that relaxation takes, and the spectral abscissa, the largest real part of
an eigenvalue, of the circuit linearised at the forward pass and at its equilibrium: where that is positive, the circuit
is unstable. In a linear circuit with ITP's feedback, the loops of adjacent layers have the gain γ(1 − γ) whatever the
weights, so that the abscissa of L layers is −1 + 2 √(γ(1 − γ)) cos(π/(L + 1)) < 0.

After N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning rule derived from
backpropagation of error" (2020), §6 and its supplementary material.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.options import Options as StudyOptions
from common.options import parse
from common.report import table, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.checks import whole
from neurodyn.models import target_propagation as tp

Rule = Literal["itp", "gait"]
InitialWeights = Literal["xavier", "orthogonal"]

GAMMAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0)
GAMMA = 1e-3
"""The paper's."""
SHOWN = (1e-6, 1e-3, 1e-2, 0.1)
"""Of which relaxation is drawn."""
DURATION = 30.0
TIMES = np.linspace(0.0, DURATION, 121)
SETTLED = 1e-3
"""A layer has relaxed when it has come this close to the equilibrium, relative to where that is."""
RULES: dict[Rule, str] = {"itp": "ITP", "gait": "GAIT-prop"}
WEIGHTS: dict[InitialWeights, str] = {"xavier": "random", "orthogonal": "orthogonal"}
COLOURS = dict(zip(product(WEIGHTS, RULES), (plot.ORANGE, plot.VERMILION, plot.SKY, plot.BLUE), strict=True))
PRECISE = nd.Adaptive("dopri5", rtol=1e-6, atol=1e-9)


@dataclass(frozen=True)
class Options(StudyOptions):
    """What to run.

    Parameters
    ----------
    width
        The units of every layer.
    layers
        L, the layers after the input.
    samples
        Normally distributed inputs, each with a random class for a target.
    """

    out: Path = Path("results/weak_feedback")
    seeds: tuple[int, ...] = (0, 1)
    width: int = 8
    layers: int = 4
    samples: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "layers", "samples"):
            whole(name, getattr(self, name), least=2)


PAPER = Options(full=True, width=64, seeds=tuple(range(10)))
"""A larger setting, about half an hour; the paper gives none for the circuit."""


@dataclass(frozen=True)
class Case:
    """A network in float64, and samples."""

    module: nn.Sequential
    inputs: Tensor
    targets: Tensor

    @classmethod
    def draw(cls, options: Options, weights: InitialWeights, seed: int) -> Case:
        n = options.width
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(options.samples, n, generator=generator, dtype=torch.float64)
        classes = torch.randint(n, (options.samples,), generator=generator)
        module = tp.tower([n] * (options.layers + 1), weights=weights, seed=seed, dtype=torch.float64)
        targets = torch.eye(n, dtype=torch.float64)[classes]
        return cls(module.to(options.device), inputs.to(options.device), targets.to(options.device))

    def rest(self, network: nd.Network, names: list[str]) -> NDArray[np.float64] | None:
        """Return the equilibrium of some populations, shape (layer, sample, unit); None if none is found."""
        try:
            with warnings.catch_warnings():
                # This study goes on purpose where there is nothing to converge to.
                warnings.filterwarnings("ignore", message=".*has not reached its equilibrium")
                found = nd.equilibrium(network, self.inputs, self.targets, record=names, max_duration=DURATION)
        except nd.DivergenceError:
            return None
        return np.stack([found[name] for name in names]) if found.attrs["converged"] else None

    def relax(self, network: nd.Network, names: list[str]) -> NDArray[np.float64] | None:
        """Return the relaxation of some populations, shape (layer, time, sample, unit); None if it diverges."""
        try:
            found = nd.simulate(
                network, self.inputs, self.targets, duration=DURATION, save_at=TIMES, solver=PRECISE, record=names
            )
        except nd.DivergenceError:
            return None
        return np.stack([found[name] for name in names])

    def abscissa(self, network: nd.Network, values: dict[str, Tensor]) -> NDArray[np.float64]:
        """Return the spectral abscissa of the circuit linearised at some activity, shape (sample,)."""
        system = nd.System(network, self.inputs, self.targets, initial=values)
        blocks = [(place, system.shape(name)[0]) for name, place in system.places()]
        jacobian = torch.linalg.eigvals(linearise(system, blocks)).real
        return jacobian.amax(1).numpy(force=True)


def linearise(system: nd.System, blocks: list[tuple[slice, int]]) -> Tensor:
    """Return the Jacobian of dx/dt at x(0) by central differences, shape (sample, n, n).

    The samples do not interact, so that a unit is displaced in all of them at once. Where a unit is, the field has a
    slope on either side; the displacement is small enough to stay on one.
    """
    start = system.initial_state().flat.clone()

    def by_sample(flat: Tensor) -> Tensor:
        return torch.cat([flat[place].view(system.samples, units) for place, units in blocks], 1)

    def field(flat: Tensor) -> Tensor:
        out = system.new_state()
        system.field(system.new_state(flat), out)
        return by_sample(out.flat)

    columns = []
    for place, units in blocks:
        # Of each population's own size: the populations carry deviations of very different scales.
        own = 1e-6 * max(float(start[place].abs().max()), 1.0)
        for unit in range(units):
            moved = torch.zeros_like(start)
            moved[place].view(system.samples, units)[:, unit] = own
            columns.append((field(start + moved) - field(start - moved)) / (2 * own))
    return torch.stack(columns, 2)


def measure(options: Options) -> xr.Dataset:
    """Relax every circuit at every γ, and compare its equilibrium with the targets."""
    dims: dict[str, list[Any]] = {
        "weights": list(WEIGHTS),
        "rule": list(RULES),
        "gamma": list(GAMMAS),
        "seed": list(options.seeds),
        "layer": list(range(1, options.layers + 1)),
        "time": TIMES.tolist(),
        "sample": list(range(options.samples)),
    }
    variables = {
        "distance": (("layer",), "distance of the equilibrium from the targets, relative to those", "1"),
        "remaining": (("layer", "time"), "distance from the equilibrium, relative to that of the start", "1"),
        "relaxation_time": ((), f"time until every layer is within {SETTLED:g} of the equilibrium", "tau"),
        "abscissa_at_start": (("sample",), "spectral abscissa at the forward pass", "1/tau"),
        "abscissa": (("sample",), "spectral abscissa at the equilibrium", "1/tau"),
    }
    common = ("weights", "rule", "gamma", "seed")
    found = {
        name: np.full([len(dims[dim]) for dim in (*common, *own)], np.nan) for name, (own, _, _) in variables.items()
    }
    tasks = list(product(WEIGHTS, RULES, GAMMAS, options.seeds))
    for number, (weights, rule, gamma, seed) in enumerate(options.progress(tasks, unit="circuit")):
        at = np.unravel_index(number, [len(dims[dim]) for dim in common])
        case = Case.draw(options, weights, seed)
        network = tp.weak_feedback(case.module, rule=rule, gamma=gamma)
        names = [f"d{stage.name}" for stage in network.forward]
        found["abscissa_at_start"][at] = start = case.abscissa(network, {})
        if start.max() >= 0:  # unstable as soon as it starts
            continue
        rest = case.rest(network, names)
        if rest is not None:
            targets = case.rest(tp.network(case.module, rule=rule, gamma=gamma), names)
            assert targets is not None, "the targets are solved by one sweep"
            found["distance"][at] = norm(rest - targets) / norm(targets)
            carried = [p.name for p in network.populations if p.tau > 0 and p.clamp is None]
            states = case.rest(network, carried)
            assert states is not None, "it was found before"
            values = dict(zip(carried, torch.tensor(states, device=options.device), strict=True))
            found["abscissa"][at] = case.abscissa(network, values)
            path = case.relax(network, names)
            if path is None:
                continue
            remaining = norm(np.moveaxis(path, 1, 0) - rest) / norm(rest)
            found["remaining"][at] = remaining.T
            late = np.flatnonzero(remaining.max(1) > SETTLED)
            if late[-1] + 1 < len(TIMES):
                found["relaxation_time"][at] = TIMES[late[-1] + 1]
    result = xr.Dataset({name: ((*common, *own), found[name]) for name, (own, _, _) in variables.items()}, dims)
    for name, (_, what, unit) in variables.items():
        result[name].attrs = {"units": unit, "long_name": what}
    result["gamma"].attrs = {"units": "1", "long_name": "γ"}
    result["time"].attrs = {"units": "tau", "long_name": "time"}
    result["expected"] = ("gamma", expected_abscissa(np.array(GAMMAS), options.layers))
    result["expected"].attrs = {"units": "1/tau", "long_name": "spectral abscissa of the linear circuit"}
    return result


def norm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm over samples and units, the last two axes."""
    return np.sqrt(np.square(values).sum((-2, -1)))


def expected_abscissa(gamma: NDArray[np.float64], layers: int) -> NDArray[np.float64]:
    """Return −1 + 2 √(γ(1 − γ)) cos(π/(L + 1)): a chain of L units with the loop gain γ(1 − γ) between neighbours."""
    return -1.0 + 2.0 * np.sqrt(gamma * (1.0 - gamma)) * np.cos(np.pi / (layers + 1))


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = measure(options)
    about = {"width": str(options.width), "activation": "leaky_relu"}
    with plot.style():
        files = write(options.out, {"weak_feedback": picture(found)}, {"weak_feedback": found}, about)
    print(
        f"The circuit with weak feedback: {options.layers} layers of {options.width} leaky ReLU units, float64, "
        f"{len(options.seeds)} seeds of {options.samples} samples"
    )
    print(summary(found), files, sep="\n\n")


def picture(found: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(11, 7))
    axes = figure.subplot_mosaic("abc;def")
    draw_layers(axes["a"], found)
    draw_gammas(axes["b"], found)
    distance = found.distance.max("layer").median("seed")
    median = found.relaxation_time.median("seed")
    for (weights, rule), colour in COLOURS.items():
        look: dict[str, Any] = {"color": colour, "label": f"{RULES[rule]}, {WEIGHTS[weights]}"}
        marker = "o-" if rule == "itp" else "s--"
        at = {"weights": weights, "rule": rule}
        axes["c"].plot(found.gamma, distance.sel(at), marker, markersize=4, **look)
        axes["d"].plot(found.gamma, median.sel(at), marker, markersize=4, **look)
        axes["e"].plot(found.gamma, found.abscissa_at_start.sel(at).max(["seed", "sample"]), marker, ms=4, **look)
        axes["f"].plot(found.gamma, 100 * unstable(found).sel(at), marker, markersize=4, **look)
    small = found.gamma.where(found.gamma <= 0.3, drop=True)
    axes["c"].plot(small, (found.sizes["layer"] - 1) * small, ":", color=plot.BLACK, label="(L − 1) γ")
    axes["e"].plot(found.gamma, found.expected, ":", color=plot.BLACK, label="linear circuit, ITP")
    axes["e"].axhline(0, color=plot.GREY, linewidth=0.6)
    axes["c"].set(yscale="log", ylabel="relative distance from the targets")
    axes["d"].set(ylabel=f"time to {SETTLED:g} of the equilibrium (τ)", ylim=(0, None))
    axes["e"].set(ylabel="largest spectral abscissa (1/τ)")
    axes["e"].set_yscale("symlog", linthresh=1.0)
    axes["f"].set(ylabel="circuits with an unstable sample (%)", ylim=(-4, 104))
    for letter, title in {
        "c": "(c) Equilibrium and targets, farthest layer",
        "d": "(d) Relaxation, slowest layer",
        "e": "(e) Linearised at the forward pass",
        "f": "(f) Loss of stability",
    }.items():
        axes[letter].set(xscale="log", xlabel="feedback strength γ (1)", title=title)
    for letter in "cef":
        axes[letter].legend(fontsize=7, loc="upper left")
    return figure


def unstable(found: xr.Dataset) -> xr.DataArray:
    """Return the share of seeds with a sample that is unstable at the start, or reaches no stable equilibrium."""
    return 1.0 - (found.abscissa < 0).all("sample").mean("seed")


def draw_layers(ax: Axes, found: xr.Dataset) -> None:
    at = found.remaining.sel(weights="xavier", rule="itp", gamma=GAMMA).isel(seed=0)
    colours = plt.colormaps["viridis"](np.linspace(0, 0.9, found.sizes["layer"]))
    for layer, colour in zip(found.layer.values, colours, strict=True):
        ax.plot(found.time, at.sel(layer=layer), color=colour, label=layer)
    ax.set(yscale="log", xlim=(0, 30), ylim=(1e-6, 3), xlabel="time (τ)", ylabel="distance from equilibrium (relative)")
    ax.set_title(f"(a) Relaxation at γ = {GAMMA:g}, ITP, random")
    ax.legend(title="layer", fontsize=8)


def draw_gammas(ax: Axes, found: xr.Dataset) -> None:
    at = found.remaining.sel(weights="orthogonal", rule="itp").isel(seed=0, layer=0)
    colours = plt.colormaps["viridis"](np.linspace(0, 0.9, len(SHOWN)))
    for gamma, colour in zip(SHOWN, colours, strict=True):
        ax.plot(found.time, at.sel(gamma=gamma), color=colour, label=f"{gamma:g}")
    ax.set(yscale="log", xlim=(0, 30), ylim=(1e-6, 3), xlabel="time (τ)", ylabel="distance from equilibrium (relative)")
    ax.set_title("(b) Layer 1 for several γ, ITP, orthogonal")
    ax.legend(title="γ", fontsize=8)


def summary(found: xr.Dataset) -> str:
    """Return the tables that are printed."""
    number = "{:.2g}".format
    gammas = [gamma for gamma in GAMMAS if gamma in (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.9, 1.0)]
    header = [f"{gamma:g}" for gamma in gammas]
    distance, time = found.distance.max("layer").median("seed"), found.relaxation_time.median("seed")
    abscissa = found.abscissa_at_start.max(["seed", "sample"])
    tables = {
        "Distance from the targets, relative, farthest layer, median of the seeds": distance,
        f"Time (τ) until every layer is within {SETTLED:g} of the equilibrium, median of the seeds": time,
        "Spectral abscissa (1/τ) at the forward pass, the largest of all samples": abscissa,
        "Share of the circuits with a sample that is unstable at the start or reaches no stable equilibrium": unstable(
            found
        ),
    }
    parts = []
    for title, values in tables.items():
        rows = [
            [
                f"{RULES[rule]}, {name}",
                *(number(float(value)) for value in values.sel(weights=weights, rule=rule, gamma=gammas)),
            ]
            for (weights, name), rule in product(WEIGHTS.items(), RULES)
        ]
        if values is abscissa:
            rows.append(["linear circuit, ITP", *map(number, found.expected.sel(gamma=gammas).values)])
        parts.append(f"{title}:\n{table(['γ', *header], rows)}")
    parts.append("The paper derives that the equilibrium carries ITP's targets for weak feedback; it gives no numbers.")
    return "\n\n".join(parts)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a few samples gain nothing from more
    main(parse(PAPER, __doc__))

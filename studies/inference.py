"""Inference in predictive coding: which steps γ settle, what they are samples of, and error units that lag.

(1) By Euler's method: energy against time for each γ, and the γ at which inference ceases to settle, against the bound
2/λ_max of the energy's Hessian, at first weights and at those that backprop has learned. (2) In continuous time:
Euler's iterates sample the gradient flow dx/dt = −∂F/∂x as γ → 0. (3) Error populations with a time constant τ_ε > 0
make it oscillate, and from some τ_ε on it does not settle, as the eigenvalues of the
matrix in `common/linearised.py` tell.

Beyond Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of
Backpropagation in Predictive Coding Networks" (2020), whose inference takes steps of γ (algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
import xarray as xr
from common import divergence
from common.claims import BEYOND, Row, holds, write_rows
from common.linearised import Linearisation, linearise
from common.options import parse
from common.report import table, write
from figures.inference import draw_continuous, draw_inference
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import predictive_coding as pc

GAMMAS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The paper's."""
SAMPLES = 20
"""Of the inference that is looked at in detail."""
STEPS = 400
"""Of Euler's method, after which inference has settled or not."""
AROUND, ASIDE = 31, (15, 10)
"""How many γ are tried around the bounds, and below and above those."""
SETTLED = 1e-3
"""Inference has settled when its last step is that small against its first."""
FLOW_STEPS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
FLOW_TIME = 10.0
LAG_SAMPLES = 6
TAUS = torch.logspace(-2, 3, 31, dtype=torch.float64)
LAGS = (0.0, 1.0, 10.0, 100.0)
LAG_TIME = 100.0
WEIGHTS = ("first", "learned")
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""Of the critical τ_ε."""
DISTURBANCE = 1e-5
PERIODS = 6
E_FOLDS = 8
PRECISE = nd.Adaptive("dopri5", rtol=1e-10, atol=1e-12)
NEAR_BOUND = 0.05
"""How far beside the bound, relative to it, γ may cease to settle: so much lies between the γ that are tried."""


@dataclass(frozen=True)
class Options(divergence.Options):
    """What to run, in the networks of the first seed; their learned weights are those of backprop."""

    epochs: int = 20
    samples: int | None = 600
    seeds: tuple[int, ...] = divergence.Options.seeds[:1]
    out: Path = Path("results/inference")


PAPER = Options(full=True, dataset="mnist", samples=None)
"""On larger images; the paper does not look at inference itself."""


@dataclass(frozen=True)
class Problem:
    """A network and the pairs whose inference is looked at, in float64."""

    module: nn.Sequential
    inputs: Tensor
    targets: Tensor

    @classmethod
    def draw(cls, options: Options, hidden: int, *, learned: bool) -> Problem:
        """Return the first seed's network, at its first weights or trained by backprop."""
        if learned:
            _, (module,) = divergence.train(options, hidden, lambda module: module, options.seeds[:1])
        else:
            module = options.logistic(hidden, options.seeds[0])
        assert isinstance(module, nn.Sequential)
        return cls(module, *options.draw(SAMPLES))

    @property
    def weights(self) -> list[Tensor]:
        return [parameter for parameter in self.module.parameters() if parameter.ndim == 2]

    @property
    def hidden(self) -> list[str]:
        return [f"x{number}" for number in range(1, len(self.weights))]

    def simulate(self, duration: float, solver: nd.Solver, **options: Any) -> xr.Dataset:
        network = pc.network(self.module, error_tau=options.pop("error_tau", 0.0))
        return nd.simulate(network, self.inputs, self.targets, duration=duration, solver=solver, **options)


def settle(problem: Problem, gammas: NDArray[np.float64]) -> xr.Dataset:
    """Return, for each γ and sample, the energy after some steps, and the size of the last step over the first's."""
    energy, moving = [], []
    for gamma in gammas:
        at = gamma * np.array([0, 1, STEPS - 1, STEPS])
        try:
            run = problem.simulate(STEPS * gamma, nd.Euler(gamma), record=["energy", *problem.hidden], save_at=at)
        except nd.DivergenceError:
            energy.append(np.full(SAMPLES, np.inf))
            moving.append(np.full(SAMPLES, np.inf))
            continue
        values = np.concatenate([run[name].to_numpy() for name in problem.hidden], axis=2)
        first, last = (np.linalg.norm(values[now + 1] - values[now], axis=1) for now in (0, 2))
        energy.append(run.energy.to_numpy()[-2:].max(0))
        moving.append(last / first)
    return xr.Dataset({"energy": (("gamma", "sample"), energy), "moving": (("gamma", "sample"), moving)})


def stability(options: Options, learned: bool, hidden: int) -> xr.Dataset:
    """Compare the γ at which Euler's method ceases to settle with 2/λ_max, sample by sample."""
    problem = Problem.draw(options, hidden, learned=learned)
    linear = linearise(pc.network(problem.module), problem.inputs, problem.targets)
    bound = linear.largest_step.numpy(force=True)
    fine = np.linspace(0.8 * bound.min(), 1.2 * bound.max(), AROUND)
    below, above = np.geomspace(0.02, fine[0], ASIDE[0]), np.geomspace(fine[-1], 3, ASIDE[1])
    gammas = np.sort([*below[:-1], *fine, *above[1:]])
    found = settle(problem, gammas)
    rest = 0.5 * linear.errors.square().sum(1).numpy(force=True)
    start = problem.simulate(1.0, nd.Euler(1.0), record=["energy"]).energy.to_numpy()[0]
    # Steps much smaller than the bound are too short to settle within so few of them.
    unsettled = (found.moving.to_numpy() > SETTLED) & (gammas >= fine[0])[:, None]
    return xr.Dataset(
        {
            "bound": ("sample", bound),
            "measured": ("sample", np.where(unsettled.any(0), gammas[unsettled.argmax(0)], np.nan)),
            "excess": (("point", "sample"), (found.energy.to_numpy() - rest) / (start - rest)),
            "gamma": ("point", gammas),
        },
        attrs={"iterations": STEPS},
    )


def energies(options: Options) -> xr.Dataset:
    """Record the energy in time for each γ, and in continuous time, in one network at its first weights."""
    problem = Problem.draw(options, middle(options), learned=False)
    runs = {}
    for gamma in GAMMAS:
        run = problem.simulate(max(2 * GAMMAS[-1], gamma), nd.Euler(gamma), record=["energy"])
        runs[f"euler_{gamma:g}"] = run.energy.mean("sample").rename(time=f"time_{gamma:g}")
    flow = problem.simulate(2 * GAMMAS[-1], PRECISE, record=["energy"], save_at=201)
    return xr.Dataset(runs | {"flow": flow.energy.mean("sample")})


def flow(options: Options) -> xr.Dataset:
    """Measure how far Euler's iterates are from the flow at the same times, in one network at its first weights."""
    problem = Problem.draw(options, middle(options), learned=False)
    exact = problem.simulate(FLOW_TIME, PRECISE, record=problem.hidden, save_at=1 + round(FLOW_TIME / FLOW_STEPS[-1]))
    far, unit = [], {}
    for step in FLOW_STEPS:
        run = problem.simulate(FLOW_TIME, nd.Euler(step), record=problem.hidden)
        at = exact.isel(time=slice(None, None, round(step / FLOW_STEPS[-1])))
        far.append(max(float(np.abs(run[name].to_numpy() - at[name].to_numpy()).max()) for name in problem.hidden))
        unit[f"euler_{step:g}"] = run.x1[:, 0, 0].rename(time=f"time_{step:g}").drop_vars(["sample", "x1_unit"])
    unit["flow"] = exact.x1[:, 0, 0].drop_vars(["sample", "x1_unit"])
    return xr.Dataset({"distance": ("step", far)} | unit, {"step": list(FLOW_STEPS)})


def lag(options: Options, learned: bool) -> xr.Dataset:
    """Give the error populations a time constant: eigenvalues, and a unit in runs from the forward pass."""
    problem = Problem.draw(options, middle(options), learned=learned)
    few = replace(problem, inputs=problem.inputs[:LAG_SAMPLES], targets=problem.targets[:LAG_SAMPLES])
    linear = linearise(pc.network(few.module), few.inputs, few.targets)
    taus = TAUS.to(options.device)
    spectra = torch.stack([torch.linalg.eigvals(linear.jacobian(tau)) for tau in taus])
    growth = spectra.real.amax(2)
    critical = linear.critical_tau(taus, growth)
    data = xr.Dataset(
        {
            "growth": (("tau", "sample"), growth.numpy(force=True)),
            "frequency": (("tau", "sample"), spectra.imag.amax(2).numpy(force=True)),
            "critical": ("sample", critical.numpy(force=True)),
            "oscillation": ("sample", linear.oscillation_tau.numpy(force=True)),
            "critical_damping": ("sample", 0.25 / torch.linalg.eigvalsh(linear.hessian)[:, 0].numpy(force=True)),
        },
        {"tau": TAUS.numpy()},
    )
    for error_tau in LAGS:
        run = few.simulate(LAG_TIME, PRECISE, record=["x1"], save_at=401, error_tau=error_tau)
        data[f"value_{error_tau:g}"] = run.x1[:, 0, 0].drop_vars(["sample", "x1_unit"])
    return data.merge(disturb(few, linear, critical))


def disturb(problem: Problem, linear: Linearisation, critical: Tensor) -> xr.Dataset:
    """Push one sample from its equilibrium along the fastest growing eigenvector, with τ_ε around the critical one."""
    sample = int(critical.argsort()[len(critical) // 2])
    one = replace(problem, inputs=problem.inputs[[sample]], targets=problem.targets[[sample]])
    rest = torch.cat([linear.values[sample], linear.errors[sample]])
    layers = [weight.shape[0] for weight in problem.weights]
    names = [*one.hidden, *(f"e{number}" for number in range(1, len(layers) + 1))]
    found: dict[str, list[Any]] = {"moment": [], "distance_from_rest": [], "predicted": [], "measured": []}
    for factor in FACTORS:
        error_tau = factor * critical[sample]
        values, vectors = torch.linalg.eig(linear.jacobian(error_tau)[sample])
        fastest = values.real.argmax()
        start = rest + DISTURBANCE * vectors[:, fastest].real
        initial = dict(zip(names, start[None].split([*layers[:-1], *layers], 1), strict=True))
        rate, frequency = float(values[fastest].real), float(values[fastest].imag.abs())
        # Until it grows out of the linear range, or shrinks to the solver's errors.
        duration = min(2 * np.pi * PERIODS / max(0.1, frequency), E_FOLDS / abs(rate))
        run = one.simulate(duration, PRECISE, record=names, save_at=601, error_tau=float(error_tau), initial=initial)
        activity = np.concatenate([run[name].to_numpy()[:, 0] for name in names], 1)
        off = np.linalg.norm(activity - rest.numpy(force=True), axis=1)
        found["moment"].append(run.time.to_numpy())
        found["distance_from_rest"].append(off)
        found["predicted"].append(rate)
        found["measured"].append(np.polyfit(run.time.to_numpy(), np.log(off), 1)[0])
    dims = {name: ("factor", "point") if np.ndim(value[0]) else "factor" for name, value in found.items()}
    return xr.Dataset(
        {name: (dims[name], values) for name, values in found.items()} | {"followed": float(critical[sample])},
        {"factor": list(FACTORS)},
    )


def middle(options: Options) -> int:
    """Return the number of hidden layers of the network that is looked at in continuous time."""
    return options.hidden[len(options.hidden) // 2]


def main(options: Options) -> None:
    """Run the study, write its results and its figures, and print its tables."""
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(1)  # the layers are too small for more
    parts = [(learned, hidden) for learned in (False, True) for hidden in options.hidden]
    with options.progress(total=len(parts) + 4, desc="inference", unit="part") as bar:

        def done(result: Any) -> Any:
            bar.update()
            return result

        tables = [done(stability(options, *part)) for part in parts]
        steps = xr.concat(tables, xr.Variable("network", [f"{hidden} hidden" for _, hidden in parts]))
        steps = steps.assign_coords(weights=("network", [WEIGHTS[learned] for learned, _ in parts]))
        energy = done(energies(options))
        continuous = done(flow(options))
        both = [done(lag(options, learned)) for learned in (False, True)]
        lags = xr.concat(both, xr.Variable("weights", list(WEIGHTS)))

    about = {"dataset": options.dataset, "setting": f"logistic, hidden layers of {options.width}, float64"}
    with plot.style():
        figures = {
            "inference": draw_inference(energy, steps),
            "inference_continuous": draw_continuous(continuous, lags),
        }
        datasets = {"energy": energy, "stability": steps, "flow": continuous, "lag": lags}
        files = write(options.out, figures, datasets, about)
    here = f"{about['dataset']}, {about['setting']}"
    claims = write_rows(options, here, rows(steps, continuous, lags))
    print(summary(steps, continuous, lags), claims, files, sep="\n\n")


def rows(steps: xr.Dataset, continuous: xr.Dataset, lags: xr.Dataset) -> list[Row]:
    """Return what came out beside what is derived of inference."""
    ratio = steps.measured / steps.bound
    order = order_of(continuous)
    off = abs(lags.measured - lags.predicted)
    foretold = (off <= 0.2 * abs(lags.predicted) + 5e-3) & (np.sign(lags.predicted) == np.sign(lags.factor - 1))
    critical = ", ".join(f"{float(lags.followed.sel(weights=name)):.3g} ({name} weights)" for name in WEIGHTS)
    return [
        Row(
            BEYOND,
            "inference",
            "derived",
            "Euler's method settles up to γ = 2/λ_max of the energy's Hessian",
            f"it ceases at {float(ratio.min()):.3f} to {float(ratio.max()):.3f} times that; {steps.sizes['network']} "
            f"networks of {steps.sizes['sample']} samples, one seed",
            holds((abs(ratio - 1) < NEAR_BOUND).all(), f"more than {NEAR_BOUND:g} of it away"),
        ),
        Row(
            BEYOND,
            "inference",
            "derived",
            "Euler's iterates are samples of the gradient flow, off by the first power of γ",
            f"off by γ^{order:.2f}, {len(FLOW_STEPS)} steps from {min(FLOW_STEPS):g} to {max(FLOW_STEPS):g}; one seed",
            holds(abs(order - 1) < 0.1, "by another power"),
        ),
        Row(
            BEYOND,
            "inference",
            "derived",
            "with error units that lag, inference ceases to settle where an eigenvalue's real part passes 0",
            f"at τ_ε = {critical}; simulated growth rates at {', '.join(f'{each:g}' for each in FACTORS)} times that "
            f"are off the eigenvalue's by {float(off.max()):.2g} at most; one seed",
            holds(foretold.all(), "the eigenvalues do not tell"),
        ),
    ]


def order_of(continuous: xr.Dataset) -> float:
    """Return the power of γ with which the distance of Euler's iterates from the flow falls, for small γ."""
    small = continuous.step < 0.15
    return float(np.polyfit(np.log(continuous.step), np.log(continuous.distance), 1, w=small)[0])


def summary(steps: xr.Dataset, continuous: xr.Dataset, lags: xr.Dataset) -> str:
    """Return the tables that are printed."""
    rows = []
    for network in range(steps.sizes["network"]):
        part = steps.isel(network=network)
        ratio = part.measured / part.bound
        rows.append(
            [
                f"{part.network.item()}, {part.weights.item()} weights",
                f"{part.bound.min().item():.3f} – {part.bound.max().item():.3f}",
                f"{part.measured.min().item():.3f} – {part.measured.max().item():.3f}",
                f"{ratio.min().item():.3f} – {ratio.max().item():.3f}",
            ]
        )
    text = [f"The γ at which Euler's method ceases to settle ({SAMPLES} samples, {STEPS} steps)"]
    text += [table(["", "2/λ_max", "measured", "ratio"], rows)]
    text += [
        "",
        "Continuous time: the largest distance of Euler's iterates from the flow, over time, units and samples",
    ]
    text += [
        table(
            ["γ", *(f"{step:g}" for step in FLOW_STEPS)],
            [["distance", *(f"{far:.2g}" for far in continuous.distance.to_numpy())]],
        ),
        f"It falls as γ^{order_of(continuous):.2f}: a first-order sample of the flow.",
    ]
    return "\n".join([*text, "", *lag_table(lags)])


def lag_table(lags: xr.Dataset) -> list[str]:
    """Return what errors that lag do: the time constants that count, and how fast disturbances grow."""

    def span(values: xr.DataArray) -> str:
        parts = [(weights, values.sel(weights=weights)) for weights in WEIGHTS]
        return " and ".join(f"{part.min().item():.3g} – {part.max().item():.3g} ({name})" for name, part in parts)

    fastest = lags.tau[lags.growth.mean("sample").argmin("tau")].to_numpy()
    rows = []
    for weights in WEIGHTS:
        for factor in FACTORS:
            at = lags.sel(weights=weights, factor=factor)
            name = f"{weights} weights, {factor:g} × {at.followed.item():.3g}"
            rows.append([name, f"{at.predicted.item():+.4f}", f"{at.measured.item():+.4f}"])
    lines = [
        f"- From τ_ε = 1/(4σ²_max) on, {span(lags.oscillation)}, the fastest modes oscillate.",
        f"- At τ_ε = {fastest[0]:.2g} and {fastest[1]:.2g} inference settles fastest, about where its slowest mode is "
        f"critically damped, 1/(4λ_min) = {span(lags.critical_damping)}.",
        f"- From τ_ε = {span(lags.critical)} on, it does not settle: the curvature of the predictions outweighs the "
        "leak 1/τ_ε of the errors. In a linear network, it always settles.",
    ]
    return [
        "Error populations with a time constant τ_ε, first and learned weights",
        *(fill(line, 120, subsequent_indent="  ") for line in lines),
        "",
        "Growth rate of a small disturbance of one sample's equilibrium (1/τ)",
        table(["τ_ε", "eigenvalue", "simulated"], rows),
    ]


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

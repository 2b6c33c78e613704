"""The step γ and the moment of learning: how far inference learning ends from backprop, and why.

(1) Networks of 1 to 3 hidden layers learn by inference with each γ, the weights updated at each time t; their test
error and their final weights are compared with those of the same network trained by backprop (figure 3 of Song et
al., conditions C2 and C3). The time "l" is the paper's: W_l learns at step L − l, Z-IL with γ = 1. Beyond the paper:
the divergence at t = l for γ close to 1, the factor γ^(L−l) on each layer's update, and which trainings diverge.
(2) Inference itself, by Euler's method: energy against time for each γ, and the γ at which it ceases to settle,
against the bound 2/λ_max of the energy's Hessian.
(3) Inference in continuous time: Euler's iterates sample the gradient flow as γ → 0; error populations with a time
constant τ_ε > 0 make it oscillate, and from some τ_ε on it does not settle.

After Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of
Backpropagation in Predictive Coding Networks" (2020), §5.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common import divergence
from common.claims import PC, Row, holds, write_rows
from common.learning_curves import means_of, plus_minus, statistics
from common.linearised import Linearisation, linearise
from common.options import parse
from common.report import number_of, table, write
from common.training import loss
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import predictive_coding as pc

GAMMAS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0)
Time = Literal["l", "0", "1", "2", "3", "4", "16", "64"]
TIMES: tuple[Time, ...] = get_args(Time)
"""The paper's."""
SAMPLES = 20
"""Of the inference that is looked at in detail."""
LEARNED_EPOCHS = 20
STEPS = 400
AROUND, ASIDE = 31, (15, 10)
"""How many γ are tried around the bounds, and below and above those."""
SETTLED = 1e-3
"""Inference has settled when its last step is that small against its first."""
ROUNDING = 1e-6
"""A divergence of weights in float64 below which is rounding."""
FLOW_STEPS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
FLOW_TIME = 10.0
LAG_SAMPLES = 6
TAUS = torch.logspace(-2, 3, 31, dtype=torch.float64)
LAGS = (0.0, 1.0, 10.0, 100.0)
LAG_TIME = 100.0
NEAR = (0.9, 0.97, 0.99, 0.997, 1.003, 1.01, 1.03, 1.1)
"""The γ close to 1."""
WEIGHTS = {"first": plot.BLUE, "learned": plot.VERMILION}
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""Of the critical τ_ε."""
DISTURBANCE = 1e-5
PERIODS = 6
E_FOLDS = 8
PRECISE = nd.Adaptive("dopri5", rtol=1e-10, atol=1e-12)


@dataclass(frozen=True)
class Options(divergence.Options):
    """What to run; (2) and (3) take the first seed.

    Parameters
    ----------
    times
        At which steps of inference the weights are updated: a number, or "l", at which W_l learns at step L − l.
    store
        A Zarr store (`….zarr`) in which each training of (1) is a point of a sweep, each network alone, with the
        samples in its seed's own order. What is interrupted goes on from there as the same command is given again.
    workers
        How many processes train, with a store.
    """

    epochs: int = 20
    samples: int | None = 600
    times: tuple[Time, ...] = ("l", "0", "1", "2", "4", "16")
    store: Path | None = None
    workers: int = 1
    out: Path = Path("results/gamma_sweep")


PAPER = Options(full=True, dataset="mnist", samples=None, epochs=64, rate=0.001, times=TIMES)
"""About a day on two cores."""


def rule(time: str, gamma: float) -> dict[str, Any]:
    """Return the options of `pc.network` that update the weights at a time of `TIMES`."""
    if time == "l":
        return {"learning": "z-il", "step": gamma}
    return {"learning": "il", "steps": int(time), "step": gamma}


# (1) Training


def sweep(options: Options) -> xr.Dataset:
    """Train every network, and measure its divergence from backprop."""
    times, gammas = zip(*product(options.times, GAMMAS), strict=True)
    parts = []
    with options.progress(total=len(options.hidden) * len(times), desc="training", unit="rule") as bar:
        for hidden in options.hidden:
            found, backprop = divergence.diverge(options, hidden, list(map(rule, times, gammas)), progress=bar)
            found = found.assign_coords(time=("rule", list(times)), gamma=("rule", list(gammas)))
            found = found.set_index(rule=["time", "gamma"]).unstack("rule").sel(time=list(options.times))
            parts.append(found.assign(backprop_test_error=backprop.test_error, backprop_moved=backprop.moved))
    return xr.concat(parts, xr.Variable("hidden", list(options.hidden)))


def point(hidden: int, time: Time, gamma: float, seed: int, *, options: Options) -> xr.Dataset:
    """Train one network by a rule, and one by backprop, and measure the divergence."""
    torch.set_num_threads(1)  # in a process of its own, too
    found, backprop = divergence.diverge(replace(options, seeds=(seed,)), hidden, [rule(time, gamma)])
    both = found.isel(rule=0).assign(backprop_test_error=backprop.test_error, backprop_moved=backprop.moved)
    return both.isel(seed=0, drop=True).reset_coords(drop=True)


def stored(options: Options, store: Path) -> xr.Dataset:
    """Train every network alone, as a point of a sweep in a store."""
    trained = {each.name: getattr(options, each.name) for each in fields(divergence.Options)}
    free = {"out": Options.out, "quiet": True, "full": False, "seeds": Options.seeds, "hidden": Options.hidden}
    grid = {"hidden": options.hidden, "time": options.times, "gamma": GAMMAS, "seed": options.seeds}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        swept = nd.sweep(
            partial(point, options=Options(**{**trained, **free})),
            grid,
            store=store,
            scheduler=executor if options.workers > 1 else None,
            progress=not options.quiet,
        ).load()
    swept = swept.drop_vars("computed").transpose("hidden", "seed", "time", "gamma", ...)
    once = {name: swept[name].isel(time=0, gamma=0, drop=True) for name in ("backprop_test_error", "backprop_moved")}
    return swept.assign({**once, "diverged": swept.diverged.astype(np.int8)})


def near(options: Options) -> xr.Dataset:
    """Train every network at t = l with γ close to 1."""
    parts = []
    for hidden in options.progress(options.hidden, desc="near 1", unit="network"):
        found, _ = divergence.diverge(options, hidden, [rule("l", gamma) for gamma in NEAR])
        parts.append(found.assign_coords(gamma=("rule", list(NEAR))).swap_dims(rule="gamma"))
    return xr.concat(parts, xr.Variable("hidden", list(options.hidden)))


def scaling(options: Options) -> tuple[float, xr.DataArray]:
    """Return the largest relative deviation of W_l's update at t = L − l from γ^(L−l) times backprop's, and factors.

    Those are |ΔW_l| / |ΔW_l of backprop| of the deepest network, over `gamma` and `above`, L − l.
    """
    worst = 0.0
    factors: list[list[float]] = []
    for hidden in options.hidden:
        factors = []
        problem = Problem.draw(options, hidden, learned=False)
        exact = torch.autograd.grad(loss(problem.module, problem.inputs, problem.targets), problem.weights)
        for gamma in GAMMAS:
            problem.module.zero_grad()
            nd.backward(pc.network(problem.module, **rule("l", gamma)), problem.inputs, problem.targets)
            factors.append([])
            for above, (weight, expected) in enumerate(zip(problem.weights[::-1], exact[::-1], strict=True)):
                assert weight.grad is not None
                factors[-1].append(float(weight.grad.norm() / expected.norm()))
                off = torch.linalg.vector_norm(weight.grad - gamma**above * expected)
                worst = max(worst, float(off / torch.linalg.vector_norm(gamma**above * expected)))
    return worst, xr.DataArray(factors, {"gamma": list(GAMMAS), "above": range(len(factors[0]))}, ("gamma", "above"))


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
            setting = replace(options, epochs=LEARNED_EPOCHS, rate=0.1)
            _, (module,) = divergence.train(setting, hidden, lambda module: module, options.seeds[:1])
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


# (2) Euler's method


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
        }
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


# (3) Continuous time


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
    training = sweep(options) if options.store is None else stored(options, options.store)
    close = near(options)
    parts = [(learned, hidden) for learned in (False, True) for hidden in options.hidden]
    with options.progress(total=len(parts) + 4, desc="inference", unit="part") as bar:

        def done(result: Any) -> Any:
            bar.update()
            return result

        tables = [done(stability(options, *part)) for part in parts]
        steps = xr.concat(tables, xr.Variable("network", [f"{hidden} hidden" for _, hidden in parts]))
        learned_too = ["learned" if learned else "first" for learned, _ in parts]
        steps = steps.assign_coords(weights=("network", learned_too))
        energy = done(energies(options))
        continuous = done(flow(options))
        both = [done(lag(options, learned)) for learned in (False, True)]
        lags = xr.concat(both, xr.Variable("weights", list(WEIGHTS)))
    deviation, factors = scaling(options)

    about = {"dataset": options.dataset, "setting": f"{options}, logistic"}
    with plot.style():
        figures = {
            "gamma_sweep": draw_training(training),
            "gamma_sweep_near_1": draw_near(close, factors, training),
            "gamma_sweep_inference": draw_inference(energy, steps),
            "gamma_sweep_continuous": draw_continuous(continuous, lags),
        }
    print(summary(training, deviation, steps, continuous, lags, about))
    close["factor"] = factors.rename(gamma="gamma_of_factor")
    datasets = {
        "training": training,
        "near_1": close,
        "energy": energy,
        "stability": steps,
        "flow": continuous,
        "lag": lags,
    }
    print(write_rows(options, f"{about['dataset']}, {about['setting']}", rows(training)))
    print(write(options.out, figures, datasets, about))


def rows(training: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 3, C2 and C3."""
    setting = "MNIST, logistic, 1 to 3 hidden layers of 32, 64 epochs"
    exact = training.sel(time="l", gamma=1.0).weights
    elsewhere = training.weights.where((training.time != "l") | (training.gamma != 1.0))
    seeds = f"{number_of(training.sizes['seed'], 'seed')}, {number_of(training.sizes['hidden'], 'depth')}"
    own = plus_minus(training.backprop_test_error.isel(epoch=-1).mean("hidden"))
    return [
        Row(
            PC,
            "figure 3, C2 and C3",
            setting,
            "zero divergence from backprop at t = l and γ = 1",
            f"Σ‖θ − θ_BP‖ at most {float(exact.max()):.1g}; {seeds}; backprop's own test error {own} %",
            holds(exact.max() < ROUNDING, "more than rounding"),
        ),
        Row(
            PC,
            "figure 3, C2 and C3",
            setting,
            "… and nowhere else",
            f"Σ‖θ − θ_BP‖ at least {float(elsewhere.min()):.2g}; {int(training.diverged.sum())} of "
            f"{training.diverged.size} trainings diverged",
            holds(elsewhere.min() > ROUNDING, "zero elsewhere too"),
        ),
    ]


# Tables


def summary(
    training: xr.Dataset,
    deviation: float,
    steps: xr.Dataset,
    continuous: xr.Dataset,
    lags: xr.Dataset,
    about: Mapping[str, str],
) -> str:
    text = [f"{about['dataset']}: {about['setting']}; {means_of(training.sizes['seed'])}"]
    for hidden in training.hidden.to_numpy():
        part = training.sel(hidden=hidden)
        first, last = (plus_minus(part.backprop_test_error.isel(epoch=epoch)) for epoch in (0, -1))
        text += [
            "",
            f"{hidden} hidden: backprop's own test error (%) is {first} after the first epoch, {last} at the end",
        ]
        head = [f"{hidden} hidden", *(f"γ = {gamma:g}" for gamma in GAMMAS)]
        for name, title in (
            ("test_error", "|test error − backprop's|, percentage points, mean over epochs"),
            ("weights", f"Σ ‖θ − θ_BP‖ at the end; backprop itself moved {part.backprop_moved.mean().item():.3g}"),
        ):
            rows = [
                [f"t = {time}", *(cell(part[name], part.diverged, time, gamma) for gamma in GAMMAS)]
                for time in part.time.values
            ]
            text += ["", title, table(head, rows)]
    text += ["", *(fill(line, 120, subsequent_indent="  ") for line in findings(training, deviation))]
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
    text += ["", f"The γ at which Euler's method ceases to settle ({SAMPLES} samples, {STEPS} steps)"]
    text += [table(["", "2/λ_max", "measured", "ratio"], rows)]
    slope = np.polyfit(np.log(continuous.step), np.log(continuous.distance), 1, w=continuous.step < 0.15)[0]
    text += [
        "",
        "Continuous time: the largest distance of Euler's iterates from the flow, over time, units and samples",
    ]
    text += [
        table(
            ["γ", *(f"{step:g}" for step in FLOW_STEPS)],
            [["distance", *(f"{far:.2g}" for far in continuous.distance.to_numpy())]],
        ),
        f"It falls as γ^{slope:.2f}: a first-order sample of the flow.",
    ]
    return "\n".join([*text, "", *lag_table(lags)])


def lag_table(lags: xr.Dataset) -> list[str]:
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


def short(value: float) -> str:
    """Return two digits that count, and no exponent below 10,000."""
    return f"{value:.0e}".replace("e+0", "e") if value >= 1e4 else f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def cell(values: xr.DataArray, diverged: xr.DataArray, time: str, gamma: float) -> str:
    """Return the mean over the seeds, or how many of them diverged."""
    number = int(diverged.sel(time=time, gamma=gamma).sum())
    if number:
        return f"✗ {number}/{diverged.sizes['seed']}"
    found = values.sel(time=time, gamma=gamma)
    _, error = statistics(found)
    return short(found.mean().item()) + (f" ± {short(error.item())}" if error.notnull() else "")


def findings(training: xr.Dataset, deviation: float) -> list[str]:
    exact = training.sel(time="l", gamma=1.0)
    others = training.weights.where((training.time != "l") | (training.gamma != 1.0)).mean("seed")
    nearest = others.isel(others.argmin(...))
    where = f"t = {nearest.time.item()}, γ = {nearest.gamma.item():g}, {nearest.hidden.item()} hidden"
    return [
        f"- Zero divergence at t = l and γ = 1: weights {exact.weights.max().item():.1g} (rounding), test error "
        f"{exact.test_error.max().item():.2g}. Elsewhere the weights are at least {short(nearest.item())} off "
        f"({where}). The paper: zero divergence only at t = l and γ = 1.",
        f"- C3 alone: at t = l, W_l's update is γ^(L−l) times backprop's, up to {deviation:.1g} of it (rounding).",
        f"- ✗: training diverged, in {int(training.diverged.sum())} of {training.diverged.size} runs.",
    ]


# Figures


def draw_training(training: xr.Dataset) -> Figure:
    layers = training.hidden.to_numpy()
    figure = plt.figure(figsize=(4 * len(layers) + 1, 7))
    axes = figure.subplots(2, len(layers), squeeze=False)
    names = {"test_error": "test error: |difference|\n(percentage points)", "weights": "final weights: Σ ‖θ − θ_BP‖"}
    for row, (name, title) in zip(axes, names.items(), strict=True):
        values = training[name].mean("seed", skipna=False)
        positive = values.where(values > 1e-6)
        norm = LogNorm(positive.min().item(), positive.max().item())
        for ax, hidden in zip(row, layers, strict=True):
            draw_cells(ax, training[name].sel(hidden=hidden), training.diverged.sel(hidden=hidden), norm)
            moved = short(training.backprop_moved.sel(hidden=hidden).mean().item())
            error = plus_minus(training.backprop_test_error.sel(hidden=hidden).isel(epoch=-1))
            own = f"moved {moved}" if name == "weights" else f"ends at {error} %"
            ax.set_title(f"{hidden} hidden; backprop itself {own}")
            ax.set(xlabel="integration step γ", ylabel="update at t" if ax is row[0] else "")
        image = plt.cm.ScalarMappable(norm, "cividis")
        bar = figure.colorbar(image, ax=list(row), label=title, pad=0.01)
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if name == "weights" else (1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_formatter("")
    return figure


def draw_cells(ax: Axes, values: xr.DataArray, diverged: xr.DataArray, norm: LogNorm) -> None:
    mean, errors = (each.transpose("time", "gamma").to_numpy() for each in statistics(values))
    shown = np.where(diverged.any("seed").transpose("time", "gamma"), np.nan, mean)
    failed = diverged.sum("seed").transpose("time", "gamma").to_numpy()
    seeds = diverged.sizes["seed"]
    low, high = norm.vmin or 0.0, norm.vmax or 1.0
    ax.imshow(np.maximum(shown, low), norm=norm, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        number = failed[row, column]
        text = f"✗ {number}/{seeds}" if number else "0" if value < 1e-6 else short(value)
        if not number and value >= 1e-6 and seeds > 1:
            text += f"\n±{short(float(errors[row, column]))}"
        dark = not number and value < np.sqrt(low * high)
        ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    ax.set_xticks(range(len(GAMMAS)), [f"{gamma:g}" for gamma in GAMMAS])
    ax.set_yticks(range(values.sizes["time"]), values.time.values)
    ax.set_facecolor("#DDDDDD")


def draw_near(close: xr.Dataset, factors: xr.DataArray, training: xr.Dataset) -> Figure:
    """Draw the divergence close to γ = 1, the factor on each layer's update, and which trainings diverge."""
    figure = plt.figure(figsize=(12, 4))
    left, centre, right = figure.subplots(1, 3)
    away = abs(close.gamma - 1)
    for hidden, colour in zip(close.hidden.values, (plot.BLUE, plot.VERMILION, plot.GREEN), strict=False):
        for side, style in ((close.gamma < 1, "o-"), (close.gamma > 1, "s--")):
            mean, error = statistics(close.weights.sel(hidden=hidden).where(side, drop=True))
            label = f"{hidden} hidden, γ {'<' if style == 'o-' else '>'} 1"
            left.errorbar(away.where(side, drop=True), mean, error, fmt=style, ms=4, color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="|γ − 1| (1)", ylabel="final weights: Σ ‖θ − θ_BP‖")
    left.set_title("(a) Close to γ = 1, t = l")
    left.legend(fontsize=7)
    for above in factors.above.values:
        (line,) = centre.plot(factors.gamma, factors.sel(above=above), "o", markersize=4, label=f"L − l = {above}")
        centre.plot(factors.gamma, factors.gamma ** float(above), ":", color=line.get_color())
    centre.set(xscale="log", yscale="log", xlabel="integration step γ (τ)", ylabel="|ΔW_l| / |ΔW_l of backprop|")
    centre.set_title("(b) Each layer's update; dotted: γ^(L−l)")
    centre.legend(fontsize=8)
    lost = (training.diverged.mean("seed") > 0).sum("hidden").transpose("time", "gamma")
    right.imshow(lost, cmap="Greys", vmin=0, vmax=2 * training.sizes["hidden"], aspect="auto")
    for row, column in np.ndindex(lost.shape):
        at = training.diverged.sel(time=training.time.values[row], gamma=GAMMAS[column]).any("seed")
        deep = " ".join(str(hidden) for hidden in training.hidden.values[at.to_numpy()])
        right.text(column, row, deep, ha="center", va="center", fontsize=7.5)
    right.set_xticks(range(len(GAMMAS)), [f"{gamma:g}" for gamma in GAMMAS])
    right.set_yticks(range(training.sizes["time"]), training.time.values)
    right.set(xlabel="integration step γ (τ)", ylabel="update at t", title="(c) Numbers of hidden layers that diverge")
    return figure


def draw_inference(energy: xr.Dataset, steps: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(12, 3.9))
    left, centre, right = figure.subplots(1, 3)
    shades = plt.colormaps["viridis"](np.linspace(0, 0.95, len(GAMMAS)))
    for gamma, shade in zip(GAMMAS, shades, strict=True):
        marker = "" if gamma < 0.2 else "o"
        run = energy[f"euler_{gamma:g}"]
        left.plot(run[f"time_{gamma:g}"], run, marker=marker, markersize=3, color=shade, label=f"{gamma:g}")
    left.plot(energy.time, energy.flow, ":", color=plot.BLACK, label="flow")
    top = 100 * energy.flow[0].item()
    left.set(yscale="log", ylim=(0.7 * energy.flow.min().item(), top), xlabel="time nγ (τ)", ylabel="energy F, mean")
    left.set_title("(a) Energy in time")
    left.legend(title="step γ", ncols=2, fontsize=8)

    colours = dict(zip(dict.fromkeys(steps.network.to_numpy()), (plot.BLUE, plot.VERMILION, plot.GREEN), strict=False))
    for network in range(steps.sizes["network"]):
        part = steps.isel(network=network)
        first = part.weights.item() == "first"
        colour, marker, fill_style = colours[part.network.item()], "o" if first else "^", "full" if first else "none"
        label = f"{part.network.item()}, {part.weights.item()} weights"
        centre.plot(part.gamma, part.excess.mean("sample"), "-" if first else "--", color=colour)
        centre.plot(part.bound.min(), 1e-8, marker, color=colour, fillstyle=fill_style, markersize=5)
        right.plot(part.bound, part.measured, marker, color=colour, fillstyle=fill_style, markersize=4, label=label)
    centre.set(xscale="log", yscale="log", ylim=(3e-9, 1e3), xlim=(0.05, 3), xlabel="step γ (τ)")
    centre.set_ylabel(f"(F − F*) / (F(0) − F*) after {STEPS} steps, mean")
    centre.set_title("(b) Where Euler ceases to settle (dashed: learned)\nmarks: smallest 2/λ_max of the samples")
    limits = [0.95 * steps.bound.min().item(), 1.05 * steps.bound.max().item()]
    right.plot(limits, limits, color=plot.GREY, linewidth=0.8)
    right.set(xscale="log", yscale="log", xlabel="2/λ_max (τ)", ylabel="smallest γ that does not settle (τ)")
    for axis in (centre.xaxis, right.xaxis, right.yaxis):
        axis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    right.set_title(f"(c) Sample by sample, {SAMPLES} a network")
    right.legend(fontsize=7.5)
    return figure


def draw_continuous(continuous: xr.Dataset, lags: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(12, 7))
    axes = figure.subplots(2, 3)
    draw_flow(axes[0, 0], axes[0, 1], continuous)
    draw_lags(axes[0, 2], lags)
    draw_spectrum(axes[1, 0], axes[1, 1], lags)
    draw_disturbances(axes[1, 2], lags)
    return figure


def draw_flow(left: Axes, right: Axes, continuous: xr.Dataset) -> None:
    left.plot(continuous.time, continuous.flow, color=plot.BLACK, label="flow")
    for step, colour, marker in zip((0.05, 0.1, 0.2), (plot.BLUE, plot.GREEN, plot.VERMILION), "o^s", strict=True):
        run = continuous[f"euler_{step:g}"]
        left.plot(run[f"time_{step:g}"], run, marker, markersize=3.5, color=colour, label=f"γ = {step:g}", alpha=0.8)
    left.set(xlabel="time (τ)", ylabel="value x₁ of one unit", xlim=(-0.1, 6))
    left.set_title("(a) Euler's iterates sample the flow")
    left.legend()
    right.loglog(continuous.step, continuous.distance, "o-")
    small = continuous.isel(step=-1)
    right.loglog(continuous.step, small.distance / small.step * continuous.step, ":", color=plot.GREY, label="∝ γ")
    right.set(xlabel="step γ (τ)", ylabel="largest distance from the flow")
    right.set_title("(b) … the better, the smaller γ")
    right.legend()


def draw_lags(ax: Axes, lags: xr.Dataset) -> None:
    part = lags.sel(weights="first")
    for error_tau in LAGS:
        ax.plot(part.time, part[f"value_{error_tau:g}"], label=f"{error_tau:g}", linewidth=1.2)
    ax.set(xlabel="time (τ)", ylabel="value x₁ of one unit")
    ax.set_title("(c) Error units that lag")
    ax.legend(title="τ_ε (τ)")


def draw_spectrum(left: Axes, right: Axes, lags: xr.Dataset) -> None:
    for weights, colour in WEIGHTS.items():
        part = lags.sel(weights=weights)
        for ax, values in ((left, part.growth), (right, part.frequency)):
            ax.plot(part.tau, values.mean("sample"), color=colour, label=f"{weights} weights")
            ax.fill_between(part.tau, values.min("sample"), values.max("sample"), color=colour, alpha=0.25, linewidth=0)
        left.axvline(part.critical.median(), color=colour, linestyle=":", linewidth=1)
        right.axvline(part.oscillation.median(), color=colour, linestyle=":", linewidth=1)
    left.axhline(0, color=plot.GREY, linewidth=0.6)
    left.set(xscale="log", xlabel="time constant of the errors τ_ε (τ)", ylabel="largest Re λ (1/τ)")
    left.set_title("(d) Growth rate; dotted: median critical τ_ε")
    left.legend()
    right.set(xscale="log", xlabel="time constant of the errors τ_ε (τ)", ylabel="largest Im λ (1/τ)")
    right.set_title("(e) Frequency; dotted: 1/(4σ²_max)")


def draw_disturbances(ax: Axes, lags: xr.Dataset) -> None:
    part = lags.sel(weights="first")
    for factor in FACTORS:
        at = part.sel(factor=factor)
        (line,) = ax.semilogy(at.moment, at.distance_from_rest, linewidth=0.9, label=f"{factor:g}")
        expected = at.distance_from_rest[0] * np.exp(at.predicted * at.moment)
        ax.semilogy(at.moment, expected, "--", color=line.get_color(), linewidth=1.2)
    ax.set(xlabel="time (τ)", ylabel="distance from equilibrium")
    ax.set_title("(f) A disturbance; dashed: exp(Re λ t)")
    ax.legend(title="τ_ε / critical")


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

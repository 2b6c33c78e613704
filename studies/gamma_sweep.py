"""The step γ and the moment of learning: how far inference learning ends from backprop.

Networks of 1 to 3 hidden layers learn by inference with each γ, the weights updated at each time t; their test error
and their final weights are compared with those of the same network trained by backprop (figure 3 of Song et al.,
conditions C2 and C3). The time "l" is the paper's: W_l learns at step L − l, Z-IL with γ = 1. Beyond the paper: the
divergence at t = l for γ close to 1, the factor γ^(L−l) on each layer's update, and which trainings diverge.
`inference.py` shows what γ does to inference itself.

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

import numpy as np
import torch
import xarray as xr
from common import divergence
from common.claims import PC, Row, holds, write_rows
from common.learning_curves import means_of, plus_minus, statistics
from common.options import parse
from common.report import number_of, short, table, write
from common.training import loss
from figures.gamma_sweep import draw_near, draw_training

import neurodyn as nd
from neurodyn import plot
from neurodyn.errors import InvalidValueError
from neurodyn.models import predictive_coding as pc

GAMMAS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0)
Time = Literal["l", "0", "1", "2", "3", "4", "16", "64"]
TIMES: tuple[Time, ...] = get_args(Time)
"""The paper's."""
SAMPLES = 20
"""On which the update of each layer is looked at."""
ROUNDING = 1e-6
"""A divergence of weights in float64 below which is rounding."""
NEAR = (0.9, 0.97, 0.99, 0.997, 1.003, 1.01, 1.03, 1.1)
"""The γ close to 1."""


@dataclass(frozen=True)
class Options(divergence.Options):
    """What to run.

    Parameters
    ----------
    times
        At which steps of inference the weights are updated: a number, or "l", at which W_l learns at step L − l.
    store
        A Zarr store (`….zarr`) in which each training is a point of a sweep, each network alone, with the
        samples in its seed's own order. What is interrupted goes on from there as the same command is given again.
    workers
        How many processes train, with a store.
    """

    once = ("hidden", "times")

    epochs: int = 20
    samples: int | None = 600
    times: tuple[Time, ...] = ("l", "0", "1", "2", "4", "16")
    store: Path | None = None
    workers: int = 1
    out: Path = Path("results/gamma_sweep")

    def __post_init__(self) -> None:
        super().__post_init__()
        if "l" not in self.times:
            raise InvalidValueError(f"times: among them is 'l', which is judged, not only {' '.join(self.times)}")


PAPER = Options(full=True, dataset="mnist", samples=None, epochs=64, rate=0.001, times=TIMES)
"""About a day on two cores."""


def rule(time: str, gamma: float) -> dict[str, Any]:
    """Return the options of `pc.network` that update the weights at a time of `TIMES`."""
    if time == "l":
        return {"learning": "z-il", "step": gamma}
    return {"learning": "il", "steps": int(time), "step": gamma}


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
        module = options.logistic(hidden, options.seeds[0])
        inputs, targets = options.draw(SAMPLES)
        weights = [parameter for parameter in module.parameters() if parameter.ndim == 2]
        exact = torch.autograd.grad(loss(module, inputs, targets), weights)
        for gamma in GAMMAS:
            module.zero_grad()
            nd.backward(pc.network(module, **rule("l", gamma)), inputs, targets)
            factors.append([])
            for above, (weight, expected) in enumerate(zip(weights[::-1], exact[::-1], strict=True)):
                assert weight.grad is not None
                factors[-1].append(float(weight.grad.norm() / expected.norm()))
                off = torch.linalg.vector_norm(weight.grad - gamma**above * expected)
                worst = max(worst, float(off / torch.linalg.vector_norm(gamma**above * expected)))
    return worst, xr.DataArray(factors, {"gamma": list(GAMMAS), "above": range(len(factors[0]))}, ("gamma", "above"))


def main(options: Options) -> None:
    """Run the study, write its results and its figures, and print its tables."""
    if options.workers > 1 and options.store is None:
        raise InvalidValueError(f"workers: {options.workers} share the work by a store; give a --store, too")
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(1)  # the layers are too small for more
    training = sweep(options) if options.store is None else stored(options, options.store)
    close = near(options)
    deviation, factors = scaling(options)

    about = {"dataset": options.dataset, "setting": f"{options}, logistic"}
    close["factor"] = factors.rename(gamma="gamma_of_factor")
    datasets = {"training": training, "near_1": close}
    if bool(training.diverged.all()):
        print(write(options.out, {}, datasets, about))
        raise SystemExit("all trainings diverged, which leaves nothing to compare; give a smaller --rate")
    with plot.style():
        figures = {
            "gamma_sweep": draw_training(training),
            "gamma_sweep_near_1": draw_near(close, factors, training),
        }
    print(summary(training, deviation, about))
    files = write(options.out, figures, datasets, about)
    print(write_rows(options, f"{about['dataset']}, {about['setting']}", rows(training)))
    print(files)


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


def summary(training: xr.Dataset, deviation: float, about: Mapping[str, str]) -> str:
    """Return the tables that are printed."""
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
    return "\n".join(text)


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


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

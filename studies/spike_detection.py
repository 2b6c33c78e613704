"""When error units spike: how well the local gate φ of Fa-Z-IL finds the moment t = L − l, and what it misses.

φ lets a unit learn at the step at which its error leaves 0, after at least t_d steps of exactly 0. Table 3 of Song et
al. reports how often that is the moment at which Z-IL, and so backprop, has W_l learn. This study measures it in
multilayer perceptrons of 2 to 8 layers, and then looks for what makes φ fail: rounding, units without feedback
(inactive ReLU, maximum pooling), how long a pair is presented, learning during inference, weights that have learned,
and a prediction phase that is run instead of the forward pass. Last, a repaired φ, which lets a unit learn
only if its error is by how much its own value has moved in the last step, so that its prediction stood still: as local,
without control signal, and compared with backprop.

After Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of
Backpropagation in Predictive Coding Networks" (2020), §4 and table 3, whose setup for that table is not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from common.claims import PC, Row, holds, write_rows
from common.divergence import logistic
from common.options import DataOptions, check_samples, parse
from common.presentation import CHOSEN, OUTCOMES, Builder, Case, present
from common.report import number_of, table, write
from common.training import loss
from figures.spike_detection import draw
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from neurodyn import plot
from neurodyn.errors import InvalidValueError
from neurodyn.models import predictive_coding as pc

WINDOWS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
PUBLISHED = (93.4, 92.4, 99.6, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0)
"""Table 3, in per cent."""
Spike = Literal["error", "moved"]
"""φ of the paper, and the repaired one."""
REPAIRED = ("basic", "relu", "pooled", "average", "smooth")
"""The cases in which the two are compared."""
ROUNDING = 1e-12
"""A relative distance of updates in float64 that is rounding."""
WITHIN = 1.0
"""So many points beside table 3 are called equal."""
WIDTH = 32
DEEPEST = 8
"""The layers of the deepest network in which causes are looked for."""
SHORT = 8
"""T, for one pass through the convolutional network and a little more."""
PREDICTION_STEPS = 200
RATE = 0.1
EPOCHS = 20
SHOWN_UNITS = 32


@dataclass(frozen=True)
class Options(DataOptions):
    """What to run.

    Parameters
    ----------
    layers
        The depths L of the perceptrons.
    samples
        How many pairs are presented to each network.
    steps
        T, how many steps a pair is presented.
    """

    once = ("layers",)

    layers: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    samples: int = 50
    steps: int = 64
    out: Path = Path("results/spike_detection")

    def __post_init__(self) -> None:
        super().__post_init__()
        deepest = max(DEEPEST, *self.layers)
        if self.steps < deepest - 1:
            raise InvalidValueError(
                f"steps: at least {deepest - 1}, for the errors to reach the first of {deepest} layers, not "
                f"{self.steps}"
            )


PAPER = Options(full=True, dataset="mnist", samples=100)
"""The paper does not tell its own."""


def perceptron(layers: int, activation: str, *, wide: bool = False) -> Builder:
    """Return a builder of perceptrons; `wide`: with the weights of Whittington and Bogacz, else with PyTorch's."""

    def build(shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
        sizes = [int(np.prod(shape)), *[WIDTH] * (layers - 1), classes]
        module = logistic(sizes, seed) if wide else nd.mlp(sizes, activation=activation, weights="default", seed=seed)
        return nn.Sequential(nn.Flatten(), *module)

    return build


def convolutional(activation: type[nn.Module], pool: Callable[[int], nn.Module]) -> Builder:
    """Return a builder of networks of two convolutions, each pooled, and three fully connected layers."""

    def build(shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
        channels, rows, columns = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                *(nn.Conv2d(channels, 8, 3, padding=1), activation(), pool(2)),
                *(nn.Conv2d(8, 16, 3, padding=1), activation(), pool(2), nn.Flatten()),
                *(nn.Linear(16 * (rows // 4) * (columns // 4), WIDTH), activation()),
                *(nn.Linear(WIDTH, WIDTH), activation(), nn.Linear(WIDTH, classes)),
            )

    return build


def cases(steps: int) -> dict[str, Case]:
    """Return what may make φ fail, one change at a time."""
    four = Case("logistic, 4 layers", perceptron(4, "sigmoid", wide=True), steps)
    eight = Case(f"logistic, {DEEPEST} layers, small weights", perceptron(DEEPEST, "sigmoid"), steps)
    pooled = Case(f"ReLU, convolutions, max pooling, T = {SHORT}", convolutional(nn.ReLU, nn.MaxPool2d), SHORT)
    average = f"convolutions, average pooling, T = {SHORT}"
    return {
        "basic": four,
        "learning": replace(four, name=f"{four.name}, learning during inference", rate=RATE),
        "trained": replace(four, name=f"{four.name}, trained before", epochs=EPOCHS),
        "predicting": replace(four, name=f"{four.name}, prediction run", predict=PREDICTION_STEPS),
        "settling": Case(
            f"{four.name}, small weights, prediction run",
            perceptron(4, "sigmoid"),
            steps,
            predict=PREDICTION_STEPS,
        ),
        "single": eight,
        "double": replace(eight, name=f"{eight.name}, float64", dtype=torch.float64),
        "relu": Case("ReLU, 4 layers", perceptron(4, "relu"), steps),
        "pooled": pooled,
        "longer": replace(pooled, name=f"ReLU, convolutions, max pooling, T = {steps}", steps=steps),
        "average": replace(pooled, name=f"ReLU, {average}", build=convolutional(nn.ReLU, nn.AvgPool2d)),
        "smooth": replace(pooled, name=f"logistic, {average}", build=convolutional(nn.Sigmoid, nn.AvgPool2d)),
    }


def draw_pairs(case: Case, options: Options, seed: int) -> tuple[Tensor, Tensor, nn.Sequential]:
    """Return the inputs and targets of a seed, and the case's network."""
    data, _ = options.load(flatten=False)
    check_samples(options.samples, data)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: options.samples]
    inputs, targets = (part.to(options.device, case.dtype) for part in data[chosen])
    module = case.build(tuple(inputs.shape[1:]), targets.shape[1], seed).to(options.device)
    if case.epochs:
        how: dict[str, Any] = {"optimizer": "sgd", "learning_rate": RATE, "batch_size": 20, "progress": False}
        nd.train.fit(module.double(), data, epochs=case.epochs, seed=seed, **how)
    return inputs, targets, module.to(case.dtype)


def measure(case: Case, options: Options, seed: int) -> xr.Dataset:
    """Count what became of a case's units, by window t_d."""
    shown = present(case, *draw_pairs(case, options, seed))
    outcomes = {window: shown.outcomes(window) for window in WINDOWS}
    felt, ulps, failed = shown.in_time() != 0, shown.ulps(), outcomes[CHOSEN] != 0
    unsettled = 0.0
    if case.predict:
        before = shown.run.sel(time=slice(None, -1)).isel(time=-1)
        unsettled = max(float(np.abs(before[f"e{stage.name}"]).max()) for stage in shown.network.forward)
    return xr.Dataset(
        {
            "share": (
                ("window", "outcome"),
                [[np.mean(o == n) for n in range(len(OUTCOMES))] for o in outcomes.values()],
            ),
            "detected": ("window", [np.mean(outcome[felt] == 0) for outcome in outcomes.values()]),
            "update_distance": ("window", [shown.update_distance(window) for window in WINDOWS]),
            "failed_without_feedback": np.mean(ulps[failed] == 0) if failed.any() else np.nan,
            "failed_ulps": _median(ulps[failed & (ulps > 0)]),
            "others_ulps": _median(ulps[~failed]),
            "unsettled": unsettled,
        },
        {"window": list(WINDOWS), "outcome": list(OUTCOMES)},
    )


def _median(values: NDArray[np.floating]) -> float:
    return float(np.median(values)) if len(values) else np.nan


def repair(case: Case, options: Options, seed: int) -> xr.Dataset:
    """Return how far the update by each φ is from backprop's, where T just reaches the first layer, and for a long T.

    In float64: in float32, φ fails now and then where an error is no more than rounding, as the other tables count, and
    which units these are depends on the processor. With it, how often the largest value of a pooling window is not the
    only one.
    """
    inputs, targets, module = draw_pairs(replace(case, dtype=torch.float64), options, seed)
    exact = torch.autograd.grad(loss(module, inputs, targets), list(module.parameters()))
    size = get_total_norm(exact)
    off = []
    for spike, steps in product(get_args(Spike), (None, options.steps)):
        module.zero_grad()
        nd.backward(pc.network(module, learning="fa-z-il", spike=spike, steps=steps), inputs, targets)
        found = [parameter.grad for parameter in module.parameters()]
        off.append(float(get_total_norm([g - e for g, e in zip(found, exact, strict=True) if g is not None]) / size))
    shape = (len(get_args(Spike)), 2)
    return xr.Dataset(
        {
            "off": (("phi", "presented"), np.reshape(off, shape), {"long_name": "|Δθ − Δθ_BP| / |Δθ_BP|"}),
            "ties": ties(module, inputs),
        },
        {"phi": list(get_args(Spike)), "presented": ["L − 1", f"{options.steps}"]},
    )


def ties(module: nn.Module, inputs: Tensor) -> float:
    """Return the share of the windows of the first maximum pooling whose largest value stands there more than once."""
    value = inputs
    for layer in module.children():
        if isinstance(layer, nn.MaxPool2d):
            windows = F.unfold(value, 2, stride=2).unflatten(1, (-1, 4))
            return float(((windows == windows.amax(2, keepdim=True)).sum(2) > 1).double().mean())
        value = layer(value)
    return np.nan


def raster(case: Case, options: Options) -> xr.Dataset:
    """Return the spikes of one sample, t_d = 1, of some units of each layer."""
    shown = present(case, *draw_pairs(case, replace(options, samples=1), options.seeds[0]))
    layers = []
    for moment, _, spikes in shown.layers(1):
        units = spikes.isel(sample=0).to_numpy().reshape(len(spikes), -1)
        units = units[:, np.unique(np.linspace(0, units.shape[1] - 1, SHOWN_UNITS).round().astype(int))]
        layer = len(shown.network.forward) - moment
        layers.append(xr.DataArray(units, dims=("time", "unit"), coords={"layer": ("unit", [layer] * units.shape[1])}))
    time = xr.Variable("time", np.arange(case.steps + 1), {"units": "1", "long_name": "inference step t"})
    return xr.Dataset({"spikes": xr.concat(layers, "unit").assign_coords(time=time)}, attrs={"case": case.name})


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print its tables."""
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(1)  # the layers are too small for more
    deep = [
        Case(f"logistic, {layers} layers", perceptron(layers, "sigmoid", wide=True), options.steps)
        for layers in options.layers
    ]
    causes = cases(options.steps)
    seeds = xr.Variable("seed", list(options.seeds))
    with options.progress(total=len(seeds) * (len(deep) + len(causes) + len(REPAIRED)), unit="network") as bar:

        def over_seeds(find: Callable[[Case, Options, int], xr.Dataset], case: Case) -> xr.Dataset:
            runs = []
            for seed in options.seeds:
                runs.append(find(case, options, seed))
                bar.update()
            return xr.concat(runs, seeds, coords="minimal")

        depth = xr.concat([over_seeds(measure, case) for case in deep], xr.Variable("layers", list(options.layers)))
        cause = xr.concat([over_seeds(measure, case) for case in causes.values()], xr.Variable("case", list(causes)))
        repaired = xr.concat(
            [over_seeds(repair, causes[case]) for case in REPAIRED], xr.Variable("case", list(REPAIRED))
        )
    depth = depth.assign(published=("window", list(PUBLISHED)))
    cause = cause.assign_coords(name=("case", [case.name for case in causes.values()]))
    rasters = {
        "logistic": raster(replace(deep[-1], steps=2 * SHORT), options),
        "relu": raster(replace(causes["pooled"], steps=2 * SHORT), options),
    }

    about = {"dataset": options.dataset, "samples": str(options.samples), "steps": str(options.steps)}
    with plot.style():
        figure = draw(depth, cause, rasters, CHOSEN)
    print(summary(depth, cause), repair_table(repaired, cause), sep="\n\n")
    datasets = {"depth": describe(depth), "causes": describe(cause), "repaired": repaired}
    datasets |= {f"raster_{name}": data for name, data in rasters.items()}
    here = f"{options.dataset}, {options.samples} samples of {options.steps} steps"
    files = write(options.out, {"spike_detection": figure}, datasets, about)
    print(write_rows(options, here, rows(depth, cause, repaired)))
    print(files)


def rows(depth: xr.Dataset, cause: xr.Dataset, repaired: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's table 3, whose network is not in the paper."""
    seeds = number_of(cause.sizes["seed"], "seed")
    perceptrons = 100 * depth.detected
    networks = {
        f"logistic perceptrons of {depth.layers.min().item()} to {depth.layers.max().item()} layers": perceptrons,
        "ReLU, convolutions, max pooling": 100 * cause.detected.sel(case="pooled"),
    }
    made = []
    for window, published in list(zip(WINDOWS, PUBLISHED, strict=True))[:CHOSEN]:
        parts, near = [], []
        for name, values in networks.items():
            at = values.sel(window=window)
            parts.append(f"{float(at.min()):.1f} to {float(at.max()):.1f} % ({name})")
            near.append(abs(float(at.mean()) - published) < WITHIN)
        agreeing = [name for name, close in zip(networks, near, strict=True) if close]
        made.append(
            Row(
                PC,
                "table 3",
                "network not told",
                f"t_d = {window}: {published:.1f} % spike at t = L − l only",
                f"of units with an error there {', '.join(parts)}; range of {seeds}",
                holds(all(near), f"within {WITHIN:g} points only for {', '.join(agreeing) or 'none'}"),
            )
        )
    for spike, name in (("error", "φ of the paper"), ("moved", "repaired φ, beyond the paper")):
        off = repaired.off.sel(phi=spike).isel(presented=0).sel(case=["relu", "pooled"])
        exact = ("equal", "not equal")[int(float(off.max()) > ROUNDING)]
        ours = f"|Δθ − Δθ_BP| / |Δθ_BP| up to {float(off.max()):.1g} in float64, ReLU and max pooling, {exact}; {seeds}"
        verdict = holds(float(off.max()) < ROUNDING, "not where feedback is exactly 0")
        made.append(Row(PC, "§4", "–", f"{name}: Fa-Z-IL makes the update of Z-IL", ours, verdict))
    return made


def repair_table(repaired: xr.Dataset, cause: xr.Dataset) -> str:
    """Return what each φ makes of the update, and say what is established."""
    mean = repaired.mean("seed")
    names = dict(zip(cause.case.values, cause.name.values, strict=True))
    header = [
        "|Δθ − Δθ_BP| / |Δθ_BP|, float64",
        *(f"{phi}, T = {t}" for phi in repaired.phi.values for t in mean.presented.values),
    ]
    rows = [
        [
            str(names[case]).partition(", T")[0],
            *(
                f"{float(mean.off.sel(case=case, phi=phi, presented=t)):.1e}"
                for phi in mean.phi.values
                for t in mean.presented.values
            ),
        ]
        for case in mean.case.values
    ]
    worst = float(repaired.off.sel(phi="moved").isel(presented=0).max())
    long = float(mean.off.sel(phi="moved", case="pooled").isel(presented=1))
    tied = 100 * float(mean.ties.sel(case="pooled"))
    text = (
        f"- Established: in {tied:.0f} % of the first pooling's windows the largest value stands more than once, and "
        f"still the repaired φ is at most {worst:.1g} off backprop's update, as long as the presentation just reaches "
        "the first layer: at step L − l a prediction stands still, and every later error comes with one that moves. In "
        f"a longer presentation this fails with max pooling ({long:.1g} off): the predictions of the first layer, "
        "whose input is held, never move, and where all that a unit feeds was passed over, feedback reaches it late."
    )
    return table(header, rows) + "\n\n" + fill(text, 120, subsequent_indent="  ")


def describe(data: xr.Dataset) -> xr.Dataset:
    texts = {
        "share": "share of the units that spiked so",
        "detected": "share that spiked at t = L − l only, of the units whose error is not 0 there",
        "update_distance": "|Δθ − Δθ_BP| / |Δθ_BP|",
        "failed_without_feedback": f"of the units that fail at t_d = {CHOSEN}, the share with ∂ℒ/∂x = 0",
        "failed_ulps": f"median |∂ℒ/∂x| of the others that fail at t_d = {CHOSEN}, in units of x's rounding error",
        "others_ulps": "the same of those that do not fail",
        "unsettled": "largest |ε| at the end of the prediction phase",
        "window": "t_d, in steps",
    }
    for name, text in texts.items():
        data[name].attrs.update(units="1", long_name=text)
    return data


def summary(depth: xr.Dataset, cause: xr.Dataset) -> str:
    head = ["t_d", *map(str, WINDOWS)]
    published = ["paper, table 3", *(f"{value:.1f}" for value in PUBLISHED)]

    def rows(values: xr.DataArray, names: Sequence[str]) -> list[list[str]]:
        shares = 100 * values.mean("seed").to_numpy()
        return [[name, *(f"{share:.2f}" for share in row)] for name, row in zip(names, shares, strict=True)]

    names = [str(name) for name in cause.name.to_numpy()]
    layers = [f"{number} layers" for number in depth.layers.to_numpy()]
    at = cause.sel(window=CHOSEN).mean("seed")
    fates = [
        [name, *(f"{100 * share:.2f}" for share in shares), f"{distance:.1e}"]
        for name, shares, distance in zip(names, at.share.to_numpy(), at.update_distance.to_numpy(), strict=True)
    ]
    return "\n".join(
        [
            "Units that spike at t = L − l and at no other step, %: logistic perceptrons, float32",
            table(head, [published, *rows(depth.share.sel(outcome=OUTCOMES[0]), layers)]),
            "\nThe same in other networks and presentations, %",
            table(head, [published, *rows(cause.share.sel(outcome=OUTCOMES[0]), names)]),
            "\n… of the units whose error is not 0 at t = L − l, %",
            table(head, [published, *rows(cause.detected, names)]),
            f"\nWhen units spike with t_d = {CHOSEN}, %, and how far the update that they make is from backprop's",
            table(["", *OUTCOMES, "|Δθ − Δθ_BP| / |Δθ_BP|"], fates),
            *("\n" + fill(line, 120, subsequent_indent="  ") for line in explain(cause)),
        ]
    )


def explain(cause: xr.Dataset) -> list[str]:
    """Say why φ fails where it does, with the evidence of this run."""
    mean = cause.mean("seed")
    at = mean.sel(window=CHOSEN)

    def strict(case: str) -> str:
        return f"{100 * float(at.share.sel(case=case, outcome=OUTCOMES[0])):.2f} %"

    def felt(case: str, window: int) -> str:
        return f"{100 * float(mean.detected.sel(case=case, window=window)):.1f}"

    def value(variable: str, case: str) -> float:
        return float(at[variable].sel(case=case))

    silent = {case: f"{100 * value('failed_without_feedback', case):.0f} %" for case in ("relu", "pooled")}
    off = {case: f"{100 * value('update_distance', case):.1f} %" for case in ("relu", "pooled")}
    elsewhere = 100 * float(at.share.sel(case="pooled", outcome=OUTCOMES[2]))
    first = ", ".join(felt("pooled", window) for window in WINDOWS[:4])
    published = ", ".join(f"{figure:.1f}" for figure in PUBLISHED[:4])
    return [
        f"- Logistic units all feel feedback, so that only rounding can make φ fail: {strict('basic')} succeed, with "
        f"learning during inference {strict('learning')}, and with trained weights {strict('trained')}.",
        f"- Rounding: with {DEEPEST} layers and small weights, {strict('single')} succeed in float32 and "
        f"{strict('double')} in float64. Where φ fails, backprop's error is {value('failed_ulps', 'single'):.1g} times "
        f"the rounding error of x (median); elsewhere {value('others_ulps', 'single'):.1g} times.",
        f"- No feedback: of the units that fail, {silent['relu']} (ReLU perceptron) and {silent['pooled']} (max "
        "pooling) have a backprop error of exactly 0. Such a unit has nothing to learn at t = L − l, and spikes when "
        f"the layer below it moves: with max pooling {elsewhere:.0f} % of the units, however long t_d. Those spikes "
        f"teach: the update is off backprop's by {off['relu']} and {off['pooled']}.",
        "- A guess about the paper's figures, which hangs on the data set, and on a network that the paper does not "
        "tell: its §4 calls a failure harmless where the error at t = L − l is 0. Without those "
        f"units, max pooling gives {first} % for t_d = 1 to 4, and the paper has {published} %. The failures left "
        "are errors that return to exactly 0 and leave it again, where feedback is cut off, and a window of 3 or 4 "
        f"steps removes most; with average pooling, {felt('average', 1)} % succeed at t_d = 1. The paper's "
        "failures may have come about so.",
        f"- Presentation: the longer it is, the more such failures; max pooling, t_d = {CHOSEN}: "
        f"{felt('pooled', CHOSEN)} % succeed within {SHORT} steps, {felt('longer', CHOSEN)} % in the longer run.",
        f"- Prediction phase: {PREDICTION_STEPS} steps of it with γ = 1, instead of the forward pass, leave errors up "
        f"to {value('unsettled', 'predicting'):.2g} ({strict('predicting')} succeed); inference.py shows why γ = 1 "
        f"does not settle. With small weights they leave up to {value('unsettled', 'settling'):.1g}, rounding that "
        f"never becomes exactly 0 ({strict('settling')}).",
    ]


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

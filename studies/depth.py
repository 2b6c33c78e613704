"""Depth: what becomes of AR, IL, Z-IL, Fa-Z-IL and GAIT-prop in networks of 2 to 50 layers, and what μPC learns.

(1) Plain and residual perceptrons of L layers, in float32 and float64: how far each rule's update is from backprop's,
how many iterations it takes, how long, and how many units have a backprop error that is less than the rounding of their
value, which φ cannot see. AR is also run as its papers do, 100 iterations of 0.1, whatever the depth. GAIT-prop needs
square layers, and has a plain tower of its own; updates are timed in plain networks in float32. (2) Predictive coding
with the depth scaling of μPC: residual blocks x + W f(x) / √(N L), with weights from N(0, 1), beside plain predictive
coding: which layers receive error at all, and after training, which have moved, and what the network is worth without
what they have learned.

Beyond the papers. μPC after F. Innocenti, E. M. Achour, C. L. Buckley, "μPC: Scaling Predictive Coding to 100+ Layer
Networks" (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import xarray as xr
from common.claims import BEYOND, Row, holds, write_rows
from common.deep import build, scaled
from common.learning_curves import means_of, plus_minus
from common.options import TrainingOptions, parse
from common.report import number_of, table, write
from common.training import Learning, loss
from figures.depth import draw
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp

SAMPLES = 20
GAMMA, SMALLER = 1e-3, 1e-6
"""Of GAIT-prop: the paper's, and one that is small beside the activity of a deep tower, too."""
STEP, ITERATIONS = 0.1, 100
"""The papers' relaxation of AR."""
PAPERS_AR = f"AR, {ITERATIONS} × {STEP:g}"
INFERENCE_STEP = 0.25
"""Of μPC: in residual networks the energy's Hessian has eigenvalues up to about 4, and Euler's bound is 2/4."""
REPEATS = 3
"""How often an update is timed; the median counts."""
EQUAL = 1e-3
"""A relative distance of updates, in float32 at any depth, that is called none."""
RECEIVES = 0.01
"""A layer receives error if its update is at least so large a share of backprop's."""
STEPS_A_LAYER = 4
"""Of inference while μPC is trained."""
RATE = 1e-2
"""Of Adam."""
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
KINDS = ("plain", "residual")
TIMED = ("plain", "float32")


Declare = Callable[[nn.Sequential], nd.Network]


def coding(**rule: Any) -> Declare:
    """Return how a predictive coding network is declared."""
    return lambda module: pc.network(module, **rule)


RULES: Mapping[str, tuple[Declare, Callable[[int], int]]] = {
    "AR": (ar.network, lambda layers: layers - 1),
    PAPERS_AR: (ar.network, lambda layers: ITERATIONS),
    "IL": (coding(learning="il"), lambda layers: 20),
    "Z-IL": (coding(learning="z-il"), lambda layers: layers - 1),
    "Fa-Z-IL": (coding(learning="fa-z-il"), lambda layers: layers - 1),
    "Fa-Z-IL, repaired φ": (coding(learning="fa-z-il", spike="moved"), lambda layers: layers - 1),
    "GAIT-prop": (lambda module: tp.network(module, rule="gait", gamma=GAMMA), lambda layers: layers - 1),
    f"GAIT-prop, γ = {SMALLER:g}": (
        lambda module: tp.network(module, rule="gait", gamma=SMALLER),
        lambda layers: layers - 1,
    ),
}
"""How each is declared, and after how many iterations it learns in L layers; a step of 1 makes AR exact after L − 1."""
TRAINED = ("μPC, backprop", "μPC", "plain PC, backprop", "plain PC")


@dataclass(frozen=True)
class Options(TrainingOptions):
    """What to run.

    Parameters
    ----------
    layers
        L, the layers with weights.
    width
        The units of a hidden layer; those of GAIT-prop are as many as the inputs.
    trained
        L of the networks of (2).
    """

    once = ("layers",)

    layers: tuple[int, ...] = (2, 5, 10, 20, 50)
    width: int = 32
    trained: int = 16
    epochs: int = 2
    out: Path = Path("results/depth")


PAPER = Options(full=True, layers=(2, 3, 5, 10, 20, 30, 50), width=128, trained=50, epochs=20)
"""A larger setting."""


def layer_norms(module: nn.Sequential, gradients: list[Tensor]) -> np.ndarray:
    """Return ‖∂/∂θ_l‖ of each layer, from gradients in the order of the parameters."""
    left = iter(gradients)
    return np.array([float(get_total_norm([next(left) for _ in layer.parameters()])) for layer in module])


def pairs(options: Options, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return some pairs of a seed."""
    train, _ = options.load()
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    inputs, targets = (part.to(options.device, dtype) for part in train[chosen])
    return inputs, targets


def sizes(options: Options) -> tuple[int, int, int]:
    inputs, targets = options.load()[0][0]
    return len(inputs), options.width, len(targets)


def update(rule: str, module: nn.Sequential, inputs: Tensor, targets: Tensor, timed: bool) -> tuple[float, ...]:
    """Return how far a rule's update is from backprop's, relative, and in the first layer; if timed, time's ratio."""
    parameters = list(module.parameters())
    double = deepcopy(module).double()
    exact = torch.autograd.grad(loss(double, inputs.double(), targets.double()), list(double.parameters()))
    network = RULES[rule][0](module)
    papers: dict[str, Any] = {"duration": ITERATIONS * STEP, "solver": nd.Exact(euler_step=STEP)}
    how = papers if rule == PAPERS_AR else {}
    own, backprop = [], []
    for _ in range(1 + REPEATS * timed):
        module.zero_grad()
        start = perf_counter()
        loss(module, inputs, targets).backward()
        middle = perf_counter()
        module.zero_grad()
        nd.backward(network, inputs, targets, **how)
        backprop.append(middle - start)
        own.append(perf_counter() - middle)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    off = [a.double() - b for a, b in zip(found, exact, strict=True)]
    count = len(list(module[0].parameters()))
    first = float(get_total_norm(off[:count]) / get_total_norm(exact[:count]))
    # What is made once, in the first, is not timed.
    ratio = float(np.median(own[1:]) / np.median(backprop[1:])) if timed else np.nan
    return float(get_total_norm(off) / get_total_norm(exact)), first, ratio


def unseen(module: nn.Sequential, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of hidden units whose backprop error is not 0, but lost in the rounding of their value."""
    network = pc.network(module, learning="fa-z-il")
    delta = nd.analysis.backprop(network, inputs, targets)
    lost, count, value = 0, 0, inputs
    for stage in network.forward[:-1]:
        value = stage.forward(value)
        error = torch.as_tensor(delta[f"x{stage.name}"].to_numpy()).to(value)
        lost += int(((value + error == value) & (error != 0)).sum())
        count += value.numel()
    return lost / max(1, count)


def compare(options: Options) -> xr.Dataset:
    """Measure every rule in every network."""
    dims: dict[str, list[Any]] = {
        "rule": list(RULES),
        "kind": list(KINDS),
        "layers": list(options.layers),
        "precision": list(PRECISIONS),
        "seed": list(options.seeds),
    }
    names = ("off", "first", "ratio")
    found = {name: np.full([len(values) for values in dims.values()], np.nan) for name in names}
    lost = np.full([len(values) for values in list(dims.values())[1:]], np.nan)
    tasks = list(product(KINDS, options.layers, PRECISIONS, options.seeds))
    for kind, layers, precision, seed in options.progress(tasks, unit="network"):
        at = (
            KINDS.index(kind),
            options.layers.index(layers),
            list(PRECISIONS).index(precision),
            options.seeds.index(seed),
        )
        dtype = PRECISIONS[precision]
        inputs, targets = pairs(options, seed, dtype)
        module = build(sizes(options), layers, kind, seed).to(inputs)
        lost[at] = unseen(module, inputs, targets)
        for r, rule in enumerate(RULES):
            if rule.startswith("GAIT-prop") and kind != "plain":
                continue
            trial = module
            if rule.startswith("GAIT-prop"):
                wide = [inputs.shape[1]] * (layers + 1)
                trial = tp.tower(wide, outputs=targets.shape[1], weights="orthogonal", seed=seed).to(inputs)
            timed = (kind, precision) == TIMED
            for name, value in zip(names, update(rule, trial, inputs, targets, timed), strict=True):
                found[name][(r, *at)] = value
    result = xr.Dataset({name: (tuple(dims), values) for name, values in found.items()}, dims)
    result["unseen"] = (tuple(dims)[1:], lost)
    result["iterations"] = (("rule", "layers"), [[count(n) for n in options.layers] for _, count in RULES.values()])
    result["off"].attrs = {"units": "1", "long_name": "|Δθ − Δθ_BP| / |Δθ_BP|"}
    result["first"].attrs = {"units": "1", "long_name": "the same in the first layer"}
    result["ratio"].attrs = {"units": "1", "long_name": "time of an update in units of backprop's"}
    result["unseen"].attrs = {"units": "1", "long_name": "share of hidden units whose error is below rounding"}
    return result


def receive(options: Options) -> xr.Dataset:
    """Return the size of each layer's update, in units of backprop's, after so many steps of inference."""
    steps = [options.trained // 2, STEPS_A_LAYER * options.trained, 50 * options.trained]
    names = ("μPC", "plain PC")
    shape = (len(names), len(steps), len(options.seeds), options.trained)
    share = np.full(shape, np.nan)
    for n, s, k in np.ndindex(shape[:3]):
        seed = options.seeds[k]
        inputs, targets = pairs(options, seed, torch.float64)
        module = scaled(sizes(options), options.trained, names[n], seed).to(inputs)
        exact = list(torch.autograd.grad(loss(module, inputs, targets), list(module.parameters())))
        nd.backward(pc.network(module, steps=steps[s], step=INFERENCE_STEP), inputs, targets)
        found = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        share[n, s, k] = layer_norms(module, found) / layer_norms(module, exact)
    return xr.Dataset(
        {"share": (("network", "steps", "seed", "layer"), share, {"units": "1", "long_name": "|ΔW| / |ΔW of BP|"})},
        {"network": list(names), "steps": steps, "seed": list(options.seeds), "layer": range(1, options.trained + 1)},
    )


def train(options: Options) -> xr.Dataset:
    """Train by backprop and by IL, and return accuracies, and by how much each layer's weights have moved."""
    data = options.load()
    shape = (len(TRAINED), len(options.seeds))
    moved = np.full((*shape, options.trained), np.nan)
    half = (options.trained - 2) // 2
    parts = {
        "accuracy": range(0),
        "lower_reset": range(1, 1 + half),
        "upper_reset": range(1 + half, options.trained - 1),
        "blocks_reset": range(1, options.trained - 1),
    }
    accuracy = {name: np.full(shape, np.nan) for name in parts}
    for t, k in options.progress(list(np.ndindex(shape)), unit="training"):
        name, seed = TRAINED[t], options.seeds[k]
        module = scaled(sizes(options), options.trained, name, seed).to(options.device)
        start = deepcopy(module)
        learner: Learning = module
        if not name.endswith("backprop"):
            learner = pc.network(module, steps=STEPS_A_LAYER * options.trained, step=INFERENCE_STEP)
        # One by one, as blocks of one's own are slower stacked.
        how: dict[str, Any] = {"epochs": options.epochs, "learning_rate": RATE, "seed": seed, "progress": False}
        try:
            nd.train.fit(learner, data[0], batch_size=64, **how)
        except (nd.train.DivergedError, nd.DivergenceError):
            continue
        moved[t, k] = [
            float((a - b).detach().norm() / b.detach().norm())
            for a, b in zip(module.parameters(), start.parameters(), strict=True)
        ]
        for part, layers in parts.items():
            trial = deepcopy(module)
            for layer in layers:
                trial[layer].load_state_dict(start[layer].state_dict())
            inputs, targets = (each.to(options.device) for each in data[1][:])
            with torch.no_grad():
                right = trial(inputs).argmax(1) == targets.argmax(1)
            accuracy[part][t, k] = 100 * float(right.double().mean())
    found = xr.Dataset(
        {name: (("network", "seed"), values, {"units": "percent"}) for name, values in accuracy.items()},
        {"network": list(TRAINED), "seed": list(options.seeds), "layer": range(1, options.trained + 1)},
    )
    found["moved"] = (("network", "seed", "layer"), moved, {"units": "1", "long_name": "|W − W(0)| / |W(0)|"})
    return found


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print its tables."""
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(1)  # the layers are too small for more
    rules, received, trained = compare(options), receive(options), train(options)
    about = {"dataset": options.dataset, "width": str(options.width), "trained": f"{options.epochs} epochs"}
    with plot.style():
        figure = draw(rules, received, trained, TIMED)
        datasets = {"rules": rules, "received": received, "trained": trained}
        files = write(options.out, {"depth": figure}, datasets, about)
    here = f"{options.dataset}, L = {' '.join(map(str, options.layers))}, width {options.width}, tanh"
    print(
        summary(rules, received, trained), write_rows(options, here, rows(rules, received, trained)), files, sep="\n\n"
    )


def rows(rules: xr.Dataset, received: xr.Dataset, trained: xr.Dataset) -> list[Row]:
    """Return what came out beside what is claimed of depth."""
    seeds = number_of(rules.sizes["seed"], "seed")
    made = []
    deepest = int(rules.layers[-1])
    for rule in ("AR", PAPERS_AR, "Z-IL", "Fa-Z-IL", "Fa-Z-IL, repaired φ", "GAIT-prop"):
        off = {name: float(rules.off.sel(rule=rule, precision=name, layers=deepest).max()) for name in PRECISIONS}
        ours = ", ".join(f"{value:.1g} ({name})" for name, value in off.items())
        verdict = holds(max(off.values()) < EQUAL, f"more than {EQUAL:g} off")
        claim = f"{rule}: the update is backprop's, at {deepest} layers"
        made.append(Row(BEYOND, "depth", "derived", claim, f"|Δθ − Δθ_BP| / |Δθ_BP| up to {ours}; {seeds}", verdict))
    share = received.share.sel(network="μPC").isel(steps=-1).mean("seed")
    reached, layers = int((share >= RECEIVES).sum()), received.sizes["layer"]
    own = trained.sel(network="μPC")
    drop = own.accuracy - own.lower_reset
    exact = trained.sel(network="μPC, backprop")
    ours = f"{reached} of {layers} layers receive error; without what the lower half learned, {plus_minus(-drop, '+')} "
    ours += f"points (backprop in the same network: {plus_minus(exact.lower_reset - exact.accuracy, '+')}); "
    ours += means_of(trained.sizes["seed"])
    deep = reached == layers and float(drop.mean()) > 1
    verdict = holds(not deep, "all layers receive error, and the lower half counts")
    made.append(Row(BEYOND, "depth", f"{layers} layers", "μPC trains a shallow part only", ours, verdict))
    return made


def summary(rules: xr.Dataset, received: xr.Dataset, trained: xr.Dataset) -> str:
    """Return the tables that are printed."""
    head = [f"L = {number}" for number in rules.layers.values]
    parts = []
    for precision, kind in product(PRECISIONS, KINDS):
        at = rules.sel(precision=precision, kind=kind).mean("seed")
        rows = [
            [rule, *(f"{value:.1e}" for value in at.off.sel(rule=rule).values)]
            for rule in RULES
            if at.off.sel(rule=rule).notnull().any()
        ]
        rows.append(["units whose error is below rounding (%)", *(f"{100 * value:.2g}" for value in at.unseen.values)])
        parts.append(f"|Δθ − Δθ_BP| / |Δθ_BP|, {kind}, {precision}, {means_of(rules.sizes['seed'])}")
        parts[-1] += "\n" + table(["", *head], rows)
    at = rules.sel(kind=TIMED[0], precision=TIMED[1]).mean("seed")
    rows = [
        [
            rule,
            *(
                f"{int(n)}; {r:.1f}"
                for n, r in zip(rules.iterations.sel(rule=rule), at.ratio.sel(rule=rule), strict=True)
            ),
        ]
        for rule in RULES
    ]
    parts.append("Iterations; time in units of backprop's, {}, {}\n".format(*TIMED) + table(["", *head], rows))
    rows = []
    for network, steps in product(received.network.values, received.steps.values):
        share = received.share.sel(network=network, steps=steps)
        reached = (share >= RECEIVES).sum("layer")
        cells = [
            f"{share.sel(layer=layer).mean().item():.1e}"
            for layer in (1, share.sizes["layer"] // 2, share.sizes["layer"])
        ]
        rows.append([f"{network}, {steps} steps of {INFERENCE_STEP:g}", *cells, f"{float(reached.mean()):.1f}"])
    layers = received.sizes["layer"]
    header = ["|ΔW| / |ΔW of backprop|, before training", "layer 1", f"{layers // 2}", f"{layers}"]
    parts.append(table([*header, f"layers above {RECEIVES:g}, of {layers}"], rows))
    rows = [
        [
            name,
            *(plus_minus(trained[part].sel(network=name)) for part in trained.data_vars if part != "moved"),
            *(
                f"{float(trained.moved.sel(network=name, layer=layer).mean()):.1e}"
                for layer in (1, layers // 2, layers)
            ),
        ]
        for name in TRAINED
    ]
    header = ["after training", "test accuracy (%)", "lower half reset", "upper half reset", "all blocks reset"]
    header.append("moved: layer 1")
    parts.append(table([*header, f"{layers // 2}", f"{layers}"], rows))
    parts += [departures(rules), claim(received, trained)]
    return "\n\n".join(parts)


def departures(rules: xr.Dataset) -> str:
    """Say from how many layers on each rule departs from backprop, and how much φ then does not see."""
    lines = [f"From how many layers on the update is more than {EQUAL:g} off:"]
    for rule in RULES:
        parts = []
        for precision, kind in product(PRECISIONS, KINDS):
            off = rules.off.sel(rule=rule, precision=precision, kind=kind).mean("seed")
            if bool(off.notnull().any()):
                beyond = off.layers[off > EQUAL].values
                parts.append(f"{kind}, {precision}: {beyond[0] if len(beyond) else 'none'}")
        lines.append(f"  {rule}: {'; '.join(parts)}")
    deepest = rules.unseen.isel(layers=-1).mean("seed")
    shares = ", ".join(
        f"{100 * float(deepest.sel(precision=precision, kind=kind)):.2g} % ({kind}, {precision})"
        for precision, kind in product(PRECISIONS, KINDS)
    )
    lines.append(f"At {int(rules.layers[-1])} layers, φ cannot see the error of {shares} of the hidden units.")
    return "\n".join(lines)


def claim(received: xr.Dataset, trained: xr.Dataset) -> str:
    """Judge the claim that μPC trains a shallow part only."""
    share = received.share.sel(network="μPC").isel(steps=-1).mean("seed")
    reached = int((share >= RECEIVES).sum())
    own = trained.sel(network="μPC")
    lost = [plus_minus(own.accuracy - own[part]) for part in ("lower_reset", "upper_reset")]
    return (
        f"Does μPC train a shallow part only? After {int(received.steps[-1])} steps, {reached} of "
        f"{received.sizes['layer']} layers have an update of at least\n{RECEIVES:g} times backprop's. Without what the "
        f"lower half of the blocks learned, accuracy falls by {lost[0]} points,\nwithout the upper half by {lost[1]}."
    )


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

"""What inference learning needs to equal backprop: a converged start, and the properties of IL, Z-IL and Fa-Z-IL.

(1) C1: Z-IL from hidden values with noise of standard deviation σ on them, as if the prediction phase had not
converged: how far test error and final weights end from backprop's (figure 3 of Song et al., right column).
(2) Table 2, measured: is a rule's update backprop's; does it use only what is local, checked on its declaration; do
prediction and learning differ only in whether the output is clamped; does it need a signal that says when to learn.
Backprop's declaration is that of activation relaxation, which at its equilibrium is backprop.

After Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of
Backpropagation in Predictive Coding Networks" (2020), §3, §5.1 and table 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common import divergence
from common.claims import PC, Row, holds, write_rows
from common.options import parse
from common.report import number_of, table, write
from common.training import loss
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc

SIGMAS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
BP = "BP"
RULES: Mapping[str, dict[str, Any]] = {
    BP: {},
    "IL, t_c = 20": {"learning": "il", "steps": 20, "step": 0.5},
    "IL, equilibrium": {"learning": "il", "steps": "equilibrium"},
    "Z-IL": {"learning": "z-il"},
    "Fa-Z-IL": {"learning": "fa-z-il"},
}
PUBLISHED = {
    BP: "✓ ✗ ✗ ✗",
    "IL, t_c = 20": "≈ ✓ ✓ ✗",
    "IL, equilibrium": "≈ ✓ ✓ ✗",
    "Z-IL": "✓ ✓ ✓ ✗",
    "Fa-Z-IL": "✓ ✓ ✓ ✓",
}
"""Table 2: equivalence to BP, local plasticity, partial autonomy, full autonomy."""
ACTIVATIONS = {"logistic": "sigmoid", "ReLU": "relu"}
SETTLED = 1e-4
"""Values that end so close to the forward pass are called its."""
EXACT = 1e-9
"""An update that close to backprop's, relatively and in float64, is called equal."""


@dataclass(frozen=True)
class Options(divergence.Options):
    """What to run; updates and the start of (2) take the first seed."""

    epochs: int = 6
    out: Path = Path("results/zero_divergence")


PAPER = Options(full=True, dataset="mnist", epochs=64, rate=0.001)
"""Some hours."""


def sweep(options: Options) -> xr.Dataset:
    """Train by Z-IL from noisy starts, and measure the divergence from backprop."""
    rules = [{"learning": "z-il", "initial_noise": sigma} for sigma in SIGMAS]
    parts = []
    with options.progress(total=len(options.hidden) * len(rules), desc="training", unit="rule") as bar:
        for hidden in options.hidden:
            found, backprop = divergence.diverge(options, hidden, rules, progress=bar)
            parts.append(found.rename(rule="sigma").assign(backprop_moved=backprop.moved))
    return xr.concat(parts, xr.Variable("hidden", list(options.hidden))).assign_coords(sigma=list(SIGMAS))


def draw_module(options: Options, hidden: int, activation: str) -> nn.Sequential:
    if activation == "sigmoid":
        return options.logistic(hidden, options.seeds[0])
    sizes, seed = options.sizes(hidden), options.seeds[0]
    return nd.mlp(sizes, activation=activation, seed=seed, device=options.device, dtype=torch.float64)


def declare(rule: str, module: nn.Module) -> nd.Network:
    """Return the network of a rule."""
    return ar.network(module) if rule == BP else pc.network(module, **RULES[rule])


def compare_updates(network: nd.Network, module: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return ‖Δθ − Δθ_BP‖ / ‖Δθ_BP‖ over all parameters, and ‖ΔW_1‖ / ‖ΔW_1,BP‖ of the first layer."""
    parameters = list(module.parameters())
    exact = torch.autograd.grad(loss(module, inputs, targets), parameters)
    module.zero_grad()
    nd.backward(network, inputs, targets)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    off = get_total_norm([a - b for a, b in zip(found, exact, strict=True)]) / get_total_norm(exact)
    return float(off), float(found[0].norm() / exact[0].norm())


def not_local(network: nd.Network) -> list[str]:
    """Return what in a declaration is not local; nothing, if all is.

    Local means: a coupling through a stage joins the two populations on the stage's sides, another coupling two
    populations of the same layer; each reads only their present activity; and a stage learns from its two sides.

    Parameters
    ----------
    network
        A declaration in which each stage has a coupling `Forward(stage)`, which tells the stage's two sides; where it
        has none, what the stage learns from tells.
    """
    sides: dict[Any, tuple[Any, str]] = {rule.stage: (rule.pre, rule.post) for rule in network.plasticity}
    sides |= {c.map.stage: (c.source, c.target) for c in network.couplings if isinstance(c.map, nd.Forward)}
    layer = {population: number for number, (population, _) in enumerate(sides.values())}
    layer |= {population: number for number, (_, population) in enumerate(sides.values(), start=1)}
    found = []
    for coupling in network.couplings:
        ends = (coupling.source, coupling.target)
        if coupling.map.stage is None:
            known = [layer[end] for end in ends if end in layer]
            layer |= dict.fromkeys(ends, known[0])
            local = known == [known[0]] * len(known)
        else:
            local = sides.get(coupling.map.stage) in (ends, ends[::-1])
        if not local:
            found.append(f"coupling {coupling} leads past a layer")
        if coupling.map.frozen or not set(coupling.map.reads(*ends)) <= set(ends):
            found.append(f"coupling {coupling} reads more than the present activity of its two ends")
    for learning in network.plasticity:
        if (learning.pre, learning.post) != sides.get(learning.stage):
            found.append(
                f"stage {learning.stage.name} learns from {learning.pre} and {learning.post}, not its two sides"
            )
        if learning.presynaptic == "frozen":
            found.append(f"stage {learning.stage.name} learns from a remembered forward pass")
    return found


def clamped_by_targets(network: nd.Network) -> list[str]:
    """Return which populations targets act on: all in which learning differs from prediction."""
    return [p.name for p in network.populations if isinstance(p.clamp, nd.Target)]


def control_signal(network: nd.Network) -> str:
    """Return what has to tell the network when to learn; "none", if its own activity does."""
    if all(isinstance(rule.when, nd.OnSpike) for rule in network.plasticity):
        return "none"
    if any(isinstance(rule.when, nd.AtStep) for rule in network.plasticity):
        return "the step of each layer"
    return "the end" if network.inference is None else f"step {network.inference.steps}"


def prediction_error(network: nd.Network, inputs: Tensor) -> float:
    """Return how far the values end from the forward pass, without targets, from where another input left them."""
    if any(isinstance(p.clamp, nd.LossGradient) for p in network.populations):
        return np.nan  # its activity is a gradient, and without targets there is none
    forward, value = {}, inputs
    for stage in network.forward:
        value = forward[f"x{stage.name}"] = stage.forward(value)
    start = {name: values.roll(1, 0) for name, values in forward.items()}
    rest = nd.equilibrium(network, inputs, record=list(forward), initial=start)
    off = [np.abs(rest[name].to_numpy() - values.numpy(force=True)).max() for name, values in forward.items()]
    return float(max(off))


def properties(options: Options) -> xr.Dataset:
    """Measure table 2."""
    inputs, targets = options.draw(options.batch)
    shape = (len(RULES), len(ACTIVATIONS), len(options.hidden))
    distance, first = np.full(shape, np.nan), np.full(shape, np.nan)
    networks = {}
    with options.progress(total=distance.size, desc="properties", unit="update") as bar:
        for rule, activation, layers in np.ndindex(shape):
            kind = list(ACTIVATIONS.values())[activation]
            module = draw_module(options, options.hidden[layers], kind)
            name = list(RULES)[rule]
            network = declare(name, module)
            at = rule, activation, layers
            distance[at], first[at] = compare_updates(network, module, inputs, targets)
            if kind == "sigmoid":
                networks[name] = network  # the deepest stays
            bar.update()
    return xr.Dataset(
        {
            "update_distance": (("rule", "activation", "hidden"), distance, {"long_name": "|Δθ − Δθ_BP| / |Δθ_BP|"}),
            "first_layer": (("rule", "activation", "hidden"), first, {"long_name": "|ΔW_1| / |ΔW_1,BP|"}),
            "not_local": ("rule", ["; ".join(not_local(network)) for network in networks.values()]),
            "clamped": ("rule", [", ".join(clamped_by_targets(network)) for network in networks.values()]),
            "prediction_error": ("rule", [prediction_error(network, inputs) for network in networks.values()]),
            "control_signal": ("rule", [control_signal(network) for network in networks.values()]),
        },
        {"rule": list(RULES), "activation": list(ACTIVATIONS), "hidden": list(options.hidden)},
    )


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print its tables."""
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(1)  # the layers are too small for more
    training = sweep(options)
    measured = properties(options)
    about = {"dataset": options.dataset, "setting": str(options)}
    with plot.style():
        figure = draw(training, measured)
    print(f"{options.dataset}: {options}")
    print(summary(training, measured))
    files = write(options.out, {"zero_divergence": figure}, {"noise": training, "properties": measured}, about)
    print(write_rows(options, f"{options.dataset}, {options}, logistic", rows(training, measured)))
    print(files)


def rows(training: xr.Dataset, measured: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 3, C1, and its table 2."""
    seeds = f"{number_of(training.sizes['seed'], 'seed')}, {number_of(training.sizes['hidden'], 'depth')}"
    exact, noisy = training.weights.sel(sigma=0.0), training.weights.isel(sigma=slice(1, None))
    made = [
        Row(
            PC,
            "figure 3, C1",
            "MNIST, logistic, 1 to 3 hidden layers of 32, 64 epochs",
            "zero divergence only from a converged start",
            f"Σ‖θ − θ_BP‖ at most {float(exact.max()):.1g} at σ = 0, at least {float(noisy.min()):.1g} else; {seeds}",
            holds(exact.max() < EXACT < noisy.min(), "not so"),
        )
    ]
    for rule in RULES:
        at = measured.sel(rule=rule)
        off = {name: float(at.update_distance.sel(activation=name).max()) for name in ACTIVATIONS}
        equal = [name for name, value in off.items() if value < EXACT]
        promised = PUBLISHED[rule].startswith("✓")
        known = [name for name, value in off.items() if not np.isnan(value)]
        text = ", ".join(f"{off[name]:.1g} ({name})" for name in known)
        same = (equal == known) if promised else not equal
        found = marks(at)
        otherwise = f"the update is equal for {', '.join(equal) or 'none'} only" if not same else f"marks {found}"
        verdict = holds(same and found[1:] == PUBLISHED[rule][1:], otherwise)
        claim = f"{rule}: {PUBLISHED[rule]} (update of backprop; local; autonomy, partial and full)"
        ours = f"{found}; |Δθ − Δθ_BP| / |Δθ_BP| up to {text}; one seed"
        made.append(Row(PC, "table 2", "–", claim, ours, verdict))
    return made


def marks(at: xr.Dataset) -> str:
    """Return table 2's marks of a rule, as measured: update of backprop, local, partial and full autonomy."""
    off = at.update_distance
    local = not at.not_local.item()
    partial = at.clamped.item() != "" and float(at.prediction_error) < SETTLED
    full = partial and at.control_signal.item() == "none"
    exact = "✓" if float(off.max()) < EXACT else "≈"
    return " ".join([exact, *("✓" if mark else "✗" for mark in (local, partial, full))])


def summary(training: xr.Dataset, measured: xr.Dataset) -> str:
    head = ["logistic", *(f"σ = {sigma:g}" for sigma in SIGMAS)]
    text = []
    for name, title in (
        ("test_error", "|test error − backprop's|, percentage points, mean over epochs"),
        ("weights", "Σ ‖θ − θ_BP‖ at the end"),
    ):
        rows = []
        for hidden in training.hidden.to_numpy():
            part = training.sel(hidden=hidden)
            mean = part[name].mean("seed", skipna=False).to_numpy()
            failed = part.diverged.sum("seed").to_numpy()
            cells = [f"✗ {n}/{part.sizes['seed']}" if n else f"{m:.2g}" for m, n in zip(mean, failed, strict=True)]
            rows.append([f"{hidden} hidden", *cells])
        text += ["", f"Z-IL from x + σ N(0, 1): {title}", table(head, rows)]
    moved = ", ".join(f"{value:.3g}" for value in training.backprop_moved.mean("seed").to_numpy())
    exact, least = training.sel(sigma=0.0), training.isel(sigma=slice(1, None)).weights.min().item()
    text += [
        fill(
            f"Backprop itself moved {moved}. Zero divergence at σ = 0: weights {exact.weights.max().item():.1g} "
            f"(rounding), test error {exact.test_error.max().item():.2g}; with noise, the weights are at least "
            f"{least:.1g} off. The paper: zero divergence only at σ = 0.",
            120,
        )
    ]
    rows = []
    for rule in RULES:
        at = measured.sel(rule=rule)
        off = [at.update_distance.sel(activation=activation).max().item() for activation in ACTIVATIONS]
        rows.append(
            [
                rule,
                *("—" if np.isnan(value) else f"{'=' if value < EXACT else '≠'} {value:.1e}" for value in off),
                "no" if at.not_local.item() else "yes",
                f"{at.clamped.item()} only" if at.clamped.item() else "—",
                "—" if np.isnan(at.prediction_error.item()) else f"{at.prediction_error.item():.0e}",
                at.control_signal.item(),
                PUBLISHED[rule],
                marks(at),
            ]
        )
    head = ["update against BP", *ACTIVATIONS, "local", "targets clamp", "prediction off", "control signal", "paper"]
    head.append("here")
    inference = measured.sel(rule="IL, t_c = 20")
    distances = " and ".join(
        f"{100 * float(inference.update_distance.sel(activation=a).max()):.0f} % ({a})" for a in ACTIVATIONS
    )
    shares = " and ".join(
        f"{float(inference.first_layer.sel(activation=a).max()):.2g} times ({a})" for a in ACTIVATIONS
    )
    notes = [
        f"Update: |Δθ − Δθ_BP| / |Δθ_BP|, the largest over the depths; = below {EXACT:g}. Local, targets, control "
        "signal: read off the declaration. Prediction off: without targets, from another input's activity, how far "
        "the values settle from the forward pass. Paper: table 2's marks for equivalence to BP, local plasticity, "
        "partial and full autonomy; here: the same, as measured. BP is declared as AR, whose activity is a gradient "
        "and whose derivatives and presynaptic activity are those of a remembered forward pass.",
        f"IL's update is {distances} of backprop's size away from it, with 20 steps: by the end of inference, the "
        f"output has shared its error with the layers below, and the first layer's update is up to {shares} as large.",
        "—: not measured. f' of ReLU jumps at 0; the flow slides along that jump, and adaptive steps become tiny.",
        "Fa-Z-IL's equality needs feedback to reach every unit: spike_detection.py tells what inactive ReLUs do.",
    ]
    return "\n".join([*text, "", table(head, rows), *(fill(note, 120) for note in notes)])


def draw(training: xr.Dataset, measured: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(12, 4))
    left, centre, right = figure.subplots(1, 3)
    draw_noise(left, training, "test_error", "test error: |difference| (percentage points)")
    left.set_yscale("symlog", linthresh=0.1)
    left.set_ylim(-0.02, 100)
    left.set_title("(a) Z-IL from a noisy start: test error")
    draw_noise(centre, training, "weights", "final weights: Σ ‖θ − θ_BP‖")
    if bool((training.weights > 0).any()):  # none is where all training diverged
        centre.set_yscale("log")
    centre.set_title("(b) … and final weights")
    left.legend()
    places = np.arange(len(RULES))
    for activation, colour, marker, shift in zip(
        ACTIVATIONS, (plot.BLUE, plot.VERMILION), "os", (-0.1, 0.1), strict=True
    ):
        off = measured.update_distance.sel(activation=activation).max("hidden")
        right.plot(places + shift, off, marker, color=colour, label=activation)
    right.set(yscale="log", ylim=(1e-17, 10), xlim=(-0.6, len(RULES) - 0.4), ylabel="|Δθ − Δθ_BP| / |Δθ_BP|")
    right.set_xticks(places, [name.replace(", ", ",\n") for name in RULES])
    right.set_title("(c) Is the update backprop's? The worst depth")
    right.tick_params(axis="x", labelsize=7)
    right.legend(loc="center left")
    right.grid(axis="y", linewidth=0.3)
    return figure


def draw_noise(ax: Axes, training: xr.Dataset, name: str, label: str) -> None:
    places = np.arange(len(SIGMAS))
    for hidden, marker in zip(training.hidden.to_numpy(), "o^sDv", strict=False):
        part = training.sel(hidden=hidden)
        mean = part[name].mean("seed", skipna=False)
        (line,) = ax.plot(places, mean, marker=marker, markersize=4, label=f"{hidden} hidden")
        ax.fill_between(
            places,
            part[name].min("seed", skipna=False),
            part[name].max("seed", skipna=False),
            color=line.get_color(),
            alpha=0.2,
            linewidth=0,
        )
        for place in places[part.diverged.any("seed").to_numpy()]:
            ax.plot(place, 0.97, "x", color=line.get_color(), transform=ax.get_xaxis_transform(), clip_on=False)
    ax.set_xticks(places, [f"{sigma:g}" for sigma in SIGMAS], fontsize=7)
    ax.set(xlabel="noise σ on the start (×: diverged)", ylabel=label)


if __name__ == "__main__":
    main(parse(PAPER, __doc__))

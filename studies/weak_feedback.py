"""The circuit with weak feedback: input and feedback present together, one activity per layer.

For each γ, the equilibrium is found by Newton's method, from the forward pass and continued from the γ before, without
a limit of time, and each sample is stable, unstable (an eigenvalue with a positive real part at every equilibrium that
was found) or of an equilibrium not found. (1) Relaxation from the forward pass, until the circuit has settled or grows;
(2) the distance of the equilibrium from the targets of ITP and GAIT-prop, which falls with γ; (3) the time that
relaxation takes, and the spectral abscissa, the largest real part of an eigenvalue; (4) the same over γ and depth, the
slope of the activation below 0, and the condition of the weights.

In a linear circuit with ITP's feedback, the loops of adjacent layers have the gain γ(1 − γ) whatever the weights, so
that the abscissa of L layers is −1 + 2 √(γ(1 − γ)) cos(π/(L + 1)) < 0. At γ = 1 no input enters, the circuit is target
propagation, and its equilibrium are the targets; what is shown of their distance ends where feedback is not weak.

After N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning rule derived from
backpropagation of error" (2020), §6 and its supplementary material.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from common.claims import GAIT, Row, holds, write_rows
from common.options import Options as StudyOptions
from common.options import parse
from common.report import number_of, table, write
from common.weak_circuit import (
    RULES,
    WEIGHTS,
    InitialWeights,
    Rule,
    WeakCircuits,
    conditioned,
    continued,
    expected_abscissa,
    shares,
)
from figures.weak_feedback import draw_circuits, draw_phases
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.checks import whole
from neurodyn.models import target_propagation as tp

GAMMAS = (1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GAMMA = 1e-3
"""The paper's."""
WEAK = 0.1
"""The largest γ whose equilibrium is compared with the targets: the paper's argument is for weak feedback."""
DURATION = 30.0
TIMES = np.linspace(0.0, DURATION, 121)
LATER = (70.0,)
"""Further pieces of time to wait for a circuit that has not settled."""
RELAXED = 3
"""How many of the seeds relax."""
GROWN = 1e3
"""A run ends where the deviation exceeds so many times that of the equilibrium."""
SETTLED = 1e-3
"""A layer has relaxed when it has come this close to the equilibrium, relative to where that is."""
SLOPE = 0.1
PRECISE = nd.Adaptive("dopri5", rtol=1e-6, atol=1e-9)
AXES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "depth": ("layers L", (2, 3, 4, 6, 8)),
    "slope": ("slope below 0", (0.05, 0.1, 0.3, 0.6, 1.0)),
    "condition": ("condition of W", (1, 3, 10, 30, 100)),
}
"""What is varied beside γ, from orthogonal weights, a slope of 0.1 and the layers of the options."""
PHASES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""The γ of the diagrams."""
OF_EACH = 1
"""How many of a seed's samples the diagrams take."""


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
    seeds: tuple[int, ...] = tuple(range(10))
    width: int = 8
    layers: int = 4
    samples: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "layers", "samples"):
            whole(name, getattr(self, name), least=2)


PAPER = Options(full=True, width=32)
"""A larger setting; the paper gives none for the circuit."""


@dataclass(frozen=True)
class Case:
    """A network in float64, and samples."""

    module: nn.Sequential
    inputs: Tensor
    targets: Tensor

    @classmethod
    def draw(cls, options: Options, weights: InitialWeights, seed: int) -> Case:
        inputs, targets = samples(options, seed)
        sizes = [options.width] * (options.layers + 1)
        module = tp.tower(sizes, weights=weights, seed=seed, dtype=torch.float64)
        return cls(module.to(options.device), inputs, targets)

    @property
    def weights(self) -> Tensor:
        """W_l, shape (layer, unit, unit)."""
        return torch.stack([part.detach() for part in self.module.parameters() if part.ndim == 2])

    def targets_of(self, rule: Rule, gamma: float, names: Sequence[str]) -> NDArray[np.float64]:
        """Return the rule's targets as scaled deviations, shape (layer, sample, unit)."""
        found = nd.equilibrium(tp.network(self.module, rule=rule, gamma=gamma), self.inputs, self.targets, record=names)
        return np.stack([found[name] for name in names])

    def relax(self, rule: Rule, gamma: float, rest: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Relax from the forward pass, until every layer is within `SETTLED` of the equilibrium, grows, or time is up.

        Parameters
        ----------
        rule, gamma
            Of the circuit.
        rest
            Its equilibrium, shape (layer, sample, unit).

        Returns
        -------
        array
            The relative distance from the equilibrium at `TIMES`, shape (time, layer); NaN from where it grows.
        float
            The time at which it has settled; NaN if it has not.
        """
        network = tp.weak_feedback(self.module, rule=rule, gamma=gamma)
        names = [f"d{stage.name}" for stage in network.forward]
        carried = [p.name for p in network.populations if p.tau > 0 and p.clamp is None]
        remaining = np.full((len(TIMES), len(names)), np.nan)
        state: dict[str, Tensor] = {}
        now, settled = 0.0, np.nan
        half = len(TIMES) // 2
        pieces = [TIMES[: half + 1], TIMES[half:] - TIMES[half], *(np.linspace(0.0, span, 121) for span in LATER)]
        for number, times in enumerate(pieces):
            try:
                run = nd.simulate(
                    network,
                    self.inputs,
                    self.targets,
                    duration=float(times[-1]),
                    save_at=times,
                    solver=PRECISE,
                    record=[*dict.fromkeys([*names, *carried])],
                    initial=state,
                )
            except nd.DivergenceError:
                break
            path = np.stack([run[name] for name in names])
            far = norm(np.moveaxis(path, 1, 0) - rest) / norm(rest)
            if number < 2:
                start = number * half
                remaining[start : start + len(times)] = far
            late = np.flatnonzero(far.max(1) > SETTLED)
            if not len(late):
                settled = now if np.isnan(settled) else settled
            else:
                settled = now + times[late[-1] + 1] if late[-1] + 1 < len(times) else np.nan
            now += float(times[-1])
            if far[-1].max() > GROWN or (number > 0 and not np.isnan(settled)):
                break
            state = {name: torch.tensor(run[name].to_numpy()[-1], device=self.inputs.device) for name in carried}
        return remaining, settled


def samples(options: Options, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(options.samples, options.width, generator=generator, dtype=torch.float64)
    classes = torch.randint(options.width, (options.samples,), generator=generator)
    targets = torch.eye(options.width, dtype=torch.float64)[classes]
    return inputs.to(options.device), targets.to(options.device)


def measure(options: Options) -> xr.Dataset:
    """Find every circuit's equilibrium at every γ, compare it with the targets, and relax to it."""
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
        "remaining": (("layer", "time"), "distance from the equilibrium, relative to where that is", "1"),
        "relaxation_time": ((), f"time until every layer is within {SETTLED:g} of the equilibrium", "tau"),
        "abscissa_at_start": (("sample",), "spectral abscissa at the forward pass", "1/tau"),
        "abscissa": (("sample",), "spectral abscissa at the equilibrium; NaN where none is found", "1/tau"),
    }
    common = ("weights", "rule", "gamma", "seed")
    found = {
        name: np.full([len(dims[dim]) for dim in (*common, *own)], np.nan) for name, (own, _, _) in variables.items()
    }
    shape = (len(options.seeds), options.samples)
    with options.progress(total=len(WEIGHTS) * len(RULES) * len(options.seeds), unit="circuit") as bar:
        for (w, weights), (r, rule) in product(enumerate(WEIGHTS), enumerate(RULES)):
            cases = [Case.draw(options, weights, seed) for seed in options.seeds]
            each = torch.stack([case.weights for case in cases])
            inputs, targets = (torch.cat([getattr(case, part) for case in cases]) for part in ("inputs", "targets"))
            circuits = build(each, inputs, targets, SLOPE, gait=rule == "gait")
            rest, growth = continued(circuits, GAMMAS)
            found["abscissa"][w, r] = growth.view(len(GAMMAS), *shape).numpy(force=True)
            for g, gamma in enumerate(GAMMAS):
                start = circuits.abscissa(circuits.start(), gamma)
                found["abscissa_at_start"][w, r, g] = start.view(shape).numpy(force=True)
            carried = -circuits.in_target_units(rest).view(len(GAMMAS), *shape, options.layers, -1).movedim(3, 1)
            for s, case in enumerate(cases):
                compare(found, (w, r), s, case, rule, carried[:, :, s].numpy(force=True))
                bar.update()
    result = xr.Dataset({name: ((*common, *own), found[name]) for name, (own, _, _) in variables.items()}, dims)
    for name, (_, what, unit) in variables.items():
        result[name].attrs = {"units": unit, "long_name": what}
    result["gamma"].attrs = {"units": "1", "long_name": "γ"}
    result["time"].attrs = {"units": "tau", "long_name": "time"}
    result["expected"] = ("gamma", expected_abscissa(np.array(GAMMAS), options.layers))
    result["expected"].attrs = {"units": "1/tau", "long_name": "spectral abscissa of the linear circuit"}
    return result


def compare(
    found: Mapping[str, NDArray[np.float64]],
    at: tuple[int, int],
    seed: int,
    case: Case,
    rule: Rule,
    rests: NDArray[np.float64],
) -> None:
    """Fill in what a network's equilibria, shape (gamma, layer, sample, unit), are beside targets and relaxation."""
    names = [f"d{layer}" for layer in range(1, rests.shape[1] + 1)]
    for g, (gamma, rest) in enumerate(zip(GAMMAS, rests, strict=True)):
        place = (*at, g, seed)
        if np.isfinite(rest).all():
            targets = case.targets_of(rule, gamma, names)
            found["distance"][place] = norm(rest - targets) / norm(targets)
            if seed < RELAXED and (found["abscissa"][place] < 0).all():
                remaining, found["relaxation_time"][place] = case.relax(rule, gamma, rest)
                found["remaining"][place] = remaining.T


def build(weights: Tensor, inputs: Tensor, targets: Tensor, slope: float, *, gait: bool) -> WeakCircuits:
    """Return circuits of networks, shape (network, L, n, n), each with its share of the samples."""
    rows = weights.repeat_interleave(len(inputs) // len(weights), 0)
    return WeakCircuits.of(rows, inputs, targets, inputs.new_full((len(rows),), slope), gait=gait)


def phases(options: Options) -> xr.Dataset:
    """Return the share of each class, and the median abscissa, over γ and each of `AXES`."""
    tasks = list(product(AXES.items(), RULES))
    parts = {}
    for (axis, (_, values)), rule in options.progress(tasks, unit="diagram"):
        rows = [stability(options, axis, value, rule) for value in values]
        growth = xr.DataArray(rows, {axis: list(values), "gamma": list(PHASES)}, (axis, "gamma", "row"))
        parts[f"{axis}_{rule}"] = growth.assign_attrs(units="1/tau", long_name="spectral abscissa at the equilibrium")
    found = xr.Dataset(parts)
    for axis, (_, values) in AXES.items():
        layers = np.array(values if axis == "depth" else [options.layers] * len(values))
        found[f"{axis}_linear"] = ((axis, "gamma"), [expected_abscissa(np.array(PHASES), int(each)) for each in layers])
    return found


def stability(options: Options, axis: str, value: float, rule: Rule) -> NDArray[np.float64]:
    """Return the abscissa at each of `PHASES` of circuits of all seeds and samples, shape (gamma, row)."""
    layers = int(value) if axis == "depth" else options.layers
    condition = value if axis == "condition" else 1.0
    drawn = [[part[:OF_EACH] for part in samples(options, seed)] for seed in options.seeds]
    inputs, targets = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    weights = torch.stack([conditioned(options.width, layers, condition, seed) for seed in options.seeds])
    slope = value if axis == "slope" else SLOPE
    circuits = build(weights.to(inputs), inputs, targets, slope, gait=rule == "gait")
    growth: NDArray[np.float64] = continued(circuits, PHASES)[1].numpy(force=True)
    return growth


def norm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm over samples and units, the last two axes."""
    return np.sqrt(np.square(values).sum((-2, -1)))


def main(options: Options) -> None:
    """Run the study, write its results and its figures, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found, diagrams = measure(options), phases(options)
    about = {"width": str(options.width), "activation": "leaky_relu"}
    with plot.style():
        labels = {axis: label for axis, (label, _) in AXES.items()}
        figures = {
            "weak_feedback": draw_circuits(found, gamma=GAMMA, weak=WEAK, settled=SETTLED),
            "weak_feedback_phases": draw_phases(diagrams, labels),
        }
        files = write(options.out, figures, {"weak_feedback": found, "phases": diagrams}, about)
    print(
        f"The circuit with weak feedback: {options.layers} layers of {options.width} leaky ReLU units, float64, "
        f"{number_of(len(options.seeds), 'seed')} of {number_of(options.samples, 'sample')}"
    )
    here = f"{options.layers} layers of {options.width} leaky ReLU units, float64"
    print(summary(found, diagrams), write_rows(options, here, rows(found)), files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's derivation of the circuit."""
    distance = found.distance.max("layer").sel(rule="itp", gamma=GAMMA)
    bound = 10 * (found.sizes["layer"] - 1) * GAMMA
    stable = (found.abscissa.sel(gamma=GAMMA) < 0).mean()
    seeds = f"{number_of(found.sizes['seed'], 'seed')} of {number_of(found.sizes['sample'], 'sample')}"
    return [
        Row(
            GAIT,
            "§6, supplement",
            f"derived; γ = {GAMMA:g}",
            "the circuit's equilibrium carries ITP's targets, for weak feedback",
            f"at γ = {GAMMA:g} off by {float(distance.median()):.1g} (median) and {float(distance.max()):.1g} (worst), "
            f"relative; {seeds}",
            holds(distance.max() < bound, f"farther than ten times (L − 1) γ = {bound:.1g}"),
        ),
        Row(
            GAIT,
            "§6, supplement",
            f"derived; γ = {GAMMA:g}",
            "the circuit settles",
            f"{100 * float(stable):.0f} % of the equilibria are stable; {seeds}",
            holds(stable == 1, "not all of them"),
        ),
    ]


def summary(found: xr.Dataset, diagrams: xr.Dataset) -> str:
    """Return the tables that are printed."""
    number = "{:.3g}".format
    gammas = [gamma for gamma in GAMMAS if gamma in (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    weak = [gamma for gamma in gammas if gamma <= WEAK]
    over = ["seed", "sample"]
    share = shares(found.abscissa, over)
    tables = {
        "Distance from the targets, relative, farthest layer, median of the seeds": (
            found.distance.max("layer").median("seed"),
            weak,
        ),
        f"Time (τ) until every layer is within {SETTLED:g} of the equilibrium, median of {RELAXED} seeds": (
            found.relaxation_time.median("seed"),
            gammas,
        ),
        "Spectral abscissa (1/τ) at the forward pass, the largest of all samples": (
            found.abscissa_at_start.max(over),
            gammas,
        ),
        "Spectral abscissa (1/τ) at the equilibrium, median of the samples": (found.abscissa.median(over), gammas),
        **{f"Samples (%) whose equilibrium is {name}": (100 * each, gammas) for name, each in share.items()},
    }
    parts = []
    for title, (values, at) in tables.items():
        rows = [
            [
                f"{RULES[rule]}, {name}",
                *(number(float(value)) for value in values.sel(weights=weights, rule=rule, gamma=at)),
            ]
            for (weights, name), rule in product(WEIGHTS.items(), RULES)
        ]
        if "abscissa" in title:
            rows.append(["linear circuit, ITP", *map(number, found.expected.sel(gamma=at).values)])
        parts.append(f"{title}:\n{table(['γ', *(f'{gamma:g}' for gamma in at)], rows)}")
    parts += [*findings(found), phase_table(diagrams)]
    parts.append("The paper derives that the equilibrium carries ITP's targets for weak feedback; it gives no numbers.")
    return "\n\n".join(parts)


def findings(found: xr.Dataset) -> list[str]:
    """Say where stability is lost, and what a limit of time would have taken for it."""
    relaxed = found.isel(seed=slice(RELAXED))
    stable = (relaxed.abscissa < 0).all("sample")
    late = int((stable & ~(relaxed.relaxation_time <= DURATION)).sum())
    away = int((stable & relaxed.relaxation_time.isnull()).sum())
    lines = [
        f"Of {int(stable.sum())} circuits that relaxed, all of whose equilibria are stable, {late} had not settled in "
        f"{DURATION:g} τ,\nand {away} not in {DURATION + sum(LATER):g} τ: a limit of time would take them for unstable."
    ]
    if 1.0 in found.gamma and bool((whole_loop := found.distance.sel(gamma=1.0, rule="itp")).notnull().any()):
        lines.append(
            "At γ = 1 no input enters: the circuit is target propagation, and its equilibrium are ITP's targets, to "
            f"{float(whole_loop.max()):.1g}."
        )
    return lines


def phase_table(diagrams: xr.Dataset) -> str:
    """Return the smallest γ at which a sample is not known to be stable, by each of `AXES`."""
    blocks = []
    for axis, (label, values) in AXES.items():
        rows = []
        for rule, name in RULES.items():
            stable = (diagrams[f"{axis}_{rule}"] < 0).all("row")
            first = [next((f"{g:g}" for g, good in zip(PHASES, line, strict=True) if not good), "–") for line in stable]
            rows.append([name, *first])
        blocks.append(table([label, *(f"{value:g}" for value in values)], rows))
    return (
        f"The smallest of γ = {', '.join(f'{gamma:g}' for gamma in PHASES)} at which an equilibrium\nis unstable "
        "or not found (–: at none); orthogonal weights, but for the condition:\n" + "\n\n".join(blocks)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)  # a few samples gain nothing from more
    main(parse(PAPER, __doc__))

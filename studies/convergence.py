"""Activation relaxation converges to the gradients of backprop.

(a) A multilayer perceptron's activities relax, and their distance to the gradients falls as the closed form says.
(b) The same by Euler's method with steps from 0.01 to 2.05: a step of 1 is exact after as many iterations as there are
layers, and a step above 2 diverges. (c) What each solver pays for its precision. A second figure: the papers' own 100
iterations of 0.1 are not converged. (a) How far each layer's update then is from backprop's, (b) by which factors of
the closed form: after n iterations of h, what is left is Σ_k C(n, k) (1 − h)^{n−k} hᵏ Nᵏ e(0), whose start e(0) is as
large as the activity and does not shrink with the gradients as learning proceeds. (c) The energy E = Σ_l ½‖x_l‖² −
½‖g_l(x_{l−1})‖² (appendix A, eq. 9) while the activities relax, which they seem to descend, as the paper says, and (d)
along the direction in which it grows least, whether it is bounded below.

After figure 1 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from common.claims import AR, Row, holds, write_rows
from common.options import ActivationName, DataOptions, parse
from common.report import table, write
from common.training import angle, loss
from figures.convergence import draw, draw_papers
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar

BATCH = 64
DURATION = 20.0
"""Of the recorded relaxation, in time constants."""
KEPT_SAMPLES = 4
"""How many samples of the batch are written; distances are over all of them."""
STEPS = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 1.9, 2.05)
ITERATIONS = 200
PRECISION_AT = 10.0
"""The time at which the solvers' errors are measured."""
DEMANDED = 1e-6
"""The error for which the table tells the cost."""
POWER = 200
"""Iterations of the power method."""
PAPERS_STEP, PAPERS_ITERATIONS = 0.1, 100
COUNTS = (25, 50, 75, 100, 125, 150, 200, 250, 300)
"""How many of the papers' steps are taken."""
LEARNED_EPOCHS = 5
FEW = 10
"""After how many iterations the steps up to 1 are compared."""
CONVERGED = 1e-8
"""The share of the mean squared distance that may be left."""
CLOSE = 1.0
"""The angle in degrees within which an update is called close to backprop's."""
NEAR = 0.1
"""The angle in degrees within which an update counts as backprop's."""


@dataclass(frozen=True)
class Options(DataOptions):
    """What to run; a seed draws weights and a batch of 64 samples, and the sweep of steps and solvers takes the first.

    Parameters
    ----------
    layers
        The units of the hidden layers; the data give those of the input and the output.
    activation
        The hidden units' nonlinearity.
    """

    out: Path = Path("results/convergence")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    layers: tuple[int, ...] = (300, 300, 100)
    activation: ActivationName = "tanh"


PAPER = Options(full=True, dataset="mnist", activation="relu")


@dataclass(frozen=True)
class Case:
    """A network, a batch in float64, and the gradients that it should find."""

    network: nd.Network
    inputs: Tensor
    targets: Tensor
    gradients: xr.Dataset

    @classmethod
    def draw(cls, options: Options, seed: int) -> Case:
        train, _ = options.load()
        batch = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:BATCH]
        inputs, targets = (part.to(options.device, torch.float64) for part in train[batch])
        sizes = [inputs.shape[1], *options.layers, targets.shape[1]]
        module = nd.mlp(sizes, activation=options.activation, seed=seed, device=options.device, dtype=torch.float64)
        # The output relaxes too, as in the paper's eq. 2, so that all L layers do.
        network = ar.network(module, output="relaxing")
        return cls(network, inputs, targets, nd.analysis.backprop(network, inputs, targets))

    def simulate(self, duration: float, solver: nd.Solver, save_at: int | Sequence[float] | None = None) -> xr.Dataset:
        """Return the trajectory of the layers' populations."""
        return nd.simulate(
            self.network,
            self.inputs,
            self.targets,
            duration=duration,
            solver=solver,
            save_at=save_at,
            record=[str(name) for name in self.gradients.data_vars],
        )


def by_layer(distances: xr.Dataset) -> xr.DataArray:
    """Stack one variable a layer along a dimension `layer`."""
    return distances.to_dataarray("layer").assign_attrs(
        units="1", long_name="mean squared distance to the backprop gradients"
    )


def relax(case: Case) -> xr.Dataset:
    """Record the relaxation of a few samples, and the distance to the gradients over all of them."""
    trajectory = case.simulate(DURATION, nd.Adaptive("dopri5", rtol=1e-8, atol=1e-10), save_at=101)
    closed_form = case.simulate(DURATION, nd.Exact(), save_at=101)
    return trajectory.isel(sample=slice(KEPT_SAMPLES)).assign(
        distance=by_layer(nd.analysis.squared_distance(trajectory, case.gradients)),
        distance_expected=by_layer(nd.analysis.squared_distance(closed_form, case.gradients)).assign_attrs(
            long_name="the same in closed form"
        ),
    )


def iterate(case: Case, step: float) -> xr.Dataset:
    """Return the distance to the gradients after each iteration of Euler's method."""
    with warnings.catch_warnings():
        # This study goes beyond the stability limit on purpose.
        warnings.filterwarnings("ignore", message=".*beyond the stability limit")
        trajectory = case.simulate(ITERATIONS * step, nd.Euler(step))
    distance = by_layer(nd.analysis.squared_distance(trajectory, case.gradients)).rename(time="iteration")
    iteration = ("iteration", np.arange(ITERATIONS + 1), {"units": "1", "long_name": "iteration"})
    return xr.Dataset({"distance": distance.assign_coords(iteration=iteration)})


def solvers() -> list[tuple[str, nd.Solver]]:
    """Return every solver of neurodyn and three of torchdiffeq, each at several steps or tolerances."""

    def tolerances(digits: int) -> list[float]:
        return [10.0**-n for n in range(2, digits + 1)]

    steps = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02]
    families: dict[str, tuple[Callable[[float], nd.Solver], list[float]]] = {
        "Euler": (nd.Euler, steps),
        "Heun": (nd.Heun, steps),
        "RK4": (nd.RK4, steps),
        "Adaptive heun_euler": (lambda tol: nd.Adaptive("heun_euler", tol, tol), tolerances(6)),
        "Adaptive bosh3": (lambda tol: nd.Adaptive("bosh3", tol, tol), tolerances(9)),
        "Adaptive dopri5": (lambda tol: nd.Adaptive("dopri5", tol, tol), tolerances(12)),
        "Adaptive tsit5": (lambda tol: nd.Adaptive("tsit5", tol, tol), tolerances(12)),
        "Stabilized": (lambda tol: nd.Stabilized(tol, tol), tolerances(8)),
        "torchdiffeq adaptive_heun": (lambda tol: nd.TorchDiffEq("adaptive_heun", tol, tol), tolerances(6)),
        "torchdiffeq bosh3": (lambda tol: nd.TorchDiffEq("bosh3", tol, tol), tolerances(9)),
        "torchdiffeq dopri5": (lambda tol: nd.TorchDiffEq("dopri5", tol, tol), tolerances(12)),
    }
    return [(name, make(setting)) for name, (make, settings) in families.items() for setting in settings]


def measure(case: Case, solver: nd.Solver, truth: xr.Dataset) -> xr.Dataset:
    """Return what a solver costs, and its error, the root mean square in the layer where that is largest."""
    end = case.simulate(PRECISION_AT, solver, save_at=[PRECISION_AT]).isel(time=-1)
    error = float(by_layer(nd.analysis.squared_distance(end, truth)).max()) ** 0.5
    return xr.Dataset(
        {
            "error": ((), error, {"units": "1", "long_name": f"RMS error at t = {PRECISION_AT:g}"}),
            "evaluations": ((), end.attrs["evaluations"], {"units": "1", "long_name": "vector-field evaluations"}),
            "setting": ((), end.attrs["solver"]),
        }
    )


def draw_module(options: Options, learned: bool) -> nn.Sequential:
    """Return the first seed's module, as it was drawn or after some epochs of backprop."""
    stages = Case.draw(options, options.seeds[0]).network.forward
    module = nn.Sequential(*(layer for stage in stages for layer in stage.layers))
    if learned:
        train, _ = options.load()
        nd.train.fit(module, train, epochs=LEARNED_EPOCHS, seed=options.seeds[0], progress=False)
    return module


def papers_setting(module: nn.Sequential, case: Case) -> xr.Dataset:
    """Return the angle of each layer's update to backprop's after so many of the papers' steps.

    The output is clamped, and the rest starts at the forward pass, as in the authors' code.
    """
    network = ar.network(module)
    weights = [stage.parameters[0] for stage in network.forward]
    exact = torch.autograd.grad(loss(module, case.inputs, case.targets), weights)
    angles = []
    for count in COUNTS:
        module.zero_grad()
        duration = count * PAPERS_STEP
        nd.backward(network, case.inputs, case.targets, duration=duration, solver=nd.Exact(euler_step=PAPERS_STEP))
        angles.append([angle(w.grad, one) for w, one in zip(weights, exact, strict=True) if w.grad is not None])
    names = [stage.name for stage in network.forward]
    found = xr.DataArray(angles, {"iterations": list(COUNTS), "layer": names}, ("iterations", "layer"))
    size = float(torch.stack([part.norm() for part in exact]).norm())
    return xr.Dataset({"angle": found.assign_attrs(units="degree"), "gradient": size})


def energy(module: nn.Sequential, case: Case) -> xr.Dataset:
    """Return the energy while the activities relax, and along the direction in which it grows least.

    There, x_{l−1} = r v in one layer and 0 in the others: E is ½r² − ½‖g_l(r v)‖² and what does not depend on r.
    """
    network = ar.network(module, output="relaxing")
    run = nd.simulate(
        network, case.inputs, case.targets, duration=DURATION, solver=nd.Exact(), save_at=401, record="energy"
    )
    lengths = torch.logspace(1, 4, 31, dtype=case.inputs.dtype)
    found = []
    for stage in network.forward[1:]:
        stretched = lengths[:, None].to(case.inputs) * steepest(stage)
        found.append(0.5 * lengths.square() - 0.5 * stage.apply(stretched).detach().square().sum(1).cpu())
    along = torch.stack(found) / (0.5 * lengths.square())
    length = xr.Variable("length", lengths.numpy(), {"units": "1", "long_name": "r"})
    layer = [stage.name for stage in network.forward[1:]]
    scaled = xr.DataArray(along.numpy(), {"layer_above": layer, "length": length}, ("layer_above", "length"))
    return xr.Dataset({"energy": run.energy.mean("sample", keep_attrs=True), "along": scaled})


def steepest(stage: nd.Stage) -> Tensor:
    """Return the direction v of unit length for which ‖W v‖ is largest, of the units that a ReLU leaves active."""
    weight = stage.parameters[0].detach()
    bends = any(isinstance(layer, nn.ReLU) for layer in stage.layers)
    v = torch.linalg.svd(weight, full_matrices=False).Vh[0]
    for _ in range(POWER if bends else 0):  # ‖ReLU(W v)‖ is convex in v, so that this never lowers it
        image = weight @ v
        v = weight.T @ (image if image.relu().norm() == 0 else image.relu())
        v = v / v.norm()
    return v


def factors(order: int) -> NDArray[np.float64]:
    """Return C(n, k) (1 − h)^{n−k} hᵏ for each n of `COUNTS`: the probability of k hits in n draws."""
    found: NDArray[np.float64] = binom.pmf(order, np.array(COUNTS), PAPERS_STEP)
    return found


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    runs = solvers()
    with options.progress(total=len(options.seeds) + len(STEPS) + len(runs), unit="run") as bar:

        def done(result: xr.Dataset) -> xr.Dataset:
            bar.update()
            return result

        cases = [Case.draw(options, seed) for seed in options.seeds]
        seeds = xr.Variable("seed", list(options.seeds))
        trajectory = xr.concat([done(relax(case)) for case in cases], seeds, combine_attrs="drop_conflicts")
        case = cases[0]
        steps = xr.Variable("step", list(STEPS), {"units": "tau", "long_name": "Euler step"})
        sweep = xr.concat([done(iterate(case, step)) for step in STEPS], steps)
        truth = case.simulate(PRECISION_AT, nd.Exact(), save_at=[PRECISION_AT]).isel(time=-1)
        names = xr.Variable("solver", [name for name, _ in runs])
        precision = xr.concat([done(measure(case, solver, truth)) for _, solver in runs], names)
        weights = xr.Variable("weights", ["first", "learned"])
        modules = [draw_module(options, learned) for learned in (False, True)]
        papers = xr.concat([papers_setting(module, case) for module in modules], weights)
        orders = range(papers.sizes["layer"] - 1)
        papers = papers.assign(factor=(("order", "iterations"), [factors(order) for order in orders]), order=orders)
        other = replace(options, activation="tanh" if options.activation == "relu" else "relu")
        kinds = dict(zip((f"{options.activation}, first", f"{options.activation}, learned"), modules, strict=True))
        kinds[f"{other.activation}, learned"] = draw_module(other, learned=True)
        names = xr.Variable("weights", list(kinds))
        energies = xr.concat([energy(module, case) for module in kinds.values()], names)

    sizes = [case.inputs.shape[1], *options.layers, case.targets.shape[1]]
    about = {"dataset": options.dataset, "layers": "-".join(map(str, sizes)), "activation": options.activation}
    results = {"trajectory": trajectory, "sweep": sweep, "work_precision": precision}
    results = {name: data.assign_attrs(about) for name, data in results.items()}
    with plot.style():
        figures = {
            "convergence": draw(*results.values()),
            "convergence_papers": draw_papers(papers, energies, step=PAPERS_STEP, iterations=PAPERS_ITERATIONS),
        }
        files = write(options.out, figures, results | {"papers": papers, "energy": energies}, about)
    here = f"{options.dataset}, layers {about['layers']}, {options.activation}, float64, batch of {BATCH}"
    claims = write_rows(options, here, [*rows(trajectory, sweep, papers), *energy_rows(energies)])
    print(summary(*results.values()), papers_table(papers), claims, files, sep="\n")


def rows(trajectory: xr.Dataset, sweep: xr.Dataset, papers: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 1, and its choice of steps."""
    there = "3-layer MLP"
    moving = trajectory.distance.isel(layer=slice(-1))
    left = (moving.isel(time=-1) / moving.isel(time=0)).max("layer")
    steps = sweep.distance.isel(layer=slice(-1)).max("layer")
    ends = steps.isel(iteration=-1) < steps.isel(iteration=0)
    stable, lost = sweep.step.values[ends.values], sweep.step.values[~ends.values]
    first = papers.angle.sel(iterations=PAPERS_ITERATIONS).isel(layer=slice(-1)).max("layer")
    angles = " and ".join(f"{float(first.sel(weights=name)):.2g}° ({name} weights)" for name in papers.weights.values)
    seeds = trajectory.sizes["seed"]
    return [
        Row(
            AR,
            "figure 1, left",
            there,
            "activations converge precisely to the gradients of backprop",
            f"of the mean squared distance, {float(left.max()):.1e} is left after {DURATION:g} τ, the worst layer of "
            f"{seeds} seed{'s' * (seeds > 1)}",
            holds(float(left.max()) < CONVERGED, f"more than {CONVERGED:g} is left"),
        ),
        Row(
            AR,
            "figure 1, right",
            there,
            "larger steps converge faster",
            f"steps up to {stable.max():g} converge, {', '.join(f'{step:g}' for step in lost) or 'none'} diverges",
            holds(
                (np.diff(steps.sel(step=[h for h in STEPS if h <= 1]).isel(iteration=FEW)) < 0).all(),
                f"not in this order after {FEW} iterations",
            ),
        ),
        Row(
            AR,
            "§2",
            f"{PAPERS_ITERATIONS} steps of {PAPERS_STEP:g}",
            "100 iterations closely approximate the gradients of backprop",
            f"the farthest layer's update is {angles} off; one seed",
            holds(float(first.max()) < CLOSE, f"more than {CLOSE:g}° off"),
        ),
    ]


def energy_rows(energies: xr.Dataset) -> list[Row]:
    """Return what came out beside what the paper says of its energy."""
    end = energies.along.isel(length=-1).min("layer_above")
    parts, falling = [], []
    for name in map(str, energies.weights.values):
        at = energies.energy.sel(weights=name)
        lowest, last = float(at.min()), float(at.isel(time=-1))
        falling.append(last - lowest <= 1e-9 * abs(lowest))
        parts.append(
            f"{lowest:.3g} at {float(at.time[at.argmin('time')]):.2g} τ, {last:.3g} at the end ({name} weights)"
        )
    bounded = [str(name) for name in energies.weights.values if float(end.sel(weights=name)) > 0]
    start = float(abs(energies.energy.isel(time=0)).max())
    ends = ", ".join(f"{float(end.sel(weights=name)):+.2g} ({name} weights)" for name in energies.weights.values)
    return [
        Row(
            AR,
            "appendix A, eq. 9",
            "derived",
            "the dynamics appear to descend the energy, which is 0 at the forward pass",
            f"{start:.1g} at the start, lowest {'; '.join(parts)}; one seed, mean of {BATCH} samples",
            holds(all(falling), "it falls and rises again"),
        ),
        Row(
            AR,
            "appendix A, eq. 9",
            "derived",
            "the energy is bounded neither above nor below",
            f"E / (r²/2) for large r where it grows least: {ends}; one seed",
            holds(not bounded, f"bounded below with {'; '.join(bounded)} weights"),
        ),
    ]


def papers_table(papers: xr.Dataset) -> str:
    """Return the table of the papers' own setting, and what a user should do."""
    rows = []
    for weights in papers.weights.values:
        at = papers.sel(weights=weights)
        for layer in papers.layer.values[:-1]:
            angles = at.angle.sel(layer=layer)
            rows.append([f"W{layer}, {weights} weights", *(f"{float(each):.2g}" for each in angles)])
    moving = papers.angle.isel(layer=slice(-1))
    enough = [count for count in COUNTS if float(moving.sel(iterations=count).max()) <= NEAR]
    first = papers.angle.sel(iterations=PAPERS_ITERATIONS, layer=papers.layer[0])
    small = float(papers.gradient.sel(weights="learned") / papers.gradient.sel(weights="first"))
    depth = papers.sizes["layer"]
    left = ", ".join(f"{float(each):.1g}" for each in papers.factor.sel(iterations=PAPERS_ITERATIONS))
    to = f"{enough[0]} of them, duration={enough[0] * PAPERS_STEP:g}," if enough else f"more than {COUNTS[-1]}"
    before, after = (f"{float(first.sel(weights=weights)):.2g}°" for weights in ("first", "learned"))
    return "\n".join(
        [
            f"The papers' {PAPERS_ITERATIONS} steps of {PAPERS_STEP:g}: angle (°) between the update and backprop's",
            table(["iterations", *map(str, COUNTS)], rows),
            f"After {PAPERS_ITERATIONS}, the first layer's update is {before} off backprop's; with weights that have",
            f"learned, whose gradients are {small:.2g} times as large, it is {after}. The closed form leaves",
            f"the factors {left} for k = 0, 1, …",
            f"What to do: take {to} for {NEAR:g}°; or steps of 1, nd.Euler(1.0), exact after {depth - 1} of them; or",
            "leave duration out, so that nd.backward takes the equilibrium itself, at the cost of one sweep.",
            "",
        ]
    )


def summary(trajectory: xr.Dataset, sweep: xr.Dataset, precision: xr.Dataset) -> str:
    """Return the tables that are printed."""
    about = sweep.attrs
    seeds, layers = trajectory.sizes["seed"], sweep.sizes["layer"]
    over = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
    distance = trajectory.distance.mean("seed").sel(time=[0, DURATION / 2, DURATION], method="nearest")
    iterates = sweep.distance.max("layer").sel(iteration=[0, layers - 1, layers, ITERATIONS])
    growing = iterates.step[iterates.isel(iteration=-1) > iterates.isel(iteration=0)].values
    reached = precision.where(precision.error <= DEMANDED, drop=True).evaluations.groupby("solver").min()
    cost = reached.astype(int).to_series().sort_values()
    number = "{:.1e}".format
    return f"""\
Activation relaxation on {about["dataset"]}, layers {about["layers"]}, {about["activation"]}, float64

Mean squared distance to the backprop gradients, {over}, at three times:
{distance.to_pandas().to_string(float_format=number)}

The same for Euler's method, farthest layer, first seed, after some iterations:
{iterates.to_pandas().to_string(float_format=number)}
Steps that end farther than they began: {", ".join(f"{step:g}" for step in growing)}

Vector-field evaluations of the cheapest run with an RMS error of at most {DEMANDED:g} at t = {PRECISION_AT:g}:
{cost.to_string()}
"""


if __name__ == "__main__":
    torch.set_num_threads(1)  # a batch of 64 gains little from more, and they wait for each other on a busy machine
    main(parse(PAPER, __doc__))

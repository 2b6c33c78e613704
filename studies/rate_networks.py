"""Networks of rate units beyond learning rules: what unfolds in time, each declared in at most 15 lines and checked.

(a, b) Wilson and Cowan's excitatory and inhibitory rates under a drive that comes and goes, against SciPy's
`solve_ivp`, and their nullclines. (c) A ring attractor with noise: its bump diffuses, var ψ = D t, with
D = σ² |u|² / (u·v)² from the left and the right null vector, u and v, of the Jacobian. (d) A random network: below the
gain g = 1 its largest Lyapunov exponent is that of its rest, −1 + g max Re λ(W); above it turns positive, chaos, the
closer to 1 the more units there are. (e) FitzHugh and Nagumo's neuron: the branch of its rest, the Hopf points in
closed form, and the cycle between them. (f) Working memory in synapses: facilitation u outlasts the activity, so that a
later, unspecific pulse brings it back where there was a cue; against `solve_ivp`.

After H. R. Wilson, J. D. Cowan, Biophys. J. 12 (1972); Y. Burak, I. R. Fiete, PNAS 109 (2012); H. Sompolinsky, A.
Crisanti, H. J. Sommers, Phys. Rev. Lett. 61 (1988); R. FitzHugh, Biophys. J. 1 (1961); G. Mongillo, O. Barak, M.
Tsodyks, Science 319 (2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot

Array = NDArray[np.float64]

PRECISE = nd.Adaptive("dopri5", rtol=1e-9, atol=1e-11)
ON, OFF, ENDS = 10.0, 45.0, 70.0
"""When the drive of the oscillator comes, goes, and ends."""
BUMP, NOISE = 2.0, 0.2
"""The strength of the ring's couplings, and σ."""
DRIFT, STEP = 40.0, 0.1
"""How long the bump diffuses, and in which steps."""
GAINS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)
TRANSIENT, AVERAGED = 60.0, 120.0
"""How long the random network settles, and over how long its exponent is averaged."""
EPSILON, A, B = 0.08, 0.7, 0.8
"""FitzHugh and Nagumo's."""
BRANCH_STEP = 0.1
"""The longest step along the neuron's branch."""
CURRENTS = tuple(np.linspace(0.2, 1.6, 15).round(6).tolist())
"""Of which the neuron's cycles are run."""
USE, FACILITATION, DEPRESSION, SYNAPSE = 0.2, 1.5, 0.2, 3.0
"""U, τ_F and τ_D in seconds, and J of the memory."""
CUE, PULSE, RECALL = (0.5, 0.85), (1.6, 1.65), 2.5
"""When the cue and the unspecific pulse are, and when the run ends, in seconds."""
QUIET, CUED, PULSED = -3.0, 12.0, 1.0
"""The input between them, and in them."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """What to run; a seed draws the weights of a random network.

    Parameters
    ----------
    units
        Of the random network.
    ring
        Units of the ring attractor.
    samples
        Noisy paths of the bump.
    """

    out: Path = Path("results/rate_networks")
    seeds: tuple[int, ...] = tuple(range(10))
    units: int = 500
    ring: int = 128
    samples: int = 400


PAPER = Options(full=True, units=1000, samples=2000)
"""A larger setting; there is no one paper."""


def constant(name: str, value: float) -> nd.Population:
    """Declare a population of one unit that is held at a value."""
    return nd.Population(name, 1, clamp=nd.Constant(torch.tensor([value], dtype=torch.float64)))


def wilson_cowan() -> nd.Network:
    """Declare τ dr/dt = −r + S(W r + b + d(t)), with excitatory E and inhibitory I."""
    rate = nd.Pointwise(lambda e, i, d: torch.sigmoid(12 * e - 10 * i + d - 3), text="S(12 {} − 10 {} + {} − 3)")
    follow = nd.Pointwise(lambda e, i: torch.sigmoid(10 * e - 2 * i - 4), text="S(10 {} − 2 {} − 4)")
    return nd.Network(
        "Wilson–Cowan",
        [nd.Population("d", 1, clamp=nd.Input()), nd.Population("E", 1), nd.Population("I", 1, tau=2.0)],
        [nd.Coupling(("E", "I", "d"), "E", rate), nd.Coupling(("E", "I"), "I", follow)],
    )


def ring_attractor(units: int, start: Tensor) -> nd.Network:
    """Declare dx = (−x + W tanh x) dt + σ dW, with W_ij = 2J/n cos(θ_i − θ_j)."""
    angles = torch.arange(units).to(start) * (2 * torch.pi / units)
    weights = nn.Linear(units, units, bias=False).to(start)
    with torch.no_grad():
        weights.weight.copy_(2 * BUMP / units * torch.cos(angles[:, None] - angles))
    return nd.Network(
        "ring attractor",
        [nd.Population("x", units, initial=start, noise=NOISE)],
        [nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), weights)))],
    )


def random_network(units: int, gain: float, seed: int, device: str = "cpu") -> nd.Network:
    """Declare dx/dt = −x + g W tanh x, with W_ij from N(0, 1/n)."""
    weights = nn.Linear(units, units, bias=False, dtype=torch.float64, device=device)
    draw = torch.randn(units, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        weights.weight.copy_(draw / units**0.5)
    recurrent = nd.Forward(nn.Sequential(nn.Tanh(), weights))
    return nd.Network("random network", [nd.Population("x", units)], [nd.Coupling("x", "x", recurrent, gain=gain)])


def fitzhugh_nagumo(current: float) -> nd.Network:
    """Declare dv/dt = v − v³/3 − w + I and dw/dt = ε (v + a − b w)."""
    cubic = nd.Pointwise(lambda v: v - v**3 / 3, text="{0} − {0}³/3")
    recovery = nd.Population("w", 1, tau=1 / EPSILON, leak=B, initial=-0.6)
    return nd.Network(
        "FitzHugh–Nagumo",
        [constant("I", current), constant("a", A), nd.Population("v", 1, leak=0.0, initial=-1.2), recovery],
        [
            nd.Coupling("I", "v"),
            nd.Coupling("v", "v", cubic),
            nd.Coupling("w", "v", gain=-1.0),
            nd.Coupling("v", "w"),
            nd.Coupling("a", "w"),
        ],
    )


def working_memory() -> nd.Network:
    """Declare τ dh/dt = −h + J u x R + I, dx/dt = (1 − x)/τ_D − u x R, du/dt = (U − u)/τ_F + U (1 − u) R, R = S(h)."""
    depress = nd.Pointwise(lambda u, x, R: 1 - DEPRESSION * u * x * R, text="1 − τ_D {} {} {}")
    facilitate = nd.Pointwise(lambda u, R: USE + FACILITATION * USE * (1 - u) * R, text="U + τ_F U (1 − {}) {}")
    synapse = nd.Pointwise(lambda u, x, R: SYNAPSE * u * x * R, text="J {} {} {}")
    i, h = nd.Population("I", 1, clamp=nd.Input()), nd.Population("h", 1, tau=0.01, initial=QUIET)
    x, u = nd.Population("x", 1, tau=DEPRESSION, initial=1.0), nd.Population("u", 1, tau=FACILITATION, initial=USE)
    fire = nd.Coupling("h", "R", nd.Pointwise(nn.functional.softplus, text="ln(1 + exp {})"))
    inward = [nd.Coupling("I", "h"), nd.Coupling(("u", "x", "R"), "h", synapse)]
    plastic = [nd.Coupling(("u", "x", "R"), "x", depress), nd.Coupling(("u", "R"), "u", facilitate)]
    populations = [i, h, nd.Population("R", 1, tau=0.0), x, u]
    return nd.Network("working memory", populations, [fire, *inward, *plastic])


def oscillate(options: Options) -> xr.Dataset:
    """Run the oscillator, and SciPy beside it."""
    drive = nd.Signal([0, ON, ON + 5, OFF, OFF + 5, ENDS], torch.tensor([0.0, 0, 2, 2, 0, 0], dtype=torch.float64))
    times = np.linspace(0.0, ENDS, 701)
    run = nd.simulate(wilson_cowan(), drive, duration=ENDS, solver=PRECISE, save_at=times, record=["d", "E", "I"])

    def rates(t: float, r: Array) -> list[float]:
        d = np.interp(t, drive.times, drive.values.numpy())
        to_e, to_i = 12 * r[0] - 10 * r[1] + d - 3, 10 * r[0] - 2 * r[1] - 4
        return [-r[0] + sigmoid(to_e), (-r[1] + sigmoid(to_i)) / 2.0]

    return run.assign(error=off(run, ("E", "I"), reference(rates, [0.0, 0.0], times)))


def remember(options: Options) -> xr.Dataset:
    """Run the memory with and without a cue, and SciPy beside it."""
    times = np.linspace(0.0, RECALL, 1001)
    edges = [0.0, *CUE, *PULSE, RECALL]
    cases = {
        "cue": [QUIET, CUED, QUIET, PULSED, QUIET, QUIET],
        "no cue": [QUIET, QUIET, QUIET, PULSED, QUIET, QUIET],
    }
    levels = torch.tensor(list(cases.values()), dtype=torch.float64).T[:, :, None]
    pulses = nd.Signal(edges, levels, interpolation="previous")
    run = nd.simulate(working_memory(), pulses, duration=RECALL, solver=PRECISE, save_at=times)
    found = []
    for number in range(len(cases)):

        def slopes(t: float, y: Array, level: float) -> list[float]:
            h, x, u = y
            rate = np.log1p(np.exp(h))
            dx = (1 - x) / DEPRESSION - u * x * rate
            return [(-h + SYNAPSE * u * x * rate + level) / 0.01, dx, (USE - u) / FACILITATION + USE * (1 - u) * rate]

        known = in_pieces(slopes, [QUIET, 1.0, USE], times, edges, levels[:, number, 0].numpy())
        found.append(off(run.isel(sample=number), ("h", "x", "u"), known))
    return run.assign(error=("sample", found)).assign_coords(case=("sample", list(cases)))


def sigmoid(x: float) -> float:
    """Return 1 / (1 + e⁻ˣ)."""
    return float(1 / (1 + np.exp(-x)))


def reference(slopes: Callable[..., list[float]], start: list[float], times: Array, *more: float) -> Array:
    """Return SciPy's solution, shape (variable, time)."""
    span, settings = (times[0], times[-1]), {"method": "DOP853", "rtol": 1e-11, "atol": 1e-13, "max_step": 0.5}
    found: Array = solve_ivp(slopes, span, start, t_eval=times, args=more or None, **settings).y
    return found


def in_pieces(
    slopes: Callable[..., list[float]], start: list[float], times: Array, edges: list[float], levels: Array
) -> Array:
    """Return SciPy's solution where the input jumps at the edges."""
    parts, state = [np.array(start)[:, None]], start
    for low, high, level in zip(edges, edges[1:], levels, strict=False):
        inside = times[(times > low) & (times <= high)]
        found = reference(slopes, state, np.unique([low, *inside, high]), float(level))
        parts.append(found[:, np.isin(np.unique([low, *inside, high]), inside)])
        state = found[:, -1].tolist()
    return np.concatenate(parts, 1)


def off(run: xr.Dataset, names: tuple[str, ...], known: Array) -> float:
    """Return the largest distance from what is known."""
    return float(np.abs(np.stack([run[name].to_numpy().squeeze() for name in names]) - known).max())


def diffuse(options: Options) -> xr.Dataset:
    """Run noisy bumps, and work out how fast they diffuse in theory."""
    angles = np.arange(options.ring) * (2 * np.pi / options.ring)
    height = 1.0
    for _ in range(200):  # A = 2J/n Σ cos θ tanh(A cos θ)
        height = 2 * BUMP * float(np.mean(np.cos(angles) * np.tanh(height * np.cos(angles))))
    start = torch.tensor(height * np.cos(angles), device=options.device)
    network = ring_attractor(options.ring, start)
    bumps = {"x": start.expand(options.samples, -1)}
    times = np.linspace(0.0, DRIFT, 41)
    run = nd.simulate(
        network, None, duration=DRIFT, solver=nd.Euler(STEP), initial=bumps, save_at=times, seed=options.seeds[0]
    )
    phase = np.unwrap(np.angle(run.x.to_numpy() @ np.exp(1j * angles)), axis=0)
    left = np.sin(angles) / np.cosh(height * np.cos(angles)) ** 2
    right = height * np.sin(angles)
    expected = NOISE**2 * (left @ left) / (left @ right) ** 2
    variance = phase.var(1)
    return xr.Dataset(
        {
            "phase": (("time", "sample"), phase, {"units": "rad", "long_name": "phase of the bump"}),
            "variance": ("time", variance, {"units": "rad²", "long_name": "variance of the phase"}),
            "expected": ("time", expected * times, {"units": "rad²", "long_name": "the same in theory"}),
        },
        {"time": ("time", times, {"units": "tau", "long_name": "time"})},
        {"diffusion": float(variance @ times / (times @ times)), "diffusion_expected": float(expected)},
    )


def part(options: Options) -> xr.Dataset:
    """Return the largest Lyapunov exponent of every random network, and that of its rest."""
    found = np.empty((len(GAINS), len(options.seeds)))
    rest = np.empty_like(found)
    start = torch.randn(1, options.units, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = start.to(options.device)
    with options.progress(total=found.size, unit="network") as bar:
        for place, seed in enumerate(options.seeds):
            weights = random_network(options.units, 1.0, seed).stages[0].parameters[0].detach().numpy()
            rest[:, place] = -1 + np.array(GAINS) * np.linalg.eigvals(weights).real.max()
            for row, gain in enumerate(GAINS):
                exponents = nd.analysis.lyapunov(
                    random_network(options.units, gain, seed, options.device),
                    duration=AVERAGED,
                    transient=TRANSIENT,
                    interval=2.0,
                    solver=nd.Heun(0.2),
                    initial={"x": start},
                )
                found[row, place] = exponents.exponent.item()
                bar.update()
    rate = {"units": "1/tau"}
    return xr.Dataset(
        {
            "exponent": (("gain", "seed"), found, {**rate, "long_name": "largest Lyapunov exponent"}),
            "of_rest": (("gain", "seed"), rest, {**rate, "long_name": "growth rate about the rest"}),
        },
        {"gain": ("gain", list(GAINS), {"units": "1", "long_name": "gain g"}), "seed": list(options.seeds)},
    )


def excite(options: Options) -> xr.Dataset:
    """Follow the neuron's rest, and its cycles."""
    branch = nd.analysis.continuation(fitzhugh_nagumo, 0.0, 2.0, step=BRANCH_STEP)
    v = np.array([-1.0, 1.0]) * np.sqrt(1 - EPSILON * B)
    expected = v**3 / 3 - v + (v + A) / B
    reach = []
    for current in CURRENTS:
        run = nd.simulate(
            fitzhugh_nagumo(current), None, duration=400.0, save_at=np.linspace(200, 400, 801), solver=PRECISE
        )
        reach.append([float(run.v.min()), float(run.v.max())])
    return branch.assign(
        hopf_expected=("hopf", expected, {"units": "1", "long_name": "Hopf points in closed form"}),
        cycle=(("current", "end"), np.array(reach), {"units": "1", "long_name": "least and largest v"}),
    ).assign_coords(current=("current", list(CURRENTS), {"units": "1", "long_name": "current I"}))


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = {
        "wilson_cowan": oscillate(options),
        "ring_attractor": diffuse(options),
        "random_network": part(options),
        "fitzhugh_nagumo": excite(options),
        "working_memory": remember(options),
    }
    about = {name: str(getattr(options, name)) for name in ("units", "ring", "samples")}
    with plot.style():
        files = write(options.out, {"rate_networks": draw(found)}, found, about)
    print(summary(found), files, sep="\n")


def draw(found: dict[str, xr.Dataset]) -> Figure:
    """Return the figure."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.5))
    draw_oscillator(axes[0, 0], found["wilson_cowan"])
    draw_plane(axes[0, 1])
    draw_ring(axes[0, 2], found["ring_attractor"])
    draw_random(axes[1, 0], found["random_network"])
    draw_neuron(axes[1, 1], found["fitzhugh_nagumo"])
    draw_memory(axes[1, 2], found["working_memory"])
    return figure


def draw_oscillator(ax: Axes, run: xr.Dataset) -> None:
    for name in ("E", "I"):
        ax.plot(run.time, run[name].squeeze(), label=name)
    ax.plot(run.time, 0.1 * run.d.squeeze(), color=plot.GREY, linestyle="--", label="drive / 10")
    ax.set(xlabel="time (τ)", ylabel="rate", ylim=(-0.02, 1.0))
    ax.set_title("(a) Wilson–Cowan under a drive")
    ax.legend(loc="upper right")


def draw_plane(ax: Axes) -> None:
    drive = torch.tensor([[2.0]], dtype=torch.float64)
    plot.phase_plane(wilson_cowan(), "E", "I", (0.0, 1.0), (0.0, 1.0), drive, ax=ax)
    ax.set_title("(b) The same: nullclines at the drive's height")


def draw_ring(ax: Axes, bumps: xr.Dataset) -> None:
    ax.plot(bumps.time, bumps.variance, "o", markersize=3, label=f"{bumps.sizes['sample']} paths")
    ax.plot(bumps.time, bumps.expected, color=plot.BLACK, label="theory")
    ax.set(xlabel="time (τ)", ylabel="variance of the bump's phase (rad²)")
    ax.set_title("(c) A bump on a ring diffuses")
    ax.legend()


def draw_random(ax: Axes, random: xr.Dataset) -> None:
    ax.plot(random.gain, random.exponent, "o", markersize=3, color=plot.BLUE, alpha=0.6)
    ax.plot(random.gain, random.exponent.mean("seed"), color=plot.BLUE, label="largest exponent")
    ax.plot(random.gain, random.of_rest.mean("seed"), "--", color=plot.GREY, label="growth about the rest")
    ax.axhline(0, color=plot.BLACK, linewidth=0.8)
    ax.axvline(1, color=plot.BLACK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="gain g", ylabel="largest Lyapunov exponent (1/τ)")
    ax.set_title(f"(d) Random networks, {random.sizes['seed']} draws")
    ax.legend()


def draw_neuron(ax: Axes, branch: xr.Dataset) -> None:
    v = branch.v.squeeze()
    ax.plot(branch.parameter, v.where(branch.stable), color=plot.BLUE, label="rest, stable")
    ax.plot(branch.parameter, v.where(~branch.stable), "--", color=plot.BLUE, label="rest, unstable")
    ax.plot(branch.current, branch.cycle, ".", color=plot.VERMILION)
    ax.plot([], [], ".", color=plot.VERMILION, label="extremes of a run")
    ax.plot(branch.parameter_at, branch.v_at.squeeze(), "o", color=plot.BLACK, label="Hopf")
    ax.set(xlabel="current I", ylabel="v")
    ax.set_title("(e) FitzHugh–Nagumo")
    ax.legend(loc="center left", fontsize=7)


def draw_memory(ax: Axes, run: xr.Dataset) -> None:
    for number, style in enumerate(("-", "--")):
        at = run.isel(sample=number)
        ax.plot(at.time, at.R.squeeze(), style, color=plot.BLUE, label=f"rate R, {at.case.item()}")
        ax.plot(at.time, 20 * at.u.squeeze(), style, color=plot.GREEN, label=f"20 u, {at.case.item()}")
    for low, high in (CUE, PULSE):
        ax.axvspan(low, high, color="0.9", zorder=0)
    ax.set(xlabel="time (s)", ylabel="rate (1/s), facilitation")
    ax.set_title("(f) A memory in synapses: cue, then a pulse")
    ax.legend(fontsize=7)


def summary(found: dict[str, xr.Dataset]) -> str:
    """Return the table that is printed."""
    ring, random, neuron = found["ring_attractor"].attrs, found["random_network"], found["fitzhugh_nagumo"]
    calm = random.sel(gain=random.gain[random.gain < 0.95])
    mean = random.exponent.mean("seed")
    last = int(np.flatnonzero(mean.values < 0)[-1])
    around = slice(last, last + 2)
    crossing = float(np.interp(0.0, mean.values[around], random.gain.values[around]))
    shares = (random.exponent > 0).sum("seed").to_series()
    chaotic = ", ".join(f"{gain:g}: {count}" for gain, count in shares.items())
    hopf = float(np.abs(neuron.parameter_at.values - neuron.hopf_expected.values).max())
    memory = found["working_memory"]
    late = memory.R.sel(time=slice(PULSE[0], None)).max("time").squeeze()
    rows = [
        ["Wilson–Cowan, error against solve_ivp", f"{float(found['wilson_cowan'].error):.1e}"],
        ["ring attractor, diffusion (rad²/τ)", f"{ring['diffusion']:.3g}, theory {ring['diffusion_expected']:.3g}"],
        ["random network, λ = 0 at g", f"{crossing:.3g}"],
        ["  draws that are chaotic, by g", chaotic],
        ["  λ off that of the rest, g < 0.95", f"{float(np.abs(calm.exponent - calm.of_rest).max()):.1e}"],
        ["FitzHugh–Nagumo, error of the Hopf points", f"{hopf:.1e}"],
        ["working memory, error against solve_ivp", f"{float(memory.error.max()):.1e}"],
        ["  rate after the pulse, cue and no cue (1/s)", " and ".join(f"{float(each):.3g}" for each in late)],
    ]
    return table(["network", "found"], rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(parse(PAPER, __doc__))

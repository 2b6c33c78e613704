"""The lines of the table: what is done, by neurodyn, by backprop, by hand and by peers, and the error of each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from benchmarks import architectures as modules
from benchmarks import plain
from benchmarks.measure import Line
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.choice import for_trajectory
from neurodyn.system.state import State
from neurodyn.train.learners import Learner, NetworkLearner

PAPER = (784, 300, 300, 100, 10)
INFERENCE = (784, 300, 300, 300, 10)
DURATION = 20.0
RESIDUAL = 1e-4
MEMBERS = 8
KINKED = {
    "8-8-8-4": (8, 8, 8, 4),
    "16-16-16-16-10": (16, 16, 16, 16, 10),
    "20-64-32-16-8-4": (20, 64, 32, 16, 8, 4),
    "32-32-32-10": (32, 32, 32, 10),
    "64-64-64-10": (64, 64, 64, 10),
    "64-64-64-64-64-10": (64, 64, 64, 64, 64, 10),
}
"""Networks of ReLU whose units slide along their kinks."""
METHODS = ("dopri5", "bosh3", "adaptive_heun")
"""Those of torchdiffeq that are compared."""

Way = Callable[[], list[np.ndarray]]
"""A way to relax predictive coding, which returns the hidden layers' activity."""


def data(sizes: Sequence[int], batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Return inputs in [0, 1] and one-hot targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, sizes[0], generator=generator)
    t = nn.functional.one_hot(torch.arange(batch) % sizes[-1], sizes[-1]).to(x)
    return x.to(device), t.to(device)


def backprop(module: nn.Module, x: Tensor, t: Tensor) -> Callable[[], None]:
    """Return one backward pass of the batch mean of ½‖y − t‖²."""

    def step() -> None:
        module.zero_grad()
        (0.5 * (module(x) - t).square().flatten(1).sum(1)).mean().backward()

    return step


def backward(network: nd.Network, module: nn.Module, x: Tensor, t: Tensor, **how: object) -> Callable[[], None]:
    """Return one `nd.backward`."""

    def step() -> None:
        module.zero_grad()
        nd.backward(network, x, t, **how)  # type: ignore[arg-type]

    return step


def gradient_error(way: Callable[[], None], reference: Callable[[], None], module: nn.Module) -> float:
    """Return how far the gradients of two ways are apart, relative to the largest."""
    found = []
    for step in (way, reference):
        step()
        found.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    return float((found[0] - found[1]).abs().max() / found[1].abs().max())


def learning(device: str) -> Iterator[Line]:
    """Gradients of one batch against backprop's."""
    for name, sizes in (("", PAPER), (", 64 wide", (64,) * 5)):
        yield from _gradients(name, sizes, device)
    yield _euler_iterations(device)
    yield _target_propagation(device)


def _gradients(which: str, sizes: Sequence[int], device: str) -> Iterator[Line]:
    module = nd.mlp(sizes, device=device)
    x, t = data(sizes, 64, device)
    reference = backprop(module, x, t)
    networks = {
        "AR gradient": ar.network(module),
        "Z-IL gradient": pc.network(module, learning="z-il"),
        "Fa-Z-IL gradient": pc.network(module, learning="fa-z-il"),
    }
    for name, network in networks.items():
        way = backward(network, module, x, t)
        errors = {"neurodyn": gradient_error(way, reference, module)}
        yield Line(f"{name}{which}", {"neurodyn": way, "backprop": reference}, errors, 1e-5)

    def by_hand() -> None:
        module.zero_grad()
        plain.Inference(module, x, t).learn(module, 0.5, 20)

    way = backward(pc.network(module, step=0.5, steps=20), module, x, t)
    il = {"neurodyn": way, "by hand": by_hand, "backprop": reference}
    yield Line(f"IL, 20 steps{which}", il, {"neurodyn": gradient_error(way, by_hand, module)}, 1e-4)


def _euler_iterations(device: str) -> Line:
    module = nd.mlp(PAPER, device=device)
    x, t = data(PAPER, 64, device)
    network = ar.network(module)
    closed = backward(network, module, x, t, duration=10.0, solver=nd.Exact(euler_step=0.1))
    loop = backward(network, module, x, t, duration=10.0, solver=nd.Euler(0.1))
    ways = {
        "neurodyn": closed,
        "neurodyn, Euler loop": loop,
        "by hand": torch.no_grad()(lambda: plain.Relaxation(module, x, t).euler(0.1, 100)),
        "torchdiffeq euler": torch.no_grad()(
            lambda: plain.Relaxation(module, x, t).trajectory(torch.linspace(0.0, 10.0, 101, device=device), "euler")
        ),
        "backprop": backprop(module, x, t),
    }
    return Line("AR, 100 Euler iterations", ways, {"neurodyn": gradient_error(closed, loop, module)}, 1e-5)


def _target_propagation(device: str) -> Line:
    square = tp.tower([784] * 6, outputs=10, weights="orthogonal", device=device)
    x, t = data((784, 10), 60, device)
    reference = backprop(square, x, t)
    # For orthogonal weights and γ → 0 it is backprop's gradient.
    way = backward(tp.network(square, rule="gait", gamma=1e-5), square, x, t)
    errors = {"neurodyn": gradient_error(way, reference, square)}
    return Line("GAIT step", {"neurodyn": way, "backprop": reference}, errors, 1e-4)


def architectures(device: str) -> Iterator[Line]:
    """Gradients of other modules than perceptrons against backprop's, and a relaxation against its vector field."""
    images, digits = data((3 * 32 * 32, 10), 16, device)
    images = images.view(-1, 3, 32, 32)
    tokens, following = (each.view(8, 64, 64) for each in data((64 * 64, 64 * 64), 8, device))
    for name, module, x, t in (
        ("ResNet of 8 blocks", modules.resnet().to(device), images, digits),
        ("transformer of 6 layers", modules.transformer().to(device), tokens, following),
    ):
        reference = backprop(module, x, t)
        way = backward(ar.graph(module, x), module, x, t)
        errors = {"neurodyn": gradient_error(way, reference, module)}
        yield Line(f"AR gradient, {name}", {"neurodyn": way, "backprop": reference}, errors, 1e-5)
    module = modules.vgg().to(device)
    reference = backprop(module, images, digits)
    networks = {
        "Z-IL gradient": pc.network(module, learning="z-il"),
        "Fa-Z-IL gradient": pc.network(module, learning="fa-z-il"),
        "IL, 20 steps": pc.network(module, step=0.5, steps=20),
    }
    for name, network in networks.items():
        way = backward(network, module, images, digits)
        # Under max pooling, the others are no backprop.
        errors = {"neurodyn": gradient_error(way, reference, module)} if name == "Z-IL gradient" else {}
        yield Line(f"{name}, VGG of 3 convolutions", {"neurodyn": way, "backprop": reference}, errors, 1e-5)
    system = nd.System(pc.network(module, steps="equilibrium"), images, digits)
    chosen = for_trajectory(system).solver
    run = partial(integrate, system, chosen)
    _, count = run()
    ways: dict[str, Callable[[], object]] = {"neurodyn": run, "vector field alone": partial(evaluate, system, count)}
    yield Line(f"PC to t = 20, VGG of 3 convolutions: {count} evaluations", ways)


def trajectories(device: str) -> Iterator[Line]:
    """A recorded relaxation, against torchdiffeq, and against writing its bytes."""
    module = nd.mlp(PAPER, device=device)
    x, t = data(PAPER, 64, device)
    network = ar.network(module)

    def write() -> None:
        for units in PAPER[1:]:
            np.empty((1001, 64, units), np.float32).fill(1.0)

    def simulate() -> xr.Dataset:
        return nd.simulate(network, x, t, duration=10.0, save_at=1001)

    double = ar.network(nd.mlp(PAPER, device=device, dtype=torch.float64))
    exact = nd.simulate(double, x.double(), t.double(), duration=10.0, solver=nd.RK4(0.02), save_at=[10.0])
    end = simulate().isel(time=-1)
    errors = {"neurodyn": max(float(abs(end[name] - exact[name].isel(time=0)).max()) for name in exact.data_vars)}
    ways: dict[str, Callable[[], object]] = {"neurodyn": simulate, "writing the bytes": write}
    times = torch.linspace(0.0, 10.0, 1001, device=device)
    for method in METHODS:

        def by_hand(method: str = method) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return plain.Relaxation(module, x, t).trajectory(times, method)

        name = f"torchdiffeq {method}"
        ways[name] = by_hand
        found = {f"x{layer}": value[-1].cpu().numpy() for layer, value in enumerate(by_hand(), start=1)}
        errors[name] = max(float(abs(value - exact[name].values[0]).max()) for name, value in found.items())
    # What torchdiffeq frees is returned to the system, which the next way has to ask for again.
    yield Line("AR trajectory, 1,001 points", ways, errors, 1e-5, warm=True)


def inference(device: str) -> Iterator[Line]:
    """Predictive coding in continuous time, against torchdiffeq."""
    module = nd.mlp(INFERENCE, device=device)
    x, t = data(INFERENCE, 64, device)
    network = pc.network(module, steps="equilibrium")
    hidden = ["x1", "x2", "x3"]
    reference = reference_inference(device)

    def error(values: Sequence[np.ndarray], wanted: str) -> float:
        gaps = [np.abs(v - reference[f"{wanted} {name}"]).max() for v, name in zip(values, hidden, strict=True)]
        return float(max(gaps))

    def relax() -> list[np.ndarray]:
        run = nd.simulate(network, x, t, duration=DURATION, save_at=[DURATION], record=hidden)
        return [run[name].values[0] for name in hidden]

    def settle() -> list[np.ndarray]:
        found = nd.equilibrium(network, x, t, tolerance=RESIDUAL, record=hidden)
        return [found[name].values for name in hidden]

    def by_hand(duration: float, method: str, tolerance: float) -> Way:
        def way() -> list[np.ndarray]:
            with torch.no_grad():
                end = plain.Inference(module, x, t).relax(duration, method, tolerance, 0.1 * tolerance)
            return [value.cpu().numpy() for value in end]

        return way

    ways: dict[str, Way] = {"neurodyn": relax}
    ways |= {f"torchdiffeq {m}": by_hand(DURATION, m, 1e-3) for m in METHODS}
    errors = {name: error(way(), "relaxed") for name, way in ways.items()}
    yield Line("PC relaxation to t = 20", ways, errors, 1e-3)

    arrival = float(reference["arrival"])
    ways = {"neurodyn": settle} | {f"torchdiffeq {m}": by_hand(arrival, m, 1e-4) for m in METHODS}
    errors = {name: error(way(), "settled") for name, way in ways.items()}
    yield Line("PC equilibrium", ways, errors, 1e-2)

    circuit_module = tp.tower([100] * 5, outputs=10, device=device)
    circuit_x, circuit_t = data((100, 10), 64, device)
    circuit = tp.weak_feedback(circuit_module)
    double = tp.weak_feedback(copy.deepcopy(circuit_module).double())
    end = nd.simulate(
        double,
        circuit_x.double(),
        circuit_t.double(),
        duration=100.0,
        solver=nd.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-9),
        save_at=[100.0],
    ).isel(time=0)
    flow = partial(nd.simulate, circuit, circuit_x, circuit_t, duration=DURATION, save_at=[DURATION])
    circuits: dict[str, Callable[[], xr.Dataset]] = {"neurodyn": partial(nd.equilibrium, circuit, circuit_x, circuit_t)}
    for method in METHODS:  # with our vector field, until the error is about the same
        circuits[f"torchdiffeq {method}"] = partial(flow, solver=nd.TorchDiffEq(method, rtol=1e-4, atol=1e-5))
    errors = {}
    for name, way in circuits.items():
        found = way().isel(time=-1, missing_dims="ignore")
        errors[name] = max(float(abs(found[n] - end[n]).max() / abs(end[n]).max()) for n in end.data_vars)
    yield Line(
        "weak-feedback equilibrium",
        {**circuits, "backprop": backprop(circuit_module, circuit_x, circuit_t)},
        errors,
        1e-3,
    )


def solvers(device: str) -> Iterator[Line]:
    """Each solver's run of predictive coding, against as many evaluations of the vector field alone."""
    kinds: dict[str, nd.Solver] = {
        "Euler": nd.Euler(0.1),
        "bosh3": nd.Adaptive("bosh3", rtol=1e-3, atol=1e-4),
        "Stabilized": nd.Stabilized(),
    }
    for width in (300, 64):
        layers = (784, width, width, width, 10)
        x, t = data(layers, 64, device)
        system = nd.System(pc.network(nd.mlp(layers, device=device), steps="equilibrium"), x, t)
        reference = relaxed_inference(layers, device)
        for name, solver in kinds.items():
            run = partial(integrate, system, solver)
            end, count = run()
            error = max(float(np.abs(end.activity[x].cpu().numpy() - value).max()) for x, value in reference.items())
            field = partial(evaluate, system, count)
            ways: dict[str, Callable[[], object]] = {"neurodyn": run, "vector field alone": field}
            yield Line(f"solver {name}, {width} wide", ways, {"neurodyn": error}, 2e-2)


def kinks(device: str) -> Iterator[Line]:
    """Predictive coding of small ReLU networks, whose units slide along their kinks, against Heun's pair."""
    for name, layers in KINKED.items():
        module = nd.mlp(layers, activation="relu", device=device)
        x, t = data(layers, 8, device)
        system = nd.System(pc.network(module, steps="equilibrium"), x, t)
        exact = nd.System(pc.network(copy.deepcopy(module).double(), steps="equilibrium"), x.double(), t.double())
        end, _ = integrate(exact, nd.Sliding(1e-7, 1e-8))
        chosen = for_trajectory(system).solver
        found, count = integrate(system, chosen)
        error = float((found.flat.double() - end.flat).abs().max())
        ways: dict[str, Callable[[], object]] = {
            "neurodyn": partial(integrate, system, chosen),
            "vector field alone": partial(evaluate, system, count),
        }
        line = f"PC of ReLU to t = 20, {name}: {count} evaluations"
        yield Line(line, ways, {"neurodyn": error}, 2e-2)
        settle = partial(nd.equilibrium, pc.network(module, steps="equilibrium"), x, t)
        count = settle().evaluations
        ways = {"neurodyn": settle, "vector field alone": partial(evaluate, system, count)}
        yield Line(f"PC equilibrium of ReLU, {name}: {count} evaluations", ways)


@torch.no_grad()
def integrate(system: nd.System, solver: nd.Solver) -> tuple[State, int]:
    """Return the state at the end of a run, and how many evaluations of the vector field it took."""
    state = system.initial_state()
    report = solver.integrate(system, state, DURATION, Unrecorded())
    # A method of fixed steps evaluates the last slope as well, for the residual.
    return state, report.evaluations + isinstance(solver, nd.Euler)


@torch.no_grad()
def evaluate(system: nd.System, count: int) -> None:
    """Evaluate the vector field so many times."""
    state, slope = system.initial_state(), system.new_state()
    for _ in range(count):
        system.field(state, slope)


def steps(device: str) -> Iterator[Line]:
    """A hundred steps of Euler's method, against the same by hand; and compiled."""
    for width in (300, 64):
        layers = (784, width, width, width, 10)
        module = nd.mlp(layers, device=device)
        x, t = data(layers, 64, device)
        network = pc.network(module, steps="equilibrium")
        hand = plain.Inference(module, x, t)

        def run(
            network: nd.Network = network, x: Tensor = x, t: Tensor = t, *, compiled: bool = False
        ) -> list[np.ndarray]:
            solver = nd.Euler(0.1, compile=compiled)
            end = nd.simulate(network, x, t, duration=10.0, solver=solver, save_at=[10.0], record=["x1", "x2", "x3"])
            return [value.values[0] for value in end.data_vars.values()]

        def euler(hand: plain.Inference = hand) -> list[np.ndarray]:
            return [value.cpu().numpy() for value in hand.euler(0.1, 100)]

        ways: dict[str, Way] = {"neurodyn": run, "neurodyn, compiled": partial(run, compiled=True), "by hand": euler}
        expected = euler()
        errors = {
            name: float(max(np.abs(a - b).max() for a, b in zip(way(), expected, strict=True)))
            for name, way in ways.items()
        }
        yield Line(f"PC, 100 Euler steps, {width} wide", ways, errors, 1e-5)


def signals(device: str) -> Iterator[Line]:
    """The closed form of a chain under a signal, against the same sums of as many products by hand."""
    for width, count in ((64, 20), (64, 200), (300, 20)):
        torch.manual_seed(0)
        layers = [nn.Linear(width, width, bias=False, device=device) for _ in range(3)]
        times = np.linspace(0.0, 10.0, count + 1)
        values = torch.randn(count + 1, 64, width, generator=torch.Generator().manual_seed(0)).to(device)
        names = [f"x{place}" for place in range(3)]
        network = nd.Network(
            "chain",
            [nd.Population("u", width, clamp=nd.Input()), *(nd.Population(name, width) for name in names)],
            [
                nd.Coupling(source, target, nd.Forward(layer))
                for source, target, layer in zip(("u", *names), names, layers, strict=False)
            ],
        )

        def run(network: nd.Network = network, times: np.ndarray = times, values: Tensor = values) -> list[np.ndarray]:
            end = nd.simulate(network, nd.Signal(times, values), duration=10.0, solver=nd.Exact(), save_at=[10.0])
            return [value.values[0] for value in end.data_vars.values()]

        hand = plain.Chain([layer.weight.detach() for layer in layers], values, 10.0 / count)
        errors = {"neurodyn": float(max(np.abs(a - b).max() for a, b in zip(run(), hand(), strict=True)))}
        yield Line(
            f"Exact under a signal, {width} wide, {count} pieces", {"neurodyn": run, "by hand": hand}, errors, 1e-4
        )


def delays(device: str) -> Iterator[Line]:
    """Steps of 300 recurrent units that read each other with a delay, against the same steps without one."""
    torch.manual_seed(0)
    layer = nn.Linear(300, 300, device=device)
    reading = nd.Forward(nn.Sequential(nn.Tanh(), layer))
    late, prompt = (
        nd.Network("recurrent", [nd.Population("x", 300)], [nd.Coupling("x", "x", reading, delay=delay)])
        for delay in (1.0, 0.0)
    )
    step, count = 0.05, 400
    for solver, batch in itertools.product((nd.Euler(step), nd.Heun(step), nd.RK4(step)), (1, 64)):
        start = torch.rand(batch, 300, generator=torch.Generator().manual_seed(0)).to(device)

        def run(network: nd.Network, solver: nd.Solver = solver, start: Tensor = start) -> np.ndarray:
            found = nd.simulate(
                network, None, initial={"x": start}, duration=step * count, solver=solver, save_at=[step * count]
            )
            return np.asarray(found.x[0])

        errors = {}
        if isinstance(solver, nd.Euler):
            states = [start] * (round(1.0 / step) + 1)
            with torch.no_grad():
                for _ in range(count):
                    states.append(states[-1] + step * (layer(states[-1 - round(1.0 / step)].tanh()) - states[-1]))
            errors["neurodyn"] = float(np.abs(run(late) - states[-1].cpu().numpy()).max())
        ways = {"neurodyn": partial(run, late), "neurodyn, no delay": partial(run, prompt)}
        yield Line(f"{type(solver).__name__} with a delay, 300 wide, batch {batch}", ways, errors, 1e-5)


def training(device: str) -> Iterator[Line]:
    """Five epochs of learning the digits, with the test at their ends, against backprop by the same function."""
    train, test = nd.data.digits()
    networks: dict[str, Callable[[nn.Sequential], nd.Network | nn.Module]] = {
        "neurodyn": ar.network,
        "backprop": lambda module: module,
    }

    def epoch(declare: Callable[[nn.Sequential], nd.Network | nn.Module]) -> float:
        network = declare(nd.mlp([64, *PAPER[1:]], device=device))
        history = nd.train.fit(network, train, test, epochs=5, optimizer="adam", seed=0, device=device)
        return float(history["test_loss"][-1])

    losses = {name: epoch(declare) for name, declare in networks.items()}
    errors = {"neurodyn": abs(losses["neurodyn"] - losses["backprop"]) / losses["backprop"]}
    yield Line(
        "AR, five epochs of training", {name: partial(epoch, way) for name, way in networks.items()}, errors, 1e-3
    )


def stacking(device: str) -> Iterator[Line]:
    """Gradients of several networks at once, against one by one, and the same batched products by hand."""
    rules: dict[str, Callable[[nn.Sequential], nd.Network]] = {
        "AR": ar.network,
        "Z-IL": partial(pc.network, learning="z-il"),
    }
    for sizes in ((20, 30, 30, 10), PAPER):
        modules = [nd.mlp(sizes, seed=seed, device=device) for seed in range(MEMBERS)]
        x, t = data(sizes, 64 * MEMBERS, device)
        blocks = (each.view(MEMBERS, -1, each.shape[1]) for each in (x, t))
        by_hand = partial(torch.no_grad()(plain.stacked_gradients), plain.stacked_weights(modules), *blocks)
        for name, declare in rules.items():
            learners = [NetworkLearner(declare(module)) for module in modules]
            together = learners[0].stack(learners)
            ways = {
                "neurodyn": partial(_learn, [together], x, t),
                "one by one": partial(_learn, learners, x, t),
                "by hand": by_hand,
            }
            expected = by_hand()
            errors = {
                way: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(run(), expected, strict=True))
                for way, run in ways.items()
            }
            yield Line(f"{name} gradients of {MEMBERS} networks, {sizes[1]} wide", ways, errors, 1e-4)


def _learn(learners: Sequence[Learner], x: Tensor, t: Tensor) -> list[Tensor]:
    """Return the gradients of all networks, stacked."""
    for learner, own, targets in zip(learners, x.chunk(len(learners)), t.chunk(len(learners)), strict=True):
        for parameter in learner.parameters:
            parameter.grad = None
        learner.learn(own, targets, progress=False)
    if len(learners) == 1:
        return [parameter.grad for parameter in learners[0].parameters if parameter.grad is not None]
    each = zip(*(learner.parameters for learner in learners), strict=True)
    return [torch.stack([p.grad for p in own if p.grad is not None]) for own in each]


def reference_inference(device: str) -> dict[str, np.ndarray]:
    """Return the relaxed and the settled activity in double precision, and when the residual meets the tolerance."""
    module = nd.mlp(INFERENCE, device=device, dtype=torch.float64)
    x, t = (value.double() for value in data(INFERENCE, 64, device))
    network = pc.network(module, steps="equilibrium")
    arrival = nd.simulate(network, x, t, duration=500.0, solver=nd.Adaptive(), save_at=[0.0], until=nd.steady(RESIDUAL))
    settled = nd.equilibrium(network, x, t, tolerance=1e-9)
    found = {f"relaxed {name}": value for name, value in relaxed_inference(INFERENCE, device).items()}
    found |= {f"settled {name}": settled[name].values for name in ("x1", "x2", "x3")}
    return {**found, "arrival": arrival["time"].values[-1]}


def relaxed_inference(layers: Sequence[int], device: str) -> dict[str, np.ndarray]:
    """Return the hidden layers' relaxed activity in double precision, by torchdiffeq."""
    module = nd.mlp(list(layers), device=device, dtype=torch.float64)
    x, t = (value.double() for value in data(layers, 64, device))
    end = plain.Inference(module, x, t).relax(DURATION, "dopri8", 1e-8, 1e-9)
    return {f"x{number}": value.cpu().numpy() for number, value in enumerate(end, start=1)}


def sizes(device: str) -> Iterator[tuple[dict[str, int], dict[str, Callable[[], None]]]]:
    """Gradients against backprop's as a network grows: in width, depth and batch."""
    for width in (64, 256, 1024, 4096):
        yield {"width": width, "depth": 3, "batch": 64}, _growing([width] * 4, 64, device)
    for depth in (2, 5, 10, 30, 100):
        yield {"width": 128, "depth": depth, "batch": 64}, _growing([128] * (depth + 1), 64, device)
    for batch in (1, 16, 256, 1024):
        yield {"width": 300, "depth": 4, "batch": batch}, _growing(PAPER, batch, device)


def _growing(layers: Sequence[int], batch: int, device: str) -> dict[str, Callable[[], None]]:
    module = nd.mlp(list(layers), device=device)
    x, t = data(layers, batch, device)
    relaxation = ar.network(module)
    return {
        "AR gradient": backward(relaxation, module, x, t),
        "AR, 100 Euler iterations": backward(relaxation, module, x, t, duration=10.0, solver=nd.Exact(euler_step=0.1)),
        "Z-IL gradient": backward(pc.network(module, learning="z-il"), module, x, t),
        "backprop": backprop(module, x, t),
    }


GROUPS: dict[str, list[Callable[[str], Iterator[Line]]]] = {
    "One gradient": [learning],
    "Beyond perceptrons": [architectures],
    "Relaxations": [trajectories, steps, signals, delays, inference, kinks],
    "What a solver adds": [solvers],
    "Training": [training, stacking],
}
"""The lines of the table, in groups."""

"""The closed form, against loops, adaptive integration and dense matrix exponentials."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.problems import cnn, mlp, tensor


def bound(sizes=(8, 7, 6, 5), output="clamped", dtype=torch.float64, seed=0, scale=1.0):
    """An AR network with inputs and targets."""
    module = nd.mlp(list(sizes), weights="default", seed=seed, dtype=dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, sizes[0], generator=generator, dtype=torch.float64).to(dtype)
    t = torch.randn(3, sizes[-1], generator=generator, dtype=torch.float64).to(dtype)
    return ar.network(module, output=output), x, t


def rotation():
    """A linear network with a cycle, two rates, a drive, an offset, and an instantaneous population in between."""
    torch.manual_seed(0)
    return nd.Network(
        "rotation",
        [
            nd.Population("drive", 3, clamp=nd.Input()),
            nd.Population("a", 3, initial=1.0),
            nd.Population("b", 3, tau=2.0, leak=0.5, initial=0.3),
            nd.Population("between", 3, tau=0.0, leak=2.0),
        ],
        [
            nd.Coupling("a", "b", gain=-0.5),
            nd.Coupling("b", "between", nd.Forward(nn.Linear(3, 3, dtype=torch.float64)), gain=1.5),
            nd.Coupling("between", "a"),
            nd.Coupling("drive", "a"),
        ],
    )


def largest_difference(a: xr.Dataset, b: xr.Dataset) -> float:
    assert set(a.data_vars) == set(b.data_vars)
    return max(float(abs(a[name] - b[name]).max()) for name in a.data_vars)


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
@given(step=st.floats(0.01, 1.99), sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_euler_iterates_equal_the_loop(output, step, sizes, seed):
    network, x, t = bound(sizes, output, seed=seed)
    loop = nd.simulate(network, x, t, duration=30 * step, solver=nd.Euler(step))
    closed = nd.simulate(network, x, t, duration=30 * step, solver=nd.Exact(euler_step=step))
    assert closed.sizes["time"] == 31
    assert largest_difference(loop, closed) < 1e-11 * max(1.0, float(abs(loop["x1"]).max()))


def test_float32_iterates_equal_the_loop():
    network, x, t = bound((20, 30, 20, 10), dtype=torch.float32)
    loop = nd.simulate(network, x, t, duration=10.0, solver=nd.Euler(0.1))
    closed = nd.simulate(network, x, t, duration=10.0, solver=nd.Exact(euler_step=0.1))
    assert closed["x1"].dtype == np.float32
    assert largest_difference(loop, closed) < 1e-5


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
def test_flow_equals_tight_integration_and_is_the_default(output):
    network, x, t = bound(output=output)
    closed = nd.simulate(network, x, t, duration=12.0)
    stepped = nd.simulate(network, x, t, duration=12.0, solver=nd.Adaptive(rtol=1e-12, atol=1e-13))
    assert closed.attrs["solver"].startswith("Exact")
    assert largest_difference(closed, stepped) < 1e-10


def test_flow_is_exact_at_time_zero():
    network, x, t = bound()
    start = nd.simulate(network, x, t, duration=1.0, save_at=[0.0]).isel(time=0)
    stepped = nd.simulate(network, x, t, duration=1.0, solver=nd.Euler(0.5)).isel(time=0)
    assert largest_difference(start, stepped) < 1e-12


@pytest.mark.parametrize("duration", [1.0, 10.0, 60.0])
def test_cycles_and_several_rates_take_the_krylov_exponential(duration):
    network, x = rotation(), torch.ones(2, 3, dtype=torch.float64)
    closed = nd.simulate(network, x, duration=duration, save_at=41)
    stepped = nd.simulate(network, x, duration=duration, solver=nd.Adaptive(rtol=1e-12, atol=1e-13), save_at=41)
    assert closed.attrs["solver"].startswith("Exact")
    assert largest_difference(closed, stepped) < 1e-9
    loop = nd.simulate(network, x, duration=duration, solver=nd.Euler(0.25))
    iterates = nd.simulate(network, x, duration=duration, solver=nd.Exact(euler_step=0.25))
    assert largest_difference(loop, iterates) < 1e-10


def test_krylov_equals_the_dense_exponential_beyond_one_krylov_space():
    torch.manual_seed(0)
    recurrent = nn.Linear(120, 120, bias=False, dtype=torch.float64)
    nn.init.normal_(recurrent.weight)
    network = nd.Network("recurrent", [nd.Population("x", 120)], [nd.Coupling("x", "x", nd.Forward(recurrent))])
    start = torch.randn(3, 120, dtype=torch.float64)
    run = nd.simulate(network, None, duration=2.0, initial={"x": start}, save_at=5)
    matrix = recurrent.weight.detach() - torch.eye(120, dtype=torch.float64)
    for time in run["time"].values:
        expected = start @ torch.linalg.matrix_exp(time * matrix).T
        error = np.abs(run["x"].sel(time=time).values - expected.numpy()).max()
        assert error < 1e-10 * float(expected.abs().max())


def test_evenly_spaced_points_take_few_exponentials_and_any_points_are_exact(monkeypatch):
    torch.manual_seed(0)
    layer = nn.Linear(6, 6, bias=False, dtype=torch.float64)
    network = nd.Network("rotation", [nd.Population("x", 6)], [nd.Coupling("x", "x", nd.Forward(layer), gain=3.0)])
    start = torch.randn(1, 6, dtype=torch.float64)
    matrix = 3 * layer.weight.detach().numpy() - np.eye(6)
    expm = scipy.linalg.expm
    counts: list[int] = []

    def counted(matrices):
        counts[-1] += len(matrices)
        return expm(matrices)

    monkeypatch.setattr(scipy.linalg, "expm", counted)
    uneven = np.sort(np.random.default_rng(0).uniform(0, 9, 50))
    for times in (np.linspace(0, 9, 401), uneven):
        counts.append(0)
        run = nd.simulate(network, None, initial={"x": start}, duration=9.0, solver=nd.Exact(), save_at=times)
        wanted = expm(times[:, None, None] * matrix) @ start[0].numpy()
        np.testing.assert_allclose(run.x[:, 0], wanted, rtol=0, atol=1e-11 * abs(wanted).max())
    assert counts[0] < 50 <= counts[1]


def test_without_leak_the_series_is_a_polynomial():
    populations = [nd.Population("a", 1, leak=0.0, initial=1.0), nd.Population("b", 1, leak=0.0, initial=2.0)]
    network = nd.Network("integrators", [*populations, nd.Population("c", 1, leak=0.0)],
                         [nd.Coupling("a", "b"), nd.Coupling("b", "c")])  # fmt: skip
    run = nd.simulate(network, None, duration=3.0, save_at=[0.0, 1.0, 3.0])
    np.testing.assert_allclose(run["c"].values.ravel(), [0.0, 2.5, 10.5], rtol=1e-6)


@pytest.mark.parametrize("solver", [nd.Exact(), nd.Exact(euler_step=0.1)])
def test_deep_nets_and_long_times_neither_overflow_nor_lose_precision(solver):
    runs = {}
    for dtype in (torch.float32, torch.float64):
        network, x, t = bound((10,) * 51, dtype=dtype, scale=1.5)
        runs[dtype] = nd.simulate(network, x, t, duration=1000.0, solver=solver, save_at=[1.0, 50.0, 100.0, 1000.0])
    for name, wanted in runs[torch.float64].data_vars.items():
        error = abs(runs[torch.float32][name] - wanted).max()
        assert float(error) < 1e-5 * float(abs(wanted).max())


def test_backward_from_a_run_that_stops_early_equals_the_loop():
    network, x, t = bound()
    gradients = []
    for solver in (nd.Euler(0.1), nd.Exact(euler_step=0.1)):
        for stage in network.forward:
            for parameter in stage.parameters:
                parameter.grad = None
        nd.backward(network, x, t, duration=2.0, solver=solver)
        gradients.append([p.grad.clone() for stage in network.forward for p in stage.parameters])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_streamed_in_chunks_is_the_same(tmp_path, monkeypatch):
    from neurodyn.simulation import trajectory

    network, x, t = bound()
    whole = nd.simulate(network, x, t, duration=5.0, save_at=23)
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 2000)
    streamed = nd.simulate(network, x, t, duration=5.0, save_at=23, store=tmp_path / "r.zarr")
    xr.testing.assert_allclose(streamed, whole, rtol=1e-12, atol=1e-13)  # other rows in a product, other rounding
    xr.testing.assert_identical(streamed.coords.to_dataset(), whole.coords.to_dataset())
    assert streamed.attrs == whole.attrs


def test_what_has_no_closed_form_is_refused():
    network, x, t = bound()
    with pytest.raises(ValueError, match=r"until"):
        nd.simulate(network, x, t, duration=1.0, solver=nd.Exact(), until=nd.steady())
    with pytest.raises(ValueError, match=r"whole number of Euler steps"):
        nd.simulate(network, x, t, duration=1.05, solver=nd.Exact(euler_step=0.1))
    with pytest.raises(ValueError, match=r"multiples of their step"):
        nd.simulate(network, x, t, duration=1.0, solver=nd.Exact(euler_step=0.1), save_at=[0.25])
    with pytest.raises(ValueError, match=r"euler_step of Exact must be positive"):
        nd.Exact(euler_step=0.0)
    squashed = nd.Network("squashed", [nd.Population("x", 2)], [nd.Coupling("x", "x", nd.Forward(nn.Tanh()))])
    with pytest.raises(ValueError, match=r"'squashed' is not linear"):
        nd.simulate(squashed, None, duration=1.0, solver=nd.Exact())


TIMES = [0.0, 0.5, 3.0]
SOLVERS = [nd.Exact(), nd.Exact(euler_step=0.1)]


def assert_differentiable(solver, network, inputs, targets=None, initial=None, by=()):
    """The activity is that of `simulate`, and its derivatives by some tensors are those of finite differences."""
    activity = nd.activity(network, inputs, targets, duration=3.0, solver=solver, save_at=TIMES, initial=initial)
    given = [None if value is None else value.detach() for value in (inputs, targets)]
    start = {name: value.detach() for name, value in (initial or {}).items()}
    run = nd.simulate(network, *given, duration=3.0, solver=solver, save_at=TIMES, initial=start)
    assert {p.name for p in network.populations if p.name in activity} == set(activity)
    for name, found in activity.items():
        np.testing.assert_allclose(found.detach().numpy(), run[name].values, rtol=0, atol=1e-13)
    leaves = [leaf for leaf in (inputs, targets, *by) if leaf is not None and leaf.requires_grad]
    assert gradcheck(
        lambda *_: tuple(
            nd.activity(network, inputs, targets, duration=3.0, solver=solver, save_at=TIMES, initial=initial).values()
        ),
        leaves,
        fast_mode=True,
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": "relaxing"},
        {"feedback": "learned"},
        {"feedback": "fixed", "relaxation_derivative": "none"},
        {"weight_derivative": "live"},
        {"loss": lambda y, t: (y - t).pow(4).sum(1)},
    ],
    ids=["default", "output relaxing", "learned ψ", "fixed ψ, no derivative", "input relaxing", "loss of one's own"],
)
def test_activity_is_differentiable_by_data_weights_and_feedback_weights(solver, options):
    module = nd.mlp([3, 4, 3, 2], dtype=torch.float64)
    network = ar.network(module, **options)
    x, t = tensor(2, 3).requires_grad_(), tensor(2, 2).requires_grad_()
    parameters = [*module.parameters(), *(psi for _, psi in network.feedback_parameters())]
    assert_differentiable(solver, network, x, t, by=parameters)


def test_activity_is_differentiable_through_convolutions_and_pooling():
    example = cnn()
    network = ar.network(example.module, feedback="learned", relaxation_derivative="none", simplified="convolutional")
    parameters = dict(example.module.named_parameters())
    weights = [parameters["3.weight"], parameters["9.weight"], *(psi for _, psi in network.feedback_parameters())]
    for parameter in example.module.parameters():
        parameter.requires_grad_(any(parameter is weight for weight in weights))
    solver = nd.Exact()

    def first(*_):
        found = nd.activity(network, example.inputs, example.targets, duration=1.0, solver=solver, save_at=[1.0])
        return found["x2"].flatten()[:3]

    run = nd.simulate(network, example.inputs, example.targets, duration=1.0, solver=solver, save_at=[1.0])
    np.testing.assert_allclose(first().detach().numpy(), run["x2"].values.ravel()[:3], rtol=0, atol=1e-13)
    assert gradcheck(first, weights, fast_mode=True)


class Residual(nn.Module):
    """A value that several operations read, and operations that read several values."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

    def forward(self, x):
        h = self.norm(torch.tanh(self.inner(x)))
        return x + h * torch.sigmoid(h)


def test_activity_is_differentiable_on_a_graph():
    module = Residual().double()
    x, t = tensor(2, 3).requires_grad_(), tensor(2, 3, seed=1).requires_grad_()
    assert_differentiable(nd.Exact(), ar.graph(module, x.detach()), x, t, by=module.parameters())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("leaks", [(2.0, 2.0, 2.0), (0.0, 1.0, 1.0), (0.3, 0.0, 4.0), (0.0, 0.0, 0.0)])
def test_activity_is_differentiable_through_instantaneous_populations_and_at_any_rates(solver, leaks):
    torch.manual_seed(1)
    linear, affine = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(2))
    a, b, c = leaks
    network = nd.Network(
        "rates",
        [
            nd.Population("s", 3, clamp=nd.Input()),
            nd.Population("a", 3, tau=2.0, leak=2.0 * a, initial=0.3),
            nd.Population("i", 3, tau=0.0, leak=0.5),
            nd.Population("j", 3, tau=0.0),
            nd.Population("b", 3, tau=0.8, leak=0.8 * b, initial=0.5),
            nd.Population("c", 3, leak=c),
        ],
        [
            nd.Coupling("s", "a", nd.Forward(nn.Tanh())),
            nd.Coupling("a", "i", nd.Forward(affine), gain=0.4),
            nd.Coupling("s", "i", gain=0.7),
            nd.Coupling("i", "j", gain=-0.5),
            nd.Coupling("j", "b"),
            nd.Coupling("b", "c", nd.Feedback(linear, "live")),
            nd.Coupling("i", "c", gain=0.6),
            nd.Coupling("a", "c", gain=0.3),
        ],
    )
    by = [*linear.parameters(), *affine.parameters()]
    assert_differentiable(solver, network, tensor(2, 3).requires_grad_(), by=by)


@pytest.mark.parametrize("solver", SOLVERS)
def test_activity_is_differentiable_by_where_populations_start(solver):
    torch.manual_seed(0)
    linear = nn.Linear(3, 2, dtype=torch.float64)
    doubling = type("Doubling", (nd.Map,), {"linear": True, "apply": lambda self, source: 2 * source})()
    network = nd.Network(
        "chain",
        [
            nd.Population("s", 3, clamp=nd.Input()),
            nd.Population("a", 3, tau=2.0, leak=2.0),
            nd.Population("b", 2, initial=0.5),
            nd.Population("c", 2),
            nd.Population("d", 3, tau=0.5, leak=0.5),
        ],
        [
            nd.Coupling("s", "a", nd.Forward(nn.Tanh())),
            nd.Coupling("a", "b", nd.Forward(linear), gain=-0.7),
            nd.Coupling("b", "c", doubling),
            nd.Coupling("c", "d", nd.Feedback(linear, "live")),
            nd.Coupling("a", "d", gain=0.3),
        ],
    )
    x, start = tensor(2, 3).requires_grad_(), {"a": tensor(2, 3, seed=1).requires_grad_()}
    assert_differentiable(solver, network, x, initial=start, by=[start["a"], *linear.parameters()])


def test_activity_of_a_deep_net_keeps_its_precision():
    found = {}
    for dtype in (torch.float32, torch.float64):
        network, x, t = bound((8,) * 41, dtype=dtype, scale=1.5)
        times = [1.0, 40.0, 1000.0]
        activity = nd.activity(network, x, t.requires_grad_(), duration=1000.0, solver=nd.Exact(), save_at=times)
        found[dtype] = activity["x1"]
        (gradient,) = torch.autograd.grad(found[dtype].sum(), t, retain_graph=True)
        assert bool(torch.isfinite(gradient).all())
    wanted = found[torch.float64].detach()
    assert float((found[torch.float32] - wanted).detach().abs().max()) < 1e-5 * float(wanted.abs().max())


def test_where_there_is_no_differentiable_closed_form_it_is_refused():
    example = mlp()
    network = ar.network(example.module)
    iterates, flow = nd.Exact(euler_step=0.1), nd.Exact()
    with pytest.raises(ValueError, match=r"save_at: Euler iterates exist at multiples of their step 0.1"):
        nd.activity(network, example.inputs, example.targets, duration=1.0, save_at=[0.25], solver=iterates)
    with pytest.raises(ValueError, match=r"inputs of population s .*NaN"):
        nd.activity(network, torch.full_like(example.inputs, torch.nan), example.targets, duration=1.0, solver=flow)
    live = ar.network(example.module, relaxation_derivative="live")
    for refused, inputs, targets in [
        (live, example.inputs, example.targets),
        (rotation(), torch.ones(2, 3, dtype=torch.float64), None),
    ]:
        with pytest.raises(
            ValueError, match=r"is not linear, so it has no closed form|that takes a linear, acyclic network"
        ):
            nd.activity(refused, inputs, targets, duration=1.0, solver=flow, save_at=[1.0])
    tau = torch.tensor([1.0, 2.0], requires_grad=True)
    slowed = nd.Network("slowed", [nd.Population("a", 2, tau=tau)])
    with pytest.raises(ValueError, match=r"population a: its tau is a tensor, and the differentiable closed form"):
        nd.activity(slowed, None, duration=1.0, solver=flow, save_at=[1.0])


def test_activity_of_several_rates_keeps_its_digits_early_in_a_deep_network():
    depth, gain, times = 40, 20.0, [0.0, 0.1, 1.0, 5.0]
    rates = np.linspace(0.5, 2.0, depth)
    names = [f"x{place}" for place in range(depth)]
    network = nd.Network(
        "chain",
        [nd.Population("s", 1, clamp=nd.Input())]
        + [nd.Population(name, 1, leak=rate) for name, rate in zip(names, rates, strict=True)],
        [nd.Coupling("s", names[0])] + [nd.Coupling(a, b, gain=gain) for a, b in pairwise(names)],
    )
    # e^{At} = e^{-2t} e^{(A + 2)t}, of which the Taylor series has no negative term: every entry keeps its digits.
    shifted = np.diag(np.append(2.0, 2.0 - rates)) + np.diag(np.append(1.0, np.full(depth - 1, gain)), k=-1)
    drive = torch.ones(1, 1, dtype=torch.float64)
    found = nd.activity(network, drive, duration=5.0, solver=nd.Exact(), save_at=times)
    for place, time in enumerate(times):
        term = total = np.eye(depth + 1)[0]
        for n in range(1, 1000):
            term = shifted @ term * (time / n)
            total = total + term
        expected = np.exp(-2.0 * time) * total[1:]
        np.testing.assert_allclose([float(found[name][place]) for name in names], expected, rtol=1e-9)


def random_graph(sizes, seed=0, gain=0.8, depth=2):
    """A linear, acyclic network of populations that each read some before them, with their coupling and drive, dense.

    There are instantaneous populations, couplings with offsets, gains, frozen feedback and a scale 1/τ among them.
    """
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    populations, couplings = [], []
    for place, size in enumerate(sizes):
        moving = nd.Population(f"p{place}", size, tau=0.5, leak=0.75, initial=0.3 + place % 3)
        populations.append(nd.Population(f"p{place}", size, tau=0.0, leak=2.0) if place % 7 == 3 else moving)
        for read in {place - 1, *random.integers(max(0, place - 6), place, depth - 1)} if place else ():
            layer = nn.Linear(sizes[read], size, bias=place % 5 == 1, dtype=torch.float64)
            back = nn.Linear(size, sizes[read], dtype=torch.float64)
            for parameter in (*layer.parameters(), *back.parameters()):
                parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data *= gain / (sizes[read] ** 0.5 + size**0.5)
            map_ = nd.Feedback(back, "live") if place % 2 else nd.Forward(layer)
            couplings.append(nd.Coupling(f"p{read}", f"p{place}", map_, gain=(-1.0) ** place * 1.3))
    return nd.Network("graph", populations, couplings)


@pytest.mark.parametrize("solver", [nd.Exact(), nd.Exact(euler_step=0.05)])
@pytest.mark.parametrize("count", [9, 50])
def test_powers_through_any_acyclic_graph_equal_the_matrix_exponential(solver, count):
    sizes = [2 + place % 4 for place in range(count)]
    network = random_graph(sizes)
    run = nd.simulate(network, None, duration=2.0, solver=solver, save_at=[0.0, 0.5, 2.0])
    system = nd.System(network)
    state, drive = system.new_state(torch.zeros(system.size, dtype=torch.float64)), system.new_state()
    system.field(state, drive)
    columns = []
    for unit in torch.eye(system.size, dtype=torch.float64):
        slope = system.new_state()
        system.field(system.new_state(unit.clone()), slope)
        columns.append(slope.flat - drive.flat)
    matrix = torch.zeros(system.size + 1, system.size + 1, dtype=torch.float64)
    matrix[:-1, :-1], matrix[:-1, -1] = torch.stack(columns, 1), drive.flat
    start = torch.cat([system.initial_state().flat, torch.ones(1, dtype=torch.float64)])
    for time in (0.0, 0.5, 2.0):
        step = 0.05
        whole = torch.eye(len(matrix), dtype=torch.float64)
        flow = torch.matrix_exp(time * matrix) if solver.euler_step is None else None
        flow = torch.linalg.matrix_power(whole + step * matrix, round(time / step)) if flow is None else flow
        expected = (flow @ start)[:-1]
        for name, place in system.places():
            found = run[name].sel(time=time).values.ravel()
            np.testing.assert_allclose(found, expected[place].numpy(), rtol=0, atol=1e-12 * float(expected.abs().max()))


def deep(kind, count=80):
    """An AR network of a deep module, or populations that each read the last one, and one before that, unscaled."""
    if kind == "module":
        network, x, t = bound((6, *(5 + place % 3 for place in range(count)), 4), scale=1.8)
        return network, (x, t)
    network = random_graph([6] * count, gain=1.5)
    couplings = [coupling for coupling in network.couplings if isinstance(coupling.map, nd.Feedback)]
    couplings += [nd.Coupling(f"p{place}", f"p{place + 2}", gain=0.3) for place in range(0, count - 2, 2)]
    return nd.Network("skipping", list(network.populations), couplings), (None,)


@pytest.mark.parametrize("kind", ["module", "graph"])
@pytest.mark.parametrize("solver", [nd.Exact(), nd.Exact(euler_step=0.05)])
def test_powers_that_are_left_out_change_nothing_beyond_rounding(kind, solver, monkeypatch):
    from neurodyn.solvers import nilpotent

    network, data = deep(kind)
    left_out = nd.simulate(network, *data, duration=3.0, solver=solver, save_at=[1.0, 3.0])
    monkeypatch.setattr(nilpotent, "_DEEP", 1000)
    whole = nd.simulate(network, *data, duration=3.0, solver=solver, save_at=[1.0, 3.0])
    assert left_out.evaluations < 0.8 * whole.evaluations
    rest = nd.equilibrium(network, *data)
    for name, wanted in whole.data_vars.items():
        gap = np.linalg.norm((left_out[name] - wanted).values, axis=2)
        size = np.linalg.norm(rest[name].values, axis=1) + np.linalg.norm(wanted.values, axis=2)
        assert (gap <= 8 * np.finfo(np.float64).eps * size).all(), name


@pytest.mark.parametrize("shape", [(5, 5), (40, 60), (60, 40), (1, 7)])
@pytest.mark.parametrize("rows", [1, 1000])
def test_a_bound_on_the_spectral_norm_is_one_and_close_where_there_is_time(shape, rows):
    from neurodyn.layers.points import spectral_bound

    weight = tensor(*shape)
    norm = float(torch.linalg.matrix_norm(weight, 2))
    bound = float(spectral_bound(weight, rows))
    assert norm <= bound < (1.35 if rows == 1000 else min(shape) ** 0.5 + 0.02) * norm

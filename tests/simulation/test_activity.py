import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.multiprocessing.reductions import StorageWeakRef

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.simulation.activity import Adjoint

F64 = torch.float64
PRECISE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}
SAVED = [0.0, 0.33, 1.0]


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def joined(activity):
    """Return all activity as one tensor, so that a check of its gradients goes back once."""
    return torch.cat([values.flatten() for values in activity.values()])


class Case:
    """A small network with everything that may require a gradient."""

    def __init__(self):
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, dtype=F64)
        self.tau = torch.tensor([1.0, 2.0, 0.5], dtype=F64, requires_grad=True)
        self.gain = torch.tensor(0.7, dtype=F64, requires_grad=True)
        self.leak = torch.tensor(1.2, dtype=F64, requires_grad=True)
        self.background = tensor(3, seed=5).requires_grad_()
        self.u = tensor(2, 3).requires_grad_()
        self.initial = {"x": tensor(2, 3, seed=1).requires_grad_()}
        self.network = nd.Network(
            "case",
            [
                nd.Population("u", 3, clamp=nd.Input()),
                nd.Population("b", 3, clamp=nd.Constant(self.background)),
                nd.Population("x", 3, tau=self.tau, leak=self.leak),
                nd.Population("i", 3, tau=0.0, leak=0.8),
                nd.Population("y", 3, initial=0.2),
            ],
            [
                nd.Coupling("u", "x"),
                nd.Coupling("b", "y"),
                nd.Coupling("x", "x", nd.Forward(nn.Sequential(self.linear, nn.Tanh())), gain=self.gain),
                nd.Coupling("x", "i", nd.Pointwise(torch.sin)),
                nd.Coupling(("i", "x"), "y", nd.Pointwise(lambda i, x: i * x)),
                nd.Coupling("y", "x", gain=-0.5),
            ],
        )
        self.leaves = [self.u, self.initial["x"], self.tau, self.gain, self.leak, self.background]
        self.leaves += self.linear.parameters()

    def activity(self, **settings):
        return nd.activity(self.network, self.u, duration=1.0, initial=self.initial, **settings)

    def gradients(self, **settings):
        """Return the gradients of one function of the whole activity by all leaves."""
        activity = self.activity(save_at=SAVED, **settings)
        loss = sum((tensor(*x.shape, seed=place) * x).sum() for place, x in enumerate(activity.values()))
        return torch.autograd.grad(loss, self.leaves)

    def by_hand(self, rhs_times):
        """Return the activity at the ends of Euler steps, with equations written a second time."""
        x, y = self.initial["x"], torch.full_like(self.u, 0.2)
        for h in rhs_times:
            i = torch.sin(x) / 0.8
            dx = (-self.leak * x + self.u + self.gain * torch.tanh(self.linear(x)) - 0.5 * y) / self.tau
            dy = -y + self.background + i * x
            x, y = x + h * dx, y + h * dy
        return x, y


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        (nd.Euler(0.1), "direct"),
        (nd.Heun(0.13), "checkpointed"),
        (nd.RK4(0.1), "direct"),
        (nd.RK4(0.2), "checkpointed"),
        (nd.TorchDiffEq("rk4", step_size=0.1), "direct"),
    ],
    ids=repr,
)
def test_the_activity_is_that_of_simulate_and_its_gradients_are_those_of_differences(solver, adjoint):
    case = Case()
    start = {"x": case.initial["x"].detach()}
    run = nd.simulate(case.network, case.u.detach(), duration=1.0, save_at=SAVED, solver=solver, initial=start)
    found = case.activity(save_at=SAVED, solver=solver, adjoint=adjoint)
    assert list(found) == ["x", "i", "y"]
    for name, values in found.items():
        np.testing.assert_allclose(values.detach(), run[name], rtol=0, atol=1e-12)

    def function(*_):
        return joined(case.activity(save_at=SAVED, solver=solver, adjoint=adjoint))

    assert gradcheck(function, case.leaves, fast_mode=True, atol=1e-5)


def test_gradients_are_those_of_the_discrete_run_written_by_hand():
    case = Case()
    for adjoint in ("direct", "checkpointed"):
        found = case.activity(save_at=[1.0], solver=nd.Euler(0.3), adjoint=adjoint)
        x, y = case.by_hand([0.3, 0.3, 0.3, 0.1])
        torch.testing.assert_close(found["x"][0], x, rtol=0, atol=1e-13)
        wanted = torch.autograd.grad((x**2).sum() + y.sum(), case.leaves)
        got = torch.autograd.grad((found["x"] ** 2).sum() + found["y"].sum(), case.leaves)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_every_way_gives_the_same_gradients():
    case = Case()
    wanted = case.gradients(solver=nd.RK4(0.02))
    for solver, adjoint in [
        (nd.Adaptive("dopri5", **PRECISE), "direct"),
        (nd.Adaptive("tsit5", **PRECISE), "checkpointed"),
        (nd.Adaptive("bosh3", rtol=1e-8, atol=1e-9), "direct"),
        (nd.TorchDiffEq("dopri5", **CLOSE), "direct"),
        (nd.TorchDiffEq("dopri5", **CLOSE), "backsolve"),
    ]:
        for one, other in zip(case.gradients(solver=solver, adjoint=adjoint), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    default = {"direct": case.gradients(), "backsolve": case.gradients(adjoint="backsolve")}
    for found in default.values():
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("options", [{"relaxation_derivative": "live"}, {"feedback": "learned"}])
def test_frozen_forward_values_pass_gradients_on(options):
    module = nd.mlp([3, 4, 3, 2], dtype=F64)
    network = ar.network(module, **options)
    x, t = tensor(2, 3).requires_grad_(), tensor(2, 2).requires_grad_()
    found = []
    ways: list[tuple[nd.Solver, Any]] = [(nd.RK4(0.04), "direct"), (nd.TorchDiffEq(**CLOSE), "backsolve")]
    for solver, adjoint in ways:
        hidden = 2.0 * x  # no leaf, and asked for its gradient too
        activity = nd.activity(network, hidden, t, duration=1.0, save_at=[0.5, 1.0], solver=solver, adjoint=adjoint)
        loss = torch.stack([(values**2).sum() for values in activity.values()]).sum()
        leaves = [hidden, x, t, *module.parameters(), *(psi for _, psi in network.feedback_parameters())]
        found.append(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert float(found[0][0].abs().max()) > 0

    def function(*_):
        return nd.activity(network, 2.0 * x, t, duration=1.0, save_at=[1.0], solver=nd.RK4(0.2))["x1"]

    assert gradcheck(function, [x, t, *module.parameters()], fast_mode=True)


def test_maps_of_models_pass_gradients_on():
    module = nd.mlp([3, 3, 3], dtype=F64)
    network = pc.network(module)
    x, t = tensor(2, 3).requires_grad_(), tensor(2, 3).requires_grad_()

    def function(*_):
        return joined(nd.activity(network, x, t, duration=1.0, save_at=[1.0], solver=nd.RK4(0.2)))

    run = nd.simulate(network, x.detach(), t.detach(), duration=1.0, save_at=[1.0], solver=nd.RK4(0.2))
    found = nd.activity(network, x, t, duration=1.0, save_at=[1.0], solver=nd.RK4(0.2))
    for name, values in found.items():
        np.testing.assert_allclose(values.detach(), run[name], rtol=0, atol=1e-12)
    assert gradcheck(function, [x, t, *module.parameters()], fast_mode=True)


def test_inverses_and_modulated_maps_pass_gradients_on():
    stage = nd.Stage(nn.Sequential(nn.Linear(3, 3, dtype=F64), nn.LeakyReLU(0.3)))
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("x", 3, initial=0.5), nd.Population("y", 3)]
    couplings = [
        nd.Coupling("s", "x"),
        nd.Coupling("x", "y", nd.Inverse(stage), gain=0.1),
        nd.Coupling("y", "x", nd.Modulated(nd.Pointwise(torch.sin), stage, 2)),
    ]
    network = nd.Network("maps", populations, couplings, forward=[stage])
    s = tensor(2, 3).requires_grad_()
    run = nd.simulate(network, s.detach(), duration=1.0, save_at=[1.0], solver=nd.RK4(0.2))

    def function(*_):
        return tuple(nd.activity(network, s, duration=1.0, save_at=[1.0], solver=nd.RK4(0.2)).values())

    for values, name in zip(function(), "xy", strict=True):
        np.testing.assert_allclose(values.detach(), run[name], rtol=0, atol=1e-12)
    assert gradcheck(function, [s, *stage.parameters], fast_mode=True)


def leaky(**population):
    populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, **population)]
    return nd.Network("leaky", populations, [nd.Coupling("u", "x", nd.Pointwise(torch.tanh))])


@pytest.mark.parametrize("interpolation", ["previous", "linear", "cubic"])
@pytest.mark.parametrize("solver", [nd.Heun(0.13), nd.Adaptive(**CLOSE)], ids=repr)
def test_gradients_by_the_values_of_signals(interpolation, solver):
    times, values = [0.0, 0.25, 0.6, 1.0, 1.2], tensor(5, 2).requires_grad_()

    def function(values):
        signal = nd.Signal(times, values, interpolation=interpolation)
        return nd.activity(leaky(), signal, duration=1.0, save_at=[0.1, 0.25, 1.0], solver=solver)["x"]

    signal = nd.Signal(times, values.detach(), interpolation=interpolation)
    run = nd.simulate(leaky(), signal, duration=1.0, save_at=[0.1, 0.25, 1.0], solver=solver)
    np.testing.assert_allclose(function(values).detach(), run.x, rtol=0, atol=1e-12)
    assert gradcheck(function, [values], fast_mode=True)
    with pytest.raises(ValueError, match=r"inputs: the tensor requires a gradient"):
        nd.simulate(leaky(), nd.Signal(times, values), duration=1.0)


def test_gradients_by_what_a_function_of_time_is_made_of():
    rate = torch.tensor(1.3, dtype=F64, requires_grad=True)
    for solver, adjoint in [(nd.RK4(0.05), "checkpointed"), (nd.TorchDiffEq(**CLOSE), "backsolve")]:

        def function(rate, solver=solver, adjoint=adjoint):
            drive = lambda t: torch.cos(rate * t).expand(2)  # noqa: E731
            return nd.activity(leaky(), drive, duration=1.0, save_at=[1.0], solver=solver, adjoint=adjoint)["x"]

        assert gradcheck(function, [rate], atol=1e-6, fast_mode=True)


def test_a_noisy_path_is_that_of_simulate_and_differentiable_by_sigma():
    sigma = torch.tensor([0.3, 0.6], dtype=F64, requires_grad=True)
    u = tensor(3, 2)
    times = [0.05, 0.5, 1.0]
    for solver in (nd.Euler(0.1), nd.Heun(0.1)):
        run = nd.simulate(leaky(noise=sigma), u, duration=1.0, save_at=times, solver=solver, seed=3)
        for adjoint in ("direct", "checkpointed"):

            def function(sigma, solver=solver, adjoint=adjoint):
                network, settings = leaky(noise=sigma), {"solver": solver, "adjoint": adjoint, "seed": 3}
                return nd.activity(network, u, duration=1.0, save_at=times, **settings)["x"]

            np.testing.assert_allclose(function(sigma).detach(), run.x, rtol=0, atol=1e-12)
            assert gradcheck(function, [sigma], fast_mode=True)
    with pytest.raises(ValueError, match=r"population x has noise, under which no step can be chosen"):
        nd.activity(leaky(noise=0.1), u, duration=1.0)


def test_the_way_back_through_checkpoints_keeps_the_square_root_of_the_steps():
    alive: list[StorageWeakRef] = []
    most = 0

    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            nonlocal most
            kept = torch.ones(17, dtype=x.dtype)
            ctx.save_for_backward(kept)
            alive.append(StorageWeakRef(kept.untyped_storage()))
            most = max(most, sum(not each.expired() for each in alive))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0].mean()

    network = nd.Network(
        "kept", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", nd.Pointwise(Kept.apply))]
    )
    found = {}
    for steps in (64, 256):
        for adjoint in ("direct", "checkpointed"):
            alive.clear()
            start = torch.ones(1, 1, requires_grad=True)
            most = 0
            settings: dict[str, Any] = {"save_at": [1.0], "solver": nd.Euler(1 / steps), "adjoint": adjoint}
            x = nd.activity(network, None, duration=1.0, initial={"x": start}, **settings)["x"]
            x.sum().backward()
            found[adjoint, steps] = most
            assert start.grad is not None
    assert found["direct", 256] >= 256
    assert found["checkpointed", 256] < 4 * math.sqrt(256)
    assert found["checkpointed", 256] < 2.5 * found["checkpointed", 64]


def test_a_run_sees_a_time_constant_that_an_optimiser_has_changed():
    tau = torch.tensor([1.0], requires_grad=True)
    decay = nd.Network("decay", [nd.Population("x", 1, tau=tau, initial=1.0)])
    for expected in (1.0, 2.0):
        with torch.no_grad():
            tau.fill_(expected)
        run = nd.simulate(decay, None, duration=1.0, save_at=[1.0])
        assert float(run.x[0, 0, 0]) == pytest.approx(math.exp(-1 / expected), rel=1e-3)
        found = nd.activity(decay, None, duration=1.0, save_at=[1.0], solver=nd.RK4(0.01))["x"]
        assert float(found.detach()[0, 0, 0]) == pytest.approx(math.exp(-1 / expected), rel=1e-5)


def test_a_run_without_a_graph_refuses_data_that_require_a_gradient():
    network, x = leaky(), tensor(1, 2)
    asked = x.clone().requires_grad_()
    for call, where in [
        (lambda: nd.simulate(network, asked, duration=1.0), "inputs"),
        (lambda: nd.simulate(network, {"u": asked}, duration=1.0), "inputs of population u"),
        (lambda: nd.simulate(network, x, duration=1.0, initial={"x": asked}), "initial value of population x"),
        (lambda: nd.simulate([network, network], asked, duration=1.0), "inputs"),
        (lambda: nd.equilibrium(network, asked), "inputs"),
        (lambda: nd.infer(ar.network(nd.mlp([2, 2], dtype=F64)), x, asked), "targets"),
    ]:
        with pytest.raises(ValueError, match=rf"{where}: the tensor requires a gradient.*nd.activity keeps one"):
            call()


def test_what_has_no_gradient_is_refused_by_name():
    x = tensor(1, 2)
    jumping = nd.Signal([0.0, 0.5, 1.0], [0.0, 1.0, 0.0], interpolation="previous")
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (x, {"adjoint": "backwards"}, r"adjoint is 'direct', 'checkpointed' or 'backsolve'"),
        (
            x,
            {"adjoint": "backsolve", "solver": nd.RK4(0.1)},
            r"adjoint='backsolve' is torchdiffeq's, and solver",
        ),
        (x, {"adjoint": "checkpointed", "solver": nd.TorchDiffEq()}, r"adjoint='checkpointed' goes through steps"),
        (x, {"solver": nd.TorchDiffEq("scipy_solver"), "save_at": 3}, r"SciPy's steps have no graph"),
        (jumping, {"adjoint": "backsolve"}, r"adjoint='backsolve' takes no signal that jumps"),
        (jumping, {"solver": nd.TorchDiffEq()}, r"solver: TorchDiffEq takes no signal that jumps"),
        (x, {"solver": nd.Stabilized()}, r"and not through those of Stabilized"),
        (x, {"solver": nd.Euler(0.1, compile=True), "save_at": [1.0]}, r"compile: steps with a graph"),
        (x, {"solver": "Euler"}, r"solver must be a solver, not the name 'Euler'"),
        (x, {"save_at": "steps", "solver": nd.TorchDiffEq()}, r"save_at: torchdiffeq tells no steps"),
    ]
    for given, settings, message in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            nd.activity(leaky(), given, duration=1.0, **settings)
    with pytest.raises(TypeError, match=r"network: one Network, not several"):
        nd.activity([leaky(), leaky()], x, duration=1.0)  # type: ignore[arg-type]
    still = nd.Network("still", [nd.Population("u", 2, clamp=nd.Input()), nd.Population("i", 2, tau=0.0)])
    with pytest.raises(ValueError, match=r"'still' has no dynamic population"):
        nd.activity(still, x, duration=1.0)
    with pytest.raises(ValueError, match=r"population x has noise, which TorchDiffEq.* does not integrate"):
        nd.activity(leaky(noise=0.1), x, duration=1.0, adjoint="backsolve", solver=nd.TorchDiffEq())
    growing = nd.Network("growing", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=1e4)])
    with pytest.raises(nd.DivergenceError, match=r"population x became non-finite by time"):
        nd.activity(growing, None, duration=100.0, solver=nd.Euler(1.0))


def bounded():
    populations = [
        nd.Population("u", 2, clamp=nd.Input()),
        nd.Population("x", 2, bounds=(0.0, 0.5)),
        nd.Population("y", 2),
    ]
    return nd.Network("bounded", populations, [nd.Coupling("u", "x"), nd.Coupling("x", "y"), nd.Coupling("y", "x")])


@pytest.mark.parametrize("solver", [nd.Euler(0.13), nd.RK4(0.13), nd.Adaptive(rtol=1e-8, atol=1e-9)], ids=repr)
def test_under_bounds_the_activity_is_that_of_simulate(solver):
    u = torch.tensor([[0.3, 2.0], [-1.0, 0.9]], dtype=F64, requires_grad=True)
    times = [0.07, 1.0, 3.0]
    run = nd.simulate(bounded(), u.detach(), duration=3.0, save_at=times, solver=solver)

    def function(u):
        return joined(nd.activity(bounded(), u, duration=3.0, save_at=times, solver=solver))

    np.testing.assert_allclose(function(u).detach(), np.append(run.x, run.y), rtol=0, atol=1e-12)
    # The size of adapted steps depends on u, which is no part of the gradient.
    assert gradcheck(function, [u], atol=1e-4, fast_mode=True)
    assert float(run.x.max()) == 0.5


@pytest.mark.parametrize("declare", [ar.network, lambda module: pc.network(module, steps="equilibrium")])
def test_checkpoints_go_through_feedback(declare: Callable[[nn.Module], nd.Network]) -> None:
    module = nd.mlp([3, 4, 4, 2], activation="tanh", seed=0, dtype=F64)
    gradients = []
    adjoints: tuple[Adjoint, ...] = ("direct", "checkpointed")
    for adjoint in adjoints:
        found = nd.activity(
            declare(module), tensor(2, 3), tensor(2, 2), duration=0.5, solver=nd.Heun(0.1), adjoint=adjoint
        )
        loss = torch.cat([x[-1].flatten() for x in found.values()]).square().sum()
        gradients.append(torch.autograd.grad(loss, list(module.parameters()), allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("adjoint", ["direct", "checkpointed"])
def test_a_cycle_may_be_closed_by_feedback(adjoint: Adjoint) -> None:
    stage = nd.Stage(nn.Sequential(nn.Tanh(), nn.Linear(2, 3).double()))
    populations = [nd.Population("x", 2), nd.Population("a", 2, tau=0.0), nd.Population("b", 3, tau=0.0)]
    couplings = [nd.Coupling("x", "a"), nd.Coupling("b", "a", nd.Feedback(stage, at="x"), gain=0.5)]
    couplings += [nd.Coupling("a", "b", nd.Forward(stage)), nd.Coupling("a", "x", gain=-1)]
    network = nd.Network("cycle", populations, couplings, algebraic="solve")
    settings: dict[str, Any] = {"duration": 0.2, "save_at": [0.2], "solver": nd.Heun(0.1)}

    def end(x: Tensor, *_: Tensor) -> Tensor:
        return joined(nd.activity(network, None, initial={"x": x}, adjoint=adjoint, **settings))

    x = tensor(2, 2).requires_grad_()
    run = nd.simulate(network, None, initial={"x": x.detach()}, **settings)
    np.testing.assert_allclose(end(x).detach(), joined({n: torch.tensor(run[n].values) for n in "xab"}), atol=1e-12)
    assert gradcheck(end, [x, *stage.parameters], fast_mode=True)


@pytest.mark.parametrize("solver", [nd.Euler(0.3), nd.Heun(0.3), nd.RK4(0.3), nd.Adaptive()], ids=repr)
def test_what_is_saved_within_a_step_that_a_bound_clips_is_what_simulate_saves(solver: nd.Solver) -> None:
    rising = nd.Network(
        "rising",
        [nd.Population("x", 1, bounds=(0.0, 0.5)), nd.Population("y", 1)],
        [nd.Coupling("x", "x", nd.Pointwise(lambda x: 2 - x)), nd.Coupling("x", "y", delay=0.4)],
    )
    settings: dict[str, Any] = {"duration": 1.0, "save_at": [0.17, 0.23, 0.29, 0.35, 0.7, 1.0], "solver": solver}
    run, found = nd.simulate(rising, None, **settings), nd.activity(rising, None, **settings)
    for name in ("x", "y"):
        np.testing.assert_allclose(found[name], run[name], rtol=1e-6)


@pytest.mark.parametrize("adjoint", ["direct", "backsolve"])
def test_torchdiffeq_is_given_times_in_double_precision(adjoint: Adjoint) -> None:
    decay = nd.Network("decay", [nd.Population("x", 1, initial=1.0)])
    close = [0.3, float(np.nextafter(0.3, 1)), 0.7, 0.7 + 1e-9]
    x = nd.activity(decay, None, duration=1.0, save_at=close, solver=nd.TorchDiffEq(), adjoint=adjoint)["x"]
    np.testing.assert_allclose(x.detach().ravel(), np.exp(-np.array(close)), rtol=1e-5)


@pytest.mark.parametrize("adjoint", ["direct", "backsolve"])
def test_gradients_through_torchdiffeq_count_signals_and_what_is_read_off_the_state(adjoint: Adjoint) -> None:
    tau, readout = torch.tensor([1.3], dtype=F64, requires_grad=True), nn.Linear(1, 2).double()
    populations = [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1, tau=tau, initial=0.5)]
    populations += [nd.Population("i", 2, tau=0.0)]
    network = nd.Network("driven", populations, [nd.Coupling("u", "x"), nd.Coupling("x", "i", nd.Forward(readout))])
    gradients = []
    ways: list[tuple[nd.Solver, Adjoint]] = [(nd.TorchDiffEq(**CLOSE), adjoint), (nd.Adaptive(**PRECISE), "direct")]
    for solver, way in ways:
        found = nd.activity(
            network, lambda t: math.sin(3 * t), duration=1.5, save_at=[1.0, 1.5], solver=solver, adjoint=way
        )
        gradients.append(torch.autograd.grad(found["i"].square().sum(), [tau, *readout.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", [nd.Heun(0.1), nd.Adaptive()], ids=repr)
def test_a_jump_at_the_end_is_not_yet_there(solver):
    populations = [nd.Population("u", 1, clamp=nd.Input()), nd.Population("i", 1, tau=0.0), nd.Population("x", 1)]
    network = nd.Network("driven", populations, [nd.Coupling("u", "i"), nd.Coupling("i", "x")])
    pulse = nd.Signal([0.0, 0.3, 1.0], tensor(3, 1), "previous")
    settings: dict[str, Any] = {"duration": 1.0, "save_at": [0.3, 0.7, 1.0], "solver": solver}
    run, found = nd.simulate(network, pulse, **settings), nd.activity(network, pulse, **settings)
    np.testing.assert_allclose(found["i"][:, 0, 0], pulse.values[[1, 1, 1], 0])
    np.testing.assert_allclose(run.i, found["i"])


def test_a_prospective_source_is_differentiated():
    populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, tau=2.0), nd.Population("y", 2)]
    ahead = nd.Coupling(nd.Prospective("x"), "y", nd.Pointwise(torch.tanh))
    network = nd.Network("ahead", populations, [nd.Coupling("u", "x"), ahead])
    u = tensor(1, 2).requires_grad_()
    run = nd.simulate(network, u.detach(), duration=1.0, save_at=[1.0], solver=nd.RK4(0.1))
    found = nd.activity(network, u, duration=1.0, save_at=[1.0], solver=nd.RK4(0.1))
    np.testing.assert_allclose(found["y"].detach(), run.y, atol=1e-12)
    assert gradcheck(lambda u: nd.activity(network, u, duration=1.0, save_at=[1.0], solver=nd.RK4(0.1))["y"], [u])


def late_and_cyclic(weight, gain):
    """Here x reads its own past, a signal late, and y; i, read late, is instantaneous; a and b form a cycle."""
    layer = nn.Linear(2, 2, bias=False, dtype=F64)
    layer.weight = weight
    tanh = nd.Forward(nn.Sequential(layer, nn.Tanh()))
    populations = [
        *(nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, tau=0.5, initial=0.3)),
        *(nd.Population("y", 2, initial=-0.2, bounds=(-0.25, 0.4)), nd.Population("i", 2, tau=0.0, leak=0.8)),
    ]
    couplings = [
        *(nd.Coupling("u", "x", delay=0.13), nd.Coupling("x", "x", tanh, gain=gain, delay=0.2)),
        *(nd.Coupling("y", "x", gain=-0.5, delay=0.25), nd.Coupling("x", "y", gain=2.0)),
        nd.Coupling(("x", "u"), "i", nd.Pointwise(lambda x, u: torch.sin(x) * u)),
        nd.Coupling("i", "y", delay=0.3),
    ]
    populations += [nd.Population("a", 2, tau=0.0), nd.Population("b", 2, tau=0.0)]
    couplings += [
        *(nd.Coupling("x", "a"), nd.Coupling("b", "a", tanh, gain=0.6), nd.Coupling("a", "b", gain=-0.9)),
        *(nd.Coupling("u", "b", delay=0.11), nd.Coupling("b", "y", gain=gain)),
    ]
    return nd.Network("late", populations, couplings, algebraic="solve")


@pytest.mark.parametrize(
    ("solver", "interpolation"),
    [(nd.Euler(0.1), "previous"), (nd.RK4(0.1), "linear"), (nd.Adaptive("bosh3", rtol=1e-2, atol=1e-3), "previous")],
    ids=["Euler", "RK4", "Adaptive"],
)
def test_with_delays_and_cycles_the_activity_is_that_of_simulate_and_checkpoints_give_the_same_gradients(
    solver, interpolation
):
    weight, gain = nn.Parameter(0.4 * tensor(2, 2)), torch.tensor(0.7, dtype=F64, requires_grad=True)
    values, save = tensor(3, 1, 2, seed=1).requires_grad_(), [0.0, 0.17, 0.33, 0.4]
    network = late_and_cyclic(weight, gain)
    gradients = []
    for adjoint in ("direct", "checkpointed"):
        signal = nd.Signal([0.0, 0.33, 2.0], values, interpolation=interpolation)
        found = nd.activity(network, signal, duration=0.4, save_at=save, solver=solver, adjoint=adjoint)
        loss = sum((tensor(*x.shape, seed=place) * x).sum() for place, x in enumerate(found.values()))
        gradients.append(torch.autograd.grad(loss, [weight, gain, values]))
    signal = nd.Signal([0.0, 0.33, 2.0], values.detach(), interpolation=interpolation)
    plain = late_and_cyclic(weight, 0.7)
    run = nd.simulate(plain, signal, duration=0.4, save_at=save, solver=solver)
    for name, x in found.items():
        np.testing.assert_allclose(x.detach(), run[name], atol=1e-12)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_gradients_through_delays_are_those_of_a_buffer_written_by_hand():
    """dx/dt = (−x + W tanh x(t − 0.4) + u(t − 0.2)) / τ by Euler, with x and u before 0 as at 0."""
    weight, start = tensor(2, 2).requires_grad_(), tensor(1, 2, seed=1).requires_grad_()
    tau, values = torch.tensor([0.5, 1.0], dtype=F64, requires_grad=True), tensor(11, 2, seed=2).requires_grad_()
    layer = nn.Linear(2, 2, bias=False, dtype=F64)
    layer.weight = nn.Parameter(weight.detach().clone())
    populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, tau=tau)]
    tanh = nd.Forward(nn.Sequential(nn.Tanh(), layer))
    network = nd.Network(
        "late", populations, [nd.Coupling("u", "x", delay=0.2), nd.Coupling("x", "x", tanh, delay=0.4)]
    )
    signal = nd.Signal(np.arange(11) / 10, values, interpolation="previous")
    x = nd.activity(network, signal, duration=1.0, initial={"x": start}, save_at=[1.0], solver=nd.Euler(0.1))["x"]
    past = [start]
    for n in range(10):
        then, late = past[max(0, n - 4)], values[max(0, n - 2)]
        past.append(past[-1] + 0.1 / tau * (-past[-1] + torch.tanh(then) @ weight.t() + late))
    found = torch.autograd.grad(x.square().sum(), [layer.weight, start, tau, values])
    expected = torch.autograd.grad(past[-1].square().sum(), [weight, start, tau, values])
    np.testing.assert_allclose(x[0].detach(), past[-1].detach(), atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_gradients_through_a_cycle_are_those_of_its_solution():
    """First and second ones, of dx/dt = −x + b with b = 0.4 tanh(gain (x + b)) + 0.1 u, against differences."""

    def end(gain, u):
        populations = [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1)]
        populations += [nd.Population("a", 1, tau=0.0), nd.Population("b", 1, tau=0.0)]
        couplings = [nd.Coupling("x", "a", gain=gain), nd.Coupling("b", "a", gain=gain), nd.Coupling("b", "x")]
        couplings += [nd.Coupling("a", "b", nd.Forward(nn.Tanh()), gain=0.4), nd.Coupling("u", "b", gain=0.1)]
        network = nd.Network("cycle", populations, couplings, algebraic="solve")
        return nd.activity(network, u, duration=0.2, save_at=[0.2], solver=nd.Heun(0.1))["b"]

    leaves = [
        torch.tensor([1.3], dtype=F64, requires_grad=True),
        torch.full((1, 1), 2.0, dtype=F64, requires_grad=True),
    ]
    assert gradcheck(end, leaves)
    assert gradgradcheck(end, leaves)


def test_what_takes_no_delays_or_cycles_says_so():
    late = nd.Network("late", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=-1.0, delay=1.0)])
    for call, message in [
        (
            lambda: nd.activity(late, None, duration=1.0, adjoint="backsolve"),
            "the delay 1, and adjoint='backsolve' takes",
        ),
        (
            lambda: nd.activity(late, None, duration=1.0, solver=nd.TorchDiffEq()),
            "the delay 1, and solver: TorchDiffEq",
        ),
        (lambda: nd.activity(late, None, duration=1.0, solver=nd.Exact()), "no differentiable closed form"),
        (lambda: nd.analysis.jacobian(late), "the delay 1, and a Jacobian takes none"),
        (lambda: nd.analysis.stability(late), "the delay 1, and the stability of an equilibrium takes none"),
        (lambda: nd.analysis.continuation(lambda p: late, 0.0, 1.0), "the delay 1, and a continuation takes none"),
        (lambda: nd.analysis.lyapunov(late, duration=1.0), "the delay 1, and a Lyapunov exponent takes none"),
    ]:
        with pytest.raises(nd.NeurodynError, match=message):
            call()
    populations = [nd.Population("x", 1), nd.Population("a", 1, tau=0.0), nd.Population("b", 1, tau=0.0)]
    couplings = [nd.Coupling("x", "a"), nd.Coupling("b", "a", gain=0.5), nd.Coupling("a", "b"), nd.Coupling("b", "x")]
    cycle = nd.Network("cycle", populations, couplings, algebraic="solve")
    with pytest.raises(nd.NeurodynError, match=r"is solved for at each evaluation: adjoint='backsolve' takes none"):
        nd.activity(cycle, None, duration=1.0, adjoint="backsolve")
    for settings in ({"adjoint": "backsolve"}, {"solver": nd.TorchDiffEq()}):
        with pytest.raises(ValueError, match=r"takes no bounds, and population x has some"):
            nd.activity(bounded(), tensor(1, 2), duration=1.0, **settings)


def test_stability_under_bounds_is_that_of_the_units_that_are_free():
    u = torch.tensor([[2.0, -0.5]], dtype=F64)
    populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, tau=0.5, bounds=(-1.0, 1.0))]
    network = nd.Network("held", populations, [nd.Coupling("u", "x")])
    found = nd.analysis.stability(network, u, at=nd.equilibrium(network, u))
    assert found.growth.values.tolist() == [[-2.0]]
    assert bool(found.stable.all())
    with pytest.raises(ValueError, match=r"population x has bounds, at which a branch has corners"):
        nd.analysis.continuation(lambda p: network, 0.0, 1.0, u)

"""The choice of solver: one accuracy whatever the structure, and what is no solver is refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from tests.problems import PROBLEMS, Array, mlp, tensor

Bound = tuple[nd.Network, Tensor | None, Tensor | None, dict[str, Tensor]]


def problem(name: str) -> Callable[[], Bound]:
    def bound() -> Bound:
        made = PROBLEMS[name]()
        return made.network, made.inputs, None, made.initial

    return bound


def predictive(activation: str, scale: float = 1.0, **options: Any) -> Callable[[], Bound]:
    def bound() -> Bound:
        example = mlp(activation)
        network = pc.network(example.module, steps="equilibrium", **options)
        return network, example.inputs, scale * example.targets, {}

    return bound


def small() -> Bound:
    """A linear cycle with a stop condition's solver, of activity far below 1."""
    network, _, _, start = problem("oscillator")()
    return network, None, None, {name: 1e-6 * value for name, value in start.items()}


def circuit() -> Bound:
    module = tp.tower([8] * 4, outputs=3, weights="orthogonal", dtype=torch.float64)
    return tp.weak_feedback(module), tensor(4, 8), tensor(4, 3), {}


def relaxation() -> Bound:
    example = mlp()
    return ar.network(example.module), example.inputs, example.targets, {}


CASES: dict[str, Callable[[], Bound]] = {
    **{name: problem(name) for name in PROBLEMS},
    "PC, tanh": predictive("tanh"),
    "PC, sigmoid": predictive("sigmoid"),
    "PC, ReLU": predictive("relu"),
    "PC, errors that lag": predictive("tanh", error_tau=0.3),
    "small activity": small,
    "circuit": circuit,
    "AR": relaxation,
}


@torch.no_grad()
def reference(bound: Bound, times: Array) -> dict[str, Array]:
    network, inputs, targets, initial = bound
    system = nd.System(network, inputs, targets, initial=initial)
    state, slope = system.initial_state(), system.new_state()
    start = state.flat.numpy().copy()

    def field(_: float, flat: Array) -> Array:
        state.flat.copy_(torch.from_numpy(flat))
        system.field(state, slope)
        return slope.flat.numpy().copy()

    size = float(np.abs(start).max()) or 1.0
    solution = solve_ivp(field, (0.0, times[-1]), start, "LSODA", t_eval=times, rtol=1e-9, atol=1e-10 * size)
    return {
        name: solution.y[place].T.reshape(len(times), system.samples, *system.shapes[name])
        for name, place in system.places()
    }


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("name", [name for name in CASES if name != "PC, ReLU"])
def test_the_error_is_a_thousandth_of_the_scale_whatever_the_structure(name: str, steps: bool) -> None:
    bound = CASES[name]()
    network, inputs, targets, initial = bound
    until: dict[str, Any] = {"until": nd.steady(1e-300)} if steps else {}
    run = nd.simulate(network, inputs, targets, duration=10.0, initial=initial, save_at=21, **until)
    exact = reference(bound, run.time.values)
    scale = max(float(np.abs(value).max()) for value in exact.values())
    for population, value in exact.items():
        assert np.abs(run[population].values - value).max() <= 1e-3 * scale


def predator_and_prey() -> nd.Network:
    product = nd.Pointwise(lambda x, y: x * y, text="{} {}")
    populations = [nd.Population("x", 1, leak=0), nd.Population("y", 1)]
    couplings = [
        nd.Coupling("x", "x"),
        nd.Coupling(("x", "y"), "x", product, gain=-1),
        nd.Coupling(("x", "y"), "y", product),
    ]
    return nd.Network("Lotka–Volterra", populations, couplings)


def test_so_it_is_over_the_periods_of_an_oscillation() -> None:
    """Errors along a cycle are not forgotten, as they are on the way to an equilibrium: those of all steps add up."""
    network = predator_and_prey()
    start = {"x": torch.full((1, 1), 1.5, dtype=torch.float64), "y": torch.ones(1, 1, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=50.0, initial=start, save_at=101)
    exact = reference((network, None, None, start), run.time.values)
    scale = max(float(np.abs(value).max()) for value in exact.values())
    for population, value in exact.items():
        assert np.abs(run[population].values - value).max() <= 1e-3 * scale


def test_where_activations_have_kinks_the_accuracy_is_the_same() -> None:
    """SciPy does not get past a discontinuous F; Euler's method does, with an error of the order of its step."""
    network, inputs, targets, _ = CASES["PC, ReLU"]()
    run = nd.simulate(network, inputs, targets, duration=2.0, save_at=5)
    exact = nd.simulate(network, inputs, targets, duration=2.0, save_at=5, solver=nd.Euler(5e-4))
    scale = max(float(abs(exact[name]).max()) for name in ("x1", "x2"))
    for name in ("x1", "x2"):
        assert float(abs(run[name] - exact[name]).max()) <= 2e-3 * scale


def test_the_attributes_say_what_was_chosen_and_why() -> None:
    found = {}
    for name in ("decay", "Hopfield", "PC, tanh", "PC, ReLU"):
        network, inputs, targets, initial = CASES[name]()
        run = nd.simulate(network, inputs, targets, duration=0.1, initial=initial)
        found[name] = (run.solver.split("(")[0], run.solver_reason)
    assert found == {
        "decay": ("Exact", "linear: the closed form"),
        "Hopfield": ("Adaptive", "no structure to use: adaptive Runge–Kutta"),
        "PC, tanh": ("Stabilized", "a smooth gradient flow: stabilised Runge–Kutta"),
        "PC, ReLU": (
            "Sliding",
            "a gradient flow with kinks where units pass 0: Runge–Kutta that slides along them",
        ),
    }
    network, inputs, targets, initial = CASES["Hopfield"]()
    assert nd.simulate(network, inputs, duration=0.1, solver=nd.Euler(0.1)).solver_reason == "as given"


def test_learning_relaxes_as_simulation_does() -> None:
    """A batch relaxed for a while leaves the gradients of the state that `simulate` finds, with its solver."""
    example = mlp()
    network = pc.network(example.module, steps="equilibrium")
    example.module.zero_grad()
    nd.backward(network, example.inputs, example.targets, duration=3.0)
    run = nd.simulate(network, example.inputs, example.targets, duration=3.0, save_at=[3.0], record=["e1", "s"])
    expected = -torch.from_numpy(run.e1.values[0].T @ run.s.values[0]) / len(example.inputs)
    layer = example.module[0]
    assert isinstance(layer, nn.Linear)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("rk4", r"not the name 'rk4'; give nd\.RK4\(0\.1\)"),
        ("euler", r"give nd\.Euler\(0\.1\)"),
        ("dopri", r"give nd\."),
        (nd.Euler, r"not the class Euler; give nd\.Euler\(0\.1\)"),
        (nd.Adaptive, r"not the class Adaptive; give nd\.Adaptive\(\)"),
        (0.1, r"solver must be a solver such as Euler\(0\.1\), not float"),
    ],
)
def test_what_is_no_solver_is_refused_by_name(solver: Any, message: str) -> None:
    example = mlp()
    network = pc.network(example.module, steps="equilibrium")
    for run in (nd.simulate, nd.backward):
        with pytest.raises(nd.NeurodynError, match=message):
            run(network, example.inputs, example.targets, duration=1.0, solver=solver)
    pair = example.inputs, example.targets
    with pytest.raises(nd.NeurodynError, match=message):
        nd.train.fit(network, pair, pair, epochs=1, duration=1.0, solver=solver)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_half_precision_runs_by_default(dtype: torch.dtype, activation: str) -> None:
    """Within a few of its roundings of what single precision finds."""
    example, single = mlp(activation, dtype=dtype), mlp(activation, dtype=torch.float32)
    single.module.load_state_dict(example.module.state_dict())
    tolerance = 16 * torch.finfo(dtype).eps
    for declare in (lambda m: pc.network(m, steps="equilibrium"), ar.network):
        network, wide = declare(example.module), declare(single.module)
        data = example.inputs, example.targets
        both = [nd.simulate(network, *data, duration=2.0), nd.simulate(wide, *(d.float() for d in data), duration=2.0)]
        if activation == "tanh":
            both += [nd.equilibrium(network, *data), nd.equilibrium(wide, *(d.float() for d in data))]
        for half, full in zip(both[::2], both[1::2], strict=True):
            scale = max(float(abs(value).max()) for value in full.data_vars.values())
            for name in full.data_vars:
                assert float(abs(half[name] - full[name]).max()) <= 4 * tolerance * scale

"""The stabilised method: order, stability beyond an explicit method's limit, error control, and where it is used."""

import numpy as np
import pytest
import torch

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.stabilized import _ChebyshevStepper
from neurodyn.system.system import System
from tests.problems import hopfield, stiff_pair, wilson_cowan


def predictive(seed=0, dtype=torch.float64, activation="tanh"):
    module = nd.mlp([9, 8, 7, 5], activation=activation, seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 9, generator=generator, dtype=torch.float64).to(dtype)
    t = torch.randn(4, 5, generator=generator, dtype=torch.float64).to(dtype)
    return pc.network(module, steps="equilibrium"), x, t


@pytest.mark.parametrize("stages", [2, 3, 7, 20])
def test_each_number_of_stages_is_of_second_order(stages):
    problem = wilson_cowan()
    system = System(problem.network, problem.inputs, initial=problem.initial)
    reference = problem.reference(np.array([0.4]))
    errors = []
    with torch.no_grad():
        for steps in (8, 16, 32):
            stepper = _ChebyshevStepper(system, 1e-3, 1e-3, system.initial_state().flat)
            for _ in range(steps):
                stepper._chebyshev(0.4 / steps, stages)
                stepper.evaluate(stepper.y, stepper.slope_after)
                stepper.accept()
            error = [np.abs(stepper.x.activity[n].numpy() - value[0]).max() for n, value in reference.items()]
            errors.append(max(error))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(orders - 2.0) < 0.25)


def test_error_follows_the_tolerance():
    network, x, t = predictive()
    reference = nd.simulate(network, x, t, duration=5.0, solver=nd.Adaptive(rtol=1e-11, atol=1e-12), save_at=11)
    for tolerance in (1e-3, 1e-4, 1e-5):
        run = nd.simulate(network, x, t, duration=5.0, solver=nd.Stabilized(tolerance, tolerance), save_at=11)
        error = max(float(abs(run[name] - reference[name]).max()) for name in reference.data_vars)
        assert error < 50 * tolerance


def test_stiffness_costs_its_square_root():
    evaluations = {}
    for ratio in (100.0, 10000.0):
        problem = stiff_pair(ratio)
        run = problem.simulate(20.0, solver=nd.Stabilized(1e-3, 1e-4), save_at=[20.0])
        assert abs(run["slow"].values).max() < 1e-3
        evaluations[ratio] = run.attrs["evaluations"]
    assert evaluations[10000.0] < 30 * evaluations[100.0]
    assert evaluations[10000.0] < 20.0 * 10000.0 / 2.0 / 10


def test_spectral_radius_is_that_of_the_jacobian():
    network, x, t = predictive()
    system = System(network, x, t)
    flat = system.initial_state().flat

    def field(flat):
        state, out = system.new_state(flat.clone()), system.new_state()
        system.field(state, out)
        return out.flat

    with torch.no_grad():
        step = 1e-6 * torch.eye(system.size, dtype=torch.float64)
        columns = [(field(flat + row) - field(flat - row)) / 2e-6 for row in step]
        stepper = _ChebyshevStepper(system, 1e-3, 1e-3, flat)
        estimate, _ = stepper._spectral_radius()
    largest = float(torch.linalg.eigvals(torch.stack(columns, 1)).abs().max())
    assert largest < estimate < 1.3 * largest


def test_a_rejected_step_frees_the_estimate_from_where_the_last_one_ended():
    problem = hopfield(samples=2)
    weights = problem.network.stages[0].layers[-1].state_dict()["weight"]
    stiff = torch.linalg.eigvals(weights - torch.eye(len(weights))).abs().max().item()  # at rest
    start = torch.zeros(2, len(weights), dtype=torch.float64)
    start[1] = 40.0  # saturated, where the Jacobian is −1
    system = System(problem.network, problem.inputs, initial={"x": start})
    with torch.no_grad():
        stepper = _ChebyshevStepper(system, 1e-3, 1e-3, system.initial_state().flat)
        stepper._direction = torch.zeros_like(start).index_fill_(0, torch.tensor(1), 1.0).flatten()
        assert stepper._spectral_radius()[0] < 0.5 * stiff
        assert not stepper.attempt(2.0) <= 1.0
        assert stepper._spectral_radius()[0] > stiff


def test_default_for_gradient_flows_and_float32_agrees():
    network, x, t = predictive()
    run = nd.simulate(network, x, t, duration=3.0, save_at=[3.0])
    assert run.attrs["solver"].startswith("Stabilized")
    single, x, t = predictive(dtype=torch.float32)
    other = nd.simulate(single, x, t, duration=3.0, save_at=[3.0])
    assert other["x1"].dtype == np.float32
    assert float(abs(run["x1"] - other["x1"]).max()) < 1e-3


@pytest.mark.parametrize(("seed", "duration"), [(0, 3.0), (1, 1.0)])
def test_a_gradient_flow_with_kinks_slides_along_them_by_default_which_costs_less(seed, duration):
    network, x, t = predictive(seed, activation="relu")
    solvers = (None, nd.Stabilized(), nd.RK4(0.005))
    *runs, exact = (nd.simulate(network, x, t, duration=duration, solver=s, save_at=[duration]) for s in solvers)
    error, other = (max(float(abs(run[name] - exact[name]).max()) for name in exact.data_vars) for run in runs)
    assert runs[0].attrs["solver"].startswith("Sliding")
    assert runs[0].attrs["evaluations"] < 0.7 * runs[1].attrs["evaluations"]
    assert error < max(1.5 * other, 2e-3)


def test_a_run_leaves_the_state_at_its_end_and_counts_every_evaluation(monkeypatch):
    network, x, t = predictive()
    system = System(network, x, t)
    calls = 0
    field = system.field

    def counted(state, out, time=None):
        nonlocal calls
        calls += 1
        field(state, out, time)

    monkeypatch.setattr(system, "field", counted)
    with torch.no_grad():
        state = system.initial_state()
        report = nd.Stabilized().integrate(system, state, 2.0, Unrecorded())
    assert report.evaluations == calls
    assert report.time == 2.0
    expected = nd.simulate(network, x, t, duration=2.0, solver=nd.Stabilized(), save_at=[2.0])["x1"].values[0]
    np.testing.assert_array_equal(state.activity["x1"].numpy(), expected)


class _Root(nd.Map):
    def apply(self, x):
        return torch.sqrt(1.0 - x)


def test_a_field_that_ends_beside_the_state_is_left_to_the_step_control():
    network = nd.Network("root", [nd.Population("x", 1, leak=0.0)], [nd.Coupling("x", "x", _Root(), gain=-1.0)])
    start = {"x": torch.ones(1, 1, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=1.0, solver=nd.Stabilized(), initial=start)
    np.testing.assert_array_equal(run["x"], 1.0)


class _Square(nd.Map):
    def apply(self, x):
        return x * x


@pytest.mark.parametrize("solver", [nd.Stabilized(), nd.Adaptive()])
@pytest.mark.parametrize("start", [1e19, 1e30])
def test_a_slope_that_overflows_at_the_start_is_told(solver, start):
    network = nd.Network("square", [nd.Population("x", 2, initial=start, leak=0.0)], [nd.Coupling("x", "x", _Square())])
    with pytest.raises(nd.DivergenceError, match="population x"):
        nd.simulate(network, None, duration=1.0, solver=solver)


def test_bfloat16():
    stage = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    solver = nd.Stabilized(rtol=0.04, atol=0.04)

    def run(dtype):
        network = nd.Network("b", [nd.Population("x", 3)], [nd.Coupling("x", "x", nd.Forward(stage.to(dtype)))])
        start = {"x": torch.ones(1, 3, dtype=dtype)}
        return nd.simulate(network, None, duration=1.0, solver=solver, save_at=2, initial=start)["x"]

    np.testing.assert_allclose(run(torch.float32), run(torch.bfloat16), atol=0.05)


@pytest.mark.parametrize("solver", [nd.Stabilized(), nd.Adaptive()])
def test_an_overflow_that_saturates_where_it_is_read_is_told(solver):
    network = nd.Network(
        "saturated",
        [
            nd.Population("s", 2, clamp=nd.Input()),
            nd.Population("x", 2, initial=1.0),
            nd.Population("a", 2, tau=0.0),
            nd.Population("b", 2),
        ],
        [
            nd.Coupling("s", "x", gain=10.0),
            nd.Coupling("x", "a", gain=1e38),
            nd.Coupling("a", "b", nd.Forward(torch.nn.Tanh())),
        ],
    )
    with pytest.raises(nd.DivergenceError, match="population a became non-finite"):
        nd.simulate(network, torch.ones(1, 2), duration=3.0, solver=solver)

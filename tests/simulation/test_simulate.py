"""The front door: what `simulate` and `equilibrium` return by default and on request, and what they refuse."""

import importlib
import io
import math
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import scipy.optimize
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.progress import Bar
from tests.problems import EXAMPLES, PROBLEMS, decay, hopfield, mlp, random, sigmoid, stiff_pair, tensor, wilson_cowan

# Defaults and requests


def test_by_default_a_run_is_adaptive_and_saved_at_101_points() -> None:
    problem = wilson_cowan()
    run = problem.simulate(5.0)
    np.testing.assert_allclose(run.time, np.linspace(0, 5, 101), rtol=1e-15)
    assert run.solver.startswith("Adaptive(method='dopri5'")
    assert run.solver_reason == "no structure to use: adaptive Runge–Kutta"
    assert problem.error(run) < 1e-4


@pytest.mark.parametrize("solver", [nd.Euler(0.5), nd.Heun(0.5), nd.RK4(0.5)], ids=repr)
def test_by_default_every_fixed_step_is_saved(solver: nd.Solver) -> None:
    assert decay().simulate(2.2, solver=solver).time.values.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.2]


def test_save_at_a_number_of_points() -> None:
    assert decay().simulate(3.0, save_at=4).time.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert decay().simulate(3.0, save_at=np.int64(2), solver=nd.Euler(0.5)).time.values.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("times", [np.arange(4) * 0.1, torch.linspace(0, 0.3, 4)], ids=["n · h", "single precision"])
@pytest.mark.parametrize("solver", [nd.Euler(0.1), nd.Adaptive(), nd.TorchDiffEq()], ids=repr)
def test_a_time_that_exceeds_the_end_by_rounding_is_the_end(solver: nd.Solver, times) -> None:
    assert float(times[-1]) > 0.3
    run = decay().simulate(0.3, solver=solver, save_at=times)
    assert len(run.time) == 4
    assert run.time[-1] == 0.3


def test_a_duration_may_be_any_number() -> None:
    for duration in (2, np.float32(2.0), np.int64(2)):
        assert decay().simulate(duration).time[-1] == 2.0  # type: ignore[arg-type]


def test_all_but_the_inputs_are_recorded() -> None:
    assert list(wilson_cowan().simulate(1.0).data_vars) == ["hE", "hI", "E", "I"]


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (["I", "P"], ["I", "P"]),
        ("E", ["E"]),
        (["E", "E"], ["E"]),
        (("hE",), ["hE"]),
        ({"I": 1, "E": 2}.keys(), ["I", "E"]),
    ],
    ids=str,
)
def test_record_chooses_and_orders(record, names: list[str]) -> None:
    problem = wilson_cowan()
    everything = problem.simulate(1.0)
    run = problem.simulate(1.0, record=record)
    assert list(run.data_vars) == names
    for name in set(names) - {"P"}:
        np.testing.assert_array_equal(run[name], everything[name])


def test_a_recorded_input_is_held() -> None:
    problem = wilson_cowan()
    run = problem.simulate(1.0, record=["P"], save_at=3)
    np.testing.assert_array_equal(run.P, np.broadcast_to(np.asarray(problem.inputs), (3, 2, 3)))


def test_instantaneous_populations_are_recorded_at_their_activity() -> None:
    problem = wilson_cowan()
    for solver in (nd.RK4(0.1), nd.Adaptive()):
        run = problem.simulate(1.0, solver=solver, save_at=[0.0, 0.123, 0.5, 1.0])
        np.testing.assert_allclose(
            run.hE, np.asarray(problem.inputs) + 12 * run.E.values - 4 * run.I.values, rtol=1e-12
        )


def test_initial_replaces_the_declared_start() -> None:
    network = nd.Network("n", [nd.Population("x", 2, initial=3.0), nd.Population("y", 2, initial=-1.0)])
    run = nd.simulate(network, None, duration=1.0, save_at=2, initial={"x": tensor(1, 2)})
    np.testing.assert_array_equal(run.x[0], tensor(1, 2))
    assert (run.y[0] == -1).all()


def test_a_run_without_inputs_has_the_default_dtype() -> None:
    network = nd.Network("n", [nd.Population("x", 2, initial=1.0)])
    assert nd.simulate(network, None, duration=1.0).x.dtype == np.float32


@pytest.mark.parametrize("samples", [1, 5])
def test_samples_do_not_see_each_other(samples: int) -> None:
    example = mlp()
    network = ar.network(example.module)
    whole, one = (
        nd.simulate(network, example.inputs[:n], example.targets[:n], duration=2.0, solver=nd.RK4(0.1), save_at=3)
        for n in (samples, 1)
    )
    for name in whole.data_vars:
        np.testing.assert_allclose(whole[name][:, :1], one[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("solver", [nd.Euler(0.1), nd.Adaptive()], ids=repr)
def test_the_same_run_twice_gives_the_same_bits(solver: nd.Solver) -> None:
    for make in PROBLEMS.values():
        problem = make()
        assert problem.simulate(2.0, solver=solver).identical(problem.simulate(2.0, solver=solver))


def test_a_run_leaves_the_module_and_the_global_state_alone() -> None:
    example = mlp()
    before = [p.clone() for p in example.module.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    nd.simulate(ar.network(example.module), example.inputs, example.targets, duration=1.0)
    assert torch.equal(torch.rand(1), expected)
    assert torch.is_grad_enabled()
    assert all(map(torch.equal, before, example.module.parameters()))
    assert all(p.grad is None for p in example.module.parameters())


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_euler_equals_an_independent_loop(name: str, activation: str, dtype: torch.dtype, tolerance: float) -> None:
    """AR written out with autograd: x_l ← x_l + h (−x_l + J_{l+1}ᵀ x_{l+1}), J at the forward pass."""
    example = EXAMPLES[name](activation, dtype=dtype)
    run = nd.simulate(
        ar.network(example.module), example.inputs, example.targets, duration=10.0, solver=nd.Euler(0.1), record=None
    )
    stages = [nn.Sequential(*stage.layers) for stage in nd.cut(example.module)]
    inputs = [example.inputs]
    for stage in stages:
        inputs.append(stage(inputs[-1]).detach())
    top = inputs[-1] - example.targets
    x = inputs[1:-1]
    points = [value.clone().requires_grad_() for value in x]
    outputs = [stage(point) for stage, point in zip(stages[1:], points, strict=True)]
    for n in range(101):
        for number, activity in enumerate(x, start=1):
            expected = activity.double().numpy()
            error = np.abs(run[f"x{number}"][n].values - expected).max()
            assert error <= tolerance * max(1.0, np.abs(expected).max())
        above = [*x[1:], top]
        feedback = torch.autograd.grad(outputs, points, above, retain_graph=True)
        x = [a + 0.1 * (-a + f) for a, f in zip(x, feedback, strict=True)]


# Equilibrium


def test_the_equilibrium_of_an_acyclic_network_is_exact() -> None:
    network = nd.Network(
        "chain",
        [
            nd.Population("s", 3, clamp=nd.Input()),
            nd.Population("c", 3, tau=0.0, leak=4.0),
            nd.Population("b", 3, tau=7.0, leak=0.5, initial=100.0),
            nd.Population("a", 3, tau=0.1, leak=2.0),
        ],
        [
            nd.Coupling("s", "a", gain=3.0),
            nd.Coupling("a", "b", nd.Forward(nn.Tanh())),
            nd.Coupling("s", "b"),
            nd.Coupling("b", "c", gain=-2.0),
        ],
    )
    s = random(4, 3)
    found = nd.equilibrium(network, torch.tensor(s))
    a = 1.5 * s
    b = 2 * (np.tanh(a) + s)
    np.testing.assert_allclose(found.a, a, rtol=1e-14)
    np.testing.assert_allclose(found.b, b, rtol=1e-14)
    np.testing.assert_allclose(found.c, -b / 2, rtol=1e-14)
    assert (found.solver, found.evaluations, found.converged) == ("sweep", 1, 1)
    assert found.residual < 1e-13
    assert "time" not in found.dims
    assert found.c.dims == ("sample", "c_unit")


def test_the_equilibrium_of_a_linear_cycle() -> None:
    """Slow = fast = 0 for the stiff pair; with an input, (I − W) x = s."""
    problem = stiff_pair()
    found = nd.equilibrium(problem.network, None, initial=problem.initial, tolerance=1e-10)
    assert np.abs(found.slow).max() < 1e-9
    weights = 0.3 * random(4, 4)
    recurrent = nn.Linear(4, 4, bias=False, dtype=torch.float64)
    with torch.no_grad():
        recurrent.weight.copy_(torch.tensor(weights))
    network = nd.Network(
        "recurrent",
        [nd.Population("s", 4, clamp=nd.Input()), nd.Population("x", 4)],
        [nd.Coupling("s", "x"), nd.Coupling("x", "x", nd.Forward(recurrent))],
    )
    s = random(3, 4)
    found = nd.equilibrium(network, torch.tensor(s), tolerance=1e-10)
    np.testing.assert_allclose(found.x, np.linalg.solve(np.eye(4) - weights, s.T).T, atol=1e-8)
    assert found.converged == 1


@pytest.mark.parametrize("make", [hopfield, wilson_cowan])
def test_the_equilibrium_of_a_cycle_is_a_root_of_the_equations(make) -> None:
    problem = make()
    found = nd.equilibrium(problem.network, problem.inputs, initial=problem.initial, tolerance=1e-11)
    assert found.converged == 1
    assert found.residual <= 1e-11
    here = np.concatenate([found[name].values.ravel() for name in problem.start])
    root = scipy.optimize.root(lambda y: problem.flat_rhs(0.0, y), here + 1e-4 * random(len(here)), tol=1e-13)
    assert root.success
    np.testing.assert_allclose(here, root.x, atol=1e-8)
    assert np.abs(problem.flat_rhs(0.0, here)).max() < 1e-10


def test_instantaneous_populations_are_settled_at_the_equilibrium() -> None:
    problem = wilson_cowan()
    found = nd.equilibrium(problem.network, problem.inputs, initial=problem.initial, tolerance=1e-9)
    np.testing.assert_allclose(found.E, sigmoid(found.hE.values), atol=1e-8)


def test_the_start_decides_between_two_equilibria() -> None:
    network = nd.Network("bistable", [nd.Population("x", 1)], [nd.Coupling("x", "x", nd.Forward(nn.Tanh()), gain=2.0)])
    start = torch.tensor([[0.1], [-0.1], [0.0]], dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="rests at an unstable equilibrium in 1 of 3 samples"):
        run = nd.equilibrium(network, None, initial={"x": start})
    assert (run.converged, run.stable) == (1, 0)
    found = run.x.values[:, 0]
    expected = scipy.optimize.brentq(lambda x: 2 * np.tanh(x) - x, 1, 3)
    np.testing.assert_allclose(found, [expected, -expected, 0.0], atol=1e-6)


def test_an_equilibrium_records_what_is_asked_for() -> None:
    problem = wilson_cowan()
    found = nd.equilibrium(problem.network, problem.inputs, record=["I", "P"])
    assert list(found.data_vars) == ["I", "P"]
    np.testing.assert_array_equal(found.P, problem.inputs)


def test_an_equilibrium_that_is_not_reached_is_told() -> None:
    network = nd.Network(
        "turning",
        [nd.Population("x", 1, leak=0.0, initial=1.0), nd.Population("y", 1, leak=0.0)],
        [nd.Coupling("y", "x", gain=-1.0), nd.Coupling("x", "y")],
    )
    with pytest.warns(
        RuntimeWarning, match=r"network 'turning' has not reached its equilibrium after 5 units of time and"
    ):
        found = nd.equilibrium(network, None, max_duration=5.0)
    assert found.converged == 0
    assert 0.5 < found.residual < 1.1


def test_a_population_without_leak_has_no_equilibrium() -> None:
    network = nd.Network("n", [nd.Population("x", 1, leak=0.0)])
    with pytest.raises(ValueError, match="population x has no leak and does not depend on itself, so it has no equil"):
        nd.equilibrium(network, None)


def test_an_equilibrium_out_of_range_is_named() -> None:
    network = nd.Network(
        "n",
        [nd.Population("s", 1, clamp=nd.Input()), nd.Population("x", 1)],
        [nd.Coupling("s", "x", gain=1e30)],
    )
    with pytest.raises(nd.DivergenceError, match="population x is not finite at the equilibrium") as caught:
        nd.equilibrium(network, torch.full((1, 1), 1e30))
    assert (caught.value.population, caught.value.time) == ("x", math.inf)


def test_a_network_that_runs_away_has_no_equilibrium() -> None:
    network = nd.Network("n", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=3.0)])
    with pytest.raises(nd.DivergenceError, match="population x"):
        nd.equilibrium(network, None)


# A stranger's networks: nothing but the public interface


def test_a_wilson_cowan_pair_oscillates() -> None:
    """E. Izhikevich's textbook values: a limit cycle, which no equilibrium search may take for an equilibrium."""
    excitatory = nd.Population("E", 1, initial=0.2)
    inhibitory = nd.Population("I", 1, initial=0.1)
    drive_e, drive_i = nd.Population("hE", 1, tau=0.0), nd.Population("hI", 1, tau=0.0)
    network = nd.Network(
        "pair",
        [nd.Population("P", 1, clamp=nd.Input()), drive_e, drive_i, excitatory, inhibitory],
        [
            nd.Coupling("P", "hE"),
            nd.Coupling("E", "hE", gain=10.0),
            nd.Coupling("I", "hE", gain=-10.0),
            nd.Coupling("E", "hI", gain=10.0),
            nd.Coupling("I", "hI", gain=2.0),
            nd.Coupling("hE", "E", nd.Forward(nn.Sigmoid())),
            nd.Coupling("hI", "I", nd.Forward(nn.Sequential(nn.Linear(1, 1), nn.Sigmoid()))),
        ],
    )
    linear = network.stages[1].layers[0]
    nn.init.ones_(linear.weight)  # type: ignore[arg-type]
    nn.init.constant_(linear.bias, -6.0)  # type: ignore[arg-type]
    run = nd.simulate(network, torch.full((1, 1), -0.5), duration=200.0, save_at=2001)
    late = run.E.values[1000:, 0, 0]
    assert late.max() - late.min() > 0.2
    crossings = np.flatnonzero(np.diff(np.sign(late - late.mean())) > 0)
    assert len(crossings) > 5
    assert np.ptp(np.diff(crossings)) <= 2  # a steady period


def test_a_hopfield_network_recalls_a_pattern() -> None:
    patterns = np.sign(random(3, 60, seed=1))
    weights = patterns.T @ patterns / 60
    np.fill_diagonal(weights, 0)
    recurrent = nn.Linear(60, 60, bias=False)
    recurrent.weight.data = torch.tensor(weights, dtype=torch.float32)
    network = nd.Network(
        "memory",
        [nd.Population("x", 60)],
        [nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), recurrent)), gain=4.0)],
    )
    cue = patterns.copy()
    cue[:, :10] *= -1
    run = nd.simulate(network, None, duration=30.0, initial={"x": torch.tensor(cue, dtype=torch.float32)})
    np.testing.assert_array_equal(np.sign(run.x[-1]), patterns)
    activity = np.tanh(run.x.values.astype(float))
    energy = -2 * np.einsum("tsi,ij,tsj->ts", activity, weights, activity)
    energy += np.sum(activity * np.arctanh(np.clip(activity, -1 + 1e-12, 1 - 1e-12)), -1)
    energy += np.sum(0.5 * np.log(np.clip(1 - activity**2, 1e-12, None)), -1)
    assert (np.diff(energy, axis=0) < 1e-3).all()  # Hopfield's energy falls


# The bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list:
    """Collect the progress bars, each with the terminal that it is drawn on."""
    made: list = []
    front_door = importlib.import_module("neurodyn.simulation.simulate")  # nd.simulate is the function
    monkeypatch.setattr("neurodyn.progress.AFTER", 0.0)

    def on_a_terminal(**settings):
        terminal = Terminal()
        bar = Bar(**settings, file=terminal, mininterval=0.0)
        made.append((bar, terminal))
        return bar

    monkeypatch.setattr(front_door, "Bar", on_a_terminal)
    return made


@pytest.mark.parametrize(
    "solver",
    [nd.Euler(0.3), nd.RK4(0.1), nd.Adaptive(), nd.TorchDiffEq("dopri5"), nd.TorchDiffEq("rk4", step_size=0.1)],
    ids=repr,
)
def test_a_bar_counts_simulated_time(solver: nd.Solver, bars: list) -> None:
    decay().simulate(0.7, solver=solver, save_at=11, progress=True)
    ((bar, terminal),) = bars
    assert "decay" in terminal.getvalue()
    assert bar.n == pytest.approx(0.7)


def test_no_bar_where_it_is_refused(bars: list) -> None:
    decay().simulate(5.0, solver=nd.Euler(0.1), progress=False)
    ((_, terminal),) = bars
    assert terminal.getvalue() == ""


# What is refused


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"save_at": 0.1}, ValueError, r"save_at=0\.1: a number of points is an integer.*np\.arange"),
        ({"save_at": True}, ValueError, "save_at=True: a number of points is an integer"),
        ({"save_at": [1j]}, ValueError, "save_at is a number of points, an array of times, or 'steps'"),
        ({"save_at": {}}, ValueError, "save_at is a number of points, an array of times, or 'steps'"),
        ({"duration": 0.0}, ValueError, "duration must be positive and finite, not 0"),
        ({"duration": -1.0}, ValueError, "duration must be positive"),
        ({"duration": math.inf}, ValueError, "duration must be positive and finite, not inf"),
        ({"duration": math.nan}, ValueError, "duration must be positive"),
        ({"duration": "10"}, TypeError, "duration must be a number, not str"),
        ({"duration": None}, TypeError, "duration must be a number, not NoneType"),
        ({"solver": "euler"}, TypeError, r"not the name 'euler'; give nd\.Euler\(0\.1\)"),
        ({"solver": nd.Euler}, TypeError, "solver must be a solver"),
        (
            {"save_at": [0.0, 1.5]},
            ValueError,
            r"save_at: the times must lie within the run \[0, 1\], and span \[0, 1.5\]",
        ),
        ({"save_at": [-0.1, 0.5]}, ValueError, "save_at: the times must lie within the run"),
        ({"save_at": [0.5, 0.5]}, ValueError, "save_at: the times must be finite and increase"),
        ({"save_at": [0.7, 0.5]}, ValueError, "save_at: the times must be finite and increase"),
        ({"save_at": [0.5, math.nan]}, ValueError, "save_at: the times must be finite"),
        ({"save_at": [True]}, ValueError, "save_at is .*: bool is no type of times"),
        ({"save_at": torch.tensor([1j])}, ValueError, "save_at is .*: complex64 is no type of times"),
        ({"save_at": torch.empty(2, device="meta")}, TypeError, "save_at must be a tensor with data"),
        ({"save_at": []}, ValueError, "save_at: an array of times has one axis and at least one time"),
        ({"save_at": [[0.5]]}, ValueError, r"save_at: .* not the shape \(1, 1\)"),
        ({"save_at": 1}, ValueError, r"save_at: at least 2 points \(the start and the end\), not 1"),
        ({"save_at": "end"}, ValueError, "save_at is a number of points, an array of times, or 'steps', not 'end'"),
        ({"save_at": ["a"]}, ValueError, "save_at is a number of points, an array of times, or 'steps'"),
        ({"record": ["y"]}, ValueError, r"record: there is no population .*'y' in network 'decay'; there are x"),
        ({"record": "y"}, ValueError, "record: there is no population"),
        ({"record": 3}, TypeError, "record must be a list, not 3"),
        ({"record": torch.zeros(0)}, TypeError, "record must be a list, not a Tensor"),
        ({"record": {}}, ValueError, "record: name at least one population"),
        ({"record": []}, ValueError, "record: name at least one population"),
        ({"until": 1e-6}, TypeError, r"until must be a condition such as steady\(1e-6\), not float"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(settings, kind: type[Exception], message: str) -> None:
    problem = decay()
    arguments = {"duration": 1.0, "initial": problem.initial, **settings}
    with pytest.raises(kind, match=message):
        nd.simulate(problem.network, None, **arguments)


def test_fractions_are_numbers(tmp_path: Path) -> None:
    """What a run keeps of its settings is a float, which files and closed forms can take."""
    problem, half, tenth = decay(), cast(float, Fraction(1, 2)), cast(float, Fraction(1, 10))
    one = problem.simulate(0.5, solver=nd.Euler(0.1), store=tmp_path / "float.zarr")
    other = problem.simulate(half, solver=nd.Euler(tenth), store=tmp_path / "fraction.zarr")
    xr.testing.assert_identical(one.load(), other.load())
    xr.testing.assert_identical(problem.simulate(0.5), problem.simulate(half))


def test_the_default_device_does_not_count_where_there_are_tensors() -> None:
    """A device without memory stands for a GPU: what is made on it, cannot be read."""
    sparse = nd.SparseLinear(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    runs = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            network = nd.Network(
                "kept within bounds",
                [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, noise=0.1, initial=0.5, bounds=(0, 1))],
                [nd.Coupling("u", "x", nd.Forward(nd.Stage(sparse)))],
            )
            signal = nd.Signal([0.0, 1.0, 2.0], np.ones((3, 2), np.float32), interpolation="cubic")
            runs.append(nd.simulate(network, signal, duration=2.0, solver=nd.Euler(0.1), seed=0))
    np.testing.assert_array_equal(*(run.x for run in runs))


@pytest.mark.filterwarnings("ignore:.*prototype:UserWarning", "ignore:Sparse CSR tensor support is in beta:UserWarning")
def test_data_that_are_no_dense_tensors_are_refused() -> None:
    example = mlp()
    network, x, t = ar.network(example.module), example.inputs, example.targets
    nd.backward(network, x, t)  # which leaves a plan for batches like it
    for change, message in (
        (Tensor.to_sparse, r"must be a dense tensor, not one of layout torch\.sparse_coo"),
        (Tensor.to_sparse_csr, r"must be a dense tensor, not one of layout torch\.sparse_csr"),
        (lambda part: torch.nested.nested_tensor(list(part)), "must be a dense tensor, not a nested one; pad it"),
        (lambda part: torch.masked.masked_tensor(part, part > 0), "must be a plain tensor, not a MaskedTensor"),
    ):
        for inputs, targets in ((change(x), t), (x, change(t))):
            for run in (nd.simulate, nd.backward):
                with pytest.raises(nd.NeurodynError, match=message):
                    run(network, inputs, targets, duration=1.0)


def test_an_error_of_ones_own_observable_says_whose_it_is() -> None:
    network = nd.Network(
        "n", [nd.Population("x", 1)], observables=[nd.Observable("late", lambda activity: activity["y"].sum(1), "late")]
    )
    with pytest.raises(KeyError) as caught:
        nd.simulate(network, None, duration=1.0, record=["late"])
    assert caught.value.__notes__ == ["raised by the function given as observable late"]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"tolerance": 0.0}, ValueError, "tolerance of steady must be positive"),
        ({"max_duration": -1.0}, ValueError, "max_duration must be positive"),
        ({"record": ["y"]}, ValueError, "record: there is no population"),
    ],
)
def test_bad_arguments_of_equilibrium_are_named(settings, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        nd.equilibrium(decay().network, None, **settings)


def test_a_step_beyond_the_stability_limit_warns() -> None:
    with pytest.warns(
        UserWarning, match=r"step 2\.05 is beyond the stability limit 2 of Euler for network 'decay'"
    ) as caught:
        nd.simulate(decay().network, None, duration=5.0, solver=nd.Euler(2.05))
    assert caught[0].filename == __file__
    nd.simulate(decay().network, None, duration=5.0, solver=nd.Euler(2.0))  # the limit itself does not grow


def test_the_warning_of_an_equilibrium_points_at_its_caller() -> None:
    network = nd.Network("n", [nd.Population("x", 1, leak=0.0)], [nd.Coupling("x", "x", nd.Forward(nn.Softplus()))])
    with pytest.warns(RuntimeWarning, match="has not reached its equilibrium") as caught:
        nd.equilibrium(network, None, max_duration=1.0)
    assert caught[0].filename == __file__

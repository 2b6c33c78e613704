"""A network bound to data: its structure, its state, and every misfit of the data named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.structure.cache import structure_of
from neurodyn.structure.structure import Structure
from tests.problems import PROBLEMS, Array, Problem, hopfield, mlp, random, stiff_pair, tensor


def slope(system: nd.System, flat: Tensor) -> Tensor:
    state, out = system.new_state(flat), system.new_state()
    system.field(state, out)
    return out.flat


def jacobian(system: nd.System, flat: Tensor) -> Array:
    """Return ∂F/∂x by central differences."""
    columns = []
    for unit in torch.eye(system.size, dtype=torch.float64) * 1e-5:
        columns.append((slope(system, flat + unit) - slope(system, flat - unit)) / 2e-5)
    return torch.stack(columns, 1).numpy()


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_the_field_is_that_of_the_equations(make) -> None:
    problem: Problem = make()
    system = nd.System(problem.network, problem.inputs, initial=problem.initial)
    start = system.initial_state()
    np.testing.assert_array_equal(start.flat.numpy(), problem.flat_start)
    for seed in range(3):
        flat = random(system.size, seed=seed)
        np.testing.assert_allclose(
            slope(system, torch.tensor(flat)), problem.flat_rhs(0.0, flat), rtol=1e-13, atol=1e-13
        )


def test_instantaneous_populations_settle_in_the_order_of_their_dependence() -> None:
    network = nd.Network(
        "chain",
        [
            nd.Population("c", 2, tau=0.0, leak=4.0),
            nd.Population("x", 2, tau=3.0),
            nd.Population("b", 2, tau=0.0),
            nd.Population("a", 2, tau=0.0, leak=0.5),
        ],
        [
            nd.Coupling("x", "a"),
            nd.Coupling("a", "b", nd.Forward(nn.Tanh())),
            nd.Coupling("b", "c", gain=-1.0),
            nd.Coupling("x", "c"),
            nd.Coupling("c", "x", gain=2.0),
        ],
    )
    x = tensor(3, 2)
    system = nd.System(network, initial={"x": x})
    state = system.initial_state()
    out = system.new_state()
    system.field(state, out)
    c = (x - torch.tanh(2 * x)) / 4
    torch.testing.assert_close(state.activity["c"], c)
    torch.testing.assert_close(out.activity["x"], (2 * c - x) / 3)


@st.composite
def networks(draw) -> nd.Network:
    """Draw a network of up to five populations of two units, coupled at random; the first is dynamic."""
    count = draw(st.integers(1, 5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 10)))
        stages = [nd.Stage([nn.Linear(2, 2, dtype=torch.float64)], "A")]
        stages.append(nd.Stage([nn.Linear(2, 2, dtype=torch.float64), nn.Tanh()], "B"))
    numbers = st.sampled_from([0.5, 1.0, 2.0])
    populations = [
        nd.Population(f"x{i}", 2, tau=draw(st.sampled_from([0.5, 1.0, 2.0, 0.0][: 4 if i else 3])), leak=draw(numbers))
        for i in range(count)
    ]
    maps = st.one_of(
        st.builds(nd.Identity),
        st.builds(nd.Forward, st.sampled_from(stages)),
        st.builds(nd.Feedback, st.sampled_from(stages), st.just("live")),
    )
    names = st.sampled_from([p.name for p in populations])
    gains = st.sampled_from([-1.0, 0.5, 1.0])
    couplings = draw(st.lists(st.builds(nd.Coupling, names, names, maps, gains), max_size=5))
    mirrored = draw(st.booleans())
    if not mirrored:  # so that no coupling tells where a stage is used
        couplings = [
            replace(c, map=nd.Feedback(c.map.stage, at=c.target)) if isinstance(c.map, nd.Feedback) else c
            for c in couplings
        ]
    if mirrored:  # give gradient flows a chance
        twins = {nd.Forward: lambda s: nd.Feedback(s, "live"), nd.Feedback: nd.Forward}
        for c in list(couplings):
            back = nd.Identity() if c.map.stage is None else twins[type(c.map)](c.map.stage)
            instant = 0.0 in (p.tau for p in populations if p.name in (c.source, c.target))
            couplings.append(nd.Coupling(c.target, c.source, back, -c.gain if instant else c.gain))
    try:
        return nd.Network("drawn", populations, couplings)
    except ValueError:  # instantaneous populations in a cycle
        return nd.Network("drawn", [nd.Population(p.name, 2, leak=p.leak) for p in populations], couplings)


@given(network=networks())
@settings(max_examples=80, deadline=None)
def test_structure_tells_the_truth_of_the_jacobian(network: nd.Network) -> None:
    system = nd.System(network, initial={p.name: tensor(1, 2) for p in network.populations if p.tau})
    structure = system.structure
    here, there = (jacobian(system, tensor(system.size, seed=seed)) for seed in (1, 2))
    if structure.linear:
        np.testing.assert_allclose(here, there, atol=1e-7)
    if structure.gradient_flow:
        tau = np.repeat([network[name].tau for name in system.dynamic], 2)
        np.testing.assert_allclose(tau[:, None] * here, (tau[:, None] * here).T, atol=1e-7)
    if structure.acyclic:
        assert structure.order is not None
        order = [i for name in structure.order if name in system.dynamic for i in places(system, name)]
        ordered = here[np.ix_(order, order)]
        leaks = np.concatenate(
            [np.full(2, network[n].leak / network[n].tau) for n in structure.order if network[n].tau]
        )
        np.testing.assert_allclose(np.triu(ordered, 1), 0, atol=1e-7)
        np.testing.assert_allclose(np.diag(ordered), -leaks, atol=1e-7)
        assert structure.spectral_bound == pytest.approx(np.abs(np.linalg.eigvals(here)).max(), abs=1e-4)


def by_hand(network: nd.Network, activity: dict[str, Tensor], name: str) -> Tensor:
    """Return Σ gain · map(source) into a population, each map straight from its layers."""
    total = torch.zeros(1, 2, dtype=torch.float64)
    for coupling in network.into(name):
        source = activity[coupling.sources[0]]
        if coupling.map.stage is None:
            value = source
        else:
            module = nn.Sequential(*coupling.map.stage.layers)
            if isinstance(coupling.map, nd.Forward):
                value = module(source).detach()
            else:
                point = activity[name].clone().requires_grad_()
                (value,) = torch.autograd.grad(module(point), point, source)
        total = total + coupling.gain * value
    return total


@given(network=networks())
@settings(max_examples=60, deadline=None)
def test_any_network_obeys_its_declaration(network: nd.Network) -> None:
    """τ dx/dt = −leak x + Σ gain · map, and x = Σ gain · map / leak where τ = 0."""
    system = nd.System(network, initial={p.name: tensor(1, 2) for p in network.populations if p.tau})
    state, out = system.new_state(tensor(system.size, seed=3)), system.new_state()
    system.field(state, out)
    for p in network.populations:
        total = by_hand(network, state.activity, p.name)
        if p.tau:
            expected = (total - p.leak * state.activity[p.name]) / p.tau
            torch.testing.assert_close(out.activity[p.name], expected, rtol=1e-12, atol=1e-13)
        else:
            torch.testing.assert_close(state.activity[p.name], total / p.leak, rtol=1e-12, atol=1e-13)


@given(network=networks())
@settings(max_examples=60, deadline=None)
def test_a_sweep_leaves_nothing_to_move(network: nd.Network) -> None:
    system = nd.System(network, initial={p.name: tensor(1, 2) for p in network.populations if p.tau})
    state, out = system.initial_state(), system.new_state()
    if not system.structure.acyclic:
        with pytest.raises(ValueError, match="network 'drawn' is cyclic, so that no sweep gives its equilibrium"):
            system.sweep(state)
        return
    system.sweep(state)
    swept = {name: value.clone() for name, value in state.activity.items()}
    system.field(state, out)
    assert float(out.flat.abs().max()) < 1e-11
    for name, value in swept.items():
        torch.testing.assert_close(state.activity[name], value, rtol=1e-12, atol=1e-13)


def places(system: nd.System, name: str) -> list[int]:
    flat = torch.arange(system.size)
    return system.new_state(flat).activity[name].flatten().tolist()


def structure(*couplings: nd.Coupling, **settings) -> Structure:
    names = dict.fromkeys(end for c in couplings for end in (*c.sources, c.target))
    network = nd.Network("n", [nd.Population(name, 3, **settings) for name in names], couplings)
    return structure_of(network, frozenset())


SYMMETRIC = nd.Stage(nn.Linear(3, 3), "W")
TANH = nd.Stage(nn.Tanh(), "f")


@pytest.mark.parametrize(
    ("couplings", "linear", "acyclic", "gradient_flow"),
    [
        ([nd.Coupling("a", "b")], True, True, False),
        ([nd.Coupling("a", "b"), nd.Coupling("b", "a")], True, False, True),
        ([nd.Coupling("a", "b"), nd.Coupling("b", "a", gain=-1.0)], True, False, False),
        ([nd.Coupling("a", "b"), nd.Coupling("a", "b"), nd.Coupling("b", "a")], True, False, False),
        ([nd.Coupling("a", "b"), nd.Coupling("a", "b"), nd.Coupling("b", "a", gain=2.0)], True, False, True),
        ([nd.Coupling("a", "a", gain=-2.0)], True, False, True),
        ([nd.Coupling("a", "a", nd.Forward(SYMMETRIC))], True, False, False),
        ([nd.Coupling("a", "b", nd.Forward(TANH))], False, True, False),
        (
            [nd.Coupling("a", "b", nd.Forward(TANH)), nd.Coupling("b", "a", nd.Feedback(TANH, "live"))],
            False,
            False,
            True,
        ),
        ([nd.Coupling("a", "b", nd.Feedback(TANH, at="b"))], False, False, False),
        ([nd.Coupling("a", "b", nd.Feedback(SYMMETRIC, "live"))], True, True, False),
        (
            [nd.Coupling("a", "b", nd.Forward(SYMMETRIC)), nd.Coupling("b", "a", nd.Feedback(SYMMETRIC, "live"))],
            True,
            False,
            True,
        ),
    ],
)
def test_structures(couplings, linear: bool, acyclic: bool, gradient_flow: bool) -> None:
    found = structure(*couplings)
    assert (found.linear, found.acyclic, found.gradient_flow) == (linear, acyclic, gradient_flow)


@pytest.mark.parametrize(
    ("layer", "smooth"),
    [
        (nn.Tanh(), True),
        (nn.GELU(), True),
        (nn.ReLU(), False),
        (nn.Sequential(nn.Tanh(), nn.Sequential(nn.Hardtanh())), False),
        (nn.MaxPool1d(1), False),
    ],
)
def test_kinks_of_what_is_not_linear_are_known(layer: nn.Module, smooth: bool) -> None:
    stage = nd.Stage(layer, "f")
    assert structure(nd.Coupling("a", "b", nd.Forward(stage))).smooth == smooth
    assert structure(nd.Coupling("a", "b", nd.Feedback(stage, at="b"))).smooth == smooth


def test_frozen_feedback_is_linear_and_has_no_kinks() -> None:
    module = nd.mlp([4, 3, 2], activation="relu")
    assert structure_of(ar.network(module), frozenset({"s", "x2"})).smooth


def test_prediction_errors_make_a_gradient_flow() -> None:
    """F = ½‖e‖² with e = y − f(x), and dx/dt = −∂F/∂x, dy/dt = −∂F/∂y."""
    network = nd.Network(
        "error",
        [nd.Population("x", 3, leak=0.0), nd.Population("y", 3, leak=0.0), nd.Population("e", 3, tau=0.0)],
        [
            nd.Coupling("y", "e"),
            nd.Coupling("x", "e", nd.Forward(TANH), gain=-1.0),
            nd.Coupling("e", "y", gain=-1.0),
            nd.Coupling("e", "x", nd.Feedback(TANH, "live")),
        ],
    )
    assert structure_of(network, frozenset()).gradient_flow
    assert structure_of(network, frozenset({"x"})).gradient_flow


def test_what_is_clamped_does_not_count() -> None:
    cycle = nd.Network(
        "cycle",
        [nd.Population("a", 3, clamp=nd.Target(optional=True)), nd.Population("b", 3)],
        [nd.Coupling("a", "b", nd.Forward(TANH)), nd.Coupling("b", "a")],
    )
    free, held = nd.System(cycle), nd.System(cycle, targets=tensor(2, 3))
    assert not free.structure.acyclic
    assert not free.structure.linear
    assert held.structure.acyclic
    assert held.structure.linear
    assert held.structure.order == ("b",)
    assert (free.samples, held.samples) == (1, 2)


def test_the_spectral_bound_is_the_fastest_leak() -> None:
    network = nd.Network(
        "n", [nd.Population("a", 1, tau=2.0), nd.Population("b", 1, tau=0.1, leak=0.5)], [nd.Coupling("a", "b")]
    )
    assert structure_of(network, frozenset()).spectral_bound == pytest.approx(5.0)
    assert structure_of(stiff_pair().network, frozenset()).spectral_bound is None


def test_activation_relaxation_is_linear_and_acyclic() -> None:
    example = mlp()
    network = ar.network(example.module, output="relaxing")
    found = nd.System(network, example.inputs, example.targets).structure
    assert (found.linear, found.acyclic, found.spectral_bound) == (True, True, 1.0)
    assert found.order == ("x3", "x2", "x1")


def test_states_are_independent_and_blocks_are_views() -> None:
    problem = stiff_pair()
    system = nd.System(problem.network, initial=problem.initial)
    first, second = system.initial_state(), system.initial_state()
    first.activity["slow"].zero_()
    assert not first.flat[:4].any()
    assert torch.equal(second.flat, torch.tensor(problem.flat_start))
    problem.initial["slow"].zero_()
    assert torch.equal(system.initial_state().flat, second.flat)


def test_a_size_may_come_from_the_data() -> None:
    network = nd.Network("n", [nd.Population("s", clamp=nd.Input()), nd.Population("x")], [nd.Coupling("s", "x")])
    for shape in ((4,), (2, 3, 3), (2, 5)):
        system = nd.System(network, tensor(2, *shape))
        assert system.shapes == {"s": shape, "x": shape}


def test_a_start_is_given_for_the_batch_or_for_a_sample() -> None:
    network = nd.Network("n", [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", (2, 3), initial=0.25)])
    inputs, batch, sample = tensor(4, 2), tensor(4, 2, 3), tensor(2, 3)
    assert torch.equal(nd.System(network, inputs, initial={"x": batch}).initial_state().activity["x"], batch)
    state = nd.System(network, inputs, initial={"x": sample}).initial_state()
    assert torch.equal(state.activity["x"], sample.expand(4, 2, 3))
    assert (nd.System(network, inputs).initial_state().activity["x"] == 0.25).all()


def test_several_inputs_by_name() -> None:
    network = nd.Network(
        "n",
        [nd.Population("p", 2, clamp=nd.Input()), nd.Population("q", 2, clamp=nd.Input()), nd.Population("x", 2)],
        [nd.Coupling("p", "x"), nd.Coupling("q", "x", gain=-1.0)],
    )
    p, q = tensor(3, 2, seed=1), tensor(3, 2, seed=2)
    system = nd.System(network, {"q": q, "p": p})
    torch.testing.assert_close(slope(system, torch.zeros(6, dtype=torch.float64)), (p - q).flatten())
    with pytest.raises(ValueError, match=r"network 'n' has 2 populations clamped to inputs \(p, q\); give a mapping"):
        nd.System(network, p)
    with pytest.raises(ValueError, match="population q is clamped to inputs, and none are given"):
        nd.System(network, {"p": p})
    with pytest.raises(ValueError, match="inputs name r; the populations clamped to inputs are p, q"):
        nd.System(network, {"p": p, "q": q, "r": q})
    with pytest.raises(ValueError, match="inputs of population q has 2 samples, and inputs of population p has 3"):
        nd.System(network, {"p": p, "q": q[:2]})


def test_gradients_are_not_tracked() -> None:
    example = mlp()
    network = ar.network(example.module)
    system = nd.System(network, example.inputs.requires_grad_(), example.targets.requires_grad_())
    state, out = system.initial_state(), system.new_state()
    system.field(state, out)
    assert not any(t.requires_grad for t in (state.flat, out.flat, *state.activity.values()))


def test_the_data_are_left_as_they_were() -> None:
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).double()
    inputs, targets = tensor(3, 4), tensor(3, 2)
    kept = inputs.clone(), targets.clone()
    system = nd.System(ar.network(module), inputs, targets)
    slope(system, system.initial_state().flat)
    assert torch.equal(inputs, kept[0])
    assert torch.equal(targets, kept[1])


def relaxation(**data) -> nd.System:
    """Bind the AR network of a 12-9-7-5 MLP to six samples, but for what `data` replaces."""
    example = mlp()
    given = {"inputs": example.inputs, "targets": example.targets, **data}
    return nd.System(ar.network(example.module), **given)


def with_value(value: float, *shape: int) -> Tensor:
    result = tensor(*shape)
    result[-1, -1] = value
    return result


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (
            {"inputs": tensor(6, 11)},
            ValueError,
            r"population s: input has the shape \(6, 11\).*population \(6, 12\)|"
            r"stage 1 \(Linear\(12 → 9\), Tanh\) does not take an input of 11 a sample",
        ),
        ({"inputs": tensor(12)}, ValueError, r"inputs of population s must have the shape \(sample, units…\).*\(12,\)"),
        ({"inputs": torch.zeros(0, 12, dtype=torch.float64)}, ValueError, "inputs of population s .*at least one"),
        ({"inputs": None}, ValueError, "population s is clamped to inputs, and none are given"),
        ({"targets": tensor(5, 5)}, ValueError, "targets has 5 samples, and inputs of population s has 6"),
        ({"targets": tensor(6, 4)}, ValueError, r"targets have the shape \(6, 4\).*output has \(6, 5\)"),
        ({"targets": None}, ValueError, "population x3 is held at ∂ℒ/∂x̄ at the output, which needs targets; none"),
        (
            {"inputs": tensor(6, 12).float()},
            TypeError,
            r"inputs of population s is torch.float32 and a weight of stage "
            r"1 torch.float64; bring both to one dtype",
        ),
        ({"targets": tensor(6, 5).float()}, TypeError, "targets is torch.float32 and a weight of stage 1"),
        (
            {"inputs": torch.ones(6, 12, dtype=torch.int64)},
            TypeError,
            r"inputs of population s must be floating-point, not torch.int64; convert with \.to\(torch.float64\)",
        ),
        ({"targets": torch.ones(6, dtype=torch.int64)}, TypeError, r"make labels one-hot, by .*\.to\(torch.float64\)"),
        ({"inputs": tensor(12)}, ValueError, r"not \(12,\); one sample alone is tensor\[None\], and one unit a sample"),
        ({"inputs": np.ones((6, 12))}, TypeError, r"a torch tensor, not ndarray; torch\.as_tensor\(…, dtype=torch"),
        ({"inputs": [[1.0] * 12] * 6}, TypeError, r"a torch tensor, not list; torch\.as_tensor\(…, dtype=torch"),
        ({"targets": np.ones((6, 5))}, TypeError, "targets must be a torch tensor, not ndarray"),
        ({"targets": [[1.0] * 5] * 6}, TypeError, "targets must be a torch tensor, not list"),
        ({"inputs": torch.ones(6, 12, dtype=torch.float64, device="meta")}, TypeError, "inputs .* a tensor with data"),
        ({"targets": torch.ones(6, 5, dtype=torch.float64, device="meta")}, TypeError, "targets .* a tensor with data"),
        ({"inputs": with_value(np.nan, 6, 12)}, ValueError, "inputs of population s has 1 values that are NaN or inf"),
        ({"inputs": with_value(-np.inf, 6, 12)}, ValueError, "inputs of population s has 1 values that are NaN"),
        ({"targets": with_value(np.inf, 6, 5)}, ValueError, "targets has 1 values that are NaN or infinite"),
        ({"initial": {"x9": tensor(6, 9)}}, ValueError, "there is no population 'x9'"),
        ({"initial": {"x1": tensor(6, 8)}}, ValueError, r"population x1: initial value has the shape \(6, 8\)"),
        ({"initial": {"x1": tensor(5, 9)}}, ValueError, "initial value of population x1 has 5 samples"),
        ({"initial": {"x1": with_value(np.nan, 6, 9)}}, ValueError, "initial value of population x1 has 1 values"),
        ({"initial": {"x1": tensor(6, 9).float()}}, TypeError, "initial value of population x1 is torch.float32"),
        ({"initial": {"x1": np.ones((6, 9))}}, TypeError, "initial value of population x1 must be a torch tensor"),
        ({"initial": {"s": tensor(6, 12)}}, ValueError, "initial value of population s: it is clamped to input"),
        ({"initial": {"x3": tensor(6, 5)}}, ValueError, "initial value of population x3: it is clamped to ∂ℒ/∂x̄"),
    ],
)
def test_data_that_do_not_fit_are_named(data, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        relaxation(**data)


def test_a_module_is_no_network() -> None:
    example = mlp()
    with pytest.raises(TypeError, match="network must be a Network, not Sequential"):
        nd.System(example.module, example.inputs)  # type: ignore[arg-type]


def test_a_start_is_given_by_name() -> None:
    with pytest.raises(
        TypeError, match=r"initial must be a mapping {population: tensor}, or one moment .*, not Tensor"
    ):
        relaxation(initial=tensor(6, 9))


def test_complex_numbers_are_refused() -> None:
    coupling = nd.Coupling("x", "x", nd.Forward(nn.Linear(2, 2, dtype=torch.complex64)))
    with pytest.raises(TypeError, match=r"stage Linear .* makes torch.complex64, and activity is real"):
        nd.Network("n", [nd.Population("x", 2)], [coupling])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    example = mlp()
    network = ar.network(example.module)
    with torch.no_grad():
        list(example.module.parameters())[2][0, 0] = value
    with pytest.raises(ValueError, match=r"a weight of stage 2 has 1 values that are NaN or infinite"):
        nd.System(network, example.inputs, example.targets)


def test_weights_of_two_dtypes_are_named() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2).double())
    with pytest.raises(TypeError, match=r"a weight of stage 2 is torch.float64 and a weight of stage 1 torch.float32"):
        nd.System(ar.network(module), torch.ones(2, 4), torch.ones(2, 2))


def test_a_forward_pass_that_overflows_is_named() -> None:
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, 1e30)
    with pytest.raises(ValueError, match="output of the forward pass has 2 values that are NaN or infinite"):
        nd.System(ar.network(module), torch.full((1, 2), 1e30), torch.ones(1, 2))


def test_a_large_sum_is_no_error() -> None:
    """The sum by which one looks for what is not finite overflows, and nothing else does."""
    network = nd.Network("n", [nd.Population("s", 4, clamp=nd.Input())])
    nd.System(network, torch.full((1, 4), 3e38))


def test_a_stage_that_fell_back_into_training_mode_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)).double().eval()
    network = ar.network(module)
    nd.System(network, tensor(2, 4), tensor(2, 2))
    module.train()
    with pytest.raises(ValueError, match="stage 1: Dropout in training mode"):
        nd.System(network, tensor(2, 4), tensor(2, 2))


def test_targets_that_nothing_uses_are_refused() -> None:
    problem = hopfield()
    with pytest.raises(ValueError, match="network 'Hopfield' uses no targets; leave them out"):
        nd.System(problem.network, problem.inputs, tensor(2, 6))


def test_inputs_that_nothing_uses_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"network 'stiff pair' has 0 populations clamped to inputs \(none\); give None"
    ):
        nd.System(stiff_pair().network, tensor(2, 2))


def test_an_instantaneous_population_has_no_start() -> None:
    network = nd.Network("n", [nd.Population("e", 2, tau=0.0)])
    with pytest.raises(ValueError, match="initial value of population e: it is instantaneous"):
        nd.System(network, initial={"e": tensor(1, 2)})


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(ValueError, match="population x: its size is unknown; declare it with size="):
        nd.System(nd.Network("n", [nd.Population("x")]))


def test_sizes_that_come_from_the_data_are_checked() -> None:
    network = nd.Network("n", [nd.Population("s", clamp=nd.Input()), nd.Population("x", 3)], [nd.Coupling("s", "x")])
    with pytest.raises(ValueError, match="coupling s → x: s has 4 units, and population x has 3"):
        nd.System(network, tensor(2, 4))
    stage = nd.Stage(nn.Linear(4, 2, dtype=torch.float64), "1")
    network = nd.Network(
        "n",
        [nd.Population("s", clamp=nd.Input()), nd.Population("x", 3)],
        plasticity=[nd.Plasticity(stage, "s", "x", presynaptic="live")],
    )
    with pytest.raises(ValueError, match=r"plasticity of stage 1: g1\(s\) has 2 units, and population x has 3"):
        nd.System(network, tensor(2, 4))


def test_an_inverse_that_does_not_exist_is_named_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="stage 2 has no inverse: ReLU is not invertible"):
        nd.Inverse(nd.Stage([nn.Linear(3, 3), nn.ReLU()], "2"))


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        (lambda: torch.autocast("cpu"), "torch.autocast is on around this call"),
        (torch.inference_mode, "torch.inference_mode is on around this call"),
    ],
)
def test_modes_of_torch_under_which_all_would_be_something_else(mode, match: str) -> None:
    example = mlp()
    network, data = ar.network(example.module), (example.inputs, example.targets)
    with mode():
        for call in (
            lambda: nd.backward(network, *data),
            lambda: nd.simulate(network, *data, duration=1.0),
            lambda: nd.equilibrium(network, *data),
            lambda: nd.train.fit(network, data, epochs=1, progress=False),
        ):
            with pytest.raises(nd.NeurodynError, match=match):
                call()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        nd.backward(network, *data)


@pytest.mark.parametrize(
    ("own", "gain", "message"),
    [
        ({"tau": 1e-300}, 1.0, "population a: its rate 1/τ, 1e\\+300, is beyond the range of torch.float32"),
        ({"leak": 1e300}, 1.0, "population a: its leak"),
        ({"initial": -1e300}, 1.0, "population a: its initial value, -1e\\+300"),
        ({"noise": 1e39}, 1.0, "population a: its noise"),
        ({}, 1e300, "coupling s → a: its gain"),
    ],
)
def test_numbers_that_the_dtype_cannot_hold_are_refused(own, gain, message) -> None:
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3, **own)]
    network = nd.Network("far", populations, [nd.Coupling("s", "a", gain=gain)])
    with pytest.raises(ValueError, match=message):
        nd.System(network, torch.ones(2, 3))
    nd.System(network, torch.ones(2, 3, dtype=torch.float64))

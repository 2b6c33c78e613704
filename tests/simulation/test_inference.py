"""Discrete inference: causal cones never change what is learned, whatever the network declares."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.network.timing import When
from neurodyn.simulation.inference import run_inference
from neurodyn.system.state import State
from tests.problems import mlp, tensor

UNITS, SAMPLES = 2, 2
SIGNS = st.sampled_from([-1.0, 1.0])
GAINS = st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
INTEGERS = st.lists(st.integers(-1, 1), min_size=SAMPLES * UNITS, max_size=SAMPLES * UNITS).map(
    lambda values: torch.tensor(values, dtype=torch.float64).view(SAMPLES, UNITS)
)


@st.composite
def stages(draw, name: str) -> nd.Stage:
    """Draw a stage with small whole weights, so that all arithmetic is exact."""
    linear = nn.Linear(UNITS, UNITS, bias=draw(st.booleans()), dtype=torch.float64)
    with torch.no_grad():
        for parameter in linear.parameters():
            values = draw(st.lists(st.integers(-1, 1), min_size=parameter.numel(), max_size=parameter.numel()))
            parameter.copy_(torch.tensor(values).view(parameter.shape))
    return nd.Stage([nn.ReLU(), linear] if draw(st.booleans()) else [linear], name)


@st.composite
def networks(draw) -> nd.Network:
    """Draw values and errors that may be in balance, with couplings left out or added, and any plasticity."""
    forward = [draw(stages(str(number))) for number in range(1, draw(st.integers(1, 3)) + 1)]
    has_forward = draw(st.booleans())
    populations = [nd.Population("s", UNITS, clamp=nd.Input())]
    couplings = []
    below = "s"
    for number, stage in enumerate(forward, start=1):
        x, e = f"x{number}", f"e{number}"
        top = number == len(forward)
        populations.append(
            nd.Population(
                x,
                UNITS,
                tau=draw(st.sampled_from([0.5, 1.0])),
                leak=draw(st.sampled_from([0.0, 0.0, 1.0])),
                initial=nd.ForwardValue(stage)
                if has_forward and draw(st.booleans())
                else draw(st.sampled_from([0, 1])),
                clamp=nd.Target(optional=True) if top and draw(st.booleans()) else None,
            )
        )
        populations.append(
            nd.Population(e, UNITS, tau=draw(st.sampled_from([0.0, 0.0, 2.0])), leak=draw(st.sampled_from([1.0, 2.0])))
        )
        gain = draw(GAINS)
        couplings += [nd.Coupling(x, e, gain=gain), nd.Coupling(below, e, nd.Forward(stage), gain=-gain)]
        couplings.append(nd.Coupling(e, x, gain=draw(GAINS)))
        if number > 1:
            couplings.append(nd.Coupling(e, below, nd.Feedback(stage, at=below), gain=draw(GAINS)))
        below = x
    populations.append(nd.Population("z", UNITS, tau=draw(st.sampled_from([0.0, 1.0]))))
    kept = [coupling for coupling in couplings if draw(st.sampled_from([True, True, True, False]))]
    names = [population.name for population in populations]
    dynamic = [p.name for p in populations if p.tau > 0 and p.clamp is None]
    extra = st.builds(
        nd.Coupling,
        st.sampled_from(names),
        st.sampled_from(dynamic) if dynamic else st.nothing(),
        st.one_of(st.builds(nd.Identity), st.builds(nd.Forward, st.sampled_from(forward))),
        GAINS,
    )
    into_z = st.builds(nd.Coupling, st.sampled_from(names[:-1]), st.just("z"), st.builds(nd.Identity), GAINS)
    added = draw(st.lists(extra, max_size=4)) if dynamic else []
    added += draw(st.lists(into_z, max_size=2))
    inference = nd.Inference(draw(st.sampled_from([0.5, 1.0])), draw(st.integers(0, 5)))
    rule = st.builds(
        nd.Plasticity,
        st.sampled_from(forward),
        st.sampled_from(names),
        st.sampled_from(names),
        st.one_of(
            st.just("end"),
            st.builds(nd.AtStep, st.integers(0, inference.steps)),
            st.builds(
                nd.OnSpike, st.integers(1, 3), st.sampled_from([None, *[p.name for p in populations if p.tau > 0]])
            ),
        ),
        presynaptic=st.sampled_from(["live", "frozen"] if has_forward else ["live"]),
    )
    plasticity = draw(st.lists(rule, min_size=1, max_size=4))
    return nd.Network(
        "drawn", populations, kept + added, plasticity, forward=forward if has_forward else [], inference=inference
    )


class Learned:
    """What plasticity acts on: the sums of post, and of post · g(pre)ᵀ where pre is live, a rule."""

    def __init__(self, network: nd.Network, value: Callable[[nd.Plasticity, State], Tensor]) -> None:
        self.posts = {id(rule): torch.zeros(SAMPLES, UNITS, dtype=torch.float64) for rule in network.plasticity}
        self.products = {id(rule): torch.zeros(UNITS, UNITS, dtype=torch.float64) for rule in network.plasticity}
        self._value = value

    def act(self, rule: nd.Plasticity, state: State, post: Tensor) -> None:
        self.posts[id(rule)] += post
        if rule.presynaptic == "live":
            self.products[id(rule)] += post.T @ self._value(rule, state)


def learn_from_everything(system: nd.System, inference: nd.Inference) -> Learned:
    """Evaluate every population at every step, and gate each unit by the definition of φ."""
    learned = Learned(system.network, lambda rule, state: rule.stage.forward(state.activity[rule.pre]))
    state, slope = system.initial_state(), system.new_state()
    past: list[dict[str, Tensor]] = []
    for now in range(inference.steps + 1):
        system.field(state, slope)
        for rule in system.network.plasticity:
            post, when = state.activity[rule.post], rule.when
            if isinstance(when, nd.OnSpike):
                gate = post != 0
                for earlier in past[-when.window :]:
                    gate &= earlier[rule.post] == 0
                if when.moved_by is not None and past:
                    gate &= post == state.activity[when.moved_by] - past[-1][when.moved_by]
                learned.act(rule, state, post * gate)
            elif now == (when.step if isinstance(when, nd.AtStep) else inference.steps):
                learned.act(rule, state, post)
        past.append({name: activity.clone() for name, activity in state.activity.items()})
        state.flat.add_(slope.flat, alpha=inference.step)
    return learned


@settings(max_examples=100, deadline=None)
@given(networks(), INTEGERS, st.none() | INTEGERS, st.data())
def test_causal_cones_do_not_change_what_is_learned(network, inputs, targets, data) -> None:
    if not (network.forward or any(p.clamp is not None and p.clamp.reads_targets for p in network.populations)):
        targets = None
    clamped = {"s"} | {p.name for p in network.populations if p.clamp is not None and targets is not None}
    starts = [p.name for p in network.populations if p.tau > 0 and p.name not in clamped]
    initial = {name: data.draw(INTEGERS) for name in starts[:1] if data.draw(st.booleans())}
    assert network.inference is not None
    with torch.no_grad():
        expected = learn_from_everything(nd.System(network, inputs, targets, initial=initial), network.inference)
        system = nd.System(network, inputs, targets, initial=initial)
        learned = Learned(network, lambda rule, state: system.points.live(rule.stage, rule.pre, state.activity).value)
        run_inference(system, network.inference, learned.act)
    for rule in network.plasticity:
        assert torch.equal(learned.posts[id(rule)], expected.posts[id(rule)])
        assert torch.equal(learned.products[id(rule)], expected.products[id(rule)])


def linear(units: int = 3, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(units, units, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(tensor(units, units, seed=seed))
        layer.bias.copy_(tensor(units, seed=seed))
    return layer


def test_a_stage_follows_an_instantaneous_population() -> None:
    layer, inputs = linear(), tensor(4, 3)
    network = nd.Network(
        "instantaneous input",
        [nd.Population("s", clamp=nd.Input()), nd.Population("h", 3, tau=0.0), nd.Population("x", 3)],
        [nd.Coupling("s", "h"), nd.Coupling("x", "h", gain=0.5), nd.Coupling("h", "x", nd.Forward(nn.Tanh()))],
        [nd.Plasticity(nd.Stage(layer), "h", "x", presynaptic="live")],
        inference=nd.Inference(0.3, 7),
    )
    nd.backward(network, inputs)
    x = torch.zeros_like(inputs)
    for _ in range(7):
        x = x + 0.3 * (torch.tanh(inputs + 0.5 * x) - x)
    torch.testing.assert_close(layer.weight.grad, x.T @ (inputs + 0.5 * x) / 4)
    torch.testing.assert_close(layer.bias.grad, x.mean(0))


def test_two_inputs_are_not_taken_for_one() -> None:
    layer, a, b = linear(), tensor(4, 3, seed=1), tensor(4, 3, seed=2)
    network = nd.Network(
        "difference",
        [nd.Population("a", clamp=nd.Input()), nd.Population("b", clamp=nd.Input()), nd.Population("e", 3, tau=0.0)],
        [nd.Coupling("a", "e"), nd.Coupling("b", "e", gain=-1.0)],
        [nd.Plasticity(nd.Stage(layer), "a", "e", nd.AtStep(0), presynaptic="live")],
        inference=nd.Inference(1.0, 0),
    )
    assert nd.backward(network, {"a": a, "b": b}) is None
    torch.testing.assert_close(layer.weight.grad, (a - b).T @ a / 4)


def test_a_silent_population_is_zero_for_a_stage_that_reads_it_also_when_all_steps_are_run_again() -> None:
    """Where a unit may spike again, inference runs anew from the start, where e1 is silent but was not at the end."""
    first, second, outside = (nd.Stage(linear(UNITS, seed), str(seed)) for seed in (1, 2, 3))
    network = nd.Network(
        "observed error",
        [
            nd.Population("s", clamp=nd.Input()),
            nd.Population("x1", UNITS, leak=0.0, initial=nd.ForwardValue(first)),
            nd.Population("x2", clamp=nd.Target()),
            nd.Population("e1", UNITS, tau=0.0),
            nd.Population("e2", UNITS, tau=0.0),
            nd.Population("y", UNITS),
        ],
        [
            nd.Coupling("x1", "e1"),
            nd.Coupling("s", "e1", nd.Forward(first), gain=-1.0),
            nd.Coupling("x2", "e2"),
            nd.Coupling("x1", "e2", nd.Forward(second), gain=-1.0),
            nd.Coupling("e1", "x1", gain=-1.0),
            nd.Coupling("e2", "x1", nd.Feedback(second)),
            nd.Coupling("e1", "y", nd.Forward(outside)),
        ],
        [nd.Plasticity(first, "s", post, nd.OnSpike(1)) for post in ("e1", "y")],
        forward=[first, second],
        inference=nd.Inference(0.5, 4),
    )
    inputs, targets = tensor(SAMPLES, UNITS, seed=4), tensor(SAMPLES, UNITS, seed=5)
    assert network.inference is not None
    with torch.no_grad():
        system = nd.System(network, inputs, targets)
        learned = Learned(network, lambda rule, state: torch.zeros(SAMPLES, UNITS))
        run_inference(system, network.inference, learned.act)
        expected = learn_from_everything(nd.System(network, inputs, targets), network.inference)
    for rule in network.plasticity:
        torch.testing.assert_close(learned.posts[id(rule)], expected.posts[id(rule)])


class Shifted(nd.Map):
    """x + 1, of a source that may be 0."""

    linear = True

    def apply(self, source: Tensor) -> Tensor:
        return source + 1.0


def test_a_map_of_ones_own_that_wakes_what_is_silent() -> None:
    layer, inputs = linear(), tensor(4, 3)
    network = nd.Network(
        "shifted",
        [nd.Population("s", clamp=nd.Input()), nd.Population("x", 3, leak=0.0), nd.Population("y", 3, leak=0.0)],
        [nd.Coupling("x", "y", Shifted())],
        [nd.Plasticity(nd.Stage(layer), "s", "y", presynaptic="live")],
        inference=nd.Inference(0.5, 3),
    )
    nd.backward(network, inputs)
    torch.testing.assert_close(layer.weight.grad, torch.full((4, 3), 1.5, dtype=torch.float64).T @ inputs / 4)


def test_inference_that_diverges_names_the_population_and_the_remedy() -> None:
    layer = linear()
    network = nd.Network(
        "unstable",
        [nd.Population("s", clamp=nd.Input()), nd.Population("still", 3), nd.Population("x", 3, initial=1.0)],
        [nd.Coupling("x", "x", gain=-1e100)],
        [nd.Plasticity(nd.Stage(layer), "s", "x", presynaptic="live")],
        inference=nd.Inference(0.5, 6),
    )
    with pytest.raises(
        nd.DivergenceError, match=r"population x became non-finite within 6 steps of inference, each of 0\.5"
    ) as info:
        nd.backward(network, tensor(4, 3))
    assert (info.value.population, info.value.time) == ("x", 3.0)
    assert layer.weight.grad is None


def test_plasticity_cannot_act_after_the_inference() -> None:
    example = mlp()
    stage = nd.cut(example.module)[0]
    populations = [nd.Population("s", clamp=nd.Input()), nd.Population("x", 9)]
    for inference, message in [
        (nd.Inference(1.0, 3), "inference takes 3 steps"),
        (None, "the network has no inference"),
    ]:
        with pytest.raises(ValueError, match=message):
            nd.Network(
                "late",
                populations,
                plasticity=[nd.Plasticity(stage, "s", "x", nd.AtStep(4), presynaptic="live")],
                inference=inference,
            )


def test_rules_at_steps_act_at_theirs_in_any_order() -> None:
    layers = [linear(seed=seed) for seed in range(3)]
    inputs = tensor(4, 3)
    times: list[When] = [nd.AtStep(2), "end", nd.AtStep(0)]
    network = nd.Network(
        "growth",
        [nd.Population("s", clamp=nd.Input()), nd.Population("x", 3, leak=0.0, initial=1.0)],
        [nd.Coupling("x", "x", gain=2.0)],
        [
            nd.Plasticity(nd.Stage(layer), "s", "x", when, presynaptic="live")
            for layer, when in zip(layers, times, strict=True)
        ],
        inference=nd.Inference(0.5, 5),
    )
    nd.backward(network, inputs)
    for layer, steps in zip(layers, [2, 5, 0], strict=True):
        torch.testing.assert_close(layer.weight.grad, 2.0**steps * inputs.mean(0).expand(3, -1))


# Recorded inference


def by_hand(module: nn.Sequential, inputs: Tensor, targets: Tensor, step: float, steps: int) -> list[list[Tensor]]:
    """Return, at every step, x_1 … x_L and e_1 … e_L of predictive coding, in loops over linear and tanh layers."""
    layers = [layer for layer in module if isinstance(layer, nn.Linear)]

    def predict(number: int, x: Tensor) -> Tensor:
        return (torch.tanh(x) if number else x) @ layers[number].weight.T + layers[number].bias

    xs = [inputs]
    for number in range(len(layers)):
        xs.append(predict(number, xs[-1]))
    xs[-1] = targets
    recorded = []
    for _ in range(steps + 1):
        errors = [x - predict(number, below) for number, (below, x) in enumerate(pairwise(xs))]
        recorded.append([*xs[1:], *errors])
        for place in range(1, len(xs) - 1):
            back = (1 - torch.tanh(xs[place]) ** 2) * (errors[place] @ layers[place].weight)
            xs[place] = xs[place] + step * (back - errors[place - 1])
    return recorded


RULES: dict[str, tuple[dict[str, Any], float, int]] = {
    "IL": ({"step": 0.3, "steps": 9}, 0.3, 9),
    "IL by default": ({}, 0.5, 20),
    "Z-IL": ({"learning": "z-il"}, 1.0, 2),
    "Fa-Z-IL": ({"learning": "fa-z-il", "steps": 7, "spike_window": 2}, 1.0, 7),
}


@pytest.mark.parametrize("rule", RULES)
def test_recorded_inference_is_the_loop_by_hand(rule: str) -> None:
    declared, step, steps = RULES[rule]
    example = mlp()
    run = nd.infer(pc.network(example.module, **declared), example.inputs, example.targets)
    with torch.no_grad():
        expected = by_hand(example.module, example.inputs, example.targets, step, steps)
    names = ["x1", "x2", "x3", "e1", "e2", "e3"]
    assert {"s", *names} <= set(run.data_vars)
    assert run.step.values.tolist() == list(range(steps + 1))
    for now, values in enumerate(expected):
        for name, value in zip(names, values, strict=True):
            np.testing.assert_allclose(run[name][now], value, rtol=1e-12, atol=1e-13)
    acts = run.acts.values.T.tolist()
    if rule.startswith("IL"):
        assert acts == [[now == steps for now in range(steps + 1)]] * 3
    elif rule == "Z-IL":
        assert acts == [[now == 3 - number for now in range(steps + 1)] for number in (1, 2, 3)]
    else:
        for number, own in zip((1, 2, 3), acts, strict=True):
            activity = run[f"e{number}"].values
            quiet = np.concatenate([np.ones((2, *activity.shape[1:]), dtype=bool), activity == 0])
            spikes = (activity != 0) & quiet[:-2] & quiet[1:-1]
            np.testing.assert_array_equal(run[f"e{number}_spikes"], spikes)
            assert own == spikes.any((1, 2)).tolist()


@settings(max_examples=25, deadline=None)
@given(networks(), INTEGERS)
def test_what_is_recorded_is_what_learning_used(network: nd.Network, inputs: Tensor) -> None:
    needs = any(p.clamp is not None and p.clamp.reads_targets for p in network.populations)
    targets = inputs if needs else None
    assert network.inference is not None
    places = {id(rule): place for place, rule in enumerate(network.plasticity)}
    learned: list[tuple[int, Tensor]] = []

    def act(rule: nd.Plasticity, state: State, post: Tensor) -> None:
        learned.append((places[id(rule)], post.clone()))

    with torch.no_grad():
        run_inference(nd.System(network, inputs, targets), network.inference, act)
    run = nd.infer(network, inputs, targets)
    found = []
    for place, rule in enumerate(network.plasticity):
        gate = torch.ones(1, dtype=torch.bool)
        for step in np.flatnonzero(run.acts.values[:, place]):
            if isinstance(rule.when, nd.OnSpike):
                names = [n for n in run.data_vars if str(n).startswith(f"{rule.post}_spikes")]
                mover = f"_{rule.when.moved_by}" if rule.when.moved_by else ""
                name = names[0] if len(names) == 1 else f"{rule.post}_spikes{rule.when.window}{mover}"
                gate = torch.tensor(run[name].values[step])
            post = torch.tensor(run[rule.post].values[step])
            found.append((place, post * gate))
    assert len(found) == len(learned)
    for (place, post), (own, used) in zip(found, sorted(learned, key=lambda each: each[0]), strict=True):
        assert own == place
        assert torch.equal(used, post)


def test_a_record_of_inference_says_what_ran(tmp_path) -> None:
    example = mlp()
    network = pc.network(example.module, step=0.25, steps=3)
    run = nd.infer(network, example.inputs, example.targets, record=["energy", "e2"])
    assert list(run.data_vars) == ["energy", "e2", "acts"]
    assert run.attrs["inference"] == "Inference(step=0.25, steps=3)"
    assert (run.e2.attrs["solver"], run.e2.attrs["step"]) == ("Euler(step=0.25)", 0.25)
    assert "Δθ2" in run.attrs["plasticity"].splitlines()[1]
    whole = nd.infer(network, example.inputs, example.targets)
    energy = sum(0.5 * (whole[f"e{number}"] ** 2).sum(f"e{number}_unit") for number in (1, 2, 3))
    np.testing.assert_allclose(run.energy, energy, rtol=1e-12)
    for suffix in (".nc", ".zarr"):
        xr.testing.assert_identical(nd.load(nd.save(run, tmp_path / f"run{suffix}")).compute(), run)


def test_inference_that_diverges_or_is_not_declared_is_refused() -> None:
    example = mlp()
    with pytest.raises(nd.DivergenceError, match=r"became non-finite within 400 steps of inference"):
        nd.infer(pc.network(example.module, steps=400, step=10.0), example.inputs, example.targets)
    with pytest.raises(ValueError, match=r"declares no inference=.*nd\.equilibrium"):
        nd.infer(pc.network(example.module, steps="equilibrium"), example.inputs, example.targets)
    with pytest.raises(TypeError, match="network must be a Network, not Sequential"):
        nd.infer(example.module, example.inputs, example.targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("declared", [{"step": 0.1}, {"steps": 20}, {"learning": "z-il", "step": 1.0}], ids=str)
def test_inference_that_was_asked_for_is_not_set_aside(declared) -> None:
    example = mlp()
    data = example.inputs, example.targets
    network = pc.network(example.module, **declared)
    inference = network.inference
    assert inference is not None
    for asked in (network, [network]):
        with pytest.raises(ValueError, match=rf"nd\.infer.*solver=nd\.Euler\({inference.step:g}\)"):
            nd.simulate(asked, *data, duration=1.0)
    run = nd.simulate(network, *data, duration=2 * inference.step, solver=nd.Euler(inference.step))
    np.testing.assert_allclose(run.x1, nd.infer(network, *data).x1[:3], rtol=1e-12)
    assert run.attrs["inference_not_run"] == str(inference)
    if "learning" not in declared:
        with pytest.raises(ValueError, match="a relaxation for a duration without solver= would set aside"):
            nd.backward(network, *data, duration=1.0)


def test_inference_by_default_lets_a_simulation_run_and_is_named() -> None:
    example = mlp()
    run = nd.simulate(pc.network(example.module), example.inputs, example.targets, duration=1.0, save_at=2)
    assert run.attrs["inference_not_run"] == "Inference(step=0.5, steps=20)"
    found = nd.equilibrium(pc.network(example.module), example.inputs, example.targets)
    assert found.attrs["inference_not_run"] == "Inference(step=0.5, steps=20)"
    several = nd.simulate([pc.network(mlp().module)] * 1, example.inputs, example.targets, duration=1.0, save_at=2)
    assert several.attrs["inference_not_run"] == "Inference(step=0.5, steps=20)"

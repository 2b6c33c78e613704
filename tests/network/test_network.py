"""The declaration: what it refuses, and how it reads as text."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.problems import hopfield, wilson_cowan


def populations(**settings) -> list[nd.Population]:
    return [nd.Population("a", 3, **settings), nd.Population("b", 3, **settings)]


def two(*couplings: nd.Coupling, **settings) -> nd.Network:
    return nd.Network("two", populations(**settings), couplings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a b"}, "population 'a b': a name consists of letters, digits and underscores"),
        ({"name": "1a"}, "population '1a': a name"),
        ({"name": ""}, "population '': a name"),
        ({"name": 3}, "population 3: a name"),
        ({"name": "time"}, "population 'time': a trajectory has a dimension or a variable of that name"),
        ({"name": "sample"}, "population 'sample': a trajectory has"),
        ({"size": [3, 2]}, r"population a: its size is a positive number of units, or a tuple of them, not \[3, 2\]"),
        ({"size": 0}, "population a: its size is a positive number of units, .* not 0"),
        ({"size": -3}, "population a: its size"),
        ({"size": 2.5}, "population a: its size"),
        ({"size": ()}, "population a: its size"),
        ({"size": (3, 0, 2)}, r"population a: its size .* not \(3, 0, 2\)"),
        ({"tau": -1.0}, r"population a: tau must be ≥ 0, not -1"),
        ({"tau": math.nan}, "population a: tau"),
        ({"tau": math.inf}, "population a: tau"),
        ({"leak": -0.5}, "population a: leak must be ≥ 0, not -0.5"),
        ({"leak": math.inf}, "population a: leak"),
        ({"tau": 0.0, "leak": 0.0}, "population a: an instantaneous population needs a leak > 0"),
        ({"initial": math.nan}, "population a: initial must be finite, not nan"),
    ],
)
def test_a_population_that_makes_no_sense_is_refused(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Population(**{"name": "a", "size": 3, **settings})


def test_numbers_of_numpy_are_numbers() -> None:
    population = nd.Population("a", np.int64(3), tau=np.float32(0.5))  # type: ignore[arg-type]
    assert (population.shape, population.role) == ((3,), "dynamic")


@pytest.mark.parametrize("what", ["tau", "leak", "initial"])
def test_a_setting_of_a_population_is_a_number(what: str) -> None:
    with pytest.raises(TypeError, match=f"population a: {what} must be a number, not str"):
        nd.Population("a", 3, **{what: "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize("gain", ["2", None, torch.tensor(2.0)], ids=str)
def test_a_gain_is_a_number(gain) -> None:
    with pytest.raises(TypeError, match="coupling a → b: its gain must be a number, not"):
        nd.Coupling("a", "b", gain=gain)


@pytest.mark.parametrize(
    ("declare", "part", "message"),
    [
        (lambda part: nd.Population("a", 3, clamp=part), torch.ones(3), "population a: clamp must be a drive such as"),
        (nd.ForwardValue, nn.Tanh(), "a forward value is that of a neurodyn Stage, not of a Tanh"),
        (lambda part: nd.Plasticity(part, "a", "b"), nn.Linear(2, 2), "plasticity: its stage is a neurodyn Stage, not"),
        (lambda part: nd.Network("n", [part]), "a", "network 'n': 'a' is no Population"),
        (
            lambda part: nd.Network("n", part),
            nd.Population("a"),
            "network 'n': what it has of Population must be a list",
        ),
        (lambda part: nd.Network(part, [nd.Population("a")]), 3, "network 3: its name is text, not int"),
        (lambda part: nd.Network("n", populations(), inference=part), 3, "network 'n': inference is Inference"),
        (
            lambda part: nd.Coupling(part, "a"),
            nd.Population("b"),
            "source and target are names of populations",
        ),
        (lambda part: nd.Plasticity(nd.Stage(nn.Linear(2, 2)), "a", part), 1, "pre and post are names of populations"),
        (lambda part: nd.Network("n", populations(), [part]), "a → b", "network 'n': 'a → b' is no Coupling"),
        (lambda part: nd.Network("n", populations(), plasticity=[part]), "a", "network 'n': 'a' is no Plasticity"),
        (lambda part: nd.Network("n", populations(), forward=[part]), nn.Tanh(), r"network 'n': Tanh\(\) is no Stage"),
    ],
)
def test_parts_of_another_kind_are_refused(declare, part, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        declare(part)


@pytest.mark.parametrize("gain", [0.0, math.nan, math.inf])
def test_a_gain_is_finite_and_not_zero(gain: float) -> None:
    with pytest.raises(ValueError, match=rf"coupling a → b: its gain must be finite.*, not {gain}"):
        nd.Coupling("a", "b", gain=gain)


def test_a_map_is_a_map() -> None:
    with pytest.raises(TypeError, match=r"its map is a neurodyn Map .*, not Tanh; write nd\.Forward\(nn\.Tanh\(\)\)"):
        nd.Coupling("a", "b", nn.Tanh())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not Stage; write nd\.Forward\(stage\)"):
        nd.Coupling("a", "b", nd.Stage(nn.Tanh()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"that is the class: write Identity"):
        nd.Coupling("a", "b", nd.Identity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["time", "step", "sample", "network", "rule", "acts", "a_unit", "a_axis0", "a_spikes", "a_spikes4", "a b", ""],
)
def test_names_that_a_trajectory_takes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another|letters, digits"):
        nd.Network("n", [nd.Population(name, 1), nd.Population("a", 1)])
    with pytest.raises(ValueError, match=r"choose another|letters, digits"):
        nd.Network("n", [nd.Population("a", 1)], observables=[nd.Observable(name, lambda activity: activity["a"], "")])


def test_observables_have_names_of_their_own() -> None:
    one, other = (nd.Observable("energy", lambda activity: activity["a"][:, 0], long_name) for long_name in "xy")
    with pytest.raises(ValueError, match="two observables are called 'energy'; names must differ"):
        nd.Network("n", [nd.Population("a", 1)], observables=[one, other])
    with pytest.raises(TypeError, match="'energy' is no Observable"):
        nd.Network("n", [nd.Population("a", 1)], observables=["energy"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="observable e: its value is a function"):
        nd.Observable("e", 1.0, "")  # type: ignore[arg-type]


def test_a_cycle_names_the_couplings_that_close_it() -> None:
    instantaneous = [nd.Population(name, 2, tau=0.0) for name in "ab"]
    couplings = [nd.Coupling("a", "b"), nd.Coupling("b", "a", nd.Forward(nd.Stage(nn.Tanh(), "1")), gain=-2.0)]
    with pytest.raises(ValueError, match=r"form a cycle.*couplings.* b → a \(-2 · g1\(b\)\)"):
        nd.Network("n", instantaneous, couplings)
    live = nd.Feedback(nd.Stage(nn.Tanh(), "1"), at="a")  # which reads its target, too
    with pytest.raises(ValueError, match=r"a → a form a cycle.*couplings e → a \(\+1 · J1\(a\)ᵀ e\)"):
        nd.Network("n", [nd.Population("e", 2), instantaneous[0]], [nd.Coupling("e", "a", live)])


@pytest.mark.parametrize("loss", ["mse", nn.MSELoss, None, 1.0])
def test_a_loss_is_a_function(loss) -> None:
    with pytest.raises(TypeError, match="network 'n': loss is a function of the outputs and the targets"):
        nd.Network("n", [nd.Population("a")], loss=loss)
    with pytest.raises(TypeError, match="loss is a function of the outputs and the targets"):
        ar.network(nd.mlp([2, 2]), loss=loss)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: nd.Network("n", []), "network 'n' has no populations"),
        (lambda: nd.Network("n", [nd.Population("a"), nd.Population("a")]), "two populations are called 'a'"),
        (
            lambda: nd.Network("n", [nd.Population("a"), nd.Population("a_unit")]),
            "population a_unit is called like a dimension of population a",
        ),
        (lambda: two(nd.Coupling("a", "c")), "coupling a → c: there is no population 'c'; there are a, b"),
        (lambda: two(nd.Coupling("c", "a")), "coupling c → a: there is no population 'c'"),
        (
            lambda: nd.Network("n", [nd.Population("a", 3), nd.Population("b", 4)], [nd.Coupling("a", "b")]),
            "coupling a → b: a has 3 units, and population b has 4",
        ),
        (
            lambda: nd.Network("n", [nd.Population("a", (2, 3)), nd.Population("b", 6)], [nd.Coupling("a", "b")]),
            "coupling a → b: a has 2 × 3 units, and population b has 6",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Forward(nn.Linear(3, 4)))),
            r"coupling a → b: Linear\(a\) has 4 units, and population b has 3",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Forward(nn.Linear(4, 3)))),
            r"coupling a → b: stage Linear \(Linear\(4 → 3\)\) does not take an input of 3 a sample",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Feedback(nn.Linear(3, 4), "live"))),
            "coupling a → b: its feedback takes 4 units, and the source has 3",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Inverse(nn.Linear(4, 4)))),
            r"coupling a → b: stage Linear \(Linear\(4 → 4\)\) does not take an input of 3 a sample",
        ),
        (
            lambda: two(nd.Coupling("a", "b"), clamp=nd.Input()),
            "coupling a → b: population b is clamped to input, so nothing may enter it; remove the coupling or the",
        ),
        (
            lambda: two(nd.Coupling("a", "b"), nd.Coupling("b", "a"), tau=0.0),
            "network 'two': the instantaneous populations a → b → a form a cycle.*time constant",
        ),
        (
            lambda: two(nd.Coupling("a", "a"), tau=0.0),
            "the instantaneous populations a → a form a cycle",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Feedback(nn.Tanh()))),
            r"coupling a → b: stage Tanh \(Tanh\) is used at the forward pass.*add it to forward=",
        ),
        (
            lambda: two(initial=nd.ForwardValue(nd.Stage(nn.Tanh(), "1"))),
            r"population a: stage 1 \(Tanh\) is used at the forward pass",
        ),
        (lambda: two(clamp=nd.LossGradient()), "population a: a loss gradient needs a forward pass; give forward="),
        (
            lambda: nd.Network("n", populations(), forward=[nd.Stage(nn.Linear(3, 3), "1")]),
            r"network 'n': a forward pass starts from one population clamped to Input\(\), and there are 0",
        ),
    ],
)
def test_a_network_that_does_not_hold_together_is_refused(declare, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declare()


def test_a_forward_value_has_the_size_of_its_population() -> None:
    stage = nd.Stage(nn.Linear(3, 4), "1")
    with pytest.raises(ValueError, match=r"population b: it has 3 units, and stage 1 \(Linear\(3 → 4\)\) gives 4"):
        nd.Network(
            "n",
            [nd.Population("a", 3, clamp=nd.Input()), nd.Population("b", 3, initial=nd.ForwardValue(stage))],
            forward=[stage],
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"post": "c"}, "plasticity of stage 1: there is no population 'c'; there are a, b"),
        ({"pre": "c"}, "plasticity of stage 1: there is no population 'c'"),
        ({"presynaptic": "frozen"}, "plasticity of stage 1: stage 1 .* is used at the forward pass"),
        ({"presynaptic": "thawed"}, "plasticity of stage 1: presynaptic is 'frozen' or 'live', not 'thawed'"),
        ({"when": "sometimes"}, "plasticity of stage 1: when is 'end'.*, not 'sometimes'"),
        ({"stage": nd.Stage(nn.Tanh(), "2")}, r"plasticity of stage 2 \(Tanh\): it has no parameters to learn"),
    ],
)
def test_plasticity_that_makes_no_sense_is_refused(settings, message: str) -> None:
    rule = {"stage": nd.Stage(nn.Linear(3, 3), "1"), "pre": "a", "post": "b", "presynaptic": "live", **settings}
    with pytest.raises(ValueError, match=message):
        nd.Network("n", populations(), plasticity=[nd.Plasticity(**rule)])


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (nd.Stage(nn.Linear(3, 4), "1"), r"plasticity of stage 1: g1\(a\) has 4 units, and population b has 3"),
        (nd.Stage(nn.Linear(4, 3), "1"), r"stage 1 \(Linear\(4 → 3\)\) does not take an input of 3 a sample"),
    ],
)
def test_plasticity_fits_its_populations(stage: nd.Stage, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Network("n", populations(), plasticity=[nd.Plasticity(stage, "a", "b", presynaptic="live")])


def test_a_stage_stands_once_in_the_forward_pass() -> None:
    stage = nd.Stage(nn.Linear(3, 3), "1")
    with pytest.raises(ValueError, match="network 'n': a stage stands twice in forward="):
        nd.Network("n", [nd.Population("s", 3, clamp=nd.Input())], forward=[stage, stage])


def test_instantaneous_populations_may_form_a_chain_in_any_order() -> None:
    names = ["d", "a", "c", "b"]
    network = nd.Network(
        "chain",
        [nd.Population("s", 1, clamp=nd.Input()), *(nd.Population(name, 1, tau=0.0) for name in names)],
        [nd.Coupling("s", "a"), nd.Coupling("a", "b"), nd.Coupling("b", "c"), nd.Coupling("c", "d")],
    )
    assert network.instantaneous_order == ("a", "b", "c", "d")


def test_a_network_is_read_by_name() -> None:
    network = wilson_cowan().network
    assert network["E"].tau == 1.0
    assert network["hE"].role == "instantaneous"
    assert network["P"].role == "clamped"
    assert network.inputs == ("P",)
    assert [c.source for c in network.into("hI")] == ["E", "I"]
    with pytest.raises(ValueError, match="network 'Wilson–Cowan': there is no population 'X'; there are P, hE"):
        network["X"]


def test_equations_as_text() -> None:
    assert wilson_cowan().network.equations().splitlines() == [
        "P = input",
        "hE = P + 12 E − 4 I",
        "hI = 13 E − 11 I",
        "dE/dt = −E + Sigmoid(hE)",
        "2 dI/dt = −I + Sigmoid(hI)",
    ]


@pytest.mark.parametrize(
    ("settings", "couplings", "equation"),
    [
        ({}, [], "da/dt = −a"),
        ({"leak": 0.0}, [], "da/dt = 0"),
        ({"leak": 0.0}, [1.0], "da/dt = b"),
        ({"leak": 0.0}, [-1.0, 0.5], "da/dt = −b + 0.5 b"),
        ({"leak": 2.0, "tau": 0.5}, [-3.0], "0.5 da/dt = −2 a − 3 b"),
        ({"tau": 0.0}, [], "a = 0"),
        ({"tau": 0.0, "leak": 4.0}, [1.0, -2.0], "a = (b − 2 b) / 4"),
    ],
)
def test_an_equation_as_text(settings, couplings: list[float], equation: str) -> None:
    network = nd.Network(
        "n",
        [nd.Population("a", 1, **settings), nd.Population("b", 1)],
        [nd.Coupling("b", "a", gain=gain) for gain in couplings],
    )
    assert network.equations().splitlines()[0] == equation


def test_an_optional_clamp_is_told_in_the_equation() -> None:
    network = nd.Network("n", [nd.Population("a", 1, clamp=nd.Target(optional=True))])
    assert re.fullmatch(r"da/dt = −a +\(a = target when given\)", network.equations())


def test_print_shows_everything() -> None:
    text = str(hopfield().network)
    for part in (
        "Network 'Hopfield'",
        "populations (2)",
        "couplings (2)",
        "x → x",
        "+1 · Linear(x)",
        "dx/dt = −x + s + Linear(x)",
        "Linear = Tanh, Linear(6 → 6)",
    ):
        assert part in text
    assert repr(hopfield().network) == "<Network 'Hopfield': 2 populations, 2 couplings>"


def test_a_stage_is_listed_once() -> None:
    stage = nd.Stage(nn.Linear(3, 3), "1")
    network = two(
        nd.Coupling("a", "b", nd.Forward(stage)),
        nd.Coupling("b", "a", nd.Feedback(stage, "live"), gain=-1.0),
    )
    assert network.stages == (stage,)


def test_stages_of_one_name_are_told_apart() -> None:
    shared = nn.Linear(3, 3)
    stages = [*(nd.Stage(nn.Linear(3, 3)) for _ in range(2)), nd.Stage(nn.Linear(3, 3), "Linear_1")]
    stages += [nd.Stage(shared, "1"), nd.Stage(shared, "1"), *nd.cut(nn.Tanh())]
    names = [f"x{number}" for number in range(len(stages) + 1)]
    couplings = [nd.Coupling(a, b, nd.Forward(s)) for a, b, s in zip(names, names[1:], stages, strict=False)]
    couplings.append(nd.Coupling("x1", "x0", nd.Feedback(stages[0], "live")))
    network = nd.Network("n", [nd.Population(name, 3) for name in names], couplings)
    found = network.equations().splitlines()
    assert found[0] == "dx0/dt = −x0 + JLinear_2(x0)ᵀ x1"
    symbols = [line.removeprefix(f"dx{n}/dt = −x{n} + ").split("(")[0] for n, line in enumerate(found)][1:]
    assert symbols == ["Linear_2", "Linear_3", "Linear_1", "g1_1", "g1_1", "g1_2"]  # the same layers, the same function
    listed = str(network).splitlines()
    assert [line.split(" = ")[0].strip() for line in listed[-5:]] == [
        "Linear_2",
        "Linear_3",
        "Linear_1",
        "g1_1",
        "g1_2",
    ]
    assert stages[0].symbol == "Linear"


def test_activations_of_the_same_settings_are_one_function() -> None:
    maps = [
        nd.Forward(layer) for layer in (nn.Tanh(), nn.Tanh(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.1), nn.LeakyReLU(0.5))
    ]
    network = nd.Network("n", [nd.Population("x", 3)], [nd.Coupling("x", "x", map_) for map_ in maps])
    terms = ["Tanh(x)", "Tanh(x)", "LeakyReLU_1(x)", "LeakyReLU_1(x)", "LeakyReLU_2(x)"]
    assert network.equations() == f"dx/dt = −x + {' + '.join(terms)}"

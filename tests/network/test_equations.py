"""A network as text."""

import re

import pytest
from torch import nn

import neurodyn as nd
from tests.problems import hopfield, wilson_cowan


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
        "+1 · (Linear∘Tanh)(x)",
        "dx/dt = −x + s + (Linear∘Tanh)(x)",
        "(Linear∘Tanh) = Tanh, Linear(6 → 6)",
    ):
        assert part in text
    assert repr(hopfield().network) == "<Network 'Hopfield': 2 populations, 2 couplings>"


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


def term(text: str, gain: float, *, modulated: bool = False) -> str:
    """The equation of x that the function of a and b with such a text enters."""
    (stage,) = nd.cut(nn.Sequential(nn.Linear(1, 1), nn.Tanh()))
    map_: nd.Map = nd.Pointwise(lambda a, b: a + b, text=text)
    populations = [nd.Population("s", 1, clamp=nd.Input()), *(nd.Population(name, 1) for name in "xab")]
    coupling = nd.Coupling(("a", "b"), "x", nd.Modulated(map_, stage, 2) if modulated else map_, gain=gain)
    return nd.Network("n", populations, [coupling], forward=[stage]).equations().splitlines()[1]


def test_a_factor_is_that_of_a_whole_sum() -> None:
    assert term("{} + {}", 1.0) == "dx/dt = −x + a + b"
    assert term("{} + {}", 2.0) == "dx/dt = −x + 2 (a + b)"
    assert term("{} − {}", -1.0) == "dx/dt = −x − (a − b)"
    assert term("−{} {}", 1.0) == "dx/dt = −x + (−a b)"
    assert term("{} (1 - {})", -2.0) == "dx/dt = −x − 2 a (1 - b)"
    assert term("1e-05 {} {}", -1.0) == "dx/dt = −x − 1e-05 a b"
    assert term("3 {} {}", 2.0) == "dx/dt = −x + 2 (3 a b)"
    assert term("({} − 1) + {}", 3.0) == "dx/dt = −x + 3 ((a − 1) + b)"
    assert term("{} + {}", 1.0, modulated=True).endswith("⊙ (a + b)")


@pytest.mark.parametrize(("gain", "factor"), [(1.0, "−"), (-1.0, "+"), (0.5, "−0.5 "), (-20.0, "+20 ")])
def test_a_rule_is_told_with_its_gain(gain: float, factor: str) -> None:
    (stage,) = nd.cut(nn.Sequential(nn.Linear(1, 1)))
    populations = [nd.Population("s", 1, clamp=nd.Input()), nd.Population("x", 1, clamp=nd.LossGradient())]
    rule = nd.Plasticity(stage, "s", "x", gain=gain)
    text = str(nd.Network("n", populations, [], [rule], forward=[stage]))
    assert f"Δθ1 ∝ {factor}(∂g1/∂θ)ᵀ x, pre = s of the forward pass" in text

"""The order in which instantaneous populations are evaluated."""

import pytest
from torch import nn

import neurodyn as nd


def test_a_cycle_names_the_couplings_that_close_it() -> None:
    instantaneous = [nd.Population(name, 2, tau=0.0) for name in "ab"]
    couplings = [nd.Coupling("a", "b"), nd.Coupling("b", "a", nd.Forward(nd.Stage(nn.Tanh(), "1")), gain=-2.0)]
    with pytest.raises(ValueError, match=r"form a cycle.*couplings.* b → a \(-2 · g1\(b\)\)"):
        nd.Network("n", instantaneous, couplings)
    live = nd.Feedback(nd.Stage(nn.Tanh(), "1"), at="a")  # which reads its target, too
    with pytest.raises(ValueError, match=r"a → a form a cycle.*couplings e → a \(\+1 · J1\(a\)ᵀ e\)"):
        nd.Network("n", [nd.Population("e", 2), instantaneous[0]], [nd.Coupling("e", "a", live)])


def test_instantaneous_populations_may_form_a_chain_in_any_order() -> None:
    names = ["d", "a", "c", "b"]
    network = nd.Network(
        "chain",
        [nd.Population("s", 1, clamp=nd.Input()), *(nd.Population(name, 1, tau=0.0) for name in names)],
        [nd.Coupling("s", "a"), nd.Coupling("a", "b"), nd.Coupling("b", "c"), nd.Coupling("c", "d")],
    )
    assert network.instantaneous_order == ("a", "b", "c", "d")

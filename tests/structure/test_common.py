"""What networks that differ in numbers have in common is what holds for each."""

from __future__ import annotations

import neurodyn as nd
from neurodyn.structure.causality import common_start, read_start
from neurodyn.structure.structure import common_structure, read_structure


def network(gain: float, back: float, leak: float = 1.0) -> nd.Network:
    return nd.Network(
        "pair",
        [nd.Population("x", 2, initial=1.0), nd.Population("y", 2, leak=leak)],
        [nd.Coupling("x", "y", gain=gain), nd.Coupling("y", "x", gain=back)],
    )


def test_one_that_differs_decides() -> None:
    symmetric, skew, weak = network(0.5, 0.5), network(0.5, 0.4), network(0.5, 0.1)
    alone = read_structure(symmetric, ())
    assert common_structure([alone, alone]) == alone
    assert alone.gradient_flow
    assert not common_structure([alone, read_structure(skew, ())]).gradient_flow
    ordered = read_structure(weak, ())
    assert ordered.weak_order is not None
    assert common_structure([ordered, alone]).weak_order is None


def chain(tau: float) -> nd.Network:
    return nd.Network(
        "chain", [nd.Population("x", 2, tau=tau), nd.Population("y", 2, tau=tau)], [nd.Coupling("x", "y")]
    )


def test_a_bound_holds_for_all_and_a_rate_only_where_it_is_the_same() -> None:
    slow, fast = (read_structure(chain(tau), ()) for tau in (2.0, 0.5))
    both = common_structure([slow, fast])
    assert (slow.rate, both.rate) == (0.5, None)
    assert both.spectral_bound == fast.spectral_bound == 2.0


def balance(gain: float) -> nd.Network:
    return nd.Network(
        "balance",
        [nd.Population("s", 2, clamp=nd.Input()), nd.Population("e", 2, tau=0.0), nd.Population("x", 2, leak=0.0)],
        [nd.Coupling("x", "e"), nd.Coupling("x", "e", gain=gain), nd.Coupling("e", "x")],
    )


def test_what_rests_in_one_and_moves_in_another_does_not_rest() -> None:
    clamped = frozenset({"s"})
    still, moving = (read_start(balance(gain), clamped, frozenset({"x"})) for gain in (-1.0, -0.5))
    both = common_start([still, moving])
    assert common_start([still, still]) == still
    assert both.silent == still.silent & moving.silent
    assert both.resting == still.resting & moving.resting
    assert all(held is None or held == still.holds[name] == moving.holds[name] for name, held in both.holds.items())

"""Networks of a coupling or two that tests of declarations share."""

import torch
from torch import Tensor, nn

import neurodyn as nd


def field(network: nd.Network, inputs=None, initial=None) -> dict[str, Tensor]:
    """Return dx/dt at the start."""
    system = nd.System(network, inputs, initial=initial)
    state, slope = system.initial_state(), system.new_state()
    system.field(state, slope)
    return {name: slope.activity[name].clone() for name in system.dynamic}


def one_coupling(source: tuple[int, ...], target: tuple[int, ...], map_: nd.Map, clamped: bool = False) -> nd.Network:
    """Return a network with one coupling a → b, of gain −2, into a population of time constant ½ and no leak."""
    return nd.Network(
        "one coupling",
        [
            nd.Population("a", source, clamp=nd.Input()) if clamped else nd.Population("a", source),
            nd.Population("b", target, tau=0.5, leak=0.0),
        ],
        [nd.Coupling("a", "b", map_, gain=-2.0)],
    )


def linear(before: int, after: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(before, after, dtype=torch.float64)


class Squares(nd.Map):
    def apply(self, source: Tensor) -> Tensor:
        return source**2


class PairSums(nd.Map):
    linear = True

    def apply(self, source: Tensor) -> Tensor:
        return source[:, ::2] + source[:, 1::2]

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return (source[0] // 2,)


def vjp(module: nn.Module, point: Tensor, v: Tensor) -> Tensor:
    point = point.clone().requires_grad_()
    return torch.autograd.grad(module(point), point, v)[0]


def populations(**settings) -> list[nd.Population]:
    return [nd.Population("a", 3, **settings), nd.Population("b", 3, **settings)]


def two(*couplings: nd.Coupling, **settings) -> nd.Network:
    return nd.Network("two", populations(**settings), couplings)

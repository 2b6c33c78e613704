"""Deviations from the forward pass: what does not fit is refused."""

import pytest
from torch import nn

import neurodyn as nd


@pytest.mark.parametrize("kind", [nd.InverseDeviation, nd.ForwardDeviation])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(kind, scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale of {kind.__name__} must be positive"):
        kind(nn.Linear(2, 2), scale)


def test_sizes_of_deviations_are_checked() -> None:
    stage = nd.Stage([nd.FirstUnits(3), nn.Linear(3, 3)], "1")

    def network(source: int, target: int, map_: nd.Map) -> nd.Network:
        populations = [nd.Population("s", 5, clamp=nd.Input())]
        populations += [nd.Population("a", source), nd.Population("b", target)]
        return nd.Network("n", populations, [nd.Coupling("a", "b", map_)], forward=[stage])

    network(3, 5, nd.InverseDeviation(stage, 0.1))
    network(5, 3, nd.ForwardDeviation(stage, 0.1))
    with pytest.raises(ValueError, match="coupling a → b: its inverse takes 3 units, and the source has 5"):
        network(5, 5, nd.InverseDeviation(stage, 0.1))
    with pytest.raises(ValueError, match=r"coupling a → b: .* has 3 units, and population b has 5"):
        network(5, 5, nd.ForwardDeviation(stage, 0.1))

"""How units that compete for a maximum move, against very small steps of Euler's method."""

import pytest
import torch

from neurodyn.solvers.maxima import _flow
from tests.problems import tensor


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("units", [2, 4])
def test_windows_go_from_one_meeting_to_the_next(units, sign, rectified):
    """Two that are pulled down share the pull; one that overtakes takes it; at 0, none is pulled."""
    x, rest = tensor(200, units, seed=1), tensor(200, units, seed=2)
    pull = sign * tensor(200, 1, seed=3).abs() * 2
    steps, time = 20_000, 1.0
    expected = x.clone()
    for _ in range(steps):
        largest, place = expected.max(1, keepdim=True)
        on = (largest > 0.0).to(pull) if rectified else torch.ones_like(pull)
        expected = expected + time / steps * rest.scatter_add(1, place, pull * on)
    found = _flow(x, rest, pull, time, rectified=rectified)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_units_that_meet_stay_together_to_the_last_bit():
    x, rest, pull = torch.tensor([[1.0, 0.9, 0.0]]), torch.tensor([[0.1, 0.3, 0.0]]), torch.tensor([[-2.0]])
    first, second, third = _flow(x, rest, pull, 0.3, rectified=True)[0].tolist()
    assert first == second
    assert first + second == pytest.approx(1.9 + 0.3 * (0.4 - 2.0))
    assert third == 0.0

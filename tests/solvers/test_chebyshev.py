"""The coefficients of RKC2: the recursion as a pair, its order, and how long its steps may be."""

import pytest

from neurodyn.solvers.chebyshev import chebyshev


@pytest.mark.parametrize("stages", [2, 3, 4, 7])
def test_its_steps_are_stable_for_as_long_as_the_literature_says(stages):
    """β(s) ≈ 2/3 (s² − 1) (1 − 2/15 · ε), with the damping ε = 2/13; a `Pair` is refused unless it is of its order."""
    expected = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * 2 / 13)
    assert chebyshev(stages).real_stability == pytest.approx(expected, rel=0.2)

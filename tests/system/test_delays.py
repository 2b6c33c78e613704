"""When steps end under delays: sums of delays, and jumps plus delays, up to the method's order."""

from itertools import combinations_with_replacement

import numpy as np

from neurodyn.system.delays import distinct, kinks

NONE = np.empty(0)


def test_kinks_lie_at_sums_of_delays_after_the_start_and_after_jumps():
    delays, jumps, end = (0.7, 1.1), np.array([0.4]), 3.0
    for order in range(1, 6):
        found = kinks(delays, jumps, [], end, order, adaptive=False)
        sums = [0.0, *(sum(each) for n in range(1, order) for each in combinations_with_replacement(delays, n))]
        expected = {round(first + each, 9) for first in (0.0, 0.4) for each in sums}
        assert {round(time, 9) for time in found} == {time for time in expected if 0 < time < end}


def test_a_signal_that_begins_to_arrive_bends_the_slope():
    assert kinks((0.5,), NONE, [0.2], 2.0, 1, adaptive=False).tolist() == []
    np.testing.assert_allclose(kinks((0.5,), NONE, [0.2], 2.0, 3, adaptive=False), [0.2, 0.5, 0.7, 1.0])


def test_crowded_kinks_are_left_to_error_control():
    delays = tuple(np.random.default_rng(0).uniform(0.5, 2.0, 20).tolist())
    every = kinks(delays, NONE, [], 5.0, 5, adaptive=False)
    fewer = kinks(delays, NONE, [], 5.0, 5, adaptive=True)
    assert set(fewer) < set(every)
    assert set(delays) <= set(fewer)
    few = (0.5, 0.71)
    np.testing.assert_array_equal(
        kinks(few, NONE, [], 5.0, 5, adaptive=True), kinks(few, NONE, [], 5.0, 5, adaptive=False)
    )


def test_times_that_differ_by_rounding_are_one_the_later():
    times = np.array([0.1, 0.1 + 0.2, np.nextafter(0.1 + 0.2, 1.0), 0.5])
    np.testing.assert_array_equal(distinct(times, 1.0, (0.1,)), times[[0, 2, 3]])
    np.testing.assert_array_equal(distinct(times, np.nextafter(0.5, 1.0), (0.1,)), times[[0, 2]])
    assert distinct(NONE, 1.0, (0.1,)).tolist() == []

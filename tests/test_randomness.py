"""Streams of random numbers: each goes on where it stopped, whatever is drawn in between, and nothing else moves."""

import random
import threading

import numpy as np
import torch

from neurodyn.randomness import RandomStream, seeded


def draw() -> list[float]:
    return [torch.randn(1).item(), np.random.normal(), random.gauss(0.0, 1.0), random.random()]  # noqa: NPY002


def numpy_state() -> str:
    return repr([np.asarray(part).tolist() for part in np.random.mtrand._rand.get_state()])


def of(seed: int, count: int) -> list[list[float]]:
    stream = RandomStream(seed)
    with stream:
        drawn = [draw() for _ in range(count)]
    stream.close()
    return drawn


def test_a_stream_is_that_of_its_seed() -> None:
    with seeded(3):
        first = torch.randn(1).item()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        assert torch.randn(1).item() == first
    assert of(3, 4) == of(3, 4)
    assert of(3, 1) != of(4, 1)


def test_streams_that_take_turns_and_stand_within_each_other_do_not_disturb_each_other() -> None:
    before = draw()
    outside = torch.get_rng_state(), numpy_state(), random.getstate()
    one, other = RandomStream(1), RandomStream(2)
    found: dict[int, list[list[float]]] = {1: [], 2: []}
    for _ in range(3):
        with one:
            found[1].append(draw())
            with other:
                found[2].append(draw())
                with seeded(9):
                    draw()
            found[1].append(draw())
        with other:
            found[2].append(draw())
    one.close()
    other.close()
    assert found == {1: of(1, 6), 2: of(2, 6)}
    assert torch.equal(torch.get_rng_state(), outside[0])
    assert numpy_state() == outside[1]
    assert random.getstate() == outside[2]
    assert draw() != before


def test_a_state_is_taken_up_again_in_the_middle_of_a_pair_of_gaussians() -> None:
    stream, later = RandomStream(5), RandomStream(6)
    with stream:
        draw()  # leaves the second of a pair in NumPy and in Python
    state = stream.state()
    with stream:
        expected = [draw() for _ in range(3)]
    later.load(state)
    with later:
        assert [draw() for _ in range(3)] == expected
    stream.close()
    later.close()


def test_threads_draw_each_from_its_own() -> None:
    found: dict[int, list[list[float]]] = {}

    def work(seed: int) -> None:
        stream, drawn = RandomStream(seed), []
        for _ in range(50):
            with stream:
                drawn.append(draw())
        stream.close()
        found[seed] = drawn

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: of(seed, 50) for seed in range(4)}

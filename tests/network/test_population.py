"""Populations: their numbers."""

import math
from typing import Any

import numpy as np
import pytest

import neurodyn as nd


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
    for numbers in ([1.0, 2.0, 3.0], np.ones(3)):
        with pytest.raises(TypeError, match=rf"population a: {what} .* a tensor .*, not a \w+; torch\.as_tensor"):
            nd.Population("a", 3, **{what: numbers})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clamp": nd.Input}, r"not the class Input; write Input\(…\)"),
        ({"clamp": 0.5}, r"not float; nd\.Constant\(…\) holds it"),
        ({"clamp": "input"}, "not str$"),
        ({"bounds": (np.zeros(3), 1.0)}, r"bounds, low must be .* tensor .*; torch\.as_tensor"),
        ({"bounds": (0.0, None)}, r"are two numbers, not .*; where there is none, ±math\.inf"),
    ],
)
def test_what_was_meant_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        nd.Population("a", 3, **settings)

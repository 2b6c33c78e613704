"""Couplings: their gain and their map."""

import math

import pytest
import torch
from torch import nn

import neurodyn as nd


@pytest.mark.parametrize("gain", ["2", None, torch.tensor(2.0)], ids=str)
def test_a_gain_is_a_number(gain) -> None:
    with pytest.raises(TypeError, match="coupling a → b: its gain must be a number, not"):
        nd.Coupling("a", "b", gain=gain)


@pytest.mark.parametrize("gain", [0.0, math.nan, math.inf])
def test_a_gain_is_finite_and_not_zero(gain: float) -> None:
    with pytest.raises(ValueError, match=rf"coupling a → b: its gain must be finite.*, not {gain}"):
        nd.Coupling("a", "b", gain=gain)


def test_a_map_is_a_map() -> None:
    with pytest.raises(TypeError, match=r"its map is a neurodyn Map .*, not Tanh; write nd\.Forward\(nn\.Tanh\(\)\)"):
        nd.Coupling("a", "b", nn.Tanh())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not Stage; write nd\.Forward\(stage\)"):
        nd.Coupling("a", "b", nd.Stage(nn.Tanh()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"that is the class: write Identity"):
        nd.Coupling("a", "b", nd.Identity)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"; write nd\.Pointwise\(function\)"):
        nd.Coupling("a", "b", torch.tanh)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"; write gain=-2\.0"):
        nd.Coupling("a", "b", -2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"weights are those of a layer, as in nd\.Forward\(nn\.Linear"):
        nd.Coupling("a", "b", torch.eye(2))  # type: ignore[arg-type]

"""The cut of a module into stages."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import neurodyn as nd
from neurodyn.layers.admission import take_apart
from tests.stacks import SequentialWithSkip


def names(stages: list[nd.Stage]) -> list[list[str]]:
    return [[type(layer).__name__ for layer in stage.layers] for stage in stages]


def test_cut_after_and_before_the_activation() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    assert names(nd.cut(module)) == [["Linear", "Tanh"], ["Linear", "Tanh"], ["Linear"]]
    assert names(nd.cut(module, before_activation=True)) == [["Linear"], ["Tanh", "Linear"], ["Tanh", "Linear"]]
    assert [stage.name for stage in nd.cut(module)] == ["1", "2", "3"]


def test_what_has_no_weights_belongs_to_the_stage_before_it() -> None:
    module = nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(2, 2, 2), nn.PReLU(), nn.Dropout(0.0), nn.Flatten()),
        nn.Linear(8, 2),
        nn.Softmax(1),
    )
    assert names(nd.cut(module)) == [
        ["Flatten", "Unflatten", "Conv2d", "ReLU", "MaxPool2d"],
        ["Conv2d", "PReLU", "Dropout", "Flatten"],
        ["Linear", "Softmax"],
    ]
    assert names(nd.cut(module, before_activation=True)) == [
        ["Flatten", "Unflatten", "Conv2d"],
        ["ReLU", "MaxPool2d", "Conv2d"],
        ["PReLU", "Dropout", "Flatten", "Linear", "Softmax"],
    ]


@pytest.mark.parametrize("before_activation", [False, True])
@given(picks=st.lists(st.integers(0, 5), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_stages_in_sequence_are_the_module(before_activation: bool, picks: list[int]) -> None:
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.Linear(3, 3),
        nn.Tanh,
        lambda: nn.Sequential(nn.ReLU(), nn.Flatten()),
        lambda: nn.LayerNorm(3),
        nn.PReLU,
        nn.Identity,
    ]
    module = nn.Sequential(*(kinds[i]() for i in picks))
    stages = nd.cut(module, before_activation=before_activation)
    assert [layer for stage in stages for layer in stage.layers] == take_apart([module])[0]
    assert all(stage.parameters for stage in (stages[:-1] if before_activation else stages[1:]))
    parameters = [p for stage in stages for p in stage.parameters]
    assert [id(p) for p in parameters] == [id(p) for p in module.parameters()]


def test_one_layer_is_a_module() -> None:
    layer = nn.Linear(3, 2)
    (stage,) = nd.cut(layer)
    assert stage.layers == (layer,)
    assert (stage.input_size, stage.output_size) == (3, 2)


def test_a_container_with_a_forward_of_its_own_stays_whole() -> None:
    skip = SequentialWithSkip(nn.Linear(3, 3), nn.Tanh())
    assert nd.cut(nn.Sequential(skip, nn.Linear(3, 2)))[0].layers == (skip,)

"""Stages: what they know of themselves, and the inputs that they refuse."""

import copy

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from tests.problems import tensor
from tests.stacks import CASES, SquaredLinear, build


@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_affine_is_claimed_only_where_the_jacobian_is_constant(layers, shape: tuple[int, ...]) -> None:
    stage = nd.Stage(build(layers))
    x = tensor(2, *shape)
    v = tensor(2, *stage.output_shape(shape), seed=1)
    if stage.affine:
        torch.testing.assert_close(stage.at(x).feedback(v), stage.at(-3 * x + 1).feedback(v), rtol=1e-12, atol=1e-13)


def test_affine_layers_are_recognised() -> None:
    assert nd.Stage([nn.Flatten(), nn.Linear(4, 3), nn.Identity()]).affine
    assert nd.Stage([nn.Conv2d(1, 1, 3), nn.AvgPool2d(2)]).affine
    assert not nd.Stage([nn.Linear(4, 3), nn.Tanh()]).affine
    assert not nd.Stage(SquaredLinear(4, 3)).affine


def test_forward_has_no_graph_and_leaves_the_weights() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh())
    before = copy.deepcopy(module.state_dict())
    value = nd.Stage(module).forward(torch.ones(2, 4, requires_grad=True))
    assert not value.requires_grad
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        ([nn.Linear(4, 3), nn.Tanh()], (4, 3)),
        ([nn.Tanh(), nn.Linear(4, 3)], (4, 3)),
        ([nn.Linear(4, 6), nn.GLU()], (4, None)),
        ([nn.Flatten(), nn.Linear(4, 3)], (None, 3)),
        ([nn.Conv2d(1, 1, 3)], (None, None)),
        ([nn.Tanh()], (None, None)),
    ],
)
def test_sizes_are_known_where_the_layers_fix_them(layers: list[nn.Module], sizes: tuple) -> None:
    stage = nd.Stage(layers)
    assert (stage.input_size, stage.output_size) == sizes


def test_shapes_are_told_in_the_precision_of_buffers_where_there_are_no_weights() -> None:
    norm = nn.BatchNorm1d(3, affine=False).double().eval()
    assert nd.Stage([nn.Tanh(), norm, nn.Softplus()]).output_shape((3,)) == (3,)


def test_an_empty_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 4 has no layer"):
        nd.Stage([], "4")


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([nn.Linear(3, 2)], (4,), r"stage 1 \(Linear\(3 → 2\)\) does not take an input of 4 a sample: .*shapes"),
        ([nn.Conv2d(3, 2, 3)], (5, 5), r"stage 1 \(Conv2d\(3 → 2, 3×3\)\) does not take an input of 5 × 5 a sample"),
        ([nn.Bilinear(3, 3, 2)], (3,), r"stage 1 \(Bilinear\) does not take an input of 3 a sample"),
        ([Pair()], (3,), r"stage 1 \(Pair\) .*Pair returns a tuple, not one tensor"),
        ([nn.Flatten(0)], (3,), r"stage 1 \(Flatten\) makes \(6,\) of the shape \(2, 3\); the first axis must stay"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(layers, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Stage(layers, "1").output_shape(shape)

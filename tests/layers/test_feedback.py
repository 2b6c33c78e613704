"""Feedback weights: their shapes, their draw, and what cannot have them."""

import pytest
import torch
from torch import nn

import neurodyn as nd
from tests.problems import tensor


def stage(*layers: nn.Module) -> nd.Stage:
    return nd.Stage(nn.Sequential(*layers), "1")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 5), (7, 5)),
        (nn.Conv2d(4, 6, (3, 2)), (6, 4, 3, 2)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False), (6, 2, 3, 3)),
    ],
    ids=["linear", "convolution", "grouped convolution"],
)
def test_shape_of_a_linear_is_that_of_the_transpose_and_of_a_convolution_that_of_the_kernel(layer, shape):
    weights = nd.FeedbackWeights(stage(layer, nn.Tanh()), seed=0, learned=True)
    assert [tuple(psi.shape) for psi in weights.tensors.values()] == [shape]


@pytest.mark.parametrize(("learned", "dtype"), [(True, torch.float64), (False, torch.float32)])
def test_learned_ones_require_a_gradient_and_take_the_dtype_of_the_weights(learned, dtype):
    (psi,) = nd.FeedbackWeights(stage(nn.Linear(3, 2, dtype=dtype)), seed=0, learned=learned).tensors.values()
    assert psi.requires_grad == learned
    assert psi.dtype == dtype


def test_the_draw_is_normal_of_the_width_asked_for_and_the_same_for_the_same_seed_in_every_dtype():
    stages = {dtype: stage(nn.Linear(300, 200, dtype=dtype)) for dtype in (torch.float32, torch.float64)}
    before = torch.random.get_rng_state()
    draws = [
        nd.FeedbackWeights(stages[dtype], seed=seed, learned=False, sigma=sigma).tensors[0]
        for seed, sigma, dtype in [
            (1, 0.05, torch.float32),
            (1, 0.05, torch.float64),
            (2, 0.05, torch.float32),
            (1, 0.5, torch.float32),
        ]
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(draws[0].double(), draws[1])
    assert not torch.equal(draws[0], draws[2])
    # 60,000 numbers: the standard error of the mean is σ/245, and that of σ is σ/346.
    assert abs(float(draws[0].mean())) < 5 * 0.05 / 245
    assert abs(float(draws[0].std()) / 0.05 - 1) < 5 / 346
    torch.testing.assert_close(draws[3], 10 * draws[0])


@pytest.mark.parametrize("convolutional", [False, True])
def test_the_weights_themselves_as_feedback_weights_give_the_jacobian(convolutional):
    layer = nn.Conv2d(2, 4, 3, padding=1, groups=2) if convolutional else nn.Linear(6, 5)
    g = stage(layer.double(), nn.Tanh())
    weights = nd.FeedbackWeights(g, seed=0, learned=False)
    weight = layer.weight.detach()
    weights.tensors[0].data = weight if convolutional else weight.T.contiguous()
    x = tensor(3, 2, 5, 5) if convolutional else tensor(3, 6)
    point = g.at(x)
    v = tensor(*point.value.shape, seed=1)
    found = point.feedback(v, weights=weights.tensors)
    torch.testing.assert_close(found, point.feedback(v), rtol=0, atol=1e-13)


def test_a_stage_without_weights_has_no_feedback_weights():
    assert nd.FeedbackWeights(stage(nn.Tanh()), seed=0, learned=True).tensors == {}


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(3), nn.Conv1d(2, 2, 3), nn.Conv2d(2, 2, 3, padding="same"), nn.Bilinear(3, 3, 2), nn.PReLU()],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_without_a_path_of_their_own_are_refused(layer):
    with pytest.raises(ValueError, match=rf"stage 1 .*; not for {type(layer).__name__}\("):
        nd.FeedbackWeights(stage(layer), seed=0, learned=True)


def test_weights_of_another_stage_are_refused():
    first, second = nd.cut(nd.mlp([4, 3, 2]))
    weights = nd.FeedbackWeights(second, seed=0, learned=True)
    with pytest.raises(ValueError, match=r"Feedback of stage 1 takes feedback weights of that stage"):
        nd.Feedback(first, weights=weights)
    with pytest.raises(ValueError, match=r"plasticity of stage 1: FeedbackWeights\(Stage 2.*learned\) belong to"):
        nd.Plasticity(first, "s", "x1", weights=weights)

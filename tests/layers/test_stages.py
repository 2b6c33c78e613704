"""Stages: value, feedback, inverse and parameter gradient against `torch.autograd`; the cut; what is refused."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import neurodyn as nd
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.admission import take_apart
from neurodyn.layers.points import AutogradPoint, layer_point
from tests.problems import tensor


class Residual(nn.Module):
    """A residual block that works in place on what it is given."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(units, units), nn.Tanh(), nn.Linear(units, units))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Overwriting(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.weight).tanh_()


class Tied(nn.Module):
    """One weight in two places."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.first = nn.Linear(units, units)
        self.second = nn.Linear(units, units, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.sin(self.first(x)))


class SequentialWithSkip(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class SquaredLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


def pruned() -> nn.Module:
    layer = nn.Linear(6, 6)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def with_a_hook() -> nn.Module:
    layer = nn.Linear(6, 4)
    layer.register_forward_hook(lambda _, inputs, output: 3 * output)
    return layer


VECTOR_LAYERS = {
    "linear": lambda: [nn.Linear(6, 4)],
    "no bias": lambda: [nn.Linear(6, 4, bias=False)],
    "linear, tanh": lambda: [nn.Linear(6, 4), nn.Tanh()],
    "tanh, linear": lambda: [nn.Tanh(), nn.Linear(6, 4)],
    "two linears": lambda: [nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 6)],
    "sigmoid alone": lambda: [nn.Sigmoid()],
    "identity": lambda: [nn.Identity()],
    "relu in place": lambda: [nn.ReLU(inplace=True)],
    "leaky relu": lambda: [nn.Linear(6, 6), nn.LeakyReLU(0.1, inplace=True)],
    "softplus": lambda: [nn.Softplus(beta=2.0, threshold=1.0), nn.Linear(6, 6)],
    "gelu": lambda: [nn.GELU(), nn.Linear(6, 6)],
    "prelu": lambda: [nn.Linear(6, 6), nn.PReLU(6)],
    "glu": lambda: [nn.Linear(6, 6), nn.GLU()],
    "softmax": lambda: [nn.Linear(6, 6), nn.Softmax(1)],
    "layer norm": lambda: [nn.LayerNorm(6), nn.Linear(6, 2)],
    "batch norm": lambda: [nn.BatchNorm1d(6).eval(), nn.Linear(6, 2)],
    "dropout": lambda: [nn.Dropout(0.5).eval(), nn.Linear(6, 2)],
    "dropout of nothing": lambda: [nn.Dropout(0.0), nn.Linear(6, 2)],
    "residual": lambda: [Residual(6), nn.Linear(6, 2)],
    "residual last": lambda: [nn.Linear(6, 6), Residual(6)],
    "overwriting": lambda: [Overwriting(6)],
    "tied": lambda: [Tied(6)],
    "skip": lambda: [SequentialWithSkip(nn.Linear(6, 6), nn.Tanh())],
    "nested": lambda: [nn.Sequential(nn.Sequential(nn.Linear(6, 5)), nn.Tanh()), nn.Sequential(), nn.Linear(5, 3)],
    "subclass": lambda: [SquaredLinear(6, 3)],
    "weight norm": lambda: [parametrizations.weight_norm(nn.Linear(6, 3))],
    "orthogonal": lambda: [parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh()],
    "pruned": lambda: [pruned(), nn.Tanh()],
    "hook": lambda: [with_a_hook()],
    "unflatten": lambda: [nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.Tanh(), nn.Flatten()],
    "bilinear form of a sequence": lambda: [nn.Unflatten(1, (2, 3)), nn.Linear(3, 4)],
}
IMAGE_LAYERS = {
    "conv": lambda: [nn.Conv2d(4, 3, 3)],
    "no bias": lambda: [nn.Conv2d(4, 3, 3, bias=False), nn.Tanh()],
    "strides": lambda: [nn.Conv2d(4, 3, 3, stride=2, padding=1), nn.ReLU(inplace=True)],
    "uneven": lambda: [nn.Conv2d(4, 2, (3, 2), stride=(3, 1), padding=(0, 1))],
    "same": lambda: [nn.Conv2d(4, 3, 3, padding="same"), nn.Tanh()],
    "valid": lambda: [nn.Conv2d(4, 3, 3, padding="valid")],
    "circular": lambda: [nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")],
    "groups": lambda: [nn.Conv2d(4, 8, 3, groups=2)],
    "depthwise": lambda: [nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Tanh()],
    "dilation": lambda: [nn.Conv2d(4, 3, 2, dilation=3)],
    "transposed": lambda: [nn.ConvTranspose2d(4, 3, 2, stride=2)],
    "max pool": lambda: [nn.Conv2d(4, 3, 3), nn.Tanh(), nn.MaxPool2d(2)],
    "average pool": lambda: [nn.AvgPool2d(2), nn.Conv2d(4, 3, 2)],
    "adaptive pool": lambda: [nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)],
    "flatten first": lambda: [nn.Flatten(), nn.Linear(4 * 7 * 6, 5)],
    "group norm": lambda: [nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)],
    "batch norm": lambda: [nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3).eval(), nn.ReLU()],
    "channel prelu": lambda: [nn.Conv2d(4, 3, 3), nn.PReLU(3)],
}
CASES = [
    *(pytest.param(layers, (6,), id=f"vector: {name}") for name, layers in VECTOR_LAYERS.items()),
    *(pytest.param(layers, (4, 7, 6), id=f"image: {name}") for name, layers in IMAGE_LAYERS.items()),
]


def build(layers, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [layer.to(dtype) for layer in layers()]


def run(layers: list[nn.Module], x: Tensor) -> Tensor:
    """Apply layers to a copy of x, with a graph."""
    y = x.clone()
    for layer in layers:
        y = layer(y)
    return y


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_value_feedback_and_gradient_equal_autograd(layers, shape: tuple[int, ...], samples: int) -> None:
    modules = build(layers)
    stage = nd.Stage(modules, "1")
    x = tensor(samples, *shape, seed=1)
    before = x.clone()
    y = run(modules, x.requires_grad_())
    v = tensor(*y.shape, seed=2)
    expected = torch.autograd.grad(y, [x, *stage.parameters], v, retain_graph=True, materialize_grads=True)
    point = stage.at(x.detach())
    for _ in range(2):  # asked for twice, each answer stands on its own
        feedback, gradient = point.feedback(v), point.gradient(v)
    torch.testing.assert_close(point.value, y.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(feedback, expected[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(list(gradient), list(expected[1:]), rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before)
    assert stage.output_shape(shape) == y.shape[1:]


@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_single_precision_agrees_with_double(layers, shape: tuple[int, ...]) -> None:
    answers = []
    for dtype in (torch.float32, torch.float64):
        stage = nd.Stage(build(layers, dtype))
        x = tensor(2, *shape, seed=1).to(dtype)
        point = stage.at(x)
        v = tensor(*point.value.shape, seed=2).to(dtype)
        answers.append([point.value, point.feedback(v), *point.gradient(v)])
    for single, double in zip(*answers, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_adding_to_a_total(layers, shape: tuple[int, ...]) -> None:
    stage = nd.Stage(build(layers))
    point = stage.at(tensor(2, *shape))
    v = tensor(*point.value.shape, seed=1)
    below = torch.ones(2, *shape, dtype=torch.float64)
    point.add_feedback(v, below, 3.0)
    torch.testing.assert_close(below, 1 + 3 * point.feedback(v))


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


def test_a_moving_operating_point_leaves_nothing_behind() -> None:
    layers = build(lambda: [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 2)])
    stage = nd.Stage(layers)
    point = stage.at(tensor(3, 6))
    v = tensor(3, 2, seed=9)
    for seed in range(1, 4):
        x = tensor(3, 6, seed=seed)
        point.move_to(x)
        if seed % 2:
            point.feedback(v)  # the value is worked out only as far as it is needed
        fresh = stage.at(x)
        found, expected = ([at.value, at.feedback(v), *at.gradient(v)] for at in (point, fresh))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_feedback_is_the_callers_own() -> None:
    point = nd.Stage(nn.Tanh()).at(tensor(2, 3))
    first = point.feedback(torch.ones(2, 3, dtype=torch.float64))
    kept = first.clone()
    point.feedback(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(first, kept)


def test_forward_has_no_graph_and_leaves_the_weights() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh())
    before = copy.deepcopy(module.state_dict())
    value = nd.Stage(module).forward(torch.ones(2, 4, requires_grad=True))
    assert not value.requires_grad
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)


@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    kinds=st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=4, max_size=4),
    samples=st.integers(1, 4),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_any_stack_of_known_layers_equals_autograd(widths, kinds, samples: int, seed: int) -> None:
    layers = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after, kind in zip(widths, widths[1:], kinds, strict=False):
            layers += [nn.Linear(before, after, dtype=torch.float64), kind()]
    stage = nd.Stage(layers)
    x = tensor(samples, widths[0], seed=seed).requires_grad_()
    y = run(layers, x)
    v = tensor(*y.shape, seed=seed + 1)
    expected = torch.autograd.grad(y, [x, *stage.parameters], v)
    point = stage.at(x.detach())
    torch.testing.assert_close([point.feedback(v), *point.gradient(v)], list(expected), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind, f in ACTIVATIONS.items() if f.inverse is not None])
def test_an_inverse_undoes_the_stage(kind: type[nn.Module]) -> None:
    layers = build(lambda: [nn.Linear(5, 5), kind(), nn.Linear(5, 5, bias=False), nn.LeakyReLU(0.1)])
    stage = nd.Stage(layers)
    x = tensor(7, 5, scale=0.7)
    torch.testing.assert_close(stage.inverted()(stage.forward(x)), x, rtol=1e-9, atol=1e-10)


def test_an_inverse_of_each_row_of_an_image() -> None:
    stage = nd.Stage(nn.Linear(5, 5, dtype=torch.float64))
    x = tensor(2, 3, 5)
    torch.testing.assert_close(stage.inverted()(stage.forward(x)), x)


def test_the_inverse_of_a_reparametrised_matrix() -> None:
    stage = nd.Stage(parametrizations.orthogonal(nn.Linear(5, 5)).double())
    x = tensor(4, 5)
    torch.testing.assert_close(stage.inverted()(stage.forward(x)), x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(4, 3)], r"stage 3 has no inverse: its weights are 3 × 4"),
        ([nn.Linear(3, 3), nn.ReLU()], r"stage 3 has no inverse: ReLU .*use square Linear"),
        ([nn.Conv2d(1, 1, 3)], r"stage 3 has no inverse: Conv2d"),
        ([nn.LeakyReLU(0.0)], r"stage 3 has no inverse: LeakyReLU needs a positive slope"),
        ([SquaredLinear(3, 3)], r"stage 3 has no inverse: SquaredLinear"),
    ],
)
def test_a_stage_without_inverse_says_so(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Stage(layers, "3").inverted()


@pytest.mark.parametrize("factor", [0.0, 1e-20])
def test_a_singular_matrix_is_refused(factor: float) -> None:
    layer = nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight[2] = layer.weight[1] * (1 + factor)
    with pytest.raises(ValueError, match=r"stage 2 cannot be inverted in torch.float64: .* condition number"):
        nd.Stage(layer, "2").inverted()


def test_a_value_out_of_range_is_refused() -> None:
    inverse = nd.Stage(nn.Tanh(), "2").inverted()
    with pytest.raises(ValueError, match=r"stage 2 cannot be inverted here: Tanh takes values in \(-1, 1\).*1\.5\]"):
        inverse(torch.tensor([[0.0, 1.5]]))


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


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: nn.LSTM(3, 3), r"stage 2: LSTM cannot be part of a stage: its output is a tuple.*unroll"),
        (lambda: nn.MultiheadAttention(4, 2), r"stage 2: MultiheadAttention cannot be part"),
        (lambda: nn.Embedding(3, 3), r"stage 2: Embedding cannot be part of a stage: its input is an index"),
        (lambda: nn.BatchNorm1d(3), r"stage 2: BatchNorm1d in training mode couples.*call \.eval\(\)"),
        (lambda: nn.BatchNorm2d(3, track_running_stats=False).eval(), r"stage 2: BatchNorm2d"),
        (lambda: nn.Dropout(0.5), r"stage 2: Dropout in training mode gives another value.*call \.eval\(\)"),
        (lambda: nn.RReLU(), r"stage 2: RReLU in training mode"),
    ],
)
def test_a_layer_that_cannot_be_a_stage_is_refused(layer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Stage([nn.Linear(3, 3), layer()], "2")
    with pytest.raises(ValueError, match=message.replace("stage 2", "stage [23]")):
        nd.cut(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), layer()))


def test_a_layer_that_does_not_know_its_sizes_is_refused_until_it_does() -> None:
    module = nn.Sequential(nn.LazyLinear(3), nn.Tanh())
    with pytest.raises(ValueError, match="stage 1: LazyLinear does not know its sizes yet; run the module once"):
        nd.cut(module)
    module(torch.zeros(1, 4))
    assert nd.cut(module)[0].input_size == 4


def test_a_refused_layer_is_found_inside_a_custom_one() -> None:
    block = Residual(3)
    block.inner.append(nn.Dropout(0.2))
    with pytest.raises(ValueError, match="stage 1: Dropout in training mode"):
        nd.cut(block)


@pytest.mark.parametrize(
    ("module", "kind", "message"),
    [
        (nn.Sequential(), ValueError, "the module has no layers"),
        (torch.tanh, TypeError, "a stage is made of nn.Module layers"),
        ([nn.Linear(2, 2)], TypeError, "a stage is made of nn.Module layers"),
    ],
)
def test_what_is_no_module_is_refused(module, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        nd.cut(module)


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


def test_plain_layers_take_the_fast_path() -> None:
    fast = [nn.Linear(2, 2), nn.Conv2d(1, 1, 1), nn.Flatten(), *(kind() for kind in ACTIVATIONS)]
    assert not any(isinstance(layer_point(layer), AutogradPoint) for layer in fast)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_the_gpu_agrees_with_the_cpu(layers, shape: tuple[int, ...]) -> None:
    answers = []
    for device in ("cpu", "cuda"):
        stage = nd.Stage([layer.to(device) for layer in build(layers)])
        point = stage.at(tensor(2, *shape, seed=1).to(device))
        v = tensor(*point.value.shape, seed=2).to(device)
        answers.append([t.cpu() for t in (point.value, point.feedback(v), *point.gradient(v))])
    torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("module", [nn.Module(), nn.ModuleList([nn.Linear(3, 2)]), nn.ParameterList()], ids=str)
def test_a_module_that_computes_nothing_is_refused(module: nn.Module) -> None:
    for take in (nd.cut, nd.Stage, nd.Forward):
        with pytest.raises(TypeError, match=rf"{type(module).__name__} defines no forward\(\)"):
            take(module)

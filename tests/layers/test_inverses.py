"""Inverses of stages, and their difference quotients, against arithmetic of 80 digits."""

import gc
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import neurodyn as nd
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.inverses import forward_difference
from tests.problems import tensor
from tests.stacks import SquaredLinear, build

SLOPE = 0.25


def leaky(x: Decimal, slope: Decimal) -> Decimal:
    return x if x > 0 else slope * x


def tanh(x: Decimal) -> Decimal:
    return 1 - 2 / ((2 * x).exp() + 1)


EXACT: dict[type[nn.Module], tuple[Callable[[Decimal], Decimal], Callable[[Decimal], Decimal]]] = {
    nn.Identity: (lambda x: x, lambda y: y),
    nn.LeakyReLU: (lambda x: leaky(x, Decimal(SLOPE)), lambda y: leaky(y, 1 / Decimal(SLOPE))),
    nn.Tanh: (tanh, lambda y: ((1 + y) / (1 - y)).ln() / 2),
    nn.Sigmoid: (lambda x: 1 / (1 + (-x).exp()), lambda y: (y / (1 - y)).ln()),
    nn.Softplus: (lambda x: (1 + (2 * x).exp()).ln() / 2, lambda y: ((2 * y).exp() - 1).ln() / 2),
}
"""Each activation and its inverse."""


def layer(kind: type[nn.Module]) -> nn.Module:
    return {nn.LeakyReLU: lambda: nn.LeakyReLU(SLOPE), nn.Softplus: lambda: nn.Softplus(beta=2.0)}.get(kind, kind)()


def quotient(f: Callable[[Decimal], Decimal], at: Tensor, v: Tensor, scale: float) -> Tensor:
    """[f(at) − f(at − s v)] / s with 80 digits, rounded to float64."""
    with localcontext() as context:
        context.prec = 80
        s = Decimal(scale)
        pairs = zip(at.flatten().tolist(), v.flatten().tolist(), strict=True)
        return torch.tensor([float((f(Decimal(a)) - f(Decimal(a) - s * Decimal(d))) / s) for a, d in pairs]).view_as(at)


@pytest.fixture(autouse=True)
def _decimals_as_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


INVERTIBLE = [kind for kind, activation in ACTIVATIONS.items() if activation.inverse is not None]
SCALES = [1.0, 0.03, 1e-5, 1e-12, 1e-24, 1e-56]
PRECISIONS = pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])


def values_inside(kind: type[nn.Module], dtype: torch.dtype) -> Tensor:
    inside = torch.linspace(-1.5, 1.5, 20)
    return EXACT_RANGE.get(kind, lambda y: y)(inside).to(dtype)


EXACT_RANGE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: torch.tanh,
    nn.Sigmoid: torch.sigmoid,
    nn.Softplus: lambda x: torch.nn.functional.softplus(x) + 0.1,
}


@PRECISIONS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", INVERTIBLE)
def test_the_difference_of_an_inverse_keeps_its_digits(kind, scale: float, dtype: torch.dtype, rtol: float) -> None:
    y = values_inside(kind, dtype)[:, None]
    # The shifted value must be one that the activation takes, however large the shift.
    shifted = y.flip(0)
    v = (y - shifted) / scale if scale > 0.1 else tensor(20, 1).to(dtype) * 0.1
    stage = nd.Stage(layer(kind))
    found = stage.inverted().difference(v, scale, [stage.forward(y), y])
    torch.testing.assert_close(found.double(), quotient(EXACT[kind][1], y, v, scale), rtol=rtol, atol=rtol)


@PRECISIONS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", INVERTIBLE)
def test_the_difference_of_a_stage_keeps_its_digits(kind, scale: float, dtype: torch.dtype, rtol: float) -> None:
    x, v = tensor(20, 1).to(dtype), tensor(20, 1, seed=1).to(dtype)
    stage = nd.Stage(layer(kind))
    found = forward_difference(stage.layers, v, scale, [x, stage.forward(x)])
    torch.testing.assert_close(found.double(), quotient(EXACT[kind][0], x, v, scale), rtol=rtol, atol=rtol)


@given(y=st.floats(-3, 3), v=st.floats(-1e4, 1e4), scale=st.sampled_from([1.0, 1e-3, 1e-9]))
@settings(max_examples=200, deadline=None)
def test_the_kink_is_passed_exactly(y: float, v: float, scale: float) -> None:
    stage = nd.Stage(nn.LeakyReLU(SLOPE))
    at = torch.tensor([[y]])
    found = stage.inverted().difference(torch.tensor([[v]]), scale, [at, at])
    expected = quotient(EXACT[nn.LeakyReLU][1], at, torch.tensor([[v]]), scale)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


LAYERS: dict[str, Callable[[], list[nn.Module]]] = {
    "leaky": lambda: [nn.Linear(5, 5), nn.LeakyReLU(0.1)],
    "tanh, without bias": lambda: [nn.Linear(5, 5, bias=False), nn.Tanh()],
    "two": lambda: [nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 5), nn.Sigmoid()],
    "auxiliary units": lambda: [nd.FirstUnits(3), nn.Linear(3, 3), nn.LeakyReLU(0.1)],
    "auxiliary outputs": lambda: [nn.Linear(5, 5), nn.Tanh(), nd.FirstUnits(2)],
    "flatten": lambda: [nn.Unflatten(1, (5, 1)), nn.Flatten(), nn.Linear(5, 5)][1:],
}


def stage_of(layers: str, seed: int = 0) -> nd.Stage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nd.Stage(LAYERS[layers](), "2")


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("scale", [0.02, 1e-4])
def test_the_difference_of_a_stage_is_that_of_its_inverse(layers: str, scale: float) -> None:
    stage = stage_of(layers)
    at = stage.at(tensor(6, 5, scale=0.5)).values
    v = 0.1 * tensor(*at[-1].shape, seed=1)
    inverse = stage.inverted()
    expected = (inverse(at[-1], at) - inverse(at[-1] - scale * v, at)) / scale
    torch.testing.assert_close(inverse.difference(v, scale, at), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse(at[-1], at), at[0], rtol=1e-9, atol=1e-9)
    v = 0.1 * tensor(6, 5, seed=1)
    expected = (at[-1] - stage.forward(at[0] - scale * v)) / scale
    torch.testing.assert_close(forward_difference(stage.layers, v, scale, at), expected, rtol=1e-9, atol=1e-9)


def test_units_that_are_not_read_keep_their_forward_value() -> None:
    stage = stage_of("auxiliary units")
    at = stage.at(tensor(4, 5)).values
    y = tensor(4, 3, seed=1)
    back = stage.inverted()(y, at)
    torch.testing.assert_close(stage.forward(back), y)
    assert torch.equal(back[:, 3:], at[0][:, 3:])
    assert not stage.inverted().difference(y, 0.1, at)[:, 3:].any()


def test_the_factors_are_kept_until_the_weights_change(monkeypatch: pytest.MonkeyPatch) -> None:
    factorise, count = torch.linalg.lu_factor_ex, 0

    def counted(*arguments):
        nonlocal count
        count += 1
        return factorise(*arguments)

    monkeypatch.setattr(torch.linalg, "lu_factor_ex", counted)
    linear = nn.Linear(4, 4)
    stage, y = nd.Stage(linear), tensor(3, 4)

    def assert_right() -> None:
        torch.testing.assert_close(stage.forward(stage.inverted()(y)), y)

    assert_right()
    assert_right()
    assert count == 1
    linear.weight.data[1] += 1.0  # which PyTorch's version counter does not see
    assert_right()
    assert count == 2
    torch.optim.SGD(linear.parameters(), lr=0.1).step(lambda: stage.layers[0](y).square().sum().backward())
    assert_right()
    assert count == 3
    with torch.no_grad():
        linear.bias.add_(1.0)
    assert_right()
    assert count == 3
    linear.float()
    found = nd.Stage(linear).inverted()(linear(y.float()))
    torch.testing.assert_close(found, y.float(), rtol=1e-4, atol=1e-4)


def test_the_factors_do_not_outlive_their_layer() -> None:
    from neurodyn.layers.inverses import _FACTORS

    gc.collect()
    before = len(_FACTORS)
    stage = nd.Stage(nn.Linear(4, 4))
    stage.inverted()
    assert len(_FACTORS) == before + 1
    del stage
    gc.collect()
    assert len(_FACTORS) == before


def conditioned(condition: float, size: int = 40, seed: int = 0) -> nn.Linear:
    u, v = (np.linalg.qr(tensor(size, size, seed=seed + i).numpy())[0] for i in range(2))
    linear = nn.Linear(size, size)
    linear.weight.data = torch.tensor(u * np.geomspace(1.0, 1.0 / condition, size) @ v)
    return linear


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dtype", "condition"), [(torch.float32, 1e9), (torch.float64, 1e18)])
def test_a_badly_conditioned_matrix_is_refused(dtype: torch.dtype, condition: float, seed: int) -> None:
    linear = conditioned(condition, seed=seed).to(dtype)
    actual = np.linalg.cond(linear.weight.detach().double().numpy())
    with pytest.raises(ValueError, match=rf"stage 2 cannot be inverted in {dtype}.* condition number is") as error:
        nd.Stage(linear, "2").inverted()
    stated = float(str(error.value).split("condition number is ")[1].split(";")[0])
    # In double precision, a smallest singular value below the rounding of 40 × 40 numbers is rounding itself.
    largest = 1 / (len(linear.weight) * np.finfo(np.float64).eps)
    assert 0.1 < min(stated, largest) / min(actual, largest) < 10
    assert ("or use float64" in str(error.value)) == (dtype == torch.float32)


@pytest.mark.parametrize(("dtype", "condition"), [(torch.float32, 1e4), (torch.float64, 1e10)])
def test_a_matrix_that_its_precision_bears_is_not_refused(dtype: torch.dtype, condition: float) -> None:
    nd.Stage(conditioned(condition).to(dtype)).inverted()


def test_a_half_precision_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stage 2 cannot be inverted in torch\.bfloat16; use float32 or float64"):
        nd.Stage(nn.Linear(3, 3).bfloat16(), "2").inverted()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(4, 3)], r"its weights are 3 × 4.*FirstUnits\(3\) and then Linear\(3, 3\)"),
        ([nn.Linear(3, 4)], r"its weights are 4 × 3.*no layer may be wider"),
        ([nn.Linear(3, 3), nn.ReLU()], "ReLU is not invertible; use square Linear layers with LeakyReLU"),
        ([nn.Linear(3, 3), nn.LeakyReLU(-0.1)], "LeakyReLU needs a positive slope, not -0.1"),
    ],
)
@pytest.mark.parametrize(
    "kind", [nd.Inverse, lambda s: nd.InverseDeviation(s, 0.1), lambda s: nd.ForwardDeviation(s, 0.1)]
)
def test_a_map_refuses_a_stage_without_inverse_when_it_is_declared(kind, layers, message: str) -> None:
    with pytest.raises(ValueError, match="stage 2 has no inverse: " + message):
        kind(nd.Stage(layers, "2"))


def test_a_hook_is_refused() -> None:
    linear = nn.Linear(3, 3)
    linear.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match="a hook changes what its Linear computes"):
        nd.Inverse(nd.Stage(linear, "2"))


@pytest.mark.parametrize(
    ("kind", "bad", "span"),
    [(nn.Tanh, 1.0, r"\(-1, 1\).*1\]"), (nn.Sigmoid, -0.1, r"\(0, 1\).*\[-0\.1"), (nn.Softplus, 0.0, r"\(0, inf\)")],
)
def test_what_an_activation_does_not_take_is_refused_not_clipped(kind: type[nn.Module], bad: float, span: str) -> None:
    stage = nd.Stage([nn.Linear(2, 2), kind()], "2")
    y = torch.tensor([[0.5, 0.5]])
    at = [y, y, y]
    outside = torch.tensor([[0.5, bad]])
    message = f"stage 2 cannot be inverted here: {kind.__name__} takes values in {span}.*nothing was clipped"
    with pytest.raises(ValueError, match=message):
        stage.inverted()(outside)
    with pytest.raises(ValueError, match=message):
        stage.inverted().difference(10.0 * (y - outside), 0.1, at)
    assert torch.isfinite(stage.inverted().difference(y - outside, 0.1, at)).all()


def test_a_saturated_forward_pass_is_refused() -> None:
    stage = nd.Stage(nn.Tanh(), "2")
    at = stage.at(torch.tensor([[30.0]])).values
    with pytest.raises(ValueError, match=r"stage 2 cannot be inverted here: Tanh .*spans \[1, 1\]"):
        stage.inverted().difference(torch.zeros(1, 1), 0.1, at)


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
        ([nn.Softplus(threshold=1)], r"stage 3 has no inverse: Softplus needs a positive beta and a threshold of"),
        ([nn.Softplus(-1.0)], r"stage 3 has no inverse: Softplus needs a positive beta"),
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

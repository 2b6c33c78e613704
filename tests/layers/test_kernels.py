"""Each library's products, tanh and norms against double precision, and how one chooses among the libraries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import neurodyn as nd
from neurodyn.layers import kernels
from neurodyn.models import activation_relaxation as ar
from tests.processes import run


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    nd.kernels()


@pytest.fixture(params=kernels.LIBRARIES)
def _library(request: pytest.FixtureRequest) -> None:
    nd.kernels(request.param)


ONEDNN = pytest.mark.skipif("onednn" not in kernels.LIBRARIES, reason="this PyTorch is without it")
BY_EACH = pytest.mark.usefixtures("_library")
SHAPES = [(64, 300, 300), (7, 600, 500), (300, 64, 784), (1, 2000, 1100), (2, 3, 4)]


def matrices(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return (
        torch.randn(rows, inputs, generator=generator),
        torch.randn(outputs, inputs, generator=generator),
        torch.randn(outputs, generator=generator),
    )


def transposed(matrix: Tensor) -> Tensor:
    """Return the same matrix, laid out by columns."""
    return matrix.t().contiguous().t()


def first_columns(matrix: Tensor) -> Tensor:
    """Return the same matrix as a part of a wider one."""
    return torch.cat([matrix, torch.full_like(matrix, torch.nan)], dim=1)[:, : matrix.shape[1]]


def spread(matrix: Tensor) -> Tensor:
    """Return the same matrix with gaps between the numbers of a row."""
    return matrix.repeat_interleave(2, dim=1)[:, ::2]


LAYOUTS = [torch.clone, transposed, first_columns, spread]


@BY_EACH
@pytest.mark.parametrize(
    ("sizes", "of_x", "of_weight"),
    # Every pair of layouts for one size, and every layout for all.
    [(sizes, a, b) for sizes in SHAPES for a in LAYOUTS for b in LAYOUTS if a is b or sizes == SHAPES[0]],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_layouts_and_sizes_give_the_product(sizes, of_x, of_weight):
    x, weight, bias = matrices(*sizes)
    expected = x.double() @ weight.double().t() + bias.double()
    found = kernels.linear(of_x(x), of_weight(weight), bias)
    rounding = 3e-7 * (x.abs().double() @ weight.abs().double().t() + bias.abs()).max()
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= rounding
    out = torch.ones_like(found)
    kernels.add_linear(of_x(x), of_weight(weight), out, -2.0)
    assert (out - (1.0 - 2.0 * (expected - bias))).abs().max() <= 4 * rounding


@BY_EACH
@pytest.mark.parametrize("expanded", ["x", "weight"])
def test_a_matrix_of_one_repeated_row(expanded):
    x, weight, _ = matrices(64, 300, 300)
    x, weight = (x[:1].expand(64, 300), weight) if expanded == "x" else (x, weight[:1].expand(300, 300))
    found = kernels.linear(x, weight)
    assert (found - x.double() @ weight.double().t()).abs().max() <= 1e-4


@ONEDNN
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own switch warns
def test_switched_off_it_is_pytorchs_own_product():
    nd.kernels("onednn")
    x, weight, bias = matrices(64, 300, 300)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(kernels.linear(x, weight, bias), torch.addmm(bias, x, weight.t()))


@BY_EACH
def test_double_precision_keeps_its_digits():
    x, weight, bias = (value.double() for value in matrices(64, 300, 300))
    torch.testing.assert_close(kernels.linear(x, weight, bias), torch.addmm(bias, x, weight.t()), rtol=0, atol=1e-11)


@BY_EACH
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_it_is_the_same_product():
    x, weight, bias = matrices(64, 300, 300)
    compiled = torch.compile(kernels.linear, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), kernels.linear(x, weight, bias), rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 7, 8, 20])
@pytest.mark.parametrize("window", [(2, 2, 0, 1, False), ((3, 2), 2, 1, (1, 2), True)])
def test_of_equal_units_the_first_is_the_maximum(channels: int, window: tuple[Any, ...]) -> None:
    x = torch.randint(0, 3, (4, channels, 7, 9), generator=torch.Generator().manual_seed(0)).float()
    maxima, places = kernels.max_pool2d(x, *window)
    expected = functional.max_pool2d(x[1].double(), *window, return_indices=True)  # one by one
    assert torch.equal(maxima[1].double(), expected[0])
    assert torch.equal(places[1], expected[1])
    assert maxima.is_contiguous()
    assert places.is_contiguous()


@BY_EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tanh(dtype, layout):
    tiny = torch.finfo(dtype).tiny
    special = torch.tensor([0.0, -0.0, torch.inf, tiny], dtype=dtype)
    x = torch.cat([torch.linspace(-20, 20, 996, dtype=dtype), torch.logspace(-30, 1, 200, dtype=dtype), special])
    x = layout(x.view(30, 40))
    expected = torch.tanh(x.double())
    for found in (kernels.tanh(x), kernels.tanh(x, torch.empty_like(x)), kernels.tanh(x, torch.empty(3, dtype=dtype))):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert kernels.tanh(torch.tensor([torch.nan], dtype=dtype)).isnan().all()


@BY_EACH
def test_tanh_has_no_graph():
    x = torch.ones(3, requires_grad=True)
    found = kernels.tanh(x)
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.tanh(x.detach()))


@BY_EACH
def test_compiled_tanh_is_pytorchs():
    compiled = torch.compile(kernels.tanh, backend="aot_eager", fullgraph=True)
    x = torch.linspace(-2, 2, 50)
    torch.testing.assert_close(compiled(x), torch.tanh(x))


@BY_EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scaled_norm(dtype):
    generator = torch.Generator().manual_seed(0)
    error, x, y = (torch.randn(50, generator=generator).to(dtype) for _ in range(3))
    wide = [each.double() for each in (error, x, y)]
    expected = torch.linalg.vector_norm(wide[0] / (0.3 + torch.maximum(wide[1].abs(), wide[2].abs())))
    found, finite = kernels.ScaledNorm(x, 0.3)(error, x, y, x[:0])
    assert found == pytest.approx(float(expected), rel=20 * torch.finfo(dtype).eps)
    assert finite


@BY_EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("where", ["x", "y", "also"])
def test_the_scaled_norm_sees_what_is_not_finite(dtype, bad, where):
    given = dict(zip(["error", "x", "y", "also"], torch.ones(4, 7, dtype=dtype), strict=True))
    scaled_norm = kernels.ScaledNorm(given["x"], 0.3)
    given[where][3] = bad
    assert not scaled_norm(**given)[1]
    given[where][3] = 1.0
    given["error"][3] = bad
    norm, finite = scaled_norm(**given)
    assert not math.isfinite(norm)
    assert finite


@pytest.mark.parametrize("size", [0, 1, 32768, 32769, 262144, 262145])
def test_pieces_are_the_whole(size):
    flat = torch.arange(float(size))
    parts = kernels.pieces(flat)
    assert torch.equal(torch.cat(parts), flat)
    for part in parts:
        part += 1
    assert torch.equal(flat, torch.arange(float(size)) + 1)


@ONEDNN
def test_plain_pytorch_is_the_default_and_each_run_tells_what_it_took() -> None:
    network, x, t = ar.network(nd.mlp([3, 4, 2])), torch.rand(5, 3), torch.rand(5, 2)
    assert nd.simulate(network, x, t, duration=1.0).attrs["kernels"] == "torch"
    nd.kernels("onednn")
    assert nd.simulate(network, x, t, duration=1.0).attrs["kernels"] == "onednn"
    assert nd.train.fit(network, (x, t), epochs=1).attrs["kernels"] == "onednn"
    nd.kernels()
    assert nd.equilibrium(network, x, t).attrs["kernels"] == "torch"


@ONEDNN
def test_what_is_chosen_computes() -> None:
    x, weight, _ = matrices(64, 300, 300)
    by_torch = kernels.linear(x, weight)
    assert torch.equal(by_torch, torch.nn.functional.linear(x, weight))
    nd.kernels("onednn")
    assert torch.equal(kernels.linear(x, weight), kernels.by_onednn(x, weight, None))


@pytest.mark.parametrize(
    ("library", "error"),
    [(name, ValueError) for name in ("cublas", "numpy", "onednn, torch", "onednn,", "")]
    + [(3, TypeError), (None, TypeError)],
)
def test_an_unknown_library_is_refused_and_changes_nothing(library, error) -> None:
    chosen = kernels.LIBRARIES[-1]
    nd.kernels(chosen)
    with pytest.raises(error, match=r"kernels: (.* is no library; |a library is named)"):
        nd.kernels(library)
    assert kernels.kernels_in_use() == chosen


def test_a_pytorch_without_the_operator_refuses_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LIBRARIES", ("torch",))
    with pytest.raises(ValueError, match="'onednn' is not part of this build of PyTorch; there is 'torch'"):
        nd.kernels("onednn")


@ONEDNN
def test_the_environment_names_libraries_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from neurodyn.layers.kernels import kernels_in_use; print(kernels_in_use())"
    assert run("-c", code, NEURODYN_KERNELS="onednn").stdout == "onednn\n"
    monkeypatch.setenv("NEURODYN_KERNELS", "mkl")
    with pytest.raises(ValueError, match="NEURODYN_KERNELS: kernels: 'mkl' is no library"):
        kernels.from_environment()


@ONEDNN
def test_a_checkpoint_is_gone_on_with_by_the_same_libraries(tmp_path: Path) -> None:
    def fit(epochs: int) -> None:
        network = ar.network(nd.mlp([3, 4, 2]))
        nd.train.fit(network, (torch.rand(5, 3), torch.rand(5, 2)), epochs=epochs, checkpoint=tmp_path / "run")

    torch.manual_seed(0)
    fit(1)
    torch.manual_seed(0)
    nd.kernels("onednn")
    with pytest.raises(ValueError, match="its kernels was 'torch', and now is 'onednn'"):
        fit(2)

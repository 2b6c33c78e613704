"""What cannot be part of a stage is refused by name."""

import pytest
import torch
from torch import nn

import neurodyn as nd
from tests.stacks import Residual


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


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_weights_in_a_dense_layer_are_refused() -> None:
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse_csr(), requires_grad=False)
    with pytest.raises(TypeError, match=r"weight of Linear has the layout .* a sparse linear layer is nd.SparseLinear"):
        nd.Forward(nn.Sequential(nn.Tanh(), layer))


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


@pytest.mark.parametrize("module", [nn.Module(), nn.ModuleList([nn.Linear(3, 2)]), nn.ParameterList()], ids=str)
def test_a_module_that_computes_nothing_is_refused(module: nn.Module) -> None:
    for take in (nd.cut, nd.Stage, nd.Forward):
        with pytest.raises(TypeError, match=rf"{type(module).__name__} defines no forward\(\)"):
            take(module)

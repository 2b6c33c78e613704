"""Which path computes a layer: one written by hand, or `torch.autograd`."""

from __future__ import annotations

from torch import nn

from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.kinds import is_rewritten
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.points import (
    ActivationPoint,
    AutogradPoint,
    Conv2dPoint,
    FirstUnitsPoint,
    FlattenPoint,
    LayerPoint,
    LinearPoint,
    MaxPool2dPoint,
    SparseLinearPoint,
)
from neurodyn.layers.sparse import SparseLinear
from neurodyn.layers.stacked import Stacked
from neurodyn.layers.stacked_points import StackedConv2dPoint, StackedLinearPoint

_PARAMETERS = {nn.Linear: {"weight", "bias"}, nn.Conv2d: {"weight", "bias"}, SparseLinear: {"values", "bias"}}
"""Of which parameters the paths written by hand have the gradients; of other layers, of none."""
_NONE: set[str] = set()


def layer_point(layer: nn.Module) -> LayerPoint:
    """Choose the fastest `LayerPoint` for a layer."""
    if isinstance(layer, Stacked):
        kind = {LinearPoint: StackedLinearPoint, Conv2dPoint: StackedConv2dPoint}.get(type(layer_point(layer.member)))
        return AutogradPoint(layer) if kind is None else kind(layer)
    if is_rewritten(layer) or layer._parameters.keys() != _PARAMETERS.get(type(layer), _NONE) or layer._modules:
        return AutogradPoint(layer)  # pruning, for one, makes the weights in a hook
    if type(layer) is nn.Linear:
        return LinearPoint(layer)
    if type(layer) is SparseLinear:
        return SparseLinearPoint(layer)
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return Conv2dPoint(layer, layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    if type(layer) in ACTIVATIONS:
        return ActivationPoint(layer)
    if type(layer) is nn.MaxPool2d and not layer.return_indices:
        return MaxPool2dPoint(layer)
    if type(layer) in (nn.Flatten, nn.Unflatten):
        return FlattenPoint(layer)
    return FirstUnitsPoint(layer) if type(layer) is FirstUnits else AutogradPoint(layer)

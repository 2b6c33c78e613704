"""What kind of layer a layer is: affine, an activation, smooth, and whether it computes what its class says."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import activation as torch_activations

from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.origin import METHODS
from neurodyn.layers.sparse import SparseLinear

_NOT_ELEMENTWISE = {"GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
_TORCH_ACTIVATIONS = tuple(
    getattr(torch_activations, name) for name in torch_activations.__all__ if name not in _NOT_ELEMENTWISE
)
_MAXIMA: tuple[type[nn.Module], ...] = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_MEANS: tuple[type[nn.Module], ...] = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
_KINKED = (
    *(kind for kind, activation in ACTIVATIONS.items() if activation.kinked),
    *(nn.ReLU6, nn.PReLU, nn.RReLU, nn.Threshold),
    *(nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink),
    *_MAXIMA,
)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_SAMPLE_BY_SAMPLE = {*ACTIVATIONS, *_TORCH_ACTIVATIONS, *_MAXIMA, *_MEANS, nn.Flatten, nn.Unflatten, FirstUnits} - {
    nn.PReLU
}
_AFFINE = (nn.Linear, SparseLinear, nn.Conv2d, nn.Flatten, nn.Unflatten, nn.Identity, nn.AvgPool2d, FirstUnits)


def is_activation(layer: nn.Module) -> bool:
    """Tell whether a layer is an elementwise nonlinearity, as one places the cut of a stage by them."""
    return isinstance(layer, (*ACTIVATIONS, *_TORCH_ACTIVATIONS))


def is_affine(layer: nn.Module) -> bool:
    """Tell whether a layer is an affine function of its input, so that its Jacobian is the same everywhere."""
    return any(computes(layer, kind) for kind in _AFFINE)


def is_smooth(layer: nn.Module) -> bool:
    """Tell whether no part of a layer is known to have a kink, where its derivative jumps."""
    return not any(isinstance(part, _KINKED) for part in layer.modules())


def bend_of(layer: nn.Module) -> float | None:
    """Return by how much f' is larger above 0 than below; None of a layer that is not known to bend there alone."""
    activation = ACTIVATIONS.get(type(layer))
    return None if activation is None or activation.bend is None or not is_plain(layer) else activation.bend(layer)


_AS_WRITTEN = {
    kind: tuple(getattr(kind, name, None) for name in METHODS)
    for kind in (nn.Sequential, nn.MaxPool2d, *ACTIVATIONS, *_AFFINE)
}
"""What a call of a layer runs, as PyTorch wrote it: someone may have put something else in its place since."""


def is_plain(layer: nn.Module) -> bool:
    """Tell whether a layer does what its class says: it has no forward hook, and no method of its own in its place."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return not hooked and not any(name in layer.__dict__ for name in METHODS)


def computes(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Tell whether a layer computes what its class `kind` does: a subclass may, unless it has a forward of its own."""
    if not isinstance(layer, kind) or not is_plain(layer):
        return False
    return tuple(getattr(type(layer), name, None) for name in METHODS) == _AS_WRITTEN[kind]


def is_rewritten(layer: nn.Module) -> bool:
    """Tell whether something computes in the place of a layer whose type says what it computes."""
    return type(layer) in _AS_WRITTEN and not computes(layer, type(layer))


def couples_samples(layer: nn.Module) -> bool:
    """Tell whether a layer is known to make a sample's value of others in its batch, in its present mode."""
    return isinstance(layer, _BATCH_NORMS) and (layer.training or layer.running_mean is None)


def acts_sample_by_sample(layer: nn.Module) -> bool:
    """Tell whether a layer is known to make each sample's value of that sample alone, by no numbers of its own."""
    return type(layer) in _SAMPLE_BY_SAMPLE and is_plain(layer)

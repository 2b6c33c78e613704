"""What may be part of a stage: containers are taken apart, and what has no value or Jacobian of a sample is refused."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.kinds import computes, couples_samples
from neurodyn.layers.origin import check_backward_hooks

_REFUSED: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.RNNBase, "its output is a tuple with a hidden state; unroll it into single steps"),
    (nn.MultiheadAttention, "it takes three inputs and returns a tuple"),
    (nn.Embedding, "its input is an index, which has no derivative"),
    (nn.Transformer, "it takes two inputs"),
    (torch.jit.ScriptModule, "its layers cannot be seen; give the module that it was made of"),
    (nn.DataParallel, "it spreads the samples itself; give the module that it holds, its .module"),
    (nn.parallel.DistributedDataParallel, "it averages gradients itself; give the module that it holds, its .module"),
)
_ALWAYS_FIT = {nn.Linear, nn.Conv2d, *ACTIVATIONS}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def check_layer(layer: nn.Module, stage: str) -> None:
    """Refuse a layer that cannot be part of a stage in its present mode (training or evaluation); `stage` names it."""
    if type(layer) in _ALWAYS_FIT and not layer._forward_pre_hooks:
        _check_layout(layer, stage)
        return
    for part in layer.modules():
        name = type(part).__name__
        for kind, reason in _REFUSED:
            if isinstance(part, kind):
                raise InvalidValueError(f"stage {stage}: {name} cannot be part of a stage: {reason}")
        if couples_samples(part):
            raise InvalidValueError(
                f"stage {stage}: {name} in training mode couples the samples of a batch, so that a sample has no "
                "Jacobian of its own; call .eval() on the module, or use LayerNorm or GroupNorm"
            )
        if any(nn.parameter.is_lazy(p) for p in part.parameters(recurse=False)):
            raise InvalidValueError(
                f"stage {stage}: {name} does not know its sizes yet; run the module once on a batch of inputs before"
            )
        if part.training and (isinstance(part, nn.RReLU) or (isinstance(part, _DROPOUTS) and part.p > 0)):
            raise InvalidValueError(
                f"stage {stage}: {name} in training mode gives another value at every evaluation; call .eval() on the "
                "module or remove the layer"
            )
        before = part._forward_pre_hooks.values()
        if part.training and any(isinstance(each, (_SpectralNorm, SpectralNorm)) for each in (part, *before)):
            raise InvalidValueError(
                f"stage {stage}: spectral_norm in training mode changes the weights at every evaluation; call .eval() "
                "on the module"
            )
        _check_layout(part, stage)
        check_backward_hooks(part)


def _check_layout(layer: nn.Module, stage: str) -> None:
    for name, parameter in layer._parameters.items():
        if parameter is not None and parameter.layout != torch.strided:
            raise InvalidTypeError(
                f"stage {stage}: {name} of {type(layer).__name__} has the layout {parameter.layout}, and must be "
                "dense; a sparse linear layer is nd.SparseLinear(weight, bias)"
            )


def take_apart(layers: Iterable[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Take every nested `nn.Sequential` apart; return the layers in order, and what was taken apart.

    Raises
    ------
    TypeError
        If one is no `nn.Module`.
    ValueError
        If an `nn.Sequential` has hooks, or a forward put in the place of its own, or is compiled: that would be lost.
    """
    flat: list[nn.Module] = []
    taken: list[nn.Module] = []
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise InvalidTypeError(f"a stage is made of nn.Module layers, and {layer!r} is a {type(layer).__name__}")
        if type(layer).forward is nn.Module.forward and "forward" not in vars(layer):
            raise InvalidTypeError(
                f"a stage is made of layers that compute, and {type(layer).__name__} defines no forward(); give an "
                "nn.Sequential of layers"
            )
        compiled = getattr(layer, "_orig_mod", None)
        if compiled is not None:
            raise InvalidValueError(
                f"torch.compile: a compiled {type(compiled).__name__} can neither be taken apart nor "
                "differentiated layer by layer; give the module itself, its ._orig_mod"
            )
        if not isinstance(layer, nn.Sequential) or type(layer).forward is not nn.Sequential.forward:
            flat.append(layer)
            continue
        if not computes(layer, nn.Sequential):
            raise InvalidValueError(
                f"{type(layer).__name__} has a forward hook, or a forward put in the place of its own, which would be "
                "lost as it is taken apart into layers; put it on one of the layers, or into a module of your own"
            )
        check_backward_hooks(layer)
        inner, more = take_apart(layer)
        flat += inner
        taken += [layer, *more]
    return flat, taken

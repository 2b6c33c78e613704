"""What tells whether the layers of a network are as they were."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from neurodyn.layers.kernels import kernels_in_use
from neurodyn.layers.origin import global_hooks_are_on, look
from neurodyn.network.network import Network

_MODULES: WeakKeyDictionary[Network, list[nn.Module]] = WeakKeyDictionary()


def marks(network: Network) -> tuple[object, ...]:
    """Return what tells whether a network's layers are as they were: parts, settings, hooks, and tensors' memory.

    And what computes them, and whether modules are as they were when stages were made of them.

    It names objects by their `id`, which are those objects' own as long as they live.
    """
    found: list[object] = [kernels_in_use(), torch.backends.mkldnn.enabled, global_hooks_are_on()]
    modules = _MODULES.get(network)
    if modules is None:
        modules = _MODULES[network] = _modules(network)
    for module in modules:
        _mark(module, found)
    for _, tensor in network.feedback_parameters():
        found += (id(tensor), tensor.data_ptr(), tensor.requires_grad)
    found += [tensor._version for _, tensor in network.tensors]  # of which a plan keeps what it has made
    return tuple(found)


def _modules(network: Network) -> list[nn.Module]:
    """Return what the stages were made of, and their layers, without those that are parts of others."""
    layers = (layer for stage in network.stages for layer in stage.layers)
    found: list[nn.Module] = []
    parts: set[nn.Module] = set()
    for module in (*(each for origin in network.origins for each in origin.modules), *layers):
        if module not in parts:
            found.append(module)
            parts.update(module.modules())
    return found


def _mark(module: nn.Module, found: list[object]) -> None:
    # The dictionaries themselves: PyTorch's own walk through a module takes longer than a small gradient.
    found += (id(module), module.training, bool(module._backward_hooks), bool(module._backward_pre_hooks))
    found += look(module)
    found += map(module.__dict__.get, getattr(type(module), "__constants__", ()))
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            found += (id(tensor), tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.requires_grad)
    for part in module._modules.values():
        if part is not None:
            _mark(part, found)

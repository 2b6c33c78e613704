"""What tells whether the layers of a network are as they were."""

from __future__ import annotations

import torch
from torch import nn

from neurodyn.layers.kernels import kernels_in_use
from neurodyn.network.network import Network


def marks(network: Network) -> tuple[object, ...]:
    """Return what tells whether a network's layers are as they were: parts, settings, hooks, and tensors' memory.

    And what computes them.

    It names objects by their `id`, which are those objects' own as long as they live.
    """
    found: list[object] = [kernels_in_use(), torch.backends.mkldnn.enabled]
    for stage in network.stages:
        for layer in stage.layers:
            _mark(layer, found)
    for _, tensor in network.feedback_parameters():
        found += (id(tensor), tensor.data_ptr(), tensor.requires_grad)
    found += [tensor._version for _, tensor in network.tensors]  # of which a plan keeps what it has made
    return tuple(found)


def _mark(module: nn.Module, found: list[object]) -> None:
    # The dictionaries themselves: PyTorch's own walk through a module takes longer than a small gradient.
    found += (id(module), module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
    found += map(module.__dict__.get, getattr(type(module), "__constants__", ()))
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            found += (id(tensor), tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.requires_grad)
    for part in module._modules.values():
        if part is not None:
            _mark(part, found)

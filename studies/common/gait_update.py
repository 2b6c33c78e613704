"""GAIT-prop's update beside backprop's: how far it has turned away, and what turns it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from common.training import Learning, angle, loss
from neurodyn.models import target_propagation as tp

GAMMA = 1e-3
"""The paper's γ."""
AS_IT_IS, SMALLER, SINGLE, ROWS, ALL = "as it is", "γ / 1000", "float32", "rows orthogonal", "W orthogonal"
CHANGES = (AS_IT_IS, SMALLER, SINGLE, ROWS, ALL)
"""What may turn the update from backprop's: the targets' step, the precision of inverses, or the weights."""

Name = Literal["bp", "tp", "gait"]


def modules(learning: Learning) -> nn.Sequential:
    """Return the layers of what learns."""
    if isinstance(learning, nd.Network):
        return nn.Sequential(*(layer for stage in learning.forward for layer in stage.layers))
    assert isinstance(learning, nn.Sequential)
    return learning


def orthogonality(learning: Learning) -> float:
    """Return ‖W Wᵀ − diag(W Wᵀ)‖ / ‖W Wᵀ‖, the mean of the layers."""
    found = []
    for weight in (part.detach() for part in matrices(modules(learning))):
        square = weight @ weight.T
        found.append(float((square - square.diagonal().diag()).norm() / square.norm()))
    return float(np.mean(found))


def turned(networks: Sequence[Learning], seeds: Sequence[int], probe: Sequence[Tensor]) -> xr.Dataset:
    """Return the angle of GAIT-prop's update to backprop's with each change, and the condition of the weights.

    Parameters
    ----------
    networks, seeds
        That GAIT-prop has trained.
    probe
        Inputs and targets on which updates are compared.
    """
    angles, conditions = [], []
    for module in map(modules, networks):
        rows, both = deepcopy(module), deepcopy(module)
        condition = []
        for weight, in_rows, in_both in zip(*map(matrices, (module, rows, both)), strict=True):
            u, s, v = torch.linalg.svd(weight.detach())
            condition.append(float(s[0] / s[-1]))
            in_both.data.copy_(u @ v)
            in_rows.data.copy_(weight.detach().norm(dim=1, keepdim=True) * (u @ v))
        conditions.append(max(condition))
        trials: dict[str, tuple[nn.Sequential, float]] = {
            AS_IT_IS: (module, GAMMA),
            SMALLER: (module, GAMMA / 1000),
            SINGLE: (deepcopy(module).float(), GAMMA),
            ROWS: (rows, GAMMA),
            ALL: (both, GAMMA),
        }
        angles.append([update_angle("gait", probe, *trials[change]) for change in CHANGES])
    return xr.Dataset(
        {
            "angle": (("seed", "change"), angles, {"units": "degree"}),
            "condition": ("seed", conditions, {"units": "1", "long_name": "largest condition of a layer's W"}),
        },
        {"seed": list(seeds), "change": list(CHANGES)},
    )


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of all layers."""
    return [part for part in module.parameters() if part.ndim == 2]


def update_angle(name: Name, probe: Sequence[Tensor], learning: Learning, gamma: float = GAMMA) -> float:
    """Return the angle between a rule's update and backprop's, both without regularizer, in degrees.

    It is the mean of the layers, and NaN for backprop.
    """
    if name == "bp":
        return np.nan
    module = modules(learning)
    weights = matrices(module)
    inputs, targets = (part.to(weights[0]) for part in probe)
    exact = torch.autograd.grad(loss(module, inputs, targets), weights)
    module.zero_grad()
    nd.backward(tp.network(module, rule=name, gamma=gamma), inputs, targets)
    angles = [angle(part.grad, one) for part, one in zip(weights, exact, strict=True) if part.grad is not None]
    module.zero_grad()
    return float(np.mean(angles))

"""Every declared rule as a value: it pickles, as Dask and multiprocessing need it, and its maps compare."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp


def mlp() -> nn.Sequential:
    return nd.mlp([6, 5, 4])


def tower() -> nn.Sequential:
    return tp.tower([6, 6, 4])


class Residual(nn.Module):
    """Attention, a recurrent layer whose state starts from zeros, normalisation and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(2), nn.Dropout(0.5)
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
        self.recur = nn.LSTM(2, 3, batch_first=True)
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.unflatten(1, (3, 2)))
        x = x + self.drop(self.attend(x, x, x)[0])
        y: Tensor = self.out(self.recur(x)[0][:, -1])
        return y


def with_rule(declare: Callable[..., nd.Network], **rule: str) -> nd.Network:
    return declare(tower(), **rule)


DECLARED: dict[str, Callable[[], nd.Network]] = {
    "AR": lambda: ar.network(mlp()),
    "AR simplified": lambda: ar.network(
        mlp(), feedback="learned", relaxation_derivative="none", weight_derivative="live", output="relaxing"
    ),
    "AR of a CNN": lambda: ar.network(
        nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, (1, 2)), nn.Flatten(), nn.Linear(8, 4))
    ),
    "AR on a graph": lambda: ar.graph(Residual().eval(), torch.zeros(2, 6)),
    **{f"PC {rule}": partial(with_rule, pc.network, learning=rule) for rule in ("il", "z-il", "fa-z-il")},
    "PC, relaxing errors, noisy start": lambda: pc.network(mlp(), error_tau=0.1, initial_noise=0.1),
    **{f"{rule} target propagation": partial(with_rule, tp.network, rule=rule) for rule in ("tp", "itp", "gait")},
    "naive GAIT": lambda: tp.network(tower(), rule="gait", gamma=0.1, form="naive"),
    **{f"{rule} weak feedback": partial(with_rule, tp.weak_feedback, rule=rule) for rule in ("itp", "gait")},
    "regularised": lambda: tp.network(tower()).regularized(nd.Orthogonality(0.1)),
}


@cache
def declared(name: str) -> nd.Network:
    """Return a network whose weights are not to be changed."""
    return DECLARED[name]()


@pytest.mark.parametrize("name", DECLARED)
def test_a_declaration_pickles(name: str) -> None:
    network = declared(name)
    restored = pickle.loads(pickle.dumps(network))
    assert str(restored) == str(network)
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(3, 6, generator=generator), torch.randn(3, 4, generator=generator)
    runs, gradients = [], []
    for each in (network, restored):
        torch.manual_seed(0)
        record = [*(p.name for p in each.populations), *each.observables]
        runs.append(nd.simulate(each, x, t, duration=1.0, solver=nd.Euler(0.25), record=record))
        nd.backward(each, x, t)
        gradients.append([p.grad for stage in each.stages for p in stage.parameters])
    xr.testing.assert_identical(*runs)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", DECLARED)
def test_maps_are_values(name: str) -> None:
    network = declared(name)
    for coupling in network.couplings:
        again = copy.copy(coupling.map)
        assert again == coupling.map
        assert hash(again) == hash(coupling.map)
        if coupling.map.stage is not None:
            with pytest.raises(AttributeError, match="cannot assign to field 'stage'"):
                coupling.map.stage = nd.Stage(nn.Tanh())


def test_maps_of_other_settings_differ() -> None:
    stage = nd.Stage(nn.Linear(3, 3))
    maps = [
        nd.Identity(),
        nd.Forward(stage),
        nd.Forward(nd.Stage(nn.Linear(3, 3))),
        nd.Feedback(stage),
        nd.Feedback(stage, "live"),
        nd.Feedback(stage, derivative=False),
        nd.Inverse(stage),
        nd.InverseDeviation(stage, 0.1),
        nd.InverseDeviation(stage, 0.2),
        nd.ForwardDeviation(stage, 0.1),
        nd.Modulated(nd.Identity(), stage, 2),
        nd.Modulated(nd.Identity(), stage, -2),
    ]
    assert len(set(maps)) == len(maps)

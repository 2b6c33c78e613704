"""Networks trained at once follow the courses that each would follow by itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.layers.points import layer_point
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.system.stacking import Stacked
from tests.training import RULES, Learning, classes, distance, equal, mlp, parameters, tower

SEEDS = (3, 0, 7)
ITERATIONS = ("relaxation_iterations", "relaxation_iterations_by_iteration")
"""Stacked relaxations take the same steps."""


def cnn(seed: int, norm: bool = True) -> nn.Sequential:
    """Return a network with pooling, a grouped convolution and a layer without a path of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (2, 1, 3)),
            nn.Conv2d(2, 4, (1, 2), padding=(0, 1), groups=2),
            nn.Tanh(),
            nn.AvgPool2d((1, 2)),
            nn.Flatten(),
            nn.LayerNorm(8) if norm else nn.Identity(),
            nn.Linear(8, 4),
        ).double()


def normalised(seed: int) -> nn.Sequential:
    """Return a network with buffers."""
    return mlp(seed).insert(1, nn.BatchNorm1d(7, dtype=torch.float64))


DECLARED: dict[str, Callable[[int], Learning]] = {
    **RULES,
    "CNN by backprop": cnn,
    "AR of a CNN": lambda seed: ar.network(cnn(seed)),
    "AR simplified of a CNN": lambda seed: ar.network(cnn(seed, norm=False), feedback="learned", seed=seed),
    "AR, relaxing output, live derivatives": lambda seed: ar.network(
        mlp(seed), output="relaxing", feedback="learned", weight_derivative="live", presynaptic="live", seed=seed
    ),
    "AR on a graph": lambda seed: ar.graph(mlp(seed), torch.zeros(2, 6, dtype=torch.float64)),
    "Z-IL of a CNN": lambda seed: pc.network(cnn(seed), learning="z-il"),
    "TP": lambda seed: tp.network(tower(seed), rule="tp"),
    "naive GAIT": lambda seed: tp.network(tower(seed), rule="gait", gamma=0.1, form="naive"),
    "weak feedback": lambda seed: tp.weak_feedback(tower(seed), rule="gait", gamma=0.1),
    "batch normalisation": normalised,
    "IL of several γ": lambda seed: pc.network(mlp(seed), step=0.1 + 0.1 * seed, steps=8),
    "Z-IL of several γ": lambda seed: pc.network(mlp(seed), learning="z-il", step=0.2 * (seed + 1)),
    "Fa-Z-IL of several γ": lambda seed: pc.network(mlp(seed), learning="fa-z-il", step=0.2 * (seed + 1), steps=5),
    "GAIT of several γ": lambda seed: tp.network(tower(seed), rule="gait", gamma=0.01 * (seed + 1)),
    "AR simplified of several gains": lambda seed: of_gain(
        ar.network(mlp(seed), feedback="learned", seed=seed), 1.0 - 0.1 * seed
    ),
}


def of_gain(network: nd.Network, gain: float) -> nd.Network:
    """Return a network whose feedback has another gain."""
    couplings = [replace(c, gain=gain) if c.map.feedback_weights is not None else c for c in network.couplings]
    return network.with_dynamics(network.populations, couplings)


def fit(network: Any, **arguments: Any) -> xr.Dataset:
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, **arguments}
    return nd.train.fit(network, classes(), classes(9, 1), **settings)


@pytest.mark.parametrize("name", DECLARED)
def test_each_seed_equals_its_solo_run(name: str) -> None:
    networks = [DECLARED[name](seed) for seed in SEEDS]
    history = fit(networks, seeds=SEEDS, record=["iterations", "angles"])
    assert history.seed.values.tolist() == list(SEEDS)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = DECLARED[name](seed)
        expected = fit(alone, seed=seed, record=["iterations", "angles"])
        found = history.sel(seed=seed, drop=True)
        assert set(found.data_vars) == set(expected.data_vars)
        for variable in expected.drop_vars(["seconds", *ITERATIONS], errors="ignore").data_vars:
            np.testing.assert_allclose(found[variable], expected[variable], rtol=1e-7, atol=1e-5, err_msg=str(variable))
        assert distance(network, alone) < 1e-8
        assert distance(network, DECLARED[name](seed)) > 0.01


@pytest.mark.parametrize(
    "declare",
    [
        lambda seed: pc.network(mlp(seed), steps="equilibrium"),
        lambda seed: tp.weak_feedback(tower(seed), rule="gait", gamma=0.05 * (seed + 1)),
    ],
    ids=["IL", "weak feedback of several γ"],
)
def test_relaxations_to_a_tolerance_agree_within_it(declare: Callable[[int], nd.Network]) -> None:
    networks = [declare(seed) for seed in SEEDS]
    history = fit(networks, seeds=SEEDS)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = declare(seed)
        np.testing.assert_allclose(history.test_loss.sel(seed=seed), fit(alone, seed=seed).test_loss, rtol=1e-4)
        assert distance(network, alone) < 1e-4


def test_a_relaxation_for_a_duration_has_no_steps_of_inference() -> None:
    def declare(seed: int) -> nd.Network:
        return pc.network(mlp(seed), step=0.1 + 0.1 * seed)

    relaxed = {"duration": 1.0, "solver": nd.Euler(0.1)}
    networks = [declare(seed) for seed in SEEDS]
    fit(networks, seeds=SEEDS, **relaxed)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = declare(seed)
        fit(alone, seed=seed, **relaxed)
        assert distance(network, alone) < 1e-8


def test_single_precision() -> None:
    networks = [ar.network(mlp(seed, torch.float32)) for seed in SEEDS]
    history = fit(networks, seeds=SEEDS)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = ar.network(mlp(seed, torch.float32))
        np.testing.assert_allclose(history.test_loss.sel(seed=seed), fit(alone, seed=seed).test_loss, rtol=1e-4)
        assert distance(network, alone) < 1e-4


def test_seeds_draw_their_own_batches() -> None:
    history = fit([mlp(0), mlp(0)], seeds=[1, 2], record=["iterations"])
    first = history.train_loss_by_iteration.isel(iteration=0)
    assert abs(float(first[0] - first[1])) > 1e-3


def test_one_seed_is_an_ensemble_of_one() -> None:
    network, alone = mlp(4), mlp(4)
    history = fit([network], seeds=[4])
    assert history.test_loss.dims == ("seed", "epoch")
    expected = fit(alone, seed=4)
    found = history.sel(seed=4, drop=True).drop_vars("seconds")
    xr.testing.assert_allclose(found, expected.drop_vars("seconds"), rtol=1e-7)
    assert distance(network, alone) < 1e-8


def test_afterwards_the_networks_are_their_own_again() -> None:
    networks = [RULES["AR simplified"](seed) for seed in SEEDS]
    fit(networks, seeds=SEEDS)
    tensors = [parameter for network in networks for parameter in parameters(network)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("name", ["backprop", "AR simplified", "GAIT", "batch normalisation"])
def test_an_ensemble_goes_on_where_it_stopped(name: str, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(history: xr.Dataset) -> None:
        if history.sizes["epoch"] == 2:
            raise Stop

    whole, networks = ([DECLARED[name](seed) for seed in SEEDS] for _ in range(2))
    history = fit(whole, seeds=SEEDS)
    with pytest.raises(Stop):
        fit([DECLARED[name](seed) for seed in SEEDS], seeds=SEEDS, checkpoint=tmp_path, callbacks=[stop])
    resumed = fit(networks, seeds=SEEDS, checkpoint=tmp_path, resume="always")
    xr.testing.assert_equal(resumed.drop_vars("seconds"), history.drop_vars("seconds"))
    assert all(equal(a, b) for a, b in zip(networks, whole, strict=True))
    with pytest.raises(ValueError, match="its seeds was '3, 0, 7', and now is '3, 0'"):
        fit([DECLARED[name](seed) for seed in SEEDS[:2]], seeds=SEEDS[:2], checkpoint=tmp_path)


class Sum(nn.Module):
    """Reads two values."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(inputs, outputs, dtype=torch.float64) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) + self.second(y)


@pytest.mark.parametrize(
    "member",
    [
        lambda: nn.Linear(5, 3, dtype=torch.float64),
        lambda: nn.Linear(5, 3, bias=False, dtype=torch.float64),
        lambda: Sum(5, 3),
        lambda: nn.Sequential(nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 3)).double(),
    ],
)
def test_a_stacked_layer_is_its_members_side_by_side(member: Callable[[], nn.Module]) -> None:
    members = [member() for _ in SEEDS]
    blocks = [torch.randn(4, 5, dtype=torch.float64) for _ in SEEDS]
    arguments = 2 if isinstance(members[0], Sum) else 1
    v = torch.randn(12, 3, dtype=torch.float64)
    expected, onto = [], []
    for own, block, part in zip(members, blocks, v.chunk(3), strict=True):
        x = [block.clone().requires_grad_() for _ in range(arguments)]
        value = own(*x)
        expected.append(value.detach())
        onto.append(torch.autograd.grad(value, [*own.parameters(), *x], part))
    stacked = Stacked(members)
    x = [torch.cat(blocks)] * arguments
    point = layer_point(stacked)
    torch.testing.assert_close(stacked(*x).detach(), torch.cat(expected))
    torch.testing.assert_close(point.forward(*x), torch.cat(expected))
    gradients = [torch.stack(each) for each in zip(*onto, strict=True)]
    count = len(list(stacked.parameters()))
    for found, gradient in zip(point.gradient(x[0], v), gradients[:count], strict=True):
        torch.testing.assert_close(found, gradient)
    if arguments == 1:
        torch.testing.assert_close(point.feedback(v), gradients[count].flatten(0, 1))
        out = torch.ones_like(x[0])
        point.add_feedback(v, out, -2.0)
        torch.testing.assert_close(out, 1 - 2 * gradients[count].flatten(0, 1))
    else:
        for place in range(arguments):
            torch.testing.assert_close(point.feedback_to(place, v), gradients[count + place].flatten(0, 1))


class Centred(nn.Module):
    """Looks at more than one sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Times(nd.Map):
    """Holds a tensor of its own that is no parameter."""

    linear = True

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def apply(self, source: Tensor) -> Tensor:
        return source * self.factor


def scaled(seed: int) -> nd.Network:
    network = RULES["AR"](seed)
    assert isinstance(network, nd.Network)
    torch.manual_seed(seed)
    factor = torch.rand(7, dtype=torch.float64)
    couplings = [nd.Coupling("x1", "again", Times(factor)), nd.Coupling("again", "x1")]
    more = [nd.Population("again", 7, tau=0.0)]
    return nd.Network(
        "scaled",
        [*network.populations, *more],
        [*network.couplings, *couplings],
        network.plasticity,
        forward=network.forward,
    )


def with_feedback_at(seed: int, point: Literal["frozen", "live"]) -> nd.Network:
    """Return a network of predictive coding whose Jacobians are taken at another point, which first gradients hide."""
    network = pc.network(mlp(seed), steps=2, step=0.001)
    couplings = [
        replace(c, map=nd.Feedback(c.map.stage, point)) if isinstance(c.map, nd.Feedback) else c
        for c in network.couplings
    ]
    return network.with_dynamics(network.populations, couplings)


ONE = mlp()


@pytest.mark.parametrize(
    ("declare", "arguments", "message"),
    [
        (lambda seed: pc.network(mlp(seed), initial_noise=0.1), {}, "draw random numbers"),
        (lambda seed: ar.network(mlp(seed).append(Centred())), {}, "does not learn among others as it does by itself"),
        (scaled, {}, "does not learn among others as it does by itself"),
        (lambda seed: ar.network(ONE), {}, "share parameters"),
        (lambda seed: pc.network(mlp(seed), steps=seed + 1), {}, "differs from that of seed 3 in more than weights"),
        (lambda seed: with_feedback_at(seed, "frozen" if seed else "live"), {}, "differs from that of seed 3 in more"),
        (
            lambda seed: ar.network(mlp(seed), weight_derivative="frozen" if seed else "none"),
            {},
            "differs from that of seed 3 in more than weights",
        ),
        (
            mlp,
            {"optimizer": torch.optim.Adafactor, "learning_rate": None},
            "Adafactor may treat a parameter as a whole",
        ),
        (mlp, {"seeds": [1, 1, 2]}, "each once"),
        (mlp, {"seeds": [1, 2]}, "as many networks as there are seeds"),
        (mlp, {"seed": 1}, "leave seed= out"),
        (mlp, {"seeds": [0, -1, 2]}, "seed must be an integer ≥ 0"),
    ],
)
def test_what_cannot_be_stacked_is_refused(declare: Any, arguments: dict[str, Any], message: str) -> None:
    networks = [declare(seed) for seed in SEEDS]
    before = [parameter.detach().clone() for network in networks for parameter in parameters(network)]
    with pytest.raises(ValueError, match=message):
        fit(networks, **{"seeds": SEEDS, **arguments})
    after = [parameter for network in networks for parameter in parameters(network)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_scheduler_that_watches_the_loss_is_refused() -> None:
    def watching(parameters: Any) -> Any:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    with pytest.raises(ValueError, match="would follow the mean of the seeds"):
        fit([mlp(seed) for seed in SEEDS], seeds=SEEDS, optimizer=watching, learning_rate=None)


def test_a_seed_that_diverges_is_named() -> None:
    networks = [mlp(seed) for seed in SEEDS]
    with torch.no_grad():
        for parameter in networks[1].parameters():
            parameter.mul_(1e200)
    with pytest.raises(nd.train.DivergedError, match="for seed 0"):
        fit(networks, seeds=SEEDS, optimizer="sgd", learning_rate=1.0)

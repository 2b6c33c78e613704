"""Networks trained at once follow the courses that each would follow by itself."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
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
    settings: dict[str, Any] = {"epochs": 2, "record": ["iterations", "angles"]}
    seeds = SEEDS if name in RULES else SEEDS[:2]
    networks = [DECLARED[name](seed) for seed in seeds]
    history = fit(networks, seeds=seeds, **settings)
    assert history.seed.values.tolist() == list(seeds)
    for seed, network in zip(seeds, networks, strict=True):
        alone = DECLARED[name](seed)
        before = [parameter.detach().clone() for parameter in parameters(alone)]
        expected = fit(alone, seed=seed, **settings)
        found = history.sel(seed=seed, drop=True)
        assert set(found.data_vars) == set(expected.data_vars)
        for variable in expected.drop_vars(["seconds", *ITERATIONS], errors="ignore").data_vars:
            np.testing.assert_allclose(found[variable], expected[variable], rtol=1e-7, atol=1e-5, err_msg=str(variable))
        assert distance(network, alone) < 1e-8
        assert max(float((a - b).detach().abs().max()) for a, b in zip(parameters(alone), before, strict=True)) > 0.01


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
    history = fit(networks, seeds=SEEDS, epochs=1)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = declare(seed)
        expected = fit(alone, seed=seed, epochs=1)
        np.testing.assert_allclose(history.test_loss.sel(seed=seed), expected.test_loss, rtol=1e-4)
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


@pytest.mark.parametrize("interrupted", [None, RuntimeError, KeyboardInterrupt])
def test_what_is_learned_is_written_into_the_networks_own_memory(interrupted: type[BaseException] | None) -> None:
    networks = [RULES["AR simplified"](seed) for seed in SEEDS]
    tensors = [parameter for network in networks for parameter in parameters(network)]
    before = [(tensor.data_ptr(), tensor.untyped_storage().data_ptr()) for tensor in tensors]

    def memory() -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor.untyped_storage().data_ptr()) for tensor in tensors]

    def look(history: xr.Dataset) -> None:
        assert memory() == before
        if interrupted is not None and history.sizes["epoch"] == 2:
            raise interrupted

    with nullcontext() if interrupted is None else pytest.raises(interrupted):
        fit(networks, seeds=SEEDS, callbacks=[look])
    assert memory() == before
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = RULES["AR simplified"](seed)
        fit(alone, seed=seed, epochs=3 if interrupted is None else 2)
        assert distance(network, alone) < 1e-8


def test_what_an_interrupted_batch_leaves_is_written_back(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [RULES["AR"](seed) for seed in SEEDS]
    before = [parameter.detach().clone() for network in networks for parameter in parameters(network)]
    steps = iter(range(3))

    class Interrupted(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if next(steps) == 2:
                raise KeyboardInterrupt
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(networks, seeds=SEEDS, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), learning_rate=None)
    after = [parameter for network in networks for parameter in parameters(network)]
    assert all(float((a - b).detach().abs().max()) > 0 for a, b in zip(after, before, strict=True))


def test_callbacks_see_and_change_the_networks_themselves() -> None:
    def halve(network: nn.Module) -> Callable[[xr.Dataset], None]:
        def callback(history: xr.Dataset) -> None:
            with torch.no_grad():
                next(network.parameters()).mul_(0.5)

        return callback

    networks = [mlp(seed) for seed in SEEDS]
    fit(networks, seeds=SEEDS, callbacks=[halve(network) for network in networks])
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = mlp(seed)
        fit(alone, seed=seed, callbacks=[halve(alone)])
        assert distance(network, alone) < 1e-8


@pytest.mark.parametrize("name", ["backprop", "AR"])
def test_what_callbacks_keep_from_learning_learns_no_more(name: str) -> None:
    def fix(*networks: Learning) -> Callable[[xr.Dataset], None]:
        def callback(history: xr.Dataset) -> None:
            for network in networks:
                parameters(network)[2].requires_grad_(history.sizes["epoch"] != 1)  # for one epoch

        return callback

    networks = [RULES[name](seed) for seed in SEEDS]
    fit(networks, seeds=SEEDS, callbacks=[fix(*networks)])
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = RULES[name](seed)
        fit(alone, seed=seed, callbacks=[fix(alone)])
        assert distance(network, alone) < 1e-8
    with pytest.raises(ValueError, match="requires a gradient in some of the networks"):
        fit(networks, seeds=SEEDS, callbacks=[fix(networks[1])])


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
        (lambda seed: pc.network(mlp(seed), initial_noise=0.1), {}, "initial of population x1 draws random numbers"),
        (scaled, {}, "the map of coupling x1 → again is a Times, a class that is no dataclass"),
        (lambda seed: ar.network(ONE), {}, "two networks share parameters: stages.0.0.weight of seed 0"),
        (
            lambda seed: pc.network(mlp(seed), steps=seed + 1),
            {},
            "seed 0 cannot be stacked with the first, of seed 3: the number of steps",
        ),
        (lambda seed: with_feedback_at(seed, "frozen" if seed else "live"), {}, "point of the map of coupling e2 → x1"),
        (
            lambda seed: ar.network(mlp(seed), weight_derivative="frozen" if seed else "none"),
            {},
            "derivative of the plasticity of stage 1 is 'none', and 'frozen' in the first",
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


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_hook_that_sees_all_seeds_as_one_is_refused(register: str) -> None:
    def clipping(parameters: Any) -> Any:
        def clip(*_: object) -> None:
            nn.utils.clip_grad_norm_(parameters, 0.1)

        optimizer = torch.optim.SGD(parameters, lr=0.1)
        getattr(optimizer, register)(clip)
        return optimizer

    with pytest.raises(ValueError, match="step hook, which would see the parameters of all seeds as one"):
        fit([mlp(seed) for seed in SEEDS], seeds=SEEDS, optimizer=clipping, learning_rate=None)


def test_a_seed_that_diverges_is_named() -> None:
    networks = [mlp(seed) for seed in SEEDS]
    with torch.no_grad():
        for parameter in networks[1].parameters():
            parameter.mul_(1e200)
    with pytest.raises(nd.train.DivergedError, match="for seed 0"):
        fit(networks, seeds=SEEDS, optimizer="sgd", learning_rate=1.0)


class Scaled(nn.Module):
    """Holds a plain number, a function and a tensor, none of which is a parameter."""

    def __init__(self, scale: float = 1.0, function: Callable[[Tensor], Tensor] = torch.sin, row: float = 0.0) -> None:
        super().__init__()
        self.scale, self.function, self.row = scale, function, torch.full((5,), row, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.scale * x) + self.row


def with_layer(seed: int, layer: nn.Module) -> nn.Sequential:
    return mlp(seed).insert(3, layer)


def with_hook(seed: int) -> nn.Sequential:
    module = mlp(seed)
    next(module.parameters()).register_hook(lambda gradient: seed * gradient)
    return module


def frozen(seed: int) -> nn.Sequential:
    module = mlp(seed)
    next(module.parameters()).requires_grad_(seed != 0)
    return module


def tied(seed: int) -> nn.Sequential:
    module = nd.mlp([6, 5, 5, 5, 4], seed=seed, dtype=torch.float64)
    if seed:
        module[4].weight = module[2].weight
    return module


UNLIKE: dict[str, tuple[Callable[[int], nn.Sequential], str]] = {
    "number": (lambda seed: with_layer(seed, Scaled(1.0 + seed)), "scale is 1.0, and 4.0 in the first"),
    "function": (lambda seed: with_layer(seed, Scaled(function=lambda x: x)), "function is another function"),
    "tensor": (lambda seed: with_layer(seed, Scaled(row=float(seed))), "row has other values than in the first"),
    "setting": (lambda seed: with_layer(seed, nn.Softplus(1.0 + seed)), "beta is 1.0, and 4.0 in the first"),
    "class": (lambda seed: with_layer(seed, nn.ReLU() if seed else nn.Tanh()), "class of .* is .*Tanh"),
    "mode": (lambda seed: mlp(seed).train(seed != 0), "training is False, and True in the first"),
    "hook": (with_hook, "weight has a hook on its gradient"),
    "frozen": (frozen, "parameter weight is frozen, and learns in the first"),
    "tied": (tied, "shared with another part here or in the first"),
    "shape": (lambda seed: nd.mlp([6, 7 + seed, 4], seed=seed, dtype=torch.float64), "features is 7, and 10"),
    "precision": (lambda seed: mlp(seed).to(torch.float64 if seed else torch.float32), "float32"),
}


@pytest.mark.parametrize("name", UNLIKE)
@pytest.mark.parametrize("declare", [lambda module: module, ar.network], ids=["backprop", "AR"])
def test_modules_that_are_not_proved_alike_are_refused(name: str, declare: Callable[[nn.Module], Learning]) -> None:
    make, message = UNLIKE[name]
    with pytest.raises(nd.NeurodynError, match="the network of seed [03] cannot be stacked.*" + message):
        fit([declare(make(seed)) for seed in SEEDS], seeds=SEEDS)


ALIKE: dict[str, Callable[[int], Learning]] = {
    "equal numbers": lambda seed: ar.network(with_layer(seed, Scaled(0.5))),
    "parametrised": lambda seed: ar.network(parametrised(seed)),
    "frozen in all": lambda seed: ar.network(with_frozen_input(seed)),
    "tied within each": lambda seed: ar.network(tied(seed + 1)),
    "one layer twice": lambda seed: ar.network(twice(seed)),
    "batch normalisation in evaluation": lambda seed: ar.network(normalised(seed).eval()),
    "common backbone": lambda seed: ar.network(nn.Sequential(*COMMON, *mlp(seed))),
    "own losses": lambda seed: ar.network(mlp(seed), loss=Power(2.0 + seed)),
    "regularised": lambda seed: ar.network(mlp(seed)).regularized(nd.Orthogonality(0.1)),
    "naive GAIT of several γ": lambda seed: tp.network(tower(seed), rule="gait", gamma=0.1 + 0.1 * seed, form="naive"),
    "leaks": lambda seed: of_leak(ar.network(mlp(seed), output="relaxing"), 1.0 + 0.2 * seed),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def parametrised(seed: int) -> nn.Sequential:
    module = mlp(seed)
    nn.utils.parametrize.register_parametrization(module[2], "weight", Doubled())
    return module


def with_frozen_input(seed: int) -> nn.Sequential:
    module = mlp(seed)
    module[0].requires_grad_(False)
    return module


def twice(seed: int) -> nn.Sequential:
    module = nd.mlp([6, 6, 6, 4], seed=seed, dtype=torch.float64)
    module[2] = module[0]
    return module


COMMON: nn.Sequential = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double().requires_grad_(False)


class Power:
    """A loss with a number of its own."""

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        return ((output - targets).square() + 1e-3).pow(self.exponent / 2).sum(1)


def of_leak(network: nd.Network, leak: float) -> nd.Network:
    populations = [replace(p, leak=leak, tau=1.0 / leak) if p.role == "dynamic" else p for p in network.populations]
    return network.with_dynamics(populations, network.couplings)


@pytest.mark.parametrize("name", ALIKE)
def test_networks_that_are_alike_learn_as_each_alone(name: str) -> None:
    networks = [ALIKE[name](seed) for seed in SEEDS]
    fit(networks, seeds=SEEDS, epochs=2)
    for seed, network in zip(SEEDS, networks, strict=True):
        alone = ALIKE[name](seed)
        fit(alone, seed=seed, epochs=2)
        assert distance(network, alone) < 1e-8
        assert distance(network, ALIKE[name](seed)) > 1e-3


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


@pytest.mark.parametrize("layer", [Noise, nn.Dropout])
def test_a_module_that_draws_random_numbers_is_refused(layer: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"several networks cannot be evaluated at once .*random"):
        fit([with_layer(seed, layer()) for seed in SEEDS], seeds=SEEDS)


class Drawn(nd.Drive):
    def value(self, population: str, data: Any) -> Tensor:
        return torch.randn_like(data.inputs["s"])[:, :5]

    def __str__(self) -> str:
        return "drawn"


def test_a_start_that_draws_random_numbers_is_refused() -> None:
    def declare(seed: int) -> nd.Network:
        network = ar.network(mlp(seed))
        populations = [replace(p, initial=Drawn()) if p.name == "x2" else p for p in network.populations]
        return network.with_dynamics(populations, network.couplings)

    with pytest.raises(ValueError, match="draws random numbers"):
        fit([declare(seed) for seed in SEEDS], seeds=SEEDS, duration=1.0, solver=nd.Euler(0.5))

"""Several networks at once against each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from neurodyn.system.stacking import together

SIZES = [6, 5, 5, 3]


def data(classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    return x, torch.randn(4, classes, generator=generator, dtype=torch.float64)


def mlp(seed: int) -> nn.Sequential:
    return nd.mlp(SIZES, weights="xavier", seed=seed, dtype=torch.float64)


def circuits(gammas: Sequence[float], rule: Literal["itp", "gait"], seeds: Sequence[int]) -> list[nd.Network]:
    towers = {
        seed: tp.tower([6, 6, 6], outputs=3, weights="orthogonal", seed=seed, dtype=torch.float64) for seed in seeds
    }
    return [tp.weak_feedback(towers[seed], gamma=gamma, rule=rule) for gamma in gammas for seed in seeds]


def pair(gain: float, tau: float, leak: float) -> nd.Network:
    return nd.Network(
        "pair",
        populations=[
            nd.Population("s", 6, clamp=nd.Input()),
            nd.Population("a", 6, tau=tau, leak=leak, initial=0.5),
            nd.Population("b", 6, tau=0.0, leak=leak),
        ],
        couplings=[
            nd.Coupling("s", "a", gain=gain),
            nd.Coupling("a", "b", gain=2.0),
            nd.Coupling("b", "a", gain=-gain),
        ],
    )


def each(run: Callable[[nd.Network | list[nd.Network]], xr.Dataset], networks: list[nd.Network]) -> None:
    """Compare a run of all with runs of each."""
    together = run(networks)
    assert together.sizes["network"] == len(networks)
    for place, network in enumerate(networks):
        alone = run(network)
        assert list(alone.data_vars) == list(together.data_vars)
        for name, expected in alone.data_vars.items():
            found = together[name].isel(network=place)
            assert found.dims == expected.dims
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "declare",
    [
        ar.network,
        lambda m: ar.network(m, feedback="learned", relaxation_derivative="live"),
        lambda m: pc.network(m, steps="equilibrium"),
    ],
)
def test_seeds(declare: Callable[[nn.Sequential], nd.Network]) -> None:
    x, t = data()
    networks = [declare(mlp(seed)) for seed in range(3)]
    each(lambda n: nd.simulate(n, x, t, duration=3.0, solver=nd.RK4(0.1), save_at=4), networks)


def test_the_default_solver_and_the_equilibrium_of_seeds() -> None:
    x, t = data()
    networks = [ar.network(mlp(seed)) for seed in range(3)]
    each(lambda n: nd.simulate(n, x, t, duration=3.0, save_at=4), networks)
    each(lambda n: nd.equilibrium(n, x, t), networks)
    run = nd.simulate(networks, x, t, duration=3.0)
    assert run.attrs["solver"] == "Exact(euler_step=None)"


@pytest.mark.parametrize("rule", ["itp", "gait"])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_strengths_of_the_feedback(rule: Literal["itp", "gait"], seeds: Sequence[int]) -> None:
    x, t = data()
    networks = circuits([1e-3, 1e-2, 5e-2], rule, seeds)
    each(lambda n: nd.equilibrium(n, x, t, tolerance=1e-12), networks)
    each(lambda n: nd.simulate(n, x, t, duration=1.0, solver=nd.Heun(0.1), save_at=2), networks)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.Softplus, nn.LeakyReLU])
def test_scales_of_each_activation(activation: type[nn.Module]) -> None:
    x, t = data(6)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), activation(), nn.Linear(6, 6), nn.Flatten(), activation()).double()
    networks = [tp.weak_feedback(module, gamma=gamma) for gamma in (1e-4, 1e-2)]
    each(lambda n: nd.simulate(n, x, 0.5 + 0.01 * t, duration=1.0, solver=nd.Heun(0.1), save_at=2), networks)


@pytest.mark.parametrize("solver", [nd.Euler(0.05), nd.Adaptive(rtol=1e-12, atol=1e-12), nd.Exact()])
def test_gains_time_constants_and_leaks(solver: nd.Solver) -> None:
    x, _ = data()
    networks = [pair(0.3, 1.0, 1.0), pair(0.7, 2.0, 0.5), pair(-0.2, 0.8, 1.5)]
    each(lambda n: nd.simulate(n, x, duration=2.0, solver=solver, save_at=3), networks)


def test_numbers_of_all_units_are_as_precise_as_those_of_each() -> None:
    own = torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], dtype=torch.float64)
    numbers: list[tuple[Any, Any]] = [(own, 0.7), (0.3, own)]
    networks = [
        nd.Network(
            "leaky",
            [nd.Population("s", 6, clamp=nd.Input()), nd.Population("x", 6, leak=leak)],
            [nd.Coupling("s", "x", gain=gain)],
        )
        for leak, gain in numbers
    ]
    each(lambda network: nd.equilibrium(network, data()[0]), networks)


def test_jumps_at_kinks_are_scaled_by_the_gains_of_each() -> None:
    module = nd.mlp(SIZES, activation="relu", weights="xavier", seed=0, dtype=torch.float64)
    (x, t), networks = data(), []
    for factor in (1.0, 1.7):
        network = pc.network(module, steps="equilibrium")
        couplings = [
            replace(c, gain=factor * c.gain) if isinstance(c.map, nd.Feedback) else c for c in network.couplings
        ]
        networks.append(network.with_dynamics(network.populations, couplings))

    def jumps(network: nd.Network, x: Tensor, t: Any) -> tuple[Tensor, Tensor]:
        system = nd.System(network, x, t)
        state, slope, jump = system.initial_state(), system.new_state(), system.new_state()
        system.field_with_jump(state, slope, jump)
        return slope.activity["x2"], jump.activity["x2"]

    with together(networks, x, t, None) as (stacked, inputs, targets, _):
        assert isinstance(inputs, dict)
        found = jumps(stacked, inputs["s"], targets)
    alone = [jumps(network, x, t) for network in networks]
    for part, own in zip(found, zip(*alone, strict=True), strict=True):
        assert torch.allclose(part, torch.cat(own), rtol=1e-12, atol=1e-12)
    assert bool((found[1] != 0).any())


def test_steps_of_a_method_are_time_constants() -> None:
    x, t = data()
    module = mlp(0)

    def slower(tau: float) -> nd.Network:
        network = ar.network(module)
        populations = [nd.Population(**{**vars(p), "tau": tau}) if p.tau else p for p in network.populations]
        return network.with_dynamics(populations, network.couplings)

    steps = np.array([0.1, 0.2, 0.5])
    runs = nd.simulate([slower(1.0 / h) for h in steps], x, t, duration=20.0, solver=nd.Euler(1.0), save_at="steps")
    for place, h in enumerate(steps):
        alone = nd.simulate(ar.network(module), x, t, duration=20 * h, solver=nd.Euler(h), save_at="steps")
        np.testing.assert_allclose(runs["x1"].isel(network=place), alone["x1"], rtol=1e-10, atol=1e-12)


def run_from(x: Tensor, start: Tensor, network: nd.Network | list[nd.Network]) -> xr.Dataset:
    return nd.simulate(network, x, duration=1.0, save_at=3, initial={"a": start})


def test_own_starts_and_what_the_dataset_tells(tmp_path) -> None:
    x, _ = data()
    networks = [pair(0.3, 1.0, 1.0), pair(0.7, 1.0, 1.0)]
    for start in (torch.ones(6, dtype=torch.float64), torch.rand(4, 6, dtype=torch.float64)):
        each(partial(run_from, x, start), networks)
    run = nd.simulate(networks, x, duration=1.0)
    assert run["a"].dims == ("network", "time", "sample", "a_unit")
    assert run["a"].attrs["tau"] == 1.0
    assert all(network.equations() in run.attrs["equations"] for network in networks)
    xr.testing.assert_identical(nd.load(nd.save(run, tmp_path / "run.nc")), run)


def test_the_networks_stay_as_they_were() -> None:
    x, t = data()
    modules = [mlp(0), mlp(1)]
    networks = [ar.network(module) for module in modules]
    before = [[p.clone() for p in module.parameters()] for module in modules]
    versions = [(p.data_ptr(), p._version) for module in modules for p in module.parameters()]

    def look(time: float, activity: object, velocity: object) -> bool:
        assert [(p.data_ptr(), p._version) for module in modules for p in module.parameters()] == versions
        return False

    nd.simulate(networks, x, t, duration=1.0, solver=nd.Euler(0.5), until=look)
    assert [(p.data_ptr(), p._version) for module in modules for p in module.parameters()] == versions
    for module, expected in zip(modules, before, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(module.parameters(), expected, strict=True))
    with torch.no_grad():
        next(modules[0].parameters()).zero_()
    assert next(modules[1].parameters()).abs().max() > 0


class Own(nd.Map):
    """A map with a number of its own."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, source: Tensor) -> Tensor:
        return self.factor * source


def with_own(factor: float) -> nd.Network:
    populations = [nd.Population("s", 6, clamp=nd.Input()), nd.Population("a", 6)]
    return nd.Network("own", populations, [nd.Coupling("s", "a", Own(factor))])


def test_what_cannot_be_stacked_is_refused() -> None:
    x, t = data()
    with pytest.raises(ValueError, match="the second cannot be stacked with the first: stage 1: the number of layers"):
        nd.simulate([ar.network(mlp(0)), pc.network(mlp(0), steps="equilibrium")], x, t, duration=1.0)
    with pytest.raises(ValueError, match="the map of coupling s → a is a Own, a class that is no dataclass"):
        nd.simulate([with_own(1.0), with_own(2.0)], x, duration=1.0)
    with pytest.raises(ValueError, match="an empty list"):
        nd.equilibrium([], x, t)
    with pytest.raises(TypeError, match="the list has a Sequential"):
        nd.equilibrium([mlp(0)], x, t)  # type: ignore[list-item]


def test_each_observable_is_read_with_the_own_weights_of_its_network() -> None:
    x, t = data()
    networks = [ar.network(mlp(seed)) for seed in range(3)]
    each(lambda n: nd.simulate(n, x, t, duration=3.0, save_at=4, record=["x1", "energy"]), networks)


@pytest.mark.parametrize("start", [None, torch.tensor([1.0, 2.0])])
def test_networks_without_data(start: Tensor | None) -> None:
    def decay(gain: float) -> nd.Network:
        return nd.Network("decay", [nd.Population("x", 2, initial=0.5)], [nd.Coupling("x", "x", gain=gain)])

    initial = None if start is None else {"x": start}
    for gains in ([-1.0, -2.0], [-1.0, -1.0]):
        run = nd.simulate([decay(gain) for gain in gains], None, duration=1.0, save_at=2, initial=initial)
        for place, gain in enumerate(gains):
            expected = (0.5 * torch.ones(2) if start is None else start) * np.exp(gain - 1.0)
            np.testing.assert_allclose(run["x"][place, -1, 0], expected, rtol=1e-5)


class Clipped(nd.Map):
    def __init__(self, ceiling: float) -> None:
        self.ceiling = ceiling

    def apply(self, source: Tensor) -> Tensor:
        return source.clamp(max=self.ceiling)


@dataclass(frozen=True)
class Declared(nd.Map):
    ceiling: float
    layer: nn.Module | None = None

    def apply(self, source: Tensor) -> Tensor:
        return source.clamp(max=self.ceiling) if self.layer is None else self.layer(source)


class Sine(nd.Map):
    def apply(self, source: Tensor) -> Tensor:
        return source.sin()


class Compared(Clipped):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compared) and self.ceiling == other.ceiling

    __hash__ = None  # type: ignore[assignment]


def chain(map_: nd.Map) -> nd.Network:
    return nd.Network(
        "chain",
        [nd.Population("s", 6, clamp=nd.Input()), nd.Population("a", 6), nd.Population("b", 6)],
        [nd.Coupling("s", "a"), nd.Coupling("a", "b", map_)],
    )


def activation(**attributes: Any) -> nn.Module:
    layer = nn.Tanh()
    vars(layer).update(attributes)
    return layer


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (lambda: [Clipped(1.0), Clipped(2.0)], "is a Clipped, a class that is no dataclass"),
        (lambda: [Clipped(1.0), Clipped(1.0)], "is a Clipped, a class that is no dataclass"),
        (lambda: [Declared(1.0), Declared(2.0)], "ceiling of the map of coupling a → b is 2.0, and 1.0 in the first"),
        (lambda: [Compared(1.0), Compared(2.0)], "the map of coupling a → b is "),
        (lambda: [Declared(1.0, nn.Linear(6, 6)) for _ in "ab"], "has weights, and is in no stage of the network"),
        (lambda: [nd.Forward(nn.LeakyReLU(slope)) for slope in (0.1, 0.5)], "negative_slope is 0.5, and 0.1"),
        (lambda: [nd.Forward(activation(forward=lambda x: x)) for _ in "ab"], "forward is another function"),
        (lambda: [nd.Forward(nn.Tanh()), nd.Identity()], "the number of stages"),
        (lambda: [Sine(), nd.Identity()], "the class of the map of coupling a → b"),
    ],
)
def test_maps_that_are_not_proved_alike_are_refused(maps: Callable[[], list[nd.Map]], message: str) -> None:
    with pytest.raises(ValueError, match=f"the second cannot be stacked with the first: .*{message}"):
        nd.simulate([chain(map_) for map_ in maps()], data()[0], duration=1.0)


ONE = Clipped(0.5)


@pytest.mark.parametrize(
    "maps",
    [
        lambda: [ONE, ONE],
        lambda: [Declared(0.5), Declared(0.5)],
        lambda: [Compared(0.5), Compared(0.5)],
        lambda: [Sine(), Sine()],
        lambda: [Declared(0.5, nn.Tanh()), Declared(0.5, nn.Tanh())],
        lambda: [nd.Forward(nn.LeakyReLU(0.2)) for _ in "ab"],
        lambda: [nd.Forward(nn.Linear(6, 6, dtype=torch.float64)) for _ in "ab"],
        lambda: [nd.Forward(nn.LayerNorm(6, dtype=torch.float64)) for _ in "ab"],
    ],
)
def test_maps_that_are_alike_are_stacked(maps: Callable[[], list[nd.Map]]) -> None:
    networks = [chain(map_) for map_ in maps()]
    networks[1] = networks[1].with_dynamics(
        networks[1].populations, [replace(coupling, gain=0.3) for coupling in networks[1].couplings]
    )
    each(lambda n: nd.simulate(n, data()[0], duration=1.0, solver=nd.Euler(0.1)), networks)


def test_a_dataclass_may_say_which_of_its_numbers_differ() -> None:
    networks = [chain(Ceilings(ceiling)) for ceiling in (0.1, 0.2, 0.3)]
    each(lambda n: nd.simulate(n, data()[0], duration=1.0, solver=nd.Euler(0.1)), networks)


@dataclass(frozen=True)
class Ceilings(nd.Map):
    ceiling: float | tuple[float, ...]
    stacked_numbers = ("ceiling",)

    def apply(self, source: Tensor) -> Tensor:
        if not isinstance(self.ceiling, tuple):
            return source.clamp(max=self.ceiling)
        blocks = zip(source.chunk(len(self.ceiling)), self.ceiling, strict=True)
        return torch.cat([block.clamp(max=ceiling) for block, ceiling in blocks])


def test_networks_without_dynamic_populations_and_data() -> None:
    def held(gain: float) -> nd.Network:
        return nd.Network(
            "held",
            [nd.Population("a", 2, clamp=Constant()), nd.Population("b", 2, tau=0.0)],
            [nd.Coupling("a", "b", gain=gain)],
        )

    run = nd.equilibrium([held(gain) for gain in (1.0, 3.0)], None)
    np.testing.assert_allclose(run["b"].squeeze("sample"), [[2.0, 2.0], [6.0, 6.0]])
    still = nd.Network("still", [nd.Population("a", 2, tau=0.0)])
    assert nd.equilibrium([still, still, still], None)["a"].shape == (3, 1, 2)


def test_a_start_that_takes_nothing_from_the_data_is_every_networks() -> None:
    x, _ = data()

    def start(gain: float) -> nd.Network:
        populations = [
            nd.Population("s", 6, clamp=nd.Input()),
            nd.Population("a", 2, initial=Constant(4, torch.float64)),
        ]
        return nd.Network("start", populations, [nd.Coupling("a", "a", gain=gain)])

    each(lambda n: nd.simulate(n, x, duration=1.0, solver=nd.Euler(0.1)), [start(-1.0), start(0.5)])


@dataclass(frozen=True)
class Constant(nd.Drive):
    """Twos, whatever the data: one row for each sample of a network."""

    rows: int = 1
    dtype: torch.dtype = torch.float32

    def value(self, population: str, data: object) -> Tensor:
        return torch.full((self.rows, 2), 2.0, dtype=self.dtype)

    def __str__(self) -> str:
        return "2"


def test_feedback_weights_that_differ_over_a_shared_module() -> None:
    x, t = data()
    module = mlp(0)
    networks = [ar.network(module, feedback="fixed", seed=seed) for seed in range(3)]
    each(lambda n: nd.simulate(n, x, t, duration=1.0, solver=nd.Euler(0.1)), networks)
    stages = nd.cut(module)
    weights = [[nd.FeedbackWeights(stage, seed=seed, learned=False) for stage in stages[1:]] for seed in range(3)]
    shared = [
        nd.Network(
            "shared stages",
            [
                nd.Population("s", 6, clamp=nd.Input()),
                *(nd.Population(f"x{i}", n) for i, n in ((1, 5), (2, 5), (3, 3))),
            ],
            [
                nd.Coupling("s", "x1", nd.Forward(stages[0])),
                nd.Coupling("x1", "x2", nd.Forward(stages[1])),
                nd.Coupling("x2", "x1", nd.Feedback(stages[1], "live", weights=own[0])),
            ],
            forward=stages,
        )
        for own in weights
    ]
    each(lambda n: nd.simulate(n, x, duration=1.0, solver=nd.Euler(0.1)), shared)


def test_one_network_in_a_list_is_itself() -> None:
    x, t = data()
    network = pc.network(mlp(0), initial_noise=0.1)
    torch.manual_seed(0)
    alone = nd.simulate(network, x, t, duration=1.0, solver=nd.Euler(0.5))
    torch.manual_seed(0)
    listed = nd.simulate([network], x, t, duration=1.0, solver=nd.Euler(0.5))
    xr.testing.assert_equal(listed.isel(network=0, drop=True), alone)
    with pytest.raises(ValueError, match="draws random numbers"):
        nd.simulate([network, network], x, t, duration=1.0, solver=nd.Euler(0.5))


def test_a_layer_that_cannot_be_evaluated_at_once_is_refused_by_name() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.detach().sum()) > 0 else -x

    with pytest.raises(ValueError, match="Branching"):
        nd.simulate([chain(nd.Forward(Branching())) for _ in "ab"], data()[0], duration=1.0)


def test_a_change_of_the_structure_with_the_numbers_is_seen() -> None:
    """Where gains balance in one network and not in another, nothing is taken to rest."""
    x, _ = data()
    networks = [
        nd.Network(
            "balanced",
            [
                nd.Population("s", 6, clamp=nd.Input()),
                nd.Population("x", 5, leak=0.0, initial=nd.ForwardValue(stage)),
                nd.Population("e", 5, tau=0.0),
            ],
            [
                nd.Coupling("x", "e"),
                nd.Coupling("s", "e", nd.Forward(stage), gain=gain),
                nd.Coupling("e", "x", gain=-1),
            ],
            [nd.Plasticity(stage, "s", "e", gain=-1.0)],
            forward=[stage],
            inference=nd.Inference(0.5, 3),
        )
        for gain, stage in [(-1.0, nd.Stage(mlp(0)[:2])), (-0.5, nd.Stage(mlp(1)[:2]))]
    ]
    each(lambda n: nd.simulate(n, x, duration=1.0, solver=nd.Euler(0.1)), networks)
    history = nd.train.fit(networks, (x, torch.zeros(4, 5).double()), epochs=2, batch_size=4, seeds=[0, 1])
    assert history.sizes["seed"] == 2


def test_weights_stay_views_of_what_they_were_views_of() -> None:
    modules = [mlp(seed) for seed in range(2)]
    flat = torch.zeros(30, dtype=torch.float64)
    weight = next(modules[0].parameters())
    weight.data = flat.view(5, 6)
    nd.simulate([ar.network(module) for module in modules], *data(), duration=1.0)
    flat.fill_(2.0)
    assert torch.equal(weight, torch.full_like(weight, 2.0))


@pytest.mark.parametrize("taus", [(0.0, 1.0), (1.0, 0.0)])
def test_a_held_population_instantaneous_in_one_network_alone_is_refused(taus: Sequence[float]) -> None:
    networks = [
        nd.Network(
            "held",
            [nd.Population("s", 6, clamp=nd.Input()), nd.Population("a", 6, tau=tau, clamp=nd.Target(optional=True))],
            [nd.Coupling("s", "a")],
        )
        for tau in taus
    ]
    with pytest.raises(
        ValueError, match="the second cannot be stacked with the first: whether population a is instantaneous"
    ):
        nd.simulate(networks, data()[0], duration=1.0)

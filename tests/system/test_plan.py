"""Plans: bound again and again, a network does what it does when it is bound for the first time."""

import gc
import itertools
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.system.binding import bound

Declare = Callable[[nn.Module], nd.Network]
NETWORKS: dict[str, Declare] = {
    "ar": ar.network,
    "il": lambda module: pc.network(module, steps=6),
    "z-il": lambda module: pc.network(module, learning="z-il"),
    "fa-z-il": lambda module: pc.network(module, learning="fa-z-il"),
    "gait": lambda module: tp.network(module, rule="gait"),
    "weak feedback": lambda module: tp.weak_feedback(module, gamma=0.1, rule="gait"),
}
NAMED = pytest.mark.parametrize("declare", NETWORKS.values(), ids=NETWORKS)


def batch(seed: int, samples: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(2, samples, 5, generator=generator)
    return inputs, targets


def module_of(seed: int = 0) -> nn.Sequential:
    return nd.mlp([5, 5, 5, 5], activation="leaky_relu", weights="orthogonal", seed=seed)


def gradients(network: nd.Network, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    parameters = [p for stage in network.stages for p in stage.parameters]
    for parameter in parameters:
        parameter.grad = None
    nd.backward(network, inputs, targets)
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def assert_as_anew(declare: Declare, network: nd.Network, module: nn.Module, seed: int = 1, samples: int = 4) -> None:
    inputs, targets = (each.to(next(module.parameters())) for each in batch(seed, samples))
    pairs = zip(gradients(network, inputs, targets), gradients(declare(module), inputs, targets), strict=True)
    assert all(torch.equal(ours, anew) for ours, anew in pairs)


@NAMED
def test_each_batch_is_learned_from_as_by_a_new_network(declare) -> None:
    module = module_of()
    network = declare(module)
    for seed, samples in enumerate([4, 4, 3, 4, 1, 4, 4]):
        assert_as_anew(declare, network, module, seed, samples)


def weights_edited(module: nn.Sequential) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)


def weights_replaced(module: nn.Sequential) -> None:
    for layer in module:
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(0.9 * layer.weight.detach())


def data_replaced(module: nn.Sequential) -> None:
    for parameter in module.parameters():
        parameter.data = 0.8 * parameter.data


def first_frozen(module: nn.Sequential) -> None:
    next(module.parameters()).requires_grad_(False)


def slope_changed(module: nn.Sequential) -> None:
    for layer in module:
        if isinstance(layer, nn.LeakyReLU):
            layer.negative_slope = 0.5


@pytest.mark.parametrize(
    "change", [weights_edited, weights_replaced, data_replaced, nn.Module.double, first_frozen, slope_changed]
)
@NAMED
def test_a_change_of_the_module_counts_for_the_next_batch(declare, change) -> None:
    module = module_of()
    network = declare(module)
    for seed in range(5):
        assert_as_anew(declare, network, module, seed)
    change(module)
    for seed in range(5):
        assert_as_anew(declare, network, module, seed)


def test_a_hook_is_noticed_at_the_next_batch() -> None:
    module = module_of()
    network = ar.network(module)
    assert_as_anew(ar.network, network, module)
    module[-1].register_forward_hook(lambda layer, given, output: 2.0 * output)
    with pytest.raises(ValueError, match="Linear: its forward hooks changed after stages were made of it"):
        nd.backward(network, *batch(0))
    network = ar.network(module)
    assert_as_anew(ar.network, network, module)


def test_a_changed_mode_counts_for_the_next_batch() -> None:
    module = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 5)).eval()
    network = ar.network(module)
    assert_as_anew(ar.network, network, module)
    module.train()
    with pytest.raises(ValueError, match="BatchNorm1d in training mode"):
        nd.backward(network, *batch(0))
    module.eval()
    assert_as_anew(ar.network, network, module)


def test_statistics_that_are_gone_count_for_the_next_batch() -> None:
    """In their place PyTorch takes those of the batch, also in evaluation mode."""
    norm = nn.BatchNorm1d(5).eval()
    network = nd.models.activation_relaxation.network(nn.Sequential(nn.Linear(5, 5), norm))
    nd.backward(network, torch.ones(2, 5), torch.ones(2, 5))
    norm.running_mean = norm.running_var = None
    with pytest.raises(ValueError, match=r"BatchNorm1d .* couples the samples"):
        nd.backward(network, torch.ones(2, 5), torch.ones(2, 5))


def test_units_cut_off_the_weights_in_their_own_memory_are_noticed() -> None:
    first, last = nn.Linear(5, 4, bias=False), nn.Linear(4, 5, bias=False)
    network = ar.network(nn.Sequential(first, nn.Tanh(), last))
    nd.backward(network, *batch(0))
    first.weight.data, last.weight.data = first.weight.data[:3], last.weight.data[:, :3]
    with pytest.raises(ValueError, match=r"x1: ḡ1 has the shape \(4, 3\), and the population \(4, 4\)"):
        nd.backward(network, *batch(0))


def test_two_networks_on_one_module() -> None:
    module = module_of()
    networks = {name: declare(module) for name, declare in NETWORKS.items()}
    for seed in range(5):
        for name, network in networks.items():
            assert_as_anew(NETWORKS[name], network, module, seed)


@NAMED
def test_a_plan_is_used_again_with_the_same_memory_one_batch_at_a_time(declare) -> None:
    network = declare(module_of())
    with bound(network, *batch(0)) as first, bound(network, *batch(1)) as second:
        assert first.plan is not second.plan
        plans = {first.plan, second.plan}
        buffers = [first.instant.data_ptr(), second.instant.data_ptr()]
    for seed in range(2, 5):
        with bound(network, *batch(seed)) as system:
            assert system.plan in plans
            assert system.instant.data_ptr() in buffers
    with bound(network, *batch(0, samples=3)) as other:
        assert other.plan not in plans


def test_a_batch_that_fails_does_not_spoil_the_next() -> None:
    module = module_of()
    network = ar.network(module)
    for seed in range(5):
        assert_as_anew(ar.network, network, module, seed)
    inputs, targets = batch(0)
    with pytest.raises(ValueError, match="NaN"):
        nd.backward(network, torch.full_like(inputs, torch.nan), targets)
    with pytest.raises(ValueError, match="shape"):
        nd.backward(network, inputs, targets[:, :3])
    assert_as_anew(ar.network, network, module)


@NAMED
def test_gradients_are_copies(declare) -> None:
    network = declare(module_of())
    found = [gradients(network, *batch(seed)) for seed in range(5)]
    kept = [[gradient.clone() for gradient in each] for each in found]
    gradients(network, *batch(5))
    for one, other in zip(itertools.chain(*found), itertools.chain(*kept), strict=True):
        assert torch.equal(one, other)


RUNS: dict[str, Callable[[nd.Network, Tensor, Tensor], xr.Dataset]] = {
    "equilibrium": nd.equilibrium,
    "simulate": lambda network, x, t: nd.simulate(network, x, t, duration=1.0, solver=nd.Heun(0.5)),
    "infer": nd.infer,
}


@pytest.mark.parametrize(
    ("name", "run"),
    [*((name, "equilibrium") for name in ("ar", "gait", "weak feedback")), *((name, "simulate") for name in NETWORKS)]
    + [(name, "infer") for name in ("il", "z-il", "fa-z-il")],
)
def test_a_run_follows_the_plan_of_earlier_ones_and_is_a_copy(name: str, run: str) -> None:
    module, declare = module_of(), NETWORKS[name]
    network = declare(module)
    found = RUNS[run](network, *batch(0))
    expected = found.copy(deep=True)
    with bound(network, *batch(2)) as system:
        plan = system.plan
    other = RUNS[run](network, *batch(1))
    with bound(network, *batch(2)) as system:
        assert system.plan is plan
    assert found.identical(expected)
    xr.testing.assert_equal(other, RUNS[run](declare(module), *batch(1)))


def test_threads_share_a_network() -> None:
    network = tp.weak_feedback(module_of(), gamma=0.1, rule="gait")
    expected = [nd.equilibrium(network, *batch(seed)).load() for seed in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            with bound(network, *batch(seed)) as system:
                state = system.initial_state()
                system.sweep(state, [*system.instantaneous, *system.dynamic])
            if not nd.equilibrium(network, *batch(seed)).equals(expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_neither_network_nor_batch_is_kept_alive() -> None:
    network = ar.network(module_of())
    inputs, targets = batch(0)
    for _ in range(5):
        nd.backward(network, inputs, targets)
    given, declared = [weakref.ref(inputs), weakref.ref(targets)], weakref.ref(network)
    del inputs, targets
    gc.collect()
    assert [reference() for reference in given] == [None, None]
    del network
    gc.collect()
    assert declared() is None

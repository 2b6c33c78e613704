"""How often solvers fetch numbers from a device, and so wait for it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.solvers.anderson import anderson
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.rows import Rows


class Waits(TorchFunctionMode):
    """Counts how often numbers are fetched from a tensor, for which a GPU would have to be waited for."""

    count = 0
    fetches = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in [getattr(torch.Tensor, name) for name in self.fetches]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits() -> Callable[[nd.Solver, float], tuple[int, int]]:
    """How often a run waits, and how many steps it takes."""

    def count(solver: nd.Solver, duration: float) -> tuple[int, int]:
        module = nd.mlp([6, 5, 4, 3], seed=0)
        # Stabilized fetches numbers for the spectral radius as well, where the declaration does not tell it.
        stabilized = isinstance(solver, nd.Stabilized)
        network = ar.network(module) if stabilized else pc.network(module, steps="equilibrium")
        system = nd.System(network, torch.rand(8, 6), torch.rand(8, 3))
        with torch.no_grad(), Waits() as mode:
            report = solver.integrate(system, system.initial_state(), duration, Unrecorded())
        return mode.count, report.accepted + report.rejected

    return count


@pytest.mark.parametrize("solver", [nd.Euler(0.1), nd.Heun(0.1), nd.RK4(0.1)])
def test_fixed_steps_do_not_wait_for_a_device(solver: nd.Solver, waits) -> None:
    few, many = waits(solver, 0.1), waits(solver, 6.0)
    assert many[1] == 60
    assert many[0] == few[0]


@pytest.mark.parametrize("solver", [nd.Adaptive("bosh3"), nd.Adaptive("tsit5"), nd.Sliding(), nd.Stabilized()])
def test_an_adaptive_step_waits_for_a_device_once(solver: nd.Solver, waits) -> None:
    short, long = waits(solver, 0.2), waits(solver, 1.0)
    assert long[1] > short[1]
    assert 0 < long[0] - short[0] <= long[1] - short[1]


def _waits(work: Callable[[], object]) -> int:
    with torch.no_grad(), Waits() as mode:
        work()
    return mode.count


@pytest.mark.parametrize("record", [None, "iterations"])
def test_training_waits_for_a_device_once_a_batch_beside_what_the_learning_does(record) -> None:
    x, t = torch.rand(32, 6), torch.rand(32, 3)

    def train(learned: nd.Network | nn.Module, samples: int) -> Callable[[], object]:
        data = (x[:samples], t[:samples])
        how = {"optimizer": "sgd", "record": record, "progress": False}
        return lambda: nd.train.fit(learned, data, epochs=1, batch_size=4, **how)

    module = nd.mlp([6, 5, 4, 3], seed=0)
    assert _waits(train(module, 32)) - _waits(train(module, 16)) == 4
    network = pc.network(module, learning="z-il")
    for _ in range(4):  # after which its operations are known
        nd.backward(network, x[:4], t[:4])
    learning = _waits(lambda: nd.backward(network, x[:4], t[:4]))
    assert _waits(train(network, 32)) - _waits(train(network, 16)) == 4 * (1 + learning)


def test_a_condition_of_rest_waits_for_a_device_once_a_step() -> None:
    network = pc.network(nd.mlp([6, 5, 4, 3], seed=0), steps="equilibrium")
    x, t = torch.rand(8, 6), torch.rand(8, 3)

    def relax(duration: float, until: nd.steady | None) -> Callable[[], object]:
        system = nd.System(network, x, t)
        state = system.initial_state()
        return lambda: nd.Euler(0.1).integrate(system, state, duration, Unrecorded(), until=until)

    looks = [_waits(relax(steps, nd.steady(1e-9))) - _waits(relax(steps, None)) for steps in (1.0, 2.0)]
    assert looks == [11, 21]


def test_an_accelerated_iteration_waits_for_a_device_once() -> None:
    system = nd.System(pc.network(nd.mlp([6, 5, 4, 3], seed=0)), torch.rand(8, 6), torch.rand(8, 3))

    def iterate(most: int) -> Callable[[], object]:
        field = Rows(system)
        start = field.of(system.initial_state())
        return lambda: anderson(field, start, 1e-12, most)

    assert _waits(iterate(8)) - _waits(iterate(4)) == 4


def test_a_dimension_of_a_krylov_space_waits_for_a_device_once() -> None:
    def run(units: int) -> Callable[[], object]:
        torch.manual_seed(0)
        own = nd.Coupling("x", "x", nd.Forward(nn.Linear(units, units)))
        network = nd.Network("loop", [nd.Population("x", units, initial=torch.rand(units))], [own])
        system = nd.System(network, None)
        return lambda: nd.Exact().integrate(system, system.initial_state(), 1.0, Unrecorded())

    assert _waits(run(7)) - _waits(run(4)) == 3

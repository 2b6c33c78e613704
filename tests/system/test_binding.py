"""Bound to batch after batch, a network comes down to its operations where these are known, and only there."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.solvers.base import Unrecorded
from neurodyn.system.binding import bound
from neurodyn.system.plan import FieldWay


def batch(seed: int, samples: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(2, samples, 5, generator=generator)
    return inputs, targets


def noted(
    network: nd.Network, duration: float | None = None, solver: nd.Solver | None = None, samples: int = 4
) -> bool:
    with bound(network, *batch(0, samples), still="a look") as system:
        repeated = system.plan.repeated(network, (duration, solver))
    return repeated.noted


def gradients(network: nd.Network, inputs: Tensor, targets: Tensor, **how: Any) -> list[Tensor]:
    parameters = [p for stage in network.stages for p in stage.parameters]
    for parameter in parameters:
        parameter.grad = None
    nd.backward(network, inputs, targets, **how)
    return [p.grad.clone() for p in parameters if p.grad is not None]


def assert_as_anew(
    declare: Callable[[], nd.Network], network: nd.Network, inputs: Tensor, targets: Tensor, **how: Any
) -> None:
    ours, anew = (gradients(each, inputs, targets, **how) for each in (network, declare()))
    for own, other in zip(ours, anew, strict=True):
        assert torch.equal(own, other)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.last(x + torch.relu(self.first(self.norm(x))))
        return value


@cache
def captured() -> nd.Network:
    torch.manual_seed(0)
    return ar.graph(Residual(), batch(0)[0])


def residual() -> nd.Network:
    """Declare the same network anew, on the same operations."""
    network = captured()
    return network.with_dynamics(network.populations, network.couplings)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 1, 5)),
        nn.Conv2d(1, 2, (1, 2)),
        nn.ReLU(),
        nn.MaxPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def mlp() -> nn.Sequential:
    return nd.mlp([5, 5, 5, 5], seed=0)


KNOWN: dict[str, Callable[[], nd.Network]] = {
    "ar": lambda: ar.network(mlp()),
    "ar, learned feedback": lambda: ar.network(mlp(), feedback="learned", weight_derivative="none"),
    "ar of convolutions": lambda: ar.network(convolutional()),
    "ar of a graph": residual,
    "il": lambda: pc.network(mlp(), steps=6),
    "z-il": lambda: pc.network(mlp(), learning="z-il"),
    "z-il of convolutions": lambda: pc.network(convolutional(), learning="z-il"),
    "fa-z-il": lambda: pc.network(mlp(), learning="fa-z-il"),
    "fa-z-il of units that do not all spike at once": lambda: pc.network(
        nd.mlp([5, 5, 5, 5], activation="relu", seed=0), learning="fa-z-il"
    ),
    "gait": lambda: tp.network(tp.tower([5, 5, 5, 5], seed=0), rule="gait"),
    "gait, in a range": lambda: tp.network(tp.tower([5, 5, 5, 5], activation="softplus", seed=0), rule="gait"),
}


@pytest.mark.parametrize("declare", KNOWN.values(), ids=KNOWN)
def test_batches_are_learned_from_by_operations_alone(declare: Callable[[], nd.Network]) -> None:
    network = declare()
    for seed in range(6):
        assert_as_anew(declare, network, *batch(seed))
    assert noted(network)


def test_the_last_batch_of_an_epoch_is_noted_beside_the_others() -> None:
    network = ar.network(mlp())
    for seed in range(5):
        for samples in (4, 4, 3):
            assert_as_anew(lambda: ar.network(mlp()), network, *batch(seed, samples))
    assert noted(network)
    assert noted(network, samples=3)


def test_inverses_are_those_of_the_weights_as_they_are() -> None:
    module = tp.tower([5, 5, 5, 5], seed=0)
    network = tp.network(module, rule="gait")
    for seed in range(12):
        assert_as_anew(lambda: tp.network(module, rule="gait"), network, *batch(seed))
        if seed != 6:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.mul_(1.0 + 0.01 * seed)
        if seed == 5:
            assert noted(network)


@pytest.mark.parametrize("layers", [3, 20])
@pytest.mark.parametrize("solver", [nd.Exact(euler_step=0.5), nd.Exact(), None])
def test_closed_forms_are_made_by_operations_alone(layers: int, solver: nd.Solver | None) -> None:
    module = nd.mlp([5] * (layers + 1), seed=0)
    network = ar.network(module)
    for seed in range(6):
        for duration in (2.0, 0.5):
            assert_as_anew(lambda: ar.network(module), network, *batch(seed), duration=duration, solver=solver)
        assert_as_anew(lambda: ar.network(module), network, *batch(seed))
    assert noted(network, 2.0, solver)
    assert noted(network, 0.5, solver)
    assert noted(network)


@pytest.mark.parametrize(
    ("declare", "duration", "solver"),
    [
        (lambda: ar.network(nd.mlp([5] * 70, seed=0)), 2.0, nd.Exact()),  # some of whose powers cannot matter
        (lambda: ar.network(mlp()), 1.0, nd.Euler(0.25)),
        (lambda: pc.network(mlp(), steps="equilibrium"), 1.0, None),
    ],
)
def test_a_relaxation_that_numbers_steer_is_made_as_it_is_written(
    declare: Callable[[], nd.Network], duration: float, solver: nd.Solver | None
) -> None:
    network = declare()
    for seed in range(5):
        assert_as_anew(declare, network, *batch(seed), duration=duration, solver=solver)
    assert not noted(network, duration, solver)


def test_a_closed_form_that_is_not_finite_is_refused_however_it_is_made() -> None:
    network, solver = ar.network(mlp()), nd.Exact(euler_step=3.0)  # which is unstable: it grows to 2⁸⁰ times as much
    for seed in range(5):
        gradients(network, *batch(seed), duration=240.0, solver=solver)
    assert noted(network, 240.0, solver)
    inputs, targets = batch(5)
    with pytest.raises(nd.DivergenceError, match="is not finite at time 240"):
        nd.backward(network, inputs, 1e18 * targets, duration=240.0, solver=solver)


def test_units_that_do_not_all_spike_take_the_long_way() -> None:
    module = mlp()
    network = pc.network(module, learning="fa-z-il")
    for seed in range(4):
        nd.backward(network, *batch(seed))
    assert noted(network)
    inputs, targets = batch(4)
    targets[0] = module(inputs)[0].detach()  # this sample's error is 0, so that none of its units ever spikes
    assert_as_anew(lambda: pc.network(module, learning="fa-z-il"), network, inputs, targets)


class Scaled(nn.Module):
    """A layer of someone's own, with a number that no tensor holds."""

    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def test_a_layer_of_ones_own_counts_as_it_is() -> None:
    layer = Scaled()
    module = nn.Sequential(nn.Linear(5, 5), layer, nn.Linear(5, 5))
    network = ar.network(module)
    for seed in range(6):
        layer.scale = 1.0 + seed // 5
        assert_as_anew(lambda: ar.network(module), network, *batch(seed))
    assert not noted(network)


def test_a_loss_of_ones_own_counts_as_it_is() -> None:
    factor = [1.0]

    def loss(y: Tensor, t: Tensor) -> Tensor:
        return factor[0] * (y - t).square().sum(1)

    module = mlp()
    network = ar.network(module, loss=loss)
    for seed in range(6):
        factor[0] = 1.0 + seed // 5
        assert_as_anew(lambda: ar.network(module, loss=loss), network, *batch(seed))


@pytest.mark.parametrize("way", ["same", "strided", "expanded"])
def test_batches_of_the_same_shape_in_memory_of_another_kind(way: str) -> None:
    module = mlp()
    network = ar.network(module)
    for seed in range(4):
        nd.backward(network, *batch(seed))
    inputs, targets = batch(4)
    if way == "same":
        targets = inputs
    elif way == "strided":
        inputs, targets = inputs.t().contiguous().t(), targets.repeat(2, 1)[::2]
    else:
        inputs = inputs[:1].expand(4, 5)
    assert_as_anew(lambda: ar.network(module), network, inputs, targets)


@pytest.mark.parametrize("name", ["ar", "il", "z-il", "fa-z-il"])
@pytest.mark.parametrize("share", [lambda x: x, lambda x: x.detach()])
def test_after_batches_whose_inputs_and_targets_share_memory_come_others(
    name: str, share: Callable[[Tensor], Tensor]
) -> None:
    network = KNOWN[name]()
    for seed in range(5):
        inputs, _ = batch(seed)
        assert_as_anew(KNOWN[name], network, inputs, share(inputs))
    assert noted(network)
    assert_as_anew(KNOWN[name], network, *batch(5))
    inputs, targets = batch(6)
    targets[0, 0] = torch.nan
    with pytest.raises(ValueError, match="targets has 1 values that are NaN"):
        nd.backward(network, inputs, targets)


@pytest.mark.parametrize("declare", [KNOWN["ar"], KNOWN["z-il"]])
def test_what_is_not_finite_is_refused_by_name(declare: Callable[[], nd.Network]) -> None:
    network = declare()
    before = [gradients(network, *batch(seed)) for seed in range(5)][-1]
    inputs, targets = batch(5)
    for bad in (torch.full_like(inputs, torch.inf), torch.where(inputs > 1, torch.nan, inputs)):
        with pytest.raises(ValueError, match="inputs of population s"):
            nd.backward(network, bad, targets)
    parameters = [p for stage in network.stages for p in stage.parameters]
    with torch.no_grad():
        parameters[-2].mul_(1e4)
    with pytest.raises(nd.DivergenceError):
        nd.backward(network, inputs, 3e38 * targets.sign())
    for parameter, grad in zip(parameters, before, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, grad)
    with torch.no_grad():
        parameters[0][0, 0] = torch.nan
    with pytest.raises(ValueError, match="a weight of stage 1 has 1 values"):
        nd.backward(network, inputs, targets)


@pytest.mark.parametrize("declare", KNOWN.values(), ids=KNOWN)
def test_what_is_not_finite_is_refused_wherever_it_is(declare: Callable[[], nd.Network]) -> None:
    network = declare()
    for seed in range(5):
        nd.backward(network, *batch(seed))
    data = batch(5)
    weights = [p.detach() for stage in network.stages for p in stage.parameters]
    weights += [p.detach() for _, p in network.feedback_parameters()]
    for number, tensor in enumerate((*data, *weights)):
        for bad in (torch.inf, -torch.inf, torch.nan):
            place = tuple(number % size for size in tensor.shape)
            kept = float(tensor[place])
            tensor[place] = bad
            with pytest.raises(ValueError, match="has 1 values that are NaN or infinite"):
                nd.backward(network, *data)
            tensor[place] = kept
    assert noted(network)


def test_modes_that_change_are_noticed() -> None:
    network = ar.network(mlp())
    for seed in range(5):
        nd.backward(network, *batch(seed))
    with torch.autocast("cpu"), pytest.raises(ValueError, match="autocast"):
        nd.backward(network, *batch(0))
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        nd.backward(network, *batch(0))
    with pytest.raises(TypeError, match="float64"):
        nd.backward(network, *(each.double() for each in batch(0)))


class Labelled(Tensor):
    """A tensor of a class of one's own."""


@pytest.mark.parametrize("declare", [ar.network, lambda module: ar.graph(module, batch(0)[0])], ids=["AR", "graph"])
def test_tensors_of_ones_own_class_and_of_inference_mode_are_taken_for_their_numbers(declare: Any) -> None:
    network, (x, t) = declare(mlp()), batch(0)
    with torch.inference_mode():
        inferred = x.clone()
    for given in (x.as_subclass(Labelled), x, inferred):
        for _ in range(3):
            loss = nd.backward(network, given, t)
            assert type(loss) is Tensor
            assert loss == nd.backward(network, x, t)


@pytest.mark.parametrize("rule", ["gait", "itp"])
def test_what_depends_on_numbers_is_made_as_it_is_written(rule: Any) -> None:
    module = tp.tower([5, 5, 5], outputs=5, weights="orthogonal", seed=0)
    network = tp.network(module, rule=rule)
    for seed in range(5):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.1)
        assert_as_anew(lambda: tp.network(module, rule=rule), network, *batch(seed))


def bounded(function: Callable[[Tensor], Tensor] = torch.tanh) -> nd.Network:
    drive = nd.Population("u", (5,), clamp=nd.Input())
    own = nd.Population("x", (5,), tau=torch.linspace(0.5, 2.0, 5), leak=0.5, bounds=(-0.3, 0.4), initial=0.1)
    other = nd.Population("y", (5,), leak=torch.linspace(0.5, 1.0, 5))
    stage = nd.Stage([nn.Tanh(), nd.mlp([5, 5], seed=1)])
    return nd.Network(
        "bounded",
        [drive, own, other],
        [
            nd.Coupling("u", "x"),
            nd.Coupling("x", "y", nd.Forward(stage), gain=torch.linspace(-1.0, 1.0, 5)),
            nd.Coupling("y", "x", nd.Feedback(stage, "live"), gain=0.7),
            nd.Coupling("y", "y", nd.Pointwise(function)),
        ],
    )


RELAXING: dict[str, Callable[[], nd.Network]] = {
    "pc": lambda: pc.network(mlp(), steps="equilibrium"),
    "pc of convolutions": lambda: pc.network(convolutional(), steps="equilibrium"),
    "ar": lambda: ar.network(mlp()),
    "ar of a graph": residual,
    "weak feedback": lambda: tp.weak_feedback(nd.mlp([5, 5, 5], seed=0), gamma=0.1),
    "bounds, and numbers of each unit": bounded,
}


def euler(network: nd.Network, inputs: Tensor, targets: Tensor | None, steps: int = 120) -> Tensor:
    """The field as it is written, in a loop by hand."""
    system = nd.System(network, inputs, targets)
    state, slope = system.initial_state(), system.new_state()
    for _ in range(steps):
        system.field(state, slope)
        state.flat.add_(slope.flat, alpha=0.1)
        system.confine(state)
    return state.flat


def relaxed(network: nd.Network, inputs: Tensor, targets: Tensor | None, steps: int = 120) -> Tensor:
    run = nd.simulate(network, inputs, targets, duration=0.1 * steps, solver=nd.Euler(0.1), save_at=2)
    names = nd.System(network, inputs, targets).dynamic
    return torch.cat([torch.as_tensor(run[name].values[-1]).flatten() for name in names])


def field_noted(network: nd.Network, inputs: Tensor, targets: Tensor | None, way: FieldWay = "alone") -> bool:
    with bound(network, inputs, targets) as system:
        return system.plan.repeated_fields(network)[way].noted


@pytest.mark.parametrize("declare", RELAXING.values(), ids=RELAXING)
def test_a_relaxation_by_operations_alone_is_the_one_that_is_written(declare: Callable[[], nd.Network]) -> None:
    network = declare()
    for seed in range(2):
        inputs, target = batch(seed)
        targets = target if network.target_drives else None
        torch.testing.assert_close(relaxed(network, inputs, targets), euler(declare(), inputs, targets))


def test_a_sliding_relaxation_by_operations_alone_is_the_one_that_is_written() -> None:
    network, solver = pc.network(nd.mlp([5, 6, 4, 5], activation="relu", seed=0), steps="equilibrium"), nd.Sliding()
    for seed in range(4):
        inputs, targets = batch(seed)
        run = nd.simulate(network, inputs, targets, duration=20.0, solver=solver, save_at=[20.0])
        system = nd.System(network, inputs, targets)
        state = system.initial_state()
        solver.integrate(system, state, 20.0, Unrecorded())
        for name in ("x1", "x2"):
            torch.testing.assert_close(torch.as_tensor(run[name].values[0]), state.activity[name])
    assert field_noted(network, *batch(0), "with jump")


@pytest.mark.parametrize("function", [torch.tanh, lambda x: x.tanh()])
def test_the_operations_of_a_field_are_noted_where_all_its_parts_are_known(
    function: Callable[[Tensor], Tensor],
) -> None:
    network = bounded(function)
    inputs, _ = batch(0)
    relaxed(network, inputs, None)
    assert field_noted(network, inputs, None) is (function is torch.tanh)


@pytest.mark.parametrize("change", ["in place", "of memory", "of the layer"])
def test_a_relaxation_sees_weights_that_changed(change: str) -> None:
    module = mlp()
    network = pc.network(module, steps="equilibrium")
    inputs, targets = batch(0)
    before = relaxed(network, inputs, targets)
    layer = module[1] if isinstance(module[1], nn.Linear) else module[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        if change == "in place":
            layer.weight.mul_(0.5)
        elif change == "of memory":
            layer.weight.data = 0.5 * layer.weight.data
        else:
            layer.weight = nn.Parameter(0.5 * layer.weight)
    after = relaxed(network, inputs, targets)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, euler(pc.network(module, steps="equilibrium"), inputs, targets))

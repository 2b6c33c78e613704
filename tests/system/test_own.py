"""What a user's own maps, drives, losses, observables, stop conditions and layers may do; the rest is refused."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.network.maps import Term
from tests.problems import tensor

SAMPLES, UNITS = 4, 6
MATRIX = tensor(UNITS, UNITS, seed=9)
Function = Callable[[Tensor], Any]


def _minus(place: int, x: Tensor) -> Tensor:
    return x - x[place]


def own(function: Function, **claims: bool) -> nd.Map:
    """Make a map of a function, with what it claims of itself."""

    class Own(nd.Map):
        def apply(self, source: Tensor) -> Tensor:
            return function(source)

    for claim, value in claims.items():
        setattr(Own, claim, value)
    return Own()


class Bound(nd.Map):
    """A map that binds a term of its own."""

    def __init__(self, function: Function, linear: bool = False) -> None:
        self.function, self.linear = function, linear

    def bind(self, points, source: str, target: str):
        return BoundTerm(self.function, source)


class BoundTerm(Term):
    def __init__(self, function: Function, source: str) -> None:
        self.function, self.source = function, source

    def add(self, activity, out: Tensor, gain: float) -> None:
        out.add_(self.function(activity[self.source]), alpha=gain)


class Counted(nd.Map):
    count = 0

    def apply(self, source: Tensor) -> Tensor:
        self.count += 1
        return self.count * source


class Reused(nd.Map):
    """A map that writes its value into the same memory each time."""

    def apply(self, source: Tensor) -> Tensor:
        if not hasattr(self, "memory"):
            self.memory = torch.empty_like(source)
        return torch.mul(source, 2, out=self.memory)


def network(map_: nd.Map, source: str) -> nd.Network:
    """Declare a network in which a clamped, a dynamic or an instantaneous population is the source of a map."""
    populations = [nd.Population("s", UNITS, clamp=nd.Input()), nd.Population("x", UNITS)]
    couplings = [nd.Coupling("s", "x")]
    if source == "y":
        populations.append(nd.Population("y", UNITS, tau=0.0))
        couplings.append(nd.Coupling("x", "y"))
    return nd.Network("own", populations, [*couplings, nd.Coupling(source, "x", map_, gain=0.1)])


def run(map_: nd.Map, source: str, inputs: Tensor) -> None:
    """Run a network, and see that the inputs stay."""
    before = inputs.clone()
    try:
        nd.simulate(network(map_, source), inputs, duration=0.2, solver=nd.Euler(0.1))
    finally:
        torch.testing.assert_close(inputs, before, rtol=0, atol=0)


def through_numpy(x: Tensor) -> Tensor:
    x.numpy()[:] = 1.0
    return 2 * x


WRITES = "writes into its argument, {}, which others read, too"
AGAIN = "gives another value when asked again"
MIXES = "mixes samples: what it makes of one depends on the others of its batch"
BAD: dict[str, tuple[nd.Map, str]] = {
    "in place": (own(lambda x: x.mul_(2)), WRITES),
    "in place where it is negative": (own(lambda x: x.clamp_(min=0)), WRITES),
    "in place through NumPy": (own(through_numpy), WRITES),
    "in place, bound": (Bound(lambda x: x.mul_(2)), WRITES),
    "random": (own(lambda x: x + torch.randn_like(x)), AGAIN),
    "random by NumPy": (own(lambda x: x * np.random.default_rng().normal()), AGAIN),
    "random, a little": (own(lambda x: x + 1e-4 * torch.randn_like(x)), AGAIN),
    "random, bound": (Bound(torch.rand_like), AGAIN),
    "counts": (Counted(), AGAIN),
    "the mean": (own(lambda x: x - x.mean(0)), MIXES),
    "the mean, bound": (Bound(lambda x: x - x.mean(0)), MIXES),
    "those before": (own(lambda x: x.cumsum(0)), MIXES),
    "the first": (own(lambda x: x - x[0]), MIXES),
    "the last": (own(lambda x: x - x[-1]), MIXES),
    "the neighbour": (own(lambda x: x.roll(1, 0)), MIXES),
    "how many there are": (own(lambda x: x / len(x)), MIXES),
    "the largest": (own(lambda x: torch.softmax(x, 0)), MIXES),
    "a sine that is linear": (own(torch.sin, linear=True), "says linear = True"),
    "a clamp that is linear": (own(lambda x: x.clamp(max=20.0), linear=True), "says linear = True"),
    "a size that is linear, bound": (Bound(torch.abs, linear=True), "says linear = True"),
    "a cosine that is homogeneous": (own(torch.cos, homogeneous=True), "says homogeneous = True, and gives 1"),
    "a number": (own(lambda x: 1.0), "returns a float, not one dense tensor"),
    "nothing": (own(lambda x: None), "returns a NoneType"),
    "two": (own(lambda x: (x, x)), "returns a tuple"),
    "sparse": (own(lambda x: x.to_sparse()), "returns a torch.sparse_coo tensor"),
    "whether": (own(lambda x: x > 0), r"returns torch\.bool on cpu"),
    "single precision": (own(lambda x: x.float()), r"returns torch\.float32 on cpu.*\.to\(source\)"),
    "complex": (own(lambda x: x + 1j), r"returns torch\.complex128"),
    "another shape": (own(lambda x: x.mean(1, keepdim=True)), r"makes the shape \(4, 1\)"),
}
GOOD: dict[str, nd.Map] = {
    "itself": own(lambda x: x, linear=True, homogeneous=True),
    "a view": own(lambda x: x.flip(1), linear=True, homogeneous=True),
    "a matrix": own(lambda x: x @ MATRIX.to(x), linear=True, homogeneous=True),
    "a large matrix": own(lambda x: 1e6 * (x @ MATRIX.to(x)), linear=True),
    "affine": own(lambda x: x @ MATRIX.to(x) + 3.0, linear=True),
    "a difference": own(lambda x: x - x.mean(1, keepdim=True), linear=True, homogeneous=True),
    "a transform in single precision": own(
        lambda x: torch.fft.rfft(x.float()).real[:, [0, 1, 2, 3, 2, 1]].to(x), linear=True
    ),
    "nothing of it": own(torch.zeros_like, linear=True, homogeneous=True),
    "very little of it": own(lambda x: 1e-30 * x, linear=True, homogeneous=True),
    "a kink": own(torch.relu, homogeneous=True),
    "a jump": own(lambda x: torch.sign(x @ MATRIX.to(x))),
    "a competition": own(lambda x: x * (x >= x.topk(2, 1).values[:, -1:])),
    "large": own(lambda x: torch.exp(20 * x)),
    "where it is positive": own(lambda x: (x + 3).log()),
    "periodic": own(lambda x: x % 0.1),
    "the same memory": Reused(),
    "a number for each sample": own(lambda x: x + torch.arange(SAMPLES).to(x).view(-1, 1)),
    "bound": Bound(lambda x: x @ MATRIX.to(x), linear=True),
}


@pytest.mark.parametrize("source", ["s", "x", "y"])
@pytest.mark.parametrize("name", BAD)
def test_what_a_map_must_not_do_is_refused(name: str, source: str) -> None:
    map_, message = BAD[name]
    with pytest.raises(nd.NeurodynError, match=rf"coupling {source} → x: \w+(\.apply)? {message.format(source)}"):
        run(map_, source, tensor(SAMPLES, UNITS))


@pytest.mark.parametrize("source", ["s", "x", "y"])
@pytest.mark.parametrize("name", GOOD)
def test_what_a_map_may_do_is_let_be(name: str, source: str) -> None:
    run(GOOD[name], source, tensor(SAMPLES, UNITS).clamp(-2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [name for name in GOOD if name not in ("a large matrix", "the same memory")])
def test_rounding_is_no_offence(name: str, dtype: torch.dtype) -> None:
    for samples in (1, SAMPLES, 33):
        if samples == SAMPLES or name != "a number for each sample":
            nd.System(network(GOOD[name], "s"), tensor(samples, UNITS).to(dtype))


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 40])
def test_mixing_is_found_in_a_batch_of_any_size(samples: int) -> None:
    for function in (lambda x: x - x.mean(0), lambda x: x.softmax(0), lambda x: x / len(x)):
        with pytest.raises(ValueError, match=MIXES):
            nd.System(network(own(function), "s"), tensor(samples, UNITS))
    if samples > 1:
        for place in range(samples):
            with pytest.raises(ValueError, match=MIXES):
                nd.System(network(own(partial(_minus, place)), "s"), tensor(samples, UNITS))


def positive(x: Tensor) -> Tensor:
    if not bool((x >= 0).all()):
        raise ArithmeticError("negative")
    return x.sqrt()


def test_a_map_that_takes_certain_values_alone_is_looked_at_there() -> None:
    inputs = tensor(SAMPLES, UNITS).abs()
    run(own(positive), "s", inputs)
    for function, message in (
        (lambda x: positive(x).mul_(2) + x.mul_(2), "writes into"),
        (lambda x: positive(x - x.min(0).values), MIXES),
        (lambda x: positive(x) + torch.rand_like(x), AGAIN),
    ):
        with pytest.raises(ValueError, match=message):
            run(own(function), "s", inputs)


def test_looking_disturbs_neither_random_numbers_nor_what_a_map_counts() -> None:
    class Calls(nd.Map):
        calls = 0

        def apply(self, source: Tensor) -> Tensor:
            self.calls += 1
            return source

    map_ = Calls()
    states = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    nd.System(network(map_, "x"), tensor(SAMPLES, UNITS))
    assert map_.calls == 0
    torch.testing.assert_close(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], states[1])  # noqa: NPY002


def test_a_map_is_looked_at_once_for_each_shape() -> None:
    asked: list[int] = []

    def ask(x: Tensor) -> Tensor:
        asked.append(len(x))
        return 1.0 * x

    declared = network(own(ask), "s")
    counts = []
    for samples in (SAMPLES, SAMPLES, 2, SAMPLES):
        asked.clear()
        nd.System(declared, tensor(samples, UNITS))
        counts.append(len(asked))
    assert counts[0] > 1
    assert counts[2] > 1
    assert counts[1] == counts[3] == 1


def test_a_map_within_another_is_looked_at() -> None:
    stage, *_ = nd.cut(nn.Sequential(nn.Linear(UNITS, UNITS), nn.Tanh()).double())
    declared = nd.Network(
        "n",
        [nd.Population("s", UNITS, clamp=nd.Input()), nd.Population("x", UNITS)],
        [nd.Coupling("s", "x", nd.Modulated(own(torch.rand_like), stage, 1))],
        forward=[stage],
    )
    with pytest.raises(ValueError, match=f"coupling s → x: Modulated {AGAIN}"):
        nd.System(declared, tensor(SAMPLES, UNITS))


class Own(nd.Drive):
    def __init__(self, function: Callable[[Any], Any], optional: bool = False) -> None:
        self.function, self.optional = function, optional

    def value(self, population: str, data):
        return self.function(data)

    def __str__(self) -> str:
        return "own"


def driven(drive: nd.Drive, where: str) -> nd.Network:
    at: dict[str, Any] = {where: drive}
    populations = [nd.Population("s", UNITS, clamp=nd.Input()), nd.Population("x", UNITS, **at)]
    stages = nd.cut(nn.Linear(UNITS, 2, dtype=torch.float64))
    return nd.Network("driven", [*populations, nd.Population("y", UNITS)], [nd.Coupling("x", "y")], forward=stages)


@pytest.mark.parametrize("where", ["clamp", "initial"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda data: data.inputs["s"].mul_(2), "drive Own writes into its argument, the inputs of s"),
        (lambda data: data.inputs["s"] - data.inputs["s"].mean(0), MIXES),
        (lambda data: data.forward.output.mul_(2).repeat(1, 3), "writes into the output of the forward pass"),
        (lambda data: data.inputs["s"] * np.random.default_rng().normal(), AGAIN),
        (lambda data: 1.0, "own gives a float, and not a tensor"),
        (lambda data: torch.tensor(1.0), "own gives a tensor without axes"),
        (lambda data: None, "own gives nothing"),
        (lambda data: data.inputs["s"].float(), r"own gives torch\.float32 on cpu, and the run is in torch\.float64"),
        (lambda data: data.inputs["s"] * math.nan, "own gives 24 values that are NaN"),
        (lambda data: data.inputs["s"][:1], "own has 1 samples, and the run has 4"),
    ],
)
def test_what_a_drive_must_not_do_is_refused(where: str, function, message: str) -> None:
    inputs = tensor(SAMPLES, UNITS)
    before = inputs.clone()
    for drive in (Own(function), nd.Noisy(Own(function), 0.1)):
        with pytest.raises(nd.NeurodynError, match=message if isinstance(drive, Own) else "own|Own"):
            nd.System(driven(drive, where), inputs)
    torch.testing.assert_close(inputs, before, rtol=0, atol=0)


def test_what_a_drive_may_do_is_let_be() -> None:
    inputs = tensor(SAMPLES, UNITS)
    for function in (
        lambda data: data.inputs["s"],
        lambda data: torch.randn_like(data.inputs["s"]),
        lambda data: data.inputs["s"].log().nan_to_num(0.0),
        lambda data: torch.zeros(SAMPLES, UNITS, dtype=torch.float64),
        lambda data: data.forward.output.repeat(1, 3),
    ):
        found = []
        declared = driven(Own(function), "clamp")
        for _ in range(2):  # the first of which looks at the drive
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found.append(nd.System(declared, inputs).clamped["x"].clone())
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert "x" not in nd.System(driven(Own(lambda data: None, optional=True), "clamp"), inputs).clamped


def square(y: Tensor, t: Tensor) -> Tensor:
    return (y - t).square().sum(1)


def module() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def learn(loss) -> list[Callable[[], object]]:
    data = tensor(5, 3), tensor(5, 2, seed=1).sigmoid()
    return [
        lambda: nd.backward(ar.network(module(), loss=loss), *data),
        lambda: nd.train.fit(ar.network(module(), loss=loss), data, epochs=1, batch_size=3, progress=False),
        lambda: nd.train.fit(module(), data, loss=loss, epochs=1, batch_size=3, progress=False),
    ]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda y, t: 1.0, "must return a tensor of one value per sample, not float"),
        (lambda y, t: square(y, t).mean(), "must return one value per sample"),
        (lambda y, t: square(y - y.mean(0), t), MIXES),
        (lambda y, t: square(y, t) / len(y), MIXES),
        (lambda y, t: y.sub_(t).square().sum(1), WRITES.format("output")),
        (lambda y, t: t.sub_(y).square().sum(1), WRITES.format("targets")),
        (lambda y, t: square(y, t) * torch.rand(len(y)), AGAIN),
        (lambda y, t: square(y, t).detach(), "the loss has no derivative by the output"),
    ],
)
def test_what_a_loss_must_not_do_is_refused(loss, message: str) -> None:
    for call in learn(loss):
        with pytest.raises(nd.NeurodynError, match=message):
            call()


@pytest.mark.parametrize(
    "loss",
    [
        square,
        lambda y, t: functional.binary_cross_entropy(y.sigmoid(), t, reduction="none").sum(1),  # needs 0 ≤ t ≤ 1
        lambda y, t: functional.cross_entropy(y, t, reduction="none"),
        lambda y, t: functional.huber_loss(y, t, reduction="none").sum(1),
        lambda y, t: (y - t).abs().amax(1),
    ],
)
def test_what_a_loss_may_do_is_let_be(loss) -> None:
    for call in learn(loss):
        call()


def observed(value: Callable[[Any], Any]) -> nd.Network:
    populations = [
        nd.Population("s", UNITS, clamp=nd.Input()),
        nd.Population("x", UNITS, initial=0.5),
        nd.Population("y", UNITS, tau=0.0),
    ]
    couplings = [nd.Coupling("s", "x"), nd.Coupling("x", "y", gain=2.0)]
    return nd.Network("observed", populations, couplings, observables=[nd.Observable("o", value, "o")])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda a: a["x"].sum(), r"observable o returns the shape \(\)"),
        (lambda a: a["x"].sum().view(1), r"returns the shape \(1,\); it has to be a number a sample, shape \(4,\)"),
        (lambda a: a["x"], r"returns the shape \(4, 6\)"),
        (lambda a: 12.0, "returns a float"),
        (lambda a: a["x"].sum(1).numpy(), "returns a ndarray"),
        (lambda a: a["x"].sum(1) * 1j, r"returns a torch\.complex128"),
        (lambda a: a["x"].mul_(2).sum(1), WRITES.format("x")),
        (lambda a: a["s"].zero_().sum(1), WRITES.format("s")),
        (lambda a: (a["x"] - a["x"].mean(0)).sum(1), MIXES),
        (lambda a: a["y"].sum(1).cumsum(0), MIXES),
        (lambda a: torch.rand(SAMPLES), AGAIN),
    ],
)
def test_what_an_observable_must_not_do_is_refused(value, message: str) -> None:
    inputs = tensor(SAMPLES, UNITS)
    before = inputs.clone()
    for call in (
        lambda: nd.simulate(observed(value), inputs, duration=0.2, solver=nd.Euler(0.1), record=["o", "x"]),
        lambda: nd.equilibrium(observed(value), inputs, record="o"),
    ):
        with pytest.raises(nd.NeurodynError, match=message):
            call()
    torch.testing.assert_close(inputs, before, rtol=0, atol=0)
    nd.simulate(observed(value), inputs, duration=0.2, solver=nd.Euler(0.1))  # which does not record it


def test_what_an_observable_may_do_is_let_be() -> None:
    for value in (
        lambda a: (a["x"] > 0.7).sum(1),
        lambda a: (a["y"] > 1).all(1),
        lambda a: (a["x"] - 10).log().sum(1),
        lambda a: (a["x"] * a["s"]).sum(1) + a["y"].norm(dim=1),
    ):
        found = nd.simulate(
            observed(value), tensor(SAMPLES, UNITS), duration=0.2, record=["s", "x", "y", "o"], save_at=2
        )
        expected = value({name: torch.tensor(found[name].values[1]) for name in ("s", "x", "y")})
        np.testing.assert_allclose(found["o"].values[1], expected.double(), rtol=1e-6)


@pytest.mark.parametrize("solver", [nd.Euler(0.1), nd.Adaptive()])
@pytest.mark.parametrize(
    ("until", "message"),
    [
        (lambda t, a, v: None, "until returns a NoneType"),
        (lambda t, a, v: a["x"] > 0, r"until returns a Tensor of shape \(4, 6\); it has to tell True or False"),
        (lambda t, a, v: bool(a["x"].mul_(2).sum() > 1e9), "until writes into the activity or the velocity"),
        (lambda t, a, v: bool(v["x"].zero_().sum() > 1), "until writes into the activity or the velocity"),
        (lambda t, a, v: bool(a["x"].numpy().fill(3.0)), "until writes into the activity or the velocity"),
    ],
)
def test_what_a_stop_condition_must_not_do_is_refused(solver, until, message: str) -> None:
    with pytest.raises(nd.NeurodynError, match=message):
        nd.simulate(observed(lambda a: a["x"].sum(1)), tensor(SAMPLES, UNITS), duration=1.0, solver=solver, until=until)


def test_what_a_stop_condition_may_do_is_let_be() -> None:
    asked: list[float] = []

    def remembers(time: float, activity: Any, velocity: Any) -> bool:
        asked.append(time)
        return len(asked) == 5

    conditions: list[Callable[..., Any]] = [
        lambda t, a, v: t > 0.35,
        lambda t, a, v: np.bool_(t > 0.35),
        lambda t, a, v: torch.tensor([t > 0.35]),
        remembers,
    ]
    for until in conditions:
        found = nd.simulate(observed(len), tensor(SAMPLES, UNITS), duration=1.0, solver=nd.Euler(0.1), until=until)
        assert float(found.time[-1]) == pytest.approx(0.4)


class Layer(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("kept", torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def counting(layer: Any, x: Tensor) -> Tensor:
    layer.kept += 1
    return x.tanh()


def using(layer: nn.Module) -> list[Callable[[], object]]:
    """Return calls of networks with a layer: in the forward pass, at a live population, at an instantaneous one."""
    first, _, last = module()
    sizes = {"x": 1.0, "y": 0.0, "z": 1.0}
    live = nd.Network(
        "live",
        [nd.Population("s", 4, clamp=nd.Input()), *(nd.Population(name, 4, tau=tau) for name, tau in sizes.items())],
        [nd.Coupling("s", "x"), nd.Coupling("x", "y"), nd.Coupling("y", "z", nd.Forward(layer))],
    )
    data = tensor(5, 3), tensor(5, 2, seed=1)
    return [
        lambda: nd.backward(ar.network(nn.Sequential(first, layer, last)), *data),
        lambda: nd.simulate(live, tensor(5, 4), duration=0.2, solver=nd.Euler(0.1)),
    ]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda layer, x: x - x.mean(0), MIXES),
        (lambda layer, x: x + 0.1 * torch.randn_like(x), f"{AGAIN}.*call .eval"),
        (lambda layer, x: functional.dropout(x, 0.5), AGAIN),
        (lambda layer, x: x.float(), r"Layer makes torch\.float32 on cpu of torch\.float64|Float and Double"),
        (counting, "Layer changes its own buffers at every evaluation"),
    ],
)
def test_what_a_layer_must_not_do_is_refused(function, message: str) -> None:
    for call in using(Layer(function)):
        with pytest.raises(nd.NeurodynError, match=message):
            call()


def test_a_torch_layer_along_the_samples_is_refused() -> None:
    for layer in (nn.Softmax(0), nn.LogSoftmax(0)):
        for call in using(layer):
            with pytest.raises(ValueError, match=f"{type(layer).__name__} {MIXES}"):
                call()


def test_what_a_layer_may_do_is_let_be() -> None:
    for layer in (
        Layer(lambda layer, x: x.mul_(2)),
        Layer(lambda layer, x: x / (1 + x.norm(dim=1, keepdim=True))),
        Layer(lambda layer, x: (x + layer.kept).sign()),
        nn.ReLU(inplace=True),
        nn.LayerNorm(4, dtype=torch.float64),
    ):
        for call in using(layer):
            call()


def test_a_layer_is_looked_at_anew_in_another_mode() -> None:
    first, _, last = module()
    whole = nn.Sequential(first, Layer(lambda layer, x: functional.dropout(x, 0.5, layer.training)), last).eval()
    declared, data = ar.network(whole), (tensor(5, 3), tensor(5, 2, seed=1))
    nd.backward(declared, *data)
    whole.train()
    with pytest.raises(ValueError, match=AGAIN):
        nd.backward(declared, *data)

"""Training runs against loops by hand."""

import copy
import pickle
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.training import RULES, SAMPLES, Learning, by_hand, classes, distance, equal, mlp, parameters, teach, trained


def fit(network, data=None, test=None, **arguments) -> xr.Dataset:
    data = classes() if data is None else data
    return nd.train.fit(network, data, test, **{"epochs": 2, "batch_size": 8, **arguments})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rule", RULES)
def test_a_loop_by_hand_gives_the_same_weights(rule: str, optimizer: str) -> None:
    network, other = RULES[rule](1), RULES[rule](1)
    fit(network, optimizer=optimizer, learning_rate=0.01, seed=3)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    by_hand(other, kinds[optimizer](trained(other), lr=0.01), classes(), epochs=2, seed=3)
    assert equal(network, other)
    assert distance(network, RULES[rule](1)) > 1e-3


@pytest.mark.parametrize("rule", ["AR", "Z-IL", "Fa-Z-IL"])
def test_rules_that_equal_backprop_follow_it(rule: str) -> None:
    network, module = RULES[rule](0), mlp(0)
    mine, reference = (fit(each, test=classes(40, 1), epochs=5, learning_rate=0.01) for each in (network, module))
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        xr.testing.assert_allclose(mine[name], reference[name], rtol=1e-10)
    assert distance(network, RULES[rule](0)) > 0.01
    assert all(
        float((a - b).detach().abs().max()) < 1e-10
        for a, b in zip(parameters(network), module.parameters(), strict=True)
    )


def test_single_precision_follows_double() -> None:
    single = nd.train.fit(ar.network(mlp(dtype=torch.float32)), classes(dtype=torch.float32), epochs=4)
    double = nd.train.fit(ar.network(mlp()), classes(dtype=torch.float32), epochs=4)
    xr.testing.assert_allclose(single.train_loss, double.train_loss, rtol=1e-5)
    assert single.attrs["dtype"] == "torch.float32"


SIMPLIFIED: dict[str, Any] = {"feedback": "learned", "relaxation_derivative": "none"}
DIGITS = {
    "backprop": lambda module: module,
    "AR": ar.network,
    "Z-IL": lambda module: pc.network(module, learning="z-il"),
    "AR simplified": lambda module: ar.network(module, **SIMPLIFIED),
    "AR without any derivative": lambda module: ar.network(module, **SIMPLIFIED, weight_derivative="none"),
}


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_digits_by_the_defaults(activation: str) -> None:
    curves = {}
    for rule, build in DIGITS.items():
        module = nd.mlp([64, 128, 64, 10], activation=activation, seed=0)
        curves[rule] = nd.train.fit(build(module), *nd.data.digits(), epochs=8).test_accuracy
        assert float(curves[rule][-1]) > 0.93
    for rule in ("AR", "Z-IL"):
        np.testing.assert_allclose(curves[rule], curves["backprop"], atol=0.01)  # rounding may turn some of 360 samples


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 3e-3), ("sgd", 0.1)])
def test_the_learning_rate_has_a_default(optimizer: str, rate: float) -> None:
    module, other = mlp(), mlp()
    fit(module, optimizer=optimizer)
    fit(other, optimizer=optimizer, learning_rate=rate)
    assert equal(module, other)


def test_the_history_against_measurements_by_hand() -> None:
    module, other, (inputs, targets), test = mlp(), mlp(), classes(), classes(13, 5)
    history = fit(module, (inputs, targets), test, optimizer="sgd", learning_rate=0.3, record=["iterations"], epochs=3)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.3)
    losses, rates, sizes = [], [], []
    for epoch in range(3):
        for x, t in nd.train.batches((inputs, targets), 8, epoch=epoch + 1):
            losses.append(float((0.5 * (other(x) - t).square().sum(1)).mean().detach()))
            rates.append(float((other(x).argmax(1) == t.argmax(1)).double().mean()))
            sizes.append(len(x))
            optimizer.zero_grad()
            teach(other, x, t)
            optimizer.step()
        now = slice(3 * epoch, None)
        assert float(history.train_loss[epoch]) == pytest.approx(np.average(losses[now], weights=sizes[now]), rel=1e-12)
        assert float(history.train_accuracy[epoch]) == pytest.approx(np.average(rates[now], weights=sizes[now]))
        output = other(test[0]).detach()
        error = float((0.5 * (output - test[1]).square().sum(1)).mean())
        assert float(history.test_loss[epoch]) == pytest.approx(error, rel=1e-12)
        assert float(history.test_accuracy[epoch]) == float((output.argmax(1) == test[1].argmax(1)).double().mean())
    np.testing.assert_allclose(history.train_loss_by_iteration, losses, rtol=1e-12)
    np.testing.assert_allclose(history.train_accuracy_by_iteration, rates, rtol=1e-12)
    assert dict(history.sizes) == {"epoch": 3, "iteration": 9}
    assert history.epoch.values.tolist() == [1, 2, 3]
    assert bool((history.seconds > 0).all())
    assert "relaxation_iterations" not in history
    assert all({"units", "long_name"} <= set(variable.attrs) for variable in history.data_vars.values())


def test_the_test_set_is_split_into_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(mlp(), test=classes(41, 1))
    monkeypatch.setattr("neurodyn.train.run._TEST_BATCH", 7)
    xr.testing.assert_allclose(fit(mlp(), test=classes(41, 1)).drop_vars("seconds"), whole.drop_vars("seconds"))


def test_the_history_is_saved_and_reopened(tmp_path) -> None:
    history = fit(RULES["IL"](0), test=classes(5), record=["iterations", "angles"])
    xr.testing.assert_identical(nd.load(nd.save(history, tmp_path / "history.nc")), history)


def test_relaxation_iterations() -> None:
    assert fit(RULES["IL"](0)).relaxation_iterations.values.tolist() == [5, 5]
    euler = fit(RULES["AR"](0), duration=3.0, solver=nd.Euler(0.1), record="iterations")
    assert euler.relaxation_iterations_by_iteration.values.tolist() == [30] * 6
    adaptive = fit(pc.network(mlp(), steps="equilibrium"))
    assert float(adaptive.relaxation_iterations.min()) > 1
    assert "relaxation_iterations" not in fit(RULES["AR"](0))


def test_a_relaxation_that_stops_early_is_that_of_backward() -> None:
    network, other = ar.network(mlp()), ar.network(mlp())
    fit(network, duration=1.5, solver=nd.Euler(0.5), optimizer="sgd", learning_rate=0.1)
    optimizer = torch.optim.SGD(trained(other), lr=0.1)
    for epoch in (1, 2):
        for inputs, targets in nd.train.batches(classes(), 8, epoch=epoch):
            optimizer.zero_grad()
            nd.backward(other, inputs, targets, duration=1.5, solver=nd.Euler(0.5))
            optimizer.step()
    assert equal(network, other)


def test_angles_to_backprop() -> None:
    exact = fit(RULES["AR"](0), record=["angles"]).angle
    assert exact.dims == ("epoch", "layer")
    assert exact.layer.values.tolist() == ["1", "2", "3"]
    assert float(exact.max()) < 1e-5
    network = ar.network(mlp(), feedback="fixed")
    module = copy.deepcopy(mlp())
    angles = fit(network, record=["angles", "iterations"], batch_size=SAMPLES, epochs=1).angle_by_iteration[0]
    teach(module, *classes())
    other = ar.network(mlp(), feedback="fixed")
    teach(other, *next(iter(nd.train.batches(classes(), SAMPLES))))
    for layer, angle in enumerate(angles.values):
        u, v = (
            torch.cat([p.grad.flatten() for p in side[2 * layer : 2 * layer + 2] if p.grad is not None])
            for side in (parameters(other), list(module.parameters()))
        )
        cosine = min(1.0, float(u @ v / u.norm() / v.norm()))  # which rounding may take past 1
        assert angle == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-5)
    assert float(angles[0]) > 10  # random feedback points elsewhere
    assert "angle" not in fit(mlp(), record=["angles"])


def test_schedulers() -> None:
    def decaying(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)

    network, other = RULES["AR"](0), RULES["AR"](0)
    fit(network, optimizer=decaying, epochs=3)
    optimizer, scheduler = decaying(trained(other))
    for epoch in (1, 2, 3):
        for inputs, targets in nd.train.batches(classes(), 8, epoch=epoch):
            optimizer.zero_grad()
            teach(other, inputs, targets)
            optimizer.step()
        scheduler.step()
    assert equal(network, other)


def test_a_scheduler_that_watches_the_test_loss() -> None:
    rates = []

    def watching(parameters):
        optimizer = torch.optim.SGD(parameters, lr=1e-12)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, eps=0.0)
        rates.append(optimizer.param_groups[0])
        return optimizer, scheduler

    fit(mlp(), test=classes(9, 1), optimizer=watching, epochs=4)
    assert rates[0]["lr"] == 1e-12 * 0.5**3  # nothing improves, but for the first epoch


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_is_that_of_the_seed_and_the_global_state_stays(seed: int) -> None:
    def noisy():
        return pc.network(mlp(), steps=3, initial_noise=0.5)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second, other = noisy(), noisy(), noisy()
    fit(first, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    fit(second, seed=seed)
    assert equal(first, second)
    torch.manual_seed(seed)
    by_hand(other, torch.optim.Adam(trained(other), lr=0.003), classes(), epochs=2, seed=seed)
    assert equal(first, other)


class Listed(Dataset[Any]):
    """A data set that gives one sample at a time."""

    def __init__(self, inputs: Iterable[Tensor], targets: Iterable[Any]) -> None:
        self.samples = list(zip(inputs, targets, strict=True))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_every_kind_of_data_gives_the_same_run() -> None:
    pixels = torch.randint(256, (SAMPLES, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(SAMPLES) % 4
    inputs, targets = pixels.float() / 255, nn.functional.one_hot(labels, 4).float()
    network = RULES["AR"](0)
    reference = fit(network, (inputs, targets)).drop_vars("seconds")
    kinds: Sequence[nd.train.Data] = [
        nd.data.Samples(pixels, labels, classes=4, name="pixels"),
        [inputs, targets],
        TensorDataset(inputs, targets),
        Listed(inputs, targets),
        Subset(Listed(torch.cat([inputs, inputs]), torch.cat([targets, targets])), range(SAMPLES)),
    ]
    for data in kinds:
        other = RULES["AR"](0)
        history = fit(other, data).drop_vars("seconds")
        xr.testing.assert_equal(history, reference)
        assert equal(network, other)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**40), st.integers(1, 1000))
def test_each_epoch_draws_every_sample_once(samples: int, size: int, seed: int, epoch: int) -> None:
    numbers = torch.arange(samples, dtype=torch.float64).unsqueeze(1)
    drawn = list(nd.train.batches((numbers, numbers), size, seed=seed, epoch=epoch))
    order = torch.cat([inputs for inputs, _ in drawn]).flatten()
    assert order.sort().values.tolist() == list(range(samples))
    assert [len(inputs) for inputs, _ in drawn[:-1]] == [size] * (len(drawn) - 1)
    assert all(torch.equal(inputs, targets) for inputs, targets in drawn)


def test_the_order_depends_on_the_seed_and_the_epoch() -> None:
    numbers = torch.arange(50.0).unsqueeze(1)
    orders = {
        tuple(
            torch.cat([x for x, _ in nd.train.batches((numbers, numbers), seed=seed, epoch=epoch)]).flatten().tolist()
        )
        for seed in range(3)
        for epoch in range(1, 4)
    }
    assert len(orders) == 9


def hebbian(seed: int = 0) -> nd.Network:
    """Oja's rule for the first principal component, Δw = η y (x − y w): a user's own network, without targets."""
    torch.manual_seed(seed)
    stage, back = (nd.Stage(nn.Linear(6, 1, bias=False, dtype=torch.float64), name) for name in ("w", "back"))
    back.layers[0].weight = stage.layers[0].weight
    return nd.Network(
        "Oja",
        [nd.Population("x", 6, clamp=nd.Input()), nd.Population("y", 1, tau=0.0), nd.Population("r", 6)],
        [
            nd.Coupling("x", "y", nd.Forward(stage)),
            nd.Coupling("x", "r"),
            nd.Coupling("y", "r", nd.Feedback(back, "live"), gain=-1.0),
        ],
        [nd.Plasticity(stage, "r", "y", presynaptic="live", gain=-1.0)],
    )


def test_a_network_of_ones_own_without_targets_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(6, generator=generator, dtype=torch.float64)
    inputs = torch.randn(200, 1, generator=generator, dtype=torch.float64) * axis
    inputs = inputs + 0.1 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
    network = hebbian()
    held_out = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    history = fit(
        network,
        (inputs, torch.zeros(200, 1)),
        optimizer="sgd",
        learning_rate=0.05,
        epochs=5,
        metrics={"test_error": lambda network: float((nd.equilibrium(network, held_out).r ** 2).sum("r_unit").mean())},
    )
    (weight,) = parameters(network)[:1]
    residual = held_out - held_out @ weight.detach().T @ weight.detach()
    assert float(history.test_error[-1]) == pytest.approx(float(residual.square().sum(1).mean()), rel=1e-9)
    principal = torch.linalg.svd(inputs).Vh[0]
    assert float((weight.detach().flatten() @ principal).abs()) == pytest.approx(1.0, abs=0.01)
    assert set(history.data_vars) == {"seconds", "test_error"}
    with pytest.raises(ValueError, match=r"has no forward pass, so nothing can be tested; measure it by metrics="):
        fit(hebbian(), (inputs, torch.zeros(200, 1)), test=(inputs, torch.zeros(200, 1)))
    with pytest.raises(ValueError, match="no angles to backprop"):
        fit(hebbian(), (inputs, torch.zeros(200, 1)), record=["angles"])


def test_fixed_feedback_weights_stay_and_learned_ones_learn() -> None:
    for feedback in ("fixed", "learned"):
        network = ar.network(mlp(), feedback=feedback)
        before = [weights.detach().clone() for _, weights in network.feedback_parameters()]
        fit(network)
        moved = [not torch.equal(a, b) for a, (_, b) in zip(before, network.feedback_parameters(), strict=True)]
        assert moved == [feedback == "learned"] * 2


def test_a_module_keeps_its_mode_and_is_tested_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 4)).double()
    module[2].eval()
    inputs, targets = classes()
    history = fit(module, test=(inputs, targets), optimizer="sgd", learning_rate=1e-9)
    assert module.training
    assert module[1].training
    assert not module[2].training
    module.eval()
    loss = 0.5 * (module(inputs) - targets).square().sum(1).mean()
    assert float(history.test_loss[-1]) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert abs(float(history.train_loss[-1]) / float(loss.detach()) - 1) > 1e-3  # under dropout, another


def test_inputs_that_a_module_does_not_take_are_refused() -> None:
    _, targets = classes()
    with pytest.raises(ValueError, match=r"module Sequential does not take an input of 5 a sample: .* cannot be"):
        nd.train.fit(mlp(), (targets.new_ones(len(targets), 5), targets), epochs=1)


def test_a_last_batch_that_a_module_does_not_take_is_refused() -> None:
    inputs, targets = classes(5)
    with pytest.raises(ValueError, match=r"module Sequential does not take .*: Expected more than 1 value per channel"):
        nd.train.fit(nn.Sequential(nn.BatchNorm1d(6).double(), mlp()), (inputs, targets), epochs=1, batch_size=4)


class Spectrum(nn.Module):
    """Weights of the frequencies of an input, complex ones or real ones."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.fft.rfft(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spectrum(torch.complex128), "backprop: a parameter is complex, and what is trained has real ones"),
        (lambda: Spectrum(torch.float64), "the loss must return real numbers, not torch.complex128"),
        (
            lambda: ar.network(nn.Sequential(nn.Linear(6, 6), Spectrum(torch.float64)).double()),
            "makes torch.complex128",
        ),
        (lambda: ar.graph(Spectrum(torch.complex128), torch.ones(2, 6) + 0j), "example_input must hold real numbers"),
    ],
)
def test_complex_numbers_are_refused(build: Callable[[], Learning], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fit(build())


def test_a_loss_of_ones_own() -> None:
    def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, targets, reduction="none")

    network, module = ar.network(mlp(), loss=cross_entropy), mlp()
    mine, reference = (fit(each, loss=cross_entropy, learning_rate=0.01) for each in (network, module))
    xr.testing.assert_allclose(mine.train_loss, reference.train_loss, rtol=1e-10)
    assert mine.train_loss[0] == pytest.approx(np.log(4), rel=0.2)


def test_callbacks_see_the_history_and_may_end_the_run() -> None:
    seen: list[int] = []

    def enough(history: xr.Dataset) -> bool:
        seen.append(history.sizes["epoch"])
        return history.sizes["epoch"] == 3

    history = fit(mlp(), epochs=10, callbacks=[enough])
    assert seen == [1, 2, 3]
    xr.testing.assert_equal(history.drop_vars("seconds"), fit(mlp(), epochs=3).drop_vars("seconds"))


def test_progress_is_shown_on_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurodyn.progress.AFTER", 0.0)
    fit(RULES["AR"](0), progress=True)
    assert "activation relaxation: 100%" in capsys.readouterr().err
    fit(mlp())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rule", ["backprop", "AR", "IL", "GAIT"])
def test_a_diverging_run_stops_and_says_where(rule: str) -> None:
    with pytest.raises(nd.train.DivergedError, match=r"training diverged in epoch \d+, batch \d of 3") as caught:
        fit(RULES[rule](0), optimizer="sgd", learning_rate=1e60, epochs=20)
    error = caught.value
    assert error.history.sizes.get("epoch", 0) == error.epoch - 1
    assert 1 <= error.batch <= 3


def test_a_run_whose_last_batch_diverges_says_so() -> None:
    def spoiling(parameters: Any) -> torch.optim.Optimizer:
        def spoil(*_: object) -> None:
            nn.init.constant_(parameters[0], torch.inf)

        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_post_hook(spoil)
        return optimizer

    with pytest.raises(nd.train.DivergedError, match="epoch 1, batch 1 of 1: a parameter is NaN or infinite") as caught:
        fit(mlp(), optimizer=spoiling, batch_size=len(classes()[0]))
    assert caught.value.batch == 1


@pytest.mark.parametrize("of_network", [False, True])
def test_an_infinite_loss_diverges_where_its_gradient_is_not_finite_either(of_network: bool) -> None:
    def loss(output: Tensor, targets: Tensor) -> Tensor:
        return (output - targets).cosh().log().sum(1)

    inputs, targets = classes()
    network = ar.network(mlp(), loss=loss) if of_network else mlp()
    with pytest.raises(nd.train.DivergedError, match=r"epoch 1, batch 1 of \d: the loss is inf"):
        fit(network, (inputs, 1e4 * targets), **({} if of_network else {"loss": loss}))


def test_a_relaxation_that_diverges_stops_the_run() -> None:
    network = pc.network(mlp(), steps=2000, step=50.0)
    with pytest.raises(
        nd.train.DivergedError, match=r"epoch 1, batch 1 of 3: population .* became non-finite"
    ) as caught:
        fit(network)
    assert caught.value.population in [p.name for p in network.populations]
    assert caught.value.time == 2000 * 50.0


def test_a_diverged_run_is_a_divergence_that_processes_can_hand_on() -> None:
    history = xr.Dataset({"train_loss": ("epoch", [1.0, 2.0])})
    for family in (nd.DivergenceError, nd.NeurodynError, ArithmeticError, ValueError):
        assert issubclass(nd.train.DivergedError, family)
    error = nd.train.DivergedError("training diverged", 3, 2, history)
    assert (error.time, error.population) == (None, None)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.epoch, copied.batch) == ("training diverged", 3, 2)
    xr.testing.assert_identical(copied.history, history)


@pytest.mark.parametrize("rule", ["backprop", "AR"])
@pytest.mark.parametrize("part", [0, 1])
def test_data_that_are_not_finite_are_no_divergence(rule: str, part: int) -> None:
    data = classes()
    data[part][3, 1] = torch.nan
    with pytest.raises(ValueError, match="inputs" if part == 0 else "targets") as caught:
        fit(RULES[rule](0), data)
    assert "finite" in str(caught.value)


def test_parameters_that_are_not_finite_are_refused() -> None:
    module = mlp()
    with torch.no_grad():
        next(module.parameters())[2, 1] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite before training"):
        fit(module)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*classes(), strict=True)

    def __len__(self) -> int:
        return SAMPLES


def test_a_parameter_without_numbers_is_let_be() -> None:
    module, other = mlp(), mlp()
    other.register_parameter("empty", nn.Parameter(torch.zeros(0, dtype=torch.float64)))
    assert fit(other).train_loss.equals(fit(module).train_loss)


def test_a_module_that_does_not_know_its_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="backprop: a parameter does not know its size yet; run the module once"):
        fit(nn.Sequential(nn.LazyLinear(4)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be an integer ≥ 1"),
        ({"epochs": 1.5}, TypeError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"optimizer": "lion"}, ValueError, "'sgd' or 'adam', or a function"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, TypeError, "lambda parameters"),
        ({"optimizer": lambda parameters: None}, TypeError, "returns a torch optimizer"),
        ({"optimizer": torch.optim.LBFGS}, ValueError, "LBFGS"),
        ({"optimizer": torch.optim.Adam, "learning_rate": 0.1}, ValueError, "learning_rate: it is that of"),
        ({"learning_rate": -0.1}, ValueError, "learning_rate must be positive"),
        ({"loss": lambda y, t: (y - t).abs().sum(1)}, ValueError, "declares its own"),
        ({"record": ["weights"]}, ValueError, "'iterations' or 'angles', not 'weights'"),
        ({"resume": "maybe"}, ValueError, "'auto', 'always' or 'never'"),
        ({"resume": "always"}, ValueError, "needs a checkpoint"),
        ({"checkpoint_minutes": -1.0, "checkpoint": "x"}, ValueError, "checkpoint_minutes"),
        ({"callbacks": [3]}, TypeError, "callbacks"),
        ({"seeds": [1, 2]}, ValueError, "as many networks as there are seeds, 2"),
        ({"solver": nd.Euler(0.1)}, ValueError, "only with duration"),
        ({"data": nd.data.digits()}, TypeError, "unpack the pair of data sets"),
        ({"data": (np.ones((4, 4)), np.ones((4, 3)))}, TypeError, "a tuple of arrays; make tensors of them"),
        ({"data": torch.utils.data.DataLoader(nd.data.digits()[0])}, TypeError, "a DataLoader; give its .dataset"),
        ({"data": Stream()}, TypeError, "a Stream, whose samples are not drawn by their index"),
        ({"data": (classes()[0].to_sparse(), classes()[1])}, TypeError, "inputs must be a dense tensor"),
        ({"data": (classes()[0], classes()[1][:4])}, ValueError, "22 inputs and 4 targets"),
        ({"data": (classes()[0][:0], classes()[1][:0])}, ValueError, "there are no samples"),
        ({"data": (classes()[0], classes()[1].long())}, TypeError, "make labels one-hot"),
        ({"data": Listed(classes()[0], classes()[1].bool().tolist())}, TypeError, "a sample is a pair"),
        ({"data": (classes()[0], classes()[1][:, :3])}, ValueError, r"targets have the shape \(8, 3\)"),
        ({"data": (classes()[0][:, :5], classes()[1])}, ValueError, "5"),
        ({"test": (classes()[0], classes()[1].long())}, TypeError, "test: targets must be floating-point"),
    ],
)
def test_bad_input(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        fit(RULES["AR"](0), **arguments)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage:UserWarning")
def test_nested_data_are_refused() -> None:
    with pytest.raises(TypeError, match="train: inputs must be a dense tensor, not a nested one; pad it"):
        fit(RULES["AR"](0), (torch.nested.nested_tensor(list(classes()[0])), classes()[1]))


def test_bad_networks() -> None:
    with pytest.raises(TypeError, match="network is a declared Network"):
        fit("AR")
    with pytest.raises(ValueError, match="several are trained with seeds="):
        fit([mlp(), mlp()])
    with pytest.raises(ValueError, match="declares no plasticity"):
        fit(nd.Network("rest", [nd.Population("x", 6, clamp=nd.Input())]))
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        fit(mlp().requires_grad_(False))
    with pytest.raises(ValueError, match="does not relax"):
        fit(mlp(), duration=1.0)
    with pytest.raises(ValueError, match=r"targets have the shape \(8, 4\), and the output has \(8, 1\)"):
        fit(nd.mlp([6, 1], dtype=torch.float64))
    with pytest.raises(ValueError, match="epoch must be an integer ≥ 1"):
        next(iter(nd.train.batches(classes(), epoch=0)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES)
def test_on_a_gpu(rule: str) -> None:
    network, other = RULES[rule](0), RULES[rule](0)
    history = fit(network, device="cuda", test=classes(9, 1))
    reference = fit(other, test=classes(9, 1))
    assert all(parameter.is_cuda for parameter in parameters(network))
    xr.testing.assert_allclose(history.drop_vars("seconds"), reference.drop_vars("seconds"), rtol=1e-6)


def _sgd(parameters) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize("network", [mlp, RULES["AR"]])
@pytest.mark.parametrize(
    ("optimizer", "match"),
    [
        (lambda p: _sgd(mlp(1).parameters()), "of 6 parameters that the network does not have"),
        (lambda p: _sgd([*p, *mlp(1).parameters()]), "of 6 parameters that the network does not have"),
        (lambda p: _sgd([p.pop()]), "leaves out parameters of the shapes"),
        (lambda p: _sgd(p[1:]), r"leaves out parameters of the shapes \(\d+, \d+\);.*requires_grad_\(False\)"),
        (lambda p: (_sgd(p), torch.optim.lr_scheduler.StepLR(_sgd(p), 1)), "scheduler is that of another optimizer"),
    ],
)
def test_an_optimizer_is_of_the_networks_parameters(network, optimizer, match: str) -> None:
    with pytest.raises(nd.NeurodynError, match=match):
        fit(network(0), optimizer=optimizer)


def test_groups_of_parameters_may_differ() -> None:
    module, other = mlp(), mlp()
    fit(module, optimizer=lambda p: torch.optim.SGD([{"params": p[:2]}, {"params": p[2:], "lr": 0.0}], lr=0.1))
    moved = [not torch.allclose(p, q) for p, q in zip(module.parameters(), other.parameters(), strict=True)]
    assert moved == [True] * 2 + [False] * (len(moved) - 2)


def test_hooks_that_stacked_networks_would_not_call_are_refused() -> None:
    for make, change, _ in (
        (RULES["AR"], lambda n: n.forward[0].parameters[0].register_hook(torch.zeros_like), "on the gradient"),
        (mlp, lambda m: next(m.parameters()).register_hook(torch.zeros_like), "on the gradient"),
        (mlp, lambda m: m.register_forward_hook(lambda m, x, y: 2 * y), "a hook on its Sequential"),
        (mlp, lambda m: m[0].register_full_backward_hook(lambda m, x, y: None), "a hook on its Linear"),
    ):
        networks = [make(0), make(1)]
        change(networks[1])
        with pytest.raises(nd.NeurodynError, match=r"seed 1 .*hook"):
            fit(networks, seeds=[0, 1])


def single() -> tuple[Tensor, Tensor]:
    inputs, targets = classes()
    return inputs, targets[:, :1]


def test_a_single_output_has_no_accuracy() -> None:
    module = nd.mlp([6, 5, 1], dtype=torch.float64)
    history = fit(module, single(), single(), record=["iterations"])
    assert {"train_loss", "test_loss"} <= set(history.data_vars)
    assert not [name for name in history.data_vars if "accuracy" in str(name)]
    assert {"train_accuracy", "test_accuracy"} <= set(fit(mlp(), test=classes(9, 1)).data_vars)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("kind", [tuple, lambda data: Subset(TensorDataset(*data), range(9))])
@pytest.mark.parametrize("rule", ["backprop", "AR"])
def test_test_data_that_are_not_finite_are_no_divergence(rule: str, kind: Any, part: int) -> None:
    test = classes(9, 1)
    test[part][3, 1] = torch.nan
    with pytest.raises(ValueError, match=f"test: {'inputs' if part == 0 else 'targets'} .* NaN or infinite") as caught:
        fit(RULES[rule](0), test=kind(test))
    assert not isinstance(caught.value, nd.DivergenceError)


def with_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 4)).double()


def test_runs_in_threads_draw_random_numbers_of_their_own() -> None:
    alone = {seed: with_dropout() for seed in range(3)}
    histories = {seed: fit(module, seed=seed, epochs=6) for seed, module in alone.items()}
    together = {seed: with_dropout() for seed in range(3)}
    found: dict[int, xr.Dataset] = {}

    def work(seed: int) -> None:
        found[seed] = fit(together[seed], seed=seed, epochs=6, callbacks=[lambda history: nd.mlp([3, 2]) is None])

    before = torch.get_rng_state(), random.getstate()
    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        assert equal(together[seed], alone[seed])
        xr.testing.assert_identical(found[seed].drop_vars("seconds"), histories[seed].drop_vars("seconds"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "mse"}, TypeError, "fit: loss is a function of the outputs and the targets .*, not 'mse'"),
        ({"device": "gpu"}, ValueError, "device: 'gpu' is no device"),
        ({"device": "cuda:99"}, ValueError, "device: there is no cuda:99 that PyTorch can use here"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be a path, such as 'name', not 3"),
        ({"callbacks": 3}, TypeError, "callbacks must be a list, not 3"),
        ({"callbacks": {}}, TypeError, "callbacks must be a list, not a dict"),
        ({"record": np.zeros(0)}, TypeError, "record must be a list, not a ndarray"),
        ({"test": torch.empty(2, 4, 3, device="meta").unbind()}, TypeError, "test: inputs must be a tensor with data"),
        ({"checkpoint_minutes": float("nan")}, ValueError, "checkpoint_minutes must be finite, not nan"),
        ({"seed": 1.0}, TypeError, "seed must be an integer"),
        ({"learning_rate": True}, TypeError, "learning_rate must be a number"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_run(arguments: Any, error: Any, message: str) -> None:
    module = mlp()
    with pytest.raises(error, match=message) as caught:
        fit(module, **arguments)
    assert isinstance(caught.value, nd.NeurodynError)
    assert equal(module, mlp())


def test_a_learning_rate_beyond_the_parameters_precision_is_refused() -> None:
    inputs, labels = classes()
    with pytest.raises(ValueError, match="learning_rate must be within the range of the parameters' dtype"):
        fit(mlp(dtype=torch.float32), (inputs.float(), labels.float()), learning_rate=1e300)


def test_integers_of_numpy_are_integers(tmp_path: Path) -> None:
    arguments = {"epochs": np.int64(2), "batch_size": np.int32(8), "seed": np.uint8(3)}
    one, other = mlp(), mlp()
    fit(one, checkpoint=tmp_path, **arguments)
    fit(other, epochs=2, batch_size=8, seed=3)
    assert equal(one, other)

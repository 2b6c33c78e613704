"""Every numeric setting is refused where it is no number in its range, and taken where it is one of NumPy's."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp


def stage() -> nd.Stage:
    return nd.Stage(nn.Linear(2, 2), "1")


def square() -> nn.Sequential:
    return nd.mlp([2, 2, 2])


Make = Callable[[Any], object]

NUMBERS: dict[str, Make] = {
    "initial": lambda v: nd.Population("a", 2, initial=v),
    "gain of a coupling": lambda v: nd.Coupling("a", "b", gain=v),
    "gain of plasticity": lambda v: nd.Plasticity(stage(), "a", "b", gain=v),
}
NOT_NEGATIVE: dict[str, Make] = {
    "tau": lambda v: nd.Population("a", 2, tau=v),
    "leak": lambda v: nd.Population("a", 2, leak=v),
    "error_tau": lambda v: pc.network(square(), error_tau=v),
    "initial_noise": lambda v: pc.network(square(), initial_noise=v),
}
POSITIVE: dict[str, Make] = {
    "sigma of Noisy": lambda v: nd.Noisy(nd.Input(), v),
    "sigma of feedback weights": lambda v: nd.FeedbackWeights(stage(), seed=0, learned=True, sigma=v),
    "step of Inference": lambda v: nd.Inference(v, 3),
    "strength": lambda v: nd.Orthogonality(v),
    "scale forward": lambda v: nd.ForwardDeviation(nn.Linear(2, 2), v),
    "scale backward": lambda v: nd.InverseDeviation(nn.Linear(2, 2), v),
    "gamma": lambda v: tp.network(square(), gamma=v),
    "gamma of weak feedback": lambda v: tp.weak_feedback(square(), gamma=v),
    "step of PC": lambda v: pc.network(square(), step=v),
    "duration": lambda v: nd.simulate(_decay(), None, duration=v, solver=nd.Heun(0.5)),
    "max_duration": lambda v: nd.equilibrium(_decay(), None, max_duration=v),
    "Euler": nd.Euler,
    "tolerance": nd.steady,
    "rtol": lambda v: nd.Adaptive(rtol=v),
}
WHOLE: dict[str, tuple[int, Make]] = {
    "size": (1, lambda v: nd.Population("a", v)),
    "size of an image": (1, lambda v: nd.Population("a", (3, v, 2))),
    "AtStep": (0, nd.AtStep),
    "OnSpike": (1, nd.OnSpike),
    "steps of Inference": (0, lambda v: nd.Inference(1.0, v)),
    "FirstUnits": (1, nd.FirstUnits),
    "seed of feedback weights": (0, lambda v: nd.FeedbackWeights(stage(), seed=v, learned=True)),
    "units of mlp": (1, lambda v: nd.mlp([2, v])),
    "seed of mlp": (0, lambda v: nd.mlp([2, 2], seed=v)),
    "steps of PC": (0, lambda v: pc.network(square(), steps=v)),
    "window of PC": (1, lambda v: pc.network(square(), spike_window=v)),
    "seed of AR": (0, lambda v: ar.network(square(), feedback="fixed", seed=v)),
    "classes": (1, lambda v: ar.cnn(v, input_shape=(1, 8, 8))),
    "rows": (8, lambda v: ar.cnn(2, input_shape=(1, v, v))),
    "outputs of tower": (1, lambda v: tp.tower([2, 2], outputs=v)),
    "classes of samples": (1, lambda v: nd.data.Samples(torch.ones(3, 2), torch.zeros(3).long(), classes=v, name="n")),
    "seed of digits": (0, lambda v: nd.data.digits(seed=v)),
    "batch_size": (1, lambda v: list(nd.train.batches((torch.ones(3, 2), torch.ones(3, 2)), v))),
    "epoch": (1, lambda v: list(nd.train.batches((torch.ones(3, 2), torch.ones(3, 2)), epoch=v))),
    "units of tower": (1, lambda v: tp.tower([2, v])),
}
FLAGS: dict[str, Make] = {
    "integer": nd.Input,
    "optional": nd.Target,
    "before_activation": lambda v: nd.cut(square(), before_activation=v),
    "flatten": lambda v: nd.data.digits(flatten=v),
    "derivative": lambda v: nd.Feedback(stage(), derivative=v),
    "learned": lambda v: nd.FeedbackWeights(stage(), seed=0, learned=v),
}
NO_NUMBERS = [True, np.bool_(True), "1", 1j, [1.0], torch.tensor(1.0), np.array(1.0)]


def _decay() -> nd.Network:
    return nd.Network("decay", [nd.Population("x", 2)])


def refused(make: Make, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make(value)
    assert isinstance(caught.value, nd.NeurodynError), f"{value!r}: {caught.value!r}"


@pytest.mark.parametrize("what", NUMBERS | NOT_NEGATIVE | POSITIVE)
def test_a_number_is_a_finite_number(what: str) -> None:
    make = (NUMBERS | NOT_NEGATIVE | POSITIVE)[what]
    for value in (*NO_NUMBERS, np.nan, np.inf, -np.inf, np.float32(np.nan), 10**400):
        refused(make, value)
    for value in (1, 1.0, np.float32(0.5), np.float64(0.5), np.int64(1), Fraction(1, 2)):
        make(value)


@pytest.mark.parametrize("what", NOT_NEGATIVE | POSITIVE)
def test_a_number_is_in_its_range(what: str) -> None:
    make = (NOT_NEGATIVE | POSITIVE)[what]
    refused(make, -1.0)
    refused(make, np.float32(-0.5))
    if what in POSITIVE:
        refused(make, 0.0)
    else:
        make(0.0)


@pytest.mark.parametrize("what", WHOLE)
def test_a_count_is_an_integer_of_pythons_or_numpys(what: str) -> None:
    least, make = WHOLE[what]
    for value in (*NO_NUMBERS, 2.0, np.float64(2.0), np.nan, least - 1, -3, np.array(2)):
        refused(make, value)
    for kind in (int, np.int64, np.uint8):
        make(kind(max(least, 1)))


@pytest.mark.parametrize("what", FLAGS)
def test_a_flag_is_true_or_false(what: str) -> None:
    for value in (1, 0, "yes", None, torch.tensor(True)):
        refused(FLAGS[what], value)
    for good in (True, False, np.bool_(True)):
        FLAGS[what](good)


def test_a_number_of_single_precision_does_not_make_a_run_single() -> None:
    tau = np.float32(0.1)
    network = nd.Network("decay", [nd.Population("x", 1, tau=tau)])  # type: ignore[arg-type]
    start = {"x": torch.ones(1, 1, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=1.0, save_at=[1.0], initial=start)
    np.testing.assert_allclose(run.x.item(), np.exp(-1.0 / float(tau)), rtol=1e-12)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", torch.device("cuda")])
@pytest.mark.parametrize("build", [nd.mlp, tp.tower])
def test_a_device_that_is_not_there_is_refused(device: Any, build: Any) -> None:
    if torch.cuda.is_available():
        device = "cuda:99"
    with pytest.raises(ValueError, match=r"device of the weights: there is no cuda.* that PyTorch can use here"):
        build([2, 2], device=device)


@pytest.mark.parametrize("device", ["gpu", 3.5, ""])
def test_what_is_no_device_is_refused(device: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="is no device; 'cpu' and 'cuda' are"):
        nd.mlp([2, 2], device=device)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, "float32"])
def test_weights_are_floating_point(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype of the weights must be floating-point"):
        nd.mlp([2, 2], dtype=dtype)

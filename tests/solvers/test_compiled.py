"""Compiled steps of fixed size against the same steps as they are."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.solvers import compiled, fixed

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="torch.compile needs a C++ compiler"
)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join so few steps that they compile in seconds."""
    for module in (compiled, fixed):
        monkeypatch.setattr(module, "STEPS_COMPILED", 2)


def predictive(samples: int = 3) -> tuple[nd.Network, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 7, generator=generator, dtype=torch.float64)
    t = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return pc.network(nd.mlp([7, 6, 5, 4], dtype=torch.float64), steps="equilibrium"), x, t


@needs_compiler
@pytest.mark.usefixtures("few_steps")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_steps_are_the_steps() -> None:
    network, x, t = predictive()
    times = np.array([0.0, 2.2, 2.25, 2.3, 9.97])  # between steps, close together, and far apart
    runs = [
        nd.simulate(network, x, t, duration=9.98, solver=nd.Heun(0.1, compile=compiled), save_at=times)
        for compiled in (False, True)
    ]
    for name in runs[0].data_vars:
        np.testing.assert_allclose(runs[0][name], runs[1][name], rtol=0, atol=1e-13)
    for count in ("evaluations", "accepted_steps", "solver"):
        assert runs[0].attrs[count] == runs[1].attrs[count]


@needs_compiler
@pytest.mark.usefixtures("few_steps")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_steps_diverge_at_the_same_step() -> None:
    network, x, t = predictive()
    found = []
    for compile in (False, True):
        with pytest.raises(nd.DivergenceError) as error:
            nd.simulate(network, x, t, duration=9000.0, solver=nd.Euler(30.0, compile=compile), save_at=[0.0])
        found.append((error.value.time, error.value.population))
    assert found[0] == found[1]


class Rounded(nd.Map):
    """A map that leaves PyTorch, which no compiler follows."""

    def apply(self, source: Tensor) -> Tensor:
        rounded = np.array([[float(f"{value:.3f}") for value in row] for row in source.tolist()])
        return torch.from_numpy(rounded).to(source)


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so() -> None:
    network = nd.Network(
        "rounded",
        populations=[nd.Population("x", 3, initial=1.0)],
        couplings=[nd.Coupling("x", "x", Rounded(), gain=-0.5)],
    )
    expected = nd.simulate(network, None, duration=5.0, solver=nd.Euler(0.1), save_at=[5.0])
    with pytest.warns(RuntimeWarning, match="network 'rounded' cannot be compiled, and runs as it is"):
        found = nd.simulate(network, None, duration=5.0, solver=nd.Euler(0.1, compile=True), save_at=[5.0])
    np.testing.assert_array_equal(found["x"], expected["x"])


def test_an_error_of_the_compiler_without_words_is_a_warning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(*args: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(compiled, "_compiled_steps", lambda network: mute)
    network, x, t = predictive()
    with pytest.warns(RuntimeWarning, match="NotImplementedError"):
        nd.simulate(network, x, t, duration=5.0, solver=nd.Euler(0.1, compile=True), save_at=[5.0])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "every step is saved"),
        ({"save_at": "steps"}, "every step is saved"),
        ({"until": nd.steady(1e-3), "save_at": [3.0]}, "until is asked after every step"),
        ({"save_at": 4}, "at most 10 steps lie between"),
    ],
)
def test_what_is_never_compiled_is_refused(settings, why: str) -> None:
    network, x, t = predictive()
    with pytest.raises(nd.NeurodynError, match=f"compile: it joins 20 steps into one function, and {why}"):
        nd.simulate(network, x, t, duration=3.0, solver=nd.Euler(0.1, compile=True), **settings)

"""Training predictive coding networks beside backprop, and how far from it they end: figure 3 of Song et al."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

SEEDS = (1482555873, 698841058, 2283198659)
"""Those of the paper."""
LARGEST_WEIGHT = 1e6
"""A run with a larger weight has diverged."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Group:
    """What the members of a group share, within which divergence is measured.

    Parameters
    ----------
    dataset
        A name in `nd.data.DATASETS`.
    hidden
        The number of hidden layers.
    width
        Their units.
    epochs, batch, rate
        Of training by plain gradient descent; the gradient is averaged over the batch.
    seed
        Of the weights and of the order of the samples.
    samples
        How many training samples are used.
    """

    dataset: str
    hidden: int
    width: int
    epochs: int
    batch: int
    rate: float
    seed: int
    samples: int | None = None


@dataclass(frozen=True)
class Divergence:
    """How far a network trained by inference learning ended from the one trained by backprop.

    Parameters
    ----------
    test_error
        |difference in test error|, averaged over the epochs; NaN if the run diverged.
    weights
        Σ ‖θ − θ_BP‖₂ over weights and biases after the last epoch; NaN if the run diverged.
    diverged
        Whether an activity or a weight ceased to be finite, or a weight exceeded `LARGEST_WEIGHT`.
    """

    test_error: float
    weights: float
    diverged: bool


@dataclass(frozen=True)
class Reference:
    """What backprop did.

    Parameters
    ----------
    test_error
        After each epoch, shape (epoch,).
    moved
        Σ ‖θ − θ(0)‖₂, how far the weights went in training.
    """

    test_error: NDArray[np.float64]
    moved: float


def logistic(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Return a perceptron of logistic units with the weights that the paper's setup has (Whittington and Bogacz, 2017).

    They are uniform in ±4 √(6 / (n_in + n_out)), and the biases 0, as in those authors' code (ModelDB 218084).
    """
    module = nd.mlp(sizes, activation="sigmoid", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter, gain=4.0, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return module


@lru_cache(maxsize=1)
def load(dataset: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the inputs and one-hot targets for training, and those for testing, as vectors in float64."""
    train, test = nd.data.DATASETS[dataset]()
    return tuple(tuple(part.flatten(1).double() for part in samples[:]) for samples in (train, test))  # type: ignore[return-value]


def loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return ½‖y − t‖², averaged over the batch, for automatic differentiation."""
    return 0.5 * (module(inputs) - targets).square().sum(1).mean()


def train(module: nn.Module, learn: Callable[[Tensor, Tensor], Any], group: Group) -> NDArray[np.float64]:
    """Train a module in place and return its test error after each epoch; NaN from the epoch in which it diverged."""
    (inputs, targets), (test_inputs, test_targets) = load(group.dataset)
    inputs, targets = inputs[: group.samples], targets[: group.samples]
    optimizer = torch.optim.SGD(module.parameters(), lr=group.rate)
    order = torch.Generator().manual_seed(group.seed)
    torch.manual_seed(group.seed)  # of the noise on the start, which PyTorch's global state gives
    errors = np.full(group.epochs, np.nan)
    for epoch in range(group.epochs):
        for batch in torch.randperm(len(inputs), generator=order).split(group.batch):
            optimizer.zero_grad()
            try:
                learn(inputs[batch], targets[batch])
            except nd.DivergenceError:
                return errors
            optimizer.step()
            if not get_total_norm(module.parameters(), torch.inf) <= LARGEST_WEIGHT:  # also if it is NaN
                return errors
        with torch.no_grad():
            wrong = module(test_inputs).argmax(1) != test_targets.argmax(1)
        errors[epoch] = float(wrong.double().mean())
    return errors


def distance(module: nn.Module, other: nn.Module) -> float:
    """Return Σ ‖θ − θ'‖₂ over the parameters of two modules of the same layers."""
    pairs = zip(module.parameters(), other.parameters(), strict=True)
    return float(sum(torch.linalg.vector_norm(a.detach() - b.detach()) for a, b in pairs))


def diverge(group: Group, rules: Sequence[Mapping[str, Any]]) -> tuple[Reference, list[Divergence]]:
    """Train one network by backprop and one by each rule, alike in all else, and measure how far they end.

    Parameters
    ----------
    group
        What they share.
    rules
        The options of `pc.network`, one mapping a rule.
    """
    (inputs, targets), _ = load(group.dataset)

    def start() -> nn.Sequential:
        return logistic([inputs.shape[1], *[group.width] * group.hidden, targets.shape[1]], group.seed).double()

    reference = start()
    errors = train(reference, lambda x, t: loss(reference, x, t).backward(), group)
    results = []
    for rule in rules:
        module = start()
        network = pc.network(module, **rule)
        own = train(module, partial(nd.backward, network), group)
        diverged = bool(np.isnan(own).any())
        weights = np.nan if diverged else distance(module, reference)
        results.append(Divergence(float(np.abs(own - errors).mean()), weights, diverged))
    return Reference(errors, distance(reference, start())), results


def in_processes(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[tuple[int, Result]]:
    """Yield `(number, function(*tasks[number]))` as they are done, on so many processes of one thread each."""
    if processes == 1:
        for number, task in enumerate(tasks):
            yield number, function(*task)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit PyTorch's threads, half alive
    with ProcessPoolExecutor(processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        numbers = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        for done in as_completed(numbers):
            yield numbers[done], done.result()

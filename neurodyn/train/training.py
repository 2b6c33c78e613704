"""Training runs: epochs over a data set, by any declared network's plasticity or by backprop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from neurodyn.checks import file_path, flag, listed, not_negative, one_of, positive, usable_device, users, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.layers.losses import Loss, check_loss, squared_error
from neurodyn.network.network import Network
from neurodyn.randomness import RandomStream
from neurodyn.solvers import Solver
from neurodyn.solvers.choice import check_solver
from neurodyn.train.batches import Data, Pairs
from neurodyn.train.checkpoint import Checkpoint
from neurodyn.train.ensemble import check_elementwise, stacked
from neurodyn.train.history import NAMES, History
from neurodyn.train.learners import Learner, ModuleLearner, NetworkLearner
from neurodyn.train.metrics import Metric, Metrics, check_metrics
from neurodyn.train.parallel import Processes
from neurodyn.train.run import Callback, Run

Optimization = Optimizer | tuple[Optimizer, LRScheduler]

_OPTIMIZERS: dict[str, tuple[type[Optimizer], float]] = {
    "sgd": (torch.optim.SGD, 0.1),
    "adam": (torch.optim.Adam, 3e-3),
}
"""By name, with the default learning rate, which suits some hundred units a layer and the squared error."""
_RECORDS = ("iterations", "angles")


def fit(
    network: Network | nn.Module | Sequence[Network | nn.Module],
    train: Data,
    test: Data | None = None,
    *,
    epochs: int,
    batch_size: int = 64,
    optimizer: Literal["sgd", "adam"] | Callable[[list[nn.Parameter]], Optimization] = "adam",
    learning_rate: float | None = None,
    loss: Loss | None = None,
    duration: float | None = None,
    solver: Solver | None = None,
    seed: int = 0,
    seeds: Iterable[int] | None = None,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_minutes: float = 5.0,
    resume: Literal["auto", "always", "never"] = "auto",
    record: Iterable[Literal["iterations", "angles"]] | None = None,
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
    metrics: Mapping[str, Metric] | None = None,
) -> xr.Dataset:
    """Train a network in place, and return the history of the run.

    A declared network learns by its plasticity, as `nd.backward` says, and a plain module by backprop; all else is the
    same, down to the batches. In each epoch, the samples come in an order that the seed and the epoch's number decide.
    Under `torchrun` (see `launched`), each process takes a share of every batch.

    Parameters
    ----------
    network
        A declared `Network` with plasticity, whose stages' parameters and learned feedback weights are trained; or an
        `nn.Module`, which keeps its training or evaluation mode. With `seeds`, one of them a seed.
    train, test
        `nd.data.Samples`, another torch `Dataset` of pairs (inputs, targets) with a length, or a pair of tensors. They
        are brought to the device and dtype of the network batch by batch.
    epochs
        How many times to go through the training samples.
    batch_size
        How many samples an update averages over; in all processes together.
    optimizer
        "adam" or "sgd"; or a function of the parameters (a list) that returns a torch optimizer, or a pair of it and a
        scheduler, which is stepped after each epoch.
    learning_rate
        Of "adam", 0.003 by default, and of "sgd", 0.1 by default.
    loss
        One value per sample; ½‖y − t‖² by default. A network declares its own.
    duration, solver
        How long and how a network relaxes for each batch, as for `nd.backward`.
    seed
        Of the order of the samples, and of whatever the training draws from the random states of PyTorch, NumPy and
        Python, which are left as they were. Runs in several threads each draw from states of their own, and take turns.
    seeds
        Seeds to train at once, each once and with a network of its own: their parameters are stacked, and each follows
        the course of a run by itself, up to rounding. The networks may differ in gains, leaks, time constants and the
        step of inference too, so that the values of a γ are trained at once, each on an order of the samples of its
        own; runs of one order are trained one by one. So are networks with a drive that draws, such as `Noisy`.
    device
        Where to train, e.g. "cuda"; the parameters are moved there. By default where they are.
    checkpoint
        A folder to save the run's state in, after each epoch, and in between.
    checkpoint_minutes
        How much time goes by at most between two savings.
    resume
        "auto" goes on from the checkpoint if there is one, "always" demands one, "never" refuses to begin where one is.
        A run that goes on ends with the same weights and history as one that was never interrupted. Other data,
        settings or modes than those of the run are refused; data are known by a digest of all of 256 MiB of tensors, or
        of 256 samples of another `Dataset`.
    record
        "iterations" keeps what is measured at each batch; "angles" measures the angle between each layer's update and
        backprop's, at the cost of backprop beside the rule.
    progress
        Whether to show a bar, or in a log file a line every ten seconds, of a training over two seconds; by default on
        a terminal only.
    callbacks
        Functions that are called with the history after each epoch; the run ends when one returns True.
    metrics
        Functions by name, called before training and after each epoch with the network or module, which has its present
        weights then. What one returns, a number, an array or tensor, or an `xarray.DataArray` with labels of its own,
        is kept as the history's variable of that name; its shape and labels are the same each time. With `seeds`, each
        network is measured by itself. A module is in evaluation mode meanwhile. A function may use `.grad`, which a
        batch begins without, and random numbers, which are those of the seed each time; parameters stay.

    Returns
    -------
    xarray.Dataset
        Over `epoch`: `train_loss` and `train_accuracy`, averaged over the epoch's samples as they were before each
        update; `test_loss` and `test_accuracy` after it; `seconds` of training, the one variable that differs between
        two runs of the same seed; `relaxation_iterations` a batch, of a network that iterates; `angle` over `layer`, if
        recorded. Over `iteration`, if recorded, `<name>_by_iteration`. With `seeds`, over `seed`, too. An output counts
        as right where its largest unit is that of the target; there is no accuracy of a single output. `epoch` counts
        from 1; with `metrics` from 0, the state before training, where there are metrics, `test_loss` and
        `test_accuracy`, and NaN for what training measures.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, data do not fit, or the checkpoint is damaged or that of another run; or if a
        metric has a name of the history's own, returns no real numbers, or changes its shape, labels or the network.
    FileNotFoundError, FileExistsError
        If there is no checkpoint and `resume` is "always"; if there is one and it is "never".
    OSError
        If another run trains with the checkpoint's folder, or it cannot be written to.
    DivergedError
        If the loss or a parameter becomes non-finite; the checkpoint then holds the last good state.
    KeyboardInterrupt
        On SIGINT; with a checkpoint, after the batch at hand is finished and the state is saved.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.digits()
    >>> net = nd.models.activation_relaxation.network(nd.mlp([64, 10], seed=0))
    >>> history = nd.train.fit(net, train[:128], test[:64], epochs=1, progress=False)
    >>> dict(history.sizes)
    {'epoch': 1}
    """
    epochs, batch_size = whole("epochs", epochs, least=1), whole("batch_size", batch_size, least=1)
    checkpoint_minutes = not_negative("checkpoint_minutes", checkpoint_minutes)
    if checkpoint is not None:
        checkpoint = file_path("checkpoint", checkpoint)
    if loss is not None:
        check_loss("fit", loss)
    if device is not None:
        device = usable_device("device", device)
    one_of("resume", resume, ("auto", "always", "never"))
    if resume == "always" and checkpoint is None:
        raise InvalidValueError("resume: 'always' needs a checkpoint=")
    recorded = [record] if isinstance(record, str) else list(() if record is None else listed("record", record))
    for name in recorded:
        one_of("record", name, _RECORDS)
    if progress is not None:
        flag("progress", progress)
    callbacks = list(listed("callbacks", callbacks))
    if not all(callable(callback) for callback in callbacks):
        raise InvalidTypeError("callbacks: each is a function of the history")
    functions = check_metrics(metrics, NAMES)
    networks, each_seed = _by_seed(network, seed, seeds)
    train_pairs = Pairs(train, "train")
    test_pairs = None if test is None else Pairs(test, "test")
    learners = [_learner(each, loss, duration, solver) for each in networks]
    if test_pairs is not None and isinstance(learners[0], NetworkLearner) and not learners[0].network.forward:
        raise InvalidValueError(
            f"test: network {learners[0].name!r} has no forward pass, so nothing can be tested; measure it by "
            "metrics={'test_error': function}, a function that reads the network's prediction off nd.equilibrium"
        )
    if "angles" in recorded and isinstance(learners[0], NetworkLearner) and not learners[0].layers:
        raise InvalidValueError(
            f"record: network {learners[0].name!r} has no forward pass, so there are no angles to backprop"
        )

    processes = Processes()
    with ExitStack() as context:
        for learner in learners:
            if not learner.finite():
                raise InvalidValueError(f"{learner.name}: a parameter is NaN or infinite before training")
            _move(learner, device)
        main = learners[0]
        where = main.parameters[0].device
        random = RandomStream(each_seed[0] + 1_000_003 * processes.rank, where)
        context.callback(random.close)
        with random:
            if seeds is not None:
                main = context.enter_context(stacked(learners, each_seed))
            processes.agree(tensor.data for tensor in main.tensors.values())
            made, scheduler = _optimization(optimizer, learning_rate, main.parameters)
        if len(each_seed) > 1:
            check_elementwise(made, scheduler)
        angles = "angles" in recorded and bool(main.layers)
        kept = None if checkpoint is None else Checkpoint(checkpoint)
        if kept is not None and processes.rank == 0:  # the others only read
            context.enter_context(kept.held())
        run = Run(
            main,
            train_pairs,
            test_pairs,
            made,
            scheduler,
            processes,
            epochs=epochs,
            batch_size=batch_size,
            seeds=each_seed,
            history=History(None if seeds is None else each_seed, list(main.layers), "iterations" in recorded),
            angles=angles,
            checkpoint=kept,
            checkpoint_seconds=60 * checkpoint_minutes,
            callbacks=callbacks,
            metrics=Metrics(functions, networks, learners, each_seed, list(main.layers) if angles else None),
            random=random,
            members=learners,
        )
        run.begin(resume)
        return run.go(progress)


def _by_seed(
    network: Network | nn.Module | Sequence[Network | nn.Module], seed: int, seeds: Iterable[int] | None
) -> tuple[list[Network | nn.Module], list[int]]:
    networks = [network] if isinstance(network, (Network, nn.Module)) else network
    if not isinstance(networks, (list, tuple)) or not all(isinstance(each, (Network, nn.Module)) for each in networks):
        raise InvalidTypeError(
            "network is a declared Network or an nn.Module, or with seeds= a list of them, not "
            f"{type(network).__name__}"
        )
    if seeds is not None and (isinstance(seeds, str) or not isinstance(seeds, Iterable)):
        raise InvalidTypeError(f"seeds: a list of integers, not {seeds!r}")
    given = [seed] if seeds is None else list(listed("seeds", seeds))
    for each in given:
        whole("seed", each, least=0)
    if seeds is None and isinstance(network, (list, tuple)):
        raise InvalidValueError("network: several are trained with seeds=, one a seed")
    if seeds is not None and (seed != 0 or isinstance(network, (Network, nn.Module)) or len(networks) != len(given)):
        raise InvalidValueError(
            f"seeds: give a list of as many networks as there are seeds, {len(given)}, e.g. [declare(seed) for seed in "
            "seeds], and leave seed= out"
        )
    if not given or len(set(given)) < len(given):
        raise InvalidValueError(f"seeds: at least one, and each once, not {given}")
    return list(networks), [int(each) for each in given]


def _learner(network: Network | nn.Module, loss: Loss | None, duration: float | None, solver: Solver | None) -> Learner:
    if solver is not None:
        check_solver(solver)
    if isinstance(network, Network):
        if loss is not None and loss is not network.loss:
            raise InvalidValueError(f"loss: network {network.name!r} declares its own; declare it with loss= there")
        return NetworkLearner(network, duration, solver)
    if duration is not None or solver is not None:
        raise InvalidValueError("duration and solver: a module trained by backprop does not relax; leave them out")
    return ModuleLearner(network, squared_error if loss is None else loss)


def _optimization(
    optimizer: str | Callable[[list[nn.Parameter]], Optimization],
    learning_rate: float | None,
    parameters: list[nn.Parameter],
) -> tuple[Optimizer, LRScheduler | None]:
    if isinstance(optimizer, str):
        if optimizer not in _OPTIMIZERS:
            raise InvalidValueError(
                f"optimizer is {' or '.join(map(repr, _OPTIMIZERS))}, or a function of the parameters, not "
                f"{optimizer!r}"
            )
        kind, default = _OPTIMIZERS[optimizer]
        rate = default if learning_rate is None else learning_rate
        rate = positive("learning_rate", rate)
        largest = min((torch.finfo(parameter.dtype).max for parameter in parameters), default=math.inf)
        if rate > largest:
            raise InvalidValueError(f"learning_rate must be within the range of the parameters' dtype, not {rate:g}")
        return kind(parameters, lr=rate), None  # type: ignore[call-arg]
    if isinstance(optimizer, Optimizer) or not callable(optimizer):
        raise InvalidTypeError(
            "optimizer is 'adam', 'sgd', or a function of the parameters such as "
            f"lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), not {type(optimizer).__name__}"
        )
    if learning_rate is not None:
        raise InvalidValueError(
            "learning_rate: it is that of 'adam' and 'sgd'; set it in the function that makes the optimizer"
        )
    with users("optimizer"):
        made = optimizer(list(parameters))  # which it may change
    own, scheduler = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(own, Optimizer) or not (scheduler is None or isinstance(scheduler, LRScheduler)):
        raise InvalidTypeError("optimizer: the function returns a torch optimizer, or a pair of one and its scheduler")
    _check_optimized(own, scheduler, parameters)
    if isinstance(own, torch.optim.LBFGS):
        raise InvalidValueError(
            "optimizer: LBFGS evaluates the loss several times a step, which a plasticity rule does not do"
        )
    return own, scheduler


def _check_optimized(optimizer: Optimizer, scheduler: LRScheduler | None, parameters: list[nn.Parameter]) -> None:
    """Refuse an optimizer of other parameters than all those that learn, and a scheduler of another optimizer."""
    given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = set(given) - set(parameters)
    missing = set(parameters) - set(given)
    if foreign:
        raise InvalidValueError(
            f"optimizer: the function returns an optimizer of {len(foreign)} parameters that the network does not "
            "have; make it of those that the function is given"
        )
    if missing:
        shapes = ", ".join(str(tuple(p.shape)) for p in parameters if p in missing)
        raise InvalidValueError(
            f"optimizer: the function leaves out parameters of the shapes {shapes}; to keep some from learning, call "
            "requires_grad_(False) on them, and make the optimizer of all that the function is given"
        )
    if len(given) > len(set(given)):
        raise InvalidValueError("optimizer: the function returns an optimizer in which a parameter stands twice")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise InvalidValueError("optimizer: the scheduler is that of another optimizer than the one beside it")


def _move(learner: Learner, device: torch.device | str | None) -> None:
    if device is not None:
        for tensor in learner.tensors.values():
            tensor.data = tensor.data.to(device)

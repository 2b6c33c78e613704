"""Training runs: epochs over a data set, by any declared network's plasticity or by backprop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Literal

import torch
import xarray as xr
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from neurodyn.batches import Data, Pairs, batches, shuffled
from neurodyn.checkpoint import Checkpoint, check_same_run, storable
from neurodyn.checks import positive, whole
from neurodyn.ensemble import check_elementwise, stacked
from neurodyn.history import History
from neurodyn.learners import Learner, ModuleLearner, NetworkLearner
from neurodyn.learning import Lesson
from neurodyn.losses import Loss, squared_error
from neurodyn.network import Network
from neurodyn.parallel import Processes, launched
from neurodyn.solvers import DivergenceError, Solver

__all__ = ["Data", "DivergedError", "batches", "fit", "launched"]

Optimization = Optimizer | tuple[Optimizer, LRScheduler]
Callback = Callable[[xr.Dataset], object]

_OPTIMIZERS: dict[str, tuple[type[Optimizer], float]] = {
    "sgd": (torch.optim.SGD, 0.1),
    "adam": (torch.optim.Adam, 3e-3),
}
"""By name, with the default learning rate, which suits some hundred units a layer and the squared error."""
_RECORDS = ("iterations", "angles")
_TEST_BATCH = 1000


class DivergedError(ArithmeticError):
    """A training run became non-finite.

    Parameters
    ----------
    message
        What happened, where, and where the last good state is.
    epoch, batch
        Where, counted from 1.
    history
        The history of the epochs before.
    """

    def __init__(self, message: str, epoch: int, batch: int, history: xr.Dataset) -> None:
        super().__init__(message)
        self.epoch, self.batch, self.history = epoch, batch, history


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
        Of the order of the samples, and of whatever the training draws from PyTorch's random state, which is left as it
        was.
    seeds
        Seeds to train at once, each with a network of its own: their parameters are stacked, and each follows the
        course of a run by itself, up to rounding.
    device
        Where to train, e.g. "cuda"; the parameters are moved there. By default where they are.
    checkpoint
        A folder to save the run's state in, after each epoch, and in between.
    checkpoint_minutes
        How much time goes by at most between two savings.
    resume
        "auto" goes on from the checkpoint if there is one, "always" demands one, "never" refuses to begin where one is.
        A run that goes on ends with the same weights and history as one that was never interrupted.
    record
        "iterations" keeps what is measured at each batch; "angles" measures the angle between each layer's update and
        backprop's, at the cost of backprop beside the rule.
    progress
        Whether to show a bar; by default on a terminal.
    callbacks
        Functions that are called with the history after each epoch; the run ends when one returns True.

    Returns
    -------
    xarray.Dataset
        Over `epoch`: `train_loss` and `train_accuracy`, averaged over the epoch's samples as they were before each
        update; `test_loss` and `test_accuracy` after it; `seconds` of training, the one variable that differs between
        two runs of the same seed; `relaxation_iterations` a batch, of a network that iterates; `angle` over `layer`, if
        recorded. Over `iteration`, if recorded, `<name>_by_iteration`. With `seeds`, over `seed`, too. An output counts
        as right where its largest unit is that of the target.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, data do not fit, or the checkpoint is damaged or that of another run.
    FileNotFoundError, FileExistsError
        If there is no checkpoint and `resume` is "always"; if there is one and it is "never".
    DivergedError
        If the loss or a parameter becomes non-finite; the checkpoint then holds the last good state.
    KeyboardInterrupt
        On SIGINT; with a checkpoint, after the batch at hand is finished and the state is saved.
    """
    whole("epochs", epochs, least=1)
    whole("batch_size", batch_size, least=1)
    if checkpoint_minutes != 0:
        positive("checkpoint_minutes", checkpoint_minutes)
    if resume not in ("auto", "always", "never"):
        raise ValueError(f"resume is 'auto', 'always' or 'never', not {resume!r}")
    if resume == "always" and checkpoint is None:
        raise ValueError("resume: 'always' needs a checkpoint=")
    recorded = [record] if isinstance(record, str) else list(record or ())
    if unknown := [name for name in recorded if name not in _RECORDS]:
        raise ValueError(f"record: 'iterations' or 'angles', not {unknown[0]!r}")
    callbacks = list(callbacks)
    if not all(callable(callback) for callback in callbacks):
        raise TypeError("callbacks: each is a function of the history")
    networks, each_seed = _by_seed(network, seed, seeds)
    train_pairs = Pairs(train, "train")
    test_pairs = None if test is None else Pairs(test, "test")
    learners = [_learner(each, loss, duration, solver) for each in networks]
    if test_pairs is not None and isinstance(learners[0], NetworkLearner) and not learners[0].network.forward:
        raise ValueError(f"test: network {learners[0].name!r} has no forward pass, so nothing can be tested")
    if "angles" in recorded and isinstance(learners[0], NetworkLearner) and not learners[0].layers:
        raise ValueError(
            f"record: network {learners[0].name!r} has no forward pass, so there are no angles to backprop"
        )

    processes = Processes()
    with ExitStack() as context:
        for learner in learners:
            if not learner.finite():
                raise ValueError(f"{learner.name}: a parameter is NaN or infinite before training")
            _move(learner, device)
        main = learners[0]
        where = main.parameters[0].device
        context.enter_context(torch.random.fork_rng(devices=[where] if where.type == "cuda" else []))
        torch.manual_seed(each_seed[0] + 1_000_003 * processes.rank)
        if seeds is not None:
            first = [shuffled(len(train_pairs), each, 1)[:batch_size] for each in each_seed]
            pairs = [_draw(train_pairs, index[None], main) for index in first]
            main = context.enter_context(stacked(learners, pairs, each_seed))
        processes.agree(tensor.data for tensor in main.tensors.values())
        made, scheduler = _optimization(optimizer, learning_rate, main.parameters)
        if len(each_seed) > 1:
            check_elementwise(made, scheduler)
        run = _Run(
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
            angles="angles" in recorded and bool(main.layers),
            checkpoint=None if checkpoint is None else Checkpoint(checkpoint),
            checkpoint_seconds=60 * checkpoint_minutes,
            callbacks=callbacks,
        )
        run.begin(resume)
        return run.go(progress)


class _Run:
    """A training run: where it stands, and how it goes on."""

    def __init__(
        self,
        learner: Learner,
        train: Pairs,
        test: Pairs | None,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        processes: Processes,
        *,
        epochs: int,
        batch_size: int,
        seeds: Sequence[int],
        history: History,
        angles: bool,
        checkpoint: Checkpoint | None,
        checkpoint_seconds: float,
        callbacks: Sequence[Callback],
    ) -> None:
        self.learner, self.train, self.test = learner, train, test
        self.optimizer, self.scheduler, self.processes = optimizer, scheduler, processes
        self.epochs, self.batch_size, self.seeds = epochs, batch_size, seeds
        self.history, self.angles, self.callbacks = history, angles, callbacks
        self.checkpoint, self.checkpoint_seconds = checkpoint, checkpoint_seconds
        self.device = learner.parameters[0].device
        self.batches = -(-len(train) // batch_size)
        self.epoch, self.batch, self.stopped = 1, 0, False
        """The epoch at hand, from 1, the batches of it that are done, and whether a callback has ended the run."""
        self.description: dict[str, str | int] = {
            "seeds": ", ".join(map(str, seeds)),
            "network": learner.description,
            "parameters": "\n".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in learner.tensors.items()),
            "optimizer": _describe(optimizer, scheduler),
            "batch_size": batch_size,
            "training samples": len(train),
            "test samples": 0 if test is None else len(test),
            "recorded": f"iterations: {history.each_iteration}, angles: {angles}",
            "processes": processes.size,
        }
        self.start = _signature(learner.tensors)

    def begin(self, resume: str) -> None:
        """Take the state of the checkpoint, if there is one that may be taken."""
        if self.checkpoint is None:
            return
        storable("the optimizer", self.optimizer.state_dict())
        storable("the scheduler", None if self.scheduler is None else self.scheduler.state_dict())
        if not self.checkpoint.exists():
            if resume == "always":
                raise FileNotFoundError(f"resume: there is no checkpoint in {self.checkpoint.folder}")
            return
        if resume == "never":
            raise FileExistsError(
                f"resume: there is a checkpoint in {self.checkpoint.folder}; remove it, or give another folder"
            )
        state = self.checkpoint.load()
        check_same_run(self.checkpoint.folder, state["description"], self.description)
        if not any(_alike(self.start, other) for other in (state["start"], _signature(state["tensors"]))):
            raise ValueError(
                f"the checkpoint in {self.checkpoint.folder} is of a run that began with other parameters than these; "
                "it was left as it is: build the network as it was built then, or give another folder as checkpoint="
            )
        if state["epoch"] > self.epochs + 1:
            raise ValueError(
                f"the checkpoint in {self.checkpoint.folder} is of a run of {state['epoch'] - 1} epochs; ask for as "
                f"many or more, not {self.epochs}"
            )
        with torch.no_grad():
            for name, tensor in self.learner.tensors.items():
                tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.history.load(state["history"])
        self.start, self.epoch, self.batch, self.stopped = (state[k] for k in ("start", "epoch", "batch", "stopped"))
        random = state["random"][self.processes.rank]
        torch.set_rng_state(random[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random[1], self.device)

    def go(self, progress: bool | None) -> xr.Dataset:
        """Train until all epochs are done."""
        done = (self.epoch - 1) * self.batches + self.batch
        silent = self.processes.rank > 0 or (None if progress is None else not progress)
        bar = tqdm(total=self.epochs * self.batches, initial=done, unit="batch", desc=self.learner.name, disable=silent)
        with bar, _Interrupt(self.checkpoint is not None) as interrupt:
            saved = time.monotonic()
            while self.epoch <= self.epochs and not self.stopped:
                orders = torch.stack([shuffled(len(self.train), seed, self.epoch) for seed in self.seeds])
                for index in torch.split(orders, self.batch_size, 1)[self.batch :]:
                    self._learn(index)
                    self.batch += 1
                    bar.update()
                    if self.batch == self.batches:
                        self._end_epoch()
                        bar.set_postfix(loss=f"{self.history.last_loss:.4g}")
                    if self.checkpoint is None:
                        continue
                    late = time.monotonic() - saved >= self.checkpoint_seconds
                    interrupted, late = self._any(interrupt.pending, late)
                    if self.batch == 0 or interrupted or late:
                        self._save()
                        saved = time.monotonic()
                    if interrupted:
                        batch = f" and {self.batch} of {self.batches} batches" if self.batch else ""
                        raise KeyboardInterrupt(
                            f"training stopped after {self.epoch - 1} of {self.epochs} epochs{batch}; the state is "
                            f"saved in {self.checkpoint.folder}: call fit again with the same arguments to go on"
                        )
        return self._dataset()

    def _learn(self, index: Tensor) -> None:
        """Update the parameters by one batch: index (seed, sample)."""
        started = time.perf_counter()
        samples = index.shape[1]
        own = self.processes.share(index)
        # A process without a share lends a hand with a sample of no weight, so that all do the same.
        weight = own.shape[1] / samples
        inputs, targets = _draw(self.train, own if own.shape[1] else index[:, :1], self.learner)
        self.optimizer.zero_grad()
        lesson = self._lesson(inputs, targets)
        measured: dict[str, Tensor] = {}
        if lesson.output is not None:
            measured["train_loss"] = self.learner.losses(lesson.output, targets).double().mean(1)
            measured["train_accuracy"] = self.learner.hits(lesson.output, targets).double().mean(1)
        if lesson.iterations is not None:
            measured["relaxation_iterations"] = torch.full(
                (len(self.seeds),), float(lesson.iterations), dtype=torch.float64, device=self.device
            )
        reference = self.learner.backprop(inputs, targets) if self.angles else []
        if self.processes.size > 1:
            self._add_up(weight, measured, reference)
        measured = {name: value.cpu() for name, value in measured.items()}
        if "train_loss" in measured and not bool(torch.isfinite(measured["train_loss"]).all()):
            self._refuse_data(inputs, targets)
            raise self._diverged(f"the loss is {_first_bad(measured['train_loss'], self.seeds)}")
        if self.angles:
            measured["angle"] = self.learner.angles(reference)
        self.optimizer.step()
        self.history.add_batch(measured, samples, time.perf_counter() - started)

    def _lesson(self, inputs: Tensor, targets: Tensor) -> Lesson:
        try:
            return self.learner.learn(inputs, targets)
        except ValueError as error:
            if isinstance(error, DivergenceError) or not self.learner.finite():
                raise self._diverged(str(error)) from error
            output = self.learner.output(inputs)
            if output is not None and not bool(torch.isfinite(output).all()):
                self._refuse_data(inputs, targets)
                raise self._diverged("the output is not finite") from error
            raise

    def _add_up(self, weight: float, measured: dict[str, Tensor], reference: list[Tensor]) -> None:
        """Average gradients and measurements over the processes, by their shares of the samples."""
        parameters = self.learner.parameters
        # A rule may leave no gradient where no unit spiked, which only means something if it did so everywhere.
        present = parameters[0].new_tensor([parameter.grad is not None for parameter in parameters])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.mul_(weight) for p in parameters]
        self.processes.add([*gradients, *(each.mul_(weight) for each in reference), present])
        for parameter, gradient, count in zip(parameters, gradients, present.tolist(), strict=True):
            parameter.grad = gradient if count else None
        self.processes.add(value.mul_(weight) for value in measured.values())

    @torch.no_grad()
    def _evaluate(self, pairs: Pairs) -> dict[str, Tensor]:
        """Return the loss and accuracy on a data set, shape (seed,)."""
        members = len(self.seeds)
        loss, hits = (torch.zeros(members, dtype=torch.float64, device=self.device) for _ in range(2))
        for index in torch.split(torch.arange(len(pairs)), _TEST_BATCH):
            own = self.processes.share(index)
            if len(own):
                inputs, targets = (torch.cat([part] * members) for part in _draw(pairs, own, self.learner))
                output = self.learner.output(inputs)
                assert output is not None, "_end_epoch tests only what has an output"
                loss += self.learner.losses(output, targets).double().sum(1)
                hits += self.learner.hits(output, targets).sum(1)
        self.processes.add([loss, hits])
        return {"test_loss": (loss / len(pairs)).cpu(), "test_accuracy": (hits / len(pairs)).cpu()}

    def _end_epoch(self) -> None:
        tested = {} if self.test is None else self._evaluate(self.test)
        if tested and not bool(torch.isfinite(tested["test_loss"]).all()):
            raise self._diverged(f"the test loss is {_first_bad(tested['test_loss'], self.seeds)}")
        if not self.learner.finite():
            raise self._diverged("a parameter is NaN or infinite")
        self.history.end_epoch(tested)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self.history.last_loss)
        elif self.scheduler is not None:
            self.scheduler.step()
        self.epoch, self.batch = self.epoch + 1, 0
        if self.callbacks:
            history = self._dataset()
            (self.stopped,) = self._any(any([bool(callback(history)) for callback in self.callbacks]))

    def _any(self, *flags: bool) -> list[bool]:
        """Tell which of some flags are set in any process."""
        if self.processes.size == 1:
            return list(flags)
        total = torch.tensor(flags, dtype=torch.float32, device=self.device)
        self.processes.add([total])
        return [bool(each) for each in total.tolist()]

    def _save(self) -> None:
        assert self.checkpoint is not None
        if not self.learner.finite():
            raise self._diverged("a parameter is NaN or infinite")
        random = [torch.get_rng_state()]
        if self.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.device))
        gathered = [self.processes.gather(state.to(self.device)) for state in random]
        if self.processes.rank > 0:
            return
        self.checkpoint.save(
            {
                "description": self.description,
                "start": self.start,
                "epoch": self.epoch,
                "batch": self.batch,
                "stopped": self.stopped,
                "tensors": {name: tensor.detach() for name, tensor in self.learner.tensors.items()},
                "optimizer": storable("the optimizer", self.optimizer.state_dict()),
                "scheduler": storable("the scheduler", None if self.scheduler is None else self.scheduler.state_dict()),
                "random": [[state.cpu() for state in states] for states in zip(*gathered, strict=True)],
                "history": self.history.state(),
            }
        )

    def _refuse_data(self, inputs: Tensor, targets: Tensor) -> None:
        for part, what in ((inputs, "inputs"), (targets, "targets")):
            if not bool(torch.isfinite(part).all()):
                raise ValueError(
                    f"{self.train.name}: {what} of a batch are NaN or infinite (epoch {self.epoch}, batch "
                    f"{self.batch + 1}); all must be finite"
                )

    def _diverged(self, what: str) -> DivergedError:
        kept = ""
        if self.checkpoint is not None:
            kept = "; no checkpoint was written before"
            if self.checkpoint.exists():
                kept = f"; the last good state is in {self.checkpoint.folder}"
        message = f"training diverged in epoch {self.epoch}, batch {self.batch + 1} of {self.batches}: {what}{kept}"
        return DivergedError(f"{message}. Try a smaller learning rate", self.epoch, self.batch + 1, self._dataset())

    def _dataset(self) -> xr.Dataset:
        from neurodyn import __version__

        attributes: dict[str, str | int | float] = {
            "network": self.learner.name,
            "declaration": self.learner.description,
            "optimizer": str(self.description["optimizer"]),
            "batch_size": self.batch_size,
            "train": self.train.name,
            "training_samples": len(self.train),
            "device": str(self.device),
            "dtype": str(self.learner.parameters[0].dtype),
            "processes": self.processes.size,
            "neurodyn_version": __version__,
            "torch_version": str(torch.__version__),
        }
        if self.test is not None:
            attributes |= {"test": self.test.name, "test_samples": len(self.test)}
        if self.history.seeds is None:
            attributes["seed"] = self.seeds[0]
        return self.history.dataset(attributes)


class _Interrupt:
    """Notes a first SIGINT, so that the batch at hand is finished; a second one interrupts at once."""

    def __init__(self, active: bool) -> None:
        self.pending = False
        own = threading.current_thread() is threading.main_thread()
        self._active = active and own and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self) -> _Interrupt:
        if self._active:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _by_seed(
    network: Network | nn.Module | Sequence[Network | nn.Module], seed: int, seeds: Iterable[int] | None
) -> tuple[list[Network | nn.Module], list[int]]:
    networks = [network] if isinstance(network, (Network, nn.Module)) else network
    if not isinstance(networks, (list, tuple)) or not all(isinstance(each, (Network, nn.Module)) for each in networks):
        raise TypeError(
            "network is a declared Network or an nn.Module, or with seeds= a list of them, not "
            f"{type(network).__name__}"
        )
    given = [seed] if seeds is None else list(seeds)
    for each in given:
        whole("seed", each, least=0)
    if seeds is None and isinstance(network, (list, tuple)):
        raise ValueError("network: several are trained with seeds=, one a seed")
    if seeds is not None and (seed != 0 or isinstance(network, (Network, nn.Module)) or len(networks) != len(given)):
        raise ValueError(
            f"seeds: give a list of as many networks as there are seeds, {len(given)}, e.g. [declare(seed) for seed in "
            "seeds], and leave seed= out"
        )
    if not given or len(set(given)) < len(given):
        raise ValueError(f"seeds: at least one, and each once, not {given}")
    return list(networks), [int(each) for each in given]


def _learner(network: Network | nn.Module, loss: Loss | None, duration: float | None, solver: Solver | None) -> Learner:
    if isinstance(network, Network):
        if loss is not None and loss is not network.loss:
            raise ValueError(f"loss: network {network.name!r} declares its own; declare it with loss= there")
        return NetworkLearner(network, duration, solver)
    if duration is not None or solver is not None:
        raise ValueError("duration and solver: a module trained by backprop does not relax; leave them out")
    return ModuleLearner(network, squared_error if loss is None else loss)


def _optimization(
    optimizer: str | Callable[[list[nn.Parameter]], Optimization],
    learning_rate: float | None,
    parameters: list[nn.Parameter],
) -> tuple[Optimizer, LRScheduler | None]:
    if isinstance(optimizer, str):
        if optimizer not in _OPTIMIZERS:
            raise ValueError(
                f"optimizer is {' or '.join(map(repr, _OPTIMIZERS))}, or a function of the parameters, not "
                f"{optimizer!r}"
            )
        kind, default = _OPTIMIZERS[optimizer]
        rate = default if learning_rate is None else learning_rate
        positive("learning_rate", rate)
        return kind(parameters, lr=float(rate)), None  # type: ignore[call-arg]
    if isinstance(optimizer, Optimizer) or not callable(optimizer):
        raise TypeError(
            "optimizer is 'adam', 'sgd', or a function of the parameters such as "
            f"lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), not {type(optimizer).__name__}"
        )
    if learning_rate is not None:
        raise ValueError(
            "learning_rate: it is that of 'adam' and 'sgd'; set it in the function that makes the optimizer"
        )
    made = optimizer(parameters)
    own, scheduler = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(own, Optimizer) or not (scheduler is None or isinstance(scheduler, LRScheduler)):
        raise TypeError("optimizer: the function returns a torch optimizer, or a pair of one and its scheduler")
    if isinstance(own, torch.optim.LBFGS):
        raise ValueError(
            "optimizer: LBFGS evaluates the loss several times a step, which a plasticity rule does not do"
        )
    return own, scheduler


def _describe(optimizer: Optimizer, scheduler: LRScheduler | None) -> str:
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    settings = "; ".join(", ".join(f"{name}={value}" for name, value in group.items()) for group in groups)
    return f"{type(optimizer).__name__}({settings})" + ("" if scheduler is None else f", {type(scheduler).__name__}")


def _move(learner: Learner, device: torch.device | str | None) -> None:
    if device is not None:
        for tensor in learner.tensors.values():
            tensor.data = tensor.data.to(device)


def _draw(pairs: Pairs, index: Tensor, learner: Learner) -> tuple[Tensor, Tensor]:
    """Return the batch of the samples at index (seed, sample), one seed's after the other's, for a learner."""
    like = learner.parameters[0]
    inputs, targets = pairs.draw(index.flatten())
    # Integers stay integers, such as the indices that an embedding reads.
    inputs = inputs.to(like) if inputs.is_floating_point() else inputs.to(like.device)
    return inputs, targets.to(like)


def _signature(tensors: dict[str, Tensor]) -> Tensor:
    """Return the sum of each tensor, and of its magnitudes, by which parameters are known on another machine, too."""
    sums = [[float(part.double().sum()) for part in (each.detach(), each.detach().abs())] for each in tensors.values()]
    return torch.tensor(sums, dtype=torch.float64)


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(((one - other)[:, 0].abs() <= 1e-4 * one[:, 1]).all())


def _first_bad(losses: Tensor, seeds: Sequence[int]) -> str:
    bad = int((~torch.isfinite(losses)).int().argmax())
    return f"{float(losses[bad])}" + (f" for seed {seeds[bad]}" if len(seeds) > 1 else "")

"""A training run: where it stands, how it goes on, is saved and taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from neurodyn.errors import (
    DivergedError,
    DivergenceError,
    ExistingFileError,
    InvalidValueError,
    MissingFileError,
    NeurodynError,
)
from neurodyn.labelled import xr
from neurodyn.layers.kernels import kernels_in_use
from neurodyn.layers.kinds import couples_samples
from neurodyn.learning.backward import Lesson
from neurodyn.progress import Bar
from neurodyn.randomness import RandomStream, seeded
from neurodyn.simulation.trajectory import versions
from neurodyn.train.batches import Pairs, shuffled
from neurodyn.train.checkpoint import Checkpoint, check_same_run, storable
from neurodyn.train.history import History
from neurodyn.train.interrupt import interruptible
from neurodyn.train.learners import Learner
from neurodyn.train.metrics import Measurement, Metrics
from neurodyn.train.parallel import Processes

Callback: TypeAlias = "Callable[[xr.Dataset], object]"

_TEST_BATCH = 1000
_EPOCHS_KNOWN_BY = 8
"""By what a function of the epoch gives for how many of them a scheduler is known again."""


@dataclass(eq=False)
class Run:
    """A training run: where it stands, and how it goes on."""

    learner: Learner
    train: Pairs
    test: Pairs | None
    optimizer: Optimizer
    scheduler: LRScheduler | None
    processes: Processes
    epochs: int
    batch_size: int
    seeds: Sequence[int]
    history: History
    angles: bool
    checkpoint: Checkpoint | None
    checkpoint_seconds: float
    callbacks: Sequence[Callback]
    metrics: Metrics
    random: RandomStream
    members: Sequence[Learner]
    """The learner itself, or those that are stacked in it."""

    def __post_init__(self) -> None:
        self.device = self.learner.parameters[0].device
        self.batches = -(-len(self.train) // self.batch_size)
        self.epoch, self.batch, self.stopped = 1, 0, False
        """The epoch at hand, from 1, the batches of it that are done, and whether a callback has ended the run."""
        tensors = self.learner.tensors
        self.description: dict[str, str | int] = {
            "seeds": ", ".join(map(str, self.seeds)),
            "network": self.learner.description,
            "parameters": "\n".join(f"{name} {_kind(tensor)}" for name, tensor in tensors.items()),
            "modes": "\n\n".join(dict.fromkeys(each.modes for each in self.members)),
            "optimizer": _describe(self.optimizer, self.scheduler),
            "batch_size": self.batch_size,
            "training samples": len(self.train),
            "test samples": 0 if self.test is None else len(self.test),
            "recorded": f"iterations: {self.history.each_iteration}, angles: {self.angles}",
            "kernels": kernels_in_use(),
        }
        if self.metrics.functions:
            self.description["metrics"] = ", ".join(self.metrics.functions)
        if self.checkpoint is not None:
            order = _order(self.optimizer, self.learner)
            if order is not None:
                self.description["order of the optimizer's parameters"] = order
            self.description |= {
                "scheduler": _settings(self.scheduler),
                "training data": self.train.fingerprint(),
                "test data": "" if self.test is None else self.test.fingerprint(),
            }
        self.start = _signature(tensors)

    def begin(self, resume: str) -> None:
        """Take the state of the checkpoint, if there is one that may be taken."""
        if self.checkpoint is None:
            return
        storable("the optimizer", self.optimizer.state_dict())
        storable("the scheduler", None if self.scheduler is None else self.scheduler.state_dict())
        if not self.checkpoint.path.exists():
            if resume == "always":
                raise MissingFileError(f"resume: there is no checkpoint in {self.checkpoint.folder}")
            return
        if resume == "never":
            raise ExistingFileError(
                f"resume: there is a checkpoint in {self.checkpoint.folder}; remove it, or give another folder"
            )
        state = self.checkpoint.load()
        try:
            self._check(self.checkpoint, state)
            self._resume(self.checkpoint, state)
        except NeurodynError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise self.checkpoint.foreign(error) from error

    def _check(self, checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
        """Refuse a state that is not one of this run."""
        check_same_run(checkpoint.folder, state["description"], self.description)
        pairs = [("start", state["start"], self.start)]
        pairs += [(name, state["tensors"][name], tensor) for name, tensor in self.learner.tensors.items()]
        for what, saved, own in pairs:
            if saved.shape != own.shape:
                raise checkpoint.foreign(f"{what} has the shape {tuple(saved.shape)}, not {tuple(own.shape)}")
        if not any(_alike(self.start, other) for other in (state["start"], _signature(state["tensors"]))):
            raise InvalidValueError(
                f"the checkpoint in {checkpoint.folder} is of a run that began with other parameters than these; it "
                "was left as it is: build the network as it was built then, or give another folder as checkpoint="
            )
        if state["epoch"] > self.epochs + 1:
            raise InvalidValueError(
                f"the checkpoint in {checkpoint.folder} is of a run of {state['epoch'] - 1} epochs; ask for as many or "
                f"more, not {self.epochs}"
            )
        if state["epoch"] < 1 or not 0 <= state["batch"] < self.batches:
            raise checkpoint.foreign(f"it stands at batch {state['batch']} of epoch {state['epoch']}")

    def _resume(self, checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
        """Go on from a state; the network's parameters come last, so that they stay as they were if anything fails."""
        _load(self.optimizer, state["optimizer"])
        if type(self.optimizer).__module__.startswith("torch.optim"):  # what others keep may have any shape
            for parameter, moments in self.optimizer.state.items():
                for name, moment in moments.items():
                    if isinstance(moment, Tensor) and moment.ndim > 0 and not _fits(moment, parameter):
                        raise checkpoint.foreign(f"{name} of the optimizer has the shape {tuple(moment.shape)}")
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if (misfit := self.history.misfit(state["history"])) is not None:
            raise checkpoint.foreign(f"its history has {misfit}")
        self.history.load(state["history"])
        self.start, self.epoch, self.batch, self.stopped = (state[k] for k in ("start", "epoch", "batch", "stopped"))
        parts = self._parts()
        if len(state["training"]) != len(parts):
            raise checkpoint.foreign(f"it has the modes of {len(state['training'])} modules, not {len(parts)}")
        if not state["random"]:
            raise checkpoint.foreign("it has no state of random numbers")
        if self.processes.rank < len(state["random"]):  # else there were fewer, and this one begins with its own
            self.random.load(state["random"][self.processes.rank])
        with torch.no_grad():
            for name, tensor in self.learner.tensors.items():
                tensor.copy_(state["tensors"][name])
                if isinstance(tensor, nn.Parameter):  # a callback may have fixed it, or set it free
                    tensor.requires_grad_(name not in state["fixed"])
        for part, training in zip(parts, state["training"], strict=True):
            part.training = training

    def go(self, progress: bool | None) -> xr.Dataset:
        """Train until all epochs are done."""
        done = (self.epoch - 1) * self.batches + self.batch
        wanted = self._progress = False if self.processes.rank > 0 else progress
        bar = Bar(total=self.epochs * self.batches, initial=done, unit="batch", desc=self.learner.name, wanted=wanted)
        with bar, interruptible(self.checkpoint is not None) as interrupt:
            if done == 0 and self.metrics.functions:
                self._begin_history()
            saved = time.monotonic()
            while self.epoch <= self.epochs and not self.stopped:
                orders = torch.stack([shuffled(len(self.train), seed, self.epoch) for seed in self.seeds])
                for index in torch.split(orders, self.batch_size, 1)[self.batch :]:
                    with self.random:
                        self._learn(index)
                    self.batch += 1
                    bar.update()
                    if self.batch == self.batches:
                        self._end_epoch()
                        bar.set_postfix(loss=f"{self.history.last_loss:.4g}", refresh=False)
                    if self.checkpoint is None:
                        continue
                    late = time.monotonic() - saved >= self.checkpoint_seconds
                    interrupted, late = self._any(interrupt.is_set(), late)
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
        if self.processes.size > 1:
            self._refuse_coupled_samples()
        samples = index.shape[1]
        own = self.processes.share(index)
        # A process without a share lends a hand with a sample of no weight, so that all do the same.
        weight = own.shape[1] / samples
        inputs, targets = draw(self.train, own if own.shape[1] else index[:, :1], self.learner)
        self.optimizer.zero_grad()
        lesson = self._lesson(inputs, targets)
        measured: dict[str, Tensor] = {}
        if lesson.output is not None and lesson.losses is not None:
            measured["train_loss"] = lesson.losses.view(len(self.seeds), -1).double().mean(1)
            if self.train.outputs > 1:
                measured["train_accuracy"] = self.learner.hits(lesson.output, targets).double().mean(1)
        if lesson.iterations is not None:
            measured["relaxation_iterations"] = torch.full(
                (len(self.seeds),), float(lesson.iterations), dtype=torch.float64, device=self.device
            )
        reference = self.learner.backprop(inputs, targets) if self.angles else []
        if self.processes.size > 1:
            self._add_up(weight, measured, reference)
        if "train_loss" in measured:
            self._check_loss(measured["train_loss"], inputs, targets)
        if self.angles:
            measured["angle"] = self.learner.angles(reference)
        self.optimizer.step()
        self.history.add_batch(measured, samples, time.perf_counter() - started)

    def _refuse_coupled_samples(self) -> None:
        for part in self._parts():
            if couples_samples(part):
                raise InvalidValueError(
                    f"{self.learner.name}: {type(part).__name__} in training mode would take the statistics of each "
                    "process's own share of a batch, so that several processes do not train as one does; call .eval() "
                    "on it, or use LayerNorm or GroupNorm"
                )

    def _lesson(self, inputs: Tensor, targets: Tensor) -> Lesson:
        try:
            return self.learner.learn(inputs, targets, self._progress)
        except ValueError as error:
            if isinstance(error, DivergenceError):
                raise self._diverged(str(error), error.time, error.population) from error
            if not self.learner.finite():
                raise self._diverged(str(error)) from error
            output = self.learner.output(inputs)
            if output is not None and not bool(torch.isfinite(output).all()):
                self._refuse_data(self.train, inputs, targets)
                raise self._diverged("the output is not finite") from error
            if output is not None and output.shape == targets.shape:
                self._check_loss(self.learner.losses(output, targets).double().mean(1), inputs, targets)
            raise

    def _check_loss(self, loss: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Refuse a batch's loss, shape (seed,), that is not finite."""
        if not bool(torch.isfinite(loss).all()):
            self._refuse_data(self.train, inputs, targets)
            raise self._diverged(f"the loss is {_first_bad(loss, self.seeds)}")

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
        for index in torch.split(torch.arange(len(pairs), device="cpu"), _TEST_BATCH):
            own = self.processes.share(index)
            if len(own):
                inputs, targets = (torch.cat([part] * members) for part in draw(pairs, own, self.learner))
                output = self.learner.output(inputs)
                assert output is not None, "_end_epoch tests only what has an output"
                loss += self.learner.losses(output, targets).double().sum(1)
                hits += self.learner.hits(output, targets).sum(1)
        self.processes.add([loss, hits])
        tested = {"test_loss": (loss / len(pairs)).cpu()}
        return tested | ({"test_accuracy": (hits / len(pairs)).cpu()} if pairs.outputs > 1 else {})

    def _begin_history(self) -> None:
        measured = self._measure()
        if self.checkpoint is not None:
            for name, each in measured.items():
                storable(f"metric {name!r}", each.labels)
        tested: dict[str, Tensor] = {}
        if self.test is not None:
            with seeded(self.seeds[0], self.device):  # for the training to begin with the same numbers as without
                tested = self._evaluate(self.test)
        self.history.begin(tested, measured)
        try:
            self._dataset()
        except ValueError as error:
            raise InvalidValueError(f"metrics: they do not fit into one dataset ({error})") from error

    def _measure(self) -> dict[str, Measurement]:
        self.learner.stacks.write_back()  # for the networks' own parameters to be those of now
        return self.metrics.measure()

    def _end_epoch(self) -> None:
        tested: dict[str, Tensor] = {}
        if self.test is not None:
            with self.random:
                tested = self._evaluate(self.test)
        if self.test is not None and not bool(torch.isfinite(tested["test_loss"]).all()):
            for index in torch.split(torch.arange(len(self.test), device="cpu"), _TEST_BATCH):
                self._refuse_data(self.test, *self.test.draw(index))
            raise self._diverged(f"the test loss is {_first_bad(tested['test_loss'], self.seeds)}")
        if not self.learner.finite():
            raise self._diverged("a parameter is NaN or infinite")
        self.history.end_epoch(tested, self._measure())
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self.history.last_loss)
        elif self.scheduler is not None:
            self.scheduler.step()
        self.epoch, self.batch = self.epoch + 1, 0
        if self.callbacks:
            history = self._dataset()
            with self.learner.lent():
                stops = [bool(callback(history)) for callback in self.callbacks]
            if len({each.modes for each in self.members}) > 1:
                raise InvalidValueError(
                    "some of the networks that are trained at once are in training mode, and others in evaluation "
                    "mode, since a callback was called; let it put all into one, or train each by itself"
                )
            (self.stopped,) = self._any(any(stops))

    def _parts(self) -> list[nn.Module]:
        """Return all modules and their parts, in an order that is always the same."""
        return [part for each in self.members for part in each.parts.values()]

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
        gathered = [self.processes.gather(state.to(self.device)) for state in self.random.state()]
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
                "fixed": [name for name, tensor in self.learner.tensors.items() if _fixed(tensor)],
                "training": [part.training for part in self._parts()],
                "optimizer": storable("the optimizer", self.optimizer.state_dict()),
                "scheduler": storable("the scheduler", None if self.scheduler is None else self.scheduler.state_dict()),
                "random": [[state.cpu() for state in states] for states in zip(*gathered, strict=True)],
                "history": self.history.state(),
            }
        )

    def _refuse_data(self, pairs: Pairs, inputs: Tensor, targets: Tensor) -> None:
        for part, what in ((inputs, "inputs"), (targets, "targets")):
            if not bool(torch.isfinite(part).all()):
                raise InvalidValueError(
                    f"{pairs.name}: {what} of a batch are NaN or infinite (epoch {self.epoch}, batch "
                    f"{self.batch + 1}); all must be finite"
                )

    def _diverged(self, what: str, time: float | None = None, population: str | None = None) -> DivergedError:
        kept = ""
        if self.checkpoint is not None:
            kept = "; no checkpoint was written before"
            if self.checkpoint.path.exists():
                kept = f"; the last good state is in {self.checkpoint.folder}"
        batch = min(self.batch + 1, self.batches)  # after the last one, when the epoch is tested, all are counted
        message = f"training diverged in epoch {self.epoch}, batch {batch} of {self.batches}: {what}{kept}"
        return DivergedError(
            f"{message}. Try a smaller learning rate", self.epoch, batch, self._dataset(), time, population
        )

    def _dataset(self) -> xr.Dataset:
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
            **versions(),
        }
        if self.test is not None:
            attributes |= {"test": self.test.name, "test_samples": len(self.test)}
        if self.history.seeds is None:
            attributes["seed"] = self.seeds[0]
        return self.history.dataset(attributes)


def _load(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state as it was saved; PyTorch brings it to the dtype of the parameters.

    So NAdam would go on in double precision with a product that it had begun in single precision.
    """
    optimizer.load_state_dict(state)
    places = [place for group in state["param_groups"] for place in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        own = optimizer.state[parameter]
        for name, saved in state["state"].get(place, {}).items():
            if isinstance(saved, Tensor) and isinstance(own[name], Tensor) and own[name].dtype != saved.dtype:
                own[name] = saved.to(own[name].device)


def _describe(optimizer: Optimizer, scheduler: LRScheduler | None) -> str:
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    settings = "; ".join(", ".join(f"{name}={value}" for name, value in group.items()) for group in groups)
    return f"{type(optimizer).__name__}({settings})" + ("" if scheduler is None else f", {type(scheduler).__name__}")


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}" + (", fixed" if _fixed(tensor) else "")


def _fixed(tensor: Tensor) -> bool:
    """Tell whether a tensor is a parameter that does not learn."""
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def _order(optimizer: Optimizer, learner: Learner) -> str | None:
    """Tell which parameters each group of an optimizer has, whose places its state goes by; None if all, as given.

    Of two groups or orders of the same shapes, each would take up the other's state.
    """
    groups = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    if groups == [list(map(id, learner.parameters))]:
        return None
    names = {id(tensor): name for name, tensor in learner.tensors.items()}
    return "\n".join(", ".join(names[each] for each in group) for group in groups)


def _settings(scheduler: LRScheduler | None) -> str:
    """Return a scheduler's settings, one a line; of a function of the epoch, what it gives for the first ones."""
    if scheduler is None:
        return ""
    settings = dict(scheduler.state_dict())
    functions = {f"lr_lambdas[{number}]": each for number, each in enumerate(getattr(scheduler, "lr_lambdas", ()))}
    functions["scale_fn"] = getattr(scheduler, "_scale_fn_custom", None)
    for name, function in functions.items():
        if function is not None:
            settings[name] = [_value_at(function, epoch) for epoch in range(_EPOCHS_KNOWN_BY)]
    own = "\n".join([type(scheduler).__name__, *(f"{name}={value}" for name, value in settings.items())])
    return "\n".join([own, *map(_settings, getattr(scheduler, "_schedulers", ()))])  # of which it is made


def _value_at(function: Callable[[int], float], epoch: int) -> float | None:
    try:
        return float(function(epoch))
    except Exception:  # such as that of a list which is shorter
        return None


def draw(pairs: Pairs, index: Tensor, learner: Learner) -> tuple[Tensor, Tensor]:
    """Return the batch of the samples at index (seed, sample), one seed's after the other's, for a learner."""
    like = learner.parameters[0]
    inputs, targets = pairs.draw(index.flatten())
    if like.is_cuda:  # which fetches pinned memory while the batch before is at work
        inputs, targets = (part.pin_memory() if part.is_cpu else part for part in (inputs, targets))
    # Integers stay integers, such as the indices that an embedding reads.
    dtype = like.dtype if inputs.is_floating_point() else inputs.dtype
    return inputs.to(like.device, dtype, non_blocking=True), targets.to(like, non_blocking=True)


def _signature(tensors: dict[str, Tensor]) -> Tensor:
    """Return the sum of each tensor, and of its magnitudes, by which parameters are known on another machine, too."""
    sums = [[float(part.double().sum()) for part in (each.detach(), each.detach().abs())] for each in tensors.values()]
    return torch.tensor(sums, dtype=torch.float64, device="cpu")


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(((one - other)[:, 0].abs() <= 1e-4 * one[:, 1]).all())


def _fits(moment: Tensor, parameter: Tensor) -> bool:
    """Tell whether an optimizer may keep such a tensor of a parameter: of its shape, or with an axis summed up."""
    return moment.ndim == parameter.ndim and all(
        m in (1, p) for m, p in zip(moment.shape, parameter.shape, strict=True)
    )


def _first_bad(losses: Tensor, seeds: Sequence[int]) -> str:
    bad = int((~torch.isfinite(losses)).int().argmax())
    return f"{float(losses[bad])}" + (f" for seed {seeds[bad]}" if len(seeds) > 1 else "")

"""What a training run trains: a network by its plasticity, or a module by backprop, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.alike import Comparison, Difference
from neurodyn.layers.forward import ForwardPass, evaluated, sources
from neurodyn.layers.losses import Loss, check_differentiable, per_sample, squared_error
from neurodyn.layers.names import distinct_names, shape_text
from neurodyn.layers.stacked import Stacked, StackedTensors, member_of
from neurodyn.learning.backward import Lesson, learn
from neurodyn.network.network import Network
from neurodyn.solvers import Solver
from neurodyn.system.own import look_at_loss
from neurodyn.system.stacking import compare_networks, stack_networks


def angles(u: Tensor, v: Tensor) -> Tensor:
    """Return the angle between each two vectors, shape (vector, component), in degrees; NaN where one is 0."""
    u, v = (nn.functional.normalize(each.detach().double()) for each in (u, v))
    # Precise for small angles, where the arc cosine is not.
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    angle[(u == 0).all(1) | (v == 0).all(1)] = torch.nan
    return torch.rad2deg(angle)


class Learner(ABC):
    """What learns from batches; several members of one architecture may be stacked in it, one a seed.

    A batch of stacked members has the samples of the first one, then those of the second, and so on; their parameters
    have the member as the first axis.

    Parameters
    ----------
    name
        What it is called.
    loss
        One value per sample.
    parameters
        What the optimizer changes.
    tensors
        All that a run may change or depends on, by name: what a checkpoint holds.
    members
        How many are stacked.
    description
        All that it declares, as text.
    """

    def __init__(
        self,
        name: str,
        loss: Loss,
        parameters: Iterable[nn.Parameter],
        tensors: dict[str, Tensor],
        members: int,
        description: str,
    ) -> None:
        self.name, self.loss, self.members, self.description = name, loss, members, description
        self.parameters = list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))
        if not self.parameters:
            raise InvalidValueError(f"{name}: no parameter requires a gradient, so nothing can learn")
        if any(nn.parameter.is_lazy(parameter) for parameter in self.parameters):
            raise InvalidValueError(
                f"{name}: a parameter does not know its size yet; run the module once on a batch of inputs before"
            )
        if any(parameter.is_complex() for parameter in self.parameters):
            raise InvalidTypeError(
                f"{name}: a parameter is complex, and what is trained has real ones; let it have a real and an "
                "imaginary part, and join them by torch.view_as_complex in forward"
            )
        self.tensors = tensors
        self.stacks = StackedTensors()
        """Where the members' parameters are stacked; they get what was learned as it writes them back."""

    @abstractmethod
    def compare(self, other: Learner) -> None:
        """Refuse a learner that this one, the first, cannot be stacked with.

        Raises
        ------
        Difference
            If it is one; the message says in what they differ.
        """

    @abstractmethod
    def stack(self, learners: Sequence[Learner]) -> Learner:
        """Return learners that are alike, of which this is the first, as one."""

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let others see what the members have learned so far, in the members' own parameters, and change it."""
        self.stacks.write_back()
        yield
        self.stacks.read()

    @abstractmethod
    def learn(self, inputs: Tensor, targets: Tensor, progress: bool | None) -> Lesson:
        """Add to `.grad` what a batch teaches, averaged over the samples of each member; `progress` as `backward`'s."""

    @abstractmethod
    def output(self, inputs: Tensor) -> Tensor | None:
        """Return the output of the forward pass, shape (sample, …), without a graph; None if there is no such pass."""

    @property
    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The modules and their parts, by name."""

    @property
    def modes(self) -> str:
        """In which mode, training or evaluation, each part of the modules is; one a line."""
        return "\n".join(
            f"{name} in {'training' if part.training else 'evaluation'}" for name, part in self.parts.items()
        )

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by layer where another rule than backprop teaches them, for `angles`; none, as here, else."""
        return {}

    def backprop(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """Return backprop's gradients of the parameters in `layers`, in their order."""
        return []

    def losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample, shape (member, sample)."""
        if output.shape != targets.shape:
            raise InvalidValueError(
                f"targets have the shape {tuple(targets.shape)}, and the output has {tuple(output.shape)}; give one "
                "target a sample and output unit"
            )
        return per_sample(self.loss, output, targets).view(self.members, -1)

    def hits(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return for which samples the largest output is that of the largest target, shape (member, sample)."""
        return (output.flatten(1).argmax(1) == targets.flatten(1).argmax(1)).view(self.members, -1)

    def angles(self, backprop: Iterable[Tensor]) -> Tensor:
        """Return the angle between `.grad` and given gradients, in degrees, shape (member, layer), float64."""
        given = iter(backprop)
        columns = []
        for parameters in self.layers.values():
            pairs = [
                (torch.zeros_like(p) if p.grad is None else p.grad, g) for p, g in zip(parameters, given, strict=False)
            ]
            sides = (
                torch.cat([part.reshape(self.members, -1) for part in side], 1) for side in zip(*pairs, strict=True)
            )
            columns.append(angles(*sides))
        return torch.stack(columns, 1).cpu()

    def finite(self) -> bool:
        """Tell whether all parameters are finite."""
        largest = [p.detach().abs().max().double() for p in self.parameters if p.numel() > 0]
        return not largest or bool(torch.isfinite(torch.stack(largest)).all())


class NetworkLearner(Learner):
    """A declared network, in which several may be stacked, taught by its plasticity, as by `nd.backward`.

    Raises
    ------
    ValueError
        If the network declares no plasticity, or nothing in it can learn.
    """

    def __init__(self, network: Network, duration: float | None = None, solver: Solver | None = None) -> None:
        if not network.plasticity:
            raise InvalidValueError(f"network {network.name!r} declares no plasticity, so nothing can learn")
        self.network, self.duration, self.solver = network, duration, solver
        feedback = [tensor for _, tensor in network.feedback_parameters()]
        tensors: dict[str, Tensor] = {f"feedback.{number}": tensor for number, tensor in enumerate(feedback)}
        for number, stage in enumerate(network.stages):
            for place, layer in enumerate(stage.layers):
                for name, tensor in _named_tensors(layer):
                    tensors[f"stages.{number}.{place}.{name}"] = tensor
        own = [parameter for stage in network.stages for parameter in stage.parameters]
        how = f"{network.inference}, duration {duration}, solver {solver}, loss {_name(network.loss)}"
        super().__init__(network.name, network.loss, [*own, *feedback], tensors, network.members, f"{network}\n{how}")
        drives = [drive for p in network.populations for drive in (p.clamp, p.initial)]
        self._takes_targets = bool(network.forward) or any(getattr(drive, "reads_targets", False) for drive in drives)

    def compare(self, other: Learner) -> None:
        if not isinstance(other, NetworkLearner):
            raise Difference("it is a module taught by backprop, and the first is a declared network")
        compare_networks(self.network, other.network, learning=True)

    def stack(self, learners: Sequence[Learner]) -> Learner:
        tensors = StackedTensors()
        networks = [learner.network for learner in learners if isinstance(learner, NetworkLearner)]
        # A relaxation for a duration has no steps of inference.
        network = stack_networks(networks, tensors, inferring=self.duration is None)
        return _described(NetworkLearner(network, self.duration, self.solver), learners, tensors)

    def learn(self, inputs: Tensor, targets: Tensor, progress: bool | None) -> Lesson:
        own = targets if self._takes_targets else None
        return learn(self.network, inputs, own, duration=self.duration, solver=self.solver, progress=progress)

    @torch.no_grad()
    def output(self, inputs: Tensor) -> Tensor | None:
        return ForwardPass(self.network.forward, inputs).output if self.network.forward else None

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {
            name: part
            for number, stage in enumerate(self.network.stages)
            for place, layer in enumerate(stage.layers)
            for name, part in layer.named_modules(prefix=f"stages.{number}.{place}")
        }

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        trained = set(self.parameters)
        names = distinct_names(self.network.forward)
        by_layer = {names[stage]: [p for p in stage.parameters if p in trained] for stage in self.network.forward}
        return {name: parameters for name, parameters in by_layer.items() if parameters}

    def backprop(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            values = evaluated(sources(self.network.forward), inputs)
            loss = self.losses(values[self.network.forward[-1]], targets).mean(1).sum()
            onto = [parameter for parameters in self.layers.values() for parameter in parameters]
            return list(torch.autograd.grad(loss, onto, materialize_grads=True))


class ModuleLearner(Learner):
    """A module, taught by backprop: the reference.

    Parameters
    ----------
    module
        Any `nn.Module` of one input and one output, or a `Stacked` one of several.
    loss
        One value per sample.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self.module = module
        members = module.members if isinstance(module, Stacked) else 1
        self._looked_at: set[torch.Size] = set()
        """The shapes of outputs for which the loss has been looked at."""
        text = f"{module}\nloss {_name(loss)}"
        super().__init__("backprop", loss, module.parameters(), dict(_named_tensors(module)), members, text)

    def compare(self, other: Learner) -> None:
        if not isinstance(other, ModuleLearner):
            raise Difference("it is a declared network, and the first is a module taught by backprop")
        Comparison(learning=True).pair("the module", self.module, other.module)

    def stack(self, learners: Sequence[Learner]) -> Learner:
        tensors = StackedTensors()
        modules = [learner.module for learner in learners if isinstance(learner, ModuleLearner)]
        return _described(ModuleLearner(Stacked(modules, tensors), self.loss), learners, tensors)

    def learn(self, inputs: Tensor, targets: Tensor, progress: bool | None) -> Lesson:
        with torch.enable_grad():
            output = self._value(inputs)
            if self.loss is not squared_error and output.shape not in self._looked_at:
                if output.shape == targets.shape:  # of which `losses` tells
                    look_at_loss(self.loss, output, targets)
                self._looked_at.add(output.shape)
            losses = self.losses(output, targets)
            check_differentiable(losses)
            losses.mean(1).sum().backward()  # type: ignore[no-untyped-call]
        return Lesson(output.detach(), losses.detach().flatten(), None)

    @torch.no_grad()
    def output(self, inputs: Tensor) -> Tensor:
        with evaluating(member_of(self.module)):
            return self._value(inputs)

    def _value(self, inputs: Tensor) -> Tensor:
        try:
            value: Tensor = self.module(inputs)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise InvalidValueError(
                f"module {type(self.module).__name__} does not take an input of "
                f"{shape_text(inputs.shape[1:])} a sample: {error}"
            ) from error
        return value

    @property
    def parts(self) -> dict[str, nn.Module]:
        return dict(self.module.named_modules(prefix="module"))


def _described(stacked: Learner, learners: Sequence[Learner], tensors: StackedTensors) -> Learner:
    """Return a stacked learner, called like the first of its members and described by all."""
    stacked.name, stacked.stacks = learners[0].name, tensors
    stacked.description = "\n\n".join(dict.fromkeys(learner.description for learner in learners))
    return stacked


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts into evaluation mode, and then each back into the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)

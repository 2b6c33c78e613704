"""What a training run trains: a network by its plasticity, or a module by backprop, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidValueError
from neurodyn.layers.losses import Loss, check_differentiable, per_sample, squared_error
from neurodyn.layers.points import is_plain
from neurodyn.layers.stages import ForwardPass, Source, distinct_names, sources
from neurodyn.learning.backward import Lesson, has_gradient_hooks, learn
from neurodyn.network.equations import plasticity_text
from neurodyn.network.network import Network
from neurodyn.solvers import Solver
from neurodyn.system.own import look_at_loss
from neurodyn.system.stacking import alike_but_for_numbers


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
        self.tensors = tensors

    @abstractmethod
    def is_like(self, other: Learner) -> bool:
        """Tell whether this learner can be stacked with another; what it misses shows in how they learn."""

    @abstractmethod
    def learn(self, inputs: Tensor, targets: Tensor) -> Lesson:
        """Add to `.grad` what a batch teaches, averaged over the samples of each member."""

    @abstractmethod
    def output(self, inputs: Tensor) -> Tensor | None:
        """Return the output of the forward pass, shape (sample, …), without a graph; None if there is no such pass."""

    @property
    @abstractmethod
    def layers(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by layer where another rule than backprop teaches them, for `angles`."""

    @abstractmethod
    def backprop(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """Return backprop's gradients of the parameters in `layers`, in their order."""

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
            u, v = (
                nn.functional.normalize(torch.cat([part.reshape(self.members, -1).double() for part in side], 1))
                for side in zip(*pairs, strict=True)
            )
            # Precise for small angles, where the arc cosine is not.
            angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
            angle[(u == 0).all(1) | (v == 0).all(1)] = torch.nan
            columns.append(torch.rad2deg(angle))
        return torch.stack(columns, 1).cpu()

    def refuse_hooks(self, who: str) -> None:
        """Refuse hooks that stacked learners would not call, with `who` for the message.

        Raises
        ------
        ValueError
            If a parameter has hooks on its gradient.
        """
        if any(has_gradient_hooks(parameter) for parameter in self.parameters):
            raise InvalidValueError(
                f"{who} has hooks on the gradient of a parameter, which stacked parameters would not have; train each "
                "by itself"
            )

    def finite(self) -> bool:
        """Tell whether all parameters are finite."""
        return bool(torch.isfinite(torch.stack([p.detach().abs().max().double() for p in self.parameters])).all())


class NetworkLearner(Learner):
    """A declared network, taught by its plasticity.

    Parameters
    ----------
    network
        The declaration; several stacked ones if `members` is more than 1.
    duration, solver
        As for `nd.backward`.
    members
        How many are stacked.

    Raises
    ------
    ValueError
        If the network declares no plasticity, or nothing in it can learn.
    """

    def __init__(
        self, network: Network, duration: float | None = None, solver: Solver | None = None, members: int = 1
    ) -> None:
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
        super().__init__(network.name, network.loss, [*own, *feedback], tensors, members, f"{network}\n{how}")
        drives = [drive for p in network.populations for drive in (p.clamp, p.initial)]
        self._takes_targets = bool(network.forward) or any(getattr(drive, "reads_targets", False) for drive in drives)

    def is_like(self, other: Learner) -> bool:
        return (
            isinstance(other, NetworkLearner)
            and self._teaching == other._teaching
            and alike_but_for_numbers(self.network, other.network)
        )

    @property
    def _teaching(self) -> tuple[object, ...]:
        steps = None if self.network.inference is None else self.network.inference.steps
        rules = [(plasticity_text(rule), rule.gain) for rule in self.network.plasticity]
        return rules, steps, _name(self.network.loss)

    def learn(self, inputs: Tensor, targets: Tensor) -> Lesson:
        return learn(
            self.network,
            inputs,
            targets if self._takes_targets else None,
            duration=self.duration,
            solver=self.solver,
            members=self.members,
        )

    @torch.no_grad()
    def output(self, inputs: Tensor) -> Tensor | None:
        return ForwardPass(self.network.forward, inputs).output if self.network.forward else None

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        trained = set(self.parameters)
        names = distinct_names(self.network.forward)
        by_layer = {names[stage]: [p for p in stage.parameters if p in trained] for stage in self.network.forward}
        return {name: parameters for name, parameters in by_layer.items() if parameters}

    def backprop(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        values: dict[Source, Tensor] = {"input": inputs}
        with torch.enable_grad():
            for stage, read in sources(self.network.forward).items():
                values[stage] = stage.apply(*(values[source] for source in read))
            loss = self.losses(values[self.network.forward[-1]], targets).mean(1).sum()
            onto = [parameter for parameters in self.layers.values() for parameter in parameters]
            return list(torch.autograd.grad(loss, onto, materialize_grads=True))


class ModuleLearner(Learner):
    """A module, taught by backprop: the reference.

    Parameters
    ----------
    module
        Any `nn.Module` of one input and one output; a `Stacked` one if `members` is more than 1.
    loss
        One value per sample.
    members
        How many are stacked.
    modes
        The module that is put into evaluation mode where that is due; `module` itself by default.
    """

    def __init__(self, module: nn.Module, loss: Loss, members: int = 1, *, modes: nn.Module | None = None) -> None:
        self.module, self._modes = module, module if modes is None else modes
        self._looked_at: set[torch.Size] = set()
        """The shapes of outputs for which the loss has been looked at."""
        text = f"{module}\nloss {_name(loss)}"
        super().__init__("backprop", loss, module.parameters(), dict(_named_tensors(module)), members, text)

    def is_like(self, other: Learner) -> bool:
        return self.description == other.description

    def learn(self, inputs: Tensor, targets: Tensor) -> Lesson:
        with torch.enable_grad():
            output = self.module(inputs)
            if self.loss is not squared_error and output.shape not in self._looked_at:
                if output.shape == targets.shape:  # of which `losses` tells
                    look_at_loss(self.loss, output, targets)
                self._looked_at.add(output.shape)
            losses = self.losses(output, targets)
            check_differentiable(losses)
            losses.mean(1).sum().backward()  # type: ignore[no-untyped-call]
        return Lesson(output.detach(), None)

    def refuse_hooks(self, who: str) -> None:
        super().refuse_hooks(who)
        for part in self.module.modules():
            if not is_plain(part) or part._backward_hooks or part._backward_pre_hooks:
                raise InvalidValueError(
                    f"{who} has a hook on its {type(part).__name__}, or a forward put in the place of its own, which "
                    "stacked modules would not call; train each by itself"
                )

    @torch.no_grad()
    def output(self, inputs: Tensor) -> Tensor:
        with _evaluating(self._modes):
            output: Tensor = self.module(inputs)
        return output

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        return {}

    def backprop(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        return []


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
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

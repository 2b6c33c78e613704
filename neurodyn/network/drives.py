"""Drives: what a population is clamped to, or starts from: inputs, targets, or a result of the forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neurodyn.checks import flag, positive
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.forward import ForwardPass
from neurodyn.layers.losses import Loss, loss_gradient
from neurodyn.layers.stages import Stage
from neurodyn.network.vectors import ByValue, Vector, text_of, vector


@dataclass(frozen=True)
class Data:
    """What a network is bound to.

    Parameters
    ----------
    inputs
        The input of each population clamped to `Input()`, by its name; shape (sample, …).
    targets
        The targets, shape (sample, …), or None.
    forward
        The forward pass, or None for a network without one.
    loss
        The loss of the forward pass's output.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> from neurodyn.layers.losses import squared_error
    >>> data = nd.Data({"s": torch.ones(4, 3)}, None, None, squared_error)
    >>> data.inputs["s"].shape
    torch.Size([4, 3])
    """

    inputs: dict[str, Tensor]
    targets: Tensor | None
    forward: ForwardPass | None
    loss: Loss


class Drive(ABC):
    """A value that the data or the forward pass give. Subclass it for a drive of one's own.

    It is read once for each batch, and a few times before the first, to see that it writes into none of the data, gives
    each sample what that would get alone, and the same again from the same random state. It may draw from the global
    random states (of PyTorch, NumPy and Python), as `Noisy` does.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> class Doubled(nd.Drive):
    ...     def value(self, population, data):
    ...         return 2 * data.inputs["s"]
    ...
    ...     def __str__(self):
    ...         return "2 input"
    >>> held = [nd.Population("s", 1, clamp=nd.Input()), nd.Population("x", 1, clamp=Doubled())]
    >>> nd.equilibrium(nd.Network("held", held), torch.tensor([[3.0]])).x.item()
    6.0
    """

    reads_targets: bool = False
    """Whether it reads the targets, so that a run of a network without them is refused, and they are of use."""
    optional: bool = False
    """Whether the drive may be absent, which leaves its population free."""

    @abstractmethod
    def value(self, population: str, data: Data) -> Tensor | None:
        """Return the value for a population, shape (sample, …), or None if it is optional and absent."""

    @abstractmethod
    def __str__(self) -> str:
        """Return how it stands in an equation."""


@dataclass(frozen=True)
class Input(Drive):
    """The inputs: the tensor given, or its entry under the population's name.

    Parameters
    ----------
    integer
        Whether the inputs are integers, such as indices of words, which the forward pass alone reads.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> populations = [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", 2)]
    >>> net = nd.Network("leaky", populations, [nd.Coupling("s", "x")])
    >>> print(net["s"].clamp)
    input
    >>> nd.equilibrium(net, torch.tensor([[1.0, 2.0]])).x.values.tolist()
    [[1.0, 2.0]]
    """

    integer: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "integer", flag("integer of Input", self.integer))

    def value(self, population: str, data: Data) -> Tensor:
        return data.inputs[population]

    def __str__(self) -> str:
        return "input"


@dataclass(frozen=True)
class Target(Drive):
    """The targets.

    Parameters
    ----------
    optional
        Whether a run may go without targets, which leaves the population free.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> net = nd.Network("supervised", [nd.Population("x", 1, clamp=nd.Target(optional=True), initial=1.0)])
    >>> nd.equilibrium(net, None, torch.tensor([[3.0]])).x.item()
    3.0
    >>> nd.equilibrium(net, None).x.item()
    0.0
    """

    optional: bool = False
    reads_targets = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "optional", flag("optional of Target", self.optional))

    def value(self, population: str, data: Data) -> Tensor | None:
        return data.targets

    def __str__(self) -> str:
        return "target"


class Constant(ByValue, Drive):
    """A constant, such as a background input.

    Parameters
    ----------
    value
        A number, or a tensor of the population's shape, one for each unit.

    Raises
    ------
    TypeError, ValueError
        If the value is neither, or not finite.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> bias = nd.Population("b", 2, clamp=nd.Constant(torch.tensor([1.0, -1.0])))
    >>> net = nd.Network("biased", [bias, nd.Population("x", 2)], [nd.Coupling("b", "x")])
    >>> nd.equilibrium(net, None).x.values.tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, value: Vector) -> None:
        self.constant = vector("value of Constant", value)

    def value(self, population: str, data: Data) -> Tensor:
        """Return the value without an axis of samples, which the binding repeats for each."""
        return torch.as_tensor(self.constant)

    def __str__(self) -> str:
        return text_of(self.constant)

    def __repr__(self) -> str:
        return f"Constant({self.constant!r})"


@dataclass(frozen=True)
class ForwardValue(Drive):
    """The forward pass's value x̄_l = g_l(x̄_{l−1}) after a stage.

    Parameters
    ----------
    stage
        The stage g_l, one of the network's `forward`.

    Examples
    --------
    >>> import neurodyn as nd
    >>> stage = nd.cut(nd.mlp([3, 2]))[0]
    >>> print(nd.Population("x1", 2, initial=nd.ForwardValue(stage)).initial)
    ḡ1
    """

    stage: Stage

    def __post_init__(self) -> None:
        if not isinstance(self.stage, Stage):
            raise InvalidTypeError(f"a forward value is that of a neurodyn Stage, not of a {type(self.stage).__name__}")

    def value(self, population: str, data: Data) -> Tensor:
        assert data.forward is not None, "Network refuses a forward value without a forward pass"
        return data.forward.points[self.stage].value

    def __str__(self) -> str:
        return f"ḡ{self.stage.mark}"


@dataclass(frozen=True)
class Noisy(Drive):
    """Another drive's value plus Gaussian noise σ · N(0, 1), from PyTorch's global random state.

    Each run draws once: the noise is frozen. A forward pass starts from the inputs with their noise.

    Parameters
    ----------
    drive
        What the noise is added to; not integers.
    sigma
        The standard deviation σ > 0 of the noise.

    Raises
    ------
    TypeError, ValueError
        If there is no drive, or one of integers, or σ is not positive.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> noisy = nd.Population("s", 1000, clamp=nd.Noisy(nd.Input(), sigma=0.1))
    >>> net = nd.Network("noise", [noisy, nd.Population("x", 1000)], [nd.Coupling("s", "x")])
    >>> run = nd.simulate(net, torch.zeros(1, 1000), duration=9.0, save_at=2, seed=0)
    >>> 0.05 < float(run.x[-1].std()) < 0.15
    True
    """

    drive: Drive
    sigma: float

    def __post_init__(self) -> None:
        if not isinstance(self.drive, Drive):
            raise InvalidTypeError(
                f"Noisy: noise is added to a drive such as Input(), not to a {type(self.drive).__name__}"
            )
        inner = without_noise(self.drive)
        if isinstance(inner, Input) and inner.integer:
            raise InvalidValueError(
                "Noisy: integers take no noise; declare Input() without integer, or leave Noisy out"
            )
        if isinstance(inner, Constant):
            raise InvalidValueError("Noisy: a constant takes no frozen noise; declare Input(), and pass it as inputs")
        object.__setattr__(self, "sigma", positive("sigma of the noise", self.sigma))
        object.__setattr__(self, "reads_targets", self.drive.reads_targets)
        object.__setattr__(self, "optional", self.drive.optional)

    def value(self, population: str, data: Data) -> Tensor | None:
        value = self.drive.value(population, data)
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise InvalidTypeError(
                f"population {population}: {self.drive} gives a {type(value).__name__}, and not a tensor (sample, "
                "units…)"
            )
        return value + self.sigma * torch.randn_like(value)

    def __str__(self) -> str:
        return f"{self.drive} + {self.sigma:g} N(0, 1)"


@dataclass(frozen=True)
class LossGradient(Drive):
    """∂ℒ/∂x̄_L of each sample, at the forward pass's output x̄_L.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> stage = nd.Stage(torch.nn.Linear(2, 1, bias=False), "1")
    >>> _ = torch.nn.init.ones_(stage.parameters[0])
    >>> populations = [nd.Population("s", 2, clamp=nd.Input()), nd.Population("e", 1, clamp=nd.LossGradient())]
    >>> net = nd.Network("error", populations, forward=[stage])
    >>> nd.equilibrium(net, torch.ones(1, 2), torch.zeros(1, 1)).e.item()  # ∂ ½(2 − 0)²/∂x̄
    2.0
    """

    reads_targets = True

    def value(self, population: str, data: Data) -> Tensor:
        assert data.forward is not None, "Network refuses a loss gradient without a forward pass"
        assert data.targets is not None, "System refuses a run without the targets that its drives read"
        return loss_gradient(data.loss, data.forward.output, data.targets)

    def __str__(self) -> str:
        return "∂ℒ/∂x̄ at the output"


def without_noise(drive: Drive | Vector | None) -> Drive | Vector | None:
    """Return the drive that `Noisy` ones add their noise to; any other as it is."""
    while isinstance(drive, Noisy):
        drive = drive.drive
    return drive

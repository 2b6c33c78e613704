"""Plasticity: how the parameters of a stage learn from the activity before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from neurodyn.checks import number, one_of
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.stages import Stage
from neurodyn.network.regularizers import Regularizer
from neurodyn.network.timing import AtStep, OnSpike, When


@dataclass(frozen=True)
class Plasticity:
    """A stage's parameters θ learn from a presynaptic and a postsynaptic population.

    The gradient that an optimiser subtracts is gain · (∂g/∂θ)ᵀ post, averaged over the samples, with the stage g at
    its operating point: for θ = W, gain · (post ⊙ f'(h)) preᵀ.

    Parameters
    ----------
    stage
        The stage that learns.
    pre, post
        The names of the populations before and after it; before a stage that reads several, the first of them.
    when
        At the "end" of the relaxation; `AtStep(n)` of discrete inference; or `OnSpike(window)`, for the units of `post`
        that spike.
    presynaptic
        Where the presynaptic activity is taken: at the "frozen" forward pass, or at the "live" activity of `pre`.
    derivative
        Where the derivative f' is taken, likewise; "none" drops it. By default where the presynaptic activity is.
    gain
        The factor; negative where `post` points down the loss, as a prediction error does.
    weights
        Feedback weights ψ of the stage that learn in place of its parameters, by (ΔW)ᵀ.
    regularizer
        Adds its gradient to that of the weights, once an update, however many rules that change them have it.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> stage = nd.Stage(torch.nn.Linear(3, 2), "1")
    >>> populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("x", 2, clamp=nd.LossGradient())]
    >>> net = nd.Network("delta rule", populations, [], [nd.Plasticity(stage, "s", "x")], forward=[stage])
    >>> loss = nd.backward(net, torch.ones(1, 3), torch.zeros(1, 2))
    >>> tuple(stage.parameters[0].grad.shape)
    (2, 3)
    """

    stage: Stage
    pre: str
    post: str
    when: When = "end"
    presynaptic: Literal["frozen", "live"] = "frozen"
    derivative: Literal["frozen", "live", "none"] | None = None
    gain: float = 1.0
    weights: FeedbackWeights | None = None
    regularizer: Regularizer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stage, Stage):
            raise InvalidTypeError(f"plasticity: its stage is a neurodyn Stage, not {type(self.stage).__name__}")
        where = f"plasticity of stage {self.stage.name}"
        for end in (self.pre, self.post):
            if not isinstance(end, str):
                raise InvalidTypeError(f"{where}: pre and post are names of populations, not {type(end).__name__}")
        object.__setattr__(self, "gain", number(f"{where}: its gain", self.gain))
        if not self.stage.parameters:
            raise InvalidValueError(f"{where} ({self.stage.label}): it has no parameters to learn")
        if not isinstance(self.when, (AtStep, OnSpike)) and not (isinstance(self.when, str) and self.when == "end"):
            raise InvalidValueError(f"{where}: when is 'end', AtStep(n) or OnSpike(window), not {self.when!r}")
        one_of(f"{where}: presynaptic", self.presynaptic, ("frozen", "live"))
        if self.derivative is not None:
            one_of(f"{where}: derivative", self.derivative, ("frozen", "live", "none"))
        if self.stage.arguments > 1 and (self.presynaptic, self.derivative or "frozen") != ("frozen", "frozen"):
            raise InvalidValueError(
                f"{where} ({self.stage.label}): it reads {self.stage.arguments} values, which are known at the frozen "
                "forward pass alone; leave presynaptic and derivative out"
            )
        if self.weights is not None and not isinstance(self.weights, FeedbackWeights):
            raise InvalidTypeError(f"{where}: weights are FeedbackWeights, not {type(self.weights).__name__}")
        if self.weights is not None and self.weights.stage is not self.stage:
            raise InvalidValueError(f"{where}: {self.weights} belong to another stage")
        if self.regularizer is not None and not isinstance(self.regularizer, Regularizer):
            raise InvalidTypeError(
                f"{where}: its regularizer is a Regularizer such as Orthogonality(0.1), not {self.regularizer!r}"
            )

    @property
    def learns(self) -> tuple[nn.Parameter, ...]:
        """The parameters that the rule changes."""
        return self.stage.parameters if self.weights is None else tuple(self.weights.tensors.values())

    @property
    def reads(self) -> frozenset[str]:
        """The populations whose live activity the rule depends on."""
        live = "live" in (self.presynaptic, self.derivative)
        mover = {self.when.moved_by} if isinstance(self.when, OnSpike) and self.when.moved_by is not None else set()
        return frozenset({self.post, self.pre} if live else {self.post}) | mover

    @property
    def reads_forward(self) -> bool:
        """Whether the rule depends on its stage at the forward pass."""
        return "frozen" in (self.presynaptic, self.derivative)

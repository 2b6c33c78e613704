"""When plasticity acts: at the end of a relaxation, at a step of discrete inference, or when a unit spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from neurodyn.checks import flag, positive, whole
from neurodyn.errors import InvalidTypeError
from neurodyn.layers.repeated import expect


@dataclass(frozen=True)
class Inference:
    """Discrete inference: Euler steps x ← x + γ F(x), as the machine-learning literature runs a relaxation.

    Parameters
    ----------
    step
        γ, in units of time.
    steps
        How many steps, ≥ 0.
    by_default
        Whether a model chose both in its user's place, so that a run in continuous time may set them aside.

    Raises
    ------
    TypeError, ValueError
        If γ is not positive, or the number of steps no integer ≥ 0.

    Examples
    --------
    >>> import neurodyn as nd
    >>> leak = nd.Population("x", 1, initial=1.0)
    >>> net = nd.Network("leak", [leak], inference=nd.Inference(step=0.5, steps=3))
    >>> nd.infer(net, None).x.values.ravel().tolist()
    [1.0, 0.5, 0.25, 0.125]
    """

    step: float
    steps: int
    by_default: bool = field(default=False, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", positive("step of inference", self.step))
        object.__setattr__(self, "steps", whole("steps of inference", self.steps, least=0))
        flag("by_default of Inference", self.by_default)


@dataclass(frozen=True)
class AtStep:
    """At one step of the network's discrete inference, counted from 0, the state before the first step.

    Parameters
    ----------
    step
        Which.

    Raises
    ------
    TypeError, ValueError
        If it is no integer ≥ 0.

    Examples
    --------
    >>> import neurodyn as nd
    >>> module = nd.mlp([4, 3, 2])
    >>> z_il = nd.models.predictive_coding.network(module, learning="z-il")
    >>> [rule.when.step for rule in z_il.plasticity]
    [1, 0]
    """

    step: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", whole("step at which plasticity acts", self.step, least=0))

    def __str__(self) -> str:
        return f"at step {self.step}"


@dataclass(frozen=True)
class OnSpike:
    """At every step of discrete inference, for the postsynaptic units that spike then: φ(ε) = 1.

    Parameters
    ----------
    window
        t_d, as in `SpikeDetector`.
    moved_by
        The name of a population of the same size, such as the values x of the errors ε = x − μ. A unit then spikes only
        if its activity is exactly what the unit there moved by in the last step, so that nothing else has moved it:
        ε_t = x_t − x_{t−1}. At the first step, φ alone decides.

    Raises
    ------
    TypeError, ValueError
        If the window is no integer ≥ 1, or `moved_by` no name.

    Examples
    --------
    >>> import neurodyn as nd
    >>> module = nd.mlp([4, 3, 2])
    >>> fa_z_il = nd.models.predictive_coding.network(module, learning="fa-z-il")
    >>> fa_z_il.plasticity[0].when
    OnSpike(window=4, moved_by=None)
    """

    window: int
    moved_by: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole("window of spikes", self.window, least=1))
        if self.moved_by is not None and not isinstance(self.moved_by, str):
            raise InvalidTypeError(
                f"moved_by of OnSpike is the name of a population, or None, not {type(self.moved_by).__name__}"
            )

    def __str__(self) -> str:
        only = "" if self.moved_by is None else f", moved by {self.moved_by} alone"
        return f"when a unit of it spikes (window {self.window}{only})"


When = Literal["end"] | AtStep | OnSpike


class SpikeDetector:
    """The local gate φ: a unit spikes when its activity is not 0, having been exactly 0 at the last t_d steps.

    Before the first step counts as 0: the prediction phase has converged.

    Parameters
    ----------
    window
        t_d, in steps.

    References
    ----------
    Song et al., "Can the Brain Do Backpropagation?" (2020), §4.
    """

    def __init__(self, window: int) -> None:
        self.window = whole("window of spikes", window, least=1)
        self._resting: Tensor | None = None
        """At how many more steps each unit cannot spike."""

    def step(self, activity: Tensor) -> Tensor:
        """Take the activity at the next step, and return which units spike.

        Parameters
        ----------
        activity
            Any shape, the same at every step.

        Returns
        -------
        Tensor
            Boolean, of the same shape.
        """
        active = activity != 0
        # Small integers and no comparisons of them, which PyTorch does one by one.
        resting = (active.view(torch.uint8) if self.window < 256 else active.int()) * self.window
        if self._resting is None:
            self._resting = resting
            return active
        spikes = active > self._resting.clamp(max=1).bool()
        self._resting.sub_(self._resting.clamp(max=1))
        torch.maximum(self._resting, resting, out=self._resting)
        return spikes

    def can_spike_within(self, steps: int) -> bool:
        """Tell whether there is a unit that can spike in one of so many more steps."""
        if self._resting is None or steps <= 0:
            return steps > 0
        return expect(_some_below, [self._resting], steps)


def _some_below(counts: Sequence[Tensor], limit: int) -> bool:
    return any(int(each.min()) < limit for each in counts)

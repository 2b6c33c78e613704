"""Coupling maps: what a population makes of the activity of another.

A map is declared (`Map`), and bound to a network's operating points for a run (`Term`). Those of a stage are in
`stage_maps`, functions of the activity alone in `pointwise`, and maps of another map in `wrapping`; a new one
subclasses `Map` and defines `apply`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.forward import ForwardPass
from neurodyn.layers.names import shape_text
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.stages import Stage

Names = Any
"""The name of a coupling's source, or a tuple of the names of several: a map of one's own knows which it takes."""
Shapes = Any
"""Likewise, the shape of one sample of the source, or a tuple of several."""
Activity = Mapping[str, Tensor]
"""The activity of every population, by name; each of shape (sample, …)."""


class OperatingPoints:
    """The operating points that the maps of a network share: frozen ones, and live ones that follow a population.

    A live point is worked out once per evaluation of the vector field, however many couplings refer to it.
    """

    def __init__(self, forward: ForwardPass | None) -> None:
        self._forward = forward
        # By the id of the stage, which the point keeps alive: torch.compile of PyTorch 2.8 takes no stage for a key.
        self._live: dict[tuple[int, str], StagePoint] = {}
        self._current: dict[tuple[int, str], StagePoint] = {}
        self._lasting: dict[tuple[int, str], StagePoint] = {}
        self.echoes: Collection[str] = ()
        """What delayed couplings read, which changes with the time alone."""

    def frozen(self, stage: Stage) -> StagePoint:
        """Return the stage at the forward pass."""
        assert self._forward is not None, "Network refuses a frozen stage outside the forward pass"
        return self._forward.points[stage]

    def live(self, stage: Stage, population: str, activity: Activity) -> StagePoint:
        """Return the stage at the present activity of a population."""
        key = (id(stage), population)
        point = self._lasting.get(key) or self._current.get(key)
        if point is None:
            if key not in self._live:
                self._live[key] = StagePoint(stage)
            point = self._live[key]
            (self._lasting if population in self.echoes else self._current)[key] = point
            point.move_to(activity[population])
        return point

    def expire(self, populations: Collection[str] | None = None) -> None:
        """Say that the activity of populations (all if None) has changed, so that live points are worked out anew."""
        if populations is None:
            self._current.clear()
            return
        for points in (self._current, self._lasting):
            for key in [key for key in points if key[1] in populations]:
                del points[key]

    def expire_echoes(self) -> None:
        """Say that what delayed couplings read has changed."""
        if self.echoes and self._lasting:
            for key in [key for key in self._lasting if key[1] in self.echoes]:
                del self._lasting[key]

    def forget(self) -> None:
        """Say that the batch has changed, so that every live point is worked out anew."""
        self._current.clear()
        self._lasting.clear()
        for point in self._live.values():
            point.move_to()

    def take_from_forward(self, stage: Stage, population: str, *, lasting: bool) -> None:
        """Say that a population holds what the stage read in the forward pass: for good, or until it expires."""
        (self._lasting if lasting else self._current)[id(stage), population] = self.frozen(stage)


class Term:
    """A coupling's map, bound to data: it defines `value`, `add`, or both."""

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        """Add gain · map(source) to `out`, shaped like the target."""
        value = self.value(activity)
        assert value is not None, "a term without a value defines add"
        out.add_(value, alpha=gain)

    def value(self, activity: Activity) -> Tensor | None:
        """Return map(source), shaped like the target, where it comes as one tensor; None elsewhere.

        It may be the activity itself, or what is kept of an operating point: to be read, and not for long.
        """
        return None

    def each(self, activity: Activity, rows: Tensor) -> Tensor | None:
        """Return map(source) of several sources side by side, to be read; None, as here, where it takes one.

        Parameters
        ----------
        activity
            Every population's activity, of which the shapes count.
        rows
            The sources, shape (row, sample, …).
        """
        return None

    def add_with_jump(self, activity: Activity, out: Tensor, gain: float, jump: Tensor) -> None:
        """Do as `add`, and add to `jump` by how much that jumps at each kink of a target's unit: by 0, as here."""
        self.add(activity, out, gain)

    def norm(self, activity: Activity, rows: int) -> float | Tensor | None:
        """Return a bound on ‖map(source)‖₂ / ‖source‖₂ of a sample, offsets aside; None, as here, where none is known.

        Parameters
        ----------
        activity
            As for `each`.
        rows
            How many samples the map is applied to: the bound takes no longer than that.
        """
        return None

    def renew(self) -> bool:
        """Take up another batch, and weights that may have changed, in the buffers at hand.

        False, as here, says that the map has to be bound anew.
        """
        return False

    def assign(self, activity: Activity, out: Tensor, gain: float) -> None:
        """Write gain · map(source) into `out`."""
        value = self.value(activity)
        if value is None:
            self.add(activity, out.zero_(), gain)
        else:
            write_scaled(value, gain, out)


def write_scaled(value: Tensor, gain: float, out: Tensor) -> None:
    """Write gain · value into `out`."""
    if gain == 1.0:
        out.copy_(value)  # in half the time of a product
    else:
        torch.mul(value, gain, out=out)


class Map:
    """What a coupling does to the activity of its source. Subclass it for a map of one's own.

    A subclass defines `apply`, and `output_shape` where the target has another shape than the source. It sets
    `linear` if the map is linear (or affine) in the source, so that solvers may rely on it. Of several sources,
    `apply` takes one tensor each, and `linear` means that it is so in all of them jointly; `source` is in the other
    methods a tuple of all names, or of all shapes, in the coupling's order. Networks with such a map
    are stacked where its settings are known to be equal: where it is a frozen dataclass, or defines an equality.

    A solver evaluates a map as often as it likes, and that of a clamped source once a run. So a map is a function of
    its source alone: it does not write into it (no `x.mul_(2)`), draws no random numbers (noise is a drive's, such as
    `Noisy`), remembers nothing from one evaluation to the next, and makes of each sample what it would make of it alone
    (no mean over the first axis). It may have kinks and jumps, and no value (NaN) or an exception where it is not
    defined. Before a run, each map is asked a few times for each shape of data, where the run starts and beside, and
    refused if it is otherwise, or not `linear` or `homogeneous` where it says so.

    Examples
    --------
    >>> import neurodyn as nd
    >>> class Square(nd.Map):
    ...     def apply(self, x):
    ...         return x.square()
    >>> populations = [nd.Population("x", 1, clamp=nd.Constant(3.0)), nd.Population("y", 1)]
    >>> net = nd.Network("square", populations, [nd.Coupling("x", "y", Square())])
    >>> nd.equilibrium(net, None).y.item()
    9.0
    """

    linear: bool = False
    homogeneous: bool = False
    """Whether a source of exactly 0 gives exactly 0, so that the coupling of a silent population can be skipped."""
    stage: Stage | None = None
    """The stage that the map uses, if any."""
    frozen: bool = False
    """Whether the map needs its stage's operating point from the forward pass."""
    stacked_numbers: tuple[str, ...] = ()
    """The fields of a dataclass whose numbers may differ among stacked networks: there a tuple, one a network."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that the map uses."""
        return () if self.stage is None else (self.stage,)

    @property
    def frozen_stages(self) -> tuple[Stage, ...]:
        """Those whose operating point the map needs from the forward pass."""
        return self.stages if self.frozen else ()

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        """The feedback weights ψ that the map uses, if any."""
        return None

    def apply(self, *source: Any, **_: Any) -> Tensor:
        """Return the map of the source's activity.

        Parameters
        ----------
        source
            The activity itself, shape (sample, …), of each source: to be read, and not to be written into.

        Returns
        -------
        Tensor
            Shape (sample, …), of the same dtype on the same device; it may be the source, or share its memory.
        """
        name = type(self).__name__
        if type(self).bind is not Map.bind:
            raise NotImplementedError(
                f"{name} is computed by a coupling and not by apply: couple it to a population of tau=0, and read it"
            )
        raise NotImplementedError(f"{name} defines neither apply nor bind")

    def output_shape(self, source: Shapes, target: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample of map(source), given those of source and target."""
        if isinstance(source[0], int):
            return tuple(source)
        first: tuple[int, ...] = source[0]
        if any(shape != first for shape in source):
            raise InvalidValueError(
                f"{type(self).__name__} takes sources of one shape, and these have "
                f"{', '.join(map(shape_text, source))} units; a map of one's own may say otherwise in output_shape"
            )
        return first

    def reads(self, source: Names, target: str) -> tuple[str, ...]:
        """Name the populations whose live activity the map depends on."""
        return names_of(source)

    def adjoint_to(self, other: Map) -> bool:
        """Tell whether this map is the transposed Jacobian of `other` at the live activity, as in a gradient flow."""
        return False

    def describe(self, source: Names, target: str) -> str:
        """Return map(source) as it stands in an equation."""
        return f"{type(self).__name__}({', '.join(names_of(source))})"

    def bind(self, points: OperatingPoints, source: Names, target: str) -> Term:
        """Bind the map to a network's operating points."""
        return _Applied(self, names_of(source), target)


class _Applied(Term):
    def __init__(self, map_: Map, sources: tuple[str, ...], target: str) -> None:
        self._map, self._sources, self._target = map_, sources, target

    def renew(self) -> bool:
        return True

    def value(self, activity: Activity) -> Tensor:
        value = self._map.apply(*[activity[source] for source in self._sources])
        target = activity[self._target]
        if value.shape != target.shape:
            # Broadcasting would hide the mistake.
            raise InvalidValueError(
                f"{type(self._map).__name__}.apply makes the shape {tuple(value.shape)} of population "
                f"{', '.join(self._sources)}, "
                f"and the target has {tuple(target.shape)}; say so in output_shape, or change apply"
            )
        return value

    def each(self, activity: Activity, rows: Tensor) -> Tensor | None:
        if self._map.stacked_numbers:  # which go by the place of a sample
            return None
        value = self._map.apply(rows.flatten(0, 1))
        return value.reshape(*rows.shape[:2], *value.shape[1:])


def names_of(source: Names) -> tuple[str, ...]:
    """Return the names of a coupling's sources."""
    return (source,) if isinstance(source, str) else tuple(source)

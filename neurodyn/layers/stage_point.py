"""A stage at an operating point: its value, its feedback and its parameter gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.choice import layer_point
from neurodyn.layers.kinds import is_plain
from neurodyn.layers.names import shape_text
from neurodyn.layers.points import LayerPoint
from neurodyn.layers.windows import Windows, pools

if TYPE_CHECKING:
    from neurodyn.layers.stages import Stage


class StagePoint:
    """A stage at an operating point: its value, its feedback and its parameter gradient there.

    Each is worked out when first asked for and then kept, until `move_to` changes the operating point.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._layers: list[LayerPoint] = [layer_point(layer) for layer in stage.layers]
        last = max((i for i, layer in enumerate(self._layers) if layer.feedback_needs_forward), default=-1)
        self._needed_by_feedback = last + 1
        last = stage.weighted[-1] if stage.weighted else 0
        self._needed_by_gradient = last + self._layers[last].gradient_needs_forward
        self.takes_rows = all(layer.takes_rows for layer in self._layers)
        """Whether `feedback` takes several v side by side, shape (row, sample, …), as well."""
        self._inputs: tuple[Tensor, ...] = ()
        self._values: list[Tensor] = []

    def move_to(self, *x: Tensor) -> None:
        """Make `x`, shape (sample, …), the operating point; it must not change while the point is in use."""
        self._inputs, self._values = x, []

    def _advance(self, layers: int) -> Tensor:
        """Return the value after as many layers, and x itself after none."""
        for layer in self._layers[len(self._values) : layers]:
            self._values.append(layer.forward(*(self._values[-1:] or self._inputs)))
        return self._values[layers - 1] if layers else self._inputs[0]

    @property
    def value(self) -> Tensor:
        """g(x), shape (sample, …)."""
        return self._advance(len(self._layers))

    def checked_at(self, *x: Tensor) -> Tensor:
        """Make `x` the operating point, and return g(x).

        Raises
        ------
        TypeError, ValueError
            If the layers do not accept `x`, or do not return one real value a sample.
        """
        self.move_to(*x)
        stage = self.stage
        try:
            value = self.value
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            shapes = " and ".join(shape_text(each.shape[1:]) for each in x)
            raise InvalidValueError(
                f"stage {stage.name} ({stage.label}) does not take an input of {shapes} a sample: {error}"
            ) from error
        if value.is_complex():
            raise InvalidTypeError(
                f"stage {stage.name} ({stage.label}) makes {value.dtype}, and activity is real; let it return real "
                "numbers, as torch.view_as_real makes them"
            )
        if value.ndim < 2 or value.shape[0] != x[0].shape[0]:
            shapes = " and ".join(str(tuple(each.shape)) for each in x)
            raise InvalidValueError(
                f"stage {stage.name} ({stage.label}) makes {tuple(value.shape)} of the shape {shapes}; the first axis "
                "must stay the sample"
            )
        return value

    @property
    def values(self) -> Sequence[Tensor]:
        """x, and then the value of each layer; g(x) is the last."""
        self._advance(len(self._layers))
        return [self._inputs[0], *self._values]

    @property
    def slope(self) -> Tensor:
        """f'(h) of each unit of g(x), where f are the activations after the last layer with weights."""
        first = self.stage.first_of_output
        slope = torch.ones_like(self.values[first])
        for place in range(first, len(self._layers)):
            layer = self._layers[place]
            if not is_plain(layer.layer):
                raise InvalidValueError(
                    f"stage {self.stage.name} ({self.stage.label}): a hook or a forward of its own changes what its "
                    f"{type(layer.layer).__name__} computes, so its units have no derivative f'(h) of their own; "
                    "remove it"
                )
            slope = layer.feedback(slope) if place in self.stage.activations else layer.layer(slope)
        return slope.clone()

    def feedback(
        self,
        v: Tensor,
        argument: int = 0,
        *,
        weights: Mapping[int, Tensor] | None = None,
        derivative: bool = True,
    ) -> Tensor:
        """Return Jᵀ v, where J = ∂g/∂x at the operating point; v itself, or a view of it, where J does no more.

        Parameters
        ----------
        v
            Shaped like g(x).
        argument
            By which of the values that g reads it is differentiated, counted from 0.
        weights
            Feedback weights in place of the transposed ones, by the place of their layer.
        derivative
            Whether the activations' derivatives f' are applied.
        """
        self._advance(self._needed_by_feedback)
        for place in range(len(self._layers) - 1, bool(argument) - 1, -1):
            v = self._back(place, v, weights or {}, derivative)
        return self._layers[0].feedback_to(argument, v) if argument else v

    def feedback_norm(
        self, argument: int = 0, *, weights: Mapping[int, Tensor] | None = None, derivative: bool = True, rows: int
    ) -> float | Tensor | None:
        """Return a bound on ‖Jᵀ v‖₂ / ‖v‖₂ of a sample, at any operating point; None where none is known.

        Parameters
        ----------
        argument, weights, derivative
            As for `feedback`.
        rows
            How many samples are fed back: the bound takes no longer than that.
        """
        norm: float | Tensor = 1.0
        for place, layer in enumerate(self._layers):
            if derivative or place not in self.stage.activations:
                own = layer.feedback_norm((weights or {}).get(place), rows)
                if own is None or argument:
                    return None
                norm = norm * own
        return norm

    def add_feedback(self, v: Tensor, out: Tensor, gain: float, jump: Tensor | None = None) -> None:
        """Add gain · Jᵀ v to `out`, which is shaped like x, as is `jump`; shapes as for `feedback`.

        By how much that jumps as a unit of x passes 0, of a stage with a `bend`, or becomes the largest of its window,
        of one with `windows`, is added to `jump`.
        """
        self._advance(self._needed_by_feedback)
        windows = self.stage.windows
        if jump is not None and windows is not None:
            self._add_feedback_of_maxima(windows, v, out, gain, jump)
            return
        for layer in self._layers[:0:-1]:
            v = layer.feedback(v)
        if jump is not None and self.stage.bend is not None:
            jump.add_(v, alpha=gain * self.stage.bend)
        self._layers[0].add_feedback(v, out, gain)

    def _add_feedback_of_maxima(self, windows: Windows, v: Tensor, out: Tensor, gain: float, jump: Tensor) -> None:
        pool = 0 if pools(self._layers[0].layer) else 1
        for layer in self._layers[:pool:-1]:
            v = layer.feedback(v)
        back = v
        for layer in self._layers[pool::-1]:
            back = layer.feedback(back)
        out.add_(back, alpha=gain)
        axes = len(windows.sizes)
        at_maxima = v if windows.rectified else windows.of(back).flatten(-axes).sum(-1)
        windows.of(jump).add_(at_maxima[(..., *[None] * axes)], alpha=gain)

    def _back(self, place: int, v: Tensor, weights: Mapping[int, Tensor], derivative: bool) -> Tensor:
        if place in weights:
            return self._layers[place].feedback_through(v, weights[place].detach())
        if not derivative and place in self.stage.activations:
            return v
        return self._layers[place].feedback(v)

    def gradient(self, v: Tensor) -> tuple[Tensor, ...]:
        """Return Σ_sample (∂g/∂θ)ᵀ v for each parameter θ of the stage, in the order of `Stage.parameters`."""
        return tuple(gradient for layer in self.layer_gradients(v).values() for gradient in layer)

    def layer_gradients(
        self, v: Tensor, gain: float = 1.0, *, at: StagePoint | None = None, derivative: bool = True
    ) -> dict[int, tuple[Tensor, ...]]:
        """Return gain · Σ_sample (∂g/∂θ)ᵀ v for the parameters θ of each layer, by its place, the first one first.

        Parameters
        ----------
        v, gain
            Shaped like g(x), and a factor.
        at
            Where the derivatives f' are taken; here, if None. The presynaptic activity is that of this point.
        derivative
            Whether the activations' derivatives f' are applied.
        """
        at = self if at is None else at
        gradients: dict[int, tuple[Tensor, ...]] = {}
        if self.stage.weighted:
            first = self.stage.weighted[0]
            self._advance(self._needed_by_gradient)
            at._advance(at._needed_by_feedback)
            for place in range(len(self._layers) - 1, first - 1, -1):
                if place in self.stage.weighted:
                    layer, x = self._layers[place], self._advance(place)
                    gradients[place] = layer.gradient(x, v) if gain == 1.0 else layer.scaled_gradient(x, v, gain)
                if place > first:
                    v = at._back(place, v, {}, derivative)
        return dict(reversed(gradients.items()))

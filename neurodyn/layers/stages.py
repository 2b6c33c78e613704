"""Stages: the pieces of a feedforward module between two populations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import listed
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.admission import check_layer, take_apart
from neurodyn.layers.inverses import StageInverse
from neurodyn.layers.kinds import bend_of, computes, is_activation, is_affine, is_smooth
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.names import MARKS, layer_label
from neurodyn.layers.origin import Origin
from neurodyn.layers.sparse import SparseLinear
from neurodyn.layers.stacked import Stacked
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.windows import Windows, pools, windows_of


class Stage:
    """One piece g of a feedforward module: layers in sequence, from one population to the next.

    Parameters
    ----------
    layers
        The layers, in the order of the forward pass, or one module (an `nn.Sequential` is taken apart).
    name
        How equations and messages name it, e.g. "2"; by default its layers, the last one first, as in "(Tanh∘Linear)".

    Raises
    ------
    TypeError
        If a layer is no `nn.Module`.
    ValueError
        If there is no layer, or one that cannot be part of a stage (recurrent, batch-coupling, random, …).

    Notes
    -----
    Forward hooks of a layer, or a forward put on it, are called. Those of an `nn.Sequential`, which is taken apart, and
    backward hooks are refused, and so is, when a network is run, a module whose layers, hooks or forward have changed
    since. Parameters are taken as they then are.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> stage = nd.Stage([torch.nn.Linear(3, 2), torch.nn.Tanh()], "1")
    >>> stage.label, stage.output_size
    ('Linear(3 → 2), Tanh', 2)
    """

    def __init__(self, layers: nn.Module | Iterable[nn.Module], name: str | None = None) -> None:
        if isinstance(layers, nn.Module) or not isinstance(layers, Iterable):
            layers = [layers]
        layers = listed("layers of a stage", layers)
        if name is not None and not isinstance(name, str):
            raise InvalidTypeError(f"stage {name!r}: its name is text, such as '2', not {type(name).__name__}")
        flat, containers = take_apart(layers)
        self.layers = tuple(flat)
        if not self.layers:
            raise InvalidValueError(f"stage {name or ''} has no layer: give it at least one nn.Module")
        self.origin = Origin([*containers, *self.layers])
        """What it was made of, as it was then."""
        if name is None:  # its layers, of which the last one alone would hide the others
            names = [type(layer).__name__ for layer in reversed(self.layers)]
            name = names[0] if len(names) == 1 else f"({'∘'.join(names)})"
        self.name = name
        self.sources: tuple[Source, ...] = ()
        """What it reads in a forward pass, if not what the stage before it gives."""
        self._output_shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.check()
        self.origin.check()

    def check(self) -> None:
        """Refuse layers that cannot be part of a stage in their present mode (training or evaluation)."""
        for layer in self.layers:
            check_layer(layer, self.name)

    @property
    def arguments(self) -> int:
        """How many values g reads."""
        return len(self.sources) or 1

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of the layers, in the order in which `StagePoint.gradient` returns their gradients."""
        return tuple(p for i in self.weighted for p in self.layers[i].parameters())

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """The places of the layers that have parameters."""
        return tuple(i for i, layer in enumerate(self.layers) if any(True for _ in layer.parameters()))

    @cached_property
    def activations(self) -> frozenset[int]:
        """The places of the layers that are activations."""
        return frozenset(i for i, layer in enumerate(self.layers) if is_activation(layer))

    @cached_property
    def affine(self) -> bool:
        """Whether g is affine, so that its Jacobian is the same at every operating point."""
        return all(is_affine(layer) for layer in self.layers)

    @cached_property
    def homogeneous(self) -> bool:
        """Whether g is affine, and takes 0 to 0, since no layer has a bias."""
        return self.affine and all(getattr(layer, "bias", None) is None for layer in self.layers)

    @cached_property
    def smooth(self) -> bool:
        """Whether no layer of g is known to have a kink."""
        return all(is_smooth(layer) for layer in self.layers)

    @cached_property
    def bend(self) -> float | None:
        """By how much f' of the first layer is larger above 0 than below, where g has no other kink; None elsewhere."""
        smooth = all(is_smooth(layer) for layer in self.layers[1:])
        return bend_of(self.layers[0]) if smooth else None

    @cached_property
    def windows(self) -> Windows | None:
        """The windows of whose units g reads the largest, of which it is smooth, or after ReLU; None elsewhere."""
        first, *rest = self.layers
        rectified = bend_of(first) == 1.0
        if type(first) in ACTIVATIONS and rest and (rectified or is_smooth(first)):
            first, *rest = rest
        return windows_of(first, rectified=rectified) if all(map(is_smooth, rest)) else None

    @property
    def continuous(self) -> bool:
        """Whether no layer is known to have a kink but rectifiers and max pooling, so that g does not jump."""
        return all(is_smooth(layer) or bend_of(layer) is not None or pools(layer) for layer in self.layers)

    @cached_property
    def input_size(self) -> int | None:
        """The number of input units, where the layers fix it: a Linear with only activations before it."""
        return _fixed_size(self.layers, "in_features")

    @cached_property
    def output_size(self) -> int | None:
        """The number of output units, where the layers fix it: a Linear or FirstUnits with only activations after."""
        return _fixed_size(self.layers[::-1], "out_features")

    def output_shape(self, input_shape: Sequence[int], argument: int = 0) -> tuple[int, ...]:
        """Return the shape of one sample of g's value.

        Parameters
        ----------
        input_shape
            The shape of one sample of its input, e.g. (784,) or (3, 32, 32).
        argument
            Which of the values that it reads has that shape, counted from 0.

        Raises
        ------
        ValueError
            If the layers do not accept that shape.
        """
        input_shape = tuple(input_shape)
        if input_shape not in self._output_shapes:
            buffers = (each for layer in self.layers for each in layer.buffers() if each.is_floating_point())
            like = next((each.detach() for each in (*self.parameters, *buffers)), torch.empty(0))
            value = StagePoint(self).checked_at(like.new_zeros((2 * self.members, *input_shape)))
            self._output_shapes[input_shape] = tuple(value.shape[1:])
        return self._output_shapes[input_shape]

    @cached_property
    def first_of_output(self) -> int:
        """The place after the last layer with parameters: the layers from there on make g's units of h."""
        return self.weighted[-1] + 1 if self.weighted else 0

    @property
    def members(self) -> int:
        """Of how many stacked networks it is; 1 of one network."""
        return max(layer.members if isinstance(layer, Stacked) else 1 for layer in self.layers)

    @property
    def mark(self) -> str:
        """The stage's name, with a number where the text at hand has several stages of that name."""
        return MARKS.get().get(self, self.name)

    @property
    def symbol(self) -> str:
        """How an equation writes the stage: g2 for the second of a module, else its name."""
        return f"g{self.mark}" if self.name.isdigit() else self.mark

    @property
    def label(self) -> str:
        """The layers as a short text, e.g. "Linear(300 → 100), Tanh"."""
        return ", ".join(layer_label(layer) for layer in self.layers)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return g(x), shape (sample, …), without a graph."""
        return self.at(x).value.clone()

    def apply(self, *x: Tensor) -> Tensor:
        """Return g(x), shape (sample, …), by the layers themselves, for `torch.autograd` to differentiate."""
        # Copies, because a layer that works in place would overwrite what it reads.
        value: Tensor = self.layers[0](*(each.clone() for each in x))
        for layer in self.layers[1:]:
            value = layer(value)
        return value

    def each(self, rows: Tensor) -> Tensor:
        """Return g of several x side by side, shape (row, sample, …), for reading."""
        if self.members == 1:
            value = self.at(rows.flatten(0, 1)).value
            return value.view(*rows.shape[:2], *value.shape[1:])
        by_member = rows.view(len(rows), self.members, -1, *rows.shape[2:]).transpose(0, 1)
        value = self.at(by_member.flatten(0, 2)).value
        return value.reshape(*by_member.shape[:3], *value.shape[1:]).transpose(0, 1).flatten(1, 2)

    def at(self, *x: Tensor) -> StagePoint:
        """Return the stage at the operating point `x`, shape (sample, …): one tensor for each value that it reads."""
        point = StagePoint(self)
        point.move_to(*x)
        return point

    def inverted(self) -> StageInverse:
        """Return g⁻¹, factorised once and valid until the weights change.

        Raises
        ------
        ValueError
            If a layer has no inverse, or its matrix is singular or too badly conditioned.
        """
        return StageInverse(self.layers, self.name)

    def __repr__(self) -> str:
        return f"Stage {self.name}: {self.label}"


Source = Stage | Literal["input"]
"""What a stage reads in a forward pass: the value of another stage, or the input."""


def _fixed_size(layers: Sequence[nn.Module], attribute: str) -> int | None:
    for layer in layers:
        if any(computes(layer, kind) for kind in (nn.Linear, SparseLinear)) or isinstance(layer, FirstUnits):
            size: int | None = getattr(layer, attribute, None)
            return size
        if not is_activation(layer):
            return None
    return None

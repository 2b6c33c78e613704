"""The operations of a captured computation graph: stages of several values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from neurodyn.errors import InvalidValueError
from neurodyn.layers.names import shape_text
from neurodyn.layers.stages import Source, Stage


class Operation(Stage):
    """An operation of a module's computation graph: a stage that reads the values of other operations, or the input.

    Parameters
    ----------
    name
        The operation's name and number, e.g. "linear_2".
    layer
        What it computes of the values that it reads.
    sources
        What it reads: other operations, or "input".
    source_shapes
        The shape of one sample of each.
    shape
        The shape of one sample of its value.
    label
        What it computes, in words.
    modes
        The parts of the module whose mode (training or evaluation) matters, and whether they were in training.
    """

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        sources: Sequence[Source],
        *,
        source_shapes: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        label: str,
        modes: Sequence[tuple[nn.Module, bool]],
    ) -> None:
        self._modes = modes
        self._kinds = [(p.dtype, p.device) for p in layer.parameters()]
        super().__init__([layer], name)
        self.sources = tuple(sources)
        self.source_shapes = tuple(source_shapes)
        self.shape = shape
        self._label = label

    def check(self) -> None:
        for part, training in self._modes:
            if part.training != training:
                mode = ("evaluation", "training")
                raise InvalidValueError(
                    f"operation {self.name}: the module was captured in {mode[training]} mode, and its "
                    f"{type(part).__name__} is in {mode[part.training]} mode now; switch it back, or capture it again"
                )
        for parameter, kind in zip(self.layers[0].parameters(), self._kinds, strict=True):
            if (parameter.dtype, parameter.device) != kind:
                raise InvalidValueError(
                    f"operation {self.name}: the module was captured with parameters of {kind[0]} on {kind[1]}, and "
                    f"now has them of {parameter.dtype} on {parameter.device}; capture it again"
                )

    def output_shape(self, input_shape: Sequence[int], argument: int = 0) -> tuple[int, ...]:
        expected = self.source_shapes[argument]
        if tuple(input_shape) != expected:
            raise InvalidValueError(
                f"operation {self.name} ({self.label}) was captured for {shape_text(expected)} units a sample, and not "
                f"for {shape_text(input_shape)}"
            )
        return self.shape

    @property
    def label(self) -> str:
        return self._label

"""The operations of a captured computation graph: stages of several values, that pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

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


class Computation(fx.GraphModule):
    """What an operation computes: a graph, and the tensors that it reads.

    It pickles as its nodes, where PyTorch's own traces its code anew, which operators that make tensors refuse.
    """

    functional = True
    """Whether nothing in it works in place."""

    def __reduce__(self) -> tuple[Any, ...]:
        places = {node: _Place(place) for place, node in enumerate(self.graph.nodes)}

        def placed(leaf: Any) -> Any:
            return places[leaf] if isinstance(leaf, fx.Node) else leaf

        nodes = [
            (n.op, n.name, _named(n.target), map_aggregate((n.args, dict(n.kwargs)), placed)) for n in self.graph.nodes
        ]
        tensors = {n.target: getattr(self, n.target) for n in self.graph.nodes if n.op == "get_attr"}
        return _computation, (tensors, nodes, self.training)


@dataclass(frozen=True)
class _Place:
    """A node of a graph, by its place."""

    place: int


def _named(target: Any) -> Any:
    """Return what a node calls, an operator by its name, as it does not pickle."""
    return _Operator(str(target)) if isinstance(target, torch._ops.OpOverload) else target


@dataclass(frozen=True)
class _Operator:
    """An operator by its name, such as "aten.add.Tensor"."""

    name: str

    def find(self) -> Any:
        namespace, packet, overload = self.name.split(".")
        return getattr(getattr(getattr(torch.ops, namespace), packet), overload)


def _computation(tensors: dict[str, Tensor], nodes: Sequence[tuple[Any, ...]], training: bool) -> Computation:
    graph = fx.Graph()
    made: list[fx.Node] = []

    def found(leaf: Any) -> Any:
        return made[leaf.place] if isinstance(leaf, _Place) else leaf

    for op, name, target, arguments in nodes:
        args, kwargs = map_aggregate(arguments, found)
        called = target.find() if isinstance(target, _Operator) else target
        made.append(graph.create_node(op, called, args, kwargs, name))
    return Computation(tensors, graph).train(training)

"""What the operations of a captured computation graph compute, in a form that pickles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate


class Computation(fx.GraphModule):
    """What an operation computes: a graph, and the tensors that it reads.

    Nothing in it works in place. It pickles as its nodes, where PyTorch's own traces its code anew, which operators
    that make tensors refuse.
    """

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

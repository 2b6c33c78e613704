"""Notes of the operations of PyTorch that a computation comes down to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch._C import _DisableTorchDispatch
from torch._ops import OpOverload
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

from neurodyn.layers.finite import leave_out_implied, spreading
from neurodyn.layers.shortcuts import make_in_place, share
from neurodyn.layers.spans import Span

_MOST_BYTES = 2**28
"""How much memory is kept while operations are noted: what takes more spends its time in arithmetic."""
_MOST_OPERATIONS = 20_000
_OF_THE_NUMBERS = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.nondeterministic_seeded,
}
"""What marks an operation whose result, or what is made of it, is not a matter of shapes alone."""
_MAKING = {torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default, torch.ops.aten.empty_strided.default}
"""Operations that make room."""
_FILLING = {torch.ops.aten.copy_.default, torch.ops.aten.zero_.default, torch.ops.aten.fill_.Scalar}
"""Operations that make their first argument anew."""


Operations = Callable[..., tuple[list[Tensor | None], list[bool]]]
"""A function of the tensors of a batch that returns results, and whether each condition holds."""


class _NotedError(Exception):
    """Something cannot be noted."""


@dataclass(frozen=True)
class _Kind:
    """What an operation is, whatever it is given."""

    view: bool
    """Whether it returns a view of its first argument."""
    of_the_numbers: bool
    call: tuple[str, Any]
    """How a node calls it: by PyTorch's own function of the name where there is one, in half the time."""
    written: tuple[tuple[int, str], ...]
    """The places and names of the arguments to which it writes."""

    def values_written(self, node: fx.Node) -> list[fx.Node]:
        """Return the nodes to whose values a node that calls it writes."""
        given = [node.args[at] if at < len(node.args) else node.kwargs.get(name) for at, name in self.written]
        nodes = [each for value in given for each in (value if isinstance(value, Sequence) else [value])]
        return [each for each in nodes if isinstance(each, fx.Node)]


@cache
def _kind(operation: OpOverload) -> _Kind:
    schema = operation._schema
    call: tuple[str, Any] = "call_function", operation
    name = schema.name.removeprefix("aten::")
    if operation.namespace == "aten" and hasattr(torch, name):
        call = "call_function", getattr(torch, name)
    elif operation.namespace == "aten" and hasattr(Tensor, name):
        call = "call_method", name
    of_returned = [each.alias_info for each in schema.returns]
    return _Kind(
        view=bool(of_returned) and all(alias is not None and not alias.is_write for alias in of_returned),
        of_the_numbers=not _OF_THE_NUMBERS.isdisjoint(operation.tags),
        call=call,
        written=tuple(
            (place, each.name)
            for place, each in enumerate(schema.arguments)
            if each.alias_info is not None and each.alias_info.is_write
        ),
    )


class Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that are made while it is on.

    Parameters
    ----------
    batch
        Tensors that will be others.
    known
        Tensors that will be where they are, with whatever is then in them.
    """

    def __init__(self, batch: Sequence[Tensor], known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._nodes: dict[int, fx.Node] = {}
        self._views: dict[tuple[object, ...], fx.Node] = {}
        """Nodes by where their tensors lie in memory, and how."""
        self._kept: list[object] = []  # so that no other tensor comes to stand where one did
        self._places = {_place(tensor) for tensor in known}
        self._made = {_place(tensor) for tensor in batch}
        """Where tensors lie that are others for every batch."""
        self._constants: dict[str, Tensor] = {}
        self._pure: set[fx.Node] = set()
        self._bytes = self._count = 0
        self._on = True
        for place, tensor in enumerate(batch):
            self._name(tensor, self._graph.placeholder(f"batch_{place}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled meanwhile, and PyTorch would load its compiler, for seconds, to skip it

    def __torch_dispatch__(
        self, operation: OpOverload, types: object, given: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        value = operation(*given, **options)
        if self._on:
            try:
                self._note(operation, given, options, value)
            except _NotedError:
                self.give_up()
        return value

    def constant(self, make: Callable[[], Tensor]) -> Tensor:
        """Return a new tensor that is the same for every batch."""
        with _DisableTorchDispatch():
            tensor = make()
        if self._on:
            self._places.add(_place(tensor))
            self._kept.append(tensor)
        return tensor

    def expect(self, reads: Callable[..., bool], tensors: Sequence[Tensor], *numbers: int) -> bool:
        """Return what a function tells of tensors and numbers, and note as a condition that it tells the same."""
        with _DisableTorchDispatch():
            read = reads(tensors, *numbers)
        if self._on:
            try:
                nodes = [self._node(tensor) for tensor in tensors]
            except _NotedError:
                self.give_up()
            else:
                again = self._graph.call_function(reads, (nodes, *numbers))
                self._graph.call_function(operator.eq, (again, read))  # a condition
        return read

    def operations(
        self, results: Sequence[Tensor | None]
    ) -> Callable[..., tuple[list[Tensor | None], list[bool]]] | None:
        """Return a function of a batch that makes what was noted; None if not all could be.

        Parameters
        ----------
        results
            What it is to return first; second, it returns whether each condition holds.
        """
        if not self._on:
            return None
        try:
            made = [self._new(result) for result in results]
        except _NotedError:
            return None
        finally:
            self._kept.clear()
        leave_out_implied(self._graph)
        self._graph.output((made, self._graph.find_nodes(op="call_function", target=operator.eq)))
        share(self._graph, self._pure)
        make_in_place(self._graph)
        self._graph.eliminate_dead_code(self._does_more)
        code = self._graph.python_code("self")
        names = dict(code.globals)
        exec(code.src, names)
        operations: Operations = partial(names["forward"], SimpleNamespace(**self._constants))
        return operations

    def _note(self, operation: OpOverload, given: tuple[Any, ...], options: dict[str, Any], value: Any) -> None:
        self._count += 1
        values = value if isinstance(value, (list, tuple)) else [value]
        if self._count > _MOST_OPERATIONS or not all(each is None or isinstance(each, Tensor) for each in values):
            raise _NotedError
        kind = _kind(operation)
        if kind.of_the_numbers:
            raise _NotedError
        self._kept.append(values)
        if operation in _MAKING:
            self._places.add(_place(values[0]))  # which serves the next batch again
            self._bytes += values[0].untyped_storage().nbytes()
            return
        filled = options.get("out", given[0] if operation in _FILLING else None)
        if filled is not None and filled.numel() * filled.element_size() == filled.untyped_storage().nbytes():
            self._places.add(_place(filled))
        viewed = given[0] if kind.view else None
        if isinstance(viewed, Tensor) and id(viewed) not in self._nodes and self._stays(viewed):
            return  # a view of what stays, stays
        if isinstance(value, Tensor) and id(value) not in self._nodes and not self._stays(value):
            same = self._views.get(_view(value))
            if same is not None:  # a view that shows nothing else than one before
                self._name(value, same)
                return
        node = self._graph.create_node(*kind.call, self._named(given), self._named(options))
        if kind.written:
            node.meta["written"] = kind.values_written(node)
        else:
            self._pure.add(node)
        node.meta["spreading"] = spreading(operation, node.args, node.kwargs)
        for place, each in enumerate(values):
            if each is None or id(each) in self._nodes or self._stays(each):
                continue  # nothing, or what was written to
            own = node if each is value else self._graph.call_function(operator.getitem, (node, place))
            self._name(each, own)
            self._pure.add(own)
            if not kind.view:
                self._made.add(_place(each))
                self._bytes += each.untyped_storage().nbytes()
        if "span" not in node.meta and isinstance(value, Tensor):  # what was written to
            node.meta["span"] = self._node(value).meta["span"]
        if self._bytes > _MOST_BYTES:
            raise _NotedError

    def _does_more(self, node: fx.Node) -> bool:
        """Tell whether a node does anything but return a value."""
        return node.op != "get_attr" and (node not in self._pure or "written" in node.meta)

    def _named(self, values: Any) -> Any:
        return map_aggregate(values, lambda each: self._node(each) if isinstance(each, Tensor) else each)

    def _node(self, tensor: Tensor) -> fx.Node:
        node = self._nodes.get(id(tensor))
        if node is None:
            if not self._stays(tensor):
                raise _NotedError
            node = self._views.get(_view(tensor)) or self._known(tensor)
            self._name(tensor, node)
        return node

    def _known(self, tensor: Tensor) -> fx.Node:
        name = f"known_{len(self._constants)}"
        self._constants[name] = tensor.detach()
        with self._graph.inserting_before(None):  # at the beginning
            return self._graph.get_attr(name)

    def _new(self, result: Tensor | None) -> fx.Node | None:
        """Return the node of a result, of which another batch overwrites nothing."""
        if result is None:
            return None
        node = self._node(result)
        return self._graph.call_method("clone", (node,)) if self._stays(result) else node

    def _name(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta |= {"span": Span.of(tensor), "like": (tensor.shape, tensor.stride(), tensor.dtype)}
        self._nodes[id(tensor)] = node
        self._views.setdefault(_view(tensor), node)
        self._kept.append(tensor)

    def _stays(self, tensor: Tensor) -> bool:
        place = _place(tensor)
        return place in self._places and place not in self._made

    def give_up(self) -> None:
        """Note nothing any more: there will be no operations."""
        self._on = False
        self._kept.clear()


def _place(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:  # it lies in several places
        raise _NotedError
    return tensor.untyped_storage().data_ptr()


def _view(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

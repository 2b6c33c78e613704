"""Notes of the operations of PyTorch that a computation comes down to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from neurodyn.layers.finite import leave_out_implied, spreading
from neurodyn.layers.program import Operations, Program, Value, replaced, values_in
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


class _NotedError(Exception):
    """Something cannot be noted."""


@dataclass(frozen=True)
class _Kind:
    """What an operation is, whatever it is given."""

    view: bool
    """Whether it returns a view of its first argument."""
    of_the_numbers: bool
    call: Callable[..., Any] | str
    """PyTorch's own function or method of the name where there is one, which is called in half the time."""
    written: tuple[tuple[int, str], ...]
    """The places and names of the arguments to which it writes."""


@cache
def _kind(operation: OpOverload) -> _Kind:
    schema = operation._schema
    call: Callable[..., Any] | str = operation
    name = schema.name.removeprefix("aten::")
    if operation.namespace == "aten" and hasattr(torch, name):
        call = getattr(torch, name)
    elif operation.namespace == "aten" and hasattr(Tensor, name):
        call = name
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
        self._program = Program(len(batch))
        self._values: dict[int, Value] = {}
        """By the `id` of their tensors."""
        self._views: dict[tuple[object, ...], Value] = {}
        """By where their tensors lie in memory, and how."""
        self._kept: list[object] = []  # so that no other tensor comes to stand where one did
        self._places = {_place(tensor) for tensor in known}
        self._made = {_place(tensor) for tensor in batch}
        """Where tensors lie that are others for every batch."""
        self._bytes = self._count = 0
        self._on = True
        for tensor, value in zip(batch, self._program.batch, strict=True):
            self._name(tensor, value)

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
                values = [self._value(tensor) for tensor in tensors]
            except _NotedError:
                self.give_up()
            else:
                self._program.conditions.append((self._program.make(reads, (values, *numbers)), read))
        return read

    def operations(self, results: Sequence[Tensor | None]) -> Operations | None:
        """Return a function of a batch that makes what was noted; None if not all could be.

        Parameters
        ----------
        results
            What it is to return first; second, it returns whether each condition holds.
        """
        if not self._on:
            return None
        program = self._program
        try:
            program.results = [None if result is None else self._new(result) for result in results]
        except _NotedError:
            return None
        finally:
            self._kept.clear()
        for simplify in (leave_out_implied, share, make_in_place, Program.drop_unused):
            simplify(program)
        return program.function()

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
        if isinstance(viewed, Tensor) and id(viewed) not in self._values and self._stays(viewed):
            return  # a view of what stays, stays
        if isinstance(value, Tensor) and id(value) not in self._values and not self._stays(value):
            same = self._views.get(_view(value))
            if same is not None:  # a view that shows nothing else than one before
                self._name(value, same)
                return
        noted = self._program.make(kind.call, self._named(given), self._named(options))
        noted.written = [
            each
            for place, name in kind.written
            for each in values_in(noted.given[place] if place < len(noted.given) else noted.options.get(name))
        ]
        noted.spreading = spreading(operation, noted.given, noted.options)
        for place, each in enumerate(values):
            if each is None or id(each) in self._values or self._stays(each):
                continue  # nothing, or what was written to
            self._name(each, noted if each is value else self._program.make(operator.getitem, (noted, place)))
            if not kind.view:
                self._made.add(_place(each))
                self._bytes += each.untyped_storage().nbytes()
        if noted.span is None and isinstance(value, Tensor):  # what was written to
            noted.span = self._value(value).span
        if self._bytes > _MOST_BYTES:
            raise _NotedError

    def _named(self, arguments: Any) -> Any:
        return replaced(arguments, lambda each: self._value(each) if isinstance(each, Tensor) else each)

    def _value(self, tensor: Tensor) -> Value:
        value = self._values.get(id(tensor))
        if value is None:
            if not self._stays(tensor):
                raise _NotedError
            value = self._views.get(_view(tensor))
            if value is None:
                value = Value()
                self._program.known[value] = tensor.detach()
            self._name(tensor, value)
        return value

    def _new(self, result: Tensor) -> Value:
        """Return the value of a result, of which another batch overwrites nothing."""
        value = self._value(result)
        return self._program.make("clone", (value,)) if self._stays(result) else value

    def _name(self, tensor: Tensor, value: Value) -> None:
        value.span, value.form = Span.of(tensor), (tensor.shape, tensor.stride(), tensor.dtype)
        self._values[id(tensor)] = value
        self._views.setdefault(_view(tensor), value)
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

"""Alikeness: whether two declarations are the same but for what stacking keeps apart, proved value by value.

Alike are equal numbers and text, containers and dataclasses of what is alike, modules of one class whose parameters and
buffers have the same shapes and whose other attributes are alike, and the very same object. A function, or an object of
a class that is no dataclass and defines no equality, is alike only itself.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from neurodyn.errors import InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.stages import Stage

_VALUES = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, set, frozenset, type),
    *(enum.Enum, np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format),
)
_STATE = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Difference(InvalidValueError):
    """What keeps two declarations from being stacked."""


class Comparison:
    """A declaration, the first, beside another; what is one thing in the one has to be one thing in the other.

    Parameters
    ----------
    learning
        Whether parameters have to agree in whether they learn.
    """

    def __init__(self, *, learning: bool) -> None:
        self._learning = learning
        self._others: dict[int, tuple[Any, Any]] = {}
        self._firsts: dict[int, Any] = {}
        self._where: list[str] = []

    def stages(self, one: Sequence[Stage], other: Sequence[Stage]) -> None:
        """Refuse stages that are not alike; their parameters and buffers may differ."""
        self.equal("the number of stages", len(one), len(other))
        for own, its in zip(one, other, strict=True):
            self.pair(f"stage {own.name}", own, its)

    def pair(self, what: str, one: Any, other: Any) -> None:
        """Refuse stages, modules, feedback weights or tensors that are not alike but for parameters and buffers."""
        known, first = self._others.get(id(one)), self._firsts.get(id(other))
        if known is not None or first is not None:  # compared once
            if known is None or known[1] is not other:
                self._refuse(f"{what} is shared with another part here or in the first, and not in both")
            return
        self._others[id(one)], self._firsts[id(other)] = (one, other), one
        if isinstance(one, Tensor):
            self._tensors(what, one, other)
            return
        self.equal(f"the class of {what}", _class(one), _class(other))
        self._where.append(what)
        if isinstance(one, fx.GraphModule):
            self._graphs(one, other)
        else:
            self._attributes(one, other)
        if isinstance(one, nn.Module):
            self._parts(one, other)
        elif isinstance(one, FeedbackWeights):
            self._tensors_by_name("ψ", one.tensors, other.tensors)
        else:
            self.equal("the number of layers", len(one.layers), len(other.layers))
            for own, its in zip(one.layers, other.layers, strict=True):
                self.pair(type(own).__name__, own, its)
        self._where.pop()

    def equal(self, what: str, one: object, other: object) -> None:
        """Refuse values that are not equal."""
        if not (one == other or (one != one and other != other)):
            self._refuse(f"{what} is {_short(other)}, and {_short(one)} in the first")

    def compare(self, what: str, one: Any, other: Any) -> None:
        """Refuse anything that is not alike, by a `Difference`."""
        if id(one) in self._others or isinstance(one, (nn.Module, Stage, FeedbackWeights)):
            if id(one) not in self._others and one is not other and _weights(one):
                self._refuse(f"{what} has weights, and is in no stage of the network")
            self.pair(what, one, other)
        elif one is other:
            return
        elif type(one) is not type(other):
            self.equal(f"the class of {what}", type(one), type(other))
        elif isinstance(one, _VALUES):
            self.equal(what, one, other)
        elif isinstance(one, (Tensor, np.ndarray)):
            self.equal(f"the kind of {what}", _kind(one), _kind(other))
            if not (torch.equal(one, other) if isinstance(one, Tensor) else np.array_equal(one, other)):
                self._refuse(f"{what} has other values than in the first, and is no parameter or buffer; make it one")
        elif isinstance(one, Mapping):
            self.equal(f"the keys of {what}", [*map(str, one)], [*map(str, other)])
            for (key, own), its in zip(one.items(), other.values(), strict=True):
                self.compare(f"{what}[{key!r}]", own, its)
        elif isinstance(one, Sequence):
            self.equal(f"the length of {what}", len(one), len(other))
            for place, (own, its) in enumerate(zip(one, other, strict=True)):
                self.compare(f"{what}[{place}]", own, its)
        else:
            self._objects(what, one, other)

    def _objects(self, what: str, one: Any, other: Any) -> None:
        parts = {partial: ("func", "args", "keywords"), types.MethodType: ("__func__", "__self__")}.get(type(one))
        if is_dataclass(one) and _has_equality(one):
            numbers: Sequence[str] = getattr(type(one), "stacked_numbers", ())
            for name in numbers:
                if not all(isinstance(getattr(each, name), Real) for each in (one, other)):
                    self._refuse(f"{name} of {what} is no number")
            aside = {*numbers, *(field.name for field in fields(one) if not field.compare)}
            names = dict.fromkeys([*(field.name for field in fields(one)), *getattr(one, "__dict__", ())])
            parts = tuple(name for name in names if name not in aside)
        if parts is not None:
            for name in parts:
                self.compare(f"{name} of {what}", getattr(one, name), getattr(other, name))
        elif isinstance(one, (types.FunctionType, types.BuiltinFunctionType)):
            self._refuse(f"{what} is another function than in the first; give both the same, or a dataclass to call")
        elif _has_equality(one):
            if (one == other) is not True:
                self._refuse(f"{what} is {_short(other)}, and {_short(one)} in the first")
        elif not (_stateless(one) and _stateless(other)):
            self._refuse(
                f"{what} is a {type(one).__qualname__}, a class that is no dataclass and defines no equality, so that "
                "nothing tells whether it is that of the first; make it a frozen dataclass, or give both the same one"
            )

    def _attributes(self, one: Any, other: Any) -> None:
        own, its = (
            {name: value for name, value in vars(each).items() if not _aside(each, name)} for each in (one, other)
        )
        self.equal("the list of its attributes", sorted(own), sorted(its))
        for name, value in own.items():
            self.compare(name, value, its[name])

    def _parts(self, one: nn.Module, other: nn.Module) -> None:
        if any(getattr(each, name) for each in (one, other) for name in _HOOKS):
            self._refuse("it has a hook, which would not be called for each where networks are stacked; remove it")
        self._tensors_by_name("parameter", one._parameters, other._parameters)
        self._tensors_by_name("buffer", one._buffers, other._buffers)
        self.equal("the list of its parts", [*one._modules], [*other._modules])
        for name, part in one._modules.items():
            if part is not None:
                self.pair(name, part, other._modules[name])

    def _tensors_by_name(self, what: str, one: Mapping[Any, Tensor | None], other: Mapping[Any, Tensor | None]) -> None:
        there = [[name for name, tensor in each.items() if tensor is not None] for each in (one, other)]
        self.equal(f"the names of each {what}", *there)
        for name in there[0]:
            self.pair(f"{what} {name}", one[name], other[name])

    def _tensors(self, what: str, one: Tensor, other: Tensor) -> None:
        self.equal(f"the kind of {what}", _kind(one), _kind(other))
        if not self._learning:
            return
        if one.requires_grad != other.requires_grad:
            learns = "is frozen, and learns" if one.requires_grad else "learns, and is frozen"
            self._refuse(f"{what} {learns} in the first")
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if getattr(one, name, None) or getattr(other, name, None):
                self._refuse(f"{what} has a hook on its gradient, which is not called where networks are stacked")

    def _graphs(self, one: fx.GraphModule, other: fx.GraphModule) -> None:
        self.equal("training", one.training, other.training)
        own, its = (list(each.graph.nodes) for each in (one, other))
        self.equal("the number of its operations", len(own), len(its))
        places = [{node: place for place, node in enumerate(nodes)} for nodes in (own, its)]
        for mine, yours in zip(own, its, strict=True):
            self.compare(f"operation {mine.name}", (mine.op, mine.target), (yours.op, yours.target))
            arguments = (
                fx.node.map_arg((node.args, dict(node.kwargs)), at.__getitem__)
                for node, at in zip((mine, yours), places, strict=True)
            )
            self.compare(f"what operation {mine.name} reads", *arguments)

    def _refuse(self, what: str) -> NoReturn:
        raise Difference(": ".join([*self._where, what]))


def _aside(one: object, name: str) -> bool:
    """Tell whether an attribute is compared elsewhere, or tells nothing."""
    if isinstance(one, nn.Module):
        # Hooks are kept under numbers that no two modules share.
        return name in _STATE or name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
    known = isinstance(getattr(type(one), name, None), cached_property)
    return known or name in (
        ("layers", "origin", "_modes", "_output_shapes") if isinstance(one, Stage) else ("tensors",)
    )


def _class(one: object) -> tuple[object, ...]:
    """Return an object's class, or what it was made from where each object has one of its own."""
    own = isinstance(one, fx.GraphModule) or (isinstance(one, nn.Module) and parametrize.is_parametrized(one))
    return type(one).__bases__ if own else (type(one),)


def _kind(array: Tensor | np.ndarray) -> tuple[object, ...]:
    return tuple(array.shape), array.dtype, getattr(array, "device", None)


def _weights(one: object) -> bool:
    if isinstance(one, Stage):
        return any(_weights(layer) for layer in one.layers)
    return isinstance(one, FeedbackWeights) or (isinstance(one, nn.Module) and bool(one.state_dict()))


def _has_equality(one: object) -> bool:
    equality: object = type(one).__eq__
    return equality is not object.__eq__


def _stateless(one: object) -> bool:
    """Tell whether an object holds nothing, so that it is its class alone."""
    try:
        return object.__reduce_ex__(one, 4)[2] is None
    except TypeError:  # a class that is not written in Python
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"

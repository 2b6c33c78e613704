"""Programs: values that are made one after the other, written out as a function of Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from neurodyn.layers.spans import Span

Operations: TypeAlias = "Callable[..., tuple[list[Tensor | None], list[bool]]]"
"""A function of the tensors of a batch that returns results, and whether each condition holds."""


@dataclass(eq=False)
class Value:
    """A value that a program is given, or makes by a call."""

    call: Callable[..., Any] | str | None = None
    """The function that makes it, or the method of the first argument; None if it is given."""
    given: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """The arguments, other values among them."""
    span: Span | None = None
    """Where it lies, if it is one tensor. No two that are made lie at the same place."""
    form: tuple[object, ...] | None = None
    """Its shape, strides and dtype, if it is one tensor."""
    written: list[Value] = field(default_factory=list)
    """The values to which the call writes."""
    spreading: list[Value] = field(default_factory=list)
    """The arguments that are finite if the value is."""

    @property
    def arguments(self) -> Iterator[Value]:
        """The values among the arguments."""
        return values_in((*self.given, *self.options.values()))


class Program:
    """What makes results of a batch.

    Parameters
    ----------
    batch
        How many tensors a batch has.
    """

    def __init__(self, batch: int) -> None:
        self.batch = [Value() for _ in range(batch)]
        self.known: dict[Value, Tensor] = {}
        """The values that are where they are, for every batch."""
        self.made: list[Value] = []
        """The values that are made, one after the other."""
        self.conditions: list[tuple[Value, bool]] = []
        """What is asked for every batch, with the answer for which the program holds."""
        self.results: list[Value | None] = []

    def make(self, *what: Any) -> Value:
        """Add a call, its arguments and its options, and return what it makes."""
        self.made.append(Value(*what))
        return self.made[-1]

    @property
    def written(self) -> Iterator[Value]:
        """What is written to, each time that it is."""
        return (each for value in self.made for each in value.written)

    def drop_unused(self) -> None:
        """Leave out calls of which nothing depends on the value, and that write to nothing."""
        used = {value for value in self.results if value is not None} | {asked for asked, _ in self.conditions}
        for value in reversed(self.made):
            if value in used or value.written:
                used.update((value, *value.arguments))
        self.made = [value for value in self.made if value in used]

    def function(self) -> Operations:
        """Write it out as a function of the tensors of a batch."""
        objects: dict[str, Any] = {}
        names: dict[int, str] = {}

        def named(thing: object) -> str:
            """Return the name of something that is the same for every batch."""
            name = names.setdefault(id(thing), f"known_{len(names)}")
            objects[name] = thing
            return name

        texts = {value: f"batch_{place}" for place, value in enumerate(self.batch)}
        texts |= {value: named(tensor) for value, tensor in self.known.items()}
        texts |= {value: f"made_{place}" for place, value in enumerate(self.made)}

        def text(argument: Any) -> str:
            if isinstance(argument, Value):
                return texts[argument]
            if isinstance(argument, (list, tuple)):
                return f"[{', '.join(map(text, argument))}]"
            return repr(argument) if type(argument) in (type(None), bool, int) else named(argument)

        returned = {*self.results, *(asked for asked, _ in self.conditions)}
        last = {argument: value for value in self.made for argument in value.arguments}
        lines = [f"def program({', '.join(texts[value] for value in self.batch)}):"]
        for value in self.made:
            given = list(map(text, value.given))
            call = f"{given.pop(0)}.{value.call}" if isinstance(value.call, str) else named(value.call)
            given += [f"{name}={text(argument)}" for name, argument in value.options.items()]
            result = f"{texts[value]} = " if value in last or value in returned else ""
            lines.append(f" {result}{call}({', '.join(given)})")
            over = {each for each in value.arguments if each.call is not None and last[each] is value} - returned
            lines += [f" del {texts[each]}" for each in over]
        results = ", ".join("None" if value is None else texts[value] for value in self.results)
        conditions = ", ".join(f"{texts[asked]} == {answer}" for asked, answer in self.conditions)
        exec("\n".join([*lines, f" return [{results}], [{conditions}]"]), objects)
        program: Operations = objects["program"]
        return program


def values_in(argument: Any) -> Iterator[Value]:
    """Return the values in an argument, however deep in lists."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for each in argument:
            yield from values_in(each)


def spans(values: Iterable[Value]) -> Iterator[Span]:
    """Return where values lie, those that are one tensor."""
    return (value.span for value in values if value.span is not None)


def replaced(arguments: Any, by: Callable[[Any], Any]) -> Any:
    """Return arguments with each in them, however deep in lists, replaced."""
    if isinstance(arguments, list):
        return [replaced(argument, by) for argument in arguments]
    if isinstance(arguments, tuple):
        return tuple(replaced(argument, by) for argument in arguments)
    if isinstance(arguments, dict):
        return {name: replaced(argument, by) for name, argument in arguments.items()}
    return by(arguments)

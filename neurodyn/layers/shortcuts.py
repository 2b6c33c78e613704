"""What a program need not make: what was made before, and copies of what could have been made in place."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch

from neurodyn.layers.program import Program, Value, replaced, spans
from neurodyn.layers.spans import Span

_aten = torch.ops.aten
_INTO: dict[Any, tuple[Callable[..., Any], str]] = {
    **{function: (function, "out") for function in (torch.add, torch.addmm, torch.mm, torch.mul, torch.sub)},
    _aten.sigmoid_backward.default: (_aten.sigmoid_backward.grad_input, "grad_input"),
    _aten.tanh_backward.default: (_aten.tanh_backward.grad_input, "grad_input"),
    _aten.threshold_backward.default: (_aten.threshold_backward.grad_input, "grad_input"),
}
"""Functions, with those that write the same to memory that is given under a name."""


def share(program: Program) -> None:
    """Make once what is made of the same values several times."""
    returned = [value for value in program.results if value is not None]
    apart = {span.storage for span in spans((*program.written, *returned))}
    """Where what is written to lies, and what is returned: nothing may come to share its memory."""
    writes: defaultdict[int, dict[Span, int]] = defaultdict(dict)
    """By storage, what was written to, and when last."""
    same: dict[object, Value] = {}
    first: dict[object, Value] = {}

    def state(argument: Any) -> object:
        if isinstance(argument, (list, tuple)):
            return tuple(map(state, argument))
        if not isinstance(argument, Value):
            return repr(argument)  # in which 0.0 is not -0.0
        (span,) = spans([argument])
        return argument, max((when for place, when in writes[span.storage].items() if place.meets(span)), default=-1)

    for time, value in enumerate(program.made):
        value.given, value.options = (replaced(each, lambda v: same.get(v, v)) for each in (value.given, value.options))
        if value.span is not None and value.span.storage not in apart and all(each.span for each in value.arguments):
            known = first.setdefault((value.call, state(value.given), state([*value.options.items()])), value)
            if known is not value:
                same[value] = known
        for span in spans(value.written):
            writes[span.storage][span] = time
    program.made = [value for value in program.made if value not in same]


def make_in_place(program: Program) -> None:
    """Make what is copied right afterwards, and nothing else reads, at the place to which it is copied."""
    readers = Counter(argument for value in program.made for argument in value.arguments)
    readers.update(value for value in program.results if value is not None)
    copied: set[Value] = set()
    for value, copy in itertools.pairwise(program.made):
        if copy.call != "copy_" or copy.given[1:] != (value,) or readers[value] > 1 or value.call not in _INTO:
            continue
        place = copy.given[0]
        storages = [span.storage for span in spans((place, *value.arguments))]
        if "out" in value.options or place.form != value.form or storages[0] in storages[1:]:
            continue
        value.call, name = _INTO[value.call]
        value.options = {**value.options, name: place}
        value.written = [place]
        copied.add(copy)
    program.made = [value for value in program.made if value not in copied]

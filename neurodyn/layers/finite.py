"""Finiteness: told by sums, and where that of some tensors follows from that of others."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from neurodyn.layers.program import Program, Value, spans
from neurodyn.layers.spans import Span

_SPREADING = {
    **dict.fromkeys(("add", "add_", "sub", "mul", "mul_", "mm", "bmm", "tanh_backward", "sigmoid_backward"), (0, 1)),
    **dict.fromkeys(("addmm", "addmm_", "baddbmm", "baddbmm_"), (0, 1, 2)),
    **dict.fromkeys(("sum", "clone"), (0,)),
    "copy_": (1,),
}
"""Operations, and the places of arguments of which each number that is not finite makes one of the result so, too.

As ∞ − ∞ and 0 · ∞ are no numbers, sums and products do; a function that levels off does not, as tanh ∞ = 1.
"""


def told_by_sums(tensors: Sequence[Tensor]) -> bool:
    """Tell whether the sum of each tensor is finite: if so, all in it is, and if not, the sum may have overflowed."""
    sums = list(map(Tensor.sum, tensors))
    if sums and not sums[0].is_cpu:
        return bool(torch.stack(sums).isfinite().all())  # waits for a device once
    return all(map(math.isfinite, map(Tensor.item, sums)))


def spreading(operation: OpOverload, given: Sequence[Any], options: Mapping[str, Any]) -> list[Value]:
    """Return the arguments of an operation that are finite if its result is."""
    places = _SPREADING.get(operation._schema.name.removeprefix("aten::"), ())
    if options.get("beta") == 0:  # a factor of 0 stands for leaving out
        places, options = places[1:], {**options, "beta": 1}
    if 0 in [each for each in (*given, *options.values()) if isinstance(each, (int, float))]:
        return []
    values = [given[place] for place in places if place < len(given) and isinstance(given[place], Value)]
    # Beside an empty one the result is empty, too, and tells nothing.
    return values if all(span.size for span in spans(values)) else []


def leave_out_implied(program: Program) -> None:
    """Leave tensors out of what `told_by_sums` looks at, if they are finite where others are."""
    finite: defaultdict[int, list[Span]] = defaultdict(list)
    """What is finite once the call at hand is made, by the storage."""
    unknown: dict[tuple[Value, Value], list[Span]] = {}
    """For each look at what is not made, the parts that nothing has written to since, and that may not be finite."""

    def left(value: Value) -> list[Span]:
        assert value.span is not None, "it is one tensor"
        parts = [value.span] if value.span.size else []
        for known in finite[value.span.storage]:
            parts = [part for each in parts for part in each.without(known)]
        return parts

    looks = [asked for asked, answer in program.conditions if asked.call is told_by_sums and answer]
    for value in reversed(program.made):
        follows: list[Value] = []
        if value in looks:
            value.given = ([each for each in value.given[0] if left(each)],)
            follows = [each for each in value.given[0] if each.call is not None]
            unknown |= {(value, each): left(each) for each in value.given[0] if each.call is None}
        elif value.spreading and not left(value):
            follows = value.spreading
        for span in spans(value.written):
            finite[span.storage] = [known for known in finite[span.storage] if not known.meets(span)]
            unknown = {look: parts for look, parts in unknown.items() if not any(p.meets(span) for p in parts)}
        for span in spans(follows):
            if span.dense:
                finite[span.storage].append(span)
                unknown = {look: [p for each in parts for p in each.without(span)] for look, parts in unknown.items()}
        for (look, each), parts in list(unknown.items()):
            if not parts:
                _leave_out(look, each)
                del unknown[look, each]
    if unknown:
        _look_at_less(program, looks[-1], list(unknown))
    program.conditions = [(asked, answer) for asked, answer in program.conditions if asked.given[0]]


def _look_at_less(program: Program, last: Value, looked_at: Collection[tuple[Value, Value]]) -> None:
    """Look, at last, at what is made of tensors that nothing writes to, where it is smaller: at W x instead of at W."""
    written = {span.storage for span in spans(program.written)}
    for value in itertools.takewhile(lambda value: value is not last, program.made):
        told = {span for span in spans(value.spreading) if span.dense}
        implied = [(look, each) for look, each in looked_at if each in look.given[0] and each.span in told]
        within = list(spans(each for _, each in implied))
        if not implied or value.span is None or value.span.size > max(span.size for span in within):
            continue
        if written.isdisjoint(span.storage for span in (value.span, *within)):
            for look, each in implied:
                _leave_out(look, each)
            last.given = ([*last.given[0], value],)


def _leave_out(look: Value, tensor: Value) -> None:
    look.given = ([each for each in look.given[0] if each is not tensor],)

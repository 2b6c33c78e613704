"""Finiteness: told by sums, and where that of some tensors follows from that of others."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

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


def spreading(operation: OpOverload, given: Sequence[Any], options: Mapping[str, Any]) -> list[fx.Node]:
    """Return the arguments of an operation whose finiteness follows from that of its result."""
    places = _SPREADING.get(operation._schema.name.removeprefix("aten::"), ())
    if options.get("beta") == 0:  # a factor of 0 stands for leaving out
        places, options = places[1:], {**options, "beta": 1}
    if 0 in [each for each in (*given, *options.values()) if isinstance(each, (int, float))]:
        return []
    return [given[place] for place in places if place < len(given) and isinstance(given[place], fx.Node)]


def leave_out_implied(graph: fx.Graph) -> None:
    """Leave tensors out of what `told_by_sums` looks at, if their finiteness follows from that of others.

    Parameters
    ----------
    graph
        Noted operations. The value of each lies at `meta["span"]`; `meta["spreading"]` are the operations whose
        finiteness follows from its own, and `meta["written"]` those to whose values it writes. No two that are made lie
        at the same place.
    """
    finite: defaultdict[int, list[Span]] = defaultdict(list)
    """What is finite once the operation at hand is done, by the storage."""
    unknown: dict[tuple[fx.Node, fx.Node], list[Span]] = {}
    """For each look at what lies in known memory, the parts that nobody has written to since, and that may be bad."""

    def left(node: fx.Node) -> list[Span]:
        span: Span = node.meta["span"]
        parts = [span] if span.start < span.end else []
        for known in finite[span.storage]:
            parts = [part for each in parts for part in each.without(known)]
        return parts

    looks = graph.find_nodes(op="call_function", target=told_by_sums)
    looks = [look for look in looks if all(condition.args[1] for condition in look.users)]
    for node in reversed(graph.nodes):
        follows: list[fx.Node] = []
        if node in looks:
            looked_at = [each for each in _tensors(node) if left(each)]
            node.args = (looked_at,)
            follows = [each for each in looked_at if each.op.startswith("call")]
            unknown |= {(node, each): left(each) for each in looked_at if each not in follows}
        elif node.meta.get("spreading") and not left(node):
            follows = node.meta["spreading"]
        for each in node.meta.get("written", ()):
            span = each.meta["span"]
            finite[span.storage] = [known for known in finite[span.storage] if not known.meets(span)]
            unknown = {look: parts for look, parts in unknown.items() if not any(p.meets(span) for p in parts)}
        for span in (each.meta["span"] for each in follows):
            if span.dense:
                finite[span.storage].append(span)
                unknown = {look: [p for each in parts for p in each.without(span)] for look, parts in unknown.items()}
        for (look, each), parts in list(unknown.items()):
            if not parts:
                _leave_out(look, each)
                del unknown[look, each]
    if unknown:
        _look_at_less(graph, looks[-1], list(unknown))
    for look in looks:
        if not look.args[0]:
            for condition in list(look.users):
                graph.erase_node(condition)
            graph.erase_node(look)


def _look_at_less(graph: fx.Graph, last: fx.Node, looked_at: Collection[tuple[fx.Node, fx.Node]]) -> None:
    """Look, at last, at what is made of tensors that nothing writes to, where it is smaller: at W x instead of at W."""
    written = {each.meta["span"].storage for node in graph.nodes for each in node.meta.get("written", ())}
    for node in itertools.takewhile(lambda node: node is not last, graph.nodes):
        told = {each.meta["span"] for each in node.meta.get("spreading", ()) if each.meta["span"].dense}
        implied = [(look, each) for look, each in looked_at if each in _tensors(look) and each.meta["span"] in told]
        if not implied or node.meta["span"].size > max(each.meta["span"].size for _, each in implied):
            continue
        if written.isdisjoint(each.meta["span"].storage for each in (node, *(each for _, each in implied))):
            for look, each in implied:
                _leave_out(look, each)
            last.args = ([*_tensors(last), node],)


def _leave_out(look: fx.Node, tensor: fx.Node) -> None:
    look.args = ([each for each in _tensors(look) if each is not tensor],)


def _tensors(look: fx.Node) -> list[fx.Node]:
    return cast(list[fx.Node], look.args[0])

"""Operations that noted ones need not make: those made before, and copies of what could have been made in place.

Each node of a graph tells by `meta["span"]` where its value lies, by `meta["like"]` in which form, and by
`meta["written"]` to the values of which nodes it writes. No two values that are made lie at the same place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx

from neurodyn.layers.spans import Span

_aten = torch.ops.aten
_INTO: dict[Any, tuple[Callable[..., Any], str]] = {
    **{function: (function, "out") for function in (torch.add, torch.addmm, torch.mm, torch.mul, torch.sub)},
    _aten.sigmoid_backward.default: (_aten.sigmoid_backward.grad_input, "grad_input"),
    _aten.tanh_backward.default: (_aten.tanh_backward.grad_input, "grad_input"),
    _aten.threshold_backward.default: (_aten.threshold_backward.grad_input, "grad_input"),
}
"""Functions, with those that write the same to memory that is given under a name."""


def share(graph: fx.Graph, pure: Collection[fx.Node]) -> None:
    """Make once what is made of the same values several times.

    Parameters
    ----------
    graph
        Noted operations.
    pure
        Those of its nodes that do nothing but return a value.
    """
    apart = {each.meta["span"].storage for node in graph.nodes for each in node.meta.get("written", ())}
    returned = graph.output_node().all_input_nodes
    apart |= {each.meta["span"].storage for each in returned if "span" in each.meta}
    """Where what is written to lies, and what is returned: nothing may come to share its memory."""
    written: defaultdict[int, dict[Span, int]] = defaultdict(dict)
    """By storage, what was written to, and when last."""
    made: dict[tuple[object, ...], fx.Node] = {}
    for time, node in enumerate(list(graph.nodes)):
        spans = [each.meta.get("span") for each in (node, *node.all_input_nodes)]
        if node in pure and None not in spans and spans[0].storage not in apart:
            state = tuple(
                max((at for w, at in written[s.storage].items() if w.meets(s)), default=-1) for s in spans[1:]
            )
            first = made.setdefault((node.target, str(node.args), str(node.kwargs), state), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)
        for each in node.meta.get("written", ()):
            span = each.meta["span"]
            written[span.storage][span] = time


def make_in_place(graph: fx.Graph) -> None:
    """Make what is copied right afterwards, and nothing else reads, at the place to which it is copied."""
    for copy in graph.find_nodes(op="call_method", target="copy_"):
        place, value = copy.args[:2]
        if copy.prev is not value or value.target not in _INTO or "out" in value.kwargs or len(value.users) > 1:
            continue
        storage = place.meta["span"].storage
        read = {each.meta["span"].storage for each in value.all_input_nodes}
        if place.meta["like"] != value.meta["like"] or storage in read:
            continue
        function, name = _INTO[value.target]
        value.target, value.kwargs = function, {**value.kwargs, name: place}
        value.meta["written"] = [place]
        graph.erase_node(copy)

"""The order in which instantaneous populations are evaluated, and the cycles among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurodyn.errors import InvalidValueError
from neurodyn.network.names import as_factor
from neurodyn.network.vectors import text_of

if TYPE_CHECKING:
    import networkx as nx

    from neurodyn.network.network import Network


Loops = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
"""Of each cycle, the names of those that are torn out of it, and of the others, in the order of evaluation."""


def instantaneous_order(network: Network) -> tuple[tuple[str, ...], Loops]:
    """Return the names of the instantaneous populations in the order of evaluation, and the cycles among them.

    Raises
    ------
    ValueError
        If there is a cycle, and the network does not say that it is to be solved for.
    """
    instantaneous = [p.name for p in network.populations if p.instantaneous]
    if not instantaneous:
        return (), ()
    import networkx as nx  # here, because it takes long to import

    graph = network.graph(instantaneous)
    try:
        cycle = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return tuple(nx.lexicographical_topological_sort(graph)), ()
    if network.algebraic == "solve":
        return loops_in_order(graph)
    path = " → ".join([cycle[0][0], *(edge[1] for edge in cycle)])
    by = dict.fromkeys(_dependence(network, read, reader) for read, reader, *_ in cycle)
    raise InvalidValueError(
        f"network {network.name!r}: the instantaneous populations {path} form a cycle, so that none can be evaluated "
        f"first; give one of them a time constant tau > 0, remove one of the couplings {', '.join(by)}, or say "
        "Network(algebraic='solve') to have them solved for"
    )


def _dependence(network: Network, read: str, reader: str) -> str:
    """Name the first coupling by which the equation of one population reads another."""
    coupling = next(c for c in network.into(reader) if read in c.reads)
    return f"{coupling} ({text_of(coupling.gain, '+g')} · {as_factor(coupling.text)})"


def loops_in_order(graph: nx.DiGraph[str]) -> tuple[tuple[str, ...], Loops]:
    """Return the nodes of a graph, its cycles in one piece each, in the order of what they depend on; and the cycles.

    Of each cycle, or several that hang together, come the nodes that have to be torn out for the others to be in order,
    and the others in that order.
    """
    import networkx as nx

    order: list[str] = []
    loops: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    groups = nx.condensation(graph)
    for group in nx.lexicographical_topological_sort(groups, key=lambda group: min(groups.nodes[group]["members"])):
        rest = nx.DiGraph(graph.subgraph(groups.nodes[group]["members"]))
        torn: list[str] = []
        while not nx.is_directed_acyclic_graph(rest):
            knots = {edge[0] for edge in nx.find_cycle(rest)}
            torn.append(max(sorted(knots), key=lambda name: rest.in_degree(name) * rest.out_degree(name)))
            rest.remove_node(torn[-1])
        others = tuple(nx.lexicographical_topological_sort(rest))
        order += [*torn, *others]
        if torn:
            loops.append((tuple(torn), others))
    return tuple(order), tuple(loops)

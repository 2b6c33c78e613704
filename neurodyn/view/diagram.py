"""The geometry of a network's picture: where its populations stand, and how its couplings run between them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from neurodyn.network.maps import Feedback, Inverse
from neurodyn.network.network import Network
from neurodyn.network.parts import Coupling

Points = NDArray[np.float64]
"""Points of the plane, shape (n, 2); the control points of a Bézier curve, or points on it."""

RADIUS = 0.3
"""The radius of a population's node, in the picture's unit of length."""
_COLUMN, _ROW = 1.2, 1.15
_CLEARANCE = 0.08
_BENDS = (0.0, 0.13, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)
_CURVE_POINTS = np.linspace(0.0, 1.0, 25)[:, None]


def place(network: Network) -> dict[str, Points]:
    """Return where each population stands, shape (2,).

    Columns run from left to right in the order of the forward pass; in a column, populations whose names differ from
    their neighbours' by the number alone keep to one row. Three and more that depend on each other stand in a circle.

    Parameters
    ----------
    network
        The network.
    """
    columns = _columns(network)
    rows = _rows([[] if _ring(column, len(columns)) else column for column in columns])
    middle = -_ROW * max(rows.values(), default=0) / 2
    places: dict[str, Points] = {}
    x = 0.0
    for column in columns:
        ring = _ring(column, len(columns))
        x += ring
        for number, name in enumerate(column):
            # Two start from the left, more from the top; clockwise.
            angle = math.pi / (1 if len(column) == 2 else 2) - 2 * math.pi * number / len(column)
            on_ring = (x + ring * math.cos(angle), middle + ring * math.sin(angle))
            places[name] = np.array(on_ring if ring else (x, -_ROW * rows[name]))
        x += ring + _COLUMN
    return places


def _columns(network: Network) -> list[list[str]]:
    """Sort the populations into columns: what depends on each other shares one, what follows stands to the right."""
    before: nx.DiGraph[str] = nx.DiGraph()
    before.add_nodes_from(p.name for p in network.populations)
    for coupling in network.couplings:
        for source in coupling.sources:
            clamp = network[source].clamp
            teaches = clamp is not None and clamp.reads_targets and not clamp.optional
            backward = teaches or isinstance(coupling.map, (Feedback, Inverse))
            before.add_edge(*((coupling.target, source) if backward else (source, coupling.target)))
    before.add_edges_from((rule.pre, rule.post) for rule in network.plasticity)
    groups = nx.condensation(before)
    level = {group: number for number, row in enumerate(nx.topological_generations(groups)) for group in row}
    for group in groups:
        # What nothing precedes stands right before what it enters, not at the far left.
        if not groups.in_degree(group) and groups.out_degree(group):
            level[group] = min(level[after] for after in groups.successors(group)) - 1
    columns: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for population in network.populations:
        columns[level[groups.graph["mapping"][population.name]]].append(population.name)
    return columns


def _ring(column: Sequence[str], columns: int) -> float:
    """Return the radius of the circle on which the populations of a column stand; 0 if they stand in a stack."""
    if len(column) > 2 or (len(column) == 2 and columns == 1):
        return _COLUMN / 2 / math.sin(math.pi / len(column))
    return 0.0


def _rows(stacks: Sequence[Sequence[str]]) -> dict[str, int]:
    rows: dict[str, int] = {}
    of_stem: dict[str, int] = {}
    for stack in stacks:
        for name in stack:
            stem = re.sub(r"\d+$", "", name)
            taken = {rows[other] for other in stack if other in rows}
            free = min(set(range(len(stack) + 1)) - taken)
            rows[name] = free if of_stem.get(stem, free) in taken else of_stem.get(stem, free)
            of_stem.setdefault(stem, rows[name])
    return rows


def links(network: Network) -> list[tuple[str, Coupling]]:
    """Return the arrows of a network: each source of each coupling, with the coupling."""
    return [(source, coupling) for coupling in network.couplings for source in coupling.sources]


def route(network: Network, places: dict[str, Points]) -> list[Points]:
    """Return the curve of each of the network's `links`, from centre to centre.

    Curves keep clear of the other nodes; two that connect the same pair run side by side.

    Parameters
    ----------
    network
        The network.
    places
        Where its populations stand.

    Returns
    -------
    list of array
        The control points of a Bézier curve: three of an arc, four of a loop, which starts and ends at the node's rim.
    """
    arrows = links(network)
    shared = Counter(frozenset((source, c.target)) for source, c in arrows)
    curves: dict[int, Points] = {}
    loops: dict[str, list[Points]] = {name: [] for name in places}
    for number, (a, coupling) in enumerate(arrows):
        if coupling.target == a:
            arcs = [_arc(places[a], places[b], 0.0) for b in places if b != a and shared[frozenset((a, b))]]
            curves[number] = _loop(places[a], [*arcs, *loops[a]])
            loops[a].append(curves[number])
    taken: set[tuple[str, str, float]] = set()
    for number, (a, coupling) in enumerate(arrows):
        b = coupling.target
        if a == b:
            continue
        others = [name for name in places if name not in (a, b)]
        nodes = np.array([places[name] for name in others]).reshape(-1, 2)
        lines = np.concatenate([np.empty((0, 2)), *(points_of(loop) for name in others for loop in loops[name])])
        sizes = _BENDS if shared[frozenset((a, b))] == 1 else _BENDS[1:]
        bends = [bend for size in sizes for bend in (size, -size)]
        arcs = [_arc(places[a], places[b], bend) for bend in bends]
        clear = [_clearance(arc, nodes, lines) for arc in arcs]
        crossings = [_crossings(arc, list(curves.values())) for arc in arcs]
        # Of the free arcs that are as clear of the nodes as need be, the straightest, and of its two sides the emptier.
        _, _, _, _, bend = min(
            (_lane(a, b, bend) in taken, -room, abs(bend), crossed, bend)
            for bend, room, crossed in zip(bends, clear, crossings, strict=True)
        )
        taken.add(_lane(a, b, bend))
        curves[number] = _arc(places[a], places[b], bend)
    return [curves[number] for number in range(len(arrows))]


def _arc(start: Points, end: Points, bend: float) -> Points:
    dx, dy = end - start
    return np.array([start, (start + end) / 2 + bend * np.array([dy, -dx]), end])


def _lane(a: str, b: str, bend: float) -> tuple[str, str, float]:
    """Name the way that an arc takes between two nodes, the same in both directions."""
    return (a, b, bend) if a < b else (b, a, -bend)


def _loop(node: Points, curves: Sequence[Points]) -> Points:
    """Return a loop from a node to itself, in the widest gap between the curves that meet there."""
    up = math.pi / 2
    if curves:
        around = np.concatenate([points_of(curve) for curve in curves]) - node
        around = around[np.linalg.norm(around, axis=1) > 1e-9]
        angles = np.sort(np.arctan2(around[:, 1], around[:, 0]))
        gaps = np.diff(np.append(angles, angles[0] + 2 * math.pi))
        widest = int(np.argmax(gaps.round(6)))
        up = float(angles[widest] + gaps[widest] / 2)
    lengths = RADIUS * np.array([1.1, 2.9, 2.9, 1.1])
    angles = up + np.array([-0.5, -0.6, 0.6, 0.5])
    loop: Points = node + np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)
    return loop


def points_of(curve: Points) -> Points:
    """Return points along a Bézier curve, given its control points."""
    s, degree = _CURVE_POINTS, len(curve) - 1
    weights = np.hstack([math.comb(degree, k) * (1 - s) ** (degree - k) * s**k for k in range(degree + 1)])
    points: Points = weights @ curve
    return points


def _clearance(curve: Points, nodes: Points, lines: Points) -> float:
    """Return how far a curve stays from nodes' rims and from points of lines, capped at what is enough."""
    obstacles, radii = np.concatenate([nodes, lines]), np.repeat([RADIUS, 0.0], [len(nodes), len(lines)])
    gaps = np.linalg.norm(points_of(curve)[:, None] - obstacles, axis=-1) - radii
    return float(gaps.min(initial=_CLEARANCE))


def _crossings(curve: Points, others: Sequence[Points]) -> int:
    """Return how many of some curves a curve crosses."""
    if not others:
        return 0
    p = points_of(curve)[:, None]
    q = np.stack([points_of(other) for other in others])[:, None]

    def side(a: Points, b: Points, c: Points) -> Points:
        u, v = b - a, c - a
        turn: Points = np.sign((u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]).round(9))
        return turn

    # By the other curve, the part of one, and the point of the other of them.
    of_q, of_p = side(p[:-1], p[1:], q), side(q[..., :-1, :], q[..., 1:, :], p)
    crossed = (of_q[..., :-1] * of_q[..., 1:] < 0) & (of_p[:, :-1] * of_p[:, 1:] < 0)
    return int(crossed.any((1, 2)).sum())

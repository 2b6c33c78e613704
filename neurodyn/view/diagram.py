"""The geometry of a network's picture: where its populations stand, and how its arrows run between them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from neurodyn.network.sketch import Node, Sketch

Points = NDArray[np.float64]
"""Points of the plane, shape (n, 2); the control points of a Bézier curve, or points on it."""

RADIUS = 0.3
"""The radius of a population's node, in the picture's unit of length."""
COLUMNS = 12
"""Columns that stand beside each other without need; more go on below, from right to left, and so on."""
_MOST_COLUMNS = 16
"""The most that do where breaking them would cut through what leads over several, such as a residual connection."""
_COLUMN, _ROW, _BAND = 1.3, 1.15, 0.45
_CLEARANCE = 0.08
_ROOM = 1.0
"""How far from lines and marks a mark stands as well as farther away."""
_GAP = 0.05
"""Between an arrow and its mark."""
_CHARACTER = 0.58
"""How wide a letter is, in parts of its height."""
_NAME, _MARK = 0.15, 0.11
"""The heights of the letters of a name and of a mark, where there is room."""
_LEGIBLE = 0.065
"""A name whose letters would be lower in one line is broken."""
WIDEST = 1.55 * RADIUS
"""How wide a text in a node is at most."""
_WIDEST_MARK = 0.62
_LONG = 2.5 * _COLUMN
"""From this length on, an arrow keeps beside what it passes: an arc would be the taller the further it leads."""
_ARCS = np.array([0.0, 0.065, 0.165, 0.225, 0.3, 0.375, 0.45, 0.5])
"""The heights of arcs, in parts of the distance between their ends."""
_BRACKETS = np.array([0.0, 0.2, 0.65, 0.9, 1.15, 1.4, 1.65, 2.15])
"""The heights of longer ways."""
_CURVE_POINTS = np.linspace(0.0, 1.0, 25)[:, None]


def place(sketch: Sketch) -> dict[str, Points]:
    """Return where each population stands, shape (2,).

    Columns run from left to right in the order of the forward pass, and more than `COLUMNS` in bands, like a ploughed
    field; in a column, populations whose names differ from their neighbours' by the number alone keep to one row.
    Three and more that depend on each other stand in a circle.
    """
    columns, rings = _columns(sketch)
    rows = _rows([[] if ring else column for column, ring in zip(columns, rings, strict=True)])
    deepest = max(rows.values(), default=0)
    middle = -_ROW * deepest / 2
    begin = _band_starts(columns, sketch)
    places: dict[str, Points] = {}
    x = top = 0.0
    forth = -1.0
    for number, (column, ring) in enumerate(zip(columns, rings, strict=True)):
        if number in begin:
            forth = -forth
        if number and number in begin:
            lowest = min(float(at[1]) for at in places.values())
            x, top = x + forth * _COLUMN, lowest - _ROW - _BAND
        x += forth * ring
        for at, name in enumerate(column):
            # Two start from the left, more from the top; clockwise.
            angle = math.pi / (1 if len(column) == 2 else 2) - 2 * math.pi * at / len(column)
            on_ring = (x + ring * math.cos(angle), top + middle + ring * math.sin(angle))
            places[name] = np.array(on_ring if ring else (x, top - _ROW * rows[name]))
        x += forth * (ring + _COLUMN)
    return places


def _band_starts(columns: Sequence[Sequence[str]], sketch: Sketch) -> set[int]:
    """Return the columns at which bands start: they are about equally long, and cut few arrows that are longer."""
    column_of = {name: number for number, column in enumerate(columns) for name in column}
    crossing = np.zeros(len(columns) + 1)  # of a band that starts there
    for arrow in sketch.arrows:
        first, last = sorted((column_of[arrow.source], column_of[arrow.target]))
        crossing[first + 1 : last + 1] += last - first > 1
    if len(columns) <= COLUMNS:
        return {0}
    usual = len(columns) / math.ceil(len(columns) / COLUMNS)
    best: list[tuple[float, set[int]]] = [(0.0, set())]  # of the bands up to each column
    for end in range(1, len(columns) + 1):
        ways = []
        for start in range(max(0, end - _MOST_COLUMNS), end):
            cost = best[start][0] + crossing[start] * bool(start) + ((end - start) / usual - 1) ** 2
            ways.append((cost, best[start][1] | {start}))
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1][1]


def _columns(sketch: Sketch) -> tuple[list[list[str]], list[float]]:
    """Sort the populations into columns, and return the radius of the circle in which each stands, or 0.

    A stage leads to the next column, and what passes through none stays in its own, where the network has stages. What
    depends on each other shares a column.
    """
    inputs = {node.name for node in sketch.nodes if node.input}
    staged = any(arrow.stage for arrow in sketch.arrows)
    before: nx.DiGraph[str] = nx.DiGraph()
    before.add_nodes_from(node.name for node in sketch.nodes)
    for arrow in sketch.arrows:
        near = staged and not (arrow.stage or arrow.backward)
        ends = (arrow.target, arrow.source) if arrow.backward else (arrow.source, arrow.target)
        apart = int(not near or arrow.source in inputs)
        if before.has_edge(*ends):
            apart = max(apart, before.edges[ends]["apart"])
        before.add_edge(*ends, apart=apart)
    groups = nx.condensation(before)
    group_of = groups.graph["mapping"]
    apart_of: dict[tuple[int, int], int] = {}
    for one, other, apart in before.edges(data="apart"):
        pair = group_of[one], group_of[other]
        apart_of[pair] = max(apart, apart_of.get(pair, 0))
    level = dict.fromkeys(groups, 0)
    for group in nx.topological_sort(groups):
        for after in groups.successors(group):
            level[after] = max(level[after], level[group] + apart_of[group, after])
    for group in groups:
        # What nothing precedes stands right before what it enters, not at the far left.
        if not groups.in_degree(group) and groups.out_degree(group):
            level[group] = min(level[after] - apart_of[group, after] for after in groups.successors(group))
    first = min(level.values())
    columns: list[list[str]] = [[] for _ in range(max(level.values()) - first + 1)]
    for node in sketch.nodes:
        columns[level[group_of[node.name]] - first].append(node.name)
    columns = [column for column in columns if column]
    return columns, [_ring(column, len(columns), group_of, apart_of) for column in columns]


def _ring(column: Sequence[str], columns: int, group_of: dict[str, int], apart_of: dict[tuple[int, int], int]) -> float:
    """Return the radius of the circle on which the populations of a column stand; 0 if they stand in a stack."""
    group = group_of[column[0]]
    mutual = all(group_of[name] == group for name in column) and apart_of.get((group, group), 0)
    if (len(column) > 2 and mutual) or (len(column) == 2 and columns == 1) or (columns == 1 and len(column) > 4):
        return _COLUMN / 2 / math.sin(math.pi / len(column))
    return 0.0


def _rows(stacks: Sequence[Sequence[str]]) -> dict[str, int]:
    rows: dict[str, int] = {}
    of_stem: dict[str, int] = {}
    for stack in stacks:
        known = [name for name in stack if _stem(name) in of_stem]
        for name in [*known, *(name for name in stack if name not in known)]:
            taken = {rows[other] for other in stack if other in rows}
            free = min(set(range(len(stack) + 1)) - taken)
            wanted = of_stem.get(_stem(name), free)
            rows[name] = free if wanted in taken else wanted
            of_stem.setdefault(_stem(name), rows[name])
    return rows


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "", name)


def route(sketch: Sketch, places: dict[str, Points]) -> list[Points]:
    """Return the curve of each arrow of the sketch, from centre to centre.

    Curves keep clear of the other nodes; two that connect the same pair run side by side, in opposite directions on
    opposite sides.

    Returns
    -------
    list of array
        The control points of a Bézier curve: three of an arc, four of a longer way, and of a loop, which starts and
        ends at the node's rim.
    """
    arrows = sketch.arrows
    shared = Counter(frozenset((arrow.source, arrow.target)) for arrow in arrows)
    curves: dict[int, Points] = {}
    loops: dict[str, list[Points]] = {name: [] for name in places}
    drawn = _Drawn(len(arrows))
    for number, arrow in enumerate(arrows):
        a = arrow.source
        if arrow.target == a:
            arcs = [_arc(places[a], places[b], 0.0) for b in places if b != a and shared[frozenset((a, b))]]
            curves[number] = _loop(places[a], [*arcs, *loops[a]])
            loops[a].append(curves[number])
            drawn.add(points_of(curves[number]))
    obstacles, radii, owners = _obstacles(places, loops)
    taken: set[tuple[str, str, float]] = set()
    # Short ways first: they have the least choice.
    lengths = {n: np.linalg.norm(places[a.target] - places[a.source]).round(6) for n, a in enumerate(arrows)}
    for number in sorted(lengths, key=lambda n: lengths[n]):
        a, b = arrows[number].source, arrows[number].target
        if a == b:
            continue
        others = (owners != a) & (owners != b)
        in_the_way = obstacles[others], radii[others]
        paired = shared[frozenset((a, b))] > 1
        # Of the free ways that are as clear of the nodes as need be, the straightest; then its left, so that opposite
        # directions keep apart, or where it is alone, the emptier side.
        sizes = _BRACKETS if lengths[number] > _LONG else _ARCS * lengths[number]
        ranks = {}
        for height in [sign * size for size in sizes[int(paired) :].tolist() for sign in (-1, 1)]:
            room = _clearance(_arc(places[a], places[b], height), *in_the_way)
            ranks[height] = (_lane(a, b, height) in taken, -room, abs(height), paired and height > 0)
        best = min(ranks.values())
        equal = [height for height, rank in ranks.items() if rank == best]
        crossed = {each: drawn.crossings(points_of(_arc(places[a], places[b], each))) for each in equal}
        height = min((crossings, each) for each, crossings in crossed.items())[1]
        taken.add(_lane(a, b, height))
        curves[number] = _arc(places[a], places[b], height)
        drawn.add(points_of(curves[number]))
    return [curves[number] for number in range(len(arrows))]


def _obstacles(places: dict[str, Points], loops: dict[str, list[Points]]) -> tuple[Points, Points, NDArray[np.str_]]:
    """Return where nodes and points of their loops lie, how far each reaches, and whose each is."""
    lines = [(name, points_of(loop)) for name in places for loop in loops[name]]
    where = np.concatenate([np.array(list(places.values())).reshape(-1, 2), *(points for _, points in lines)])
    owners = np.concatenate([np.array(list(places), str), *(np.full(len(points), name) for name, points in lines)])
    return where, np.where(np.arange(len(where)) < len(places), RADIUS, 0.0), owners


def mark_places(sketch: Sketch, places: dict[str, Points], curves: Sequence[Points]) -> list[Points | None]:
    """Return the centre of each arrow's mark, shape (2,): beside its curve, clear of nodes, other curves and marks."""
    centres = np.array(list(places.values()))
    ways = np.array([points_of(curve) for curve in curves])
    taken = np.empty((0, 2, 2))  # the centres and the halves of the marks
    found: list[Points | None] = []
    for number, arrow in enumerate(sketch.arrows):
        if not arrow.mark:
            found.append(None)
            continue
        half = mark_half(arrow.mark)
        candidates = _beside(ways[number], half)
        reach = half + _ROOM
        near = _within(ways, candidates.min(0) - reach, candidates.max(0) + reach)
        near[number] = False
        lines = ways[near]
        room = [
            min(
                float(np.linalg.norm(np.maximum(abs(centres - point) - half, 0.0), axis=1).min()) - RADIUS,
                float((abs(lines - point) - half).max(-1).min(initial=_ROOM)),
                float((abs(taken[:, 0] - point) - half - taken[:, 1]).max(1).min(initial=_ROOM)),
            )
            for point in candidates
        ]
        clear = [place for place, each in enumerate(room) if each > 0]
        place = candidates[clear[0] if clear else int(np.argmax(room))]
        taken = np.concatenate([taken, [[place, half]]])
        found.append(place)
    return found


def _beside(way: Points, half: Points) -> Points:
    """Return where a mark may stand beside a curve, given points on it: near its middle first, and outside its bend."""
    along = np.gradient(way, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1)[:, None]
    bulge = (way[12] - (way[0] + way[-1]) / 2) @ across[12]
    if bulge < -1e-6 or (bulge < 1e-6 and along[12, 0] < 0):  # of a straight one, above it
        across = -across
    away = across * (abs(across) @ half + _GAP)[:, None]
    order = [12, 10, 14, 9, 15, 7, 17, 5, 19]
    return np.concatenate([(way + away)[order], (way - away)[order]])


def mark_half(mark: str) -> Points:
    """Return half the width and half the height of a mark."""
    return np.array([min(_WIDEST_MARK, _MARK * _CHARACTER * len(mark)), _MARK]) / 2


def extent_of(
    places: dict[str, Points], curves: Sequence[Points], sketch: Sketch, marks: Sequence[Points | None]
) -> tuple[Points, Points]:
    """Return the lower left and the upper right corner of what holds all nodes, arrows and marks."""
    centres = np.array(list(places.values()))
    boxes = [
        mark + sign * mark_half(arrow.mark)
        for arrow, mark in zip(sketch.arrows, marks, strict=True)
        if mark is not None
        for sign in (-1, 1)
    ]
    extent = np.concatenate(
        [centres - RADIUS, centres + RADIUS, *map(points_of, curves), *(box[None] for box in boxes)]
    )
    return extent.min(0), extent.max(0)


def texts_of(node: Node) -> list[tuple[str, float, float]]:
    """Return the lines of a population's name, and its size: each with its place above the centre, and its height."""
    lines, height = _name_lines(node.name)
    middle = (0.07 if node.size else 0.0) + 0.55 * (len(lines) - 1) * height
    texts = [(line, middle - 1.1 * number * height, height) for number, line in enumerate(lines)]
    return [*texts, (node.size, -0.1 - 0.4 * (len(lines) - 1) * height, _MARK)] if node.size else texts


def _name_lines(name: str) -> tuple[list[str], float]:
    """Return a population's name in lines that fit its node, broken after underscores, and the height of a letter."""

    def height(lines: Sequence[str]) -> float:
        longest = max(map(len, lines))
        return min(_NAME, WIDEST / _CHARACTER / longest, 0.26 / len(lines))

    best = [name]
    if height(best) >= _LEGIBLE:
        return best, height(best)
    parts = re.findall(r"[_\s-]*[^_\s-]+[_\s-]*", name)
    for width in range(max(map(len, parts), default=0), len(name)):
        lines = [""]
        for part in parts:
            if lines[-1] and len(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part
        if height(lines) > 1.25 * height(best):  # else fewer lines read better
            best = lines
    return best, height(best)


def _arc(start: Points, end: Points, height: float) -> Points:
    """Return a curve that reaches so far to the right of the line between its ends."""
    length = float(np.linalg.norm(end - start))
    across = np.array([end[1] - start[1], start[0] - end[0]]) / length
    if length > _LONG:
        return np.array([start, start + 4 / 3 * height * across, end + 4 / 3 * height * across, end])
    return np.array([start, (start + end) / 2 + 2 * height * across, end])


def _lane(a: str, b: str, height: float) -> tuple[str, str, float]:
    """Name the way that a curve takes between two nodes, the same in both directions."""
    return (a, b, height) if a < b else (b, a, -height)


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


def _clearance(curve: Points, obstacles: Points, radii: Points) -> float:
    """Return how far a curve stays from nodes' rims and from points of lines, capped at what is enough."""
    points, reach = points_of(curve), RADIUS + _CLEARANCE
    near = ((obstacles >= points.min(0) - reach) & (obstacles <= points.max(0) + reach)).all(1)
    gaps = np.linalg.norm(points[:, None] - obstacles[near], axis=-1) - radii[near]
    return float(gaps.min(initial=_CLEARANCE))


class _Drawn:
    """Points on the curves that are drawn already, at most `most`."""

    def __init__(self, most: int) -> None:
        self._ways = np.empty((most, len(_CURVE_POINTS), 2))
        self._count = 0

    def add(self, points: Points) -> None:
        """Add a curve, given points on it."""
        self._ways[self._count] = points
        self._count += 1

    def crossings(self, points: Points) -> int:
        """Return how many of the curves one crosses, given points on it."""
        drawn = self._ways[: self._count]
        p, q = points[:, None], drawn[_within(drawn, points.min(0), points.max(0))][:, None]

        def side(a: Points, b: Points, c: Points) -> Points:
            u, v = b - a, c - a
            turn: Points = np.sign((u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]).round(9))
            return turn

        # By the other curve, the part of one, and the point of the other of them.
        of_q, of_p = side(p[:-1], p[1:], q), side(q[..., :-1, :], q[..., 1:, :], p)
        crossed = (of_q[..., :-1] * of_q[..., 1:] < 0) & (of_p[:, :-1] * of_p[:, 1:] < 0)
        return int(crossed.any((1, 2)).sum())


def _within(ways: Points, low: Points, high: Points) -> NDArray[np.bool_]:
    """Tell of each way, given points on it, whether the box around it reaches into another one."""
    inside: NDArray[np.bool_] = ((ways.min(1) <= high) & (ways.max(1) >= low)).all(1)
    return inside

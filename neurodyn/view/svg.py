"""A network's picture as SVG, in the page's own text colour: of notebooks, and of the pages that `view` writes."""

from __future__ import annotations

import html
from itertools import cycle

import numpy as np

from neurodyn.network.network import Network
from neurodyn.network.sketch import Arrow, Node, Sketch, sketch
from neurodyn.view.colours import BLACK, MAPS, OTHER_KINDS, OWN
from neurodyn.view.diagram import (
    RADIUS,
    WIDEST,
    Points,
    extent_of,
    mark_half,
    mark_places,
    place,
    points_of,
    route,
    texts_of,
)

_UNIT = 64.0
"""Pixels of the diagram's unit of length."""
_MARGIN = 0.15
_LARGER = 1.35
"""How much larger letters are than on paper, where there is room: a screen shows them coarser."""
_LEGEND_ROW, _LEGEND_COLUMN = 0.3, 2.3


def network_html(network: Network) -> str:
    """Return a network as HTML, as a notebook shows it: its diagram in SVG, and its equations; names escaped."""
    equations = html.escape(f"{network!r}\n\n{network.equations()}")
    return f"<div>{network_svg(sketch(network))}<pre>{equations}</pre></div>"


def network_svg(shown: Sketch) -> str:
    """Draw a network, whose names are escaped.

    Returns
    -------
    str
        An `<svg>` element; a population is a `<g class="population" data-name="x1">`.
    """
    places = place(shown)
    curves = route(shown, places)
    marks = mark_places(shown, places, curves)
    lowest, highest = extent_of(places, curves, shown, marks)
    (left, bottom), (right, top) = lowest - _MARGIN, highest + _MARGIN
    corner = np.array([left, top])
    colours = arrow_colours(shown)
    body = [_arrow(arrow, points_of(curve), corner, colours) for arrow, curve in zip(shown.arrows, curves, strict=True)]
    for arrow, mark in zip(shown.arrows, marks, strict=True):
        if mark is not None:
            across, high = 2 * mark_half(arrow.mark)
            body.append(_fitted(arrow.mark, _pixels(mark, corner), _LARGER * high, across))
    body += [_population(node, _pixels(places[node.name], corner)) for node in shown.nodes]
    width = max(float(right - left), 2 * _LEGEND_COLUMN)
    entries = _legend(shown, colours)
    columns = int(width / _LEGEND_COLUMN)
    rows = -(-len(entries) // columns)
    height = float(top - bottom)
    for number, (name, colour, dashes) in enumerate(entries):
        row, column = divmod(number, columns)
        x, y = (0.15 + column * _LEGEND_COLUMN) * _UNIT, (height + (row + 0.5) * _LEGEND_ROW) * _UNIT
        line = f'<path d="M{x:.0f} {y:.0f}h{0.3 * _UNIT:.0f}" stroke="{colour}" stroke-width="2"{_dashes(dashes)}/>'
        body.append(line + _text(name, np.array([x + 0.4 * _UNIT, y + 4]), 11, anchor="start"))
    size = f"{width * _UNIT:.0f} {(height + rows * _LEGEND_ROW + 0.1) * _UNIT:.0f}"
    across, down = size.split()
    title = html.escape(shown.name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{across}" height="{down}" '
        f'style="max-width:100%;height:auto" fill="none" font-family="system-ui,sans-serif" role="img" '
        f'aria-label="Diagram of {title}"><title>{title}</title>{"".join(body)}</svg>'
    )


def arrow_colours(shown: Sketch) -> dict[str, str]:
    """Return the colour of each map that occurs, the known ones first."""
    occurring = dict.fromkeys(arrow.map for arrow in shown.arrows if arrow.map)
    own = [name for name in occurring if name not in MAPS]
    colours = {name: colour for name, colour in MAPS.items() if name in occurring}
    return colours | dict(zip(own, cycle(OWN), strict=False))


def _legend(shown: Sketch, colours: dict[str, str]) -> list[tuple[str, str, tuple[float, ...]]]:
    kinds = {arrow.kind for arrow in shown.arrows}
    lines: list[tuple[str, str, tuple[float, ...]]] = [(name, _visible(colour), ()) for name, colour in colours.items()]
    return lines + [
        (name, _visible(colour), dashes) for kind, (name, colour, dashes) in OTHER_KINDS.items() if kind in kinds
    ]


def _visible(colour: str) -> str:
    return "currentColor" if colour == BLACK else colour


def _dashes(lengths: tuple[float, ...]) -> str:
    return f' stroke-dasharray="{" ".join(f"{2 * each:g}" for each in lengths)}"' if lengths else ""


def _pixels(points: Points, corner: Points) -> Points:
    pixels: Points = (points - corner) * np.array([_UNIT, -_UNIT])
    return pixels


def _text(text: str, at: Points, size: float, *, anchor: str = "middle") -> str:
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size:.1f}" text-anchor="{anchor}" '
        f'fill="currentColor">{html.escape(text)}</text>'
    )


def _fitted(text: str, centre: Points, height: float, widest: float) -> str:
    """Write a text about its centre, whose letters have a height, and less where it would be too wide."""
    size = min(height, widest / 0.58 / len(text)) * _UNIT  # a letter is about as wide as 0.58 of the font's size
    return _text(text, centre + np.array([0, 0.36 * size]), size)


def _population(node: Node, at: Points) -> str:
    r = RADIUS * _UNIT
    look = 'stroke="currentColor" stroke-width="1.4"' + (' stroke-dasharray="3 2"' * (node.role == "instantaneous"))
    if node.role == "clamped":
        x, y, side = at[0] - 0.93 * r, at[1] - 0.93 * r, 1.86 * r
        place = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" rx="4"'
        shape = f'<rect {place} {look} fill="currentColor" fill-opacity="0.13"/>'
    else:
        shape = f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{r:.1f}" {look} fill="currentColor" fill-opacity="0"/>'
    lines = texts_of(node)
    larger = _LARGER if len(lines) <= 2 else 1.1
    texts = "".join(
        _fitted(text, at - np.array([0, above * _UNIT]), larger * height, WIDEST) for text, above, height in lines
    )
    label = html.escape(f"{node.name}, {node.role}")
    return f'<g class="population" data-name="{html.escape(node.name)}"><title>{label}</title>{shape}{texts}</g>'


def _arrow(arrow: Arrow, points: Points, corner: Points, colours: dict[str, str]) -> str:
    _, colour, dashes = OTHER_KINDS.get(arrow.kind, ("", colours.get(arrow.map, BLACK), ()))
    colour = _visible(colour)
    rim = RADIUS + 0.04
    fine = np.stack([np.interp(np.linspace(0, 24, 97), np.arange(25), axis) for axis in points.T], axis=1)
    inside = [np.linalg.norm(fine - end, axis=1) < rim for end in (points[0], points[-1])]
    if arrow.source != arrow.target:  # a loop starts and ends at the rim
        fine = fine[~(inside[0] | inside[1])]
    way = _pixels(fine, corner)
    along = way[-1] - way[-5]
    along = along / max(float(np.linalg.norm(along)), 1e-9)
    across = np.array([-along[1], along[0]])
    tip = way[-1]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [*way[:: max(1, len(way) // 16)].tolist(), tip.tolist()])
    stroke = f'stroke="{colour}" stroke-width="1.6"'
    drawn = f'<path d="{path}" {stroke}{_dashes(dashes)}/>'
    if arrow.negative:
        (x1, y1), (x2, y2) = tip - 5 * across, tip + 5 * across
        drawn += f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" {stroke}/>'
    else:
        corners = [tip + along, tip - 7 * along + 3.5 * across, tip - 7 * along - 3.5 * across]
        drawn += f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in corners)}Z" fill="{colour}"/>'
    return f'<g class="{arrow.kind}"><title>{html.escape(f"{arrow} {arrow.map}".strip())}</title>{drawn}</g>'

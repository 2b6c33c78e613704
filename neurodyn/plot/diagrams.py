"""A declared network as a graph."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, ConnectionStyle, FancyArrowPatch, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import Normal, Stroke
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from neurodyn.errors import InvalidTypeError
from neurodyn.network.network import Network
from neurodyn.network.sketch import Arrow, Node, Sketch, sketch
from neurodyn.view.colours import BLACK, GREY, OTHER_KINDS
from neurodyn.view.diagram import RADIUS, WIDEST, Points, extent_of, mark_half, mark_places, place, route, texts_of
from neurodyn.view.svg import arrow_colours

_INCHES = 1.3
"""The length of a diagram's unit on paper, where nothing limits it."""
_MARGIN = 0.1
_TITLE = 0.35
"""The height of a title, in inches."""


def plot_network(network: Network, ax: Axes | None = None) -> Axes:
    """Draw a network: populations as nodes, couplings as arrows coloured by their map, and what learns.

    Populations stand from left to right in the order of the forward pass: a `Forward` coupling points right, a
    `Feedback` or an `Inverse` left. More than twelve columns go on below, from right to left. An arrow of negative gain
    ends in a bar. At an arrow stand a gain that is not ±1, a delay, and θ2 where the parameters of stage 2 learn from
    its two ends. Dashes are the forward pass, dots a plasticity whose ends nothing else connects.

    Parameters
    ----------
    network
        The network.
    ax
        The axes to draw in; new ones if None.

    Returns
    -------
    matplotlib.axes.Axes
        With a patch for each population and each coupling, whose `gid` is "population x1" or "coupling x2 → x1".

    Raises
    ------
    TypeError
        If it is no network, or no axes.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.models.predictive_coding.network(nd.mlp([4, 3, 2]))
    >>> ax = nd.plot.plot_network(net)  # or net.plot()
    >>> ax.get_title()
    'predictive coding (il)'
    """
    if not isinstance(network, Network):
        raise InvalidTypeError(f"network must be a Network, not {type(network).__name__}")
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidTypeError(f"ax must be matplotlib axes, not {type(ax).__name__}")
    shown = sketch(network)
    places = place(shown)
    curves = route(shown, places)
    marks = mark_places(shown, places, curves)
    lowest, highest = extent_of(places, curves, shown, marks)
    (left, bottom), (right, top) = lowest - _MARGIN, highest + _MARGIN
    width, height = right - left, top - bottom
    colours = arrow_colours(shown)
    legend = _legend_entries(shown, colours)
    if ax is None:
        inches_wide = max(4.0, _INCHES * width)
        inches_high = _INCHES * height + _legend_height(len(legend), inches_wide)
        figure = plt.figure(figsize=(inches_wide, inches_high + _TITLE))
        ax = figure.add_axes((0.0, 0.0, 1.0, inches_high / (inches_high + _TITLE)))
    ax.set_axis_off()
    ax.set_title(network.name, loc="center", parse_math=False)
    ax.figure.canvas.figure.draw_without_rendering()  # so that a layout engine has given the axes their place
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    below = _legend_height(len(legend), box.width)
    unit = min(_INCHES, box.width / width, max(0.2, box.height - below) / height)
    aside = max(0.0, box.width / unit - width) / 2
    ax.set(xlim=(left - aside, right + aside), ylim=(bottom - below / unit, top), aspect="equal")
    nodes = {node.name: _draw_population(ax, node, places[node.name], unit) for node in shown.nodes}
    for arrow, curve, mark in zip(shown.arrows, curves, marks, strict=True):
        _draw_arrow(ax, arrow, curve, colours, nodes, unit)
        if mark is not None:
            across, high = 2 * mark_half(arrow.mark)
            _draw_label(ax, arrow.mark, mark, high, across, on_arrow=True)
    ax.legend(
        legend.values(),
        legend.keys(),
        loc="lower center",
        ncols=min(len(legend), _legend_columns(box.width)),
        frameon=False,
        handler_map={kind: HandlerPatch(patch_func=_small_node) for kind in (Circle, FancyBboxPatch)},
    )
    return ax


def _legend_entries(shown: Sketch, colours: dict[str, str]) -> dict[str, Artist]:
    """Name the maps, the signs, the other arrows and the roles that occur, and no others."""
    entries: dict[str, Artist] = {name: Line2D([], [], color=colour, linewidth=2) for name, colour in colours.items()}
    if any(arrow.negative for arrow in shown.arrows):
        entries["negative gain"] = Line2D([], [], color=GREY, marker=r"$\dashv$", markersize=11, linestyle="")
    for kind, (name, colour, dashes) in OTHER_KINDS.items():
        if any(arrow.kind == kind for arrow in shown.arrows):
            entries[name] = Line2D([], [], color=colour, linewidth=1.5, linestyle=(0, dashes))
    for role in ("dynamic", "instantaneous", "clamped"):
        entries |= [(role, _node(node, np.zeros(2))) for node in shown.nodes if node.role == role][:1]
    return entries


def _legend_columns(inches: float) -> int:
    return max(1, int(inches / 1.65))


def _legend_height(entries: int, inches_wide: float) -> float:
    return 0.2 + 0.22 * math.ceil(entries / _legend_columns(inches_wide))


def _small_node(
    *, orig_handle: Patch, width: float, height: float, xdescent: float, ydescent: float, **_: Any
) -> Patch:
    centre = np.array([width / 2 - xdescent, height / 2 - ydescent])
    return _circle(centre, 0.65 * height) if isinstance(orig_handle, Circle) else _square(centre, 0.6 * height)


def _node(population: Node, centre: Points) -> Patch:
    """Return the shape that tells a population's role."""
    if population.role == "clamped":
        node: Patch = _square(centre, 0.93 * RADIUS)
        node.set_facecolor("#DDDDDD")
    else:
        node = _circle(centre, RADIUS)
        node.set_facecolor("white")
        node.set_linestyle((0, (2, 1)) if population.role == "instantaneous" else "-")
    node.set_edgecolor("black")
    return node


def _circle(centre: Points, radius: float) -> Circle:
    return Circle((centre[0], centre[1]), radius)


def _square(centre: Points, half: float) -> FancyBboxPatch:
    x, y = centre - half
    return FancyBboxPatch((x, y), 2 * half, 2 * half, boxstyle=f"round,pad=0,rounding_size={0.2 * half}")


def _draw_population(ax: Axes, population: Node, centre: Points, unit: float) -> Patch:
    node = _node(population, centre)
    node.set(linewidth=1.2 * unit, zorder=3, gid=f"population {population.name}")
    ax.add_artist(node)
    for text, above, height in texts_of(population):
        _draw_label(ax, text, centre + np.array([0.0, above]), height, WIDEST)
    return node


def _draw_label(ax: Axes, text: str, centre: Points, height: float, widest: float, *, on_arrow: bool = False) -> None:
    """Write a text as a shape in the diagram's own unit, so that it fits its node at any size of the figure."""
    shape = TextPath((0, 0), text, size=1)
    box = shape.get_extents()
    scale = min(height, widest / box.width)
    place = Affine2D().translate(-(box.x0 + box.x1) / 2, -0.36).scale(scale).translate(*centre)
    look: dict[str, Any] = {"color": "black", "linewidth": 0, "zorder": 4, "gid": f"label {text}"}
    if on_arrow:
        halo = [Stroke(linewidth=3, foreground="white"), Normal()]
        look |= {"zorder": 2.5, "gid": f"mark {text}", "path_effects": halo}
    ax.add_artist(PathPatch(shape.transformed(place), **look))


def _draw_arrow(
    ax: Axes, arrow: Arrow, curve: Points, colours: dict[str, str], nodes: dict[str, Patch], unit: float
) -> None:
    _, colour, dashes = OTHER_KINDS.get(arrow.kind, ("", colours.get(arrow.map, BLACK), ()))
    look: dict[str, Any] = {
        "arrowstyle": "-[,widthB=0.4,lengthB=0" if arrow.negative else "-|>,head_length=0.5,head_width=0.25",
        "mutation_scale": 12 * unit,
        "linewidth": 1.4 * unit,
        "linestyle": (0, dashes) if dashes else "-",
        "color": colour,
        "capstyle": "butt",
        "joinstyle": "miter",
        "gid": f"{arrow.kind} {arrow}",
    }
    if arrow.source == arrow.target:
        patch = FancyArrowPatch(path=Outline(curve, [Outline.MOVETO, *3 * [Outline.CURVE4]]), **look)
    else:
        look |= {"shrinkA": 2.2 * unit, "shrinkB": 2.2 * unit, "connectionstyle": _Along(curve)}
        ends = nodes[arrow.source], nodes[arrow.target]
        patch = FancyArrowPatch(tuple(curve[0]), tuple(curve[-1]), patchA=ends[0], patchB=ends[1], **look)
    ax.add_artist(patch)


class _Along(ConnectionStyle.Arc3):
    """A Bézier curve of the diagram, which matplotlib clips at the nodes that it connects."""

    def __init__(self, curve: Points) -> None:
        super().__init__()
        self._curve = curve

    def connect(self, start: tuple[float, float], end: tuple[float, float]) -> Outline:
        """Return the curve turned and scaled, as its ends are on paper."""
        along = self._curve @ np.array([1, 1j])
        begin, chord = complex(*start), complex(*end) - complex(*start)
        drawn = begin + (along - along[0]) / (along[-1] - along[0]) * chord
        codes = {3: Outline.CURVE3, 4: Outline.CURVE4}
        return Outline(
            np.stack([drawn.real, drawn.imag], axis=1), [Outline.MOVETO, *(len(drawn) - 1) * [codes[len(drawn)]]]
        )

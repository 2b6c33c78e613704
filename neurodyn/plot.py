"""Pictures: a declared network as a graph, and the look of every figure."""

from __future__ import annotations

import html
import io
import math
import os
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from neurodyn.analysis.plane import Unit, plane
from neurodyn.checks import file_path
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.network.parts import Coupling, Population
from neurodyn.network.vectors import largest_of
from neurodyn.system.bound import Inputs, Targets
from neurodyn.system.continued import Starts
from neurodyn.view.diagram import RADIUS, Points, links, place, points_of, route

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#555555"
"""From the palette of M. Okabe and K. Ito, whose colours colour-blind readers can tell apart, and a grey."""

_MAP_COLOURS = {"Identity": GREY, "Forward": BLUE, "Feedback": VERMILION, "Inverse": GREEN}
_OWN_COLOURS = (PURPLE, ORANGE, SKY, BLACK)
_INCHES = 1.3
"""The length of a diagram's unit on paper, where nothing limits it."""
_MARGIN = 0.1
_TITLE = 0.35
"""The height of a title, in inches."""


def style() -> AbstractContextManager[None]:
    """Return a context in which figures have the common look: Okabe–Ito colours, constrained layout, open axes."""
    return plt.rc_context(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": 150,
            "pdf.fonttype": 42,
            "font.size": 9,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK]),
            "legend.frameon": False,
        }
    )


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure, under a temporary name until it is complete.

    Parameters
    ----------
    figure
        The figure.
    path
        Where; the suffix tells the format, e.g. `.png` or `.pdf`. Folders are made, an existing file is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError, ValueError
        If it is no figure, or the path's suffix is that of no format.
    """
    if not isinstance(figure, Figure):
        raise InvalidTypeError(f"figure must be a matplotlib figure, not {type(figure).__name__}")
    path = file_path("path", path)
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in formats:
        raise InvalidValueError(f"path: {path.name!r} must end in .png, .pdf or another of {', '.join(formats)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        figure.savefig(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def plot_network(network: Network, ax: Axes | None = None) -> Axes:
    """Draw a network: populations as nodes, couplings as arrows coloured by their map.

    Populations stand from left to right in the order of the forward pass: a `Forward` coupling points right, a
    `Feedback` or an `Inverse` left. An arrow of negative gain ends in a bar.

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
    """
    if not isinstance(network, Network):
        raise InvalidTypeError(f"network must be a Network, not {type(network).__name__}")
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidTypeError(f"ax must be matplotlib axes, not {type(ax).__name__}")
    places = place(network)
    curves = route(network, places)
    centres = np.array(list(places.values()))
    extent = np.concatenate([centres - RADIUS, centres + RADIUS, *(points_of(curve) for curve in curves)])
    (left, bottom), (right, top) = extent.min(0) - _MARGIN, extent.max(0) + _MARGIN
    width, height = right - left, top - bottom
    colours = _colours(network)
    legend = _legend_entries(network, colours)
    if ax is None:
        inches_wide = max(4.0, _INCHES * width)
        inches_high = _INCHES * height + _legend_height(len(legend), inches_wide)
        figure = plt.figure(figsize=(inches_wide, inches_high + _TITLE))
        ax = figure.add_axes((0.0, 0.0, 1.0, inches_high / (inches_high + _TITLE)))
    ax.set_axis_off()
    ax.set_title(network.name, loc="center")
    ax.figure.canvas.figure.draw_without_rendering()  # so that a layout engine has given the axes their place
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    below = _legend_height(len(legend), box.width)
    unit = min(_INCHES, box.width / width, max(0.2, box.height - below) / height)
    aside = max(0.0, box.width / unit - width) / 2
    ax.set(xlim=(left - aside, right + aside), ylim=(bottom - below / unit, top), aspect="equal")
    nodes = {p.name: _draw_population(ax, p, places[p.name], unit) for p in network.populations}
    for (source, coupling), curve in zip(links(network), curves, strict=True):
        _draw_coupling(ax, source, coupling, curve, colours[type(coupling.map).__name__], nodes, unit)
    ax.legend(
        legend.values(),
        legend.keys(),
        loc="lower center",
        ncols=min(len(legend), _legend_columns(box.width)),
        frameon=False,
        handler_map={kind: HandlerPatch(patch_func=_small_node) for kind in (Circle, FancyBboxPatch)},
    )
    return ax


def phase_plane(
    network: Network,
    x: Unit,
    y: Unit,
    x_span: Sequence[float],
    y_span: Sequence[float],
    inputs: Inputs = None,
    targets: Targets = None,
    *,
    at: Starts | None = None,
    points: int = 41,
    ax: Axes | None = None,
) -> Axes:
    """Draw the phase plane of two units: their nullclines dx/dt = 0 and dy/dt = 0, and the flow between.

    Parameters
    ----------
    network, inputs, targets
        As for `nd.simulate`, of one sample; without noise, and with data that stand still.
    x, y
        The two units: a population of one unit by its name, or `("rates", 3)`.
    x_span, y_span
        From where to where their activity goes.
    at
        Where the other units are held: populations by name, the others where they start; or one moment of a run.
    points
        How many points of the grid there are along each.
    ax
        The axes to draw in; new ones if None.

    Returns
    -------
    matplotlib.axes.Axes
        A run draws over it by `ax.plot(run.x, run.y)`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidTypeError(f"ax must be matplotlib axes, not {type(ax).__name__}")
    flow = plane(network, (x, y), (x_span, y_span), inputs, targets, at=at, points=points)
    if ax is None:
        with style():
            _, ax = plt.subplots(figsize=(4, 4))
    x_values, y_values = flow.x.values, flow.y.values
    ax.streamplot(
        x_values, y_values, flow.dx.values, flow.dy.values, color="0.8", linewidth=0.6, arrowsize=0.7, density=1.2
    )
    handles = []
    for name, colour in (("dx", BLUE), ("dy", VERMILION)):
        if float(flow[name].min()) < 0 < float(flow[name].max()):
            ax.contour(x_values, y_values, flow[name].values, levels=[0.0], colors=[colour], linewidths=1.5)
        handles.append(Line2D([], [], color=colour, label=f"{flow[name].attrs['long_name']} = 0"))
    ax.legend(handles=handles, loc="best", frameon=True, framealpha=0.9, edgecolor="none")
    ax.set(xlabel=flow.x.attrs["long_name"], ylabel=flow.y.attrs["long_name"], xlim=x_span, ylim=y_span)
    return ax


def network_html(network: Network) -> str:
    """Return a network as HTML, as a notebook shows it: its diagram, as an SVG picture, and its equations.

    Parameters
    ----------
    network
        The declaration. What it is called is escaped.
    """
    picture = io.StringIO()
    with plt.ioff():
        figure = plot_network(network).get_figure(root=True)
    assert figure is not None, "axes stand in a figure"
    try:
        figure.savefig(picture, format="svg", bbox_inches="tight")
    finally:
        plt.close(figure)
    svg = picture.getvalue()
    equations = html.escape(f"{network!r}\n\n{network.equations()}")
    return f"<div>{svg[svg.index('<svg') :]}<pre>{equations}</pre></div>"


def _colours(network: Network) -> dict[str, str]:
    """Return the colour of each map that occurs, the known ones first."""
    occurring = dict.fromkeys(type(c.map).__name__ for c in network.couplings)
    own = [name for name in occurring if name not in _MAP_COLOURS]
    colours = {name: colour for name, colour in _MAP_COLOURS.items() if name in occurring}
    return colours | dict(zip(own, cycle(_OWN_COLOURS), strict=False))


def _legend_entries(network: Network, colours: dict[str, str]) -> dict[str, Artist]:
    """Name the maps, the signs and the roles that occur, and no others."""
    entries: dict[str, Artist] = {name: Line2D([], [], color=colour, linewidth=2) for name, colour in colours.items()}
    if any(largest_of(c.gain) < 0 for c in network.couplings):
        entries["negative gain"] = Line2D([], [], color=GREY, marker=r"$\dashv$", markersize=11, linestyle="")
    for role in ("dynamic", "instantaneous", "clamped"):
        entries |= [(role, _node(p, np.zeros(2))) for p in network.populations if p.role == role][:1]
    return entries


def _legend_columns(inches: float) -> int:
    return max(1, int(inches / 1.4))


def _legend_height(entries: int, inches_wide: float) -> float:
    return 0.2 + 0.22 * math.ceil(entries / _legend_columns(inches_wide))


def _small_node(
    *, orig_handle: Patch, width: float, height: float, xdescent: float, ydescent: float, **_: Any
) -> Patch:
    centre = np.array([width / 2 - xdescent, height / 2 - ydescent])
    return _circle(centre, 0.65 * height) if isinstance(orig_handle, Circle) else _square(centre, 0.6 * height)


def _node(population: Population, centre: Points) -> Patch:
    """Return the shape that tells a population's role."""
    if population.role == "clamped":
        node: Patch = _square(centre, 0.93 * RADIUS)
        node.set_facecolor("#DDDDDD")
    else:
        node = _circle(centre, RADIUS)
        node.set_facecolor("white")
        node.set_linestyle((0, (2, 1)) if population.instantaneous else "-")
    node.set_edgecolor("black")
    return node


def _circle(centre: Points, radius: float) -> Circle:
    return Circle((centre[0], centre[1]), radius)


def _square(centre: Points, half: float) -> FancyBboxPatch:
    x, y = centre - half
    return FancyBboxPatch((x, y), 2 * half, 2 * half, boxstyle=f"round,pad=0,rounding_size={0.2 * half}")


def _draw_population(ax: Axes, population: Population, centre: Points, unit: float) -> Patch:
    node = _node(population, centre)
    node.set(linewidth=1.2 * unit, zorder=3, gid=f"population {population.name}")
    ax.add_artist(node)
    size = "×".join(map(str, population.shape or ()))
    _draw_label(ax, population.name, centre + np.array([0.0, 0.07 if size else 0.0]), 0.15)
    if size:
        _draw_label(ax, size, centre - np.array([0.0, 0.1]), 0.11)
    return node


def _draw_label(ax: Axes, text: str, centre: Points, height: float) -> None:
    """Write a text as a shape in the diagram's own unit, so that it fits its node at any size of the figure."""
    shape = TextPath((0, 0), text, size=1)
    width = shape.get_extents().width
    place = Affine2D().translate(-width / 2, -0.36).scale(min(height, 1.55 * RADIUS / width)).translate(*centre)
    ax.add_artist(PathPatch(shape.transformed(place), color="black", linewidth=0, zorder=4, gid=f"label {text}"))


def _draw_coupling(
    ax: Axes, source: str, coupling: Coupling, curve: Points, colour: str, nodes: dict[str, Patch], unit: float
) -> None:
    look: dict[str, Any] = {
        "arrowstyle": "-[,widthB=0.4,lengthB=0"
        if largest_of(coupling.gain) < 0
        else "-|>,head_length=0.5,head_width=0.25",
        "mutation_scale": 12 * unit,
        "linewidth": 1.4 * unit,
        "color": colour,
        "capstyle": "butt",
        "joinstyle": "miter",
        "gid": f"coupling {source} → {coupling.target}",
    }
    if source == coupling.target:
        arrow = FancyArrowPatch(path=Outline(curve, [Outline.MOVETO, *3 * [Outline.CURVE4]]), **look)
    else:
        start, control, end = curve
        across = np.array([end[1] - start[1], start[0] - end[0]])
        bend = (control - (start + end) / 2) @ across / (across @ across)
        look |= {"shrinkA": 2.2 * unit, "shrinkB": 2.2 * unit, "connectionstyle": f"arc3,rad={bend}"}
        ends = nodes[source], nodes[coupling.target]
        arrow = FancyArrowPatch(tuple(start), tuple(end), patchA=ends[0], patchB=ends[1], **look)
    ax.add_artist(arrow)

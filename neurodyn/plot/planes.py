"""The phase plane of two units."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from neurodyn.analysis.linearised import Linearised, linearised, point_of
from neurodyn.checks import number, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.plot.figures import style
from neurodyn.simulation.trajectory import to_numpy
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.view.colours import BLUE, VERMILION

Unit = str | tuple[str, int]
"""A population of one unit, or a population and which of its units, counted from 0."""


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
        A run of one sample draws over it by `ax.plot(run.x.squeeze(), run.y.squeeze())`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import neurodyn as nd
    >>> from neurodyn import plot
    >>> turn = [nd.Coupling("y", "x"), nd.Coupling("x", "y", gain=-1.0)]
    >>> spiral = nd.Network("spiral", [nd.Population("x", 1), nd.Population("y", 1)], turn)
    >>> plot.phase_plane(spiral, "x", "y", (-1, 1), (-1, 1), points=11).get_xlabel()
    'x'
    """
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidTypeError(f"ax must be matplotlib axes, not {type(ax).__name__}")
    whole("points", points, least=2)
    across, up = (_axis(name, span, points) for name, span in (("x_span", x_span), ("y_span", y_span)))
    with linearised(network, inputs, targets, at, "a phase plane") as about:
        if about.system.samples != 1:
            raise InvalidValueError(f"inputs: a phase plane is of one sample, and there are {about.system.samples}")
        places = [_place(about, what, unit) for what, unit in (("x", x), ("y", y))]
        if places[0] == places[1]:
            raise InvalidValueError(f"y: it is the unit {y!r} again; name another one")
        state = point_of(about, {} if at is None else at)
        rates = np.empty((2, points, points))
        for row, column in np.ndindex(points, points):
            state[0, places[0]], state[0, places[1]] = float(across[column]), float(up[row])
            rates[:, row, column] = to_numpy(about.slope(state)[0, places])
    if ax is None:
        with style():
            _, ax = plt.subplots(figsize=(4, 4))
    ax.streamplot(across, up, rates[0], rates[1], color="0.8", linewidth=0.6, arrowsize=0.7, density=1.2)
    names, handles = [_text(unit) for unit in (x, y)], []
    for name, rate, colour in zip(names, rates, (BLUE, VERMILION), strict=True):
        if rate.min() < 0 < rate.max():
            ax.contour(across, up, rate, levels=[0.0], colors=[colour], linewidths=1.5)
        handles.append(Line2D([], [], color=colour, label=f"d{name}/dt = 0"))
    ax.legend(handles=handles, loc="best", frameon=True, framealpha=0.9, edgecolor="none")
    ax.set(xlabel=names[0], ylabel=names[1], xlim=x_span, ylim=y_span)
    return ax


def _axis(what: str, span: Sequence[float], points: int) -> NDArray[np.float64]:
    if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 2:
        raise InvalidTypeError(f"{what} is two numbers, from where to where, not {span!r}")
    low, high = (number(what, each) for each in span)
    if not low < high:
        raise InvalidValueError(f"{what}: from a smaller to a larger number, not {span!r}")
    return np.linspace(low, high, points)


def _place(about: Linearised, what: str, unit: Unit) -> int:
    """Return the place of a unit among all of them."""
    name, own = unit if isinstance(unit, tuple) and len(unit) == 2 else (unit, None)
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what}: a population of one unit by its name, or (name, unit), not {unit!r}")
    if name not in about.system.dynamic:
        raise InvalidValueError(
            f"{what}: there is no dynamic population {name!r}; there are {', '.join(about.system.dynamic)}"
        )
    place = about.system.dynamic.index(name)
    width = about.field.widths[place]
    if own is None and width > 1:
        raise InvalidValueError(f"{what}: population {name} has {width} units; name one, as in ({name!r}, 0)")
    own = 0 if own is None else whole(f"{what}: the unit of population {name}", own, least=0)
    if own >= width:
        raise InvalidValueError(f"{what}: population {name} has {width} units, counted from 0, and no unit {own}")
    return sum(about.field.widths[:place]) + own


def _text(unit: Unit) -> str:
    return unit if isinstance(unit, str) else f"{unit[0]} {unit[1]}"

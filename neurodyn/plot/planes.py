"""The phase plane of two units."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from neurodyn.analysis.plane import Unit, plane
from neurodyn.errors import InvalidTypeError
from neurodyn.network.network import Network
from neurodyn.plot.figures import style
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.view.colours import BLUE, VERMILION


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

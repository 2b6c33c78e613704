"""The vector field over a plane of two units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurodyn.analysis.linearised import Linearised, linearised, point_of
from neurodyn.checks import number, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.simulation.trajectory import to_numpy
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets

Unit = str | tuple[str, int]
"""A population of one unit, or a population and which of its units, counted from 0."""


def plane(
    network: Network,
    units: tuple[Unit, Unit],
    spans: tuple[Sequence[float], Sequence[float]],
    inputs: Inputs,
    targets: Targets,
    *,
    at: Starts | None,
    points: int,
) -> xr.Dataset:
    """Return dx/dt of two units over a grid of their activity, with all others held.

    Parameters
    ----------
    network, inputs, targets
        As for `nd.simulate`, of one sample; without noise, and with data that stand still.
    units
        The two.
    spans
        From where to where, of each.
    at
        Where the other units are held: populations by name, the others where they start.
    points
        How many, along each.

    Returns
    -------
    xarray.Dataset
        `dx` and `dy`, dimensions `y` and `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    whole("points", points, least=2)
    axes = [_axis(name, span, points) for name, span in zip(("x_span", "y_span"), spans, strict=True)]
    with linearised(network, inputs, targets, at, "a phase plane") as about:
        if about.system.samples != 1:
            raise InvalidValueError(f"inputs: a phase plane is of one sample, and there are {about.system.samples}")
        places = [_place(about, what, unit) for what, unit in zip("xy", units, strict=True)]
        if places[0] == places[1]:
            raise InvalidValueError(f"y: it is the unit {units[1]!r} again; name another one")
        x = point_of(about, {} if at is None else at)
        found = np.empty((2, points, points))
        for row, y in enumerate(axes[1]):
            for column, value in enumerate(axes[0]):
                x[0, places[0]], x[0, places[1]] = value, y
                found[:, row, column] = to_numpy(about.slope(x)[0, places])
    described = [{"units": "1", "long_name": _text(unit)} for unit in units]
    rates = [{"units": "1/tau", "long_name": f"d{each['long_name']}/dt"} for each in described]
    return xr.Dataset(
        {"dx": (("y", "x"), found[0], rates[0]), "dy": (("y", "x"), found[1], rates[1])},
        {"x": ("x", axes[0], described[0]), "y": ("y", axes[1], described[1])},
        {"network": network.name},
    )


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

"""Equilibria as a parameter changes: branches round folds, with folds and Hopf points located."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurodyn.analysis.branch import Branch, Point
from neurodyn.analysis.linearised import DECLARE_WITHOUT, Linearised, linearised
from neurodyn.analysis.spectrum import Complex, variables
from neurodyn.checks import flag, number, positive, users, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.axes import unit_dims
from neurodyn.network.network import Network
from neurodyn.progress import Bar
from neurodyn.simulation.trajectory import unit_coordinates
from neurodyn.solvers.base import steady
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.system.binding import bound
from neurodyn.system.bound import check_network
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.system.own import looked_at_with

_KEPT = 4
"""How many linearisations are kept: those at a point, and at its neighbours in the parameter."""
_MODES = 6
"""How many eigenvalues are returned along a branch."""
_NEUTRAL = 1e-8
"""How close to the imaginary axis, relative to the largest, an eigenvalue is on either side of it."""
_AT_ONCE = 1e-3
"""How close, relative to the step that they are in, eigenvalues cross that are taken to do so at one point."""


class _Special(NamedTuple):
    kind: str
    point: Point
    frequency: float


def continuation(
    declare: Callable[[float], Network],
    start: float,
    stop: float,
    inputs: Inputs = None,
    targets: Targets = None,
    *,
    initial: Starts | None = None,
    step: float = 0.05,
    most: int = 1000,
    progress: bool | None = None,
) -> xr.Dataset:
    """Follow an equilibrium as a parameter p goes from one value to another, by its arclength, and so round folds.

    The branch 0 = F(x, p) is followed in the metric ds² = |dx|²/n + (dp / |stop − start|)², n units, by a predictor
    along its tangent and Newton's method across it (Keller), until p leaves [start, stop] on either side. Between
    neighbouring points, folds (dp/ds = 0), Hopf points (a pair ±iω of eigenvalues) and branch points (a real eigenvalue
    crosses 0 without a fold) are located by Brent's method; several that coincide are one point.

    Parameters
    ----------
    declare
        `declare(p)` returns the network at p; networks differ in numbers alone.
    start, stop
        Where p begins and ends.
    inputs, targets
        As for `nd.simulate`, of one sample; without noise, and with data that stand still.
    initial
        Near which equilibrium to begin: populations by name, the others where they start. By default near the one that
        the dynamics reach at `start`.
    step
        The longest step in arclength.
    most
        The most points.
    progress
        As for `nd.simulate`.

    Returns
    -------
    xarray.Dataset
        Over `arc`, with the coordinate `parameter`: each dynamic population, with its own dimensions; `stable`,
        `abscissa` (the largest Re λ) and over `mode` the rightmost eigenvalues' `growth`, Re λ, and `frequency`, Im λ;
        and `eigenvalue_residual`, beyond 500 units that of Arnoldi's method. Over `point`, for each one located: `kind`
        ("fold", "hopf" or "branch"), `arc_at`, `parameter_at`, `frequency_at` (ω of a Hopf point, 0 elsewhere), and
        `<population>_at`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or no equilibrium is found at `start`.
    DivergenceError
        If no step leads on.

    Warns
    -----
    RuntimeWarning
        If `most` points do not suffice; or where eigenvalues have crossed the imaginary axis and no point was located,
        as where a step leads to another branch nearby.

    References
    ----------
    H. B. Keller (1977); Y. A. Kuznetsov, Elements of Applied Bifurcation Theory (2004), §10.

    Examples
    --------
    dx/dt = p + x − x³ folds at p = ±2/√27:

    >>> import neurodyn as nd, torch
    >>> def declare(p):
    ...     cubic = nd.Pointwise(lambda x: 2 * x - x**3)
    ...     populations = [nd.Population("b", 1, clamp=nd.Constant(p)), nd.Population("x", 1, initial=-1.5)]
    ...     return nd.Network("fold", populations, [nd.Coupling("x", "x", cubic), nd.Coupling("b", "x")])
    >>> branch = nd.analysis.continuation(declare, -1.0, 1.0)
    >>> branch.kind.values.tolist(), branch.parameter_at.values.round(4).tolist()
    (['fold', 'fold'], [0.3849, -0.3849])
    """
    if not callable(declare) or isinstance(declare, Network):
        raise InvalidTypeError(
            f"declare must be a function of the parameter that returns a Network, not {type(declare).__name__}"
        )
    start, stop = number("start", start), number("stop", stop)
    if start == stop:
        raise InvalidValueError(f"stop: the parameter goes from {start:g} to another value")
    step, most = positive("step", step), whole("most", most, least=2)
    if progress is not None:
        flag("progress", progress)
    scan = _Scan(declare, start, stop, inputs, targets, initial)
    branch = Branch(scan, scan.near)
    first = branch.first(scan.near[0].double().cpu().numpy(), 1.0)
    if first is None:
        raise InvalidValueError(
            f"start: Newton's method finds no equilibrium at {start:g} from where the dynamics lead; give one near by "
            "initial="
        )
    points = list(Bar(branch.points(first, step, most), wanted=progress, unit="point", desc=scan.network.name))
    if len(points) == most and 0.0 < points[-1].place[-1] < 1.0:
        warnings.warn(
            f"continuation: after {most} points the parameter is {scan.parameter(points[-1]):g}, and the branch goes "
            "on; take a longer step=, or more by most=",
            RuntimeWarning,
            stacklevel=2,
        )
    special: list[_Special] = []
    for pair in pairwise(points):
        located = list(_between(branch, *pair))
        if not located and _crossed(*pair):
            ends = " to ".join(f"{scan.parameter(point):.6g}" for point in pair)
            warnings.warn(
                f"continuation: the stability changes at a parameter of {ends}, and no point is found where it does; "
                "the step may lead to another branch: take a shorter step=",
                RuntimeWarning,
                stacklevel=2,
            )
        special += located
    return scan.dataset(points, special)


class _Scan:
    """The networks at each parameter, bound to the same data."""

    def __init__(
        self,
        declare: Callable[[float], Network],
        start: float,
        stop: float,
        inputs: Inputs,
        targets: Targets,
        initial: Starts | None,
    ) -> None:
        self._declare, self._start, self._span = declare, start, stop - start
        self._inputs, self._targets = inputs, targets
        self._kept: dict[float, Linearised] = {}
        """The linearisations that have been asked for last."""
        self.network = self._declared(start)
        with bound(self.network, inputs, targets, initial=initial, still="a continuation") as system, torch.no_grad():
            system.refuse_delays("a continuation", DECLARE_WITHOUT)
            if system.bounds:
                raise InvalidValueError(
                    f"population {next(iter(system.bounds))} has bounds, at which a branch has corners: a continuation "
                    "takes none"
                )
            if system.samples != 1:
                raise InvalidValueError(f"inputs: a continuation takes one sample, and there are {system.samples}")
            state = system.initial_state()
            if initial is None and system.dynamic:
                with warnings.catch_warnings():  # Newton's method goes on from wherever this ends
                    warnings.simplefilter("ignore", RuntimeWarning)
                    state, _ = to_equilibrium(system, steady())
        about = self(0.0)
        self.near: Tensor = about.field.rows(state.activity)

    def _declared(self, p: float) -> Network:
        with users("declare"):
            network = self._declare(p)
        check_network(network)
        return network

    def __call__(self, share: float) -> Linearised:
        """Return the linearisation at a parameter."""
        if share not in self._kept:
            network = self._declared(self._start + share * self._span)
            looked_at_with(network, self.network)
            with linearised(network, self._inputs, self._targets, None, "continuation") as about:
                kept = about
            first = next(iter(self._kept.values()), kept).system
            if kept.system.dynamic != first.dynamic or kept.system.shapes != first.shapes:
                raise InvalidValueError(
                    f"declare: at {self._start + share * self._span:g} the network has other dynamic populations than "
                    f"at {self._start:g}; let networks differ in numbers alone"
                )
            if len(self._kept) == _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[share] = kept
        return self._kept[share]

    def parameter(self, point: Point) -> float:
        """Return p at a point."""
        return self._start + float(point.place[-1]) * self._span

    def dataset(self, points: Sequence[Point], special: Sequence[_Special]) -> xr.Dataset:
        """Return what was found, labelled."""
        system, widths = self(0.0).system, self(0.0).field.widths
        located = [each.point for each in special]
        spectra = [point.spectrum for point in points]
        plain = {"units": "1"}
        arclength, parameter = ({**plain, "long_name": what} for what in ("arclength", "parameter"))
        critical = {"units": "1/tau", "long_name": "angular frequency of the critical pair"}
        data: dict[str, Any] = {
            **variables("arc", spectra, min(_MODES, len(spectra[0].values))),
            "kind": ("point", np.array([each.kind for each in special], dtype="U6"), {"long_name": "kind of point"}),
            "arc_at": ("point", [point.arc for point in located], arclength),
            "parameter_at": ("point", [self.parameter(point) for point in located], parameter),
            "frequency_at": ("point", [each.frequency for each in special], critical),
        }
        coordinates: dict[str, Any] = {
            "arc": ("arc", [point.arc for point in points], arclength),
            "parameter": ("arc", [self.parameter(point) for point in points], parameter),
        }
        begin = 0
        for name, width in zip(system.dynamic, widths, strict=True):
            shape, dims = system.shapes[name], unit_dims(name, system.shapes[name])
            coordinates |= unit_coordinates(name, shape)
            described = {**plain, "long_name": f"activity of population {name} at equilibrium"}
            for along, where, key in (("arc", points, name), ("point", located, f"{name}_at")):
                rows = np.array([point.place[begin : begin + width] for point in where])
                data[key] = ((along, *dims), rows.reshape(len(where), *shape), described)
            begin += width
        attributes = {"network": self.network.name, "equations": self.network.equations()}
        return xr.Dataset(data, coordinates, attributes)


def _between(branch: Branch, one: Point, two: Point) -> Iterator[_Special]:
    """Yield the folds, Hopf points and branch points between two neighbouring points."""
    found: list[_Special] = []
    folds = one.tangent[-1] * two.tangent[-1] < 0
    if folds:
        found += _located(branch, one, two, "fold", lambda point: float(point.tangent[-1]))
    for kind, pair in (("hopf", True), ("branch", False)):
        few, many = sorted(_unstable(point, pair) for point in (one, two))
        if (pair and (many - few) % 2) or (folds and not pair and many - few == 1):
            continue
        for place in range(few, many, 2 if pair else 1):
            for each in _located(branch, one, two, kind, partial(_growth, pair=pair, place=place)):
                near = (its for its in found if abs(its.point.arc - each.point.arc) <= _AT_ONCE * (two.arc - one.arc))
                if all(pair != (its.kind == "hopf") for its in near):
                    found.append(each)
    yield from sorted(found, key=lambda each: each.point.arc)


def _crossed(one: Point, two: Point) -> bool:
    """Tell whether two points have different numbers of unstable eigenvalues, neutral ones aside."""
    certain, possible = [], []
    for point in (one, two):
        growth = point.spectrum.values.real
        neutral = _NEUTRAL * float(np.abs(point.spectrum.values).max())
        certain.append(int((growth > neutral).sum()))
        possible.append(int((growth > -neutral).sum()))
    return certain[0] > possible[1] or certain[1] > possible[0]


def _unstable(point: Point, pair: bool) -> int:
    return int((_values(point, pair).real > 0).sum())


def _values(point: Point, pair: bool) -> Complex:
    """Return the eigenvalues that come in pairs, or the real ones, the rightmost first."""
    values = point.spectrum.values
    chosen: Complex = values[(values.imag != 0) == pair]
    return chosen


def _growth(point: Point, *, pair: bool, place: int) -> float:
    """Return the real part of one of these; not a number if there are fewer.

    The one in each place crosses the imaginary axis by itself, however close the others are to it.
    """
    values = _values(point, pair)
    return float(values[place].real) if place < len(values) else np.nan


def _frequency(point: Point) -> float:
    """Return the angular frequency of the pair that is closest to the imaginary axis."""
    values = _values(point, True)
    return float(abs(values[np.abs(values.real).argmin()].imag))


def _located(branch: Branch, one: Point, two: Point, kind: str, test: Callable[[Point], float]) -> Iterator[_Special]:
    """Yield the point where a test function crosses 0, if it does so between two points."""
    from scipy.optimize import brentq  # here, because it takes long to import

    known = {0.0: one, 1.0: two}
    length = two.arc - one.arc

    def value(share: float) -> float:
        if share not in known:
            found = branch.at(one, share * length)
            if found is None:
                return np.nan
            known[share] = found[0]
        return test(known[share])

    ends = value(0.0), value(1.0)
    if not ends[0] * ends[1] < 0:
        return
    try:
        share = float(brentq(value, 0.0, 1.0, xtol=branch.resolution, rtol=1e-13))
    except ValueError:  # the test function has no value in between
        return
    if not abs(value(share)) <= 1e-3 * max(map(abs, ends)):
        return  # it jumped across 0
    point = known[share]
    yield _Special(kind, point, _frequency(point) if kind == "hopf" else 0.0)

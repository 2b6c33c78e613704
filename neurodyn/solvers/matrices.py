"""Linear systems whose samples share one matrix, under signals: exact from one piece of time to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder, copies, in_pieces
from neurodyn.solvers.flow import Exponentials, Flow
from neurodyn.solvers.linear import LinearPart, rates
from neurodyn.system.couplings import couple_rows
from neurodyn.system.entering import Entering
from neurodyn.system.state import State
from neurodyn.system.system import System

_MOST_NUMBERS = 2**22
"""How many numbers the matrix, or what is held of a block of pieces, has at most."""
_UNIT = 2.0**10
"""What the matrix is read off: of 1, offsets of the maps would round what they make."""
ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""How close two lengths of time are, relative to the end of the run, that are one."""


def matrix_of(system: System) -> Tensor | None:
    """Return A of dx/dt = xA + b, for all dynamic units of a sample in a row, which all samples share.

    Returns
    -------
    Tensor or None
        Shape (unit, unit), or (member, unit, unit) of stacked networks; None where samples differ in it, or it is too
        large.
    """
    members, units = system.network.members, system.size // system.samples
    samples = system.samples // members
    if not units or members * units**2 > _MOST_NUMBERS:
        return None
    count = -(-units // samples)
    of_units = torch.zeros(count * samples, units, dtype=system.dtype, device=system.device)
    of_units.diagonal().fill_(_UNIT)
    found = _image(system, of_units.view(count, 1, samples, units).expand(-1, members, -1, -1).flatten(1, 2))
    matrix = _of_members(system, found).reshape(members, count * samples, units)[:, :units] / _UNIT
    if samples > 1:
        generator = torch.Generator().manual_seed(0)
        some = _UNIT * torch.randn(1, system.samples, units, generator=generator, device="cpu", dtype=torch.float64).to(
            matrix
        )
        found, some = (_of_members(system, rows).squeeze(1) for rows in (_image(system, some), some))
        sizes = some.abs() @ matrix.abs()
        offset = LinearPart(system).offset
        if offset is not None:
            sizes += offset.abs().amax()
        if not bool(((found - some @ matrix).abs() <= units * torch.finfo(system.dtype).eps * sizes).all()):
            return None
    return matrix if members > 1 else matrix[0]


def by_matrix(
    system: System,
    matrix: Tensor,
    state: State,
    ends: NDArray[np.float64],
    moments: NDArray[np.float64],
    recorder: Recorder,
) -> int:
    """Record x piece by piece, leave the end in `state`, and count products with A.

    All that drives contribute in the pieces of one length is one product; from piece to piece goes one of the states
    with e^{tA} where its length recurs, and the terms of a series otherwise.

    Parameters
    ----------
    system
        A linear system of that matrix.
    matrix
        A, as of `matrix_of`.
    state
        x(0).
    ends
        When the pieces begin and end, increasing.
    moments
        The times to record.
    recorder
        Where the states go.
    """
    members, duration = system.network.members, float(ends[-1])
    entering = Entering(system, duration)
    dtype = torch.promote_types(system.dtype, torch.float32)
    flow = Flow(matrix, dtype, ramped=entering.ramped)

    def in_rows(rows: Tensor) -> Tensor:
        found = _of_members(system, rows).to(dtype)
        return found if members > 1 else found[0]

    def in_row(state: State) -> Tensor:
        return in_rows(torch.cat([block.flatten(1) for block in state.blocks], dim=1)[None])

    still, x = in_row(entering.still), in_row(state).squeeze(-3)
    most = max(1, _MOST_NUMBERS // (4 * max(1, system.size)))
    for bounds, own in in_pieces(ends, moments, most):
        lengths, at = np.diff(bounds), entering.moments(bounds)
        drives = in_rows(_rows(system, entering.at(at), len(at))).add_(still)
        drive, rise = drives[..., :: entering.stride, :, :][..., : len(lengths), :, :], None
        if entering.ramped:
            spans = torch.as_tensor(lengths, dtype=dtype, device=system.device)[:, None, None]
            rise = (drives[..., 1 :: entering.stride, :, :] - drive) / spans
        block = _Block(flow, drive, rise, duration)
        states = block.along(x, lengths)
        x = states[..., -1, :, :]
        if len(own):
            places = np.searchsorted(bounds, own, side="right") - 1
            found = block.inside(states, places, own - bounds[places])
            recorder.fill(own, copies(_flat(system, found)), bounds[np.minimum(places, len(lengths) - 1)])
    system.timeline.enter(float(ends[-2]))
    state.flat.copy_(_flat(system, x.unsqueeze(-3))[0])
    return flow.products


class _Block:
    """Some pieces of time in a row.

    Parameters
    ----------
    flow
        The flow.
    drive, rise
        b and r of each piece, shape (…, piece, sample, unit).
    duration
        The end of the run.
    """

    def __init__(self, flow: Flow, drive: Tensor, rise: Tensor | None, duration: float) -> None:
        self._flow, self._drive, self._rise = flow, drive, rise
        self._tolerance = ROUNDING * duration

    def along(self, x: Tensor, lengths: NDArray[np.float64]) -> Tensor:
        """Return x at the starts of all pieces, given the first, and at the end, shape (…, piece + 1, sample, unit)."""
        drive, rise = self._drive, self._rise
        states = drive.new_empty(*drive.shape[:-3], drive.shape[-3] + 1, *drive.shape[-2:])
        forced = torch.empty_like(drive)
        kinds, kind_of = alike(lengths, self._tolerance)
        pays = self._flow.recurring(kinds, np.bincount(kind_of), drive.shape[-2], apart=True)
        known: list[Exponentials | None] = [None] * len(kinds)
        for kind, length in enumerate(kinds.tolist()):
            if pays[kind]:
                known[kind] = its = self._flow.exponentials(length)
                those = np.flatnonzero(kind_of == kind)
                forced[..., those, :, :] = self._forced(its, those)
        starts, forces, drives = states.unbind(-3), forced.unbind(-3), drive.unbind(-3)
        rises = [None] * len(drives) if rise is None else rise.unbind(-3)
        spans = drive.new_tensor(kinds)[:, None, None].unbind()
        add_product = torch.addmm if x.ndim == 2 else torch.baddbmm
        starts[0].copy_(x)
        for place, kind in enumerate(kind_of.tolist()):
            its, after = known[kind], starts[place + 1]
            if its is not None:
                add_product(forces[place], starts[place], its.of_state, out=after)
                continue
            longest = float(kinds[kind])
            after.copy_(self._flow.series(starts[place], drives[place], rises[place], spans[kind], longest))
        return states

    def inside(self, states: Tensor, places: NDArray[np.int64], offsets: NDArray[np.float64]) -> Tensor:
        """Return x so much after the starts of some pieces, shape (…, time, sample, unit).

        Parameters
        ----------
        states
            As `along` returns.
        places
            The pieces; beyond the last, its end, of no offset.
        offsets
            How much later.
        """
        found = states[..., places, :, :]
        kinds, kind_of = alike(offsets, self._tolerance)
        counts = np.bincount(kind_of)
        pays = self._flow.recurring(kinds, counts, states.shape[-2], apart=False)
        for kind, offset in enumerate(kinds.tolist()):
            if offset > 0.0 and pays[kind]:
                these = np.flatnonzero(kind_of == kind)
                its = self._flow.exponentials(offset)
                moved = _times(states[..., places[these], :, :], its.of_state)
                found[..., these, :, :] = moved.add_(self._forced(its, places[these]))
        others = np.flatnonzero(~np.array(pays)[kind_of] & (kinds[kind_of] > 0.0))
        if len(others):
            samples = states.shape[-2]
            spans = states.new_tensor(kinds[kind_of[others]]).repeat_interleave(samples)[:, None]
            those = places[others]
            rise = None if self._rise is None else self._rise[..., those, :, :].flatten(-3, -2)
            moved = self._flow.series(
                states[..., those, :, :].flatten(-3, -2),
                self._drive[..., those, :, :].flatten(-3, -2),
                rise,
                spans,
                float(offsets[others].max()),
            )
            found[..., others, :, :] = moved.view(*moved.shape[:-2], -1, samples, moved.shape[-1])
        return found

    def _forced(self, its: Exponentials, places: NDArray[np.int64]) -> Tensor:
        forced = _times(self._drive[..., places, :, :], its.of_drive)
        if self._rise is not None and its.of_rise is not None:
            forced += _times(self._rise[..., places, :, :], its.of_rise)
        return forced


def _times(states: Tensor, matrix: Tensor) -> Tensor:
    """Return the products of states, shape (…, piece, sample, unit), with a matrix, in one."""
    product: Tensor = states.flatten(-3, -2) @ matrix
    return product.view_as(states)


def alike(values: NDArray[np.float64], tolerance: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the different values, increasing, and which of them each one is but for rounding."""
    order = np.argsort(values, kind="stable")
    new = np.diff(values[order], prepend=-np.inf) > tolerance
    which = np.empty(len(values), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return values[order][new], which


def _image(system: System, rows: Tensor) -> Tensor:
    """Return A of several states side by side, shape (row, sample, unit) both."""
    blocks = torch.split(rows, _widths(system), dim=-1)
    named = {
        name: block.reshape(*rows.shape[:2], *system.shapes[name])
        for name, block in zip(system.dynamic, blocks, strict=True)
    }
    image = couple_rows(system, system.new_state(system.new_state().flat.zero_()), named)
    own = rates(system)
    return torch.cat([(image.get(name, 0.0) - own[name] * named[name]).flatten(2) for name in system.dynamic], dim=-1)


def _rows(system: System, blocks: Mapping[str, Tensor], count: int) -> Tensor:
    """Return so many states side by side, shape (row, sample, unit); populations that are left out are 0."""
    units = system.size // system.samples
    rows = torch.zeros(count, system.samples, units, dtype=system.dtype, device=system.device)
    for name, part in zip(system.dynamic, torch.split(rows, _widths(system), dim=-1), strict=True):
        if name in blocks:
            part.copy_(blocks[name].flatten(2))
    return rows


def _widths(system: System) -> list[int]:
    return [(place.stop - place.start) // system.samples for _, place in system.places()]


def _of_members(system: System, rows: Tensor) -> Tensor:
    """Return states side by side, shape (row, sample, unit), network by network, (member, row, sample, unit)."""
    return rows.view(len(rows), system.network.members, -1, rows.shape[-1]).transpose(0, 1)


def _flat(system: System, states: Tensor) -> Tensor:
    """Return flat states, shape (time, n), of those in rows, shape (…, time, sample, unit)."""
    out = torch.empty(states.shape[-3], system.size, dtype=system.dtype, device=system.device)
    by_time = states if states.ndim == 3 else states.transpose(0, 1)
    for (_, place), block in zip(system.places(), torch.split(by_time, _widths(system), dim=-1), strict=True):
        out[:, place].view(block.shape).copy_(block)
    return out

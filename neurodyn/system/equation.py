"""One population's equation, with its couplings' maps bound to operating points."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neurodyn.network.coupling import Coupling
from neurodyn.network.maps import Activity, OperatingPoints, Term, write_scaled
from neurodyn.network.vectors import Vector, is_number
from neurodyn.network.wrapping import Scaled


@dataclass
class Entry:
    """A coupling as it stands in its target's equation."""

    coupling: Coupling
    term: Term
    """Its map, bound."""
    sources: str | tuple[str, ...]
    """What the map is bound to: the coupling's sources, or their echoes."""
    target: str
    """Likewise."""

    def __post_init__(self) -> None:
        gain = self.coupling.gain
        self.gain = 1.0 if isinstance(gain, Tensor) else gain
        self.term = self._scaled(self.term)
        single = self.coupling.map.homogeneous and len(self.coupling.sources) == 1
        self.silenced_by = self.coupling.sources[0] if single else None
        """The population whose silence makes the term 0."""
        self.reads = self.coupling.map.reads(self.sources, self.target)
        """The populations, or their echoes, whose activity the term depends on."""

    def renew(self, points: OperatingPoints) -> None:
        """Take up another batch, and weights that may have changed."""
        if not self.term.renew():
            self.term = self._scaled(self.coupling.map.bind(points, self.sources, self.target))

    def each(self, activity: Activity, rows: Mapping[str, Tensor], points: OperatingPoints) -> Tensor | None:
        """Return gain · map of several states side by side, shape (row, sample, …).

        Parameters
        ----------
        activity
            Every population's activity; those of held populations, and the shapes of the others, count.
        rows
            The activity of the populations that may not be 0, shape (row, sample, …); what rows lack at the end is 0.
        points
            The operating points of the maps.

        Returns
        -------
        Tensor or None
            To be read; as many rows as the longest of those that the map reads, None where it reads none.
        """
        read = {name: rows[name] for name in self.reads if name in rows}
        if not read:
            return None
        if len(self.reads) == 1:
            value = self.term.each(activity, *read.values())
            if value is not None:
                return value if self.gain == 1.0 else self.gain * value
        at = dict(activity)
        out = activity[self.target].new_zeros(max(map(len, read.values())), *activity[self.target].shape)
        for place, total in enumerate(out):
            for name, row in read.items():
                at[name] = row[place] if place < len(row) else torch.zeros_like(row[0])
            points.expire(read)
            self.term.add(at, total, self.gain)
        points.expire(read)
        return out

    def each_without_offset(
        self, activity: Activity, rows: Mapping[str, Tensor], points: OperatingPoints
    ) -> Tensor | None:
        """Return the linear part of gain · map, of one that is linear in what `rows` has; as `each`."""
        value = self.each(activity, rows, points)
        if value is None or self.silenced_by is not None:
            return value
        zeros = {name: torch.zeros_like(rows[name][:1]) for name in self.reads if name in rows}
        offset = self.each(activity, zeros, points)
        assert offset is not None, "it reads what it has just read"
        return value - offset

    def _scaled(self, term: Term) -> Term:
        return Scaled(term, self.coupling.gain.detach()) if isinstance(self.coupling.gain, Tensor) else term


@dataclass
class Equation:
    """dx/dt = scale · (−leak x + Σ gain · map), with 1/τ as the scale; or 1/leak · Σ gain · map of an instantaneous x.

    The sum is scaled last: divided gains would round, and what balances exactly would no longer do so.
    """

    name: str
    scale: Vector
    leak: Vector
    """The factors, numbers or one for each unit; the leak of an instantaneous population is 0 here."""
    constant: Tensor | None
    """What the entries that are `held` contribute, shape (sample, …); None if there is none."""
    held: list[Entry]
    moving: list[Entry]
    """The couplings from held populations alone, and the others."""
    driven: list[Entry] = field(default_factory=list)
    """Those from clamped populations of which one at least varies in time. What they contribute is part of `constant`,
    too, and worked out anew by `drive`."""
    late: list[Entry] = field(default_factory=list)
    """Those of the moving ones that read nothing but the past."""

    def __post_init__(self) -> None:
        late = set(map(id, self.late))
        self._prompt = [entry for entry in self.moving if id(entry) not in late]
        self._arrived: Tensor | None = None
        self._base = torch.empty_like(self.constant) if self.driven and self.constant is not None else None
        """What the held populations contribute to the constant, where driven ones do, too."""
        # Its own activity must last until all of the sum has read it.
        self._recurrent = any(self.name in entry.reads for entry in self.moving)

    def renew(self, points: OperatingPoints) -> None:
        """Take up another batch, and weights that may have changed."""
        for entry in (*self.held, *self.driven, *self.moving):
            entry.renew(points)

    def hold(self, clamped: Mapping[str, Tensor]) -> None:
        """Work out the constant for the activity of the held populations."""
        if self.constant is not None:
            activity = {**clamped, self.name: self.constant}
            self.constant.zero_()
            for entry in self.held:
                entry.term.add(activity, self.constant, entry.gain)
            if self._base is not None:
                self._base.copy_(self.constant)
                self.drive(clamped)

    def stand(self, out: Tensor) -> None:
        """Write what the held populations contribute to the right side into `out`."""
        held = self._base if self.driven else self.constant
        if held is None:
            out.zero_()
        else:
            torch.mul(held, self.scale, out=out)

    def drive(self, clamped: Mapping[str, Tensor]) -> None:
        """Work out the constant anew, as populations that drive it have moved."""
        assert self.constant is not None, "a driven equation has one"
        assert self._base is not None
        activity = {**clamped, self.name: self.constant}
        self.constant.copy_(self._base)
        for entry in self.driven:
            entry.term.add(activity, self.constant, entry.gain)

    def arriving(self, activity: Activity, rows: Mapping[str, Tensor], points: OperatingPoints) -> Tensor:
        """Return what the late entries contribute at several times, shape (time, sample, …); as `Entry.each`."""
        values = [entry.each(activity, rows, points) for entry in self.late]
        total, *others = (value for value in values if value is not None)
        for value in others:
            total = total + value
        return total

    def arrive(self, value: Tensor) -> Tensor:
        """Take what the late entries contribute at the time at hand, and return it with all that is constant."""
        self._arrived = value if self.constant is None else value + self.constant
        return self._arrived

    def await_arrival(self) -> None:
        """Ask the late entries again."""
        self._arrived = None

    @property
    def _still(self) -> Tensor | None:
        return self.constant if self._arrived is None else self._arrived

    def evaluate(self, activity: Mapping[str, Tensor], out: Tensor, silent: Collection[str] = ()) -> None:
        """Write the right side into `out`, without what comes from the populations that are `silent`."""
        self._sum(activity, out, self._still, self.leak, silent)
        self._rescale(out)

    def balance(self, activity: Mapping[str, Tensor], out: Tensor, leak: Vector) -> None:
        """Write into `out`, which may be x itself, where x balances its leak: x = Σ gain · map / leak."""
        total = torch.empty_like(out) if self._recurrent else out
        self._sum(activity, total, self.constant, 0.0, ())
        if isinstance(leak, Tensor):
            total.div_(leak)
        elif leak != 1.0:
            total.mul_(1.0 / leak)
        if total is not out:
            out.copy_(total)

    def couple(self, activity: Mapping[str, Tensor], out: Tensor) -> None:
        """Write scale · Σ gain · map into `out`, of the moving entries."""
        self._sum(activity, out, None, 0.0, ())
        self._rescale(out)

    def each(self, activity: Activity, rows: Mapping[str, Tensor], points: OperatingPoints) -> Tensor | None:
        """Return what the states that `rows` has contribute to the right side, without constants; as `Entry.each`."""
        every = [entry.each(activity, rows, points) for entry in self.driven]
        every += [entry.each_without_offset(activity, rows, points) for entry in self.moving]
        values = [value for value in every if value is not None]
        if not values:
            return None
        total = max(values, key=len)
        if len(values) > 1:
            others = [value for value in values if value is not total]
            total = total.clone()
            for value in others:
                total[: len(value)] += value
        return total if is_number(self.scale, 1.0) else total * self.scale

    def evaluate_with_jump(self, activity: Mapping[str, Tensor], out: Tensor, jump: Tensor) -> None:
        """Do as `evaluate`, and write into `jump` by how much the right side jumps at each unit's kink."""
        jump.zero_()
        self._sum(activity, out, self.constant, self.leak, (), jump)
        self._rescale(out)
        self._rescale(jump)

    def norms(self, activity: Activity, rows: int) -> dict[str, float | Tensor] | None:
        """Return a bound on what ‖·‖₂ of each population that may move adds to that of a sample, constants aside.

        Parameters
        ----------
        activity
            Every population's activity, of which the shapes count.
        rows
            How many samples the maps are applied to: the bounds take no longer than that.

        Returns
        -------
        dict or None
            By the population that is read; None where one is not known.
        """
        factor = self.scale.abs().max() if isinstance(self.scale, Tensor) else abs(self.scale)
        norms: dict[str, float | Tensor] = {}
        for entry in self.moving:
            own = entry.term.norm(activity, rows) if len(entry.reads) == 1 else None
            if own is None:
                return None
            norms[entry.reads[0]] = norms.get(entry.reads[0], 0.0) + factor * abs(entry.gain) * own
        return norms

    def _sum(
        self,
        activity: Mapping[str, Tensor],
        out: Tensor,
        constant: Tensor | None,
        leak: Vector,
        silent: Collection[str],
        jump: Tensor | None = None,
    ) -> None:
        entries = self.moving if self._arrived is None else self._prompt
        if silent:
            entries = [each for each in entries if each.silenced_by not in silent]
        leaks, leak = (leak, 0.0) if isinstance(leak, Tensor) else (None, leak)
        if constant is not None and leak:
            torch.add(constant, activity[self.name], alpha=-leak, out=out)
        elif leak:
            first = None
            if leak == 1.0 and entries and entries[0].gain == 1.0 and jump is None:
                first = entries[0].term.value(activity)
            if first is None:
                torch.mul(activity[self.name], -leak, out=out)
            else:
                torch.sub(first, activity[self.name], out=out)
                entries = entries[1:]
        elif jump is None:
            entries = self._begin(activity, out, constant, entries)
        elif constant is not None:
            out.copy_(constant)
        else:
            out.zero_()
        for entry in entries:
            if jump is None:
                entry.term.add(activity, out, entry.gain)
            else:
                entry.term.add_with_jump(activity, out, entry.gain, jump)
        if leaks is not None:
            out.addcmul_(activity[self.name], leaks, value=-1.0)

    def _rescale(self, out: Tensor) -> None:
        if not is_number(self.scale, 1.0):
            out.mul_(self.scale)

    @staticmethod
    def _begin(
        activity: Mapping[str, Tensor], out: Tensor, constant: Tensor | None, entries: list[Entry]
    ) -> list[Entry]:
        """Write the first summands into `out`, two at once where one has the factor 1; return the entries left."""
        if constant is None and not entries:
            out.zero_()
            return entries
        first, gain = constant, 1.0
        if first is None:
            own, source = entries[0].term.value(activity), entries[0].sources
            if own is None:
                entries[0].term.assign(activity, out, entries[0].gain)
                return entries[1:]
            if isinstance(source, tuple) or own is not activity[source]:  # what is made may not last
                write_scaled(own, entries[0].gain, out)
                return entries[1:]
            first, gain, entries = own, entries[0].gain, entries[1:]
        second = entries[0].term.value(activity) if entries and 1.0 in (gain, entries[0].gain) else None
        if second is None:
            write_scaled(first, gain, out)
            return entries
        if gain == 1.0:
            torch.add(first, second, alpha=entries[0].gain, out=out)
        else:
            torch.add(second, first, alpha=gain, out=out)
        return entries[1:]

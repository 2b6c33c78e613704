"""The structure of a network's dynamics, read off the declaration; solvers are chosen by it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from neurodyn.layers.windows import Windows
from neurodyn.network.coupling import Coupling
from neurodyn.network.network import Network
from neurodyn.network.stage_maps import Feedback, Forward
from neurodyn.network.vectors import Vector, largest_of, least_of, magnitude, uniform

if TYPE_CHECKING:
    import networkx as nx

_WEAK = 0.25
"""The strength of a coupling, in units of its target's leak, up to which it is weak."""


@dataclass(frozen=True)
class Structure:
    """What is known of dx/dt = F(x) from the declaration alone."""

    reads: Mapping[str, frozenset[str]]
    """The free populations that each free population's equation depends on, its own leak aside."""
    linear: bool
    """F is linear (or affine) in the state, which has no bounds, without a cycle of instantaneous populations."""
    acyclic: bool
    """No population depends on itself but through its leak, so that the Jacobian is triangular with −leak/τ on its
    diagonal: nilpotent coupling plus a leak; and none that lacks a leak rests at its bounds alone."""
    order: tuple[str, ...] | None
    """The order in which one sweep evaluates the equilibrium of an acyclic network; None otherwise."""
    weak_order: tuple[str, ...] | None
    """The order in which repeated sweeps evaluate a cyclic network all of whose cycles are closed by weak couplings,
    along the other couplings; None otherwise."""
    gradient_flow: bool
    """F = −∇E of an energy E, with each population's time constant as its metric."""
    smooth: bool
    """No population has bounds, and no coupling that is not linear has a known kink, as a rectifier or max pooling has,
    where F or its derivative jumps."""
    kinks_at_units: bool
    """F jumps, and nowhere else than in dx_i/dt as x_i itself passes 0, or becomes the largest of its window in max
    pooling: where a live `Feedback` ends in either. No population has bounds."""
    windows: Mapping[str, Windows]
    """The windows of each population that is read by their maxima, where `kinks_at_units`."""
    rate: float | None
    """The rate leak/τ that all dynamic populations share, where the network is linear and acyclic; None otherwise."""
    spectral_bound: float | None
    """The largest |λ| of the Jacobian, where the declaration fixes it (acyclic: max leak/τ); None otherwise."""


def read_structure(network: Network, clamped: Collection[str]) -> Structure:
    """Read the structure off a declaration.

    Parameters
    ----------
    network
        The declaration.
    clamped
        The names of the populations that are held in this run.
    """
    import networkx as nx  # here, because it takes long to import

    free = [p for p in network.populations if p.name not in clamped]
    couplings = [c for c in network.couplings if c.target not in clamped]
    graph = network.graph(p.name for p in free)
    bounded = [p for p in free if p.bounds is not None]
    acyclic = nx.is_directed_acyclic_graph(graph) and not any(p.leakless for p in bounded)
    linear = not bounded and not network.loops and all(_linear(c, clamped) for c in couplings)
    rates = [p.leak / p.tau for p in free if not p.instantaneous]
    alike = {uniform(rate) if isinstance(rate, Tensor) else rate for rate in rates}
    smooth = not bounded and all(_linear(c, clamped) or all(stage.smooth for stage in c.map.stages) for c in couplings)
    kinks = _kinks(couplings)
    at_units = (
        not smooth
        and not bounded
        and all(_jumps_at_units_alone(c, clamped) for c in couplings)
        and len(kinks) > 0
        and all(len(windows) == 1 for windows in kinks.values())
    )
    return Structure(
        reads={name: frozenset(graph.predecessors(name)) for name in graph},
        linear=linear,
        acyclic=acyclic,
        order=tuple(nx.topological_sort(graph)) if acyclic else None,
        weak_order=None if acyclic else _weak_order(graph, network, couplings),
        gradient_flow=_gradient_flow(network, clamped),
        smooth=smooth,
        kinks_at_units=at_units,
        windows={name: windows for name, (windows,) in kinks.items() if windows is not None} if at_units else {},
        rate=_number(next(iter(alike))) if linear and acyclic and len(alike) == 1 else None,
        spectral_bound=max(map(largest_of, rates), default=0.0) if acyclic else None,
    )


def common_structure(structures: Sequence[Structure]) -> Structure:
    """Return what is known of several networks that differ in numbers, so that one solver serves all."""
    first, *others = structures
    if all(other == first for other in others):
        return first
    bounds = [structure.spectral_bound for structure in structures]
    return replace(
        first,
        weak_order=first.weak_order if all(other.weak_order == first.weak_order for other in others) else None,
        gradient_flow=all(structure.gradient_flow for structure in structures),
        rate=first.rate if all(other.rate == first.rate for other in others) else None,
        spectral_bound=None if None in bounds else max(bound for bound in bounds if bound is not None),
    )


def structure_in_common(networks: Sequence[Network], clamped: Collection[str]) -> Structure:
    """Return what is known of several networks that differ in numbers alone.

    It is the common structure of each one's, of which all but the first are read only as far as numbers decide.
    """
    first, *others = networks
    known = read_structure(first, clamped)
    seen = {_numbers(first, clamped)}
    structures = [known]
    for other in others:
        numbers = _numbers(other, clamped)
        if numbers not in seen:
            seen.add(numbers)
            structures.append(read_structure(other, clamped))
        elif known.gradient_flow and not _gradient_flow(other, clamped):
            known = structures[0] = replace(known, gradient_flow=False)
    return common_structure(structures)


def _numbers(network: Network, clamped: Collection[str]) -> tuple[object, ...]:
    """Return what the numbers of a declaration decide of its structure, whether it is a gradient flow aside."""
    free = [p for p in network.populations if p.name not in clamped]
    rates = frozenset(_hashable(p.leak / p.tau) for p in free if not p.instantaneous)
    leaks = {p.name: least_of(p.leak) for p in free}
    strong = (largest_of(magnitude(c.gain)) > _WEAK * leaks[c.target] for c in network.couplings if c.target in leaks)
    return rates, any(p.leakless for p in free), tuple(strong)


def _hashable(value: Vector) -> object:
    return tuple(value.flatten().tolist()) if isinstance(value, Tensor) else value


def _weak_order(graph: nx.DiGraph[str], network: Network, couplings: Collection[Coupling]) -> tuple[str, ...] | None:
    import networkx as nx

    if any(network[name].leakless for name in graph):
        return None
    strong: nx.DiGraph[str] = nx.DiGraph()
    strong.add_nodes_from(graph)
    for coupling in couplings:
        if largest_of(magnitude(coupling.gain)) > _WEAK * least_of(network[coupling.target].leak):
            reads = coupling.reads
            strong.add_edges_from((read, coupling.target) for read in reads if read in graph)
    return tuple(nx.topological_sort(strong)) if nx.is_directed_acyclic_graph(strong) else None


def _number(rate: Vector) -> float | None:
    return None if isinstance(rate, Tensor) else float(rate)


def _linear(coupling: Coupling, clamped: Collection[str]) -> bool:
    reads = coupling.reads
    return coupling.map.linear or all(name in clamped for name in reads)


def _kinks(couplings: Iterable[Coupling]) -> dict[str, set[Windows | None]]:
    """Return the windows whose maxima feed back to each population; None among them for the kinks of units alone."""
    kinks: dict[str, set[Windows | None]] = {}
    for coupling in couplings:
        map_ = coupling.map
        if isinstance(map_, Feedback) and map_.jumps_at_units:
            kinks.setdefault(coupling.target, set()).add(map_.stage.windows)
    return kinks


def _jumps_at_units_alone(coupling: Coupling, clamped: Collection[str]) -> bool:
    """Tell whether a coupling is continuous, but for what becomes of a unit of its target at a kink of its own."""
    map_ = coupling.map
    if _linear(coupling, clamped) or all(stage.smooth for stage in map_.stages):
        return True
    if type(map_) is Forward:
        return map_.stage.continuous
    return type(map_) is Feedback and map_.jumps_at_units


def _gradient_flow(network: Network, clamped: Collection[str]) -> bool:
    """Tell whether every dynamic population follows −∂E/∂x of one energy.

    E sums c/2 ‖e‖² · leak over the instantaneous populations e, and leak/2 ‖x‖² and −gain x·y over the dynamic ones.
    For that, what enters x from e must be the adjoint of what enters e from x, times one factor −c a population e;
    and dynamic populations must be coupled symmetrically.
    """
    instantaneous = {p.name for p in network.populations if p.instantaneous} - set(clamped)
    couplings = [c for c in network.couplings if c.target not in clamped]
    if any(p.bounds is not None and p.name not in clamped for p in network.populations):
        return False
    if any(len(c.sources) > 1 and not set(c.sources) <= set(clamped) for c in couplings):
        return False
    gains = {id(c): uniform(c.gain) for c in couplings}
    if any(isinstance(gain, Tensor) for gain in gains.values()):
        return False
    upward = [c for c in couplings if c.target in instantaneous and c.source not in clamped]
    downward = [c for c in couplings if c.target not in instantaneous and c.source in instantaneous]
    lateral = [c for c in couplings if c.target not in instantaneous and c.source not in {*instantaneous, *clamped}]
    if any(c.source in instantaneous for c in upward) or not (upward or lateral):
        return False
    factors: dict[str, float] = {}
    for c in upward:
        back = [d for d in downward if (d.source, d.target) == (c.target, c.source) and d.map.adjoint_to(c.map)]
        if len(back) != 1:
            return False
        factor = float(-gains[id(back[0])] / gains[id(c)])
        if factor != factors.setdefault(c.target, factor):
            return False
    if len(downward) != len(upward) or any(factor < 0 for factor in factors.values()):
        return False
    for c in lateral:
        back = [d for d in lateral if (d.source, d.target) == (c.target, c.source) and d.map.adjoint_to(c.map)]
        # Several couplings may share the two populations: their gains add up.
        forth = [d for d in lateral if (d.source, d.target) == (c.source, c.target)]
        gain = sum(gains[id(d)] for d in forth if back and back[0].map.adjoint_to(d.map))
        if not back or sum(gains[id(d)] for d in back) != gain:
            return False
    return True

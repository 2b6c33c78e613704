"""Prospective sources u + τ du/dt: what they are made of.

As τ du/dt = −leak · u + Σ gain · map, the prospective activity is (1 − leak) · u + Σ gain · map: an instantaneous
population that the same couplings enter as u.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from neurodyn.errors import InvalidValueError
from neurodyn.network.coupling import Coupling, Prospective
from neurodyn.network.maps import Map
from neurodyn.network.pointwise import Identity
from neurodyn.network.population import Population
from neurodyn.network.stage_maps import Feedback
from neurodyn.network.vectors import is_number
from neurodyn.network.wrapping import Wrapping


@dataclass(frozen=True, eq=False)
class Anticipation(Population):
    """The instantaneous population that holds u + τ du/dt."""


def with_anticipations(
    populations: Sequence[Population], couplings: Sequence[Coupling]
) -> tuple[tuple[Population, ...], tuple[Coupling, ...]]:
    """Return the parts of a declaration, and those that its prospective sources are made of.

    Parameters
    ----------
    populations, couplings
        The declaration; what it has of these parts already is not made again.

    Raises
    ------
    ValueError
        If there is no such population, or it has no du/dt of its own.
    """
    sources = prospective_sources(couplings)
    if not sources:
        return tuple(populations), tuple(couplings)
    by_name = {population.name: population for population in populations}
    made: list[Population] = []
    entering: list[Coupling] = []
    for source in sources:
        if isinstance(by_name.get(source), Anticipation):
            continue
        population = _checked(source, by_name)
        made.append(Anticipation(str(source), population.size, tau=0.0))
        into = [coupling for coupling in couplings if coupling.target == population.name]
        entering += [replace(each, target=str(source), map=_kept_in_place(each.map, population.name)) for each in into]
        if not is_number(population.leak, 1.0):
            entering.append(Coupling(population.name, str(source), Identity(), 1.0 - population.leak))
    return (*populations, *made), (*couplings, *entering)


def prospective_sources(couplings: Iterable[Coupling]) -> tuple[Prospective, ...]:
    """Return the prospective sources that couplings read, each once."""
    read = [name for coupling in couplings for name in (*coupling.sources, *coupling.reads)]
    return tuple(dict.fromkeys(name for name in read if isinstance(name, Prospective)))


def _checked(source: Prospective, populations: dict[str, Population]) -> Population:
    name = source.population
    what = f"prospective source of population {name!r}"
    if name not in populations:
        raise InvalidValueError(f"{what}: there is no such population; there are {', '.join(populations)}")
    population = populations[name]
    if population.clamp is not None or population.instantaneous:
        raise InvalidValueError(
            f"{what}: it is {population.role}, and has no du/dt of its own; take a dynamic population"
        )
    for part, given in (("noise", population.noisy), ("bounds", population.bounds is not None)):
        if given:
            raise InvalidValueError(f"{what}: it has {part}, under which u + τ du/dt is no activity; leave {part} out")
    if population.size is None:
        raise InvalidValueError(f"{what}: its size is unknown; declare size=")
    return population


def _kept_in_place(map_: Map, population: str) -> Map:
    """Return a map whose live Jacobian is that at the population still, where another one receives it."""
    if isinstance(map_, Wrapping):
        return replace(map_, map=_kept_in_place(map_.map, population))
    if isinstance(map_, Feedback) and not map_.frozen and map_.at is None:
        return Feedback(
            map_.stage, weights=map_.weights, derivative=map_.derivative, argument=map_.argument, at=population
        )
    return map_

"""Couplings: what enters a population of the activity of others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from numbers import Real

from torch import Tensor, nn

from neurodyn.checks import not_negative
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Map
from neurodyn.network.pointwise import Identity, Pointwise
from neurodyn.network.stage_maps import OfStage
from neurodyn.network.vectors import ByValue, Vector, largest_of, least_of, vector
from neurodyn.network.wrapping import unwrapped


class Prospective(str):
    """A source u + τ du/dt: what a population will be about τ later, if what enters it stays as it is.

    It does not lag behind what enters u, with whose couplings it is instantaneous. It is recorded as `u_prospective`.

    Parameters
    ----------
    population
        The name of u, a dynamic population without noise and bounds.

    Raises
    ------
    TypeError
        If that is no name.

    References
    ----------
    P. Haider et al., "Latent equilibrium", NeurIPS (2021).

    Examples
    --------
    >>> import neurodyn as nd
    >>> populations = [nd.Population("i", 1, clamp=nd.Input()), nd.Population("u", 1, tau=5.0), nd.Population("r", 1)]
    >>> couplings = [nd.Coupling("i", "u"), nd.Coupling(nd.Prospective("u"), "r")]
    >>> print(nd.Network("prospective", populations, couplings).equations())
    i = input
    5 du/dt = −u + i
    dr/dt = −r + (u + τ du/dt)
    u_prospective = u + 5 du/dt
    """

    population: str

    def __new__(cls, population: str) -> Prospective:
        if not isinstance(population, str):
            raise InvalidTypeError(f"Prospective: the name of a population, not {type(population).__name__}")
        source = super().__new__(cls, f"{population}_prospective")
        source.population = population
        return source

    def __getnewargs__(self) -> tuple[str]:
        return (self.population,)

    def __repr__(self) -> str:
        return f"Prospective({self.population!r})"


@dataclass(frozen=True, eq=False)
class Coupling(ByValue):
    """A coupling: gain · map(source) enters the target.

    Parameters
    ----------
    source
        The name of the population that it comes from, or a tuple of several names, where the map takes several;
        `Prospective(name)` in place of a name takes u + τ du/dt.
    target
        The name of the population that it leads to.
    map
        What the target receives of the source's activity.
    gain
        The factor; a number, or a tensor of the target's shape, one for each of its units.
    delay
        d ≥ 0, in units of time: what enters the target at time t is the map of the sources' activity at t − d. Before
        time 0, it was what it is then. A live Jacobian in the map is that of the present.

    Examples
    --------
    >>> import neurodyn as nd
    >>> inhibition = nd.Coupling("a", "b", gain=-2)
    >>> print(f"{inhibition}: {inhibition.gain} · {inhibition.text}")
    a → b: -2 · a
    """

    source: str | tuple[str, ...]
    target: str
    map: Map = field(default_factory=Identity)
    gain: Vector = 1.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.source, (tuple, list)):
            sources = tuple(self.source)
            if not sources:
                raise InvalidValueError(f"coupling {sources} → {self.target}: at least one source")
            object.__setattr__(self, "source", sources[0] if len(sources) == 1 else sources)
        where = f"coupling {self}"
        for end in (*self.sources, self.target):
            if not isinstance(end, str):
                raise InvalidTypeError(f"{where}: source and target are names of populations, not {type(end).__name__}")
        if len(set(self.sources)) < len(self.sources):
            raise InvalidValueError(f"{where}: a source stands twice; name each once")
        kind = type(self.map).__name__
        if not isinstance(self.map, Map):
            raise InvalidTypeError(
                f"{where}: its map is a neurodyn Map such as Forward(stage), not {kind}{_map_meant(self.map)}"
            )
        for stage in self.map.stages:
            if not isinstance(stage, Stage):
                raise InvalidTypeError(
                    f"{where}: the attribute `stage` of {kind} is the nd.Stage that it uses, not "
                    f"{type(stage).__name__}; give what this is another name"
                )
        if len(self.sources) > 1 and not _takes_several(self.map):
            raise InvalidValueError(
                f"{where}: {kind} takes one source; several are for nd.Pointwise(function), or a map of one's own"
            )
        _check_arguments(self)
        self.map.describe(self.source, self.target)  # refuses a text that does not fit
        gain = vector(f"{where}: its gain", self.gain)
        if least_of(gain) == 0 == largest_of(gain):
            raise InvalidValueError(f"{where}: its gain must be finite and not 0, not {self.gain!r}")
        object.__setattr__(self, "gain", gain)
        object.__setattr__(self, "delay", not_negative(f"{where}: its delay", self.delay))

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the populations that it comes from."""
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the populations whose live activity it depends on."""
        return self.map.reads(self.source, self.target)

    @property
    def text(self) -> str:
        """What enters the target, but for the gain, as it stands in an equation."""
        ago = f"(t − {self.delay:g})" if self.delay else ""
        read = tuple(
            (f"({name.population} + τ d{name.population}/dt)" if isinstance(name, Prospective) else name) + ago
            for name in self.sources
        )
        text = self.map.describe(read if len(read) > 1 else read[0], self.target)
        for name in read:
            text = text.replace(f"({name})", name if name.startswith("(") else f"({name})")
        return text

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.sources))} → {self.target}"


def _map_meant(given: object) -> str:
    """Say which map was meant, where that can be told."""
    if isinstance(given, Stage):
        return "; write nd.Forward(stage)"
    if isinstance(given, nn.Module):
        of_torch = type(given).__module__.startswith("torch.nn.") and not list(given.children())
        return f"; write nd.Forward({f'nn.{given}' if of_torch else 'module'})"
    if isinstance(given, type) and issubclass(given, Map):
        return f"; that is the class: write {given.__name__}(…)"
    if isinstance(given, Tensor):
        return "; weights are those of a layer, as in nd.Forward(nn.Linear(…)), and a factor is gain="
    if isinstance(given, Real):
        return f"; write gain={given}"
    if callable(given) and not isinstance(given, type):
        return "; write nd.Pointwise(function)"
    return ""


def _check_arguments(coupling: Coupling) -> None:
    """Refuse a function, or a map of one's own, that does not take as many tensors as there are sources."""
    inner = unwrapped(coupling.map)
    if not _takes_several(inner):
        return
    function = inner.function if isinstance(inner, Pointwise) else inner.apply
    try:
        signature = inspect.signature(function)
    except ValueError:  # one of PyTorch's own
        return
    try:
        signature.bind(*coupling.sources)
    except TypeError as error:
        raise InvalidTypeError(
            f"coupling {coupling}: {type(inner).__name__} is given one tensor for each source, {len(coupling.sources)} "
            f"in all, and its function takes {signature}"
        ) from error


def _takes_several(map_: Map) -> bool:
    """Tell whether a map may be one of several sources: a function, or a map of someone's own."""
    return not isinstance(unwrapped(map_), (Identity, OfStage))

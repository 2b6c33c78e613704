"""Maps of the activity alone, unit by unit: the activity itself, and functions of one or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter

from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Activity, Map, Names, OperatingPoints, Term, names_of


@dataclass(frozen=True)
class Pointwise(Map):
    """f(source, …): a function of one or several sources, unit by unit.

    Parameters
    ----------
    function
        f, of one tensor a source, each of shape (sample, …), that returns one of that shape. As `Map.apply`, it
        depends on its arguments alone, and does not write into them.
    text
        How it stands in an equation, with a place {} for each source, such as "{} · {}"; by default the function's
        name, or f where it has none.

    Raises
    ------
    TypeError
        If there is no function, or the text is none.

    Examples
    --------
    >>> import neurodyn as nd
    >>> gated = nd.Coupling(("u", "x"), "y", nd.Pointwise(lambda u, x: u * x, text="{} · {}"))
    >>> populations = [nd.Population(name, 3) for name in "uxy"]
    >>> print(nd.Network("gated", populations, [gated]).equations().splitlines()[-1])
    dy/dt = −y + u · x
    """

    function: Callable[..., Tensor]
    text: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidTypeError(f"Pointwise: a function of tensors, not {type(self.function).__name__}")
        if isinstance(self.function, (Stage, nn.Module)) or (
            isinstance(self.function, type) and issubclass(self.function, nn.Module)
        ):
            raise InvalidTypeError("Pointwise: a function of tensors; a module or a stage is nd.Forward(module)")
        if self.text is not None and not isinstance(self.text, str):
            raise InvalidTypeError(f"text of Pointwise: text with a place {{}} for each source, not {self.text!r}")

    def apply(self, *sources: Tensor) -> Tensor:
        return self.function(*sources)

    def describe(self, source: Names, target: str) -> str:
        names = names_of(source)
        if self.text is None:
            name = getattr(self.function, "__name__", "f")
            return f"{name if name.isidentifier() else 'f'}({', '.join(names)})"
        wanted = f"text of Pointwise must have a place {{}} for each source, here {', '.join(names)}: {self.text!r}"
        try:
            places = [field for _, field, _, _ in Formatter().parse(self.text) if field is not None]
            text = self.text.format(*names)
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise InvalidValueError(f"{wanted} ({error})") from error
        if len({*range(len(places))} if "" in places else {*places}) != len(names):
            raise InvalidValueError(wanted)
        return text


@dataclass(frozen=True)
class Identity(Map):
    """The source's activity itself.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.Coupling("a", "b").map
    Identity()
    """

    linear = True
    homogeneous = True

    def apply(self, source: Tensor) -> Tensor:
        return source

    def adjoint_to(self, other: Map) -> bool:
        return isinstance(other, Identity)

    def describe(self, source: str, target: str) -> str:
        return source

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _IdentityTerm(source) if type(self) is Identity else super().bind(points, source, target)


class _IdentityTerm(Term):
    def __init__(self, source: str) -> None:
        self._source = source

    def renew(self) -> bool:
        return True

    def value(self, activity: Activity) -> Tensor:
        return activity[self._source]

    def each(self, activity: Activity, rows: Tensor) -> Tensor:
        return rows

    def norm(self, activity: Activity, rows: int) -> float:
        return 1.0

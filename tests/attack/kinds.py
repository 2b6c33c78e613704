"""Kinds of arguments: which of a pool of values each accepts, by design or perhaps; all others are wrong for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_NOTHING = ("None",)
_FLAGS = ("True", "False", "np.bool_(True)")
_NATURAL = ("1", "2", "np.int64(2)", "np.uint8(2)")
_INTEGERS = ("0", "-1", "np.int64(-1)", *_NATURAL)
_POSITIVE = ("0.5", "2.0", "np.float32(0.5)", "np.float64(2.0)")
_NUMBERS = ("-0.5", "0.0", *_POSITIVE)
_HUGE_INTEGERS = ("10**30", "10**400")
_EXTREME = ("1e-300", "1e300")
_NOT_FINITE = ('float("nan")', 'float("inf")', '-float("inf")', 'np.float64("nan")')
_ODD_NUMBERS = ("Fraction(1, 2)", "np.array(0.5)", "torch.tensor(0.5)", "torch.tensor(1)")
_TEXT = ('"x"', '"nonsense"', '"a b"', '""')
_FUNCTIONS = ("lambda: 0", "lambda *_: None", "len", "print")
_CLASSES = ("int", "nd.Euler", "nd.Input", "nd.Network", "nd.steady", "nn.Tanh")

POOL = (
    *(_NOTHING + _FLAGS + _INTEGERS + _NUMBERS + _HUGE_INTEGERS + _EXTREME + _NOT_FINITE + _ODD_NUMBERS + _TEXT),
    *("1j", "Decimal(1)", 'b"x"'),
    *("[]", "[1]", "()", "(1, 2)", "{}", '{"x": 1}', "{1, 2}", "range(3)", "(i for i in range(2))"),
    *("np.array([0.5, 1.0])", 'np.array(["x"])', "np.array(None)"),
    *("torch.zeros(0)", "torch.zeros(4, 3)", "torch.zeros(0, 3)", "torch.zeros(4, 3, 1, 2)", "torch.zeros(5, 7)"),
    *("torch.zeros(4, 3, dtype=torch.int64)", "torch.zeros(4, 3, dtype=torch.complex64)"),
    *("torch.zeros(4, 3, dtype=torch.float64)", "torch.zeros(4, 3, dtype=torch.bool)"),
    *('torch.zeros(4, 3, device="meta")', 'torch.full((4, 3), float("nan"))', "torch.zeros(4, 3).to_sparse()"),
    *("object()", "...", "NotImplemented", "Exception()", "torch", "torch.float32", 'torch.device("cpu")'),
    *("nn.Tanh()", "stage()", "net()", "nd.Input()", "nd.Identity()", "nd.Euler(0.1)", "nd.AtStep(1)"),
    *("xr.Dataset()", "xr.DataArray([1.0])", 'Path("x")'),
    *(_FUNCTIONS + _CLASSES),
)  # fmt: skip
"""Values of every sort, as expressions."""


@dataclass(frozen=True)
class Kind:
    """A kind of argument.

    Parameters
    ----------
    right
        The values of the pool that are accepted, by design.
    either
        Those that may be refused as well, or that only the use of the result can judge.
    untried
        Those that are not tried: they are right, and take for ever.
    """

    right: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    untried: frozenset[str] = frozenset()

    def __call__(
        self,
        valid: str,
        *,
        wrong: Iterable[str] = (),
        right: Iterable[str] = (),
        either: Iterable[str] = (),
        untried: Iterable[str] = (),
    ) -> Argument:
        """Return an argument of this kind, given a valid value, and what differs from the kind's."""
        wrong, own = set(wrong), {"right": set(right), "either": set(either), "untried": set(untried)}
        named = wrong.union(*own.values())
        of_kind = {sort: set(getattr(self, sort)) - named | values for sort, values in own.items()}
        wrong |= set(POOL).difference({valid}, *of_kind.values())
        return Argument(valid, *(tuple(sorted(each)) for each in (wrong, of_kind["right"], of_kind["either"])))

    def __or__(self, other: Kind) -> Kind:
        right = self.right | other.right
        either = (self.either | other.either) - right
        return Kind(right, either, (self.untried | other.untried) - right - either)


@dataclass(frozen=True)
class Argument:
    """An argument: a valid value, and those that are wrong, right, or the one or the other; all as expressions."""

    valid: str
    wrong: tuple[str, ...]
    right: tuple[str, ...]
    either: tuple[str, ...]


def _kind(right: Iterable[str] = (), either: Iterable[str] = (), untried: Iterable[str] = ()) -> Kind:
    return Kind(frozenset(right), frozenset(either), frozenset(untried))


NOTHING = _kind(_NOTHING)
FLAG = _kind(["True", "False"], ["np.bool_(True)", "0", "1", "np.int64(2)", "None"])
POSITIVE = _kind([*_NATURAL, *_POSITIVE], ["10**30", *_EXTREME, *_ODD_NUMBERS, "Decimal(1)"])
REAL = _kind([*_INTEGERS, *_NUMBERS], ["10**30", *_EXTREME, *_ODD_NUMBERS, "Decimal(1)"])
NATURAL = _kind(_NATURAL, [*_HUGE_INTEGERS, "torch.tensor(1)"])
COUNT = _kind(["0", *_NATURAL], [*_HUGE_INTEGERS, "torch.tensor(1)"])
INTEGER = _kind(_INTEGERS, [*_HUGE_INTEGERS, "torch.tensor(1)"])
TEXT = _kind(_TEXT[:3], ['""'])
IDENTIFIER = _kind(_TEXT[:2])
FUNCTION = _kind([], [*_FUNCTIONS, *_CLASSES, "nn.Tanh()"])
"""Of which only a call can tell whether it is right."""
CHOICE = _kind()
"""One of several words, which the argument names."""
PATH = _kind([], [*_TEXT, 'b"x"', 'Path("x")'])
OBJECT = _kind()
"""Of a type of neurodyn's, or another that no value of the pool has but those that the argument names."""
TENSOR = _kind(["torch.zeros(4, 3)"], ["torch.zeros(4, 3).to_sparse()"])
"""Of four samples of three units."""
SAMPLES = _kind()
ANY = _kind((), POOL)
"""Which nothing judges."""

"""Names that a trajectory has a variable for, and terms as they stand in a product."""

from __future__ import annotations

import re
from collections.abc import Collection

from neurodyn.errors import InvalidValueError

_TAKEN = ("time", "step", "sample", "network", "rule", "acts")
"""What a trajectory calls dimensions and variables of its own."""


def check_name(what: str, name: str) -> None:
    """Refuse a name that no variable of a trajectory may have."""
    if not (isinstance(name, str) and name.isidentifier()):
        raise InvalidValueError(f"{what} {name!r}: a name consists of letters, digits and underscores")
    if name in _TAKEN:
        raise InvalidValueError(
            f"{what} {name!r}: a trajectory has a dimension or a variable of that name; choose another"
        )


def refuse_dimension(network: str, what: str, name: str, populations: Collection[str]) -> None:
    """Refuse a name that a dimension or a variable of a population has in a trajectory."""
    stem, _, kind = name.rpartition("_")
    if stem in populations and re.fullmatch(r"unit|channel|row|column|axis\d+|spikes(\d+)?", kind):
        raise InvalidValueError(
            f"network {network!r}: {what} is called like a dimension of population {stem} in a trajectory; choose "
            "another name"
        )


def as_factor(text: str) -> str:
    """Return a term as it stands behind a factor or a minus: a sum, or one with a sign of its own, in brackets."""
    depth = 0
    for character in re.sub(r"\de[+-]\d", "", text):  # the sign of an exponent adds up nothing
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character in "+-−":
            return f"({text})"
    return text

"""Names that a trajectory has a variable for."""

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

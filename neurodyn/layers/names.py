"""What text calls stages, layers and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

from neurodyn.layers.kinds import is_plain
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.sparse import SparseLinear
from neurodyn.layers.stacked import member_of

if TYPE_CHECKING:
    from neurodyn.layers.stages import Stage


MARKS: ContextVar[Mapping[Stage, str]] = ContextVar("MARKS", default=MappingProxyType({}))
"""By the stage, its name in the text at hand, where that tells stages of the same name apart."""


def distinct_names(stages: Iterable[Stage]) -> dict[Stage, str]:
    """Return a name for each stage that no other has, with a number as in "Tanh_2" where several are called the same.

    Stages of the same layers, or of PyTorch's own without tensors and with the same settings, are one function, and
    share theirs.
    """
    functions: dict[Stage, tuple[object, ...]] = {
        stage: (stage.name, *map(_function, stage.layers), *stage.sources) for stage in stages
    }
    counts = Counter(str(name) for name, *_ in dict.fromkeys(functions.values()))
    taken = set(counts)
    names: dict[object, str] = {}
    for function in functions.values():
        if function not in names:
            own = str(function[0])
            numbered = (f"{own}_{number}" for number in count(1))
            names[function] = own if counts[own] == 1 else next(name for name in numbered if name not in taken)
            taken.add(names[function])
    return {stage: names[function] for stage, function in functions.items()}


def _function(layer: nn.Module) -> object:
    by_settings = type(layer).__module__.startswith("torch.nn.") and is_plain(layer) and not layer.state_dict()
    return (type(layer), repr(layer)) if by_settings else layer


@contextmanager
def told_apart(stages: Iterable[Stage]) -> Iterator[None]:
    """Let text that is written inside tell stages of the same name apart."""
    token = MARKS.set(distinct_names(stages))
    try:
        yield
    finally:
        MARKS.reset(token)


def layer_label(layer: nn.Module) -> str:
    """Return a layer as a short text, e.g. "Linear(300 → 100)"."""
    layer = member_of(layer)
    if isinstance(layer, (nn.Linear, SparseLinear)):
        return f"{type(layer).__name__}({layer.in_features} → {layer.out_features})"
    if isinstance(layer, nn.Conv2d):
        return f"Conv2d({layer.in_channels} → {layer.out_channels}, {'×'.join(map(str, layer.kernel_size))})"
    return repr(layer) if isinstance(layer, FirstUnits) else type(layer).__name__


def shape_text(shape: Sequence[int]) -> str:
    """Return the shape of one sample as text, e.g. "3 × 32 × 32"."""
    return " × ".join(map(str, shape))

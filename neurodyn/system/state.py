"""A state: the activity of all populations at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from neurodyn.layers.kernels import pieces


class State:
    """The activity at one moment: one flat tensor, seen as a block (sample, …) for each dynamic population.

    Parameters
    ----------
    flat
        The dynamic populations' activity, shape (n,).
    blocks
        The dynamic populations' activity by name: views of `flat`.
    others
        That of the others by name: the instantaneous populations' buffers, the clamps.
    echoes
        What delayed couplings read.
    """

    __slots__ = ("activity", "blocks", "flat", "pieces", "read")

    def __init__(
        self, flat: Tensor, blocks: dict[str, Tensor], others: Mapping[str, Tensor], echoes: Mapping[str, Tensor]
    ) -> None:
        self.flat = flat
        self.blocks = list(blocks.values())
        """The dynamic populations' activity: views of `flat`."""
        self.activity: dict[str, Tensor] = {**others, **blocks}
        """Every population's activity by name."""
        self.read = {**self.activity, **echoes} if echoes else self.activity
        """What couplings read: every population's activity, and the echoes."""
        self.pieces = pieces(flat)
        """Views of `flat`, for sums of states."""

    def combine(self, base: State, summands: Iterable[tuple[float, State]]) -> None:
        """Become base + Σ a_i k_i, given each a_i and k_i; one a_i at least is not 0."""
        nonzero = [(factor, slope.pieces) for factor, slope in summands if factor]
        for place, (total, out) in enumerate(zip(base.pieces, self.pieces, strict=True)):
            for factor, slopes in nonzero:
                total = torch.add(total, slopes[place], alpha=factor, out=out)

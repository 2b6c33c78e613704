"""Where tensors lie in memory, as long as all of them live."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Span(NamedTuple):
    """Where a tensor lies in memory."""

    storage: int
    start: int
    end: int
    """In bytes."""
    dense: bool
    """Whether it fills all between."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    @classmethod
    def of(cls, tensor: Tensor) -> Span:
        extent = tensor.numel()
        if extent and not tensor.is_contiguous():
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
        start, end = tensor.data_ptr(), tensor.data_ptr() + extent * tensor.element_size()
        return cls(tensor.untyped_storage().data_ptr(), start, end, 0 < extent == tensor.numel())

    def meets(self, other: Span) -> bool:
        """Tell whether some of it lies within another span."""
        return self.storage == other.storage and self.start < other.end and other.start < self.end

    def without(self, other: Span) -> list[Span]:
        """Return the parts that do not lie within another span."""
        if not self.meets(other):
            return [self]
        ends = ((self.start, other.start), (other.end, self.end))
        return [self._replace(start=start, end=end) for start, end in ends if start < end]

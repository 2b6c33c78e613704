"""The windows of max pooling: which units compete for each maximum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from neurodyn.layers.kernels import max_pool2d
from neurodyn.layers.kinds import is_plain

_POOLS: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
_WITH_PLACES: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    1: functional.max_pool1d_with_indices,
    2: max_pool2d,
    3: functional.max_pool3d_with_indices,
}


@dataclass(frozen=True)
class Windows:
    """Windows without a unit in common, along the last axes."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    """Along each of these axes."""
    rectified: bool
    """Whether a maximum below 0 counts as 0."""

    def of(self, x: Tensor) -> Tensor:
        """Return a view of x, shape (…, window, …), with as many axes more, for the units of each window."""
        first = x.ndim - len(self.sizes)
        for axis, (size, stride) in enumerate(zip(self.sizes, self.strides, strict=True), start=first):
            x = x.unfold(axis, size, stride)
        return x

    def maxima(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest activity of each window, and its place, as PyTorch pools: the first of equal ones."""
        return _WITH_PLACES[len(self.sizes)](x, self.sizes, self.strides)


def windows_of(layer: nn.Module, *, rectified: bool) -> Windows | None:
    """Return the windows of a layer; None if it is no max pooling whose windows have no unit in common."""
    axes = _POOLS.get(type(layer))
    if axes is None or not is_plain(layer) or layer.ceil_mode or layer.return_indices:
        return None
    sizes, strides, padding, dilation = (
        (value,) * axes if isinstance(value, int) else tuple(value)
        for value in (getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation"))
    )
    if any(padding) or any(each != 1 for each in dilation):
        return None
    disjoint = all(size <= stride for size, stride in zip(sizes, strides, strict=True))
    return Windows(sizes, strides, rectified) if disjoint else None


def pools(layer: nn.Module) -> bool:
    """Tell whether a layer does what PyTorch's max pooling does."""
    return type(layer) in _POOLS and is_plain(layer)

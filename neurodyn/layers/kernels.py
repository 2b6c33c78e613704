"""What computes products, tanh, maxima and norms; on a CPU, products go to a library that a user names as faster there.

PyTorch gives float32 products to MKL, which uses half the width of the vector units on processors that are not Intel's;
oneDNN, to which PyTorch gives convolutions, uses all of it. `neurodyn.tune` measures which is faster.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.repeated import constant

VARIABLE = "NEURODYN_KERNELS"
"""The environment variable that names the library for a whole process, e.g. "onednn"."""
_LARGE = 1_500_000
"""From how many multiplications on a product is given to oneDNN: for smaller ones, finding its kernel counts."""
_SERIAL = 32768
"""Up to how many numbers PyTorch gives to one core."""
_MANY_CHANNELS = 8
"""From how many channels on, maxima are taken of all of them side by side."""
_MOST_PIECES = 8
"""Into how many pieces a tensor is cut at most; a larger one is worth a second core."""


def _find_onednn() -> Callable[..., Tensor] | None:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    return found


_ONEDNN = _find_onednn()
LIBRARIES = ("torch", "onednn") if _ONEDNN is not None else ("torch",)
"""Those that this PyTorch can do with, its own functions first."""
_in_use = "torch"


def kernels(library: str = "torch") -> None:
    """Choose the library that computes large products on a CPU in place of PyTorch's own choice, which is the default.

    It is chosen for the whole process, from the next run on. Results differ between libraries by rounding, so that
    runs which are to be the same bit for bit name the same one on every machine; a run's attribute `kernels` tells
    which it was, and a checkpoint is gone on with under that one alone. The environment variable `NEURODYN_KERNELS`
    names it from the start, e.g. for the workers of a cluster.

    Parameters
    ----------
    library
        "onednn" for large float32 products by oneDNN, "torch" for PyTorch alone. `neurodyn.tune` says which pays on a
        machine.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If the library is unknown, or this build of PyTorch is without it.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.kernels("torch")  # the default: PyTorch's own
    """
    global _in_use
    if not isinstance(library, str):
        raise InvalidTypeError(f"kernels: a library is named by text such as 'onednn', not {library!r}")
    if library not in LIBRARIES:
        missing = "is not part of this build of PyTorch" if library == "onednn" else "is no library"
        raise InvalidValueError(f"kernels: {library!r} {missing}; there is {' or '.join(map(repr, LIBRARIES))}")
    _in_use = library


def kernels_in_use() -> str:
    """Return the library chosen, as a run's attributes tell it: "torch" or "onednn"."""
    return _in_use


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b by oneDNN, which is among the `LIBRARIES`."""
    assert _ONEDNN is not None, "it is among the libraries"
    return _ONEDNN(x, weight, bias, "none", [], "")


# torch.compile cannot take oneDNN's operator apart, and takes this one as it is.
_opaque = torch.library.custom_op("neurodyn::linear", by_onednn, mutates_args=())


@_opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b, without a graph.

    Parameters
    ----------
    x
        Shape (row, input).
    weight
        W, shape (output, input).
    bias
        b, shape (output,).
    """
    if _in_use == "onednn" and _suits(x, weight):
        return (_opaque if torch.compiler.is_compiling() else by_onednn)(x, weight, bias)
    return functional.linear(x, weight, bias)


def add_linear(x: Tensor, weight: Tensor, out: Tensor, gain: float) -> None:
    """Add gain · x Wᵀ to `out`; shapes as for `linear`."""
    if _in_use == "onednn" and _suits(x, weight):
        out.add_(linear(x, weight), alpha=gain)
    else:
        out.addmm_(x, weight.t(), alpha=gain)


def scaled_linear(x: Tensor, weight: Tensor, gain: float) -> Tensor:
    """Return gain · x Wᵀ, without a graph; shapes as for `linear`."""
    if _in_use == "onednn" and _suits(x, weight):
        return linear(x, weight).mul_(gain)
    nothing = constant(lambda: x.new_empty(1, 1))  # of which, as beta says, nothing is added
    return torch.addmm(nothing, x, weight.t(), beta=0, alpha=gain)


def tanh(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return tanh(x), without a graph, written to `out` where that is of the shape of x."""
    if out is None or out.shape != x.shape:
        out = torch.empty_like(x)
    return torch.tanh(x.detach() if x.requires_grad else x, out=out)


def max_pool2d(x: Tensor, *window: Any) -> tuple[Tensor, Tensor]:
    """Return the maxima of a max pooling, and their places, without a graph, with PyTorch's own bits.

    On a CPU, PyTorch compares the units of a channel one by one, and the channels as vectors where they lie side by
    side: of 8 or more, three times as fast, with the time to lay them so.

    Parameters
    ----------
    x
        Shape (sample, channel, row, column), or without the first.
    window
        Kernel size, stride, padding, dilation and whether the ceiling is taken, as of `nn.MaxPool2d`.
    """
    if not (x.is_cpu and x.ndim == 4 and x.shape[1] >= _MANY_CHANNELS):
        found: tuple[Tensor, Tensor] = functional.max_pool2d_with_indices(x, *window)
        return found
    maxima, places = functional.max_pool2d_with_indices(x.contiguous(memory_format=torch.channels_last), *window)
    return maxima.contiguous(), places.contiguous()


class ScaledNorm:
    """‖e / s‖ with the scale s = offset + max(|x|, |y|), in memory of its own.

    Parameters
    ----------
    like
        A tensor of the shape (n,), the dtype and the device of e, x and y.
    offset
        The scale of what is 0.
    """

    def __init__(self, like: Tensor, offset: float) -> None:
        self._offset = like.new_tensor(offset)  # a number would be made a tensor at each call
        self._scale, self._work = torch.empty_like(like), torch.empty_like(like)
        self._norms = like.new_empty(3)
        self._each = self._norms.unbind()

    def __call__(self, error: Tensor, x: Tensor, y: Tensor, also: Tensor) -> tuple[float, bool]:
        """Return ‖e / s‖, and whether ‖s‖ and ‖z‖ are finite; a device is waited for once.

        Parameters
        ----------
        error
            e, which is overwritten.
        x, y
            Shape (n,).
        also
            z, shape (m,).
        """
        scale = torch.maximum(torch.abs(x, out=self._scale), torch.abs(y, out=self._work), out=self._scale)
        error.div_(scale.add_(self._offset))
        for vector, norm in zip((error, scale, also), self._each, strict=True):
            torch.linalg.vector_norm(vector, out=norm)
        norm, *sizes = self._norms.tolist()
        return norm, math.isfinite(sum(sizes))


def pieces(flat: Tensor) -> tuple[Tensor, ...]:
    """Return a tensor of shape (n,) as views of its parts, each so small that one core does what is done to it.

    Where n is large, or on a GPU, the whole is the one part.
    """
    if flat.is_cpu and flat.numel() <= _MOST_PIECES * _SERIAL:
        return tuple(flat[start : start + _SERIAL] for start in range(0, max(1, flat.numel()), _SERIAL))
    return (flat,)


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * weight.shape[0] >= _LARGE
        and x.dtype == torch.float32
        and x.is_cpu
        and min(x.stride()) == 1
        and min(weight.stride()) == 1
        and bool(torch.backends.mkldnn.enabled)
    )


def from_environment() -> None:
    """Choose what the environment variable names, as importing neurodyn does.

    Raises
    ------
    ValueError
        If it names something that is not there.
    """
    try:
        kernels(os.environ.get(VARIABLE) or "torch")
    except InvalidValueError as error:
        raise InvalidValueError(f"the environment variable {VARIABLE}: {error}") from error


from_environment()

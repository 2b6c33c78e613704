"""What other libraries at hand compute faster on a CPU than PyTorch's own functions: products, tanh, a scaled norm.

PyTorch gives float32 products to MKL, which uses half the width of the vector units on processors that are not Intel's;
oneDNN, to which PyTorch gives convolutions, uses all of it, and is about twice as fast there once a product is so large
that finding its kernel no longer counts. `torch.backends.mkldnn.flags(enabled=False)` leaves all to MKL. NumPy's tanh
is as precise as PyTorch's, and on one core seven times as fast in single precision, three times in double. Its sums of
long vectors take half the time on one core, and need no second one, which would first have to fetch its half from the
first one's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

_LARGE = 1_500_000
"""From how many multiplications on a product is given to oneDNN."""
_SERIAL = 32768
"""Up to how many numbers PyTorch gives to one core."""
_MOST_PIECES = 8
"""Into how many pieces a tensor is cut at most; a larger one is worth a second core."""


def _find_onednn() -> Callable[..., Tensor] | None:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    return found


_ONEDNN = _find_onednn()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert _ONEDNN is not None, "_suits says so"
    return _ONEDNN(x, weight, bias, "none", [], "")


# torch.compile cannot take oneDNN's operator apart, and takes this one as it is.
_opaque = torch.library.custom_op("neurodyn::linear", _by_onednn, mutates_args=())


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
    if _suits(x, weight):
        return (_opaque if torch.compiler.is_compiling() else _by_onednn)(x, weight, bias)
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())


def add_linear(x: Tensor, weight: Tensor, out: Tensor, gain: float) -> None:
    """Add gain · x Wᵀ to `out`; shapes as for `linear`."""
    if _suits(x, weight):
        out.add_(linear(x, weight), alpha=gain)
    else:
        out.addmm_(x, weight.t(), alpha=gain)


def tanh(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return tanh(x), without a graph, written to `out` where that is of the shape of x."""
    if out is None or out.shape != x.shape:
        out = torch.empty_like(x)
    if _numpy_suits(x):
        np.tanh(x.numpy(), out=out.numpy())
        return out
    return torch.tanh(x.detach(), out=out)


def scaled_norm(
    error: Tensor, x: Tensor, y: Tensor, offset: float, also: Tensor, work: Sequence[Tensor]
) -> tuple[float, bool]:
    """Return ‖e / s‖ with the scale s = offset + max(|x|, |y|), and whether ‖s‖ and ‖z‖ are finite.

    A device is waited for once.

    Parameters
    ----------
    error
        e, shape (n,), which is overwritten.
    x, y
        Shape (n,).
    offset
        The scale of what is 0.
    also
        z, shape (m,).
    work
        Two tensors of shape (n,) to overwrite.
    """
    if _numpy_suits(x):
        e, s, other = error.numpy(), work[0].numpy(), work[1].numpy()
        with np.errstate(all="ignore"):  # what is not finite is seen in the result
            np.maximum(np.abs(x.numpy(), out=s), np.abs(y.numpy(), out=other), out=s)
            np.divide(e, np.add(s, offset, out=s), out=e)
            return math.sqrt(np.dot(e, e)), math.isfinite(np.dot(s, s) + np.dot(also.numpy(), also.numpy()))
    scale = torch.maximum(torch.abs(x, out=work[0]), torch.abs(y, out=work[1]), out=work[0]).add_(offset)
    norm, *sizes = torch.stack([torch.linalg.vector_norm(each) for each in (error.div_(scale), scale, also)]).tolist()
    return norm, math.isfinite(sum(sizes))


def pieces(flat: Tensor) -> tuple[Tensor, ...]:
    """Return a tensor of shape (n,) as views of its parts, each so small that one core does what is done to it.

    Where n is large, or on a GPU, the whole is the one part.
    """
    if flat.is_cpu and flat.numel() <= _MOST_PIECES * _SERIAL:
        return tuple(flat[start : start + _SERIAL] for start in range(0, max(1, flat.numel()), _SERIAL))
    return (flat,)


def _numpy_suits(x: Tensor) -> bool:
    plain = x.is_cpu and x.dtype in (torch.float32, torch.float64) and not x.requires_grad
    return plain and not torch.compiler.is_compiling()


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * weight.shape[0] >= _LARGE
        and _ONEDNN is not None
        and x.dtype == torch.float32
        and x.is_cpu
        and min(x.stride()) == 1
        and min(weight.stride()) == 1
        and bool(torch.backends.mkldnn.enabled)
    )

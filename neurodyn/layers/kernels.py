"""Which library computes products, tanh and norms on a CPU: PyTorch, or what a user has named as faster there.

PyTorch gives float32 products to MKL, which uses half the width of the vector units on processors that are not Intel's;
oneDNN, to which PyTorch gives convolutions, uses all of it. NumPy computes tanh and sums of long vectors on one core in
less time than PyTorch on some processors, and in more on others. `neurodyn.tune` measures which it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurodyn.errors import InvalidTypeError, InvalidValueError

VARIABLE = "NEURODYN_KERNELS"
"""The environment variable that names libraries for a whole process, e.g. "onednn, numpy"."""
_LARGE = 1_500_000
"""From how many multiplications on a product is given to oneDNN: for smaller ones, finding its kernel counts."""
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
LIBRARIES = ("onednn", "numpy") if _ONEDNN is not None else ("numpy",)
"""Those that this PyTorch can do with, beside its own functions."""
_onednn = _numpy = False


def kernels(libraries: str = "torch") -> None:
    """Choose the libraries that compute on a CPU in place of PyTorch's own functions; none of them by default.

    The choice holds for the whole process, from the next run on. Results differ between libraries by rounding, so that
    runs which are to be the same bit for bit name the same ones on every machine; a run's attribute `kernels` tells
    which they were, and a checkpoint is gone on with under those alone. The environment variable `NEURODYN_KERNELS`
    names them from the start, e.g. for the workers of a cluster.

    Parameters
    ----------
    libraries
        "onednn" for large float32 products, "numpy" for tanh and the norms of adaptive steps, "onednn, numpy" for both,
        "torch" for PyTorch alone. `neurodyn.tune` says which pay on a machine.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If a library is unknown, or this build of PyTorch is without it.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.kernels("torch")  # the default: PyTorch's own
    """
    global _onednn, _numpy
    if not isinstance(libraries, str):
        raise InvalidTypeError(f"kernels: libraries are named by text such as 'onednn, numpy', not {libraries!r}")
    names = [name.strip() for name in libraries.split(",")]
    for each in names:
        if each not in ("torch", *LIBRARIES) or (each == "torch" and len(names) > 1):
            missing = (
                "is not part of this build of PyTorch" if each == "onednn" else "is no library, or not beside others"
            )
            raise InvalidValueError(
                f"kernels: {each!r} {missing}; there are 'torch' alone, or any of {', '.join(map(repr, LIBRARIES))}"
            )
    _onednn, _numpy = "onednn" in names, "numpy" in names


def kernels_in_use() -> str:
    """Return the libraries chosen, as a run's attributes tell them: "torch", "onednn", "numpy" or "onednn, numpy"."""
    return ", ".join(name for name, used in (("onednn", _onednn), ("numpy", _numpy)) if used) or "torch"


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
    if _onednn and _suits(x, weight):
        return (_opaque if torch.compiler.is_compiling() else by_onednn)(x, weight, bias)
    return functional.linear(x, weight, bias)


def add_linear(x: Tensor, weight: Tensor, out: Tensor, gain: float) -> None:
    """Add gain · x Wᵀ to `out`; shapes as for `linear`."""
    if _onednn and _suits(x, weight):
        out.add_(linear(x, weight), alpha=gain)
    else:
        out.addmm_(x, weight.t(), alpha=gain)


def tanh(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return tanh(x), without a graph, written to `out` where that is of the shape of x."""
    if out is None or out.shape != x.shape:
        out = torch.empty_like(x)
    if _numpy and _numpy_suits(x):
        np.tanh(x.numpy(), out=out.numpy())
        return out
    return torch.tanh(x.detach() if x.requires_grad else x, out=out)


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
    return (norm_by_numpy if _numpy and _numpy_suits(x) else norm_by_torch)(error, x, y, offset, also, work)


def norm_by_numpy(
    error: Tensor, x: Tensor, y: Tensor, offset: float, also: Tensor, work: Sequence[Tensor]
) -> tuple[float, bool]:
    """Return what `scaled_norm` does, by NumPy."""
    e, s, other = error.numpy(), work[0].numpy(), work[1].numpy()
    with np.errstate(all="ignore"):  # what is not finite is seen in the result
        np.maximum(np.abs(x.numpy(), out=s), np.abs(y.numpy(), out=other), out=s)
        np.divide(e, np.add(s, offset, out=s), out=e)
        return math.sqrt(np.dot(e, e)), math.isfinite(np.dot(s, s) + np.dot(also.numpy(), also.numpy()))


def norm_by_torch(
    error: Tensor, x: Tensor, y: Tensor, offset: float, also: Tensor, work: Sequence[Tensor]
) -> tuple[float, bool]:
    """Return what `scaled_norm` does, by PyTorch."""
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

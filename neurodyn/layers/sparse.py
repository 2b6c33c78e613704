"""A linear layer with few synapses: its weights are kept as a sparse matrix, forth and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError

_AT_ONCE = 2**22
"""How many products of a gradient are worked out at once."""


class SparseLinear(nn.Module):
    """A linear layer y = W x + b whose W has few entries, kept by rows (CSR); the others are 0, and stay so.

    Parameters
    ----------
    weight
        W, shape (out, in): a sparse tensor, `torch.sparse_csr` or `torch.sparse_coo`, or a dense one, whose zeros are
        left out.
    bias
        b, shape (out,); None for none.

    Attributes
    ----------
    values
        The entries of W row by row, a parameter of shape (entry,).
    bias
        b, a parameter, or None.

    Raises
    ------
    TypeError, ValueError
        If they are no floating-point tensors of these shapes, or not finite.

    Examples
    --------
    >>> import neurodyn as nd, torch
    >>> weight = torch.eye(3).to_sparse()
    >>> nd.SparseLinear(weight)(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    """

    bias: nn.Parameter | None
    _rows: Tensor
    _columns: Tensor
    _starts: Tensor
    _order: Tensor
    _starts_back: Tensor
    _columns_back: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise InvalidTypeError(f"weight of SparseLinear must be a floating-point tensor, not {kind}")
        if weight.is_meta:
            raise InvalidTypeError("weight of SparseLinear must be a tensor with data, not one on the meta device")
        if weight.ndim != 2 or weight.layout not in (torch.sparse_csr, torch.sparse_coo, torch.strided):
            raise InvalidValueError(
                f"weight of SparseLinear has the shape (out, in), by rows (CSR), as COO or dense; this one has "
                f"{tuple(weight.shape)}, and is {weight.layout}"
            )
        entries = weight.detach().to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
        self.out_features, self.in_features = weight.shape
        rows, columns = entries.indices()
        self.values = nn.Parameter(entries.values().clone())
        if not bool(torch.isfinite(self.values).all()):
            raise InvalidValueError("weight of SparseLinear must be finite")
        if bias is not None and (not isinstance(bias, Tensor) or tuple(bias.shape) != (self.out_features,)):
            raise InvalidValueError(
                f"bias of SparseLinear has the shape ({self.out_features},), one for each output, or is None"
            )
        # Registered if it is None, too, as that of nn.Linear is.
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        most = max(len(rows), self.out_features, self.in_features)
        kind = torch.int32 if most < 2**31 else torch.int64
        order = torch.argsort(columns * max(1, self.out_features) + rows)
        for name, tensor in {
            "_rows": rows,
            "_columns": columns,
            "_starts": _starts(rows, self.out_features),
            "_order": order,
            "_starts_back": _starts(columns[order], self.in_features),
            "_columns_back": rows[order],
        }.items():
            # Of 32 bits where they suffice, which the products are faster with.
            self.register_buffer(name, tensor.to(kind, copy=True))
        with warnings.catch_warnings():  # PyTorch says once that these tensors are in beta
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.pattern.matrix(self.values.detach())
        self._kept: tuple[Tensor, Tensor] | None = None
        """Entries, and the transposed matrix that has been made of them."""

    @property
    def weight(self) -> Tensor:
        """W, by rows (CSR), without a graph."""
        return self.pattern.matrix(self.values.detach())

    @property
    def pattern(self) -> Pattern:
        """Where the entries are."""
        return Pattern(
            (self.out_features, self.in_features),
            (self._rows, self._columns, self._starts),
            (self._order, self._starts_back, self._columns_back),
        )

    def transposed(self) -> Tensor:
        """Return Wᵀ, by rows (CSR), without a graph; copied anew where its entries have changed."""
        values = self.values.detach()
        kept = self._kept
        # PyTorch's version counter does not see a change through `.data`.
        if kept is None or kept[0].dtype != values.dtype or kept[0].device != values.device:
            kept = None
        if kept is None or not torch.equal(kept[0], values):
            kept = self._kept = values.clone(), self.pattern.transposed(values)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what has been made of the entries, as PyTorch copies no sparse matrix."""
        return {**self.__dict__, "_kept": None}

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + b, shape (…, out), given x, shape (…, in)."""
        y: Tensor = _Product.apply(self.values, x.flatten(0, -2), self.pattern, False)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        share = len(self.values) / max(1, self.in_features * self.out_features)
        return f"{self.in_features} → {self.out_features}, {share:.2g} of the entries"


def _starts(sorted_rows: Tensor, count: int) -> Tensor:
    """Return where each row begins, and where the last one ends."""
    return torch.searchsorted(sorted_rows.contiguous(), torch.arange(count + 1, device=sorted_rows.device))


@dataclass(frozen=True)
class Pattern:
    """Where a sparse matrix has its entries."""

    shape: tuple[int, int]
    """(out, in)."""
    forth: tuple[Tensor, Tensor, Tensor]
    """The row and the column of each entry, row by row, and where each row begins."""
    back: tuple[Tensor, Tensor, Tensor]
    """Of the transposed matrix: which entry comes when, where each row begins, and the column of each entry."""

    def matrix(self, values: Tensor) -> Tensor:
        """Return W."""
        _, columns, starts = self.forth
        return torch.sparse_csr_tensor(
            starts, columns, values, self.shape, device=values.device, check_invariants=False
        )

    def transposed(self, values: Tensor) -> Tensor:
        """Return Wᵀ, whose entries are copied into their order."""
        order, starts, columns = self.back
        return torch.sparse_csr_tensor(
            starts, columns, values[order], self.shape[::-1], device=values.device, check_invariants=False
        )

    def correlation(self, v: Tensor, x: Tensor) -> Tensor:
        """Return Σ_sample v_i x_j at each entry (i, j), shape (entry,)."""
        rows, columns, _ = self.forth
        total = v.new_zeros(len(rows))
        for some, others in zip(
            *(each.split(max(1, _AT_ONCE // max(1, len(rows)))) for each in (v, x)),  # type: ignore[no-untyped-call]
            strict=True,
        ):
            total += (some[:, rows] * others[:, columns]).sum(0)
        return total


class _Differentiable(torch.autograd.Function):
    """A function that `torch.func` differentiates, one sample's network at a time."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.rest = inputs[2:]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> NoReturn:
        """Refuse what is mapped over, such as the layers of stacked networks."""
        raise InvalidValueError("SparseLinear: several networks with sparse layers do not run at once; run one by one")


class _Product(_Differentiable):
    """x Wᵀ, or x W where `back`."""

    @staticmethod
    def forward(values: Tensor, x: Tensor, pattern: Pattern, back: bool) -> Tensor:
        matrix = pattern.transposed(values) if back else pattern.matrix(values)
        return (matrix @ x.t()).t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        values, x = ctx.saved_tensors
        pattern, back = ctx.rest
        ends = (x, gradient) if back else (gradient, x)
        by_values = _Correlation.apply(*ends, pattern) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        return by_values, _Product.apply(values, gradient, pattern, not back), None, None  # type: ignore[no-untyped-call]


class _Correlation(_Differentiable):
    """Σ_sample v_i x_j at each entry (i, j)."""

    @staticmethod
    def forward(v: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        return pattern.correlation(v, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (v, x), (pattern,) = ctx.saved_tensors, ctx.rest
        product = _Product.apply
        return product(gradient, x, pattern, False), product(gradient, v, pattern, True), None  # type: ignore[no-untyped-call]

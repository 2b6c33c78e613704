"""Layers of several networks as one layer, in which each acts on its own block of the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from neurodyn.errors import InvalidTypeError, InvalidValueError


class StackedTensors:
    """Copies of several networks' parameters and buffers, with the network as the first axis.

    A tensor that the networks use in several places is one here too. The networks' own are read and written, and never
    made to share memory with these.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Tensor, tuple[Tensor, ...]]] = {}

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the copy of the networks' tensors, one of each; of a parameter, a parameter."""
        first = tensors[0]
        if id(first) not in self._copies:
            copy = torch.stack([tensor.detach() for tensor in tensors])
            if isinstance(first, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=first.requires_grad)
            self._copies[id(first)] = copy, tuple(tensors)
        return self._copies[id(first)][0]

    @torch.no_grad()
    def write_back(self) -> None:
        """Write what has changed into the networks' own tensors, and whether they require a gradient."""
        for copy, tensors in self._copies.values():
            for tensor, part in zip(tensors, copy, strict=True):
                if isinstance(copy, nn.Parameter):
                    tensor.requires_grad_(copy.requires_grad)
                if not torch.equal(tensor, part):  # else what autograd has kept of it would be lost
                    tensor.copy_(part)

    @torch.no_grad()
    def read(self) -> None:
        """Take over the values of the networks' own tensors, and whether they require a gradient.

        Raises
        ------
        ValueError
            If some of one parameter do, and others do not.
        """
        for copy, tensors in self._copies.values():
            copy.copy_(torch.stack(tensors))
            if not isinstance(copy, nn.Parameter):
                continue
            learns = [tensor.requires_grad for tensor in tensors]
            if len(set(learns)) > 1:
                raise InvalidValueError(
                    f"a parameter of the shape {tuple(tensors[0].shape)} requires a gradient in some of the networks "
                    "that are trained at once, and not in others; let it be the same in all, or train each by itself"
                )
            copy.requires_grad_(learns[0])


class Stacked(nn.Module):
    """Modules that are alike as one; each acts on its own block of the samples.

    Parameters
    ----------
    members
        The modules. The first one computes for all, with the parameters and buffers of each.
    tensors
        Where their parameters and buffers are stacked.

    Raises
    ------
    ValueError
        If gradients are sparse.
    """

    def __init__(self, members: Sequence[nn.Module], tensors: StackedTensors) -> None:
        super().__init__()
        for part in members[0].modules():
            if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) and part.sparse:
                raise InvalidValueError(
                    f"{type(part).__name__} of several networks: its gradients are sparse, and not stacked; make it "
                    "with sparse=False, or train each network by itself"
                )
        self.members = len(members)
        self._member = (members[0],)  # a tuple, so that its parameters do not count as this module's
        self._names: dict[str, str] = {}
        for name, _ in members[0].named_parameters():
            own = self._names[name] = name.replace(".", "/")
            setattr(self, own, tensors.stack([member.get_parameter(name) for member in members]))
        for name, _ in members[0].named_buffers():
            own = self._names[name] = name.replace(".", "/")
            self.register_buffer(own, tensors.stack([member.get_buffer(name) for member in members]))

    @property
    def member(self) -> nn.Module:
        """The first of the modules, which tells what each computes."""
        return self._member[0]

    def forward(self, *x: Tensor) -> Tensor:
        """Return the members' values, shape (member · sample, …)."""

        def one(tensors: dict[str, Tensor], *x: Tensor) -> Tensor:
            value = functional_call(self.member, tensors, x)
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise InvalidTypeError(f"{type(self.member).__name__} returns a {kind}, not one tensor")
            return value

        tensors = {name: getattr(self, own) for name, own in self._names.items()}
        blocks = [each.view(self.members, -1, *each.shape[1:]) for each in x]
        try:
            with _Mended():
                values: Tensor = vmap(one)(tensors, *blocks)
        except (RuntimeError, NotImplementedError) as error:
            raise InvalidValueError(
                f"{type(self.member).__name__} of several networks cannot be evaluated at once ({error}); run or train "
                "each network by itself"
            ) from error
        return values.flatten(0, 1)


def _embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, *more: Any, **options: Any) -> Tensor:
    value = torch.embedding(weight, indices, padding_idx, *more, **options)
    return value if padding_idx < 0 else torch.where((indices == padding_idx).unsqueeze(-1), value.detach(), value)


def _functional_embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *more: Any, **options: Any
) -> Tensor:
    value = functional.embedding(input, weight, padding_idx, *more, **options)
    if padding_idx is None:
        return value
    return torch.where((input == padding_idx % len(weight)).unsqueeze(-1), value.detach(), value)


def _select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    index %= input.shape[dim]
    return torch.slice_scatter(input, src.unsqueeze(dim), dim, index, index + 1)


_MENDED: dict[Any, Callable[..., Tensor]] = {
    functional.embedding: _functional_embedding,
    torch.embedding: _embedding,
    torch.ops.aten.embedding.default: _embedding,
    torch.select_scatter: _select_scatter,
    torch.ops.aten.select_scatter.default: _select_scatter,
}
"""Functions whose gradient is another one under `vmap`, as far as PyTorch 2.13, and those that have the right one.

That of an embedding leaves out the padding of the first network alone, and that of `select_scatter` what was selected.
"""


class _Mended(TorchFunctionMode):
    """Calls what has the right gradient under `vmap`."""

    def __torch_function__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _MENDED.get(function, function)(*args, **(kwargs or {}))


def member_of(layer: nn.Module) -> nn.Module:
    """Return the layer that computes for all of a `Stacked` one, or else the layer itself."""
    return layer.member if isinstance(layer, Stacked) else layer


def by_member(x: Tensor, weight: Tensor) -> Tensor:
    """Return x, shape (sample, …, unit), as (row, unit); with stacked weights, as (member, row, unit)."""
    return x.reshape(*weight.shape[:-2], -1, x.shape[-1])


def of_samples(numbers: Sequence[float | Tensor], like: Tensor) -> Tensor:
    """Return the networks' numbers, one of each or one a unit, for every sample of theirs, to multiply (sample, …)."""
    if any(isinstance(each, Tensor) for each in numbers):
        each = torch.stack(
            [torch.as_tensor(each, device=like.device).to(like).expand(like.shape[1:]) for each in numbers]
        )
        return each.repeat_interleave(len(like) // len(numbers), dim=0)
    values = torch.tensor(numbers, dtype=like.dtype, device=like.device)
    return values.repeat_interleave(len(like) // len(numbers)).view(-1, *[1] * (like.ndim - 1))

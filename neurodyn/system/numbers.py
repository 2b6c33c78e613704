"""The numbers that a network computes with: of one dtype, on one device, and finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from neurodyn.checks import check_dense, tensor_hint
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.finite import told_by_sums
from neurodyn.layers.repeated import expect
from neurodyn.network.network import Network


def weights_of(network: Network) -> list[Tensor]:
    """Return the weights of all stages, all feedback weights, and the tensors of the declaration, without a graph."""
    weights = [p.detach() for stage in network.stages for p in stage.parameters]
    weights += [p.detach() for _, p in network.feedback_parameters()]
    return weights + [tensor for _, tensor in network.tensors]


def common_kind(
    network: Network, weights: Sequence[Tensor], given: Mapping[str, Tensor]
) -> tuple[torch.dtype, torch.device]:
    """Return the dtype and the device that weights and data share.

    Raises
    ------
    TypeError
        If something is no floating-point tensor, or of another dtype.
    ValueError
        If something is on another device, or not finite.
    """
    for what, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise InvalidTypeError(f"{what} must be a torch tensor, not {type(tensor).__name__}{tensor_hint(tensor)}")
        check_dense(what, tensor)
    tensors = [*weights, *given.values()]
    if not tensors:
        return torch.get_default_dtype(), torch.empty(0).device
    dtype, device = tensors[0].dtype, tensors[0].device
    alike = dtype.is_floating_point and all(each.dtype == dtype and each.device == device for each in tensors)
    if not (alike and sums_are_finite(tensors)):
        names = [f"a weight of stage {stage.name}" for stage in network.stages for _ in stage.parameters]
        names += [f"the feedback weights of stage {name}" for name, _ in network.feedback_parameters()]
        names += [name for name, _ in network.tensors]
        _refuse_mixed_or_bad(network.name, list(zip([*names, *given], tensors, strict=True)))
    return dtype, device


def check_modes(device: torch.device) -> None:
    """Refuse modes of PyTorch under which a network would compute something else than it declares."""
    if torch.is_autocast_enabled(device.type):
        raise InvalidValueError(
            "torch.autocast is on around this call, and a network computes in the one dtype of its weights and data: "
            f"leave it, with torch.autocast({device.type!r}, enabled=False), or bring weights and data to another "
            "dtype with .to()"
        )
    if torch.is_inference_mode_enabled():
        raise InvalidValueError(
            "torch.inference_mode is on around this call, under which a layer has no Jacobian; take torch.no_grad(), "
            "or nothing: no graph is kept here"
        )


def _refuse_mixed_or_bad(network: str, tensors: list[tuple[str, Tensor]]) -> None:
    first, reference = tensors[0]
    for what, tensor in tensors:
        if not tensor.is_floating_point():
            kind = reference.dtype if reference.is_floating_point() else torch.get_default_dtype()
            labels = what == "targets" and tensor.ndim == 1
            hint = (
                "; make labels one-hot, by torch.nn.functional.one_hot(labels, classes)"
                if labels
                else "; convert with "
            )
            raise InvalidTypeError(f"{what} must be floating-point, not {tensor.dtype}{hint}.to({kind})")
        if tensor.dtype != reference.dtype:
            raise InvalidTypeError(
                f"{what} is {tensor.dtype} and {first} {reference.dtype}; bring both to one dtype, with .to(), "
                "or .astype() of an array"
            )
        if tensor.device != reference.device:
            raise InvalidValueError(
                f"{what} is on {tensor.device} and {first} on {reference.device}; bring both to one device with .to()"
            )
    check_finite(network, tensors)


def check_finite(network: str, tensors: list[tuple[str, Tensor]]) -> None:
    """Refuse tensors, each with its description, that are not finite."""
    if sums_are_finite([tensor for _, tensor in tensors]):
        return
    for what, tensor in tensors:
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InvalidValueError(
                f"network {network!r}: {what} has {bad} values that are NaN or infinite; all must be finite"
            )


def sums_are_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether the sum of each tensor is finite: if so, all in it is, and if not, the sum may have overflowed."""
    return expect(told_by_sums, list(tensors))

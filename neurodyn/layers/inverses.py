"""Inverses of stages, and differences about an operating point that keep their digits however small they are.

Targets close to the forward pass, t = ȳ − s v with s ≪ 1, are lost to rounding once s is below the machine epsilon. So
the scaled deviation v is carried in their place, and a stage hands on a difference quotient of it, such as
[g⁻¹(ȳ) − g⁻¹(ȳ − s v)] / s. It is taken layer by layer: a linear layer's is linear, and an activation's has a closed
form in which nothing cancels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidValueError
from neurodyn.layers.activations import ACTIVATIONS, Inverse, Scale, beside
from neurodyn.layers.kinds import computes, is_plain
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.repeated import all_true, constant, expect
from neurodyn.layers.stacked import Stacked, by_member, member_of

_WORST_ERROR = 0.01
"""The relative error of a known solution above which a matrix is too badly conditioned: two correct digits."""
_SMOOTH = 20
"""PyTorch's threshold of Softplus, where it jumps back by 2·10⁻⁹; by more at a lower one, where values come twice."""


def check_invertible(layers: Sequence[nn.Module], stage: str) -> None:
    """Refuse layers that have no inverse, whatever their weights.

    Parameters
    ----------
    layers
        The layers of a stage.
    stage
        The name of the stage, for messages.
    """
    for given in layers:
        layer = member_of(given)
        name = type(layer).__name__
        if not is_plain(layer):
            raise InvalidValueError(
                f"stage {stage} has no inverse: a hook changes what its {name} computes, or a forward of its own; "
                "remove it"
            )
        if computes(layer, nn.Linear):
            outputs, inputs = layer.weight.shape  # type: ignore[misc]
            if outputs != inputs:
                fix = "no layer may be wider than the one that it reads"
                if outputs < inputs:
                    fix = f"FirstUnits({outputs}) and then Linear({outputs}, {outputs}) make the others auxiliary"
                raise InvalidValueError(
                    f"stage {stage} has no inverse: its weights are {outputs} × {inputs}, and only a square matrix can "
                    f"be inverted; {fix}"
                )
        elif type(layer) is nn.LeakyReLU and layer.negative_slope <= 0:
            raise InvalidValueError(
                f"stage {stage} has no inverse: LeakyReLU needs a positive slope, not {layer.negative_slope}"
            )
        elif type(layer) is nn.Softplus and not (layer.beta > 0 and layer.threshold >= _SMOOTH):
            raise InvalidValueError(
                f"stage {stage} has no inverse: Softplus needs a positive beta and a threshold of at least {_SMOOTH}, "
                f"where it turns linear without a jump, not beta {layer.beta} and threshold {layer.threshold}"
            )
        elif not (type(layer) in (FirstUnits, nn.Flatten) or _inverse_of(layer)) or not computes(layer, type(layer)):
            raise InvalidValueError(
                f"stage {stage} has no inverse: {name} is not invertible; use square Linear layers with LeakyReLU, "
                "Tanh, Sigmoid, Softplus or no activation"
            )
        if isinstance(given, Stacked) and "weight" not in given._parameters:
            raise InvalidValueError(
                f"stage {stage} has no inverse for several networks at once, as {name} works its weights out; run or "
                "train each network by itself"
            )


def needs_forward(layers: Sequence[nn.Module]) -> bool:
    """Tell whether the layers' inverse depends on what they read in the forward pass."""
    return any(isinstance(layer, (FirstUnits, nn.Flatten)) for layer in layers)


def _inverse_of(layer: nn.Module) -> Inverse | None:
    activation = ACTIVATIONS.get(type(layer))
    return None if activation is None else activation.inverse


class LayerInverse(ABC):
    """The inverse of one layer."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        self.layer, self.stage = layer, stage

    @abstractmethod
    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        """Return the layer's input that gives `y`, where the forward pass read `x`."""

    @abstractmethod
    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        """Return [inverse(y) − inverse(y − s v)] / s at the forward pass, which read `x` and gave `y`."""


class _LinearInverse(LayerInverse):
    """x = W⁻¹ (y − b), with the W and b of each network where the layer is a stacked one."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        super().__init__(layer, stage)
        self._factors = _factorise(layer, stage)
        bias: Tensor | None = getattr(layer, "bias", None)
        self._bias = None if bias is None else bias.detach()

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        if self._bias is not None:
            y = (by_member(y, self._factors.lu) - self._bias.unsqueeze(-2)).view_as(y)
        return self._factors.solve(y)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        return self._factors.solve(v)


class _ActivationInverse(LayerInverse):
    """x = f⁻¹(y), for y in the open interval of values that f takes."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        super().__init__(layer, stage)
        inverse = _inverse_of(layer)
        assert inverse is not None, "check_invertible comes first"
        self._inverse = inverse

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        self._check_range(y)
        return self._inverse.value(self.layer, y)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        scale = beside(v, scale)
        self._check_range(y, y - scale * v)
        return self._inverse.difference(self.layer, y, v, scale)

    def _check_range(self, *values: Tensor) -> None:
        low, high = self._inverse.range
        if (low, high) == (-inf, inf):
            return
        for y in values:
            if not expect(all_true, [(y > low) & (y < high)]):
                raise InvalidValueError(
                    f"stage {self.stage} cannot be inverted here: {type(self.layer).__name__} takes values in "
                    f"({low:g}, {high:g}), and the activity or target given spans "
                    f"[{y.min():.4g}, {y.max():.4g}]; nothing was clipped: bring the targets inside, e.g. 0.1 and 0.9 "
                    "for 0 and 1, or closer to the forward pass"
                )


class _FirstUnitsInverse(LayerInverse):
    """The units read take what comes back; the others, which are auxiliary, keep their value of the forward pass."""

    layer: FirstUnits

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        assert x is not None, "needs_forward tells that it is needed"
        return torch.cat([y, x[..., self.layer.out_features :]], -1)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        padded = torch.zeros_like(x)
        padded[..., : self.layer.out_features] = v
        return padded


class _FlattenInverse(LayerInverse):
    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        assert x is not None, "needs_forward tells that it is needed"
        return y.reshape(x.shape)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        return v.reshape(x.shape)


def _layer_inverse(layer: nn.Module, stage: str) -> LayerInverse:
    if isinstance(member_of(layer), nn.Linear):
        return _LinearInverse(layer, stage)
    own = {FirstUnits: _FirstUnitsInverse, nn.Flatten: _FlattenInverse}
    return own.get(type(layer), _ActivationInverse)(layer, stage)


class StageInverse:
    """The inverse of a stage g: layers in sequence. It is factorised once and valid until the weights change.

    Parameters
    ----------
    layers
        The layers of the stage, in the order of the forward pass.
    name
        The name of the stage, for messages.

    Raises
    ------
    ValueError
        If a layer has no inverse, or its matrix is singular or too badly conditioned for its precision.
    """

    def __init__(self, layers: Sequence[nn.Module], name: str) -> None:
        check_invertible(layers, name)
        self._inverses = [_layer_inverse(layer, name) for layer in layers]

    def __call__(self, y: Tensor, at: Sequence[Tensor] | None = None) -> Tensor:
        """Return g⁻¹(y).

        Parameters
        ----------
        y
            Shaped like g's value, (sample, …).
        at
            What the forward pass gave: the stage's input, then the value of each layer. Needed where `needs_forward`.

        Raises
        ------
        ValueError
            If `y` is outside the values that an activation takes.
        """
        for place in reversed(range(len(self._inverses))):
            y = self._inverses[place].value(y, None if at is None else at[place])
        return y

    def difference(self, v: Tensor, scale: Scale, at: Sequence[Tensor]) -> Tensor:
        """Return [g⁻¹(ȳ) − g⁻¹(ȳ − s v)] / s, correct to rounding for every s > 0.

        Parameters
        ----------
        v
            The scaled deviation, shaped like g's value, (sample, …).
        scale
            s > 0, or one for each sample.
        at
            What the forward pass gave: the stage's input, then the value of each layer, ȳ the last.

        Raises
        ------
        ValueError
            If ȳ or ȳ − s v is outside the values that an activation takes.
        """
        for place in reversed(range(len(self._inverses))):
            v = self._inverses[place].difference(v, scale, at[place], at[place + 1])
        return v


def inverse_value(layers: Sequence[nn.Module], name: str, y: Tensor, at: Sequence[Tensor]) -> Tensor:
    """Return g⁻¹(y) of a stage, for `torch.autograd` to differentiate by y and by the weights.

    Parameters
    ----------
    layers, name
        The layers of the stage, each invertible, and what messages call it.
    y
        Shaped like g's value, (sample, …).
    at
        What the forward pass gave: the stage's input, then the value of each layer; nothing where not `needs_forward`.
    """
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if isinstance(layer, nn.Linear):
            y = y if layer.bias is None else y - layer.bias
            y = torch.linalg.solve(layer.weight, y.unsqueeze(-1)).squeeze(-1)
        else:
            y = _layer_inverse(layer, name).value(y, at[place] if at else None)
    return y


def forward_difference(layers: Sequence[nn.Module], v: Tensor, scale: Scale, at: Sequence[Tensor]) -> Tensor:
    """Return [g(x̄) − g(x̄ − s v)] / s of a stage g, correct to rounding for every s > 0.

    Parameters
    ----------
    layers
        The layers of the stage, each invertible.
    v
        The scaled deviation, shaped like g's input, (sample, …).
    scale
        s > 0, or one for each sample.
    at
        What the forward pass gave: x̄, then the value of each layer.
    """
    for layer, x, y in zip(layers, at, at[1:], strict=False):
        if isinstance(member_of(layer), nn.Linear):
            weight: Tensor = layer.weight.detach()  # type: ignore[operator]
            v = (by_member(v, weight) @ weight.mT).view_as(y)
        elif isinstance(layer, (FirstUnits, nn.Flatten)):
            v = layer(v)
        else:
            inverse = _inverse_of(layer)
            assert inverse is not None, "check_invertible comes first"
            v = inverse.forward_difference(layer, x, y, v, beside(v, scale))
    return v


@dataclass(frozen=True)
class _Factors:
    """Wᵀ = P L U, and W's image of a fixed vector, by which a change of the weights is noticed."""

    image: Tensor
    lu: Tensor
    pivots: Tensor

    def lasting(self) -> _Factors:
        """Return them as what is the same for every batch."""
        return _Factors(constant(lambda: self.image), constant(lambda: self.lu), constant(lambda: self.pivots))

    def solve(self, y: Tensor) -> Tensor:
        """Return W⁻¹ y for each row of `y`, shape (…, units)."""
        # Rows times Wᵀ, so that nothing has to be laid out anew for LAPACK, which stores matrices by columns.
        x: Tensor = torch.linalg.lu_solve(self.lu, self.pivots, by_member(y, self.lu), left=False)
        return x.reshape(y.shape)


def _all_equal(tensors: Sequence[Tensor]) -> bool:
    first, *others = tensors
    return all(torch.equal(first, each) for each in others)


_FACTORS: WeakKeyDictionary[nn.Module, _Factors] = WeakKeyDictionary()


def _factorise(layer: nn.Module, stage: str) -> _Factors:
    """Return the factors of a layer's weights, those kept from the last time if the weights are the same."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if weight.dtype not in (torch.float32, torch.float64):
        raise InvalidValueError(f"stage {stage} cannot be inverted in {weight.dtype}; use float32 or float64")
    # PyTorch's version counter does not see a change through `.data`, but the image W r does.
    probe = constant(lambda: torch.arange(1, weight.shape[-1] + 1, dtype=weight.dtype, device=weight.device).cos_())
    image = weight @ probe
    kept = _FACTORS.get(layer)
    if kept is not None and (kept.image.dtype, kept.image.device) == (image.dtype, image.device):
        kept = kept.lasting()
        if expect(_all_equal, [kept.image, image]):
            return kept
    lu, pivots, _ = torch.linalg.lu_factor_ex(weight.mT)
    factors = _Factors(image, lu, pivots)
    # How well a known solution comes back tells the conditioning for one solve; its number is for the message.
    errors = torch.linalg.vector_norm(factors.solve(image) - probe, dim=-1) / torch.linalg.vector_norm(probe)
    if not expect(all_true, [errors <= _WORST_ERROR]):
        worst = torch.linalg.cond(weight.double()).max()
        raise InvalidValueError(
            f"stage {stage} cannot be inverted in {weight.dtype}: its weights' condition number is "
            f"{float(worst):.3g}; start from orthogonal weights, keep them near with "
            "the Orthogonality regularizer" + (", or use float64" if weight.dtype == torch.float32 else "")
        )
    _FACTORS[layer] = factors
    return factors

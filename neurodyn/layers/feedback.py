"""Feedback weights: the way back through a stage that is not the transpose of the way forth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.checks import flag, positive, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.choice import layer_point
from neurodyn.layers.points import Conv2dPoint, LinearPoint
from neurodyn.layers.stages import Stage


class FeedbackWeights:
    """Feedback weights ψ of a stage, in place of Wᵀ: one tensor for each Linear or Conv2d layer.

    Of a Linear, ψ has the shape of Wᵀ, (in, out); of a Conv2d, it is a kernel of the same shape as W. They are drawn
    from N(0, σ²), on the device and in the dtype of W.

    Parameters
    ----------
    stage
        The stage.
    seed
        Of the draw; the global random state is left as it was.
    learned
        Whether they learn; fixed ones require no gradient.
    sigma
        The standard deviation σ > 0; 0.05 as in the paper.

    Raises
    ------
    TypeError, ValueError
        If there is no stage, a setting is not as above, or a layer with parameters is neither Linear nor Conv2d with a
        padding of zeros, given in numbers.

    References
    ----------
    Millidge et al., "Activation Relaxation" (2020), §3.1; fixed ones: T. P. Lillicrap et al., Nat. Commun. 7 (2016).

    Examples
    --------
    >>> import neurodyn as nd
    >>> _, second = nd.cut(nd.mlp([4, 3, 2]))
    >>> psi = nd.FeedbackWeights(second, seed=0, learned=False)
    >>> nd.Coupling("x2", "x1", nd.Feedback(second, weights=psi)).text
    "ψ2 (f'(x̄) ⊙ x2)"
    """

    def __init__(self, stage: Stage, *, seed: int, learned: bool, sigma: float = 0.05) -> None:
        if not isinstance(stage, Stage):
            raise InvalidTypeError(f"feedback weights are those of a neurodyn Stage, not of a {type(stage).__name__}")
        self.stage = stage
        self.learned = flag("learned of FeedbackWeights", learned)
        sigma = positive("sigma of FeedbackWeights", sigma)
        generator = torch.Generator().manual_seed(whole("seed of FeedbackWeights", seed, least=0))
        self.tensors: dict[int, nn.Parameter] = {}
        self._transposed: set[int] = set()
        for place in stage.weighted:
            layer = stage.layers[place]
            if not isinstance(layer_point(layer), (LinearPoint, Conv2dPoint)):
                raise InvalidValueError(
                    f"stage {stage.name} ({stage.label}): there are feedback weights for Linear, and for Conv2d whose "
                    f"padding is zeros, given in numbers; not for {layer}"
                )
            assert isinstance(layer, (nn.Linear, nn.Conv2d)), "checked above"
            weight = layer.weight.detach()
            shape = weight.shape
            if isinstance(layer, nn.Linear):
                shape = shape[::-1]
                self._transposed.add(place)
            draw = sigma * torch.randn(shape, generator=generator, device="cpu")
            self.tensors[place] = nn.Parameter(draw.to(weight), requires_grad=self.learned)

    def gradient(self, gradients: dict[int, tuple[Tensor, ...]]) -> dict[int, Tensor]:
        """Return the gradient of each ψ, (ΔW)ᵀ of a Linear and ΔW of a Conv2d, given the stage's by layer."""
        found = {place: gradients[place][self._place_of_weights(place)] for place in self.tensors}
        return {place: each.mT if place in self._transposed else each for place, each in found.items()}

    def _place_of_weights(self, place: int) -> int:
        return [name for name, _ in self.stage.layers[place].named_parameters()].index("weight")

    def __repr__(self) -> str:
        return f"FeedbackWeights({self.stage}, {'learned' if self.learned else 'fixed'})"

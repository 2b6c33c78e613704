"""The forward pass through stages in the order of their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.stages import Source, Stage


def sources(forward: Sequence[Stage]) -> dict[Stage, tuple[Source, ...]]:
    """Return what each stage of a forward pass reads: its own sources, or else what stands before it.

    Parameters
    ----------
    forward
        The stages, in the order of their evaluation.

    Raises
    ------
    ValueError
        If a stage reads one that does not stand before it.
    """
    reads: dict[Stage, tuple[Source, ...]] = {}
    before: Source = "input"
    for stage in forward:
        for source in stage.sources:
            if source != "input" and source not in reads:
                raise InvalidValueError(
                    f"stage {stage.name} ({stage.label}) reads stage {source.name}, which does not stand before it in "
                    "the forward pass"
                )
        reads[stage] = stage.sources or (before,)
        before = stage
    return reads


def evaluated(
    reads: Mapping[Stage, tuple[Source, ...]], inputs: Tensor, apply: Callable[..., Tensor] = Stage.apply
) -> dict[Source, Tensor]:
    """Return what the stages of a forward pass give, one after the other, and the inputs by "input".

    Parameters
    ----------
    reads
        What each stage reads, as `sources` returns it.
    inputs
        Shape (sample, …).
    apply
        `apply(stage, *values)` returns g(values); by default with the graph that `torch.autograd` makes of it.
    """
    values: dict[Source, Tensor] = {"input": inputs}
    for stage, read in reads.items():
        values[stage] = apply(stage, *[values[source] for source in read])
    return values


class ForwardPass:
    """The forward pass x̄_0 = s, x̄_l = g_l(x̄_{l−1}) through the stages, kept for its operating points.

    A stage with sources of its own reads those in place of x̄_{l−1}.

    Parameters
    ----------
    stages
        The stages from the input to the output, in the order of their evaluation.
    inputs
        s, shape (sample, …); where it is None, `move_to` has to bring one.
    """

    output: Tensor
    """x̄_L, shape (sample, …)."""

    def __init__(self, stages: Sequence[Stage], inputs: Tensor | None = None) -> None:
        self._reads = sources(stages)
        self.points = {stage: StagePoint(stage) for stage in stages}
        if inputs is not None:
            self.move_to(inputs)

    def move_to(self, inputs: Tensor) -> None:
        """Run the pass from other inputs, in the same operating points."""
        *_, self.output = evaluated(self._reads, _plain(inputs), self._value).values()

    def _value(self, stage: Stage, *x: Tensor) -> Tensor:
        return _plain(self.points[stage].checked_at(*x))

    def forget(self) -> None:
        """Let go of the inputs, and of what was made of them."""
        del self.output
        for point in self.points.values():
            point.move_to()


def _plain(x: Tensor) -> Tensor:
    """Lay a tensor out as a population's activity is: a convolution's rounding depends on the strides of its input."""
    return x.contiguous() if x.ndim == 2 else x.contiguous().flatten().view(x.shape)

"""Stages: the pieces of a feedforward module between two populations, and the forward pass through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from itertools import count
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from neurodyn.checks import flag, listed
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.inverses import StageInverse
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.origin import Origin, check_backward_hooks
from neurodyn.layers.points import (
    LayerPoint,
    bend_of,
    computes,
    is_activation,
    is_affine,
    is_plain,
    is_smooth,
    layer_point,
    own_parameters,
)
from neurodyn.layers.sparse import SparseLinear
from neurodyn.layers.stacked import Stacked, member_of

_REFUSED: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.RNNBase, "its output is a tuple with a hidden state; unroll it into single steps"),
    (nn.MultiheadAttention, "it takes three inputs and returns a tuple"),
    (nn.Embedding, "its input is an index, which has no derivative"),
    (nn.Transformer, "it takes two inputs"),
    (torch.jit.ScriptModule, "its layers cannot be seen; give the module that it was made of"),
    (nn.DataParallel, "it spreads the samples itself; give the module that it holds, its .module"),
    (nn.parallel.DistributedDataParallel, "it averages gradients itself; give the module that it holds, its .module"),
)
_ALWAYS_FIT = {nn.Linear, nn.Conv2d, *ACTIVATIONS}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _check_layer(layer: nn.Module, stage: str) -> None:
    if type(layer) in _ALWAYS_FIT and not layer._forward_pre_hooks:
        return
    for part in layer.modules():
        name = type(part).__name__
        for kind, reason in _REFUSED:
            if isinstance(part, kind):
                raise InvalidValueError(f"stage {stage}: {name} cannot be part of a stage: {reason}")
        if isinstance(part, _BATCH_NORMS) and (part.training or not part.track_running_stats):
            raise InvalidValueError(
                f"stage {stage}: {name} in training mode couples the samples of a batch, so that a sample has no "
                "Jacobian of its own; call .eval() on the module, or use LayerNorm or GroupNorm"
            )
        if any(nn.parameter.is_lazy(p) for p in part.parameters(recurse=False)):
            raise InvalidValueError(
                f"stage {stage}: {name} does not know its sizes yet; run the module once on a batch of inputs before"
            )
        if part.training and (isinstance(part, nn.RReLU) or (isinstance(part, _DROPOUTS) and part.p > 0)):
            raise InvalidValueError(
                f"stage {stage}: {name} in training mode gives another value at every evaluation; call .eval() on the "
                "module or remove the layer"
            )
        if part.training and (isinstance(part, _SpectralNorm) or _has_spectral_norm_hook(part)):
            raise InvalidValueError(
                f"stage {stage}: spectral_norm in training mode changes the weights at every evaluation; call .eval() "
                "on the module"
            )
        check_backward_hooks(part)


def _has_spectral_norm_hook(part: nn.Module) -> bool:
    return any(isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values())


class Stage:
    """One piece g of a feedforward module: layers in sequence, from one population to the next.

    Parameters
    ----------
    layers
        The layers, in the order of the forward pass, or one module (an `nn.Sequential` is taken apart).
    name
        How equations and messages name it, e.g. "2"; by default the name of its last layer's class.

    Raises
    ------
    TypeError
        If a layer is no `nn.Module`.
    ValueError
        If there is no layer, or one that cannot be part of a stage (recurrent, batch-coupling, random, …).

    Notes
    -----
    Forward hooks of a layer, or a forward put on it, are called. Those of an `nn.Sequential`, which is taken apart, and
    backward hooks are refused, and so is, when a network is run, a module whose layers, hooks or forward have changed
    since. Parameters are taken as they then are.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> stage = nd.Stage([torch.nn.Linear(3, 2), torch.nn.Tanh()], "1")
    >>> stage.label, stage.output_size
    ('Linear(3 → 2), Tanh', 2)
    """

    def __init__(self, layers: nn.Module | Iterable[nn.Module], name: str | None = None) -> None:
        if isinstance(layers, nn.Module) or not isinstance(layers, Iterable):
            layers = [layers]
        layers = listed("layers of a stage", layers)
        if name is not None and not isinstance(name, str):
            raise InvalidTypeError(f"stage {name!r}: its name is text, such as '2', not {type(name).__name__}")
        flat, containers = take_apart(layers)
        self.layers = tuple(flat)
        if not self.layers:
            raise InvalidValueError(f"stage {name or ''} has no layer: give it at least one nn.Module")
        self.origin = Origin([*containers, *self.layers])
        """What it was made of, as it was then."""
        self.name = name if name is not None else type(self.layers[-1]).__name__
        self.sources: tuple[Source, ...] = ()
        """What it reads in a forward pass, if not what the stage before it gives."""
        self._output_shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.check()
        self.origin.check()

    def check(self) -> None:
        """Refuse layers that cannot be part of a stage in their present mode (training or evaluation)."""
        for layer in self.layers:
            _check_layer(layer, self.name)

    @property
    def arguments(self) -> int:
        """How many values g reads."""
        return len(self.sources) or 1

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of the layers, in the order in which `StagePoint.gradient` returns their gradients."""
        return tuple(p for i in self.weighted for p in own_parameters(self.layers[i]))

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """The places of the layers that have parameters."""
        return tuple(i for i, layer in enumerate(self.layers) if any(True for _ in layer.parameters()))

    @cached_property
    def activations(self) -> frozenset[int]:
        """The places of the layers that are activations."""
        return frozenset(i for i, layer in enumerate(self.layers) if is_activation(layer))

    @cached_property
    def affine(self) -> bool:
        """Whether g is affine, so that its Jacobian is the same at every operating point."""
        return all(is_affine(layer) for layer in self.layers)

    @cached_property
    def smooth(self) -> bool:
        """Whether no layer of g is known to have a kink."""
        return all(is_smooth(layer) for layer in self.layers)

    @cached_property
    def bend(self) -> float | None:
        """By how much f' of the first layer is larger above 0 than below, where g has no other kink; None elsewhere."""
        smooth = all(is_smooth(layer) for layer in self.layers[1:])
        return bend_of(self.layers[0]) if smooth else None

    @property
    def bends_alone(self) -> bool:
        """Whether g is continuous: no layer is known to have a kink but rectifiers."""
        return all(is_smooth(layer) or bend_of(layer) is not None for layer in self.layers)

    @cached_property
    def input_size(self) -> int | None:
        """The number of input units, where the layers fix it: a Linear with only activations before it."""
        return _fixed_size(self.layers, "in_features")

    @cached_property
    def output_size(self) -> int | None:
        """The number of output units, where the layers fix it: a Linear or FirstUnits with only activations after."""
        return _fixed_size(self.layers[::-1], "out_features")

    def output_shape(self, input_shape: Sequence[int], argument: int = 0) -> tuple[int, ...]:
        """Return the shape of one sample of g's value.

        Parameters
        ----------
        input_shape
            The shape of one sample of its input, e.g. (784,) or (3, 32, 32).
        argument
            Which of the values that it reads has that shape, counted from 0.

        Raises
        ------
        ValueError
            If the layers do not accept that shape.
        """
        input_shape = tuple(input_shape)
        if input_shape not in self._output_shapes:
            like = next(iter(self.parameters), torch.empty(0)).detach()
            samples = 2 * max(layer.members if isinstance(layer, Stacked) else 1 for layer in self.layers)
            value = StagePoint(self).checked_at(like.new_zeros((samples, *input_shape)))
            self._output_shapes[input_shape] = tuple(value.shape[1:])
        return self._output_shapes[input_shape]

    @cached_property
    def first_of_output(self) -> int:
        """The place after the last layer with parameters: the layers from there on make g's units of h."""
        return self.weighted[-1] + 1 if self.weighted else 0

    @property
    def mark(self) -> str:
        """The stage's name, with a number where the text at hand has several stages of that name."""
        return _MARKS.get().get(self, self.name)

    @property
    def symbol(self) -> str:
        """How an equation writes the stage: g2 for the second of a module, else its name."""
        return f"g{self.mark}" if self.name.isdigit() else self.mark

    @property
    def label(self) -> str:
        """The layers as a short text, e.g. "Linear(300 → 100), Tanh"."""
        return ", ".join(_layer_label(layer) for layer in self.layers)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return g(x), shape (sample, …), without a graph."""
        return self.at(x).value.clone()

    def apply(self, *x: Tensor) -> Tensor:
        """Return g(x), shape (sample, …), by the layers themselves, for `torch.autograd` to differentiate."""
        # Copies, because a layer that works in place would overwrite what it reads.
        value: Tensor = self.layers[0](*(each.clone() for each in x))
        for layer in self.layers[1:]:
            value = layer(value)
        return value

    def at(self, *x: Tensor) -> StagePoint:
        """Return the stage at the operating point `x`, shape (sample, …): one tensor for each value that it reads."""
        point = StagePoint(self)
        point.move_to(*x)
        return point

    def inverted(self) -> StageInverse:
        """Return g⁻¹, factorised once and valid until the weights change.

        Raises
        ------
        ValueError
            If a layer has no inverse, or its matrix is singular or too badly conditioned.
        """
        return StageInverse(self.layers, self.name)

    def __repr__(self) -> str:
        return f"Stage {self.name}: {self.label}"


_MARKS: ContextVar[Mapping[Stage, str]] = ContextVar("_MARKS", default=MappingProxyType({}))


def distinct_names(stages: Iterable[Stage]) -> dict[Stage, str]:
    """Return a name for each stage that no other has, with a number as in "Tanh_2" where several are called the same.

    Stages of the same layers, or of PyTorch's own without tensors and with the same settings, are one function, and
    share theirs.
    """
    functions: dict[Stage, tuple[object, ...]] = {
        stage: (stage.name, *map(_function, stage.layers), *stage.sources) for stage in stages
    }
    counts = Counter(str(name) for name, *_ in dict.fromkeys(functions.values()))
    taken = set(counts)
    names: dict[object, str] = {}
    for function in functions.values():
        if function not in names:
            own = str(function[0])
            numbered = (f"{own}_{number}" for number in count(1))
            names[function] = own if counts[own] == 1 else next(name for name in numbered if name not in taken)
            taken.add(names[function])
    return {stage: names[function] for stage, function in functions.items()}


def _function(layer: nn.Module) -> object:
    by_settings = type(layer).__module__.startswith("torch.nn.") and is_plain(layer) and not layer.state_dict()
    return (type(layer), repr(layer)) if by_settings else layer


@contextmanager
def told_apart(stages: Iterable[Stage]) -> Iterator[None]:
    """Let text that is written inside tell stages of the same name apart."""
    token = _MARKS.set(distinct_names(stages))
    try:
        yield
    finally:
        _MARKS.reset(token)


Source = Stage | Literal["input"]
"""What a stage reads in a forward pass: the value of another stage, or the input."""


class StagePoint:
    """A stage at an operating point: its value, its feedback and its parameter gradient there.

    Each is worked out when first asked for and then kept, until `move_to` changes the operating point.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._layers: list[LayerPoint] = [layer_point(layer) for layer in stage.layers]
        last = max((i for i, layer in enumerate(self._layers) if layer.feedback_needs_forward), default=-1)
        self._needed_by_feedback = last + 1
        last = stage.weighted[-1] if stage.weighted else 0
        self._needed_by_gradient = last + self._layers[last].gradient_needs_forward
        self.takes_rows = all(layer.takes_rows for layer in self._layers)
        """Whether `feedback` takes several v side by side, shape (row, sample, …), as well."""
        self._inputs: tuple[Tensor, ...] = ()
        self._values: list[Tensor] = []

    def move_to(self, *x: Tensor) -> None:
        """Make `x`, shape (sample, …), the operating point; it must not change while the point is in use."""
        self._inputs, self._values = x, []

    def _advance(self, layers: int) -> Tensor:
        """Return the value after as many layers, and x itself after none."""
        for layer in self._layers[len(self._values) : layers]:
            self._values.append(layer.forward(*(self._values[-1:] or self._inputs)))
        return self._values[layers - 1] if layers else self._inputs[0]

    @property
    def value(self) -> Tensor:
        """g(x), shape (sample, …)."""
        return self._advance(len(self._layers))

    def checked_at(self, *x: Tensor) -> Tensor:
        """Make `x` the operating point, and return g(x).

        Raises
        ------
        ValueError
            If the layers do not accept `x`, or do not return one value a sample.
        """
        self.move_to(*x)
        stage = self.stage
        try:
            value = self.value
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            shapes = " and ".join(" × ".join(map(str, each.shape[1:])) for each in x)
            raise InvalidValueError(
                f"stage {stage.name} ({stage.label}) does not take an input of {shapes} a sample: {error}"
            ) from error
        if value.ndim < 2 or value.shape[0] != x[0].shape[0]:
            shapes = " and ".join(str(tuple(each.shape)) for each in x)
            raise InvalidValueError(
                f"stage {stage.name} ({stage.label}) makes {tuple(value.shape)} of the shape {shapes}; the first axis "
                "must stay the sample"
            )
        return value

    @property
    def values(self) -> Sequence[Tensor]:
        """x, and then the value of each layer; g(x) is the last."""
        self._advance(len(self._layers))
        return [self._inputs[0], *self._values]

    @property
    def slope(self) -> Tensor:
        """f'(h) of each unit of g(x), where f are the activations after the last layer with weights."""
        first = self.stage.first_of_output
        slope = torch.ones_like(self.values[first])
        for place in range(first, len(self._layers)):
            layer = self._layers[place]
            if not is_plain(layer.layer):
                raise InvalidValueError(
                    f"stage {self.stage.name} ({self.stage.label}): a hook or a forward of its own changes what its "
                    f"{type(layer.layer).__name__} computes, so its units have no derivative f'(h) of their own; "
                    "remove it"
                )
            slope = layer.feedback(slope) if place in self.stage.activations else layer.layer(slope)
        return slope.clone()

    def feedback(
        self,
        v: Tensor,
        argument: int = 0,
        *,
        weights: Mapping[int, Tensor] | None = None,
        derivative: bool = True,
    ) -> Tensor:
        """Return Jᵀ v, where J = ∂g/∂x at the operating point; v itself, or a view of it, where J does no more.

        Parameters
        ----------
        v
            Shaped like g(x).
        argument
            By which of the values that g reads it is differentiated, counted from 0.
        weights
            Feedback weights in place of the transposed ones, by the place of their layer.
        derivative
            Whether the activations' derivatives f' are applied.
        """
        self._advance(self._needed_by_feedback)
        for place in range(len(self._layers) - 1, bool(argument) - 1, -1):
            v = self._back(place, v, weights or {}, derivative)
        return self._layers[0].feedback_to(argument, v) if argument else v

    def feedback_norm(
        self, argument: int = 0, *, weights: Mapping[int, Tensor] | None = None, derivative: bool = True, rows: int
    ) -> float | Tensor | None:
        """Return a bound on ‖Jᵀ v‖₂ / ‖v‖₂ of a sample, at any operating point; None where none is known.

        Parameters
        ----------
        argument, weights, derivative
            As for `feedback`.
        rows
            How many samples are fed back: the bound takes no longer than that.
        """
        norm: float | Tensor = 1.0
        for place, layer in enumerate(self._layers):
            if derivative or place not in self.stage.activations:
                own = layer.feedback_norm((weights or {}).get(place), rows)
                if own is None or argument:
                    return None
                norm = norm * own
        return norm

    def add_feedback(self, v: Tensor, out: Tensor, gain: float, jump: Tensor | None = None) -> None:
        """Add gain · Jᵀ v to `out`, which is shaped like x, as is `jump`; shapes as for `feedback`.

        By how much that jumps as each unit of x passes 0, of a stage with a `bend`, is added to `jump`.
        """
        self._advance(self._needed_by_feedback)
        for layer in self._layers[:0:-1]:
            v = layer.feedback(v)
        if jump is not None and self.stage.bend is not None:
            jump.add_(v, alpha=gain * self.stage.bend)
        self._layers[0].add_feedback(v, out, gain)

    def _back(self, place: int, v: Tensor, weights: Mapping[int, Tensor], derivative: bool) -> Tensor:
        if place in weights:
            return self._layers[place].feedback_through(v, weights[place].detach())
        if not derivative and place in self.stage.activations:
            return v
        return self._layers[place].feedback(v)

    def gradient(self, v: Tensor) -> tuple[Tensor, ...]:
        """Return Σ_sample (∂g/∂θ)ᵀ v for each parameter θ of the stage, in the order of `Stage.parameters`."""
        return tuple(gradient for layer in self.layer_gradients(v).values() for gradient in layer)

    def layer_gradients(
        self, v: Tensor, *, at: StagePoint | None = None, derivative: bool = True
    ) -> dict[int, tuple[Tensor, ...]]:
        """Return Σ_sample (∂g/∂θ)ᵀ v for the parameters θ of each layer, by the layer's place, the first one first.

        Parameters
        ----------
        v
            Shaped like g(x).
        at
            Where the derivatives f' are taken; here, if None. The presynaptic activity is that of this point.
        derivative
            Whether the activations' derivatives f' are applied.
        """
        at = self if at is None else at
        gradients: dict[int, tuple[Tensor, ...]] = {}
        if self.stage.weighted:
            first = self.stage.weighted[0]
            self._advance(self._needed_by_gradient)
            at._advance(at._needed_by_feedback)
            for place in range(len(self._layers) - 1, first - 1, -1):
                if place in self.stage.weighted:
                    gradients[place] = self._layers[place].gradient(self._advance(place), v)
                if place > first:
                    v = at._back(place, v, {}, derivative)
        return dict(reversed(gradients.items()))


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


def take_apart(layers: Iterable[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Take every nested `nn.Sequential` apart; return the layers in order, and what was taken apart.

    Raises
    ------
    TypeError
        If one is no `nn.Module`.
    ValueError
        If an `nn.Sequential` has hooks, or a forward put in the place of its own, or is compiled: that would be lost.
    """
    flat: list[nn.Module] = []
    taken: list[nn.Module] = []
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise InvalidTypeError(f"a stage is made of nn.Module layers, and {layer!r} is a {type(layer).__name__}")
        if type(layer).forward is nn.Module.forward and "forward" not in vars(layer):
            raise InvalidTypeError(
                f"a stage is made of layers that compute, and {type(layer).__name__} defines no forward(); give an "
                "nn.Sequential of layers"
            )
        compiled = getattr(layer, "_orig_mod", None)
        if compiled is not None:
            raise InvalidValueError(
                f"torch.compile: a compiled {type(compiled).__name__} can neither be taken apart nor "
                "differentiated layer by layer; give the module itself, its ._orig_mod"
            )
        if not isinstance(layer, nn.Sequential) or type(layer).forward is not nn.Sequential.forward:
            flat.append(layer)
            continue
        if not computes(layer, nn.Sequential):
            raise InvalidValueError(
                f"{type(layer).__name__} has a forward hook, or a forward put in the place of its own, which would be "
                "lost as it is taken apart into layers; put it on one of the layers, or into a module of your own"
            )
        check_backward_hooks(layer)
        inner, more = take_apart(layer)
        flat += inner
        taken += [layer, *more]
    return flat, taken


def cut(module: nn.Module, *, before_activation: bool = False) -> list[Stage]:
    """Cut a feedforward module into stages, named "1" to "L" from the input.

    After the activation, x_l = f(W_l x_{l−1} + b_l), or before it, μ_l = W_l f(x_{l−1}) + b_l. A stage begins at
    each layer with parameters, at the `FirstUnits` that it reads, or, when cut before the activation, at the activation
    in front of it. Pooling, flattening and the like belong to the stage that they follow.

    Parameters
    ----------
    module
        An `nn.Sequential` (nested ones are taken apart), or one layer.
    before_activation
        Where to cut.

    Raises
    ------
    TypeError
        If `module` is no `nn.Module`.
    ValueError
        If it has no layers, or one that cannot be part of a stage.

    Examples
    --------
    >>> import neurodyn as nd
    >>> [stage.label for stage in nd.cut(nd.mlp([4, 3, 2]))]
    ['Linear(4 → 3), Tanh', 'Linear(3 → 2)']
    """
    before_activation = flag("before_activation", before_activation)
    flag("before_activation", before_activation)
    layers, containers = take_apart([module])
    with_weights = [not is_activation(layer) and any(True for _ in layer.parameters()) for layer in layers]
    pieces: list[list[nn.Module]] = []
    weighted = False
    for place, layer in enumerate(layers):
        reads = with_weights[place] or (isinstance(layer, FirstUnits) and any(with_weights[place:]))
        begins = weighted and (reads or (before_activation and is_activation(layer)))
        if begins or not pieces:
            pieces.append([])
            weighted = False
        pieces[-1].append(layer)
        weighted = weighted or with_weights[place]
    if not pieces:
        raise InvalidValueError("the module has no layers: give an nn.Sequential with at least one")
    stages = [Stage(layers, str(number)) for number, layers in enumerate(pieces, start=1)]
    origin = Origin([*containers, *layers])
    for stage in stages:
        stage.origin = origin
    return stages


def _fixed_size(layers: Sequence[nn.Module], attribute: str) -> int | None:
    for layer in layers:
        if any(computes(layer, kind) for kind in (nn.Linear, SparseLinear)) or isinstance(layer, FirstUnits):
            size: int | None = getattr(layer, attribute, None)
            return size
        if not is_activation(layer):
            return None
    return None


def _layer_label(layer: nn.Module) -> str:
    layer = member_of(layer)
    if isinstance(layer, (nn.Linear, SparseLinear)):
        return f"{type(layer).__name__}({layer.in_features} → {layer.out_features})"
    if isinstance(layer, nn.Conv2d):
        return f"Conv2d({layer.in_channels} → {layer.out_channels}, {'×'.join(map(str, layer.kernel_size))})"
    return repr(layer) if isinstance(layer, FirstUnits) else type(layer).__name__

"""A feedforward module cut into stages."""

from __future__ import annotations

from torch import nn

from neurodyn.checks import flag
from neurodyn.errors import InvalidValueError
from neurodyn.layers.admission import take_apart
from neurodyn.layers.kinds import is_activation
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.origin import Origin
from neurodyn.layers.stages import Stage


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

"""Whether the parts of a network fit each other; what does not is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.layers.names import shape_text
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import Drive, ForwardValue, Input, LossGradient, without_noise
from neurodyn.network.equations import size_text
from neurodyn.network.maps import Map
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.pointwise import Identity, Pointwise
from neurodyn.network.population import Population
from neurodyn.network.stage_maps import Feedback, Forward
from neurodyn.network.timing import AtStep, OnSpike
from neurodyn.network.vectors import Vector
from neurodyn.network.wrapping import unwrapped

if TYPE_CHECKING:
    from neurodyn.network.network import Network


def check_network(network: Network) -> None:
    """Refuse a network whose parts do not fit each other."""
    populations = {population.name: population for population in network.populations}
    for coupling in network.couplings:
        _check_coupling(network, populations, coupling)
    for rule in network.plasticity:
        pre, post = (known(populations, end, f"plasticity of stage {rule.stage.name}") for end in (rule.pre, rule.post))
        if pre.shape is not None and post.shape is not None:
            check_plasticity_shapes(rule, pre.shape, post.shape)
        if rule.reads_forward:
            _check_in_forward(network, rule.stage, f"plasticity of stage {rule.stage.name}")
        _check_when(network, populations, rule)
    for population in network.populations:
        for drive in (population.clamp, population.initial):
            _check_drive(network, population, without_noise(drive))
    if len(set(network.forward)) < len(network.forward):
        raise InvalidValueError(
            f"network {network.name!r}: a stage stands twice in forward=; make a second Stage of the same layers"
        )
    if network.forward and len(network.inputs) != 1:
        raise InvalidValueError(
            f"network {network.name!r}: a forward pass starts from one population clamped to Input(), and there are "
            f"{len(network.inputs)}"
        )


def known(populations: Mapping[str, Population], name: str, where: str) -> Population:
    """Return the population called `name`.

    Raises
    ------
    ValueError
        If there is none, said of `where` it is named.
    """
    if not isinstance(name, str) or name not in populations:
        raise InvalidValueError(f"{where}: there is no population {name!r}; there are {', '.join(populations)}")
    return populations[name]


def _check_coupling(network: Network, populations: Mapping[str, Population], coupling: Coupling) -> None:
    *sources, target = (known(populations, end, f"coupling {coupling}") for end in (*coupling.sources, coupling.target))
    if target.clamp is not None and not target.clamp.optional:
        raise InvalidValueError(
            f"coupling {coupling}: population {target.name} is clamped to {target.clamp}, so nothing may enter it; "
            "remove the coupling or the clamp"
        )
    for source in sources:
        if isinstance(source.clamp, Input) and source.clamp.integer:
            raise InvalidValueError(
                f"coupling {coupling}: population {source.name} holds integers, which the forward pass alone "
                "reads; remove the coupling, or declare Input() without integer"
            )
    for stage in coupling.map.frozen_stages:
        _check_in_forward(network, stage, f"coupling {coupling}")
    _check_point(network, populations, coupling)
    if isinstance(coupling.gain, Tensor) and tuple(coupling.gain.shape) not in ((), target.shape):
        raise InvalidValueError(
            f"coupling {coupling}: its gain has the shape {tuple(coupling.gain.shape)}, and population {target.name} "
            f"has {size_text(target)} units; give one number for each, and a matrix of weights as "
            "nd.Forward(nn.Linear(…))"
        )
    shapes = {p.name: p.shape for p in (*sources, target) if p.shape is not None}
    if all(p.name in shapes for p in (*sources, target)):
        check_coupling_shapes(coupling, shapes)


def _check_point(network: Network, populations: Mapping[str, Population], coupling: Coupling) -> None:
    """Refuse a live Jacobian whose place nothing tells."""
    map_ = unwrapped(coupling.map)
    if not isinstance(map_, Feedback) or map_.frozen:
        return
    stage, target = map_.stage, known(populations, coupling.target, f"coupling {coupling}")
    if map_.at is not None:
        at = known(populations, map_.at, f"coupling {coupling}: at")
        if None not in (at.shape, target.shape) and at.shape != target.shape:
            raise InvalidValueError(
                f"coupling {coupling}: J is taken at population {at.name}, which has {size_text(at)} units, and "
                f"population {target.name}, which Jᵀ leads to, has {size_text(target)}"
            )
        return
    forward = [c for c in network.couplings if isinstance(c.map, Forward) and c.map.stage is stage]
    places = dict.fromkeys([*(c.source for c in forward), *(r.pre for r in network.plasticity if r.stage is stage)])
    if target.name not in places and not stage.affine:
        found = f"; {' or '.join(f'at={name!r}' for name in places)} is where the network uses it" if places else ""
        raise InvalidValueError(
            f"coupling {coupling}: the Jacobian of stage {stage.name} ({stage.label}) is live, and population "
            f"{target.name} is not what the stage reads; say where it is taken with Feedback(stage, at=…){found}"
        )


def _check_in_forward(network: Network, stage: Stage, where: str) -> None:
    if stage not in network.forward:
        raise InvalidValueError(
            f"{where}: stage {stage.name} ({stage.label}) is used at the forward pass, which does not contain it; "
            "add it to forward=, or use the live activity"
        )


def _check_when(network: Network, populations: Mapping[str, Population], rule: Plasticity) -> None:
    if rule.when == "end":
        return
    where = f"plasticity of stage {rule.stage.name}"
    if network.inference is None:
        raise InvalidValueError(
            f"{where}: it acts {rule.when}, and the network has no inference=Inference(step, steps)"
        )
    if isinstance(rule.when, AtStep) and rule.when.step > network.inference.steps:
        raise InvalidValueError(f"{where}: it acts {rule.when}, and inference takes {network.inference.steps} steps")
    if isinstance(rule.when, OnSpike) and rule.when.moved_by is not None:
        mover, post = known(populations, rule.when.moved_by, f"{where}: moved_by"), populations[rule.post]
        if mover.instantaneous:
            raise InvalidValueError(
                f"{where}: moved_by {mover.name!r} is instantaneous, and takes no steps; name a dynamic population"
            )
        if None not in (mover.shape, post.shape) and mover.shape != post.shape:
            raise InvalidValueError(
                f"{where}: moved_by {mover.name!r} has {size_text(mover)} units, and {post.name!r} "
                f"{size_text(post)}; the two are compared unit by unit"
            )


def _check_drive(network: Network, population: Population, drive: Vector | Drive | None) -> None:
    if isinstance(drive, Input) and population.name not in network.inputs:
        raise InvalidValueError(
            f"population {population.name}: inputs are given to populations that are clamped to them; declare "
            "clamp=Input(), or pass initial= to the run"
        )
    if isinstance(drive, ForwardValue):
        _check_in_forward(network, drive.stage, f"population {population.name}")
        size = drive.stage.output_size
        if size is not None and population.shape not in (None, (size,)):
            raise InvalidValueError(
                f"population {population.name}: it has {size_text(population)} units, and stage "
                f"{drive.stage.name} ({drive.stage.label}) gives {size}"
            )
    elif isinstance(drive, LossGradient) and not network.forward:
        raise InvalidValueError(f"population {population.name}: a loss gradient needs a forward pass; give forward=")


def check_coupling_shapes(coupling: Coupling, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a coupling whose map does not lead from the sources' shapes to the target's."""
    each, target = tuple(shapes[name] for name in coupling.sources), shapes[coupling.target]
    try:
        given = coupling.map.output_shape(each if len(each) > 1 else each[0], target)
    except ValueError as error:
        raise InvalidValueError(f"coupling {coupling}: {error}") from error
    if given != target:
        kept = type(coupling.map).output_shape is Map.output_shape
        own = kept and not isinstance(coupling.map, (Identity, Pointwise))
        raise InvalidValueError(
            f"coupling {coupling}: {coupling.text} has "
            f"{shape_text(given)} units, and population {coupling.target} has {shape_text(target)}"
            + ("; a map of one's own that changes the shape says so in output_shape" if own else "")
        )


def check_plasticity_shapes(rule: Plasticity, pre: tuple[int, ...], post: tuple[int, ...]) -> None:
    """Refuse plasticity whose stage does not lead from the shape of `pre` to that of `post`."""
    given = rule.stage.output_shape(pre)
    if given != post:
        raise InvalidValueError(
            f"plasticity of stage {rule.stage.name}: {rule.stage.symbol}({rule.pre}) has "
            f"{shape_text(given)} units, and population {rule.post} has {shape_text(post)}"
        )

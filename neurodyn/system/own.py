"""The parts of a network that are someone's own, looked at once for each shape of data, before they are used.

A map, a drive, a loss, an observable, or a layer that `torch.autograd` differentiates, is a function of which nothing
else is known. One that does what it must not do is refused by its name.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.choice import layer_point
from neurodyn.layers.forward import ForwardPass
from neurodyn.layers.losses import Loss, check_per_sample, squared_error
from neurodyn.layers.operations import Operation
from neurodyn.layers.points import AutogradPoint
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import Data, Drive, without_noise
from neurodyn.network.maps import Map, OperatingPoints
from neurodyn.network.network import Network
from neurodyn.network.pointwise import Identity
from neurodyn.network.stage_maps import Feedback, Forward
from neurodyn.structure.cache import kept
from neurodyn.system.probe import Probe, Values, random_states_kept

_FEW = 8
"""How many samples a layer is given, which takes any number of them."""


class _Own:
    """What in a network is someone's own, and for which shapes it has been looked at."""

    def __init__(self, network: Network) -> None:
        drives = [(p.name, drive) for p in network.populations for drive in (p.clamp, p.initial)]
        inner = [(name, without_noise(drive)) for name, drive in drives]
        self.drives = [(name, drive) for name, drive in inner if isinstance(drive, Drive) and _is_own(drive)]
        self.loss = bool(network.forward) and network.loss is not squared_error
        self.couplings = [coupling for coupling in network.couplings if _is_own_map(coupling.map)]
        self.layers = [
            (stage, place)
            for stage in network.stages
            if not isinstance(stage, Operation)  # which were looked at as they were captured
            for place, layer in enumerate(stage.layers)
            if isinstance(layer_point(layer), AutogradPoint)
        ]
        self.outside = _outside_of_the_forward_pass(network, {stage for stage, _ in self.layers})
        self.done: set[tuple[object, ...]] = set()

    @property
    def modes(self) -> tuple[bool, ...]:
        """Training or evaluation, of each part of the layers."""
        return tuple(part.training for stage, place in self.layers for part in stage.layers[place].modules())


def _own(network: Network) -> _Own:
    return kept(network, ("own",), lambda: _Own(network))


def _outside_of_the_forward_pass(network: Network, stages: Collection[Stage]) -> dict[Stage, str]:
    """Return those of some stages that are not in the forward pass, each with a population that it reads."""
    found = {rule.stage: rule.pre for rule in network.plasticity}
    for coupling in network.couplings:
        if coupling.map.stage is not None and not _is_own(coupling.map):
            at = coupling.map.at if isinstance(coupling.map, Feedback) else None
            source = coupling.sources[0] if isinstance(coupling.map, Forward) else coupling.target
            found[coupling.map.stage] = source if at is None else at
    return {stage: name for stage, name in found.items() if stage in stages and stage not in network.forward}


def _is_own(part: object) -> bool:
    module = type(part).__module__
    return not module.startswith("neurodyn.") or module.startswith("neurodyn.models.")


def _is_own_map(map_: Map) -> bool:
    inner = getattr(map_, "map", None)  # of one that scales another
    return _is_own(map_) or _applies(map_) or (isinstance(inner, Map) and _is_own_map(inner))


def _applies(map_: Map) -> bool:
    """Tell whether a map is nothing but its `apply`."""
    return type(map_).bind in (Map.bind, Identity.bind) and type(map_) is not Identity


def has_own_parts(network: Network) -> bool:
    """Tell whether `look_at_couplings` has anything to look at."""
    own = _own(network)
    return bool(own.couplings or own.outside)


def looked_at_with(network: Network, other: Network) -> None:
    """Say that a network's own parts have been looked at with those of another one, where the two differ in numbers.

    So a scan of a parameter looks at what its networks are made of once.
    """
    kinds = [[(str(each), type(each.map)) for each in one.couplings] for one in (network, other)]
    if kinds[0] == kinds[1]:
        _own(network).done |= _own(other).done


def look_at_data(network: Network, data: Data) -> None:
    """Look at the drives of one's own, the layers in the forward pass, and the loss, before a drive is read."""
    own = _own(network)
    if not (own.drives or own.layers or own.loss):
        return
    key = ("data", *_kind(data.inputs), None if data.targets is None else data.targets.shape, own.modes)
    if key in own.done:
        return
    with random_states_kept():
        if data.forward is not None:
            for stage, place in own.layers:
                if stage in data.forward.points:
                    look_at_layer(stage, place, data.forward.points[stage].values[place])
        if own.loss and data.forward is not None and data.targets is not None:
            look_at_loss(network.loss, data.forward.output, data.targets)
        for population, drive in own.drives:
            if data.targets is not None or not drive.reads_targets:
                _look_at_drive(network, population, drive, data)
    own.done.add(key)


def look_at_couplings(
    network: Network,
    activity: Mapping[str, Tensor],
    fresh: frozenset[str],
    shapes: Mapping[str, tuple[int, ...]],
    points: OperatingPoints,
) -> None:
    """Look at the maps of one's own, and at the layers outside the forward pass, whose sources' activity is known.

    Parameters
    ----------
    network
        The declaration.
    activity
        The activity as the run starts, by population, as far as it is known; shape (sample, …).
    fresh
        The populations of which at least one must be a source: those whose activity was not known before.
    shapes
        The shape of one sample of every population.
    points
        The operating points; live ones expire.
    """
    own = _own(network)
    if not fresh:
        return
    key = ("couplings", *_kind(activity), fresh, own.modes)
    if key in own.done:
        return
    with random_states_kept():
        for coupling in own.couplings:
            reads = coupling.reads
            if all(name in activity for name in reads) and not fresh.isdisjoint(reads):
                _look_at_map(coupling, reads, activity, shapes[coupling.target], points)
        for stage, source in own.outside.items():
            if source in fresh:
                values = stage.at(activity[source]).values
                for _, place in (each for each in own.layers if each[0] is stage):
                    look_at_layer(stage, place, values[place])
    own.done.add(key)


def _look_at_map(
    coupling: Coupling,
    reads: Sequence[str],
    activity: Mapping[str, Tensor],
    target: tuple[int, ...],
    points: OperatingPoints,
) -> None:
    map_, sources = copy.copy(coupling.map), coupling.sources  # a copy, so that what it keeps count of is not disturbed
    source = ", ".join(sources)
    like = activity[sources[0]]
    shape = (len(like), *target)
    name = f"coupling {coupling}: {type(map_).__name__}"
    if _applies(map_):
        name += ".apply"
        read: Iterable[str] = sources

        def function(values: Values) -> Any:
            return map_.apply(*[values[each] for each in sources])
    else:
        read = dict.fromkeys([*reads, *sources, coupling.target])
        term = map_.bind(points, coupling.source, coupling.target)

        def function(values: Values) -> Any:
            points.expire()
            out = like.new_zeros(shape)
            term.add(values, out, 1.0)
            return out

    def check(value: Any) -> None:
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = f"{value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise InvalidTypeError(f"{name} returns a {kind}, not one dense tensor")
        if value.shape != shape:
            # Broadcasting would hide the mistake.
            raise InvalidValueError(
                f"{name} makes the shape {tuple(value.shape)} of population {source}, and the target has {shape}; say "
                "so in output_shape, or change apply"
            )
        if value.dtype != like.dtype or value.device != like.device:
            raise InvalidTypeError(
                f"{name} returns {value.dtype} on {value.device}, and the activity is {like.dtype} on {like.device}; "
                "return it .to(source)"
            )

    values = {each: activity[each] for each in read if each in activity} if _applies(map_) else dict(activity)
    probe = Probe(name, function, values, reads, check)
    probe.look(any_number=_applies(map_))
    probe.look_at_claims(linear=map_.linear and set(reads) == set(sources), homogeneous=map_.homogeneous)


def look_at_layer(stage: Stage, place: int, x: Tensor) -> None:
    """Look at a layer of a stage, given what it reads."""
    layer, x = stage.layers[place], x[:_FEW]
    name = f"stage {stage.name}: {type(layer).__name__}"

    def function(values: Values) -> Any:
        with torch.enable_grad():
            value = layer(values["x"].clone())  # which it may overwrite
        return value.detach() if isinstance(value, Tensor) else value

    def check(value: Any) -> None:
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"{name} returns a {type(value).__name__}, not one tensor")
        if value.dtype != x.dtype or value.device != x.device:
            raise InvalidTypeError(
                f"{name} makes {value.dtype} on {value.device} of {x.dtype} on {x.device}; let it return .to(x)"
            )

    with _buffers_kept(layer, name):
        Probe(name, function, {"x": x}, ["x"], check, "call .eval() on the module, or remove what is random").look(
            any_number=True
        )


def look_at_loss(loss: Loss, output: Tensor, targets: Tensor) -> None:
    """Look at a loss, given an output and targets, shape (sample, …) both."""
    with random_states_kept():
        Probe(
            "the loss",
            lambda values: loss(values["output"], values["targets"]),
            {"output": output.detach(), "targets": targets},
            ["output", "targets"],
            lambda value: check_per_sample(value, len(output)),
            "take random numbers out of it",
        ).look(any_number=True)


def look_at_observables(network: Network, names: Iterable[str], activity: Mapping[str, Tensor]) -> None:
    """Look at those observables of a network that are to be recorded.

    Parameters
    ----------
    network
        The declaration.
    names
        Which of its observables.
    activity
        Every population's activity as the run starts, shape (sample, …).
    """
    done = _own(network).done
    samples = len(next(iter(activity.values())))
    for name in names:
        key = ("observable", name, *_kind(activity))
        if key not in done:
            with random_states_kept():
                check = partial(check_observed, name, samples)
                advice = "take random numbers out of it"
                Probe(f"observable {name}", network.observables[name].value, activity, activity, check, advice).look()
            done.add(key)


def check_observed(name: str, samples: int, value: Any) -> None:
    """Refuse what an observable returns, unless it is a number a sample."""
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InvalidTypeError(f"observable {name} returns a {kind}; it has to be a tensor of a real number a sample")
    if value.shape != (samples,):
        raise InvalidValueError(
            f"observable {name} returns the shape {tuple(value.shape)}; it has to be a number a sample, shape "
            f"({samples},), as by .flatten(1).sum(1)"
        )


def _look_at_drive(network: Network, population: str, drive: Drive, data: Data) -> None:
    own = copy.copy(drive)
    name = f"population {population}: drive {type(drive).__name__}"
    passes: list[ForwardPass] = []
    values = {f"the inputs of {each}": tensor for each, tensor in data.inputs.items()}
    samples = next((len(tensor) for tensor in values.values()), 1)
    if data.targets is not None:
        values["the targets"] = data.targets
        samples = len(data.targets)

    def function(values: Values) -> Any:
        inputs = {each: values[f"the inputs of {each}"] for each in data.inputs}
        passes[:] = [ForwardPass(network.forward, inputs[network.inputs[0]])] if network.forward else []
        before = [each.output._version for each in passes]
        bound = Data(inputs, values.get("the targets"), next(iter(passes), None), data.loss)
        with random_states_kept():  # from which it may draw, as Noisy does: the same each time
            value = own.value(population, bound)
        passes[:] = [each for each, version in zip(passes, before, strict=True) if each.output._version != version]
        return value

    def check(value: Any) -> None:
        if passes:
            raise InvalidValueError(f"{name} writes into the output of the forward pass; let it work on a copy")
        if not (isinstance(value, Tensor) and value.ndim > 0 and len(value) == samples):
            raise _NothingToLookAt

    probe = Probe(name, function, values, values, check, "draw from PyTorch's global random state, as Noisy does")
    with suppress(_NothingToLookAt):  # which the binding refuses, or takes as absent
        probe.look()


class _NothingToLookAt(Exception):
    pass


@contextmanager
def _buffers_kept(layer: nn.Module, name: str) -> Iterator[None]:
    """Refuse a layer that changes its own buffers, and leave them as they were."""
    before = [(buffer, buffer.clone(), buffer._version) for buffer in layer.buffers()]
    yield
    now = list(layer.buffers())
    if any(
        own is not buffer or own._version != version for own, (buffer, _, version) in zip(now, before, strict=False)
    ):
        with torch.no_grad():
            for buffer, values, _ in before:
                buffer.copy_(values)
        raise InvalidValueError(
            f"{name} changes its own buffers at every evaluation, of which a run takes any number; call .eval() on the "
            "module"
        )


def _kind(tensors: Mapping[str, Tensor]) -> Iterator[object]:
    for name, tensor in tensors.items():
        yield name, tensor.shape, tensor.dtype, tensor.device

"""What a network is bound to, checked at the door: inputs, targets and starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neurodyn.checks import check_dense, made_ordinary
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.spans import Span
from neurodyn.network.drives import (
    Constant,
    Data,
    Drive,
    ForwardValue,
    Input,
    LossGradient,
    Noisy,
    Target,
    without_noise,
)
from neurodyn.network.network import Network
from neurodyn.network.population import Population
from neurodyn.network.signals import as_course
from neurodyn.system.continued import Starts, starts_of
from neurodyn.system.driven import Placed, placed
from neurodyn.system.inputs import Inputs, Series, Targets, inputs_by_name
from neurodyn.system.numbers import check_modes, common_kind, weights_of


@dataclass(frozen=True)
class Given:
    """What a network is to be bound to, checked at the door."""

    inputs: dict[str, Tensor]
    """By population, shape (sample, …), with their noise where they are clamped to noisy ones."""
    targets: Tensor | None
    """Shape (sample, …), or None."""
    initial: dict[str, Tensor]
    """Where populations start instead of where the declaration says, by name; shape (sample, …) or that of a sample."""
    dtype: torch.dtype
    device: torch.device
    """Those of weights and data."""
    samples: int
    origin: float = 0.0
    """The time at which the run starts."""
    signals: dict[str, Placed] = field(default_factory=dict)
    """What is given as signals, targets under the name ""; `inputs` and `targets` have their values at time 0."""
    noise: dict[str, Tensor] = field(default_factory=dict)
    """What `Noisy` adds to signals, by population, shape (sample, …)."""

    @property
    def shapes(self) -> tuple[object, ...]:
        """All of it but the numbers, and how they lie in memory."""
        tensors = [*self.inputs.values(), *self.initial.values()]
        if self.targets is not None:
            tensors.append(self.targets)
        return (
            *(self.dtype, self.device, self.samples, *self.inputs, "initial", *self.initial),
            *((tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors),
            *("varying", *self.varying),
        )

    @property
    def varying(self) -> dict[str, Placed]:
        """The signals that are not constant."""
        return {name: signal for name, signal in self.signals.items() if not signal.course.constant}


def checked(
    network: Network,
    inputs: Inputs,
    targets: Targets,
    initial: Starts | None = None,
    weights: Sequence[Tensor] | None = None,
    *,
    still: str | None = None,
) -> Given:
    """Check what a network is to be bound to.

    Parameters
    ----------
    network, inputs, targets, initial
        As for `System`.
    weights
        What `weights_of` gives, where the layers are as they were at an earlier check; otherwise they are checked, too.
    still
        What takes no data that vary in time, e.g. "an equilibrium"; None for what does.
    """
    check_network(network)
    if weights is None:
        for stage in network.stages:
            stage.check()
        weights = weights_of(network)
    for origin in network.origins:
        origin.check()
    by_name, signals = _told_apart(network, inputs_by_name(network, inputs))
    still_targets = _still_targets(network, targets, signals)
    like = next((each for each in (*weights, *by_name.values()) if isinstance(each, Tensor)), None)
    starts, begins = starts_of(network, initial, like, with_targets=targets is not None)
    indices = {name for name in by_name if of_integers(network[name].clamp)}
    tensors = {f"inputs of population {name}": x for name, x in by_name.items() if name not in indices}
    if still_targets is not None:
        tensors["targets"] = still_targets
    for signal in signals.values():
        if signal.course.typed:
            tensors[f"{signal.what}, values"] = signal.course.values
    for name, tensor in starts.items():
        if network[name].instantaneous:
            raise InvalidValueError(
                f"initial value of population {name}: it is instantaneous, and equals its input; leave it out"
            )
        tensors[f"initial value of population {name}"] = tensor
    check_targets(network, given=targets is not None)
    dtype, device = common_kind(network, weights, tensors)
    check_modes(device)
    for name in indices:
        check_integers(name, by_name[name], device)
    samples = count_samples(network, by_name, still_targets, starts, signals.values())
    for name, tensor in by_name.items():
        check_block(network[name], tensor, "input", samples)  # before a stage meets a shape that is not for it
    plain = [*by_name.values(), *starts.values(), *([] if still_targets is None else [still_targets])]
    own = iter(apart(list(map(made_ordinary, plain))))
    by_name, starts = ({name: next(own) for name in named} for named in (by_name, starts))
    still_targets = next(own, None)
    begun = {name: signal.start(samples, network.members, dtype, device) for name, signal in signals.items()}
    still_targets = begun.pop("", still_targets)
    by_name |= begun
    noise: dict[str, Tensor] = {}
    for name in by_name:
        clamp = network[name].clamp
        if isinstance(clamp, Noisy):  # one draw, for the population and for the forward pass that starts from it
            noisy = clamp.value(name, Data(by_name, still_targets, None, network.loss))
            assert noisy is not None, "an input is never absent"
            if name in signals:
                noise[name] = noisy - by_name[name]
            by_name[name] = noisy
    given = Given(by_name, still_targets, starts, dtype, device, samples, begins, signals, noise)
    if signals:
        _check_signals(network, given, still)
    if still is not None:
        for population in network.populations:
            if population.noisy:
                raise InvalidValueError(
                    f"population {population.name} has noise, and {still} takes none; declare it without, or simulate "
                    "the network"
                )
    return given


def _told_apart(network: Network, inputs: Mapping[str, Series]) -> tuple[dict[str, Tensor], dict[str, Placed]]:
    """Return the inputs that are tensors, and those that are signals."""
    tensors: dict[str, Tensor] = {}
    signals: dict[str, Placed] = {}
    for name, given in inputs.items():
        what, clamp = f"inputs of population {name}", network[name].clamp
        course = None if isinstance(given, Tensor) else as_course(what, given)
        if course is None:
            tensors[name] = given  # type: ignore[assignment]  # which `common_kind` refuses if it is none
        elif of_integers(clamp):
            raise InvalidValueError(f"{what}: integers do not vary in time; pass a tensor of them")
        else:
            signals[name] = placed(what, course, network[name].shape, network.members)
    return tensors, signals


def _still_targets(network: Network, targets: Targets, signals: dict[str, Placed]) -> Tensor | None:
    """Return the targets, if they are no signal; one joins the other signals."""
    course = None if isinstance(targets, Tensor) else as_course("targets", targets)
    if course is None:
        return targets  # type: ignore[return-value]  # which `common_kind` refuses if it is none
    shapes = [network[name].shape for name, _ in network.target_drives]
    shape = next((shape for shape in shapes if shape is not None), None)
    signals[""] = placed("targets", course, shape, network.members)
    return None


def _check_signals(network: Network, given: Given, still: str | None) -> None:
    """Refuse data that vary in time where something takes them for frozen."""
    varying = given.varying
    if not varying:
        return
    what = next(iter(varying.values())).what
    if still is not None:
        raise InvalidValueError(
            f"{what} vary in time, and {still} takes what stands still; pass a tensor, or simulate the network"
        )
    readers: list[str] = []
    for population in network.populations:
        for drive in map(without_noise, (population.clamp, population.initial)):
            own = not isinstance(drive, (Input, Target, ForwardValue, LossGradient, Constant))
            if isinstance(drive, LossGradient) or (isinstance(drive, ForwardValue) and any(given.signals)):
                readers.append(f"population {population.name} is given {drive}, which the forward pass freezes")
            elif isinstance(drive, Drive) and own and (drive.reads_targets or any(varying)):
                readers.append(f"population {population.name} is given {drive}, which is read once a run")
    if any(varying):
        frozen = [c for c in network.couplings if c.map.frozen_stages]
        readers += [f"the map of coupling {c} is taken at the frozen forward pass" for c in frozen]
        rules = [rule for rule in network.plasticity if rule.reads_forward]
        readers += [f"the plasticity of stage {r.stage.name} is taken at the frozen forward pass" for r in rules]
    if readers:
        raise InvalidValueError(f"{what} vary in time, and {readers[0]}; take it live, or pass a tensor")


def check_block(population: Population, value: Tensor, what: str | Drive, samples: int) -> None:
    """Refuse a value of other shape than (sample, units…) of its population.

    Raises
    ------
    ValueError
        If it has one; the message names the value as `what`.
    """
    shape = population.shape
    if shape is not None and tuple(value.shape[1:]) != shape:
        raise InvalidValueError(
            f"population {population.name}: {what} has the shape {tuple(value.shape)}, and the population "
            f"{(samples, *shape)}: (sample, units…)"
        )
    if value.shape[0] != samples:
        raise InvalidValueError(
            f"population {population.name}: {what} has {len(value)} samples, and the run has {samples}"
        )


def apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors, with copies of those that would share memory, as the inputs and targets of an autoencoder do.

    Noted operations tell tensors by where they lie, and those of another batch need not be the same.
    """
    found: list[Tensor] = []
    for tensor in tensors:
        place = tensor.untyped_storage().data_ptr()
        near = [Span.of(each) for each in found if each.untyped_storage().data_ptr() == place]
        found.append(tensor.clone() if near and any(map(Span.of(tensor).meets, near)) else tensor)
    return found


def check_network(network: Network) -> None:
    """Refuse what is no declaration."""
    if isinstance(network, (list, tuple)):
        raise InvalidTypeError("network: one Network, not several; nd.simulate and nd.equilibrium take a list")
    if not isinstance(network, Network):
        raise InvalidTypeError(
            f"network must be a Network, not {type(network).__name__}; a module needs one that is declared for it, "
            "such as nd.models.activation_relaxation.network(module)"
        )


def check_targets(network: Network, *, given: bool) -> None:
    """Refuse targets that nothing reads, and their absence where a drive needs them."""
    drives = network.target_drives
    needing = [(name, drive) for name, drive in drives if not drive.optional]
    if not given and needing:
        raise InvalidValueError(
            f"population {needing[0][0]} is held at {needing[0][1]}, which needs targets; none are given"
        )
    if given and not drives and not network.forward:
        raise InvalidValueError(f"network {network.name!r} uses no targets; leave them out")


def of_integers(drive: Drive | None) -> bool:
    """Tell whether a drive takes integers, such as the indices of an embedding."""
    return isinstance(drive, Input) and drive.integer


def check_integers(population: str, tensor: Tensor, device: torch.device) -> None:
    """Refuse inputs of integers that are none, or lie on another device than the rest."""
    if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.is_complex():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InvalidTypeError(f"inputs of population {population} must be a tensor of integers, not {kind}")
    check_dense(f"inputs of population {population}", tensor)
    if tensor.device != device:
        raise InvalidValueError(
            f"inputs of population {population} are on {tensor.device}, and the rest is on {device}; bring both to one "
            "device with .to()"
        )


def count_samples(
    network: Network,
    inputs: Mapping[str, Tensor],
    targets: Tensor | None,
    initial: Mapping[str, Tensor],
    signals: Iterable[Placed] = (),
) -> int:
    """Return how many samples all that is given has; 1 of each network where nothing tells.

    Raises
    ------
    ValueError
        If something has another number, or no axis for samples.
    """
    counts = {f"inputs of population {name}": tensor for name, tensor in inputs.items()}
    if targets is not None:
        counts["targets"] = targets
    for name, tensor in initial.items():
        if tensor.shape != network[name].shape:
            counts[f"initial value of population {name}"] = tensor
    samples: int | None = None
    for what, tensor in counts.items():
        if tensor.ndim < 2 or tensor.shape[0] == 0:
            flat = tensor.ndim == 1 and len(tensor) > 0
            raise InvalidValueError(
                f"{what} must have the shape (sample, units…) with at least one sample, not {tuple(tensor.shape)}"
                + ("; one sample alone is tensor[None], and one unit a sample tensor[:, None]" if flat else "")
            )
        if samples is not None and tensor.shape[0] != samples:
            raise InvalidValueError(f"{what} has {len(tensor)} samples, and {next(iter(counts))} has {samples}")
        samples = tensor.shape[0]
    for signal in signals:
        if signal.samples is not None:
            own = signal.samples * network.members
            if samples is not None and own != samples:
                others = samples // network.members
                raise InvalidValueError(
                    f"{signal.what}: the signal has {signal.samples} samples, and the rest {others}"
                )
            samples = own
    return network.members if samples is None else samples

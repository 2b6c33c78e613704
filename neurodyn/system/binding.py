"""Binding a network to batch after batch: the plans of earlier ones are used again, and what they came down to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import BuiltinFunctionType
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from neurodyn.checks import ordinary
from neurodyn.layers.kinds import is_plain
from neurodyn.layers.losses import squared_error
from neurodyn.network.drives import Input
from neurodyn.network.network import Network
from neurodyn.network.pointwise import Pointwise
from neurodyn.network.wrapping import Wrapping
from neurodyn.system.bound import Given, apart, check_network, checked
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.system.marks import marks
from neurodyn.system.numbers import check_modes, sums_are_finite, weights_of
from neurodyn.system.plan import Plan
from neurodyn.system.stacking import refusing_random
from neurodyn.system.system import System

Rest = TypeVar("Rest")
_MOST_PLANS = 4
"""For how many shapes of data the plans of a network are kept."""


def _kind(inputs: Inputs, targets: Targets, still: str | None) -> Hashable:
    """Return all of a batch but its numbers, and what it is for; None where it is more than inputs and targets."""
    if not isinstance(inputs, Tensor) or not ordinary(inputs):
        return None
    own = (still is None, inputs.shape, inputs.dtype, inputs.device, inputs.layout, inputs.stride())
    if targets is None:
        return own
    if not isinstance(targets, Tensor) or not ordinary(targets):
        return None
    return (*own, targets.shape, targets.dtype, targets.device, targets.layout, targets.stride())


@dataclass
class _Idle:
    """The plans of a network that are not in use."""

    marks: tuple[object, ...]
    """What tells whether the layers are as they were when the plans were made."""
    weights: list[Tensor]
    """Those of the layers and of the feedback. They keep the memory that `marks` names by its place."""
    known: bool
    """Whether nothing but shapes and tensors counts for what is computed."""
    plans: OrderedDict[tuple[object, ...], list[Plan]] = field(default_factory=OrderedDict)
    """By the shapes of their data, those last used at the end."""
    doors: dict[Hashable, tuple[str, tuple[object, ...]]] = field(default_factory=dict)
    """Of batches of each kind that was found to be plain, whose inputs they have, and their shapes."""

    def take(self, shapes: tuple[object, ...]) -> Plan | None:
        plans = self.plans.get(shapes)
        try:
            return plans.pop() if plans else None
        except IndexError:  # another thread was faster
            return None

    def put_back(self, shapes: tuple[object, ...], plan: Plan) -> None:
        plan.release()
        self.plans.setdefault(shapes, []).append(plan)
        self.plans.move_to_end(shapes)
        while len(self.plans) > _MOST_PLANS:
            self.plans.popitem(last=False)


_IDLE: WeakKeyDictionary[Network, _Idle] = WeakKeyDictionary()


class _AtHand:
    """A batch, checked but for what `check_finite` does, and a plan that an earlier one has left, if there is one."""

    def __init__(
        self, network: Network, inputs: Inputs, targets: Targets, initial: Starts | None, still: str | None
    ) -> None:
        check_network(network)
        self._network, now, idle = network, marks(network), _IDLE.get(network)
        if idle is None or idle.marks != now:
            given = checked(network, inputs, targets, initial, still=still)
            idle = _IDLE[network] = _Idle(now, weights_of(network), _is_known(network))
            self.given, self._shapes, self._checked = given, given.shapes, True
        else:
            self.given, self._shapes, self._checked = _enter(network, inputs, targets, initial, idle, still)
        self._idle, self.known, self._still = idle, idle.known, still
        self.plan = idle.take(self._shapes)

    @property
    def data(self) -> list[Tensor]:
        """The inputs and the targets."""
        return [*self.given.inputs.values(), *([] if self.given.targets is None else [self.given.targets])]

    def seems_finite(self) -> bool:
        """Look with one sum a tensor, which may itself overflow, whether weights and data are finite."""
        return sums_are_finite([*self._idle.weights, *self.data])

    def check_finite(self) -> None:
        """Refuse weights and data that are not finite, if that is still to be done."""
        if not self._checked and not self.seems_finite():
            given, plan = self.given, self.plan
            if plan is not None:  # for others, where this batch is refused
                self.put_back()
            checked(self._network, given.inputs, given.targets, None, self._idle.weights, still=self._still)
            self.plan = self._idle.take(self._shapes)
        self._checked = True

    def system(self) -> System:
        """Bind the network to the batch."""
        self.check_finite()
        if self.plan is None or not self.plan.bind(self._network, self.given):
            self.plan = Plan(self._network, self.given)
        return System.planned(self._network, self.plan)

    def put_back(self) -> None:
        """Leave the plan to another batch."""
        assert self.plan is not None, "it has been bound"
        self._idle.put_back(self._shapes, self.plan)


@contextmanager
def bound(
    network: Network,
    inputs: Inputs,
    targets: Targets = None,
    *,
    initial: Starts | None = None,
    still: str | None = None,
) -> Iterator[System]:
    """Bind a network to data for a while, by a plan that earlier batches of the same shapes have left, if there is one.

    Another batch takes over the system's memory afterwards, so that what is to last has to be copied. A plan serves one
    batch at a time: whoever comes while it is in use, such as another thread, makes another one.

    Parameters
    ----------
    network, inputs, targets, initial
        As for `System`.
    still
        What the system is for, where that takes no data that vary in time.

    Yields
    ------
    System
    """
    at_hand = _AtHand(network, inputs, targets, initial, still)
    system = at_hand.system()
    if at_hand.known:
        system.repeat()
    yield system
    at_hand.put_back()


def _enter(
    network: Network, inputs: Inputs, targets: Targets, initial: Starts | None, idle: _Idle, still: str | None
) -> tuple[Given, tuple[object, ...], bool]:
    """Check a batch for a network whose layers are as they were; last, tell whether it was looked at for finiteness."""
    kind = None if initial is not None else _kind(inputs, targets, still)
    door = idle.doors.get(kind)
    if door is not None and isinstance(inputs, Tensor) and (targets is None or isinstance(targets, Tensor)):
        check_modes(inputs.device)
        population, shapes = door
        x, *wanted = apart([inputs.detach(), *([] if targets is None else [targets])])
        given = Given({population: x}, next(iter(wanted), None), {}, x.dtype, x.device, len(x))
        return given, shapes, False
    given = checked(network, inputs, targets, initial, idle.weights, still=still)
    shapes = given.shapes
    if kind is not None:
        (name,) = given.inputs
        if type(network[name].clamp) is Input and given.inputs[name].dtype == given.dtype:
            idle.doors[kind] = name, shapes
    return given, shapes, True


def computed(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None,
    compute: Callable[[System], tuple[Sequence[Tensor | None], Rest]],
    *,
    way: Hashable | None,
    still: str,
) -> tuple[Sequence[Tensor | None], Rest]:
    """Bind a network to a batch, and compute tensors of it: as `Repeated`, if nothing but shapes and tensors counts.

    Parameters
    ----------
    network, inputs, targets, still
        As for `bound`; the data do not vary in time.
    compute
        Returns new tensors, or None in the place of one, and what is the same for all batches of their shapes.
    way
        What else decides on the computation, such as a duration: it is repeated for batches of the same one. None where
        numbers steer it, beside what it tells `expect`.
    """
    at_hand = _AtHand(network, inputs, targets, None, still)
    plan = at_hand.plan
    repeated = None if plan is None or way is None or not at_hand.known else plan.repeated(network, way)
    batch = at_hand.data

    def anew() -> tuple[Sequence[Tensor | None], Rest]:
        at_hand.seems_finite()  # a condition of what is noted, which then needs no look before
        return compute(at_hand.system())

    done = None if repeated is None else repeated.again(batch)
    if done is None:
        at_hand.check_finite()
        # Operations that are noted draw nothing, and to look at the generators takes as long as a tenth of them.
        with refusing_random("seeds") if network.stacked else nullcontext():
            done = compute(at_hand.system()) if repeated is None else repeated.made(batch, anew)
    at_hand.put_back()
    return done


def _is_known(network: Network) -> bool:
    """Tell whether all that a network is made of depends on nothing but tensors, and on what `marks` tells."""
    if network.loss is not squared_error:
        return False
    parts: list[object] = [drive for p in network.populations for drive in (p.clamp, p.initial)]
    parts += [part for rule in network.plasticity for part in (rule.regularizer, rule.when)]
    parts += [part for stage in network.stages for layer in stage.layers for part in layer.modules()]
    for coupling in network.couplings:
        map_ = coupling.map
        while isinstance(map_, Wrapping):
            parts.append(map_)
            map_ = map_.map
        parts.append(map_)
    return all(map(_is_known_part, parts))


def _is_known_part(part: object) -> bool:
    if isinstance(part, nn.Module) and not is_plain(part):
        return False
    if isinstance(part, Pointwise):  # of PyTorch's own function, which holds nothing, or of someone's
        return isinstance(part.function, BuiltinFunctionType) and part.function.__module__.split(".")[0] == "torch"
    plain = part is None or isinstance(part, (int, float, str))
    return plain or type(part).__module__.split(".")[0] in ("neurodyn", "torch")

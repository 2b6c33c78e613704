"""What the picture of a network shows, as text that a dataset can carry: its populations, its arrows, what learns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from neurodyn.errors import InvalidValueError
from neurodyn.layers.forward import sources
from neurodyn.layers.names import told_apart
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import ForwardValue, Input, without_noise
from neurodyn.network.maps import Map
from neurodyn.network.network import Network
from neurodyn.network.stage_maps import Feedback, Forward, Inverse
from neurodyn.network.vectors import is_number, largest_of, magnitude, text_of
from neurodyn.network.wrapping import unwrapped


@dataclass(frozen=True)
class Node:
    """A population."""

    name: str
    size: str
    """Its units, e.g. "300" or "32×14×14"; empty if the data tell."""
    role: Literal["dynamic", "instantaneous", "clamped"]
    """As `Population.role`."""
    input: bool
    """Whether it is held at the inputs."""


@dataclass(frozen=True)
class Arrow:
    """What leads from one population to another."""

    source: str
    target: str
    kind: Literal["coupling", "forward", "plasticity"]
    """A "coupling"; or a step of the "forward" pass or a "plasticity", which nothing flows along in time."""
    map: str = ""
    """The class of a coupling's map; empty of others."""
    stage: str = ""
    """Which stage it passes through; empty if none."""
    backward: bool = False
    """Whether its target precedes its source in the forward pass."""
    negative: bool = False
    """Whether its gain is, at all units."""
    learns: str = ""
    """Which parameters learn from its two ends, e.g. "θ2"; empty if none."""
    factor: str = ""
    """Its gain, and the absolute value of a negative one, where that is not 1."""
    delay: str = ""
    """Its delay, where that is not 0."""

    @property
    def mark(self) -> str:
        """What stands at the arrow: what learns, the factor, and the delay."""
        factor, delay = f"×{self.factor}" * bool(self.factor), f"delay {self.delay}" * bool(self.delay)
        return ", ".join(filter(None, (self.learns, factor, delay)))

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


@dataclass(frozen=True)
class Sketch:
    """A network, as far as its picture shows it."""

    name: str
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    """In the order of the declaration; of a coupling of several sources, an arrow each."""

    def text(self) -> str:
        """Return it as one line of JSON, without the numbers: networks that differ in those alone have the same."""
        nodes = [[n.name, n.size, n.role, n.input] for n in self.nodes]
        arrows = [[a.source, a.target, a.kind, a.map, a.stage, a.backward, a.negative, a.learns] for a in self.arrows]
        whole = {"name": self.name, "nodes": nodes, "arrows": arrows}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Sketch:
        """Return what `text` wrote.

        Raises
        ------
        ValueError
            If it is anything else.
        """
        try:
            whole = json.loads(text)
            nodes = tuple(Node(*node) for node in whole["nodes"])
            found = cls(whole["name"], nodes, tuple(Arrow(*arrow) for arrow in whole["arrows"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValueError(f"this is no diagram that neurodyn wrote: {text[:60]!r}") from error
        texts = [found.name, *(each for node in nodes for each in (node.name, node.size, node.role))]
        texts += [text for a in found.arrows for text in (a.source, a.target, a.kind, a.map, a.stage, a.learns)]
        if not nodes or not all(isinstance(each, str) for each in texts):
            raise InvalidValueError("this is no diagram that neurodyn wrote: it has no populations, or no names")
        names = {node.name for node in nodes}
        if not names >= {end for arrow in found.arrows for end in (arrow.source, arrow.target)}:
            raise InvalidValueError("this is no diagram that neurodyn wrote: an arrow leads to no population")
        return found


def sketch(network: Network) -> Sketch:
    """Return what the picture of a network shows.

    Besides the couplings, it shows the forward pass, where populations start from it or are held at it and no
    `Forward` coupling does, and which pairs of populations a stage learns from.
    """
    nodes = []
    for p in network.populations:
        reads = isinstance(without_noise(p.clamp), Input)
        nodes.append(Node(p.name, "×".join(map(str, p.shape or ())), p.role, reads))
    with told_apart(network.stages):
        return Sketch(network.name, tuple(nodes), tuple(_arrows(network)))


def _arrows(network: Network) -> Iterator[Arrow]:
    posts = {rule.post for rule in network.plasticity}
    coupled: set[Stage] = set()
    arrows: list[Arrow] = []
    for coupling in network.couplings:
        bare = unwrapped(coupling.map)
        for source in coupling.sources:
            arrows.append(_coupling(network, coupling, source, bare, layer=source in posts))
        if isinstance(bare, Forward):
            coupled.update(bare.stages)
    arrows += _forward(network, coupled)
    learning: dict[tuple[str, str, str], str] = {}
    for rule in network.plasticity:
        key = (rule.pre, rule.post, rule.stage.mark)
        own = f"{'θ' if rule.weights is None else 'ψ'}{rule.stage.mark}"
        learning[key] = f"{learning[key]}, {own}" if key in learning else own
    for arrow in arrows:
        # What learns from the two ends of an arrow that runs through it is written at that arrow.
        key = (arrow.source, arrow.target, arrow.stage)
        yield replace(arrow, learns=learning.pop(key)) if key in learning else arrow
    for (pre, post, stage), learns in learning.items():
        yield Arrow(pre, post, "plasticity", stage=stage, learns=learns)


def _coupling(network: Network, coupling: Coupling, source: str, bare: Map, *, layer: bool) -> Arrow:
    clamp = network[source].clamp
    teaches = clamp is not None and clamp.reads_targets and not clamp.optional and not layer
    negative = largest_of(coupling.gain) < 0
    factor = magnitude(coupling.gain) if negative else coupling.gain
    return Arrow(
        source,
        coupling.target,
        "coupling",
        map=type(coupling.map).__name__,
        stage=bare.stages[0].mark if bare.stages else "",
        backward=teaches or isinstance(bare, (Feedback, Inverse)),
        negative=negative,
        factor="" if is_number(factor, 1) else text_of(factor, ".2g"),
        delay=f"{coupling.delay:g}" * (coupling.delay > 0),
    )


def _forward(network: Network, coupled: set[Stage]) -> Iterator[Arrow]:
    """Yield the steps of the forward pass between populations that hold its values, but for those that are coupled."""
    holders: dict[Stage | str, str] = dict.fromkeys(("input",), network.inputs[0]) if network.forward else {}
    for p in network.populations:
        for drive in (without_noise(p.clamp), p.initial):
            if isinstance(drive, ForwardValue):
                holders.setdefault(drive.stage, p.name)
    for stage, reads in sources(network.forward).items():
        for source in reads:
            if stage in holders and source in holders and stage not in coupled:
                yield Arrow(holders[source], holders[stage], "forward", stage=stage.mark)

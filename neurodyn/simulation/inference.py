"""Discrete inference, and the plasticity that acts in the course of it; run for learning, or recorded whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from neurodyn.checks import flag
from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.layers.repeated import all_true, any_true, expect
from neurodyn.network.equations import plasticity_text
from neurodyn.network.network import Network
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.sketch import sketch
from neurodyn.network.timing import AtStep, Inference, OnSpike, SpikeDetector
from neurodyn.progress import Late
from neurodyn.simulation.chosen import recorded_names
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.trajectory import dataset, row_bytes, to_numpy, unit_coordinates, versions
from neurodyn.solvers import Euler
from neurodyn.solvers.base import Progress
from neurodyn.structure.causality import Step
from neurodyn.system.binding import bound
from neurodyn.system.bound import check_network
from neurodyn.system.inputs import Inputs, refuse_gradients
from neurodyn.system.state import State
from neurodyn.system.system import System

Act = Callable[[Plasticity, State, Tensor], None]
"""What to do when a rule acts: given it, the state, and the postsynaptic activity, which later steps overwrite."""


@torch.no_grad()
def infer(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    record: Iterable[str] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Run the discrete inference by which a network learns, x ← x + γ F(x), and record it.

    These are the very steps of `nd.backward`, to the bit. That one leaves out what no plasticity rule can see any more;
    here, every population is followed to the last step.

    Parameters
    ----------
    network
        The declaration, with `inference=Inference(step, steps)`.
    inputs, targets
        As for `simulate`.
    record
        The populations and observables to record; by default all populations.
    progress
        As for `simulate`.

    Returns
    -------
    xarray.Dataset
        One variable a population, with dimensions `step` (0, the start, to the last), `sample` and the population's
        own. Of each population whose error units gate a rule that acts `OnSpike`, `<name>_spikes`: φ, boolean, likewise
        (`<name>_spikes<window>`, where rules of several windows read it, and `<name>_spikes<window>_<population>` of
        rules with `moved_by` there). Of a network with plasticity, `acts`, boolean
        over `step` and `rule`: at which steps each rule acts, in the order of the declaration; the attribute
        `plasticity` has a line for each.

    Raises
    ------
    TypeError, ValueError
        If the network declares no inference, or an argument does not fit.
    DivergenceError
        If the activity is not finite at the last step.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> net = nd.models.predictive_coding.network(nd.mlp([3, 2, 2], seed=0), learning="z-il")
    >>> steps = nd.infer(net, torch.ones(1, 3), torch.zeros(1, 2))
    >>> dict(steps.x1.sizes)
    {'step': 2, 'sample': 1, 'x1_unit': 2}
    >>> steps.acts.values.astype(int).tolist()  # at which step each rule acts
    [[0, 1], [1, 0]]
    """
    check_network(network)
    refuse_gradients(inputs, targets)
    inference = network.inference
    if inference is None:
        raise InvalidValueError(
            f"network {network.name!r} declares no inference=Inference(step, steps); it learns at its equilibrium, "
            "which nd.equilibrium returns"
        )
    if progress is not None:
        flag("progress", progress)
    names = recorded_names(network, record, inputs=True)
    with bound(network, inputs, targets, still="discrete inference") as system:
        whole = _Whole(system, inference, names)
        first = _first_steps(system, inference)
        pending = {
            i: range(step, (inference.steps if isinstance(network.plasticity[i].when, OnSpike) else step) + 1)
            for i, step in first.items()
        }
        with Late(wanted=progress, total=inference.steps, unit="step", desc=network.name) as bar:
            _run(system, inference, pending, whole.act, whole, bar)
        return whole.dataset()


def run_inference(system: System, inference: Inference, act: Act, progress: Progress | None = None) -> None:
    """Run discrete inference x ← x + γ F(x) and let each plasticity rule act at its time.

    A step evaluates only what has begun to move and can still reach a pending rule.

    Raises
    ------
    DivergenceError
        If the activity is not finite at the last step, before any rule acts there.
    """
    # Most units spike when a change first reaches them, and no more: what comes after is run only where one still can.
    pending = {i: range(step, step + 1) for i, step in _first_steps(system, inference).items()}
    while pending:
        pending = _run(system, inference, pending, act, progress=progress)


def _first_steps(system: System, inference: Inference) -> dict[int, int]:
    """Return the first step at which each rule may act, by its index; for none whose units are silent throughout."""
    schedule = system.schedule(inference.steps)
    steps: dict[int, int | None] = {}
    for i, rule in enumerate(system.network.plasticity):
        if isinstance(rule.when, OnSpike):
            steps[i] = schedule.wakes(rule.post)
        else:
            steps[i] = rule.when.step if isinstance(rule.when, AtStep) else inference.steps
    return {i: step for i, step in steps.items() if step is not None}


def _run(
    system: System,
    inference: Inference,
    pending: Mapping[int, range],
    act: Act,
    whole: _Whole | None = None,
    progress: Progress | None = None,
) -> dict[int, range]:
    """Run from the start, with rules that may act at certain steps, and return what takes another run.

    Where a unit can still spike after the last of its rule's steps here, the rules that are left wait on to the last
    step of inference. That may take populations which earlier steps did not advance: then, they are left to another
    run, and it is returned at which steps they may act there.
    """
    system.refuse_delays("discrete inference", "simulate the network in continuous time, or leave the delay out")
    system.refuse_loops("discrete inference")
    rules, schedule = system.network.plasticity, system.schedule(inference.steps)
    state = system.initial_state()
    gates = {i: when for i in pending if isinstance(when := rules[i].when, OnSpike)}
    detectors = {i: SpikeDetector(when.window) for i, when in gates.items()}
    movers = {when.moved_by for when in gates.values()}
    before: dict[str, Tensor] = {}
    waiting = dict(pending)
    plan = schedule.plan(waiting) if whole is None else schedule.whole()
    done: list[Step] = []
    for now in range(inference.steps + 1):
        acting = [i for i, steps in waiting.items() if now in steps]
        # First what they read, as those that finish here leave less to settle.
        alone = {i: range(now, now + 1) for i in acting}
        read = schedule.plan(alone, now)[now] if acting and whole is None else plan[now]
        _settle(system, state, read)
        if now + 1 not in plan:
            _refuse_divergence(system, state, inference, now)
        if whole is not None:
            whole.settled(now, state)
        for i in acting:
            post = state.activity[rules[i].post]
            if i not in detectors:
                act(rules[i], state, post)
                del waiting[i]
                continue
            spikes = detectors[i].step(post)
            mover = gates[i].moved_by
            if mover is not None and now > 0:
                spikes = spikes & (post == state.activity[mover] - before[mover] if mover in before else False)
            if whole is not None:
                whole.spiked(rules[i], spikes)
            spikes_later = detectors[i].can_spike_within(inference.steps - now)
            if spikes_later and now == waiting[i][-1]:
                waiting |= {j: range(waiting[j][0], inference.steps + 1) for j in detectors if j in waiting}
                plan = schedule.plan(waiting)
                if any(
                    not set(own.advance).issuperset(its.advance) for own, its in zip(done, plan.values(), strict=False)
                ):
                    return waiting
            if (mover is None and now == waiting[i][0]) or expect(all_true, [spikes]):
                act(rules[i], state, post)  # at first, where it is not 0
            elif expect(any_true, [spikes]):
                act(rules[i], state, torch.where(spikes, post, 0.0))
            if not spikes_later:
                del waiting[i]
        if whole is None:
            if not waiting:
                break
            plan = schedule.plan(waiting, now)
        step = plan[now]
        done.append(step)
        _settle(system, state, step, settled=read)
        velocities = [torch.empty_like(state.activity[name]) for name in step.advance]
        for name, velocity in zip(step.advance, velocities, strict=True):
            system.evaluate(name, state, velocity, step.silent)
        before = {name: state.activity[name].clone() for name in step.advance if name in movers}
        for name, velocity in zip(step.advance, velocities, strict=True):
            state.activity[name].add_(velocity, alpha=inference.step)
        system.confine(state, step.advance)
        system.points.expire(step.advance)
        if progress is not None:
            progress.update(1)
    return {}


def _settle(system: System, state: State, step: Step, settled: Step | None = None) -> None:
    """Evaluate what a step settles, but for what another has settled at the same time."""
    names = step.settle if settled is None else [name for name in step.settle if name not in settled.settle]
    system.points.expire(names)
    for name in names:
        system.evaluate(name, state, state.activity[name], step.silent)


def _refuse_divergence(system: System, state: State, inference: Inference, steps: int) -> None:
    if system.seems_finite(state):
        return
    bad = system.first_bad(state)
    if bad is not None:  # the sum alone may have overflowed
        raise DivergenceError(
            f"population {bad} became non-finite within {steps} steps of inference, each of {inference.step:g}; try a "
            "smaller step",
            steps * inference.step,
            bad,
        )


def refuse_to_set_aside(network: Network, instead: str) -> None:
    """Refuse to leave out a discrete inference that was asked for by its step or its number of steps.

    Parameters
    ----------
    network
        The declaration.
    instead
        What was to run in its place, e.g. "simulate without solver=".

    Raises
    ------
    ValueError
        If the network declares an inference that no model chose by default.
    """
    inference = network.inference
    if inference is not None and not inference.by_default:
        raise InvalidValueError(
            f"network {network.name!r} declares {inference}, which {instead} would set aside: nd.infer(network, …) "
            f"runs and records it; solver=nd.Euler({inference.step:g}) takes its steps, for any duration; any other "
            "solver= runs in continuous time"
        )


def _suffix(when: OnSpike) -> str:
    return str(when.window) + ("" if when.moved_by is None else f"_{when.moved_by}")


class _Whole:
    """What happens at every step of inference: the activity of populations, the spikes, and when rules act."""

    def __init__(self, system: System, inference: Inference, names: list[str]) -> None:
        self._system, self._inference = system, inference
        count, rules = inference.steps + 1, system.network.plasticity
        remedy = "record= fewer populations, or take fewer samples"
        refuse_too_large(f"the inference of {count:,} steps", count * row_bytes(system, names), remedy)
        dtype = to_numpy(torch.empty(0, dtype=system.dtype, device="cpu")).dtype
        shapes = {name: (count, system.samples, *system.shape(name)) for name in names}
        self._moving = [name for name in names if name not in system.clamped]
        self._values = {
            name: np.empty(shape, dtype)
            if name in self._moving
            else np.broadcast_to(to_numpy(system.clamped[name]).copy(), shape)
            for name, shape in shapes.items()
        }
        gates = {(rule.post, rule.when) for rule in rules if isinstance(rule.when, OnSpike)}
        posts = [post for post, _ in gates]
        self._spikes = {
            (post, when): (
                f"{post}_spikes" + (_suffix(when) if posts.count(post) > 1 else ""),
                np.zeros((count, system.samples, *system.shape(post)), dtype=bool),
            )
            for post, when in sorted(gates, key=lambda gate: (gate[0], gate[1].window, gate[1].moved_by or ""))
        }
        self._acts = np.zeros((count, len(rules)), dtype=bool)
        self._places = {id(rule): place for place, rule in enumerate(rules)}
        self._now = 0

    def settled(self, step: int, state: State) -> None:
        """Record the state at a step, at which nothing has acted yet."""
        self._now = step
        for name in self._moving:
            self._values[name][step] = to_numpy(self._system.read(name, state))

    def spiked(self, rule: Plasticity, spikes: Tensor) -> None:
        """Record which units of a rule's postsynaptic population spike at the step at hand."""
        assert isinstance(rule.when, OnSpike), "no other rule has a detector"
        self._spikes[rule.post, rule.when][1][self._now] = to_numpy(spikes)

    def act(self, rule: Plasticity, state: State, post: Tensor) -> None:
        """Record that a rule acts at the step at hand."""
        self._acts[self._now, self._places[id(rule)]] = True

    def dataset(self) -> xr.Dataset:
        """Return all of it, labelled."""
        system, network, inference = self._system, self._system.network, self._inference
        data = dataset(
            system,
            self._values,
            np.arange(inference.steps + 1),
            {
                "network": network.name,
                "equations": network.equations(),
                "diagram": sketch(network).text(),
                "plasticity": "\n".join(plasticity_text(rule) for rule in network.plasticity),
                "inference": str(inference),
                **versions(),
            },
            along="step",
            solver=Euler(inference.step),
        )
        for (post, _), (name, spikes) in self._spikes.items():
            units = unit_coordinates(post, system.shape(post))
            described = {"units": "1", "long_name": f"spikes of population {post}, φ"}
            data = data.assign_coords(units).assign({name: (("step", "sample", *units), spikes, described)})
        if network.plasticity:
            data["acts"] = (("step", "rule"), self._acts, {"units": "1", "long_name": "whether a plasticity rule acts"})
            rules = np.arange(len(network.plasticity))
            data = data.assign_coords(rule=("rule", rules, {"units": "1", "long_name": "plasticity rule, as declared"}))
        return data

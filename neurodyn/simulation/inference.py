"""Discrete inference, and the plasticity that acts in the course of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from neurodyn.errors import DivergenceError
from neurodyn.network.parts import Plasticity
from neurodyn.network.timing import AtStep, Inference, OnSpike, SpikeDetector
from neurodyn.structure.causality import Schedule
from neurodyn.system.system import State, System

Act = Callable[[Plasticity, State, Tensor], None]
"""What to do when a rule acts: given it, the state, and the postsynaptic activity, which later steps overwrite."""


def infer(system: System, inference: Inference, act: Act) -> None:
    """Run discrete inference x ← x + γ F(x) and let each plasticity rule act at its time.

    A step evaluates only what has begun to move and can still reach a pending rule.

    Parameters
    ----------
    system
        The network, bound to data.
    inference
        γ and the number of steps.
    act
        Called whenever a rule acts.

    Raises
    ------
    DivergenceError
        If the activity is not finite at the last step, before any rule acts there.
    """
    last, schedule = inference.steps, system.schedule(inference.steps)
    steps = {i: _first_step(rule, schedule, last) for i, rule in enumerate(system.network.plasticity)}
    first = {i: step for i, step in steps.items() if step is not None}
    # Most units spike when a change first reaches them, and no more: what comes after is run only where one still can.
    unfinished = _run(system, inference, {i: range(step, step + 1) for i, step in first.items()}, act)
    if unfinished:
        _run(system, inference, {i: range(first[i], last + 1) for i in unfinished}, act)


def _first_step(rule: Plasticity, schedule: Schedule, last: int) -> int | None:
    """Return the first step at which a rule may act; None if its units are silent throughout."""
    if isinstance(rule.when, OnSpike):
        return schedule.wakes(rule.post)
    return rule.when.step if isinstance(rule.when, AtStep) else last


def _run(system: System, inference: Inference, pending: Mapping[int, range], act: Act) -> list[int]:
    """Run from the start, with rules that may act at certain steps, and return those that are left unfinished.

    That is a rule whose units can still spike after the last of its steps here, at which it then has not acted.
    """
    rules = system.network.plasticity
    state = system.initial_state()
    detectors = {i: SpikeDetector(when.window) for i in pending if isinstance(when := rules[i].when, OnSpike)}
    waiting, unfinished = dict(pending), []
    plan = system.schedule(inference.steps).plan(pending)
    for now, step in enumerate(plan):
        system.points.expire(step.settle)
        for name in step.settle:
            system.evaluate(name, state, state.activity[name], step.silent)
        if now + 1 == len(plan):
            _refuse_divergence(system, state, inference, now)
        for i in [i for i, steps in waiting.items() if now in steps]:
            post = state.activity[rules[i].post]
            if i not in detectors:
                act(rules[i], state, post)
                del waiting[i]
                continue
            spikes = detectors[i].step(post)
            spikes_later = now + detectors[i].soonest <= inference.steps
            if spikes_later and now == pending[i][-1]:
                unfinished.append(i)
            elif bool(spikes.any()):
                act(rules[i], state, post if bool(spikes.all()) else post * spikes)
            if not spikes_later:
                del waiting[i]
        if not waiting:
            break
        velocities = [torch.empty_like(state.activity[name]) for name in step.advance]
        for name, velocity in zip(step.advance, velocities, strict=True):
            system.evaluate(name, state, velocity, step.silent)
        for name, velocity in zip(step.advance, velocities, strict=True):
            state.activity[name].add_(velocity, alpha=inference.step)
        system.points.expire(step.advance)
    return unfinished


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

"""Discrete inference, and the plasticity that acts in the course of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neurodyn.network import Plasticity
from neurodyn.solvers.base import DivergenceError
from neurodyn.system import State, System
from neurodyn.timing import AtStep, Inference, OnSpike, SpikeDetector

Act = Callable[[Plasticity, State, Tensor], None]
"""What to do when a rule acts: given the rule, the state, and the postsynaptic activity that it acts on."""


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
    rules = system.network.plasticity
    schedule = system.schedule(inference.steps)
    state, slope = system.initial_state(), system.new_state()
    detectors = {i: SpikeDetector(rule.when.window) for i, rule in enumerate(rules) if isinstance(rule.when, OnSpike)}
    pending = {i: _earliest(rule, inference) for i, rule in enumerate(rules)}
    plan = schedule.plan(0, pending)
    for now in range(inference.steps + 1):
        if now not in plan:
            break
        system.points.expire(plan[now].settle)
        for name in plan[now].settle:
            system.evaluate(name, state, state.activity[name], plan[now].silent)
        if now + 1 not in plan:
            _refuse_divergence(system, state, inference, now)
        finished = set()
        for i, earliest in pending.items():
            post = state.activity[rules[i].post]
            if i not in detectors:
                if earliest == now:
                    act(rules[i], state, post)
            elif rules[i].post not in plan[now].silent:
                spikes = detectors[i].step(post)
                if bool(spikes.any()):
                    act(rules[i], state, post * spikes)
                if now + detectors[i].soonest > inference.steps:
                    finished.add(i)
        if finished:
            pending = {i: earliest for i, earliest in pending.items() if i not in finished}
            plan = schedule.plan(now, pending)
            if now not in plan:
                break
        advance = plan[now].advance
        for name in advance:
            system.evaluate(name, state, slope.activity[name], plan[now].silent)
        for name in advance:
            state.activity[name].add_(slope.activity[name], alpha=inference.step)
        system.points.expire(advance)


def _refuse_divergence(system: System, state: State, inference: Inference, steps: int) -> None:
    if bool(torch.isfinite(state.flat.sum())):
        return
    bad = system.first_bad(state)
    if bad is not None:  # the sum alone may have overflowed
        raise DivergenceError(
            f"population {bad} became non-finite within {steps} steps of inference, each of {inference.step:g}; try a "
            "smaller step",
            steps * inference.step,
            bad,
        )


def _earliest(rule: Plasticity, inference: Inference) -> int:
    if isinstance(rule.when, AtStep):
        return rule.when.step
    return 0 if isinstance(rule.when, OnSpike) else inference.steps

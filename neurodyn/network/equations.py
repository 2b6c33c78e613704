"""A declaration as text: its equations, as one would write them down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurodyn.layers.names import told_apart
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import Drive
from neurodyn.network.names import as_factor
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.population import Population
from neurodyn.network.prospective import Anticipation, prospective_sources
from neurodyn.network.vectors import Vector, bounds_text, is_number, largest_of, magnitude, text_of

if TYPE_CHECKING:
    from neurodyn.network.network import Network


def network_equations(network: Network) -> str:
    """Return the equations as text, one line a population."""
    with told_apart(network.stages):
        return "\n".join(_lines(network))


def _lines(network: Network) -> list[str]:
    lines = [equation(p, network.into(p.name)) for p in network.populations if not isinstance(p, Anticipation)]
    for source in prospective_sources(network.couplings):
        u = source.population
        lines.append(f"{source} = {u} + {_number(network[u].tau)}d{u}/dt")
    for torn, others in network.loops:
        lines.append(f"{', '.join(sorted((*torn, *others)))} form a cycle, and are solved for together")
    return lines


def network_text(network: Network) -> str:
    """Return populations, couplings, equations, plasticity and stages as text."""
    with told_apart(network.stages):
        rows = [
            f"  {p.name:<8} {size_text(p):>12}  {p.role:<13}"
            + (
                f" held at {p.clamp}"
                if p.clamp
                else f" τ = {text_of(p.tau)}, leak = {text_of(p.leak)}"
                + ("" if p.instantaneous else f", from {_start_text(p.initial)}")
                + ("" if p.bounds is None else f", in {bounds_text(p.bounds)}")
            )
            for p in network.populations
        ]
        text = [f"Network {network.name!r}", "", f"populations ({len(network.populations)})", *rows]
        couplings = [c for c in network.couplings if not isinstance(network[c.target], Anticipation)]
        text += ["", f"couplings ({len(couplings)})"]
        text += [f"  {c!s:<14} {text_of(c.gain, '+g')} · {as_factor(c.text)}" for c in couplings]
        text += ["", "equations", *(f"  {line}" for line in _lines(network))]
        if network.plasticity:
            text += ["", f"plasticity ({len(network.plasticity)})"]
            text += [f"  {plasticity_text(rule)}" for rule in network.plasticity]
        if network.stages:
            text += ["", "stages (J is the Jacobian of g; a bar marks a value of the forward pass)"]
            text += dict.fromkeys(f"  {stage.symbol} = {stage.label}" for stage in network.stages)
    return "\n".join(text)


def size_text(population: Population) -> str:
    """Return the number of units of a population, e.g. "300" or "32 × 14 × 14"."""
    return "from data" if population.shape is None else " × ".join(map(str, population.shape))


def _start_text(initial: Vector | Drive) -> str:
    return str(initial) if isinstance(initial, Drive) else text_of(initial)


def _number(value: Vector) -> str:
    return "" if is_number(value, 1) else f"{text_of(value)} "


def equation(population: Population, couplings: tuple[Coupling, ...]) -> str:
    """Return the equation of a population, given the couplings that lead into it."""
    x = population.name
    if population.clamp is not None and not population.clamp.optional:
        return f"{x} = {population.clamp}"
    right = "" if population.instantaneous or is_number(population.leak, 0) else f"−{_number(population.leak)}{x}"
    for coupling in couplings:
        sign = "−" if largest_of(coupling.gain) < 0 else "+"
        gain = _number(magnitude(coupling.gain) if sign == "−" else coupling.gain)
        text = coupling.text
        if gain or sign == "−" or (right and text.startswith(("−", "-"))):
            text = f"({text})" if gain and text[:1].isdecimal() else as_factor(text)
        right += f" {sign} {gain}{text}" if right else (f"−{gain}{text}" if sign == "−" else gain + text)
    if population.instantaneous:
        whole = is_number(population.leak, 1)
        left, right = x, (right or "0") if whole else f"({right or '0'}) / {text_of(population.leak)}"
    else:
        left = f"{_number(population.tau)}d{x}/dt"
    clamped = f"        ({x} = {population.clamp} when given)" if population.clamp is not None else ""
    noise = f"        ({text_of(population.noise)} dW added to d{x})" if population.noisy else ""
    bounds = "" if population.bounds is None else f"        ({x} stays in {bounds_text(population.bounds)})"
    return f"{left} = {right or '0'}{clamped}{noise}{bounds}"


def plasticity_text(rule: Plasticity) -> str:
    """Return what learns from what, and when."""
    g, number = rule.stage.symbol, rule.stage.mark
    pre = f"live {rule.pre}" if rule.presynaptic == "live" else f"{rule.pre} of the forward pass"
    factor = ("−" if rule.gain > 0 else "+") + _number(abs(rule.gain))
    what = f"Δθ{number} ∝ {factor}(∂{g}/∂θ)ᵀ" if rule.weights is None else f"Δψ{number} ∝ {factor}((∂{g}/∂W)ᵀ"
    end = "" if rule.weights is None else ")ᵀ"
    derivative = "" if rule.derivative in (None, rule.presynaptic) else f", f' {rule.derivative}"
    when = "at the end" if rule.when == "end" else str(rule.when)
    regularizer = "" if rule.regularizer is None else f", with {rule.regularizer}"
    return f"{what} {rule.post}{end}, pre = {pre}{derivative}, {when}{regularizer}"

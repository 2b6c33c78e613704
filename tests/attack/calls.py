"""Wrong calls: valid calls of every public name, with arguments replaced by what they must not be."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation, predictive_coding, target_propagation
from tests.attack.cases import Case, Expected
from tests.attack.recipes import RECIPES
from tests.attack.recipes.common import Recipe

_MODULES = {
    "nd.train": nd.train,
    "nd.data": nd.data,
    "nd.analysis": nd.analysis,
    "plot": plot,
    "ar": activation_relaxation,
    "pc": predictive_coding,
    "tp": target_propagation,
}


def public() -> dict[str, Any]:
    """Return every public function and class, by the name by which recipes call it."""
    found = {f"nd.{name}": getattr(nd, name) for name in nd.__all__}
    for prefix, module in _MODULES.items():
        found |= {f"{prefix}.{name}": value for name, value in _offered(module).items()}
    return {name: value for name, value in found.items() if inspect.isroutine(value) or _is_made(value)}


def _is_made(value: Any) -> bool:
    """Tell whether it is a class with arguments of its own: a plain exception takes anything, as all of Python's."""
    return inspect.isclass(value) and not (issubclass(value, Exception) and "__init__" not in vars(value))


def _offered(module: ModuleType) -> dict[str, Any]:
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    here = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in here.items() if getattr(value, "__module__", None) == module.__name__}


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a public name that a caller may name; an exception's own are any."""
    if inspect.isclass(function) and function.__init__ is Exception.__init__:
        return {}
    named = inspect.signature(function).parameters
    return {name: p for name, p in named.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def cases(seed: int, wrong: int) -> Iterator[Case]:
    """Yield calls of every recipe: valid ones, and as many wrong ones as are asked for, drawn by a seed."""
    random = np.random.default_rng([seed, 1])
    singles: list[Case] = []
    for recipe in RECIPES:
        yield Case("valid calls", recipe.call(), Expected.RIGHT)
        for name, argument in recipe.arguments.items():
            for value in argument.right:
                yield Case("valid calls", recipe.call(**{name: value}), Expected.RIGHT)
            for value in argument.either:
                yield Case("doubtful calls", recipe.call(**{name: value}), Expected.EITHER)
            singles += (Case("wrong calls", recipe.call(**{name: value}), Expected.WRONG) for value in argument.wrong)
        yield from _wrong_signatures(recipe)
    pairs = [_two_wrong(_WITH_SEVERAL[place], random) for place in random.integers(len(_WITH_SEVERAL), size=wrong // 5)]
    drawn = random.permutation(len(singles))[: wrong - len(pairs)]
    yield from (singles[place] for place in sorted(drawn))
    yield from pairs


_WITH_SEVERAL = [recipe for recipe in RECIPES if sum(bool(each.wrong) for each in recipe.arguments.values()) > 1]


def _two_wrong(recipe: Recipe, random: np.random.Generator) -> Case:
    several = [name for name, argument in recipe.arguments.items() if argument.wrong]
    chosen = random.choice(several, 2, replace=False)
    other = {str(name): str(random.choice(recipe.arguments[name].wrong)) for name in chosen}
    return Case("two wrong arguments", recipe.call(**other), Expected.WRONG)


def _wrong_signatures(recipe: Recipe) -> Iterator[Case]:
    """Yield calls with an unknown argument, with too many, and without each one that is needed."""
    function = public().get(recipe.function)
    if function is None:
        return
    expressions = [recipe.call(nonsense="1"), recipe.written(*(["None"] * 30))]
    for name, parameter in parameters(function).items():
        if parameter.default is parameter.empty:
            others = [f"{key}={each.valid}" for key, each in recipe.arguments.items() if key != name]
            expressions.append(recipe.written(*others))
    yield from (Case("wrong signatures", expression, Expected.WRONG) for expression in expressions)

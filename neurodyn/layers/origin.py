"""Modules as they were when stages were made of them, so that what becomes of them later is noticed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules import module as global_hooks

from neurodyn.errors import InvalidValueError

_FORWARD_HOOKS = (global_hooks._global_forward_hooks, global_hooks._global_forward_pre_hooks)
_BACKWARD_HOOKS = (global_hooks._global_backward_hooks, global_hooks._global_backward_pre_hooks)
METHODS = ("forward", "_conv_forward", "_call_impl", "_wrapped_call_impl")
"""What a call of a module runs, where someone has put it on the instance in the place of its class's."""
_CHANGES = (
    "its class",
    "the forward of its class",
    "the forward put in the place of its own",
    "its forward hooks",
    "its forward hooks",
    "its layers",
    "its parameters",
    "its buffers",
    "its settings",
)


class Origin:
    """The modules that stages were made of, as they were then.

    A stage computes with the present values of its layers' parameters, but not with layers, hooks or a forward that a
    module was given afterwards: these are refused.

    Parameters
    ----------
    modules
        The modules: those that were taken apart, and their parts.
    captured
        Whether the stages follow no module any more, so that its parameters, buffers and settings must stay, too.
    """

    def __init__(self, modules: Iterable[nn.Module], *, captured: bool = False) -> None:
        self._look = _look_closely if captured else look
        self._seen = [(module, self._look(module)) for module in dict.fromkeys(modules)]

    @property
    def modules(self) -> list[nn.Module]:
        """The modules."""
        return [module for module, _ in self._seen]

    def check(self) -> None:
        """Refuse modules that are no longer what they were, and hooks that no stage would call."""
        check_global_hooks()
        for module, seen in self._seen:
            now = self._look(module)
            if now != seen:
                change = next(_CHANGES[i] for i, pair in enumerate(zip(now, seen, strict=True)) if pair[0] != pair[1])
                raise InvalidValueError(
                    f"{type(module).__name__}: {change} changed after stages were made of it, which would go on as "
                    "before; make the stages, and declare the network, anew"
                )
            check_backward_hooks(module)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the modules, which the ids that were noted do not outlive."""
        self.check()
        captured = self._look is _look_closely
        return partial(Origin, captured=captured), (self.modules,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        """Return the same: a copy of a stage is of the same origin."""
        return self


def look(module: nn.Module) -> tuple[object, ...]:
    """Return what tells whether a module computes by the same layers, hooks and forward as before."""
    return (
        type(module),
        getattr(type(module), "forward", None),  # a scripted module has none there
        tuple(map(module.__dict__.get, METHODS)),
        tuple(module._forward_hooks),
        tuple(module._forward_pre_hooks),
        tuple(module._modules.values()),
    )


def _look_closely(module: nn.Module) -> tuple[object, ...]:
    settings = getattr(type(module), "__constants__", ())
    return (
        *look(module),
        tuple(map(id, module._parameters.values())),
        tuple(map(id, module._buffers.values())),
        tuple(getattr(module, name, None) for name in settings),
    )


def global_hooks_are_on() -> bool:
    """Tell whether hooks of every module are registered."""
    return any((*_FORWARD_HOOKS, *_BACKWARD_HOOKS))


def check_global_hooks() -> None:
    """Refuse hooks of every module: layers that are computed by hand would not call them."""
    for hooks, kind in ((_FORWARD_HOOKS, "forward"), (_BACKWARD_HOOKS, "backward")):
        if any(hooks):
            raise InvalidValueError(
                f"a {kind} hook of all modules is registered (torch.nn.modules.module.register_module_…_hook), which "
                "stages do not call; remove it, or register a forward hook on a layer"
            )


def check_backward_hooks(module: nn.Module) -> None:
    """Refuse backward hooks of a module: a network asks for feedback any number of times, or not at all."""
    if module._backward_hooks or module._backward_pre_hooks:
        raise InvalidValueError(
            f"{type(module).__name__} has a backward hook, which stages do not call; remove it, or register a hook on "
            "a parameter (parameter.register_hook), which nd.backward calls with the gradient found"
        )

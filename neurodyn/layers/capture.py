"""The computation graph of any module, captured with `torch.export`, as the stages of a forward pass."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from neurodyn.checks import check_dense, made_ordinary
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.exported import DATA_DEPENDENT, PLAINER, Exported, refuse
from neurodyn.layers.forward import ForwardPass, evaluated, sources
from neurodyn.layers.operations import Operation
from neurodyn.layers.origin import Origin

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Pulled = TypeVar("Pulled")
_aten = torch.ops.aten
_UNROLLED = (
    *(_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input),
    *(_aten.lstm_cell.default, _aten.gru_cell.default, _aten.rnn_tanh_cell.default, _aten.rnn_relu_cell.default),
)
"""What is taken apart: recurrent layers into time steps, and their cells into gates."""
_COPY = _aten.copy.default
"""What an assignment to a part of a tensor becomes, such as y[:, 0] = x; it has no derivative."""
_one_at_a_time = threading.Lock()
"""torch.export puts functions of its own in the place of PyTorch's meanwhile, so that two at once spoil each other."""


def capture(module: nn.Module, example_input: Tensor) -> tuple[Operation, ...]:
    """Capture the computation graph of a module, as operations in the order of their evaluation; the last gives x̄_L.

    Each differentiable value that has a sample axis is one operation's, with that axis the first. What lies in between
    (integers, masks and what is infinite by them, values without a sample axis, several values at once) is worked out
    by each operation that needs it. Recurrent layers are unrolled in time, and what works in place is replaced by what
    does not. The parameters stay the module's own, and an operation computes with their present values.

    Parameters
    ----------
    module
        Any module of one input tensor and one output tensor, whose first axes are the samples. Which operations it runs
        must not depend on the values of the data, and none may mix samples.
    example_input
        Shape (sample, …), of floating-point numbers or of integers; its shape but for the number of samples is that of
        all inputs to come.

    Returns
    -------
    tuple of Operation

    Raises
    ------
    TypeError
        If there is no module, or no tensor.
    ValueError
        If the module cannot be captured; the message says why and what to do.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> class Skip(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = torch.nn.Linear(3, 3)
    ...
    ...     def forward(self, x):
    ...         return x + self.linear(x).tanh()
    >>> [operation.name for operation in nd.capture(Skip(), torch.ones(2, 3))]
    ['linear_1', 'tanh_1', 'add_1']
    """
    if not isinstance(module, nn.Module):
        raise InvalidTypeError(f"capture takes an nn.Module, not {type(module).__name__}")
    if not isinstance(example_input, Tensor):
        raise InvalidTypeError(f"example_input must be a torch tensor, not {type(example_input).__name__}")
    check_dense("example_input", example_input)
    if example_input.ndim < 2 or len(example_input) == 0:
        raise InvalidValueError(
            "example_input must have the shape (sample, units…) with at least one sample, not "
            f"{tuple(example_input.shape)}"
        )
    if example_input.is_complex():
        raise InvalidTypeError(f"example_input must hold real numbers, not {example_input.dtype}")
    # A few samples, and at least two, tell what depends on their number, and what mixes them.
    example = made_ordinary(example_input[:8])
    example = torch.cat([example, example]) if len(example) == 1 else example
    for attribute in ("_orig_mod", "module"):  # of torch.compile, and of what spreads a module over devices
        if attribute in module._modules and type(module).__module__.startswith("torch."):
            refuse(module, "it wraps another module", f"give that one, its .{attribute}")
    for part in module.modules():
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) and part.sparse:
            refuse(module, f"the gradients of its {type(part).__name__} are sparse", "make it with sparse=False")
    origin = Origin(module.modules(), captured=True)
    origin.check()
    with _one_at_a_time, torch.enable_grad(), torch.random.fork_rng(devices=[]), _quiet():
        _try(module, example)
        graph = Exported(module, _export(module, example))
        operations = graph.operations(example)
        _check_capture(module, operations, example)
    for operation in operations:
        operation.origin = origin
    return operations


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.export tells of its own workings."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _try(module: nn.Module, example: Tensor) -> None:
    """Refuse a module that does not take the example, or returns anything but one tensor."""
    lazy = [name for name, p in [*module.named_parameters(), *module.named_buffers()] if nn.parameter.is_lazy(p)]
    if lazy:
        refuse(module, f"its {lazy[0]} does not know its size yet", "run it once on a batch of inputs before")
    before = [(tensor, tensor._version, tensor.detach().clone()) for tensor in module.parameters()]
    statistics = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.no_grad():
            output = module(example.clone())
    except Exception as error:
        raise InvalidValueError(
            f"{type(module).__name__} does not take example_input, here of shape {tuple(example.shape)} and "
            f"{example.dtype}: {error}"
        ) from error
    finally:
        for tensor, version, value in before:
            if tensor._version != version:
                tensor.detach().copy_(value)
        for buffer, value in statistics:
            buffer.copy_(value)
    if not isinstance(output, Tensor):
        size = f" of {len(output)}" if isinstance(output, (tuple, list, dict)) else ""
        refuse(
            module,
            f"it returns a {type(output).__name__}{size}, not one tensor",
            "wrap it in a module that returns the tensor that the loss is of",
        )


@cache
def _taken_apart() -> dict[Any, Any]:
    """Return how operations are taken apart: what is unrolled as PyTorch does; its table of all takes long to make."""
    from torch.export import default_decompositions

    table = default_decompositions()
    return {operation: table[operation] for operation in _UNROLLED if operation in table} | {_COPY: _copied}


def _copied(place: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(place.dtype).expand(place.shape)


@contextmanager
def _transforms_left_behind() -> Iterator[None]:
    """Leave the transforms of torch.func that are on when torch.export fails within one, and would stay on for good.

    They refuse hooks on what autograd saves, such as checkpoints have.
    """
    # PyTorch makes no promise that these functions are there.
    transforms: Any = getattr(torch._C, "_functorch", None)
    hooks: Any = getattr(torch._C, "_autograd", None)
    depth = getattr(transforms, "get_dynamic_layer_stack_depth", lambda: None)()
    enabled = getattr(hooks, "_saved_tensors_hooks_is_enabled", lambda: False)()
    try:
        yield
    finally:
        if depth is not None:
            transforms.pop_dynamic_layer_stack_and_undo_to_depth(depth)
        if enabled:
            hooks._saved_tensors_hooks_enable()


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    # Here, because they bring SymPy along, which takes long to import.
    from torch.export import Dim, export
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    failures: list[Exception] = []
    # By running the module; where that does not do, as with len(x), by reading its code, which is slower.
    for strict in (False, True):
        try:
            with _transforms_left_behind():
                program = export(module, (example.clone(),), dynamic_shapes=({0: Dim("sample")},), strict=strict)
                functional: ExportedProgram = program.run_decompositions(dict(_taken_apart()))
        except Exception as error:
            failures.append(error)
        else:
            return functional
    first = failures[0]
    if isinstance(first, GuardOnDataDependentSymNode):
        refuse(module, *DATA_DEPENDENT, first)
    if "specialized it to be a constant" in str(first):
        reason = "its forward depends on the number of samples"
        advice = "let it work for any: no loop over samples, no fixed number of them in view or reshape"
        refuse(module, reason, advice, first)
    reason, *_ = str(first).splitlines() or [type(first).__name__]
    refuse(module, reason, PLAINER, first)


def _check_capture(module: nn.Module, operations: Sequence[Operation], example: Tensor) -> None:
    """Refuse a capture that mixes samples, or whose gradients are not the module's."""
    generator = torch.Generator().manual_seed(0)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    expected = module(example.clone())
    pull = torch.randn(expected.shape, generator=generator, device="cpu").to(expected)
    theirs = _pulled(module, lambda: _gradients(expected, named.values(), pull))
    for operation, point in ForwardPass(operations, example).points.items():
        v = torch.randn(point.value.shape, generator=generator, device="cpu").to(point.value)
        v[1:] = 0
        for argument, source in enumerate(operation.sources):
            if source != "input" or example.is_floating_point():
                leak = _pulled(module, partial(point.feedback, v, argument))[1:]
                if bool(((leak != 0) & ~leak.isnan()).any()):
                    refuse(
                        module,
                        f"its {operation.label} couples the samples of a batch, so that a sample has no Jacobian of "
                        "its own",
                        "call .eval() on the module if it is batch normalisation, or use LayerNorm or GroupNorm",
                    )
    found = evaluated(sources(operations), example)[operations[-1]]
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        refuse(module, "its captured graph gives another output than it", "write its forward with plainer functions")
    ours = _gradients(found, named.values(), pull)
    scale = sum(float(g.norm()) for g in theirs)
    for name, a, b in zip(named, ours, theirs, strict=True):
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            refuse(
                module,
                f"its captured graph gives another gradient of {name} than autograd gives",
                "an autograd.Function with a backward of its own, a hook on a gradient or torch.no_grad() cannot be "
                "captured; .detach() can",
            )


def _pulled(module: nn.Module, pull: Callable[[], Pulled]) -> Pulled:
    """Return what autograd gives; refuse a module that it does not differentiate."""
    try:
        return pull()
    except Exception as error:
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        refuse(module, f"autograd does not differentiate it: {reason}", "rewrite that part, as for backprop", error)


def _gradients(y: Tensor, parameters: Iterable[Tensor], v: Tensor) -> Sequence[Tensor]:
    parameters = list(parameters)
    if not (y.requires_grad and parameters):
        return [torch.zeros_like(p) for p in parameters]
    return torch.autograd.grad(y, parameters, v, materialize_grads=True)

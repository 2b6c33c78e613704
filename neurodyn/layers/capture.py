"""The computation graph of any module, captured with `torch.export`, as the stages of a forward pass."""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from neurodyn.checks import check_dense
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.origin import Origin
from neurodyn.layers.stages import ForwardPass, Source, Stage, evaluated, sources

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_aten = torch.ops.aten
_COPIES = (_aten.clone.default, _aten.contiguous.default, _aten.alias.default)
_UNROLLED = (
    *(_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input),
    *(_aten.lstm_cell.default, _aten.gru_cell.default, _aten.rnn_tanh_cell.default, _aten.rnn_relu_cell.default),
)
"""What is taken apart: recurrent layers into time steps, and their cells into gates."""

_DATA_DEPENDENT = (
    "its control flow, or a shape in it, depends on the values of the data",
    "choose between values with torch.where, and select by masks that multiply",
)


class Operation(Stage):
    """An operation of a module's computation graph: a stage that reads the values of other operations, or the input.

    Parameters
    ----------
    name
        The operation's name and number, e.g. "linear_2".
    layer
        What it computes of the values that it reads.
    sources
        What it reads: other operations, or "input".
    source_shapes
        The shape of one sample of each.
    shape
        The shape of one sample of its value.
    label
        What it computes, in words.
    modes
        The parts of the module whose mode (training or evaluation) matters, and whether they were in training.
    """

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        sources: Sequence[Source],
        *,
        source_shapes: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        label: str,
        modes: Sequence[tuple[nn.Module, bool]],
    ) -> None:
        self._modes = modes
        self._kinds = [(p.dtype, p.device) for p in layer.parameters()]
        super().__init__([layer], name)
        self.sources = tuple(sources)
        self.source_shapes = tuple(source_shapes)
        self.shape = shape
        self._label = label

    def check(self) -> None:
        for part, training in self._modes:
            if part.training != training:
                mode = ("evaluation", "training")
                raise InvalidValueError(
                    f"operation {self.name}: the module was captured in {mode[training]} mode, and its "
                    f"{type(part).__name__} is in {mode[part.training]} mode now; switch it back, or capture it again"
                )
        for parameter, kind in zip(self.layers[0].parameters(), self._kinds, strict=True):
            if (parameter.dtype, parameter.device) != kind:
                raise InvalidValueError(
                    f"operation {self.name}: the module was captured with parameters of {kind[0]} on {kind[1]}, and "
                    f"now has them of {parameter.dtype} on {parameter.device}; capture it again"
                )

    def output_shape(self, input_shape: Sequence[int], argument: int = 0) -> tuple[int, ...]:
        expected = self.source_shapes[argument]
        if tuple(input_shape) != expected:
            raise InvalidValueError(
                f"operation {self.name} ({self.label}) was captured for {_shape(expected)} units a sample, and not for "
                f"{_shape(input_shape)}"
            )
        return self.shape

    @property
    def label(self) -> str:
        return self._label


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
    # A few samples, and at least two, tell what depends on their number, and what mixes them.
    example = example_input[:8].detach()
    example = torch.cat([example, example]) if len(example) == 1 else example
    for attribute in ("_orig_mod", "module"):  # of torch.compile, and of what spreads a module over devices
        if attribute in module._modules and type(module).__module__.startswith("torch."):
            _refuse(module, "it wraps another module", f"give that one, its .{attribute}")
    origin = Origin(module.modules(), captured=True)
    origin.check()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), _quiet():
        _try(module, example)
        graph = _Graph(module, _export(module, example))
        operations = graph.operations(example)
        _check_capture(module, operations, example)
    for operation in operations:
        operation.origin = origin
    return operations


class _Computation(fx.GraphModule):
    """What an operation computes: a graph, and the tensors that it reads.

    It pickles as its nodes, where PyTorch's own traces its code anew, which operators that make tensors refuse.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        places = {node: _Place(place) for place, node in enumerate(self.graph.nodes)}

        def placed(leaf: Any) -> Any:
            return places[leaf] if isinstance(leaf, fx.Node) else leaf

        nodes = [
            (n.op, n.name, _named(n.target), map_aggregate((n.args, dict(n.kwargs)), placed)) for n in self.graph.nodes
        ]
        tensors = {n.target: getattr(self, n.target) for n in self.graph.nodes if n.op == "get_attr"}
        return _computation, (tensors, nodes, self.training)


@dataclass(frozen=True)
class _Place:
    """A node of a graph, by its place."""

    place: int


def _named(target: Any) -> Any:
    """Return what a node calls, an operator by its name, as it does not pickle."""
    return _Operator(str(target)) if isinstance(target, torch._ops.OpOverload) else target


@dataclass(frozen=True)
class _Operator:
    """An operator by its name, such as "aten.add.Tensor"."""

    name: str

    def find(self) -> Any:
        namespace, packet, overload = self.name.split(".")
        return getattr(getattr(getattr(torch.ops, namespace), packet), overload)


def _computation(tensors: dict[str, Tensor], nodes: Sequence[tuple[Any, ...]], training: bool) -> _Computation:
    graph = fx.Graph()
    made: list[fx.Node] = []

    def found(leaf: Any) -> Any:
        return made[leaf.place] if isinstance(leaf, _Place) else leaf

    for op, name, target, arguments in nodes:
        args, kwargs = map_aggregate(arguments, found)
        called = target.find() if isinstance(target, _Operator) else target
        made.append(graph.create_node(op, called, args, kwargs, name))
    return _Computation(tensors, graph).train(training)


class _Graph:
    """An exported program, with what its placeholders stand for."""

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        from torch.export.graph_signature import InputKind

        self.module = module
        self.nodes = program.graph.nodes
        self.tensors: dict[fx.Node, Tensor] = {}
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self.input = node
            elif spec.kind == InputKind.PARAMETER:
                self.tensors[node] = module.get_parameter(spec.target or "")
            elif spec.kind == InputKind.BUFFER:
                self.tensors[node] = module.get_buffer(spec.target or "")
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                self.tensors[node] = program.constants[spec.target or ""]
            else:
                _refuse(module, f"its forward uses {spec.target}, which is no tensor", "remove it")
        self._check_nodes(program)
        self.symbol = self.input.meta["val"].shape[0].node.expr
        (self.output,) = next(node for node in self.nodes if node.op == "output").args[0]
        while self.output.target in _COPIES:
            self.output = self.output.args[0]
        self.counts = {node for node in self.nodes if _is_size(node) and node.meta["val"].node.expr == self.symbol}
        self.modes = [(part, part.training) for part in module.modules() if _reads_mode(part)]

    def _check_nodes(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        # By their names, because PyTorch 2.8 has no kind of output for parameters yet.
        kinds = ("BUFFER_MUTATION", "PARAMETER_MUTATION")
        written = [str(output.target) for output in signature.output_specs if output.kind.name in kinds]
        if written:
            _refuse(
                self.module,
                f"its forward changes its own {', '.join(written)}",
                "call .eval() on the module if that is a statistic of training, or keep the count elsewhere",
            )
        if signature.user_inputs_to_mutate:
            _refuse(self.module, "its forward writes into its input", "let it work on x.clone()")
        for node in self.nodes:
            if isinstance(node.target, torch._ops.HigherOrderOperator):
                _refuse(
                    self.module,
                    f"its forward branches or loops by {node.target} on the data",
                    "choose between values with torch.where, and give loops a fixed number of turns",
                )

    def operations(self, example: Tensor) -> tuple[Operation, ...]:
        values = self._run(example)
        needed = _before([self.output], stop=())
        if any(_symbols(node) - {self.symbol} for node in needed):
            _refuse(self.module, *_DATA_DEPENDENT)
        axes = {
            node: axis
            for node in self.nodes
            if node in needed and (axis := self._sample_axis(node, values)) is not None
        }
        self._check_output(values[self.output], axes.get(self.output), len(example))
        made: dict[fx.Node, Source] = {self.input: "input"}
        shapes = {self.input: tuple(example.shape[1:])}
        numbers: Counter[str] = Counter()
        for node, axis in axes.items():
            shapes[node] = tuple(values[node].movedim(axis, 0).shape[1:])
            base = _base_name(node)
            numbers[base] += 1
            made[node] = self._operation(f"{base}_{numbers[base]}", node, made, shapes, axes)
        return tuple(operation for operation in made.values() if isinstance(operation, Operation))

    def _check_output(self, value: Tensor, axis: int | None, samples: int) -> None:
        if not value.requires_grad:
            _refuse(self.module, "its output has no derivative", "let it return the tensor that the loss is of")
        dtype = next((p.dtype for p in self.tensors.values() if isinstance(p, nn.Parameter)), value.dtype)
        if value.dtype != dtype:
            _refuse(
                self.module,
                f"its output is of {value.dtype}, and its parameters are of {dtype}",
                "let it compute in one precision, without autocast",
            )
        if axis != 0:
            _refuse(
                self.module,
                f"its output of shape {tuple(value.shape)} for {samples} samples has another axis first, or no other",
                "let it return a tensor (sample, units…)",
            )

    def _run(self, example: Tensor) -> dict[fx.Node, Any]:
        """Evaluate every node on real data, as if all parameters required a gradient."""
        values: dict[fx.Node, Any] = {self.input: example.clone().requires_grad_(example.is_floating_point())}
        for node, tensor in self.tensors.items():
            values[node] = tensor.detach().requires_grad_(isinstance(tensor, nn.Parameter))
        for node in self.nodes:
            if node.op == "call_function":
                before = _random_state(example.device)
                values[node] = node.target(*map_arg(node.args, values.get), **map_arg(node.kwargs, values.get))
                if not torch.equal(before, _random_state(example.device)):
                    _refuse(
                        self.module,
                        f"its {_base_name(node)} gives another value at every evaluation",
                        "call .eval() on the module, or remove the random part",
                    )
        return values

    def _sample_axis(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> int | None:
        """Return which axis of a value is the sample, where the value becomes an operation's; None otherwise."""
        value, output = values[node], values[self.output]
        if node.op != "call_function" or node.target in _COPIES or not isinstance(value, Tensor):
            return None
        if not value.requires_grad or value.dtype != output.dtype or value.ndim < 2 or 0 in value.shape:
            return None
        if not bool(value.isfinite().all()):
            return None  # such as masked scores: no activity starts from −∞
        if node.target is _aten.slice.Tensor and value.shape == values[node.all_input_nodes[0]].shape:
            return None  # x[:], which stands in front of every other index
        symbolic = [axis for axis, size in enumerate(node.meta["val"].shape) if isinstance(size, torch.SymInt)]
        if len(symbolic) != 1 or node.meta["val"].shape[symbolic[0]].node.expr != self.symbol:
            return None
        return symbolic[0]

    def _operation(
        self,
        name: str,
        node: fx.Node,
        made: Mapping[fx.Node, Source],
        shapes: Mapping[fx.Node, tuple[int, ...]],
        axes: Mapping[fx.Node, int],
    ) -> Operation:
        """Cut out what leads from the populations, or the input, to one node."""
        inner = _before([node], stop={*made, *self.counts})
        read = [n for n in self.nodes if n in inner and n in made] or [self.input]
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        tensors: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        places = [graph.placeholder(f"x{number}") for number in range(len(read))]
        for each, place in zip(read, places, strict=True):
            axis = axes.get(each, 0)
            moved = graph.call_function(torch.movedim, (place, 0, axis)) if axis else place
            copies[each] = graph.call_method("contiguous", (moved,))  # of other tensors there may be no view
        ordered = [n for n in self.nodes if n in inner and n not in made]
        for each in ordered:
            if each in self.counts:
                copies[each] = graph.call_method("size", (places[0], 0))
            elif each in self.tensors:
                tensor = self.tensors[each]
                attribute = names.setdefault(id(tensor), each.name)
                tensors[attribute] = tensor
                copies[each] = graph.get_attr(attribute)
            else:
                copies[each] = graph.node_copy(each, copies.__getitem__)
        value = copies[node]
        graph.output(graph.call_function(torch.movedim, (value, axes[node], 0)) if axes[node] else value)
        steps = [n for n in ordered if n.op == "call_function" and not _is_size(n)]
        label = ", ".join(dict.fromkeys(_base_name(n) for n in steps if n.target not in _COPIES))
        return Operation(
            name,
            _Computation(tensors, graph),
            [made[n] for n in read],
            source_shapes=[shapes[n] for n in read],
            shape=shapes[node],
            label=label + _place(node),
            modes=self.modes,
        )


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
        _refuse(module, f"its {lazy[0]} does not know its size yet", "run it once on a batch of inputs before")
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
        _refuse(
            module,
            f"it returns a {type(output).__name__}{size}, not one tensor",
            "wrap it in a module that returns the tensor that the loss is of",
        )


@cache
def _unrolling() -> dict[Any, Any]:
    """Return how PyTorch takes apart what is unrolled; its table of all operations takes long to make."""
    from torch.export import default_decompositions

    table = default_decompositions()
    return {operation: table[operation] for operation in _UNROLLED if operation in table}


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    # Here, because they bring SymPy along, which takes long to import.
    from torch.export import Dim, export
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    failures: list[Exception] = []
    # By running the module; where that does not do, as with len(x), by reading its code, which is slower.
    for strict in (False, True):
        try:
            program = export(module, (example.clone(),), dynamic_shapes=({0: Dim("sample")},), strict=strict)
            functional: ExportedProgram = program.run_decompositions(dict(_unrolling()))
        except Exception as error:
            failures.append(error)
        else:
            return functional
    first = failures[0]
    if isinstance(first, GuardOnDataDependentSymNode):
        _refuse(module, *_DATA_DEPENDENT, first)
    if "specialized it to be a constant" in str(first):
        reason = "its forward depends on the number of samples"
        advice = "let it work for any: no loop over samples, no fixed number of them in view or reshape"
        _refuse(module, reason, advice, first)
    reason, *_ = str(first).splitlines() or [type(first).__name__]
    _refuse(module, reason, "rewrite that part with differentiable torch functions of tensors", first)


def _check_capture(module: nn.Module, operations: Sequence[Operation], example: Tensor) -> None:
    """Refuse a capture that mixes samples, or whose gradients are not the module's."""
    generator = torch.Generator().manual_seed(0)
    for operation, point in ForwardPass(operations, example).points.items():
        v = torch.randn(point.value.shape, generator=generator).to(point.value)
        v[1:] = 0
        for argument, source in enumerate(operation.sources):
            if source != "input" or example.is_floating_point():
                leak = point.feedback(v, argument)[1:]
                if bool(((leak != 0) & ~leak.isnan()).any()):
                    _refuse(
                        module,
                        f"its {operation.label} couples the samples of a batch, so that a sample has no Jacobian of "
                        "its own",
                        "call .eval() on the module if it is batch normalisation, or use LayerNorm or GroupNorm",
                    )
    found, expected = evaluated(sources(operations), example)[operations[-1]], module(example.clone())
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        _refuse(module, "its captured graph gives another output than it", "write its forward with plainer functions")
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    v = torch.randn(found.shape, generator=generator).to(found)
    ours, theirs = (_gradients(y, named.values(), v) for y in (found, expected))
    scale = sum(float(g.norm()) for g in theirs)
    for name, a, b in zip(named, ours, theirs, strict=True):
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            _refuse(
                module,
                f"its captured graph gives another gradient of {name} than autograd gives",
                "an autograd.Function with a backward of its own, a hook on a gradient or torch.no_grad() cannot be "
                "captured; .detach() can",
            )


def _gradients(y: Tensor, parameters: Iterable[Tensor], v: Tensor) -> Sequence[Tensor]:
    parameters = list(parameters)
    if not (y.requires_grad and parameters):
        return [torch.zeros_like(p) for p in parameters]
    return torch.autograd.grad(y, parameters, v, materialize_grads=True)


def _before(nodes: Iterable[fx.Node], stop: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all that they depend on, up to where to stop, which is still returned."""
    found: set[fx.Node] = set()
    stop, pending = set(stop), list(nodes)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            if node not in stop:
                pending.extend(node.all_input_nodes)
    return found


def _base_name(node: fx.Node) -> str:
    """Name what a node computes, e.g. "linear"; of one of several values at once, what gives them."""
    while node.target is operator.getitem:
        node = node.all_input_nodes[0]
    target = node.target
    name = target._schema.name.split("::")[-1] if isinstance(target, torch._ops.OpOverload) else node.name
    return name.strip("_").removeprefix("native_").removesuffix("_legit_no_training")  # as of _native_batch_norm_…


def _place(node: fx.Node) -> str:
    """Say in which part of the module a node stands."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return f" in {path}" if path else ""


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _symbols(node: fx.Node) -> set[Any]:
    """Return the symbols in the shape of a node's value, for what is known at run time alone."""
    sizes = getattr(node.meta.get("val"), "shape", ())
    return {symbol for size in sizes if isinstance(size, torch.SymInt) for symbol in size.node.expr.free_symbols}


def _reads_mode(part: nn.Module) -> bool:
    """Tell whether what a module computes may depend on its mode, training or evaluation."""
    code = getattr(type(part).forward, "__code__", None)
    return code is not None and "training" in code.co_names


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _refuse(module: nn.Module, reason: str, advice: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidValueError(f"{type(module).__name__} cannot be captured: {reason}; {advice}") from cause

"""An exported program, taken apart into operations."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from neurodyn.errors import InvalidValueError
from neurodyn.layers.stages import Source

if TYPE_CHECKING:
    from torch.export import ExportedProgram
from neurodyn.layers.computation import Computation
from neurodyn.layers.operations import Operation

_aten = torch.ops.aten
_COPIES = (_aten.clone.default, _aten.contiguous.default, _aten.alias.default)

DATA_DEPENDENT = (
    "its control flow, or a shape in it, depends on the values of the data",
    "choose between values with torch.where, and select by masks that multiply",
)
PLAINER = "rewrite that part with differentiable torch functions of tensors"


class Exported:
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
                refuse(module, f"its forward uses {spec.target}, which is no tensor", "remove it")
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
            refuse(
                self.module,
                f"its forward changes its own {', '.join(written)}",
                "call .eval() on the module if that is a statistic of training, or keep the count elsewhere",
            )
        if signature.user_inputs_to_mutate:
            refuse(self.module, "its forward writes into its input", "let it work on x.clone()")
        for node in self.nodes:
            if isinstance(node.target, torch._ops.HigherOrderOperator):
                refuse(
                    self.module,
                    f"its forward branches or loops by {node.target} on the data",
                    "choose between values with torch.where, and give loops a fixed number of turns",
                )

    def operations(self, example: Tensor) -> tuple[Operation, ...]:
        values = self._run(example)
        needed = _before([self.output], stop=())
        if any(_symbols(node) - {self.symbol} for node in needed):
            refuse(self.module, *DATA_DEPENDENT)
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
            refuse(self.module, "its output has no derivative", "let it return the tensor that the loss is of")
        if not bool(value.isfinite().all()):
            refuse(
                self.module,
                "its output for example_input is not finite",
                "give an example, and parameters, for which it is",
            )
        dtype = next((p.dtype for p in self.tensors.values() if isinstance(p, nn.Parameter)), value.dtype)
        if value.dtype != dtype:
            refuse(
                self.module,
                f"its output is of {value.dtype}, and its parameters are of {dtype}",
                "let it compute in one precision, without autocast",
            )
        if axis != 0:
            refuse(
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
                values[node] = self._called(node, values)
                if not torch.equal(before, _random_state(example.device)):
                    refuse(
                        self.module,
                        f"its {_base_name(node)} gives another value at every evaluation",
                        "call .eval() on the module, or remove the random part",
                    )
        return values

    def _called(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        target: Any = node.target
        args, kwargs = map_arg(node.args, values.get), map_arg(node.kwargs, values.get)
        try:
            return target(*args, **kwargs)
        except RuntimeError as error:
            if target is _aten.view.default:  # torch.export takes the strides of an FFT for others than they are
                node.target = _aten.reshape.default
                return _aten.reshape.default(*args, **kwargs)
            reason, *_ = str(error).splitlines() or [type(error).__name__]
            refuse(self.module, f"its {_base_name(node)} fails when it is evaluated alone: {reason}", PLAINER, error)

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
            Computation(tensors, graph),
            [made[n] for n in read],
            source_shapes=[shapes[n] for n in read],
            shape=shapes[node],
            label=label + _place(node),
            modes=self.modes,
        )


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


def refuse(module: nn.Module, reason: str, advice: str, cause: Exception | None = None) -> NoReturn:
    """Say why a module cannot be captured, and what to do."""
    raise InvalidValueError(f"{type(module).__name__} cannot be captured: {reason}; {advice}") from cause

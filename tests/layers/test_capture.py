"""Captured computation graphs, against the modules that they are captured from."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import neurodyn as nd
from neurodyn.layers.forward import ForwardPass
from neurodyn.models import activation_relaxation
from tests.graphs import NAMES, Language, Recurrent, Residual, case, operations, words
from tests.problems import tensor


def source_names(operation: nd.Stage) -> list[str]:
    return [source if source == "input" else source.name for source in operation.sources]


@pytest.mark.parametrize("name", NAMES)
def test_the_operations_compute_what_the_module_does_for_any_number_of_samples(name: str) -> None:
    module, inputs = case(name).module, case(name).inputs
    for x in (inputs[:1], inputs, torch.cat([inputs, inputs[:3]])):
        torch.testing.assert_close(ForwardPass(operations(name), x).output, module(x).detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_feedback_and_gradient_of_each_operation_are_those_of_autograd(name: str) -> None:
    points = ForwardPass(operations(name), case(name).inputs).points
    for operation, point in points.items():
        sources = [case(name).inputs if source == "input" else points[source].value for source in operation.sources]
        x = [each.detach().clone().requires_grad_(each.is_floating_point()) for each in sources]
        value = operation.apply(*x)
        v = tensor(*value.shape, seed=3)
        pulled = [(point.feedback(v, argument), each) for argument, each in enumerate(x) if each.requires_grad]
        pulled += zip(point.gradient(v), operation.parameters, strict=True)
        pulled = [(found, onto) for found, onto in pulled if onto.requires_grad]
        expected = torch.autograd.grad(value, [onto for _, onto in pulled], v, materialize_grads=True)
        for (found, _), exact in zip(pulled, expected, strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_the_module_is_read(name: str) -> None:
    read = {parameter for operation in operations(name) for parameter in operation.parameters}
    assert read == set(case(name).module.parameters())


def test_parameters_keep_their_present_values() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    captured = nd.capture(module, torch.ones(2, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    torch.testing.assert_close(ForwardPass(captured, torch.ones(2, 4)).output, module(torch.ones(2, 4)).detach())


class Assigning(nn.Module):
    """Fills a tensor part by part."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y, out = torch.tanh(self.linear(x)), x.new_zeros(len(x), 5)
        before = y[:, 0]
        for place in range(3):
            before = y[:, place] * before.cos()
            out[:, place] = before
        out[:, 3:] = y[:, :1]
        return out


def test_assignments_to_parts_of_a_tensor_are_captured() -> None:
    module, (x, v) = Assigning(), (tensor(6, 4), tensor(6, 5, seed=1))
    network = activation_relaxation.graph(module, x, loss=lambda y, _: (y * v).sum(1))
    nd.backward(network, x, torch.zeros_like(v))
    expected = torch.autograd.grad((module(x) * v).sum(1).mean(), list(module.parameters()))
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-13)


def test_several_threads_capture_at_once() -> None:
    modules = [nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)) for _ in range(2)]
    x = torch.ones(2, 4)
    with ThreadPoolExecutor(len(modules)) as pool:
        captured = list(pool.map(lambda module: nd.capture(module, x), modules))
    for module, each in zip(modules, captured, strict=True):
        torch.testing.assert_close(ForwardPass(each, x).output, module(x).detach())


def test_a_residual_block_is_captured_edge_by_edge() -> None:
    graph = {operation.name: (source_names(operation), operation.label) for operation in operations("residual block")}
    assert graph == {
        "conv2d_1": (["input"], "conv2d in conv1"),
        "batch_norm_1": (["conv2d_1"], "batch_norm in norm"),
        "leaky_relu_1": (["batch_norm_1"], "leaky_relu"),
        "conv2d_2": (["leaky_relu_1"], "conv2d in conv2"),
        "add_1": (["input", "conv2d_2"], "add"),
        "tanh_1": (["add_1"], "tanh"),
        "adaptive_avg_pool2d_1": (["tanh_1"], "adaptive_avg_pool2d"),
        "view_1": (["adaptive_avg_pool2d_1"], "view"),
        "linear_1": (["view_1"], "linear in readout"),
    }
    shapes = {operation.name: operation.shape for operation in operations("residual block")}
    assert (shapes["conv2d_1"], shapes["view_1"], shapes["linear_1"]) == ((4, 6, 6), (12,), (5,))


def test_what_is_not_differentiable_or_has_no_sample_axis_is_no_operation() -> None:
    captured = {operation.name: operation for operation in operations("language model")}
    assert captured["embedding_1"].sources == ("input",)
    positions = captured["add_1"]
    assert positions.label == "arange, embedding, add"
    assert source_names(positions) == ["embedding_1"]
    (places,) = positions.parameters
    assert places is case("language model").module.get_parameter("places.weight")
    assert not any(name.startswith(("arange", "clone", "dropout", "t_")) for name in captured)
    assert not any("detach" in operation.name for operation in operations("shared"))


def test_recurrent_cells_are_unrolled_into_gates_that_share_their_weights() -> None:
    weight = case("LSTM cells").module.get_parameter("cell.weight_hh")
    readers = [
        operation
        for operation in operations("LSTM cells")
        if any(parameter is weight for parameter in operation.parameters)
    ]
    assert len(readers) == 3
    for kind, gates in {"sigmoid": 3, "tanh": 2, "mul": 3}.items():
        assert sum(operation.name.startswith(kind) for operation in operations("LSTM cells")) == 3 * gates
    # The hidden state of a step is what the next one reads.
    assert [source_names(reader) for reader in readers] == [["input"], ["mul_3"], ["mul_6"]]


def test_a_value_used_twice_by_one_operation_is_one_source() -> None:
    product, joined = (
        next(operation for operation in operations("shared") if operation.name == name) for name in ("mul_2", "cat_1")
    )
    assert source_names(product) == ["add_1"]
    assert source_names(joined) == ["tanh_1", "div_1"]


class Plain(nn.Module):
    """A linear layer and a function of it and the input."""

    count: Tensor

    def __init__(self, function: Callable[["Plain", Tensor], object]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4)
        self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)  # type: ignore[return-value]


def test_a_sample_axis_within_is_brought_to_the_front() -> None:
    module = Plain(lambda self, x: self.layer(x.transpose(0, 1)).tanh().sum(0))
    captured = {operation.name: operation for operation in nd.capture(module, torch.ones(2, 3, 4))}
    assert captured["tanh_1"].shape == (3, 4)
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    points = ForwardPass(tuple(captured.values()), x).points
    expected = module.layer(x.transpose(0, 1)).tanh().transpose(0, 1).detach()
    torch.testing.assert_close(points[captured["tanh_1"]].value, expected)


def test_values_that_lie_otherwise_than_torch_export_foresees_are_captured() -> None:
    module = Plain(lambda self, x: torch.fft.rfft(self.layer(x.transpose(0, 1)).transpose(0, 1)).abs().flatten(1))
    captured = nd.capture(module, torch.ones(2, 3, 4))
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ForwardPass(captured, x).output, module(x).detach())


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx, *v: Tensor) -> Tensor:
        return v[0]


def branching(self: Plain, x: Tensor) -> Tensor:
    return self.layer(x) if x.sum() > 0 else x


def counting(self: Plain, x: Tensor) -> Tensor:
    self.count += 1
    return self.layer(x)


def learning(self: Plain, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.layer.weight.mul_(0.9)
    return self.layer(x)


def without_gradient(self: Plain, x: Tensor) -> Tensor:
    h = self.layer(x)
    with torch.no_grad():
        h2 = h * 2
    return h + h2


def sample_by_sample(self: Plain, x: Tensor) -> Tensor:
    return torch.stack([self.layer(each) for each in x])


def overwriting(self: Plain, x: Tensor) -> Tensor:
    h = self.layer(x).tanh()
    h += x
    return h


def within_a_transform(self: Plain, x: Tensor) -> Tensor:
    return self.layer(torch.vmap(torch.func.grad(lambda z: z.pow(3).sum()))(x))


def in_half(self: Plain, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.layer(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (branching, "depends on the values of the data; choose between values with torch.where"),
        (lambda self, x: self.layer(x)[x > 0], "depends on the values of the data"),
        (
            lambda self, x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (self.layer(x),)),
            "branches or loops by cond on the data",
        ),
        (lambda self, x: (self.layer(x), x), "returns a tuple of 2, not one tensor; wrap it"),
        (lambda self, x: {"y": self.layer(x)}, "returns a dict of 1, not one tensor"),
        (counting, "changes its own count"),
        (learning, "changes its own layer.weight|a leaf Variable that requires grad is being used"),
        (lambda self, x: self.norm(self.layer(x)), r"changes its own norm.running_mean.*call \.eval\(\)"),
        (lambda self, x: self.dropout(self.layer(x)), r"its dropout gives another value.*call \.eval\(\)"),
        (lambda self, x: self.layer(x) + torch.rand(4), "its rand gives another value at every evaluation"),
        (lambda self, x: self.layer(x.mul_(2)), r"writes into its input; let it work on x.clone\(\)"),
        (sample_by_sample, "depends on the number of samples; let it work for any"),
        (lambda self, x: self.layer(x).view(3, 4), "depends on the number of samples"),
        (lambda self, x: self.layer(x).softmax(0), "its softmax couples the samples of a batch"),
        (lambda self, x: self.layer(x) - self.layer(x).mean(0), "its mean, sub couples the samples"),
        (lambda self, x: self.layer(x) @ x.T, r"its output of shape \(3, 3\) for 3 samples"),
        (lambda self, x: self.layer(x).T, r"its output of shape \(4, 3\) for 3 samples has another axis first"),
        (lambda self, x: self.layer(x) / (x - x), "its output for example_input is not finite"),
        (lambda self, x: self.layer(x).sum(1), r"its output of shape \(3,\).*return a tensor \(sample, units…\)"),
        (lambda self, x: self.layer(x).argmax(1), "its output has no derivative"),
        (lambda self, x: StraightThrough.apply(self.layer(x)), "another gradient of layer.weight than autograd"),
        (without_gradient, r"another gradient of layer.weight.*torch.no_grad\(\) cannot be captured"),
        (overwriting, "autograd does not differentiate it: one of the variables needed .* by an inplace operation"),
        (lambda self, x: torch.heaviside(self.layer(x), x), "derivative for aten::heaviside is not implemented"),
        (
            lambda self, x: checkpoint(self.layer, x.sin() * self.layer.bias, use_reentrant=True),
            "autograd does not differentiate it: When use_reentrant=True",
        ),
        (within_a_transform, "rewrite that part with differentiable torch functions"),
        (in_half, "its output is of torch.bfloat16, and its parameters are of torch.float32"),
        (
            lambda self, x: torch.autograd.functional.jacobian(lambda z: self.layer(z).sum(0), x).sum(0),
            "rewrite that part with differentiable torch functions|its output has no derivative",  # from PyTorch 2.8
        ),
        (lambda self, x: self.layer(x[:, :3]), r"Plain does not take example_input, here of shape \(3, 4\)"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(function: Callable, message: str) -> None:
    module = Plain(function)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        nd.capture(module, torch.linspace(-1, 1, 12).view(3, 4))
    # And the module, the random state and PyTorch are left as they were.
    assert peek_interpreter_stack() is None
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.clone, torch.Tensor.clone):
        torch.ones(1, requires_grad=True).square()
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])


def test_sparse_gradients_are_refused() -> None:
    module = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="the gradients of its Embedding are sparse; make it with sparse=False"):
        nd.capture(module, torch.zeros(2, 2, dtype=torch.int64))


def test_no_module_no_tensor_and_no_sample_are_refused() -> None:
    with pytest.raises(TypeError, match=r"capture takes an nn\.Module, not function"):
        nd.capture(F.tanh, torch.ones(2, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="example_input must be a torch tensor, not list"):
        nd.capture(nn.Linear(4, 4), [[1.0]])  # type: ignore[arg-type]
    for shape in ((4,), (0, 4)):
        with pytest.raises(ValueError, match=r"example_input must have the shape \(sample, units…\)"):
            nd.capture(nn.Linear(4, 4), torch.ones(shape))
    with pytest.raises(ValueError, match="its weight does not know its size yet; run it once"):
        nd.capture(nn.LazyLinear(4), torch.ones(2, 4))


def test_a_module_that_changed_since_its_capture_is_refused() -> None:
    language = Language().eval()
    first, *_ = captured = nd.capture(language, words(2))
    language.train()
    with pytest.raises(ValueError, match="captured in evaluation mode, and its Dropout is in training mode now"):
        first.check()
    language.eval()
    first.check()
    language.double()
    with pytest.raises(ValueError, match=r"parameters of torch\.float32 on cpu, and now has them of torch\.float64"):
        first.check()
    residual = Residual().eval()
    captured = nd.capture(residual, torch.ones(2, 3, 6, 6))
    residual.readout.train()  # which makes no difference to it
    for operation in captured:
        operation.check()


def test_an_operation_of_several_values_takes_feedback_by_one_of_them() -> None:
    add = next(operation for operation in operations("attention") if operation.arguments == 2)
    for kind in (nd.Forward, nd.Inverse, lambda stage: nd.Feedback(stage, "live")):
        with pytest.raises(ValueError, match=f"stage {add.name} .* reads 2 values, and a coupling has one source"):
            kind(add)
    with pytest.raises(ValueError, match=f"stage {add.name} .*: argument counts .* from 0 to 1, and is not 2"):
        nd.Feedback(add, argument=2)
    with pytest.raises(ValueError, match="from 0 to 0, and is not 1"):
        nd.Feedback(nn.Linear(3, 3), argument=1)
    with pytest.raises(ValueError, match=r"was captured for .* units a sample, and not for 7"):
        nd.Feedback(add, argument=1).output_shape(add.shape, (7,))


def test_a_forward_pass_takes_stages_in_the_order_of_their_sources() -> None:
    captured = operations("attention")
    with pytest.raises(ValueError, match=r"reads stage .*, which does not stand before it"):
        nd.Network("n", [nd.Population("s", (5, 6), clamp=nd.Input())], forward=captured[::-1])


def test_plasticity_of_several_values_takes_them_from_the_forward_pass() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.both = nn.Linear(4, 3), nn.Bilinear(3, 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.both(self.first(x), x)

    *_, both = nd.capture(Bilinear(), torch.ones(2, 4))
    assert len(both.sources) == 2
    nd.Plasticity(both, "a", "b")
    with pytest.raises(ValueError, match="reads 2 values, which are known at the frozen forward pass alone"):
        nd.Plasticity(both, "a", "b", presynaptic="live")
    with pytest.raises(ValueError, match="reads 2 values, which are known at the frozen forward pass alone"):
        nd.Plasticity(both, "a", "b", derivative="none")


def test_inputs_of_integers_are_read_by_the_forward_pass_alone() -> None:
    populations = [nd.Population("s", 4, clamp=nd.Input(integer=True)), nd.Population("x", 4)]
    with pytest.raises(ValueError, match="population s holds integers, which the forward pass alone reads"):
        nd.Network("n", populations, [nd.Coupling("s", "x")])
    network = nd.Network("n", populations, [nd.Coupling("x", "x", gain=0.5)])
    assert nd.equilibrium(network, words(2)).x.dtype == "float32"
    with pytest.raises(TypeError, match=r"inputs of population s must be a tensor of integers, not torch\.float32"):
        nd.equilibrium(network, torch.ones(2, 4))


def test_hooks_and_parametrizations_are_captured_with_the_rest() -> None:
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    parametrizations.weight_norm(first)
    prune.l1_unstructured(last, "weight", amount=0.5)  # which prunes by a hook
    module = nn.Sequential(first, nn.Tanh(), last)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    captured = nd.capture(module, x)
    torch.testing.assert_close(ForwardPass(captured, x).output, module(x).detach())
    assert set(module.parameters()) == {p for operation in captured for p in operation.parameters}


def test_an_example_of_one_sample_and_a_module_without_parameters_do() -> None:
    captured = nd.capture(Recurrent(), torch.ones(1, 1, 3))
    assert ForwardPass(captured, torch.ones(7, 1, 3)).output.shape == (7, 2)
    (only,) = nd.capture(nn.Softmax(dim=1), torch.ones(2, 3))
    assert only.parameters == ()
    torch.testing.assert_close(only.forward(tensor(2, 3)), F.softmax(tensor(2, 3), 1))

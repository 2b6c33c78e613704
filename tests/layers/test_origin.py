"""What is done to a module beside its layers: gradients are autograd's of the module as it is, or it is refused."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.problems import tensor

Change = Callable[[Any], object]


def build() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 2)).double()


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def patch(layer: nn.Module, name: str = "forward") -> None:
    own = type(layer).forward
    setattr(layer, name, lambda x: torch.sin(own(layer, x)))


def double(module, inputs, output):
    return 2 * output


def old_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spectral_norm(layer)


ON_A_LAYER: dict[str, Change] = {
    "nothing": lambda m: None,
    "a hook": lambda m: m[0].register_forward_hook(double),
    "a hook with keywords": lambda m: m[0].register_forward_hook(lambda m, x, k, y: 2 * y, with_kwargs=True),
    "a hook before": lambda m: m[1][0].register_forward_pre_hook(lambda m, x: 2 * x[0]),
    "a forward of its own": lambda m: patch(m[0]),
    "a call of its own": lambda m: patch(m[0], "_call_impl"),
    "another layer": lambda m: m.__setitem__(0, nn.Linear(3, 4, dtype=torch.float64)),
    "another inner layer": lambda m: m[1].__setitem__(1, nn.Linear(4, 4, dtype=torch.float64)),
    "one more layer": lambda m: m.append(nn.Tanh()),
    "one layer less": lambda m: m[1].__delitem__(0),
    "pruned": lambda m: prune.l1_unstructured(m[0], "weight", 0.5),
    "parametrized": lambda m: parametrize.register_parametrization(m[0], "weight", Twice()),
    "weight norm": lambda m: parametrizations.weight_norm(m[2]),
    "spectral norm": lambda m: (parametrizations.spectral_norm(m[0]), m.eval()),
    "spectral norm by a hook": lambda m: (old_norm(m[0]), m.eval()),
}
ON_A_CONTAINER: dict[str, Change] = {
    "a hook": lambda m: m.register_forward_hook(double),
    "a hook within": lambda m: m[1].register_forward_hook(double),
    "a hook before": lambda m: m.register_forward_pre_hook(lambda m, x: 2 * x[0]),
    "a forward of its own": lambda m: patch(m[1]),
}
BACKWARD: dict[str, Change] = {
    "a layer": lambda m: m[0].register_full_backward_hook(lambda m, i, o: None),
    "before a layer": lambda m: m[1][0].register_full_backward_pre_hook(lambda m, o: None),
    "a container": lambda m: m.register_full_backward_hook(lambda m, i, o: None),
    "before a container within": lambda m: m[1].register_full_backward_pre_hook(lambda m, o: None),
}
FOLLOWED: dict[str, Change] = {
    "another parameter": lambda m: setattr(m[0], "weight", nn.Parameter(tensor(4, 3))),
    "other values": lambda m: m[0].weight.data.mul_(2),
    "a hook on a gradient": lambda m: m[0].weight.register_hook(lambda g: 3 * g.clamp(-0.01, 0.01)),
    "compiled in place": lambda m: m.compile(backend="eager"),
}


def agree(network: nd.Network, module: nn.Module) -> None:
    x, t = tensor(5, 3), tensor(5, 2, seed=1)
    module.zero_grad()
    (0.5 * (module(x) - t).square()).sum(1).mean().backward()
    expected = [p.grad for p in module.parameters()]
    module.zero_grad()
    nd.backward(network, x, t)
    torch.testing.assert_close([p.grad for p in module.parameters()], expected, rtol=1e-9, atol=1e-9)


def refused(network: nd.Network, match: str) -> None:
    x, t = tensor(5, 3), tensor(5, 2, seed=1)
    for call in (
        lambda: nd.backward(network, x, t),
        lambda: nd.simulate(network, x, t, duration=1.0),
        lambda: nd.equilibrium(network, x, t),
        lambda: nd.train.fit(network, (x, t), epochs=1, progress=False),
    ):
        with pytest.raises(nd.NeurodynError, match=match):
            call()


@pytest.mark.parametrize("change", ON_A_LAYER.values(), ids=ON_A_LAYER)
def test_what_a_layer_had_before_the_declaration_counts(change: Change) -> None:
    module = build()
    change(module)
    agree(pc.network(module, learning="z-il"), module)


@pytest.mark.parametrize("change", [*ON_A_LAYER.values()][1:], ids=[*ON_A_LAYER][1:])
def test_what_a_layer_got_after_the_declaration_is_refused(change: Change) -> None:
    module = build()
    network = ar.network(module)
    change(module)
    refused(network, "changed after stages were made of it.*declare the network, anew")


@pytest.mark.parametrize("change", ON_A_CONTAINER.values(), ids=ON_A_CONTAINER)
def test_what_taking_a_container_apart_would_lose_is_refused(change: Change) -> None:
    module = build()
    change(module)
    for make in (nd.cut, nd.Stage, ar.network):
        with pytest.raises(nd.NeurodynError, match="Sequential has a forward hook, or a forward put in the place"):
            make(module)
    module = build()
    network = ar.network(module)
    change(module)
    refused(network, "Sequential: .* changed after stages were made of it")


@pytest.mark.parametrize("change", BACKWARD.values(), ids=BACKWARD)
def test_backward_hooks_are_refused(change: Change) -> None:
    module = build()
    network = ar.network(module)
    change(module)
    refused(network, "has a backward hook, which stages do not call")
    with pytest.raises(nd.NeurodynError, match="has a backward hook"):
        nd.cut(module)


@pytest.mark.parametrize("change", FOLLOWED.values(), ids=FOLLOWED)
def test_what_a_network_follows(change: Change) -> None:
    module = build()
    network = ar.network(module)
    change(module)
    agree(network, module)


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_backward_hook_deep_within_a_layer_is_refused() -> None:
    layer = Inside()
    layer.inner[0].register_full_backward_hook(lambda m, i, o: None)
    with pytest.raises(nd.NeurodynError, match="Linear has a backward hook"):
        nd.Stage(layer)


@pytest.mark.parametrize(
    "register",
    [
        every_module.register_module_forward_hook,
        every_module.register_module_forward_pre_hook,
        every_module.register_module_full_backward_hook,
        every_module.register_module_full_backward_pre_hook,
    ],
)
def test_hooks_of_every_module_are_refused(register) -> None:
    network = ar.network(build())
    handle = register(lambda *_: None)
    try:
        refused(network, "hook of all modules is registered")
    finally:
        handle.remove()


def test_a_forward_put_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    module, own = build(), nn.Linear.forward
    network = ar.network(module)
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: torch.sin(own(self, x)))
    refused(network, "Linear: the forward of its class changed")
    agree(ar.network(module), module)
    assert not nd.Stage(module[0]).affine


def test_a_sequential_with_another_forward_on_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: x)
    with pytest.raises(nd.NeurodynError, match="a forward put in the place of its own"):
        nd.cut(build())


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda m: torch.compile(m, backend="eager"), "torch.compile: a compiled Sequential .* give the module itself"),
        (nn.DataParallel, r"DataParallel cannot be part of a stage: .*\.module"),
    ],
)
def test_a_wrapped_module_is_refused(wrap: Callable[[nn.Module], nn.Module], match: str) -> None:
    with pytest.raises(nd.NeurodynError, match=match):
        nd.cut(wrap(build()))
    with pytest.raises(nd.NeurodynError, match="it wraps another module; give that one"):
        nd.capture(wrap(build()), tensor(2, 3))


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, old_norm])
def test_spectral_norm_in_training_mode_is_refused(norm: Callable[[nn.Module], object]) -> None:
    layer = nn.Linear(3, 3)
    norm(layer)
    with pytest.raises(nd.NeurodynError, match="spectral_norm in training mode changes the weights"):
        nd.Stage(layer)


def test_hooked_layers_claim_nothing_of_their_class() -> None:
    layers = [nn.Linear(3, 3), nn.Tanh()]
    layers[0].register_forward_hook(lambda m, x, y: torch.sin(y))
    assert not nd.Stage(layers[0]).affine
    layers[1].register_forward_hook(lambda m, x, y: y.flip(1))
    stage = nd.Stage([nn.Linear(3, 3), layers[1]])
    with pytest.raises(nd.NeurodynError, match="no derivative f'\\(h\\) of their own"):
        _ = stage.at(torch.ones(2, 3)).slope


CAPTURED: dict[str, Change] = {
    "hooks": lambda m: m.register_forward_hook(double),
    "forward": lambda m: patch(m[0]),
    "layers": lambda m: m.__setitem__(0, nn.Linear(3, 4, dtype=torch.float64)),
    "parameters": lambda m: setattr(m[0], "weight", nn.Parameter(tensor(4, 3))),
    "buffers": lambda m: setattr(m[3], "running_mean", tensor(2)),
    "settings": lambda m: setattr(m[1], "negative_slope", 0.5),
}


@pytest.mark.parametrize("what", CAPTURED)
def test_a_captured_module_must_stay_as_it_was(what: str) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2), nn.BatchNorm1d(2)).double().eval()
    network = ar.graph(module, tensor(2, 3))
    agree(network, module)
    CAPTURED[what](module)
    refused(network, f"{what}.* changed after stages were made of it")

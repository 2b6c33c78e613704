import math
from typing import Any, cast

import numpy as np
import pytest
import scipy.linalg
import torch
from common.weak_circuit import WeakCircuits
from matplotlib.contour import ContourSet
from scipy.optimize import fsolve
from torch import nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.system import own

F64 = torch.float64


def constant(name, value):
    return nd.Population(name, 1, clamp=nd.Constant(torch.tensor([value], dtype=F64)))


def cubic(p):
    """dx/dt = p + x − x³, with folds at p = ±2/√27 where x = ∓1/√3."""
    return nd.Network(
        "cubic",
        [constant("p", p), nd.Population("x", 1, leak=0.0, initial=-1.5)],
        [nd.Coupling("p", "x"), nd.Coupling("x", "x", nd.Pointwise(lambda x: x - x**3))],
    )


def fitzhugh_nagumo(current):
    """dv/dt = v − v³/3 − w + I, dw/dt = 0.08 (v + 0.7 − 0.8 w)."""
    return nd.Network(
        "FitzHugh–Nagumo",
        [
            constant("I", current),
            constant("a", 0.7),
            nd.Population("v", 1, leak=0.0, initial=-1.2),
            nd.Population("w", 1, tau=12.5, leak=0.8, initial=-0.6),
        ],
        [
            nd.Coupling("I", "v"),
            nd.Coupling("v", "v", nd.Pointwise(lambda v: v - v**3 / 3)),
            nd.Coupling("w", "v", gain=-1.0),
            nd.Coupling("v", "w"),
            nd.Coupling("a", "w"),
        ],
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


WEIGHTS = np.array([[10.0, -6.0], [7.0, -1.0]])
BIAS = np.array([-3.0, -5.0])


def wilson_cowan(drive):
    weights = nn.Linear(2, 2, dtype=F64)
    with torch.no_grad():
        weights.weight.copy_(torch.tensor(WEIGHTS))
        weights.bias.copy_(torch.tensor([BIAS[0] + drive, BIAS[1]], dtype=F64))
    populations = [nd.Population("r", 2, initial=0.05)]
    rates = nd.Forward(nn.Sequential(weights, nn.Sigmoid()))
    return nd.Network("Wilson–Cowan", populations, [nd.Coupling("r", "r", rates)])


def wilson_cowan_folds():
    """Return the drives at which det J = 0, by SciPy."""

    def conditions(unknown):
        r, drive = unknown[:2], unknown[2]
        rates = sigmoid(WEIGHTS @ r + BIAS + [drive, 0.0])
        jacobian = -np.eye(2) + (rates * (1 - rates))[:, None] * WEIGHTS
        return [*(rates - r), np.linalg.det(jacobian)]

    found = [fsolve(conditions, [e, i, p], full_output=True, xtol=1e-13) for e in (0.1, 0.3, 0.5, 0.9) for i, p in SEEN]
    good = [solution for solution, info, ok, _ in found if ok == 1 and np.abs(info["fvec"]).max() < 1e-12]
    return np.unique(np.round([solution[2] for solution in good], 9))


SEEN = [(0.05, 0.0), (0.2, 1.0), (0.5, 2.0), (0.9, 3.0)]


def test_folds_are_where_the_normal_form_has_them():
    branch = nd.analysis.continuation(cubic, -1.0, 1.0, step=0.2)
    assert branch.kind.values.tolist() == ["fold", "fold"]
    np.testing.assert_allclose(branch.parameter_at, np.array([2, -2]) / math.sqrt(27), rtol=0, atol=1e-8)
    np.testing.assert_allclose(branch.x_at.squeeze(), np.array([-1, 1]) / math.sqrt(3), rtol=0, atol=1e-6)
    x, p = branch.x.values.squeeze(), branch.parameter.values
    np.testing.assert_allclose(p + x - x**3, 0, atol=1e-10)
    np.testing.assert_allclose(branch.abscissa, 1 - 3 * x**2, atol=1e-9)
    np.testing.assert_array_equal(branch.stable, np.abs(x) > 1 / math.sqrt(3))
    assert (p[0], p[-1]) == (-1.0, pytest.approx(1.0, abs=1e-12))
    backwards = nd.analysis.continuation(cubic, 1.0, -1.0, step=0.2)
    np.testing.assert_allclose(backwards.parameter_at.sortby(backwards.parameter_at), [-2 / 27**0.5, 2 / 27**0.5])


def test_hopf_points_are_where_fitzhugh_nagumo_has_them():
    branch = nd.analysis.continuation(fitzhugh_nagumo, 0.0, 2.0, step=0.2)
    v = np.array([-1, 1]) * math.sqrt(1 - 0.08 * 0.8)  # tr J = 1 − v² − 0.064 = 0
    assert branch.kind.values.tolist() == ["hopf", "hopf"]
    np.testing.assert_allclose(branch.parameter_at, v**3 / 3 - v + (v + 0.7) / 0.8, rtol=0, atol=1e-8)
    np.testing.assert_allclose(branch.frequency_at, math.sqrt(0.08 - 0.064**2), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(branch.stable, np.abs(branch.v.squeeze()) > abs(v[0]))


def test_folds_are_where_wilson_and_cowan_have_them():
    branch = nd.analysis.continuation(wilson_cowan, -4.0, 2.0, step=0.2)
    folds = np.sort(branch.parameter_at[branch.kind == "fold"])
    expected = wilson_cowan_folds()
    expected = expected[(expected > -4) & (expected < 2)]
    assert len(folds) == len(expected) >= 2
    np.testing.assert_allclose(folds, expected, rtol=0, atol=1e-7)


def test_a_crossing_of_branches_is_no_fold():
    def transcritical(p):
        step = nd.Pointwise(lambda p, x: p * x - x**2)
        return nd.Network(
            "transcritical", [constant("p", p), nd.Population("x", 1, leak=0.0)], [nd.Coupling(("p", "x"), "x", step)]
        )

    branch = nd.analysis.continuation(transcritical, -1.0, 0.7, step=0.15)
    assert branch.kind.values.tolist() == ["branch"]
    assert float(branch.parameter_at[0]) == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_allclose(branch.x, 0, atol=1e-12)


def test_a_step_does_not_lead_to_another_branch_nearby():
    def imperfect(p):  # x p + 0.003 = x³: the branch from p = −1 stays stable, and passes close to that of a fold
        step = nd.Pointwise(lambda p, x: 0.003 + p * x - x**3)
        populations = [constant("p", p), nd.Population("x", 1, leak=0.0)]
        return nd.Network("imperfect", populations, [nd.Coupling(("p", "x"), "x", step)])

    branch = nd.analysis.continuation(imperfect, -1.0, 1.0, step=0.2)
    assert bool(branch.stable.all())
    assert branch.sizes["point"] == 0
    assert float(branch.x[-1].item()) == pytest.approx(np.roots([-1, 0, 1, 0.003]).real.max(), abs=1e-9)
    with pytest.warns(RuntimeWarning, match=r"the stability changes at a parameter of -0\.\d+ to 0\.\d+, and no point"):
        nd.analysis.continuation(imperfect, -1.0, 1.0, step=0.3)  # which is too long to tell the two apart


def test_all_eigenvalues_that_cross_within_one_step_are_located():
    weights = nn.Linear(7, 7, bias=False, dtype=F64)
    matrix = scipy.linalg.block_diag(1.25, 1.2, 1.2, [[1.1, 1], [-1, 1.1]], [[1.15, 2], [-2, 1.15]])
    with torch.no_grad():
        weights.weight.copy_(torch.from_numpy(matrix))

    def declare(gain):  # near x = 0, J = −1 + gain W
        rates = nd.Forward(nn.Sequential(nn.Tanh(), weights))
        return nd.Network("crossings", [nd.Population("x", 7)], [nd.Coupling("x", "x", rates, gain=gain)])

    branch = nd.analysis.continuation(declare, 0.7, 1.0, initial={"x": torch.zeros(7, dtype=F64)}, step=0.4)
    assert branch.kind.values.tolist() == ["branch", "branch", "hopf", "hopf"]
    np.testing.assert_allclose(branch.parameter_at, 1 / np.array([1.25, 1.2, 1.15, 1.1]), rtol=0, atol=1e-8)
    np.testing.assert_allclose(branch.frequency_at, [0, 0, 2 / 1.15, 1 / 1.1], rtol=0, atol=1e-7)


def test_a_crossing_is_located_where_the_jacobian_is_singular_but_for_rounding():
    def declare(p):  # whose equilibrium is found at an x far below the rounding of others, but not at 0
        sine, tanh = nd.Pointwise(torch.sin), nd.Pointwise(torch.tanh)
        populations = [
            nd.Population("x", 1, leak=torch.tensor([0.847], dtype=F64), initial=0.5),
            *(nd.Population(name, 1) for name in "yz"),
        ]
        couplings = [
            nd.Coupling("x", "x", sine, gain=torch.tensor([2.304 * p], dtype=F64)),
            nd.Coupling("x", "y", tanh, gain=-0.272 * p),
            nd.Coupling("y", "y", tanh, gain=-1.266 * p),
            nd.Coupling(("z", "y"), "z", nd.Pointwise(lambda z, y: torch.tanh(z + y)), gain=-0.284 * p),
        ]
        return nd.Network("chain", populations, couplings)

    branch = nd.analysis.continuation(declare, 0.3, 0.5)
    assert branch.kind.values.tolist() == ["branch"]
    assert float(branch.parameter_at[0]) == pytest.approx(0.847 / 2.304, abs=1e-8)


def random_rates(units, gain, *, seed=0, dtype=F64):
    torch.manual_seed(seed)
    weights = nn.Linear(units, units, bias=False, dtype=dtype)
    nn.init.normal_(weights.weight, std=1 / units**0.5)
    coupling = nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), weights)), gain=gain)
    return nd.Network("random", [nd.Population("x", units)], [coupling]), weights.weight.detach().double().numpy()


def test_large_networks_are_followed_by_products_with_the_jacobian(monkeypatch):
    units = 60
    monkeypatch.setattr("neurodyn.analysis.linearised.DENSE", 50)
    _, weights = random_rates(units, 1.0)
    rightmost = np.linalg.eigvals(weights)
    rightmost = rightmost[rightmost.real.argmax()]

    def declare(gain):
        return random_rates(units, gain)[0]

    branch = nd.analysis.continuation(declare, 0.8, 1.2, initial={"x": torch.zeros(units, dtype=F64)}, step=0.4)
    assert float(branch.parameter_at[0]) == pytest.approx(1 / rightmost.real, abs=1e-6)  # where −1 + gain λ crosses 0
    assert branch.kind.values[0] == ("hopf" if rightmost.imag else "branch")
    assert float(branch.eigenvalue_residual.max()) < 1e-6
    found = nd.analysis.stability(declare(0.8), at={"x": torch.zeros(units, dtype=F64)})
    values = -1 + 0.8 * np.linalg.eigvals(weights)
    assert float(found.abscissa[0]) == pytest.approx(values.real.max(), abs=1e-9)
    assert float(found.euler_step[0]) == pytest.approx((-2 * values.real / np.abs(values) ** 2).min(), rel=1e-6)
    assert found.sizes["mode"] == 6


@pytest.mark.parametrize("seed", [0, 1])
def test_the_jacobian_is_that_of_differences_of_every_map(seed):
    torch.manual_seed(seed)
    module = nd.mlp([3, 3, 3], dtype=F64)
    tower = tp.tower([3, 3, 3], seed=0, dtype=F64)
    x, t = torch.randn(2, 3, dtype=F64), torch.rand(2, 3, dtype=F64)
    for network in (
        pc.network(module),
        ar.network(module, relaxation_derivative="live"),
        tp.network(tower, rule="gait", gamma=0.1),
        tp.weak_feedback(tower, rule="gait", gamma=0.1),
    ):
        system = nd.System(network, x, t)
        at = {name: torch.randn(2, *system.shapes[name], dtype=F64) for name in system.dynamic}
        if not at:
            continue
        found = nd.analysis.jacobian(network, x, t, at=at).jacobian
        system = nd.System(network, x, t, initial=at)
        state, up, down = system.initial_state(), system.new_state(), system.new_state()
        column = 0
        for name in system.dynamic:
            for unit in range(system.shapes[name][0]):
                h = 1e-6
                with torch.no_grad():
                    state.activity[name][:, unit] += h
                    system.field(state, up)
                    state.activity[name][:, unit] -= 2 * h
                    system.field(state, down)
                    state.activity[name][:, unit] += h
                for row, to in enumerate(system.dynamic):
                    wanted = (up.activity[to] - down.activity[to]) / (2 * h)
                    got = found.isel(source=column, target=slice(3 * row, 3 * row + 3))
                    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)
                assert (found.source_population[column], found.source_unit[column]) == (name, unit)
                column += 1


def test_one_way_back_finds_the_jacobians_of_all_samples_and_units():
    back: list[torch.Tensor] = []

    def squared(x):
        if x.requires_grad:
            x.register_hook(back.append)
        return x**2

    network = nd.Network("squares", [nd.Population("x", 20)], [nd.Coupling("x", "x", nd.Pointwise(squared), gain=0.5)])
    at = {"x": torch.rand(3, 20, dtype=F64)}
    found = nd.analysis.jacobian(network, at=at).jacobian
    np.testing.assert_allclose(found, [np.diag(x - 1) for x in at["x"]])
    assert len(back) == 1
    assert (nd.analysis.stability(network, at={"x": torch.zeros(3, 20)}).abscissa == -1).all()
    assert len(back) == 2


class _InNumPy(torch.autograd.Function):
    """x², whose way back is none for several rows at once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, v):
        return torch.from_numpy(2 * ctx.saved_tensors[0].numpy() * v.numpy())


def test_the_jacobian_is_found_where_a_way_back_takes_one_row_at_a_time():
    at = {"x": torch.rand(2, 3, dtype=F64)}
    own = nd.Pointwise(_InNumPy.apply)
    network = nd.Network("squares", [nd.Population("x", 3)], [nd.Coupling("x", "x", own, gain=0.5)])
    found = nd.analysis.jacobian(network, at=at).jacobian
    np.testing.assert_allclose(found, [np.diag(x - 1) for x in at["x"]])


def test_stability_at_an_equilibrium():
    """The weak-feedback circuit of linear units has the abscissa −1 + 2 √(γ(1 − γ)) cos(π/(L + 1))."""
    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Linear(4, 4, bias=False, dtype=F64) for _ in range(3)])
    for weight in module.parameters():
        nn.init.orthogonal_(weight)
    gamma = 0.1
    network = tp.weak_feedback(module, rule="itp", gamma=gamma)
    x, t = torch.randn(2, 4, dtype=F64), torch.randn(2, 4, dtype=F64)
    found = nd.analysis.stability(network, x, t)
    rate = 2 * math.sqrt(gamma * (1 - gamma)) * math.cos(math.pi / 4)
    np.testing.assert_allclose(found.abscissa, -1 + rate, atol=1e-9)
    np.testing.assert_allclose(found.euler_step, 2 / (1 + rate), rtol=1e-9)
    assert bool(found.stable.all())
    few = nd.analysis.stability(network, x, t, count=2, at=nd.equilibrium(network, x, t))
    assert few.sizes == {"sample": 2, "mode": 2}


@pytest.mark.parametrize("rule", ["itp", "gait"])
def test_stability_is_that_of_a_jacobian_written_by_hand(rule):
    torch.manual_seed(0)
    tower, gamma = tp.tower([4, 4, 4, 4], seed=0, dtype=F64), 0.05
    x, t = torch.randn(3, 4, dtype=F64), torch.rand(3, 4, dtype=F64)
    weights = torch.stack([part.detach() for part in tower.parameters() if part.ndim == 2]).expand(3, -1, -1, -1)
    by_hand = WeakCircuits.of(weights, x, t, torch.full((3,), 0.1, dtype=F64), gait=rule == "gait")
    rest = by_hand.equilibrium(by_hand.start(), gamma, follow=False)
    known = rest.isfinite().all(1).numpy()  # Newton's method, from the forward pass, may find none
    assert known.any()
    found = nd.analysis.stability(tp.weak_feedback(tower, rule=rule, gamma=gamma), x, t)
    np.testing.assert_allclose(found.abscissa[known], by_hand.abscissa(rest, gamma)[known], atol=1e-7)


def test_stability_where_units_rest_at_their_kinks_is_that_of_the_others():
    module = nd.mlp([4, 5, 4, 3], activation="relu", seed=1).double()
    first, second, third = (layer.weight.detach().numpy() for layer in module if isinstance(layer, nn.Linear))
    generator = np.random.default_rng(1)
    inputs, targets = generator.standard_normal((6, 4)), generator.standard_normal((6, 3))
    network = pc.network(module, steps="equilibrium")
    at_rest = nd.equilibrium(network, torch.tensor(inputs), torch.tensor(targets))
    found = nd.analysis.stability(network, torch.tensor(inputs), torch.tensor(targets), at=at_rest)
    held = 0
    for sample in range(6):
        x1, x2 = at_rest.x1.values[sample], at_rest.x2.values[sample]
        e1, e2 = x1 - first @ inputs[sample], x2 - second @ x1.clip(0)  # the biases are 0
        e3 = targets[sample] - third @ x2.clip(0)
        below, jump = np.concatenate([-e1, -e2]), np.concatenate([second.T @ e2, third.T @ e3])
        rests = (np.concatenate([x1, x2]) == 0) & (below > 0) & (below + jump < 0)
        held += rests.sum()
        d1, d2 = np.diag(x1 > 0.0), np.diag(x2 > 0.0)
        whole = np.block(
            [
                [-np.eye(5) - d1 @ second.T @ second @ d1, d1 @ second.T],
                [second @ d1, -np.eye(4) - d2 @ third.T @ third @ d2],
            ]
        )
        expected = np.linalg.eigvalsh(whole[~rests][:, ~rests]).max()
        assert found.abscissa.values[sample] == pytest.approx(expected, rel=1e-6)
    assert held > 0


def test_a_layer_that_rests_at_its_kink_untouched_is_not_stable():
    """All of a hidden layer is inactive, so that nothing drives the next, which would be led away from above 0."""
    module = nd.mlp([2, 2, 2, 1], activation="relu", seed=0).double()
    first, _, last = (parameter.detach() for parameter in module.parameters() if parameter.ndim == 2)
    inputs = torch.linalg.solve(first, torch.tensor([-1.0, -2.0], dtype=F64))[None]
    target = torch.sign(last.amax(1, keepdim=True))  # which draws up the unit of the largest weight
    network = pc.network(module, steps="equilibrium")
    with pytest.warns(RuntimeWarning, match="unstable equilibrium in 1 of 1"):
        at_rest = nd.equilibrium(network, inputs, target)
    assert (at_rest.x2 == 0).all()
    with pytest.raises(ValueError, match=r"in sample 0 a unit rests at 0, and dx/dt jumps there"):
        nd.analysis.stability(network, inputs, target, at=at_rest)


def test_units_that_share_a_maximum_have_no_stability():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)]
    network = pc.network(nn.Sequential(*layers).double(), steps="equilibrium")
    inputs, targets = torch.randn(6, 1, 4, 4, dtype=F64), 2 * torch.randn(6, 3, dtype=F64)
    at_rest = nd.equilibrium(network, inputs, targets)
    assert at_rest.converged
    with pytest.raises(ValueError, match="no Jacobian where units of max pooling rest side by side"):
        nd.analysis.stability(network, inputs, targets, at=at_rest)


def test_the_stable_euler_step_is_where_euler_turns_unstable():
    network = fitzhugh_nagumo(0.2)
    branch = nd.analysis.continuation(fitzhugh_nagumo, 0.0, 0.2, step=0.2)
    at = {name: torch.tensor(branch[name].values[-1]) for name in "vw"}
    step = float(nd.analysis.stability(network, at=at).euler_step[0])
    near = {name: value + 1e-6 for name, value in at.items()}
    for share, grows in ((0.9, False), (1.1, True)):
        run = nd.simulate(
            network, None, duration=60 * step, solver=nd.Euler(share * step), initial=near, save_at=[60 * step]
        )
        assert (abs(float(run.v[-1, 0, 0]) - float(at["v"])) > 1e-5) == grows


LORENZ = nd.Network(
    "Lorenz",
    [
        nd.Population("x", 1, tau=0.1, initial=1.0),
        nd.Population("y", 1, initial=1.0),
        nd.Population("z", 1, leak=8 / 3, initial=20.0),
    ],
    [
        nd.Coupling("y", "x"),
        nd.Coupling(("x", "z"), "y", nd.Pointwise(lambda x, z: x * (28 - z))),
        nd.Coupling(("x", "y"), "z", nd.Pointwise(lambda x, y: x * y)),
    ],
)


def test_lyapunov_exponents_of_lorenz():
    start = {name: torch.tensor([[value]], dtype=F64) for name, value in {"x": 1.0, "y": 1.0, "z": 20.0}.items()}
    settings: dict[str, Any] = {"solver": nd.RK4(0.01), "initial": start, "transient": 10.0, "interval": 0.5}
    found = nd.analysis.lyapunov(LORENZ, duration=60.0, count=3, **settings).exponent.values[0]
    assert found.sum() == pytest.approx(-(10 + 1 + 8 / 3), abs=2e-2)  # the divergence
    assert found[0] == pytest.approx(0.9056, abs=0.25)  # J. C. Sprott, Chaos and Time-Series Analysis (2003)
    assert found[1] == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_lyapunov_exponents_of_a_linear_network_are_its_growth_rates(dtype):
    rotation = nn.Linear(3, 3, bias=False, dtype=dtype)
    with torch.no_grad():
        rotation.weight.copy_(torch.tensor([[0.3, 1.0, 0.0], [-1.0, 0.3, 0.0], [0.0, 0.0, -0.4]]))
    network = nd.Network("linear", [nd.Population("x", 3, leak=0.5)], [nd.Coupling("x", "x", nd.Forward(rotation))])
    at = {"x": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)}
    found = nd.analysis.lyapunov(network, duration=20.0, transient=30.0, count=3, initial=at)
    tolerance = 1e-6 if dtype == F64 else 5e-3
    np.testing.assert_allclose(found.exponent, [[-0.2, -0.2, -0.9]] * 2, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.running.isel(time=-1), found.exponent)


def test_curvature_does_not_count_in_float32_where_activity_is_small():
    """dx/dt = x (1 − x/a) has the flow φ(x) = x e^t / (1 + (x/a) (e^t − 1)), and its exponent is log(φ') / t."""
    a, x, t = 0.02, 0.002, 5.0
    grow = nd.Pointwise(lambda x: x * (1 - x / a))
    network = nd.Network("logistic", [nd.Population("x", 1, leak=0.0, initial=x)], [nd.Coupling("x", "x", grow)])
    found = nd.analysis.lyapunov(network, duration=t).exponent.item()
    assert found == pytest.approx((t - 2 * np.log1p(x / a * np.expm1(t))) / t, abs=2e-3)


def test_lyapunov_exponents_under_a_signal():
    """dx/dt = −a(t) x has the exponent −mean(a)."""
    gate = nd.Pointwise(lambda a, x: -a * x)
    network = nd.Network(
        "gated",
        [nd.Population("a", 1, clamp=nd.Input()), nd.Population("x", 1, leak=0.0, initial=1.0)],
        [nd.Coupling(("a", "x"), "x", gate)],
    )
    signal = nd.Signal([0.0, 1.0, 3.0, 4.0], torch.tensor([1.0, 0.2, 0.5, 0.5], dtype=F64), interpolation="previous")
    found = nd.analysis.lyapunov(network, signal, duration=4.0, interval=0.5)
    assert float(found.exponent[0, 0]) == pytest.approx(-(1.0 + 0.4 + 0.5) / 4, abs=1e-7)
    rates = torch.tensor([[[1.0], [2.0]], [[0.2], [0.1]], [[0.5], [0.5]], [[0.5], [0.5]]], dtype=F64)
    own = nd.Signal([0.0, 1.0, 3.0, 4.0], rates, interpolation="previous")  # of each of two samples
    found = nd.analysis.lyapunov(network, own, duration=4.0, interval=0.5)
    np.testing.assert_allclose(found.exponent[:, 0], [-1.9 / 4, -2.7 / 4], atol=1e-7)
    found = nd.analysis.lyapunov(network, lambda t: torch.tensor([[0.5 * t], [1.0]], dtype=F64), duration=4.0)
    np.testing.assert_allclose(found.exponent[:, 0], [-1.0, -1.0], atol=1e-7)


def test_nullclines_cross_at_the_equilibrium():
    ax = plot.phase_plane(fitzhugh_nagumo(0.5), "v", "w", (-2.5, 2.5), (-1.0, 2.0), points=21)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("v", "w")
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["dv/dt = 0", "dw/dt = 0"]
    lines = [c for c in ax.collections if isinstance(c, ContourSet)]
    v, w = np.asarray(lines[1].get_paths()[0].vertices).T
    np.testing.assert_allclose(w, (v + 0.7) / 0.8, atol=1e-6)
    v, w = np.asarray(lines[0].get_paths()[0].vertices).T
    np.testing.assert_allclose(w, v - v**3 / 3 + 0.5, atol=0.05)
    wilson = plot.phase_plane(wilson_cowan(0.0), ("r", 0), ("r", 1), (0, 1), (0, 1), points=5, ax=ax)
    assert wilson is ax


def agreeing(p: float) -> nd.Network:
    """dx/dt = −x + tanh(b), with a = p + x + b/2 and b = tanh(a)."""
    tanh = nd.Forward(nn.Tanh())
    populations = [constant("p", p), nd.Population("x", 1, initial=-3.0)]
    populations += [nd.Population("a", 1, tau=0.0), nd.Population("b", 1, tau=0.0)]
    couplings = [nd.Coupling("p", "a"), nd.Coupling("x", "a"), nd.Coupling("b", "a", gain=0.5)]
    couplings += [nd.Coupling("a", "b", tanh), nd.Coupling("b", "x", gain=1.5)]
    return nd.Network("agreeing", populations, couplings, algebraic="solve")


def test_cycles_that_are_solved_for_are_differentiated_through():
    """With b = tanh(p + x + b/2), dx/dt = −x + 1.5 b has the slope −1 + 1.5 s / (1 − s/2), s = 1 − b²."""
    found = nd.analysis.stability(agreeing(-0.3))
    x = nd.equilibrium(agreeing(-0.3), None).x.item()
    b = x / 1.5
    s = 1 - b**2
    assert math.isclose(b, math.tanh(-0.3 + x + b / 2), abs_tol=1e-7)
    assert math.isclose(found.growth.item(), -1 + 1.5 * s / (1 - s / 2), rel_tol=1e-6)
    branch = nd.analysis.continuation(agreeing, -0.6, 0.6, step=0.2)
    s = 1 / 2.0  # where the slope is 0
    b = math.sqrt(1 - s)
    fold = math.atanh(b) - 2.0 * b  # p = atanh(b) − x − b/2
    assert branch.kind.values.tolist() == ["fold", "fold"]
    np.testing.assert_allclose(branch.parameter_at, [-fold, fold], atol=1e-7)
    np.testing.assert_allclose(branch.x_at.values.ravel(), [-1.5 * b, 1.5 * b], atol=1e-6)


def test_a_branch_ends_by_an_error_where_a_cycle_gets_several_solutions():
    """Of z = p tanh(z), 0 is the one solution up to p = 1."""

    def declare(p: float) -> nd.Network:
        populations = [nd.Population("z", 1, tau=0.0), nd.Population("x", 1)]
        couplings = [nd.Coupling("z", "z", nd.Forward(nn.Tanh()), gain=p), nd.Coupling("z", "x")]
        return nd.Network("pitchfork", populations, couplings, algebraic="solve")

    branch = nd.analysis.continuation(declare, 0.5, 0.9)
    np.testing.assert_allclose(branch.abscissa, -1.0)
    with pytest.raises(ValueError, match="z has several solutions"):
        nd.analysis.continuation(declare, 0.5, 1.5)


def test_a_scan_looks_at_a_map_of_ones_own_once(monkeypatch):
    looked, look = [], own._look_at_map

    def count(*given):
        looked.append(given[0])
        look(*given)

    monkeypatch.setattr(own, "_look_at_map", count)
    nd.analysis.continuation(cubic, -1.0, 0.0)
    assert len(looked) == 1


number: Any = float


def noisy():
    return nd.Network("noisy", [nd.Population("x", 2, noise=0.1)])


def driven():
    populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2)]
    return nd.Network("driven", populations, [nd.Coupling("u", "x")])


def test_what_does_not_fit_is_refused_by_name():
    signal = nd.Signal([0.0, 10.0], torch.rand(2, 2))
    two = torch.zeros(2, 2)
    analysis, zeros = nd.analysis, {"x": torch.zeros(2)}
    still = nd.Network("still", [nd.Population("i", 2, tau=0.0)])
    for call, message in [
        (lambda: analysis.jacobian(noisy()), r"population x has noise, and a Jacobian takes none"),
        (lambda: analysis.jacobian(driven(), signal), r"inputs of population u vary in time, and a Jacobian"),
        (lambda: analysis.jacobian(cast(Any, [still])), r"network: one Network, not several"),
        (lambda: analysis.jacobian(still), r"'still' has no dynamic population"),
        (lambda: analysis.stability(noisy()), r"has noise, and the stability of an equilibrium takes none"),
        (lambda: analysis.stability(driven(), two + 1.0, at=zeros), r"at: it is no equilibrium, max \|τ dx/dt\| is 1"),
        (lambda: analysis.stability(driven(), two, count=3), r"count: there are 2 eigenvalues, and 3"),
        (lambda: analysis.stability(driven(), two, at={"y": torch.zeros(2)}), r"y"),
        (lambda: analysis.continuation(noisy(), 0.0, 1.0), r"declare must be a function of the parameter"),
        (lambda: analysis.continuation(number, 0.0, 1.0), r"network must be a Network, not float"),
        (lambda: analysis.continuation(lambda p: noisy(), 0.0, 1.0), r"has noise, and a continuation takes none"),
        (lambda: analysis.continuation(lambda p: driven(), 0.0, 1.0, two), r"takes one sample, and there are 2"),
        (lambda: analysis.continuation(cubic, 1.0, 1.0), r"stop: the parameter goes from 1 to another value"),
        (lambda: analysis.continuation(cubic, 0.0, 1.0, step=0.0), r"step must be positive"),
        (lambda: analysis.stability([noisy()]), r"one Network, not several"),  # type: ignore[arg-type]
        (lambda: analysis.lyapunov(noisy(), duration=1.0), r"population x has noise, and Lyapunov exponents"),
        (lambda: analysis.lyapunov(driven(), two, duration=1.0, count=3), r"count: a sample has 2 dynamic units"),
        (lambda: analysis.lyapunov(driven(), two, duration=1.0, interval=0.3), r"interval: duration and transient"),
        (lambda: analysis.lyapunov(driven(), signal, duration=20.0), r"the signal is given from 0 to 10"),
        (lambda: analysis.lyapunov(driven(), two, duration=100.0, interval=50.0), r"interval: within 50, deviations"),
        (lambda: plot.phase_plane(driven(), "x", "y", (0, 1), (0, 1), two[:1]), r"population x has 2 units; name one"),
        (lambda: plot.phase_plane(driven(), ("x", 0), "y", (0, 1), (0, 1), two[:1]), r"no dynamic population 'y'"),
        (lambda: plot.phase_plane(driven(), ("x", 0), ("x", 0), (0, 1), (0, 1), two[:1]), r"is the unit .* again"),
        (lambda: plot.phase_plane(driven(), ("x", 0), ("x", 2), (0, 1), (0, 1), two[:1]), r"no unit 2"),
        (lambda: plot.phase_plane(driven(), ("x", 0), ("x", 1), (1, 0), (0, 1), two[:1]), r"x_span: from a smaller"),
        (
            lambda: plot.phase_plane(driven(), ("x", 0), ("x", 1), (0, 1), (0, 1), two),
            r"phase plane is of one sample",
        ),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    nowhere = nd.Network("nowhere", [constant("p", 1.0), nd.Population("x", 1, leak=0.0)], [nd.Coupling("p", "x")])
    with pytest.raises(ValueError, match=r"start: Newton's method finds no equilibrium at 0"):
        analysis.continuation(lambda p: nowhere, 0.0, 1.0, initial={"x": torch.zeros(1, dtype=F64)})
    with pytest.warns(RuntimeWarning, match=r"after 3 points the parameter is .*, and the branch goes on"):
        analysis.continuation(cubic, -1.0, 1.0, most=3)

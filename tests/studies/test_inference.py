"""The study of inference, at toy size: what theory says of its steps, its flow, and errors that lag."""

import inference as study
import matplotlib
import numpy as np
import pytest
import torch
import tyro
from common.claims import read_rows
from common.linearised import linearise

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("inference")
    small = {"GAMMAS": (0.1, 1.0, 10.0), "SAMPLES": 2, "STEPS": 200, "AROUND": 27, "ASIDE": (2, 2)}
    small |= {"FLOW_TIME": 2.0, "LAG_SAMPLES": 2, "LAG_TIME": 5.0}
    small["PRECISE"] = nd.Adaptive("dopri5", rtol=1e-8, atol=1e-10)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(study, name, value)
        arguments = ["--hidden", "1", "2", "--width", "6", "--epochs", "1", "--samples", "40", "--seeds", "1"]
        study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    figures = {f"inference{part}{kind}" for part in ("", "_continuous") for kind in (".png", ".pdf")}
    data = {"energy.nc", "stability.nc", "flow.nc", "lag.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == figures | data
    assert nd.load(results / "stability.nc").attrs["dataset"] == "digits"


def test_its_rows_are_what_the_theory_says(results):
    found = read_rows(results)
    assert found is not None
    assert [row["verdict"] for row in found["rows"]] == ["agrees"] * 3


def test_euler_ceases_to_settle_at_the_bound(results):
    stability = nd.load(results / "stability.nc")
    np.testing.assert_allclose(stability.measured, stability.bound, rtol=0.03)


def test_the_euler_iterates_sample_the_flow_to_first_order(results):
    distance = nd.load(results / "flow.nc").distance
    assert float(distance.sel(step=0.01) / distance.sel(step=0.005)) == pytest.approx(2, rel=0.1)


def test_a_disturbance_grows_at_the_rate_of_its_eigenvalue(results):
    lags = nd.load(results / "lag.nc")
    found = np.isfinite(lags.followed)
    assert bool(found.any())
    np.testing.assert_allclose(lags.measured.where(found), lags.predicted.where(found), rtol=0.2, atol=5e-3)
    assert bool((np.sign(lags.predicted) == [-1, -1, 1, 1]).where(found, True).all())


def test_a_linear_network_settles_with_any_lag():
    # λ(1 + τ_ε λ) = −σ² for each singular value σ of ∂ε/∂x.
    module = nd.mlp([5, 4, 3, 2], activation="linear", seed=1, dtype=torch.float64)
    inputs, targets = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    linear = linearise(pc.network(module), inputs, targets)
    torch.testing.assert_close(linear.curvature, torch.zeros_like(linear.curvature), atol=1e-12, rtol=0)
    lag = torch.tensor(3.0, dtype=torch.float64)
    roots = torch.linalg.eigvals(linear.jacobian(lag))
    sigma = torch.linalg.svdvals(linear.slope).to(torch.complex128)
    expected = torch.cat([(-1 + sign * (1 - 4 * lag * sigma**2).sqrt()) / (2 * lag) for sign in (1, -1)], 1)
    gaps = (roots[:, :, None] - expected[:, None, :]).abs().amin(1)
    torch.testing.assert_close(gaps, torch.zeros_like(gaps), atol=1e-9, rtol=0)
    assert float(roots.real.max()) < 0
    growth = torch.stack([torch.linalg.eigvals(linear.jacobian(tau)).real.amax(1) for tau in study.TAUS])
    assert bool(linear.critical_tau(study.TAUS, growth).isinf().all())


def test_the_linearisation_is_that_of_the_declared_network():
    problem = study.Problem.draw(study.Options(width=5), 2, learned=False)
    inputs, targets = problem.inputs[:1], problem.targets[:1]
    linear = linearise(pc.network(problem.module), inputs, targets)
    rest = torch.cat([linear.values[0], linear.errors[0]])
    sizes = [5, 5, 5, 5, 10]
    names = ["x1", "x2", "e1", "e2", "e3"]
    network = pc.network(problem.module, error_tau=2.0)

    def velocity(flat):
        initial = dict(zip(names, flat[None].split(sizes, 1), strict=True))
        system = nd.System(network, inputs, targets, initial=initial)
        state, slope = system.initial_state(), system.new_state()
        system.field(state, slope)
        return torch.cat([slope.activity[name][0] for name in names])

    step = 1e-6
    columns = [(velocity(rest + step * e) - velocity(rest - step * e)) / (2 * step) for e in torch.eye(30).double()]
    tau = torch.tensor(2.0, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(columns, 1), linear.jacobian(tau)[0], atol=1e-8, rtol=0)

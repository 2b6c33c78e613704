"""The study of the circuit with weak feedback, at toy size."""

import matplotlib
import numpy as np
import pytest
import torch
import tyro
import weak_feedback as study
from common.weak_circuit import conditioned, continued

import neurodyn as nd
from neurodyn.models import target_propagation as tp

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("weak_feedback")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "GAMMAS", (1e-6, 1e-3, 1e-2, 0.1, 0.5))
        patch.setattr(study, "RELAXED", 1)
        patch.setattr(study, "DURATION", 15.0)
        patch.setattr(study, "TIMES", np.linspace(0.0, 15.0, 31))
        patch.setattr(study, "LATER", (15.0,))
        patch.setattr(study, "AXES", {name: (label, values[:2]) for name, (label, values) in study.AXES.items()})
        patch.setattr(study, "PHASES", (0.1,))
        arguments = ["--width", "4", "--layers", "3", "--samples", "2", "--seeds", "0", "--out", str(out)]
        study.main(tyro.cli(study.Options, args=arguments))
    return out


def test_it_writes_what_it_promises(results):
    figures = {f"weak_feedback{name}.{kind}" for name in ("", "_phases") for kind in ("png", "pdf")}
    assert {path.name for path in results.iterdir()} == figures | {"weak_feedback.nc", "phases.nc", "rows.json"}


def test_the_equilibrium_carries_the_targets_up_to_gamma(results):
    found = nd.load(results / "weak_feedback.nc").isel(seed=0)
    distance = found.distance.sel(rule="itp").max("layer")
    for gamma in (1e-6, 1e-3):
        assert float(distance.sel(gamma=gamma).max()) < 3 * gamma
    np.testing.assert_allclose(distance.sel(gamma=1e-3), 1e3 * distance.sel(gamma=1e-6), rtol=0.05)


def test_the_abscissa_of_itp_is_that_of_a_chain_whatever_the_weights(results):
    found = nd.load(results / "weak_feedback.nc").sel(rule="itp", gamma=[1e-2, 0.1, 0.5])
    start = found.abscissa_at_start.transpose(..., "gamma")
    np.testing.assert_allclose(start, np.broadcast_to(found.expected, start.shape), atol=1e-3)


def test_the_circuit_relaxes_to_its_equilibrium(results):
    found = nd.load(results / "weak_feedback.nc").sel(gamma=[1e-6, 1e-3])
    assert float(found.remaining.isel(time=-1).max()) < study.SETTLED < float(found.remaining.isel(time=0).min())
    assert float(found.relaxation_time.min()) > 1


@pytest.mark.parametrize("rule", ["itp", "gait"])
def test_the_study_s_own_algebra_is_that_of_the_declared_circuit(rule):
    options = study.Options(width=3, layers=3, samples=2, seeds=(0,))
    case, gamma = study.Case.draw(options, "xavier", 0), 0.3
    circuits = study.build(case.weights[None], case.inputs, case.targets, study.SLOPE, gait=rule == "gait")
    activity = torch.randn(2, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = tp.weak_feedback(case.module, rule=rule, gamma=gamma)
    carried = [p.name for p in network.populations if p.tau > 0 and p.clamp is None]
    initial = {name: -part for name, part in zip(carried, activity.split(3, 1), strict=True)}
    system = nd.System(network, case.inputs, case.targets, initial=initial)
    out = system.new_state()
    system.field(system.initial_state(), out)
    expected = -torch.cat([out.activity[name] for name in carried], 1)
    rate, jacobian = circuits.field(activity, gamma)
    torch.testing.assert_close(rate, expected, rtol=1e-9, atol=1e-9)
    for row in range(2):
        exact = torch.autograd.functional.jacobian(
            lambda u, row=row: circuits.field(u[None].expand(2, -1), gamma)[0][row], activity[row]
        )
        torch.testing.assert_close(jacobian[row], exact)


def test_an_equilibrium_that_takes_long_is_stable_all_the_same():
    options = study.Options(width=4, layers=4, samples=2, seeds=(0, 1))
    cases = [study.Case.draw(options, "orthogonal", seed) for seed in options.seeds]
    inputs, targets = (torch.cat([getattr(case, part) for case in cases]) for part in ("inputs", "targets"))
    circuits = study.build(torch.stack([case.weights for case in cases]), inputs, targets, study.SLOPE, gait=True)
    found, growth = continued(circuits, (0.1, 0.3, 0.5))
    assert float(growth.max()) < 0
    rate, _ = circuits.field(found[-1], 0.5)
    assert float(rate.abs().max()) < 1e-8


def test_the_weights_have_the_condition_that_is_asked_for():
    weights = conditioned(5, 2, 30.0, seed=0)
    torch.testing.assert_close(torch.linalg.cond(weights), torch.full((2,), 30.0, dtype=torch.float64))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="layers must be an integer ≥ 2, not 1"):
        study.Options(layers=1)

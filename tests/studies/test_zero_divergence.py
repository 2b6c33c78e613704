"""The study of zero divergence, at toy size: its files, what they say, and that its checks can say no."""

import matplotlib
import numpy as np
import pytest
import tyro
import zero_divergence as study

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("zero_divergence")
    arguments = ["--hidden", "1", "2", "--width", "6", "--epochs", "1", "--samples", "80", "--seeds", "1", "2"]
    study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    names = {"zero_divergence.png", "zero_divergence.pdf", "noise.nc", "properties.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == names


def test_divergence_is_zero_without_noise_only_and_grows_with_it(results):
    weights = nd.load(results / "noise.nc").weights
    assert float(weights.sel(sigma=0.0).max()) < 1e-12
    assert float(weights.isel(sigma=1).min()) > 1e-8
    small = weights.sel(sigma=[1e-4, 1e-3])
    np.testing.assert_allclose(small.isel(sigma=1) / small.isel(sigma=0), 10, rtol=0.05)


def test_the_rules_have_the_properties_of_table_2(results):
    measured = nd.load(results / "properties.nc")
    off = measured.update_distance
    assert float(off.sel(rule="Z-IL").max()) < study.EXACT
    assert float(off.sel(rule="Fa-Z-IL", activation="logistic").max()) < study.EXACT
    assert float(off.sel(rule="IL, t_c = 20").min()) > 1e-2
    assert float(off.sel(rule=study.BP).max()) < study.EXACT
    assert "remembered forward pass" in measured.not_local.sel(rule=study.BP).item()
    assert measured.clamped.sel(rule=study.BP).item() == ""
    assert study.marks(measured.sel(rule=study.BP)) == study.PUBLISHED[study.BP]
    assert study.marks(measured.sel(rule="Z-IL")) == study.PUBLISHED["Z-IL"]
    measured = measured.drop_sel(rule=study.BP)
    assert set(measured.not_local.to_numpy()) == {""}
    assert set(measured.clamped.to_numpy()) == {"x3"}
    assert float(measured.prediction_error.max()) < 1e-5
    signals = ["step 20", "the end", "the step of each layer", "none"]
    assert list(measured.control_signal.to_numpy()) == signals


def test_inactive_relus_part_the_autonomous_rule_from_backprop(results):
    off = nd.load(results / "properties.nc").update_distance.sel(rule="Fa-Z-IL", activation="ReLU")
    assert float(off.sel(hidden=2)) > 1e-4
    # The first hidden layer's prediction comes from the clamped input and never moves.
    assert float(off.sel(hidden=1)) < study.EXACT


@pytest.fixture
def declared():
    """A PC network of three stages of the same size, so that any of its parts may be put in the place of another."""
    return pc.network(nd.mlp([3, 3, 3, 3]))


def changed(network, **parts):
    """Return a declaration with other couplings, or other plasticity."""
    parts = {"couplings": network.couplings, "plasticity": network.plasticity} | parts
    return nd.Network("changed", network.populations, **parts, forward=network.forward, inference=network.inference)


def test_a_declaration_of_predictive_coding_is_local(declared):
    assert study.not_local(declared) == []


def test_the_check_finds_a_coupling_past_a_layer(declared):
    couplings = [*declared.couplings, nd.Coupling("e3", "x1")]
    assert study.not_local(changed(declared, couplings=couplings)) == ["coupling e3 → x1 leads past a layer"]


def test_the_check_finds_feedback_through_the_weights_of_another_layer(declared):
    wrong = nd.Coupling("e3", "x1", nd.Feedback(declared.forward[1], "live"))
    couplings = [*declared.couplings, wrong]
    assert study.not_local(changed(declared, couplings=couplings)) == ["coupling e3 → x1 leads past a layer"]


def test_the_check_finds_feedback_at_a_remembered_forward_pass(declared):
    couplings = [
        nd.Coupling(c.source, c.target, nd.Feedback(c.map.stage, "frozen"), c.gain)
        if isinstance(c.map, nd.Feedback)
        else c
        for c in declared.couplings
    ]
    found = study.not_local(changed(declared, couplings=couplings))
    assert found == [
        "coupling e2 → x1 reads more than the present activity of its two ends",
        "coupling e3 → x2 reads more than the present activity of its two ends",
    ]


def test_the_check_finds_learning_from_a_distant_population(declared):
    first, second, third = declared.plasticity
    wrong = nd.Plasticity(second.stage, "x1", "e3", presynaptic="live")
    found = study.not_local(changed(declared, plasticity=[first, wrong, third]))
    assert found == ["stage 2 learns from x1 and e3, not its two sides"]


def test_the_check_finds_learning_from_a_remembered_forward_pass(declared):
    frozen = [nd.Plasticity(rule.stage, rule.pre, rule.post, presynaptic="frozen") for rule in declared.plasticity]
    found = study.not_local(changed(declared, plasticity=frozen))
    assert found == [f"stage {number} learns from a remembered forward pass" for number in (1, 2, 3)]


def test_only_a_gate_on_spikes_needs_no_signal(declared):
    rules = [nd.Plasticity(rule.stage, rule.pre, rule.post, nd.OnSpike(4)) for rule in declared.plasticity]
    assert study.control_signal(changed(declared, plasticity=rules)) == "none"
    rules[0] = nd.Plasticity(declared.plasticity[0].stage, "s", "e1", nd.AtStep(2))
    assert study.control_signal(changed(declared, plasticity=rules)) != "none"

"""The study of depth, at toy size: what its files say, and its networks."""

import depth as study
import matplotlib
import numpy as np
import pytest
import torch
import tyro
from common.deep import build, scaled

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("depth")
    arguments = ["--layers", "3", "--trained", "4", "--width", "6", "--epochs", "1", "--seeds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "SAMPLES", 4)
        patch.setattr(study, "REPEATS", 1)
        study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    data = {"rules.nc", "received.nc", "trained.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == data | {"depth.png", "depth.pdf"}


def test_the_rules_that_equal_backprop_do_so_whatever_the_precision(results):
    off = nd.load(results / "rules.nc").off.sel(precision="float64")
    exact = off.sel(rule=["AR", "Z-IL", "Fa-Z-IL", "Fa-Z-IL, repaired φ"])
    assert float(exact.max()) < 1e-12
    assert float(off.sel(rule=[study.PAPERS_AR, "IL"]).min()) > 1e-6
    assert float(off.sel(rule="GAIT-prop", kind="plain").max()) < 1e-4
    assert float(off.sel(rule="GAIT-prop, γ = 1e-06", kind="plain").max()) < 1e-4
    assert bool(off.sel(rule="GAIT-prop", kind="residual").isnull().all())


def test_error_reaches_the_first_layer_only_after_as_many_steps_as_lie_above_it(results):
    share = nd.load(results / "received.nc").share.isel(seed=0)
    assert float(share.isel(steps=0, layer=0).max()) == 0
    assert float(share.isel(steps=1).min()) > 0


def test_a_residual_block_adds_its_input_and_mu_pc_scales_it_by_depth():
    module = scaled((5, 8, 3), 6, "μPC", seed=2)
    x = torch.rand(4, 8)
    expected = x + x.tanh() @ list(module.parameters())[2].T / np.sqrt(8 * 6)
    torch.testing.assert_close(module[2](x), expected)
    plain = scaled((5, 8, 3), 6, "plain PC", seed=2)
    torch.testing.assert_close(plain[2](x), x.tanh() @ list(plain.parameters())[2].T / np.sqrt(8))


def test_units_whose_error_is_lost_in_rounding_are_counted():
    module = build((4, 6, 2), 3, "plain", seed=0)
    inputs, targets = torch.rand(5, 4), torch.rand(5, 2)
    assert study.unseen(module, inputs, targets) == 0
    with torch.no_grad():
        list(module.parameters())[-2].mul_(1e-12)
    assert study.unseen(module, inputs, targets) > 0.9

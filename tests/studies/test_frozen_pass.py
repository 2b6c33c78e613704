"""The study of the frozen forward pass, at toy size."""

import frozen_pass as study
import matplotlib
import numpy as np
import pytest
import tyro
from common import learning_curves

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("frozen_pass")
    arguments = ["--layers", "30", "20", "--epochs", "4", "--seeds", "1", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curves, "BATCH", 96)  # the fewer the updates, the larger each
        study.main(tyro.cli(study.Options, args=[*arguments, "--rate", "0.003"]))
    return out


def test_it_writes_what_it_promises(results):
    assert {path.name for path in results.iterdir()} == {f"frozen_pass.{kind}" for kind in ("png", "pdf", "nc")} | {
        "rows.json"
    }
    found = nd.load(results / "frozen_pass.nc")
    assert found.attrs["activation"] == "tanh"
    assert found.variant.values.tolist() == ["backprop", *study.VARIANTS]


def test_three_relaxations_survive_and_the_fourth_does_not(results):
    found = nd.load(results / "frozen_pass.nc")
    end = found.test_accuracy.isel(epoch=-1, seed=0)
    exact = float(end.sel(variant="backprop"))
    assert exact > 60
    for name in end.variant.values:
        if name.startswith("live presynaptic"):
            assert float(end.sel(variant=name)) < 0.6 * exact
        else:
            assert float(end.sel(variant=name)) > exact - 5


def test_the_clamped_input_spares_the_first_layer_alone(results):
    angles = nd.load(results / "frozen_pass.nc").update_angle.isel(epoch=0, seed=0)
    relaxing, clamped = (angles.sel(variant=f"live presynaptic{end}") for end in ("", ", input clamped"))
    assert float(clamped[0]) < 5 < float(relaxing[0])
    np.testing.assert_allclose(clamped[1:], relaxing[1:], rtol=1e-5)

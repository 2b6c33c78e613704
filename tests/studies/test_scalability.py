"""The study of AR's simplifications in a CNN, at toy size."""

import matplotlib
import pytest
import scalability as study
import tyro
from common import learning_curves

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("scalability")
    arguments = ["--epochs", "1", "--rate", "0.0005", "--seeds", "1", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curves, "BATCH", 256)
        study.main(tyro.cli(study.Options, args=arguments))
    return out


def test_it_writes_what_it_promises(results):
    assert {path.name for path in results.iterdir()} == {f"scalability.{kind}" for kind in ("png", "pdf", "nc")} | {
        "rows.json"
    }
    found = nd.load(results / "scalability.nc")
    assert found.variant.values.tolist() == ["backprop", *study.VARIANTS]
    assert "digits, one epoch" in found.attrs["training"]


def test_feedback_weights_stand_where_they_are_asked_for(results):
    found = nd.load(results / "scalability.nc")
    angles = found.feedback_angle.isel(seed=0, epoch=-1)
    # The first of the two convolutions has no way back.
    places = {"conv.": ["2"], "fully conn.": ["3", "4", "5"], "all": ["2", "3", "4", "5"]}
    for where, layers in places.items():
        for name in ("learned ψ", "both"):
            assert angles.sel(variant=f"{name}, {where}").dropna("layer").layer.values.tolist() == layers
        assert bool(angles.sel(variant=f"no derivative, {where}").isnull().all())


def test_fixed_feedback_weights_stay_and_the_verdicts_follow_the_data(results):
    found = nd.load(results / "scalability.nc")
    assert found.feedback_angle.sel(variant=study.FIXED, layer="3").notnull().all()
    end = found.test_accuracy.isel(epoch=-1)
    gap = float((end.sel(variant="no derivative, all") - end.sel(variant="AR")).mean())
    text = "\n".join(study.verdicts(found))
    assert f"no derivative, all: undecided with one seed ({gap:+.1f})" in text


def test_the_layers_above_a_simplified_convolution_learn_exactly(results):
    angles = nd.load(results / "scalability.nc").update_angle.isel(seed=0, epoch=0)
    convolutional = angles.sel(variant="both, conv.")
    assert float(convolutional.sel(layer="1")) > 20
    assert float(convolutional.sel(layer=["3", "4", "5"]).max()) < 0.5

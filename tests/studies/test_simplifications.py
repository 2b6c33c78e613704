"""The study of AR's simplifications, at toy size, and the training that three studies share."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import simplifications as study
import torch
import tyro
import xarray as xr
from common.learning_curves import (
    BATCH,
    PerceptronOptions,
    agreement,
    compare,
    draw,
    feedback_angle,
    summary,
    update_angle,
)
from common.training import angle

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar

matplotlib.use("agg")
SMALL = PerceptronOptions(layers=(9, 7), activation="tanh", epochs=2, seeds=(3,))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("simplifications")
    arguments = ["--layers", "30", "20", "--epochs", "3", "--scan-epochs", "1", "--seeds", "1", "2", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "FACTORS", (1.0, 2000.0))
        study.main(tyro.cli(study.Options, args=arguments))
    return out


def test_it_writes_what_it_promises(results):
    figures = {f"simplifications{name}.{kind}" for name in ("", "_training") for kind in ("png", "pdf")}
    assert {path.name for path in results.iterdir()} == figures | {"simplifications.nc", "rates.nc", "rows.json"}
    found = nd.load(results / "simplifications.nc")
    assert found.attrs["layers"] == "30-20"
    assert found.variant.values.tolist() == ["backprop", *study.VARIANTS]
    assert found.test_accuracy.dims == ("variant", "seed", "epoch")


def test_variants_start_alike_and_only_AR_as_it_is_follows_backprop(results):
    found = nd.load(results / "simplifications.nc")
    start = found.test_accuracy.isel(epoch=0)
    np.testing.assert_array_equal(start, start.isel(variant=[0] * start.sizes["variant"]))
    np.testing.assert_array_equal(found.update_angle.sel(variant="backprop"), 0)
    # After 100 iterations of 0.1, AR is not yet quite at backprop's gradient in the lowest layer, and exact in the top.
    ar = found.update_angle.sel(variant="AR")
    assert 0 < float(ar.isel(layer=0).max()) < 5
    assert float(ar.isel(layer=-1).max()) < 1e-3
    others = found.update_angle.drop_sel(variant=["backprop", "AR"]).isel(layer=0)
    assert float(others.min()) > 5


def test_a_rate_at_which_all_diverge_is_told_from_one_at_which_none_does(results):
    scanned = nd.load(results / "rates.nc")
    assert [study.diverges_from(scanned, name) for name in study.SCANNED] == pytest.approx([4.0] * 3)
    none = scanned.isel(rate=[0])
    assert [study.diverges_from(none, name) for name in study.SCANNED] == [np.inf] * 3
    assert study.rate_row(none, 1).verdict.startswith("differs")


def test_learned_feedback_turns_towards_the_transpose_and_there_is_none_without(results):
    angles = nd.load(results / "simplifications.nc").feedback_angle
    assert bool(angles.sel(variant=["backprop", "AR", "no derivative"]).isnull().all())
    assert bool(angles.isel(layer=0).isnull().all())
    top = angles.sel(variant="learned ψ").isel(layer=-1)
    assert bool((top.diff("epoch") < 0).all())
    drawn = angles.isel(layer=[1, 2]).sel(variant=["learned ψ", "fixed ψ"])
    np.testing.assert_array_equal(drawn.isel(epoch=0, variant=0), drawn.isel(epoch=0, variant=1))


def test_the_summary_says_what_the_file_says(results):
    found = nd.load(results / "simplifications.nc")
    text = summary(found)
    assert "digits, 3 epochs of SGD in batches of 64, rate 0.002 for the summed squared error" in text
    ends = found.test_accuracy.sel(variant="AR").isel(epoch=-1).values
    assert f"{ends.mean():.1f} ± {ends.std(ddof=1) / np.sqrt(2):.1f}" in text


def test_backprop_descends_the_summed_squared_error_at_the_papers_rate():
    run = compare(SMALL, SMALL.build, {}).sel(variant="backprop", seed=3)
    train, test = SMALL.load(flatten=False)
    module = SMALL.build((1, 8, 8), 10, 3)

    def accuracy() -> float:
        inputs, targets = test[:]
        return 100 * float((module(inputs).argmax(1) == targets.argmax(1)).double().mean())

    assert float(run.test_accuracy[0]) == pytest.approx(accuracy())
    for epoch in (1, 2):
        for inputs, targets in nd.train.batches(train, BATCH, seed=3, epoch=epoch):
            # The last batch, of fewer samples, counts as much as the others.
            total = (module(inputs) - targets).square().sum() * BATCH / len(inputs)
            parameters = list(module.parameters())
            for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
                parameter.data -= SMALL.rate * gradient
        assert float(run.test_accuracy[epoch]) == pytest.approx(accuracy(), abs=0.3)


def test_a_run_that_diverges_is_told_and_left_out():
    wild = PerceptronOptions(layers=(9,), epochs=2, rate=10.0, seeds=(0, 1))
    found = compare(wild, wild.build, {"AR": {}})
    assert bool(found.test_accuracy.isel(epoch=0).notnull().all())
    assert bool(found.test_accuracy.isel(epoch=[1, 2]).isnull().all())
    assert summary(found).count("2 of 2") == 2


def test_weights_are_those_of_the_papers():
    parameters = list(PerceptronOptions(layers=(300, 300)).build((1, 8, 8), 10, 0).parameters())
    assert [tuple(weight.shape) for weight in parameters[::2]] == [(300, 64), (300, 300), (10, 300)]
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        assert float(weight.detach().std()) == pytest.approx(0.05, rel=0.05)
        assert not bias.detach().any()


@pytest.mark.parametrize("feedback", ["transpose", "fixed"])
def test_angles_are_those_of_the_gradients_and_of_the_weights(feedback):
    samples, _ = SMALL.load(flatten=False)
    inputs, targets = samples[:20]
    network = ar.network(SMALL.build((1, 8, 8), 10, 3).double(), feedback=feedback)
    found = update_angle(network, inputs.double(), targets.double())
    module = SMALL.build((1, 8, 8), 10, 3).double()
    (0.5 * (module(inputs.double()) - targets).square().sum(1).mean()).backward()
    exact = [p.grad for p in module.parameters() if p.grad is not None]
    nd.backward(network, inputs.double(), targets.double(), duration=10.0, solver=nd.Euler(0.1))
    for place, stage in enumerate(network.forward):
        # `.grad` holds what the metric left and the same again, which has the same direction.
        ours = torch.cat([p.grad.flatten() for p in stage.parameters if p.grad is not None])
        theirs = torch.cat([g.flatten() for g in exact[2 * place : 2 * place + 2]])
        cosine = float(ours @ theirs / ours.norm() / theirs.norm())
        assert float(found[place]) == pytest.approx(np.rad2deg(np.arccos(min(cosine, 1.0))), abs=1e-4)
    kept = feedback_angle(network)
    assert kept.layer.values.tolist() == found.layer.values.tolist() == ["1", "2", "3"]
    assert kept.notnull().values.tolist() == [False, *[feedback == "fixed"] * 2]


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 30.0, 90.0, 180.0])
def test_angle(degrees):
    radians = np.deg2rad(degrees)
    a, b = torch.tensor([2.0, 0.0]).double(), torch.tensor([[3 * np.cos(radians)], [3 * np.sin(radians)]])
    assert angle(a, b) == pytest.approx(degrees, rel=1e-9, abs=1e-12)


def test_few_seeds_decide_little_and_many_of_them_what_is_there():
    def judged(*values: float) -> str:
        return agreement(xr.DataArray(list(values), dims="seed")).partition(" (")[0]

    assert judged(1.0, 2.0) == "undecided: 2 seeds are too few"  # 1.5 ± 0.5, of which 12.7 make the interval
    assert judged(*[1.0, 2.0] * 5) == "differs"
    assert judged(*[-0.1, 0.1] * 5) == judged(0.3, 0.3) == "agrees"
    assert judged(1.0) == "undecided with one seed"
    assert judged(np.nan, np.nan) == "diverged"


def test_a_curve_of_which_nothing_is_left_says_so():
    values = xr.DataArray([[80.0, 85.0], [90.0, 95.0]], {"seed": [0, 1], "epoch": [0, 1]})
    figure, ax = plt.subplots()
    draw(ax, values, "learned")
    draw(ax, values.where(values.epoch < 1), "fixed")
    assert [line.get_label() for line in ax.lines] == ["learned", "fixed: diverged"]
    plt.close(figure)

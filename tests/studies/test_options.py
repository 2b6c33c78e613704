"""What all studies are asked for means the same in each of them."""

import importlib
import os
import runpy
import sys
from contextlib import redirect_stderr
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path

import accuracy
import gait_training
import matplotlib
import numpy as np
import pytest
import spike_detection
import torch
from common import divergence
from common.options import DataOptions, ImageOptions, Options, parse

import neurodyn as nd
from tests.data.test_datasets import write_mnist
from tests.processes import ROOT, call

matplotlib.use("agg")
FOLDER = Path(__file__).parents[2] / "studies"
GATHERING = "reproduction"
STUDIES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != GATHERING)
WITHOUT_DATA = {"rate_networks", "runtime", "weak_feedback"}
TRAINING = {"accuracy", "depth", "frozen_pass", "gait_training", "gamma_sweep", "inference", "scalability"} | {
    "simplifications",
    "zero_divergence",
}
TINY = {
    "accuracy": "--rules ar gait --epochs 1 --hidden 8",
    "alignment": "--hidden 1",
    "convergence": "--layers 6",
    "depth": "--layers 2 3 --trained 4 --width 6 --epochs 1",
    "frozen_pass": "--layers 6 --epochs 1",
    "gait_training": "--hidden 1 --tower 20 10 --epochs 1",
    "gamma_sweep": "--hidden 1 --width 4 --epochs 1 --samples 40",
    "graphs": "--sizes 1 --steps 1",
    "inference": "--hidden 1 --width 4 --epochs 1 --samples 40",
    "rate_networks": "--units 12 --ring 16 --samples 5",
    "runtime": "--widths 4 --seconds 0.01",
    "scalability": "--epochs 1",
    "simplifications": "--layers 6 --epochs 1",
    "spike_detection": "--layers 2 --samples 4 --steps 9",
    "weak_feedback": "--width 3 --layers 2 --samples 2",
    "zero_divergence": "--hidden 1 --width 4 --epochs 1 --samples 40",
}


def options(study: str, *arguments: str) -> Options:
    """Return what a study is asked for with these arguments."""
    return parse(importlib.import_module(study).PAPER, "", arguments)


def test_there_are_16_and_nothing_else_is_a_script():
    assert set(TINY) == set(STUDIES)
    assert len(STUDIES) == 16
    for path in FOLDER.rglob("*.py"):
        assert ("__main__" in path.read_text(encoding="utf-8")) == (path.parent == FOLDER)


@pytest.mark.parametrize("study", STUDIES)
def test_an_option_that_is_given_wins_over_the_preset(study):
    module = importlib.import_module(study)
    default, paper = module.Options(), module.PAPER
    assert options(study) == default
    assert options(study, "--full") == options(study, "--no-full", "--full") == paper
    assert options(study, "--full", "--no-full") == default
    assert paper.full
    assert replace(paper, full=False) != default
    mine = options(study, "--seeds", "7", "--full", "--device", "cpu", "--out", "elsewhere", "--quiet")
    assert mine == replace(paper, seeds=(7,), out=Path("elsewhere"), quiet=True)
    for field in fields(module.Options):
        number = isinstance(getattr(default, field.name), int | float) and field.type in ("int", "float")
        if number and field.name != "pool":  # into which not all images are cut
            option = f"--{field.name.replace('_', '-')}"
            assert options(study, option, "9", "--full") == replace(paper, **{field.name: 9})
            # Even when it is the default's value that is given.
            given = str(getattr(default, field.name))
            assert getattr(options(study, "--full", option, given), field.name) == getattr(default, field.name)


@pytest.mark.parametrize("study", STUDIES)
def test_the_header_names_the_setting(study):
    module = importlib.import_module(study)
    assert module.Options().setting(module.PAPER) == "Setting: default"
    assert options(study, "--full").setting(module.PAPER) == "Setting: --full"
    changed = options(study, "--full", "--seeds", "4", "2").setting(module.PAPER)
    assert changed == "Setting: --full, but seeds 4 2"
    # Built without the command line, it cannot pass for the paper's.
    assert "but" in module.Options(full=True).setting(module.PAPER)


@pytest.mark.parametrize("study", STUDIES)
def test_help_shows_the_values_of_the_setting(study, capsys):
    for arguments in (["--help"], ["--full", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            options(study, *arguments)
        assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"results/{study}" in text
    for option in ("--seeds", "--device", "--full", "--out", "--quiet"):
        assert option in text
    for option, has_it in {"--root": study not in WITHOUT_DATA, "--epochs": study in TRAINING}.items():
        assert (option in text) == has_it
    for field in fields(Options):
        assert "The folder for the results." in text, field


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--seeds", "seeds: give at least one"),
        ("--seeds -1", "seeds must be an integer ≥ 0, not -1"),
        ("--seeds 3 3", "seeds: each once, not 3 3"),
        ("--device abacus", "device: 'abacus' is no device"),
        ("--device meta", "device: tensors on 'meta' hold no numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(study, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        options(study, *arguments.split())
    assert stopped.value.code != 0
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("study", STUDIES)
def test_every_number_is_positive_and_every_list_has_an_entry(study):
    kind = importlib.import_module(study).Options
    default = kind()
    for field in fields(kind):
        value = getattr(default, field.name)
        wrong: list = []
        if isinstance(value, tuple):
            wrong = [()] + ([(*value, 0), (-1,)] if isinstance(value[0], int) and field.name != "seeds" else [])
        elif isinstance(value, float):
            wrong = [0.0, -1.0, float("nan"), float("inf")]
        elif isinstance(value, int) and not isinstance(value, bool):
            wrong = [0, -3]
        for each in wrong:
            with pytest.raises(ValueError, match=f"^{field.name}") as caught:
                kind(**{field.name: each})
            assert isinstance(caught.value, nd.NeurodynError)


@pytest.mark.parametrize("study", STUDIES)
def test_what_is_gone_through_is_given_once(study):
    kind = importlib.import_module(study).Options
    for name in kind.once:
        value = getattr(kind(), name)
        with pytest.raises(ValueError, match=f"^{name}: each once, not {value[0]} "):
            kind(**{name: (value[0], *value)})


def test_numbers_that_single_precision_does_not_hold_are_refused():
    with pytest.raises(nd.NeurodynError, match=r"^rate: single precision does not hold 1e"):
        accuracy.Options(rate=1e300)


def test_squares_into_which_images_are_not_cut_are_refused_before_anything_runs():
    with pytest.raises(nd.NeurodynError, match=r"^pool: 7 does not divide the 8×8 pixels of digits"):
        ImageOptions(pool=7)
    assert ImageOptions(dataset="mnist", pool=7).pool == 7
    with pytest.raises(nd.NeurodynError, match=r"^pool: 7 does not divide the 32×32 pixels of cifar10"):
        accuracy.Options(dataset=("mnist", "cifar10"), pool=7)


def test_a_tower_that_no_inputs_or_classes_fit_is_refused_before_anything_is_trained():
    with pytest.raises(nd.NeurodynError, match=r"^tower: no layer is wider .* than the 16 inputs, not 64 40 20 10"):
        gait_training.Options(pool=2)
    with pytest.raises(nd.NeurodynError, match=r"^tower: at least 10 units in its last layer, not 2"):
        gait_training.Options(tower=(20, 2))
    with pytest.raises(nd.NeurodynError, match=r"^tower: at least 100 units"):
        gait_training.Options(dataset="cifar100")
    assert gait_training.Options(pool=2, tower=(16, 10)).pixels == 16


def test_steps_in_which_errors_do_not_reach_the_first_layer_are_refused():
    with pytest.raises(nd.NeurodynError, match=r"^steps: at least 8, .* the first of 9 layers, not 7"):
        spike_detection.Options(layers=(2, 9), steps=7)


def test_more_samples_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"^samples: digits train has 1437, not 1438"):
        divergence.Options(samples=1438).data  # noqa: B018
    case = spike_detection.cases(8)["basic"]
    with pytest.raises(ValueError, match=r"^samples: digits train has 1437, not 2000"):
        spike_detection.draw_pairs(case, spike_detection.Options(samples=2000), 0)


@pytest.mark.parametrize("study", sorted(set(STUDIES) - WITHOUT_DATA))
def test_a_folder_for_what_needs_none_is_refused(study, tmp_path, capsys):
    with pytest.raises(SystemExit):
        options(study, "--root", str(tmp_path))
    assert "root: digits come with scikit-learn" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert options(study, "--dataset", "mnist", "--root", str(tmp_path)).root == tmp_path  # type: ignore[attr-defined]


@pytest.mark.parametrize("study", sorted(set(STUDIES) - TRAINING))
def test_epochs_are_refused_where_nothing_is_trained(study, capsys):
    with pytest.raises(SystemExit):
        options(study, "--epochs", "3")
    assert "--epochs" in capsys.readouterr().err


def test_a_data_set_is_read_from_its_folder(tmp_path):
    write_mnist(tmp_path)
    train, test = DataOptions(dataset="mnist", root=tmp_path).load(flatten=False)
    assert train[0][0].shape == (1, 28, 28)
    assert test.name == "mnist test"


def test_images_are_averaged_over_squares():
    images = ImageOptions().load(flatten=False)[0][:3][0]
    small, targets = ImageOptions(pool=2).load()[0][:3]
    expected = images.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(small, expected.flatten(1))
    torch.testing.assert_close(targets, ImageOptions().load()[0][:3][1])
    with pytest.raises(ValueError, match="pool: 3 does not divide the 8×8 pixels of digits") as caught:
        ImageOptions(pool=3).load()
    assert isinstance(caught.value, nd.NeurodynError)


def misuse_as_a_script(path, *arguments):
    """Do as `python PATH ARGUMENTS` does in the root, with an option that it does not have."""
    os.chdir(ROOT)
    own = [str(ROOT), str(ROOT / "studies")]  # of pytest
    sys.path = [str((ROOT / path).parent), *(entry for entry in sys.path if entry not in own)]
    sys.argv = [path, *arguments]
    with redirect_stderr(StringIO()) as told, pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code
    assert "Unrecognized options: --epochs" in told.getvalue()


def test_it_is_a_script_that_runs_from_the_root():
    arguments = ("--full", *TINY["convergence"].split(), "--seeds", "1", "--epochs", "0")
    assert call(misuse_as_a_script, "studies/convergence.py", *arguments) == (0, "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("study", STUDIES)
def test_the_device_is_computed_on(study, tmp_path):
    torch.cuda.reset_peak_memory_stats()
    arguments = [*TINY[study].split(), "--seeds", "0", "--quiet"]
    module = importlib.import_module(study)
    for device in ("cpu", "cuda"):
        before = torch.cuda.max_memory_allocated()
        module.main(options(study, *arguments, "--device", device, "--out", str(tmp_path / device)))
        assert (torch.cuda.max_memory_allocated() > before) == (device == "cuda")
    for path in (tmp_path / "cpu").glob("*.nc"):
        mine, other = nd.load(path), nd.load(tmp_path / "cuda" / path.name)
        assert {name: each.shape for name, each in mine.items()} == {name: each.shape for name, each in other.items()}
        for name in ("distance", "weights", "update_distance", "expected"):
            if name in mine:
                np.testing.assert_allclose(mine[name], other[name], rtol=1e-2, atol=1e-6)

"""The study of run time, at toy size: its files and its table, but no times."""

import matplotlib
import numpy as np
import pytest
import runtime as study
import torch
import tyro

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("runtime")
    arguments = ["--widths", "4", "8", "--hidden", "2", "--batch", "3", "--seconds", "0.01", "--seeds", "0", "1"]
    study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    assert {path.name for path in results.iterdir()} == {"runtime.png", "runtime.pdf", "runtime.nc", "rows.json"}


def test_ratios_are_those_of_the_medians_in_rounds_that_all_rules_share(results):
    times = nd.load(results / "runtime.nc")
    assert times.milliseconds.dims == ("seed", "network", "rule")
    assert list(times.rule.to_numpy()) == [study.BACKPROP, *study.RULES]
    np.testing.assert_allclose(times.ratio, times.milliseconds / times.milliseconds.sel(rule=study.BACKPROP))
    assert bool((times.milliseconds > 0).all())
    assert int(times["rounds"].min()) >= 3
    assert bool((times.low <= times.high).all())


def test_each_way_updates_the_weights_as_its_rule_does():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(5, study.INPUTS, generator=generator)
    targets = torch.eye(study.OUTPUTS)[:5]
    gradients = {}
    module = study.perceptron(6, 3, 0)
    for name, update in study.updates(module, inputs, targets).items():
        before = [parameter.detach().clone() for parameter in module.parameters()]
        update()
        moved = [old - new.detach() for old, new in zip(before, module.parameters(), strict=True)]
        assert max(float(part.abs().max()) for part in moved) > 0
        gradients[name] = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    for rule in ("Z-IL", "Fa-Z-IL"):
        torch.testing.assert_close(gradients[rule], gradients[study.BACKPROP], rtol=1e-3, atol=1e-6)
    assert float((gradients["IL"] - gradients[study.BACKPROP]).norm() / gradients[study.BACKPROP].norm()) > 1e-3


def test_the_network_for_imagenet_learns():
    # One image and one rule, so that it stays cheap: every layer of it has a value, a feedback and a gradient.
    module = study.alexnet(0)
    study.updates(module, torch.rand(1, 3, 224, 224), torch.eye(1000)[:1])["Z-IL"]()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())

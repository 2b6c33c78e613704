"""The README's Python blocks run as they stand, print what it says they print, and hold what it claims."""

import re
from itertools import pairwise
from pathlib import Path

import convergence
import matplotlib
import matplotlib.pyplot as plt
import torch
import xarray as xr

import neurodyn as nd

matplotlib.use("agg")
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_it_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    # What the study leaves, of a smaller network.
    case = convergence.Case.draw(convergence.Options(layers=(9, 7)), seed=0)
    nd.save(xr.concat([convergence.relax(case)], xr.Variable("seed", [0])), "results/convergence/trajectory.nc")
    names: dict = {}
    shown = 0
    for (kind, block), (next_kind, text) in pairwise([*BLOCKS, ("", "")]):
        if kind == "python":
            capsys.readouterr()
            exec(compile(block, "README.md", "exec"), names)
            if next_kind == "text" and "print(" in block:
                assert capsys.readouterr().out == text
                shown += 1
    plt.close("all")
    assert shown == 2
    assert Path("docs/inhibition.png").stat().st_size > 0
    assert names["trajectory"].x1.sizes["x1_unit"] == 9

    module, inputs, targets = names["module"], names["inputs"], names["targets"]
    loss = 0.5 * (module(inputs) - targets).square().sum() / len(inputs)
    torch.testing.assert_close(names["loss"], loss.detach())
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_what_it_points_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [a or b for a, b in links if not (a or b).startswith("https:")]
    assert "docs/convergence.png" in local
    assert [path for path in local if not (ROOT / path).exists()] == []
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)

"""The README's Python blocks run as they stand, print what it says they print, and hold what it claims."""

import asyncio
import contextlib
import io
import os
import re
import runpy
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch

from tests.processes import ROOT, call

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
EXAMPLES: list[list[tuple[str, str | None]]] = []
"""Blocks that go on from each other, as the README says: from one that imports to the next; with what each prints."""
for (kind, code), (next_kind, text) in pairwise([*BLOCKS, ("", "")]):
    if kind == "python":
        if re.search("^import ", code, flags=re.MULTILINE):
            EXAMPLES.append([])
        EXAMPLES[-1].append((code, text if next_kind == "text" else None))


def run_script(script):
    """Run a script in an empty folder, and keep what it prints."""
    script.with_suffix("").mkdir()
    os.chdir(script.with_suffix(""))
    with script.with_suffix(".txt").open("w") as printed, contextlib.redirect_stdout(printed):
        runpy.run_path(str(script), run_name="__main__")


def test_its_blocks_run_as_scripts_each_in_an_empty_folder(tmp_path):
    scripts = [tmp_path / f"example_{number}.py" for number in range(len(EXAMPLES))]
    for script, blocks in zip(scripts, EXAMPLES, strict=True):
        script.write_text("\n".join(code for code, _ in blocks), encoding="utf-8")
        assert call(run_script, script) == (0, "")
        assert script.with_suffix(".txt").read_text(encoding="utf-8").startswith(blocks[0][1] or "")


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """Run each example cell by cell, as Jupyter does, within an event loop; return what is defined in the end."""
    names: list[dict] = []

    async def run(cells: list[tuple[str, str | None]]) -> None:
        names.append({"__name__": "__main__"})
        for code, printed in cells:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, "README.md", "exec"), names[-1])
            assert printed is None or out.getvalue() == printed

    with contextlib.chdir(tmp_path_factory.mktemp("notebook")):
        for cells in EXAMPLES:
            asyncio.run(run(cells))
    plt.close("all")
    return names


def test_its_cells_print_what_it_says_and_show_what_it_shows(notebooks):
    assert sum(printed is not None for cells in EXAMPLES for _, printed in cells) == 2
    assert notebooks[0]["path"].name == "inhibition.nc"


def test_its_rule_finds_the_gradients_of_backprop_and_learns(notebooks):
    names = notebooks[-1]
    module, inputs, targets = names["module"], names["inputs"], names["targets"]
    loss = 0.5 * (module(inputs) - targets).square().sum() / len(inputs)
    torch.testing.assert_close(names["loss"], loss.detach())
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert names["history"].sizes["epoch"] == 5
    assert names["history"].test_accuracy[-1] > 0.8


def test_it_is_a_page_and_a_half():
    assert len(README.split()) < 900


def test_what_it_points_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [a or b for a, b in links if not (a or b).startswith("https:")]
    assert "docs/relaxation.gif" in local
    assert [path for path in local if not (ROOT / path).exists()] == []
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)

"""The README's Python blocks run as they stand, print what it says they print, and hold what it claims."""

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
EXAMPLES: list[list[tuple[str, str | None]]] = []
"""Blocks that go on from each other, as the README says: from one that imports to the next; with what each prints."""
for (kind, code), (next_kind, text) in pairwise([*BLOCKS, ("", "")]):
    if kind == "python":
        if re.search("^import ", code, flags=re.MULTILINE):
            EXAMPLES.append([])
        EXAMPLES[-1].append((code, text if next_kind == "text" else None))


SCRIPTS = """
import os, runpy, sys
from pathlib import Path

for number, script in enumerate(sys.argv[1:]):
    Path(script).with_suffix("").mkdir()
    os.chdir(Path(script).with_suffix(""))
    print(f"example {number}:", flush=True)
    runpy.run_path(script, run_name="__main__")
"""


def test_its_blocks_run_as_scripts_each_in_an_empty_folder(tmp_path):
    """In one process, since three would import the same three times; each with names of its own alone."""
    scripts = [tmp_path / f"example_{number}.py" for number in range(len(EXAMPLES))]
    for script, blocks in zip(scripts, EXAMPLES, strict=True):
        script.write_text("\n".join(code for code, _ in blocks), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SCRIPTS, *scripts]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stdout + run.stderr
    printed = re.split(r"^example \d+:\n", run.stdout, flags=re.MULTILINE)[1:]
    for text, blocks in zip(printed, EXAMPLES, strict=True):
        assert text.startswith(blocks[0][1] or "")


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
    names = notebooks[1]
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

"""The site: the reference lists every public name, links lead somewhere, and code runs; all of it in `make docs`."""

import ast
import re
from contextlib import chdir
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import neurodyn as nd

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts and "generated" not in path.parts)


CELL = re.compile(r"^```\{code-cell\}\n(?::[^\n]*\n\n?)?(.*?)^```$", re.MULTILINE | re.DOTALL)
CELLS = {path: CELL.findall(path.read_text("utf-8")) for path in PAGES}


def test_the_gallery_shows_every_study() -> None:
    shown = re.findall(r'^figure\("(\w+)"', (DOCS / "gallery.md").read_text("utf-8"), re.M)
    studies = {path.stem for path in (DOCS.parent / "studies").glob("*.py")}
    assert sorted(shown) == sorted(studies - {"reproduction"})  # which gathers what the others print


def test_the_reference_lists_every_public_name() -> None:
    text = (DOCS / "reference" / "index.md").read_text("utf-8")
    listed = set(re.findall(r"^(?:   |\.\. py:data:: )([A-Za-z][\w.]*)$", text, re.M))
    modules = {"analysis": nd.analysis, "data": nd.data, "train": nd.train}
    expected = set(nd.__all__) - set(modules)
    assert expected <= listed
    for name in listed - expected:
        module, _, own = name.partition(".")
        assert module == "plot" or hasattr(modules[module], own), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"\{(?:image|include)\} (\S+)", text)
    targets += [f"{link}.md" for link in re.findall(r"^:link: (\S+)$", text, re.M)]
    for entries in re.findall(r"\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", text, re.S):
        targets += [f"{entry}.md" for entry in entries.split()]
    assert [each for each in targets if not each.startswith("https:") and not (page.parent / each).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if CELLS[page]], ids=lambda path: path.stem)
def test_its_cells_are_python(page: Path) -> None:
    ast.parse("\n".join(CELLS[page]))


def test_a_built_page_is_searched_for_dead_links(tmp_path: Path) -> None:
    spec = spec_from_file_location("links", DOCS / "_ext" / "links.py")
    assert spec is not None
    assert spec.loader is not None
    links = module_from_spec(spec)
    spec.loader.exec_module(links)
    (tmp_path / "a.html").write_text('<h1 id="here"></h1><a href="b.html#there"></a><a href="#here"></a>', "utf-8")
    (tmp_path / "b.html").write_text('<a href="a.html#nowhere"></a><a href="c.html"></a><img src="//x.org/y">', "utf-8")
    (tmp_path / "d.html").write_text("<iframe srcdoc='&lt;script src=&quot;e.js&quot;&gt;'></iframe>", "utf-8")
    assert links.dead(tmp_path) == [
        "a.html: there is no anchor b.html#there",
        "b.html: it would fetch //x.org/y",
        "b.html: there is no anchor a.html#nowhere",
        "b.html: there is no c.html",
        "d.html: there is no e.js",
    ]


@pytest.mark.parametrize("page", ["tutorials/own_rule.md", "tutorials/gradients.md", "tutorials/time.md"])
def test_its_cells_run(page: str, tmp_path: Path) -> None:
    code = compile("\n".join(CELLS[DOCS / page]), page, "exec")
    with chdir(tmp_path):
        exec(code, {"__name__": "__main__"})
    plt.close("all")

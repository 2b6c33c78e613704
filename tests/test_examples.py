"""Every public name has an example in its docstring, and each runs and prints what stands there."""

import doctest
import inspect
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import neurodyn as nd

matplotlib.use("agg")
REFERENCE = (Path(__file__).parents[1] / "docs" / "reference" / "index.md").read_text("utf-8")
NAMES = re.findall(r"^   ([A-Za-z][\w.]*)$", REFERENCE, re.M)


def public(name: str):
    found = nd
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_its_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inspect.isclass(public(name)) or inspect.isroutine(public(name))
    run_examples(name, inspect.cleandoc(public(name).__doc__))


def test_the_examples_of_types_run():
    """An alias of types has no docstring of its own; the page has their examples."""
    _, *sections = REFERENCE.split(".. py:data:: ")
    assert [section.partition("\n")[0] for section in sections] == ["Activity", "Loss", "When"]
    run_examples("types", "\n".join(sections).replace("```", ""))


def run_examples(name, text):
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples, "it has no example"
    assert len(example.examples) <= 15, "more than one screen"
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    plt.close("all")
    assert result.failed == 0, "".join(report)

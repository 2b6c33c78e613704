"""The rows of the reproduction: their verdicts, their file, and the page that gathers them."""

from pathlib import Path

import numpy as np
import pytest
import reproduction
from common.claims import AR, FILE, Row, holds, read_rows, settings, write_rows
from common.options import Options

import neurodyn as nd

ROW = Row(AR, "figure 1", "3 layers", "converges | precisely", "1e-9 is left; 3 seeds", "differs: more is left")


def test_a_verdict_is_what_the_condition_says():
    assert holds(np.bool_(True), "not so") == "agrees"
    assert holds(False, "not so") == "differs: not so"


def test_a_row_names_a_paper():
    with pytest.raises(ValueError, match=r"paper of a row: AR, .* not 'Hebb'") as caught:
        Row("Hebb", "", "", "", "", "agrees")
    assert isinstance(caught.value, nd.NeurodynError)


def test_rows_are_written_with_what_decides_the_results(tmp_path):
    options = Options(out=tmp_path, seeds=(3, 4))
    text = write_rows(options, "digits", [ROW], seconds=90.0)
    assert "converges | precisely" in text
    assert "differs: more is left" in text
    found = read_rows(tmp_path)
    assert found is not None
    assert found["settings"] == settings(options) == settings(Options(out=tmp_path / "else", seeds=(3, 4), quiet=True))
    assert found["settings"] != settings(Options(seeds=(3,)))
    assert (found["seconds"], found["here"]) == (90.0, "digits")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "\xff"])
def test_what_is_no_whole_file_of_rows_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_text(content, encoding="latin-1")
    assert read_rows(tmp_path) is None


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_hours_in_which_nothing_runs_are_refused(hours):
    with pytest.raises(nd.NeurodynError, match="hours must be positive and finite"):
        reproduction.Options(hours=hours)


def test_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/within"):
        for kind in (Options, reproduction.Options):
            with pytest.raises(nd.NeurodynError, match=r"out: .*file is a file; name a folder"):
                kind(out=tmp_path / name)
    with pytest.raises(nd.NeurodynError, match=r"document: .* is a folder; name a file in it"):
        reproduction.Options(document=tmp_path)
    with pytest.raises(nd.NeurodynError, match=r"document: .*file is a file"):
        reproduction.Options(document=tmp_path / "file" / "page.md")
    assert Options(out=tmp_path / "new" / "folder").out.parent.name == "new"


@pytest.fixture
def quick(monkeypatch):
    """Leave two studies, and run them as functions of this process that write one row."""
    runs = []
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    monkeypatch.setattr(reproduction, "STUDIES", {"runtime": "--widths 4", "graphs": "--sizes 1"})

    def run(task, seconds):
        runs.append(task.name)
        if task.name == "graphs":
            return "failed"
        write_rows(task.options, "a setting", [ROW])
        for name in ("runtime_of_all.png", "runtime.png"):
            (task.out / name).write_text(f"{name} of {task.name}")
        return "0.1 minutes"

    monkeypatch.setattr(reproduction.Task, "run", run)
    return runs


def test_a_study_runs_once_and_the_page_tells_of_all(tmp_path, quick):
    options = reproduction.Options(out=tmp_path, document=tmp_path / "page.md", only=("runtime", "graphs"), jobs=1)
    reproduction.main(options)
    reproduction.main(options)
    assert quick == ["runtime", "graphs", "graphs"]
    page = options.document.read_text(encoding="utf-8")
    assert (
        "| figure 1 | 3 layers | converges \\| precisely | 1e-9 is left; 3 seeds | **differs**: more is left |" in page
    )
    assert "| `python studies/runtime.py --widths 4` | a setting |" in page
    assert "| `graphs` | `python studies/graphs.py --sizes 1` |" in page.partition("## Not run")[2]
    # Of another setting, it runs again.
    reproduction.STUDIES = {"runtime": "--widths 8", "graphs": "--sizes 1"}
    reproduction.main(options)
    assert quick[3:] == ["runtime", "graphs"]


def test_what_runs_apart_is_a_run_of_the_same_study(tmp_path, quick):
    reproduction.STUDIES = {"runtime": "--widths 4", "runtime-wide": "--widths 9"}
    page = tmp_path / "page.md"
    reproduction.main(reproduction.Options(out=tmp_path, document=page, only=("runtime", "runtime-wide"), jobs=1))
    assert quick == ["runtime", "runtime-wide"]
    assert page.read_text(encoding="utf-8").count("| `runtime` |") == 2
    assert "`python studies/runtime.py --widths 9`" in page.read_text(encoding="utf-8")
    for name in ("runtime", "runtime-wide"):
        assert f"(page/{name}.png)" in page.read_text(encoding="utf-8")
        assert (tmp_path / "page" / f"{name}.png").read_text() == f"runtime.png of {name}"


def test_without_time_nothing_is_run(tmp_path, quick, capsys):
    reproduction.main(reproduction.Options(out=tmp_path, document=tmp_path / "page.md", hours=1e-12, only=("runtime",)))
    assert quick == []
    assert "runtime: no time is left" in capsys.readouterr().out


def test_digits_of_a_folder_are_what_studies_of_data_run_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURODYN_DATA", str(tmp_path))
    assert reproduction.Task.of("graphs", tmp_path).arguments[:2] == ("--dataset", "mnist")
    for name in reproduction.WITHOUT_DATA:
        assert "mnist" not in reproduction.Task.of(name, tmp_path).arguments
    monkeypatch.delenv("NEURODYN_DATA")
    for name in reproduction.STUDIES:
        assert reproduction.Task.of(name, tmp_path).options.out == tmp_path / name


def test_every_study_is_part_of_it():
    from tests.studies.test_options import STUDIES

    gathered = {reproduction.Task.of(name, Path()).study for name in reproduction.STUDIES}
    assert gathered == set(STUDIES) - {"rate_networks"}  # which is of no paper's claims
    with pytest.raises(ValueError, match="only: hebb: the studies are"):
        reproduction.Options(only=("hebb",))

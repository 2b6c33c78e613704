"""What a benchmark refuses on its command line."""

import argparse
from dataclasses import replace

import pytest

from benchmarks import run
from benchmarks.arguments import count, folder


def test_numbers_and_folders_are_taken_as_they_are_meant(tmp_path):
    assert count("12") == 12
    assert folder(str(tmp_path / "new")) == tmp_path / "new"
    (tmp_path / "file").touch()
    for kind, text in ((count, "0"), (count, "-1"), (count, "1.5"), (count, "²"), (folder, str(tmp_path / "file"))):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


@pytest.mark.parametrize(
    ("option", "value"), [("device", "abacus"), ("kernels", "bogus"), ("seconds", float("nan")), ("seconds", -1.0)]
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(option, value):
    with pytest.raises(ValueError, match=f"^{option}"):
        replace(run.Options(), **{option: value})


def test_where_nothing_can_be_written_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out: .*file is a file"):
        run.Options(out=tmp_path / "file")
    with pytest.raises(ValueError, match=r"page: .* is a folder"):
        run.Options(page=tmp_path)

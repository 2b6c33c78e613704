"""Progress: a bar on a terminal, lines in a log file, nothing where it is not wanted or soon over."""

import io

import pytest

from neurodyn import progress
from neurodyn.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still but for what is done to it."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def go(out: io.StringIO, clock: list[float], seconds: int, wanted: bool | None) -> str:
    with Bar(total=seconds, unit="s", desc="work", file=out, wanted=wanted) as bar:
        for _ in range(seconds):
            clock[0] += 1.0
            bar.update()
    return out.getvalue()


def test_a_log_file_has_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float]) -> None:
    lines = go(io.StringIO(), clock, 35, True).splitlines()
    assert [line.split()[2] for line in lines] == ["10/35", "20/35", "30/35", "35/35"]
    assert all(line.startswith("work: ") for line in lines)


def test_a_terminal_has_one_line(clock: list[float]) -> None:
    shown = go(Terminal(), clock, 35, None)
    assert shown.count("\n") == 1
    assert shown.count("\r") > 30
    assert "35/35" in shown


@pytest.mark.parametrize(
    ("out", "seconds", "wanted"),
    [(Terminal(), 1, True), (io.StringIO(), 1, True), (Terminal(), 35, False), (io.StringIO(), 35, None)],
    ids=["soon over, terminal", "soon over, log", "refused", "a log file that nobody asked for"],
)
def test_else_there_is_nothing(out: io.StringIO, seconds: int, wanted: bool | None, clock: list[float]) -> None:
    assert progress.AFTER == 2.0
    assert go(out, clock, seconds, wanted) == ""

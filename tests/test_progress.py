"""Progress: a bar on a terminal, lines in a log file, nothing where it is not wanted or soon over."""

import io
import re

import pytest
import torch

import neurodyn as nd
from neurodyn import progress
from neurodyn.progress import Bar, Late


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


@pytest.mark.parametrize("news", [False, True])
def test_the_last_line_of_a_log_file_is_written_again_with_news_alone(clock: list[float], news: bool) -> None:
    out = io.StringIO()
    with Bar(total=20, unit="s", desc="work", file=out, wanted=True) as bar:
        for _ in range(20):
            clock[0] += 1.0
            bar.update()
        if news:
            bar.set_postfix(loss=0.5, refresh=False)
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["10/20", "20/20", "20/20"][: 2 + news]
    assert ["loss=0.5" in line for line in lines] == [False, False, True][: 2 + news]
    assert out.getvalue().endswith("\n")
    assert not out.getvalue().endswith("\n\n")


def test_what_has_been_gone_through_counts_between_the_lines_too(clock: list[float]) -> None:
    out = io.StringIO()
    bar = Bar(range(12), unit="part", file=out, wanted=True)
    for number in bar:
        assert bar.n == number
        clock[0] += 1.0
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["10/12", "12/12"]


def test_a_terminal_has_one_line(clock: list[float]) -> None:
    shown = go(Terminal(), clock, 35, None)
    assert shown.count("\n") == 1
    assert shown.count("\r") > 30
    assert "35/35" in shown


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_it_is_told_too_while_nothing_moves(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AFTER", "EVERY", "_TICK"):
        monkeypatch.setattr(progress, name, 0.05)
    out = kind()
    with Bar(total=3, unit="part", desc="work", file=out, wanted=True):
        while out.getvalue().count("0/3") < 2:
            pass


@pytest.mark.parametrize(
    ("out", "seconds", "wanted"),
    [(Terminal(), 1, True), (io.StringIO(), 1, True), (Terminal(), 35, False), (io.StringIO(), 35, None)],
    ids=["soon over, terminal", "soon over, log", "refused", "a log file that nobody asked for"],
)
def test_else_there_is_nothing(out: io.StringIO, seconds: int, wanted: bool | None, clock: list[float]) -> None:
    assert progress.AFTER == 2.0
    assert go(out, clock, seconds, wanted) == ""


def cycle() -> nd.Network:
    """Return a cyclic network that learns."""
    module = nd.mlp([3, 4, 2], seed=0)
    return nd.models.predictive_coding.network(module)


def scanned(p: float) -> nd.Network:
    populations = [nd.Population("b", 1, clamp=nd.Constant(p)), nd.Population("x", 1)]
    return nd.Network("scanned", populations, [nd.Coupling("b", "x")])


INPUTS, TARGETS = torch.ones(2, 3), torch.zeros(2, 2)
INFERRING = nd.models.predictive_coding.network(nd.mlp([3, 4, 2], seed=0), learning="fa-z-il", step=0.5, steps=7)
LONG = {
    "equilibrium": lambda progress: nd.equilibrium(cycle(), INPUTS, TARGETS, progress=progress),
    "backward to the equilibrium": lambda progress: nd.backward(cycle(), INPUTS, TARGETS, progress=progress),
    "backward for a while": lambda progress: nd.backward(cycle(), INPUTS, TARGETS, duration=2.0, progress=progress),
    "backward by steps": lambda progress: nd.backward(INFERRING, INPUTS, TARGETS, progress=progress),
    "infer": lambda progress: nd.infer(INFERRING, INPUTS, TARGETS, progress=progress),
    "simulate": lambda progress: nd.simulate(cycle(), INPUTS, TARGETS, duration=2.0, progress=progress),
    "lyapunov": lambda progress: nd.analysis.lyapunov(scanned(0.0), duration=3.0, progress=progress),
    "continuation": lambda progress: nd.analysis.continuation(scanned, 0.0, 1.0, step=0.2, progress=progress),
    "fit": lambda progress: nd.train.fit(cycle(), (INPUTS, TARGETS), epochs=2, batch_size=1, progress=progress),
}


@pytest.mark.parametrize("name", LONG)
def test_all_that_may_take_long_tells_how_far_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    for wanted, by_default, shown in (
        (True, None, True),
        (False, True, False),
        (None, None, False),
        (None, True, True),
    ):
        progress.show(by_default)
        LONG[name](wanted)
        progress.show(None)
        lines = capsys.readouterr().err.splitlines()
        assert bool(lines) == shown, (wanted, by_default)
        assert all(re.match("predictive coding|scanned|loss", line) for line in lines), lines
    with pytest.raises(TypeError, match="progress"):
        LONG[name]("yes")


@pytest.mark.parametrize("name", LONG)
def test_what_is_soon_over_tells_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "AFTER", 1e6)
    LONG[name](True)
    assert capsys.readouterr().err == ""


def test_a_bar_that_is_made_late_tells_of_all_that_went_before(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neurodyn.progress.time.time", lambda: clock[0])
    with Late(wanted=True, total=35, unit="s", desc="work") as late:
        assert late is not None
        for _ in range(35):
            clock[0] += 1.0
            late.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["10/35", "20/35", "30/35", "35/35"]
    assert "[00:10<00:25,  1.00s/s]" in lines[0]
    with Late(wanted=True, total=2, unit="s", desc="work") as late:
        assert late is not None
        clock[0] += 1.0
        late.update()
    assert capsys.readouterr().err == ""
    with Late() as late:
        assert late is None


def test_time_has_as_many_digits_as_one_reads_and_ends_at_its_total(clock: list[float]) -> None:
    out = io.StringIO()
    with Bar(total=1000.1, unit="τ", desc="run", file=out, wanted=True) as bar:
        for _ in range(11):
            clock[0] += 10.0
            bar.update(92.428000000000001)
    shown = [line.split()[2] for line in out.getvalue().splitlines()]
    assert shown[:2] == ["92.428/1000.1", "184.86/1000.1"]
    assert shown[-1] == "1000.1/1000.1"

"""Runs that were interrupted end like those that were not; a checkpoint is whole, checked, and of its own run."""

import hashlib
import io
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset

import neurodyn as nd
from neurodyn.errors import FileError
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.train.checkpoint import Checkpoint
from tests.processes import call
from tests.training import RULES, Learning, classes, distance, equal, mlp, parameters

EPOCHS, BATCHES = 3, 3


class Crash(Exception):
    pass


class Fragile(Dataset[Any]):
    """A data set that calls `when_drawn` before it gives its n-th batch, counted from 1, of up to 8 samples."""

    def __init__(self, n: int, when_drawn: Any) -> None:
        self.data, self.n, self.when_drawn, self.drawn = classes(), n, when_drawn, 0

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.data[0][index], self.data[1][index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        batch = 1 < len(indices) <= 8  # fit draws one sample to look at it, and all of them to know them again
        self.drawn += batch
        if batch and self.drawn == self.n:
            self.when_drawn()
        return [self[index] for index in indices]


def fit(network: Learning, folder: Path | None = None, data: Any = None, **arguments: Any) -> xr.Dataset:
    settings = {"epochs": EPOCHS, "batch_size": 8, "checkpoint": folder, "checkpoint_minutes": 0.0, **arguments}
    return nd.train.fit(network, classes() if data is None else data, classes(9, 1), **settings)


def crash() -> None:
    raise Crash


def crash_at(network: Learning, folder: Path, batch: int, **arguments: Any) -> None:
    with pytest.raises(Crash):
        fit(network, folder, Fragile(batch, crash), **arguments)


def assert_same_run(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_identical(*(each.drop_vars("seconds").drop_attrs() for each in (one, other)))


def momentum(parameters: Any) -> Any:
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)


RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{rule: (build, {"record": ["iterations", "angles"]}) for rule, build in RULES.items()},
    "momentum and a scheduler": (RULES["AR simplified"], {"optimizer": momentum}),
    "plateau": (mlp, {"optimizer": lambda p: plateau(torch.optim.RMSprop(p, lr=0.3))}),
    "noise": (lambda seed: pc.network(mlp(seed), steps=3, initial_noise=0.5), {"seed": 4}),
    "a state in another precision": (mlp, {"optimizer": torch.optim.NAdam}),
    "a rate of NumPy's": (RULES["AR"], {"optimizer": lambda p: torch.optim.Adam(p, lr=np.float64(0.01))}),
}


def plateau(optimizer: torch.optim.Optimizer) -> Any:
    return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


@pytest.mark.parametrize("minutes", [0.0, 60.0])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_crashed_and_went_on_equals_one_that_did_not(name: str, minutes: float, tmp_path: Path) -> None:
    build, arguments = RUNS[name]
    arguments = {**arguments, "checkpoint_minutes": minutes}
    whole = build(0)
    history = fit(whole, **arguments)
    for batch in (5, 4):  # counted anew after each crash
        crash_at(build(0), tmp_path, batch, **arguments)
    network = build(0)
    assert_same_run(fit(network, tmp_path, **arguments), history)
    assert equal(network, whole)
    assert not equal(network, build(0))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), max_size=8), st.sampled_from([0.0, 60.0]))
def test_crashes_anywhere(tmp_path_factory: pytest.TempPathFactory, crashes: list[int], minutes: float) -> None:
    folder, build = tmp_path_factory.mktemp("run"), RULES["AR simplified"]
    for batch in crashes:
        try:
            fit(build(0), folder, Fragile(batch, crash), checkpoint_minutes=minutes)
        except Crash:
            continue
        break
    network, whole = build(0), build(0)
    assert_same_run(fit(network, folder, checkpoint_minutes=minutes), fit(whole))
    assert equal(network, whole)


class Slow(Dataset[Any]):
    """A data set that takes its time."""

    def __init__(self) -> None:
        self.data = classes(80)

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        time.sleep(0.004)
        return [(self.data[0][i], self.data[1][i]) for i in indices]


def train(name: str, data: Any, folder: Path) -> None:
    """Train, and write what is learned."""
    network = RULES["AR simplified"](0)
    history = fit(network, folder / name, data, epochs=5, record=["iterations"])
    torch.save([p.detach() for p in parameters(network)], folder / f"{name}.pt")
    nd.save(history, folder / f"{name}.nc")


def train_and_kill(folder: Path, kills: int) -> None:
    """Train in children, so many of which are killed."""
    draw = random.Random(0)
    train("whole", Slow().data, folder)  # first: a child that imported what that needs would be killed before it trains
    killed = 0

    def written() -> int | None:
        checkpoint = folder / "killed" / "checkpoint.pt"
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else None

    while not (folder / "killed.nc").exists():
        before = written()
        child = os.fork()
        if child == 0:
            train("killed", Slow(), folder)
            os._exit(0)
        if killed < kills:
            while killed % 3 and written() == before:  # two of three get as far as a new checkpoint
                time.sleep(0.002)
            time.sleep(draw.uniform(0.0, 0.03))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0
    assert killed == kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_process_killed_at_random_moments_ends_like_one_that_was_not(tmp_path: Path) -> None:
    # Without a device of CUDA, whose threads do not survive a fork.
    assert call(train_and_kill, tmp_path, 6, CUDA_VISIBLE_DEVICES="") == (0, "")
    killed, whole = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("killed", "whole"))
    assert all(torch.equal(a, b) for a, b in zip(killed, whole, strict=True))
    assert_same_run(*(nd.load(tmp_path / f"{name}.nc") for name in ("killed", "whole")))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, which a shell has what it starts in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("batch", [2, 3, 5, BATCHES * EPOCHS])
def test_an_interrupt_finishes_the_batch_saves_and_says_how_to_go_on(batch: int, tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    network, whole = RULES["AR"](0), RULES["AR"](0)
    data = Fragile(batch, interrupt)
    with pytest.raises(KeyboardInterrupt, match="call fit again with the same arguments to go on") as caught:
        fit(network, tmp_path, data, checkpoint_minutes=60.0)
    epochs, batches = divmod(batch, BATCHES)
    where = f"after {epochs} of {EPOCHS} epochs" + (f" and {batches} of {BATCHES} batches" if batches else "")
    assert where in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert data.drawn == batch
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_run(fit(network, tmp_path), fit(whole))
    assert equal(network, whole)


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    data = Fragile(2, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fit(mlp(), tmp_path, data)
    assert data.drawn == 2


@pytest.mark.usefixtures("interruptible")
def test_without_a_checkpoint_an_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fit(mlp(), None, Fragile(2, lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_a_run_is_prolonged_and_a_finished_one_gives_its_history(tmp_path: Path) -> None:
    network, longer = RULES["IL"](0), RULES["IL"](0)
    short = fit(network, tmp_path)
    again = RULES["IL"](0)
    repeated = fit(again, tmp_path, Fragile(1, crash))  # draws nothing
    xr.testing.assert_identical(repeated, short.assign_attrs(train="train"))
    assert equal(again, network)
    assert_same_run(fit(network, tmp_path, epochs=5), fit(longer, epochs=5))
    assert equal(network, longer)
    with pytest.raises(ValueError, match="is of a run of 5 epochs; ask for as many or more, not 3"):
        fit(RULES["IL"](0), tmp_path)


def test_a_run_that_a_callback_ended_stays_ended(tmp_path: Path) -> None:
    history = fit(mlp(), tmp_path, epochs=9, callbacks=[lambda history: history.sizes["epoch"] == 2])
    assert history.sizes["epoch"] == 2
    xr.testing.assert_identical(fit(mlp(), tmp_path, epochs=9), history)


def fit_until(
    ends: int, networks: Sequence[Any], folder: Path | None, change: Callable[[int], object], seeds: Any
) -> None:
    """Train, changing the networks after each epoch, up to a crash after one."""

    def callback(history: xr.Dataset) -> None:
        change(history.sizes["epoch"])
        if history.sizes["epoch"] == ends:
            raise Crash

    learned: Any = networks[0] if seeds is None else networks
    with suppress(Crash):
        fit(learned, folder, callbacks=[callback], seeds=seeds)


@pytest.mark.parametrize("name", ["backprop", "AR"])
@pytest.mark.parametrize("seeds", [None, (0, 1)])
def test_what_a_callback_kept_from_learning_does_not_learn_later(name: str, seeds: Any, tmp_path: Path) -> None:
    def run(folder: Path | None, ends: int) -> list[Learning]:
        networks = [RULES[name](seed) for seed in seeds or (0,)]

        def fix(epoch: int) -> None:
            if epoch == 1:
                for network in networks:
                    parameters(network)[0].requires_grad_(False)

        fit_until(ends, networks, folder, fix, seeds)
        return networks

    run(tmp_path, 2)
    for whole, network in zip(run(None, EPOCHS + 1), run(tmp_path, EPOCHS + 1), strict=True):
        assert distance(network, whole) < 1e-12
        assert [p.requires_grad for p in parameters(network)] == [p.requires_grad for p in parameters(whole)]


@pytest.mark.parametrize("seeds", [None, (0, 1)])
def test_a_mode_that_a_callback_chose_stays(seeds: Any, tmp_path: Path) -> None:
    def run(folder: Path | None, ends: int) -> list[nn.Sequential]:
        networks = [mlp(seed).insert(1, nn.BatchNorm1d(7, dtype=torch.float64)) for seed in seeds or (0,)]

        def evaluate(epoch: int) -> None:
            for network in networks:
                network.train(epoch != 1)
                network[1].eval()

        fit_until(ends, networks, folder, evaluate, seeds)
        return networks

    run(tmp_path, 2)
    for whole, network in zip(run(None, EPOCHS + 1), run(tmp_path, EPOCHS + 1), strict=True):
        assert distance(network, whole) < 1e-12
        torch.testing.assert_close(network.state_dict(), whole.state_dict())
        assert [part.training for part in network.modules()] == [part.training for part in whole.modules()]


def test_networks_that_are_trained_at_once_stay_in_one_mode() -> None:
    networks = [mlp(0), mlp(1)]
    with pytest.raises(ValueError, match="in training mode, and others in evaluation mode"):
        fit(networks, seeds=(0, 1), callbacks=[lambda history: networks[1].eval() is None])  # type: ignore[arg-type]


def test_seconds_go_on(tmp_path: Path) -> None:
    crash_at(mlp(), tmp_path, 3)
    history = fit(mlp(), tmp_path)
    assert bool((history.seconds > 0).all())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"batch_size": 11}, "batch_size was 8, and now is 11"),
        ({"seed": 1}, "seeds was '0', and now is '1'"),
        ({"learning_rate": 0.01}, "optimizer was"),
        ({"optimizer": "sgd"}, "optimizer was 'Adam"),
        ({"optimizer": momentum}, "optimizer was"),
        ({"data": classes(20)}, "training samples was 22, and now is 20"),
        ({"record": ["iterations"]}, "recorded was"),
        ({"duration": 1.0}, "network was 'None, duration None"),
        ({"network": mlp()}, "network was \"Network 'activation relaxation'\""),
        ({"network": RULES["AR simplified"](0)}, "network was"),
        ({"network": RULES["AR"](1)}, "began with other parameters than these"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(
    change: dict[str, Any], name: str, tmp_path: Path
) -> None:
    fit(RULES["AR"](0), tmp_path, epochs=1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="left as it is") as caught:
        fit(**{"network": RULES["AR"](0), "folder": tmp_path, **change})
    assert name in str(caught.value)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    fit(mlp(), tmp_path / "a" / "run")
    assert list(contents(tmp_path / "a" / "run")) == ["checkpoint.pt"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_is_noticed_and_nothing_overwritten(saved: Path, data: st.DataObject) -> None:
    original = (saved / "checkpoint.pt").read_bytes()
    content = bytearray(original)
    if data.draw(st.booleans(), "truncated"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:
        content[data.draw(st.integers(0, len(content) - 1), "place")] ^= data.draw(st.integers(1, 255), "change")
    try:
        (saved / "checkpoint.pt").write_bytes(content)
        network = RULES["AR"](0)
        with pytest.raises(ValueError, match=r"is damaged|is no checkpoint"):
            fit(network, saved)
        assert (saved / "checkpoint.pt").read_bytes() == bytes(content)
        assert equal(network, RULES["AR"](0))
    finally:
        (saved / "checkpoint.pt").write_bytes(original)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    fit(RULES["AR"](0), folder, epochs=1)
    return folder


class Program:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_a_checkpoint_cannot_run_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forge(tmp_path / "checkpoint.pt", {"description": {}, "start": Program()})
    with pytest.raises(ValueError, match="holds more than tensors, numbers and text"):
        fit(mlp(), tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"something else", pickle.dumps({"epoch": 3})])
def test_a_foreign_file_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint"):
        fit(mlp(), tmp_path)
    assert contents(tmp_path) == {"checkpoint.pt": content}


def forge(path: Path, state: Any) -> bytes:
    """Write a checkpoint that holds anything, with a checksum that fits."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    content = b"neurodyn checkpoint 3\n" + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    path.write_bytes(content)
    return content


def change(*keys: Any, to: Any) -> Any:
    """Return a function that replaces what a state holds under some keys."""

    def changed(state: Any) -> Any:
        if not keys:
            return to
        part = state
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to
        return state

    return changed


FOREIGN: dict[str, Any] = {
    "a list": change(to=[1, 2]),
    "other keys": change(to={"model": torch.ones(3), "epoch": 3}),
    "no description": change("description", to=None),
    "parameters of another shape": change("tensors", "2.weight", to=torch.ones(3, 3)),
    "parameters that are none": change("tensors", "2.weight", to="text"),
    "no parameters": change("tensors", to={}),
    "a start of another shape": change("start", to=torch.ones(7, 7)),
    "moments of another shape": change("optimizer", "state", 0, "exp_avg", to=torch.ones(3, 3)),
    "moments of one parameter": change("optimizer", "state", 0, to=3),
    "no groups": change("optimizer", to={}),
    "a history of other seeds": change("history", "epochs", "train_loss", to=torch.ones(1, 5)),
    "a history of something else": change("history", "epochs", "loss", to=torch.ones(1, 1)),
    "no history": change("history", to={}),
    "an epoch before the first": change("epoch", to=0),
    "a batch beyond the last": change("batch", to=BATCHES),
    "no random state": change("random", to=[]),
    "a random state of another kind": change("random", 0, 0, to=torch.ones(3)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_content_with_a_fitting_checksum_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    fit(mlp(), tmp_path, epochs=1)
    path = tmp_path / "checkpoint.pt"
    content = forge(path, FOREIGN[kind](Checkpoint(tmp_path).load()))
    network, random = mlp(), torch.get_rng_state()
    with pytest.raises(nd.NeurodynError, match=r"checkpoint\.pt does not hold the state of a run of neurodyn"):
        fit(network, tmp_path)
    assert equal(network, mlp())
    assert contents(tmp_path) == {"checkpoint.pt": content}
    assert torch.equal(torch.get_rng_state(), random)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def another() -> None:
        before = contents(tmp_path)
        with pytest.raises(FileError, match=rf"another run trains with .* \(process {os.getpid()}\)"):
            fit(mlp(), tmp_path)
        assert contents(tmp_path) == before
        fit(mlp(), tmp_path / "other")
        raise Crash

    with pytest.raises(Crash):
        fit(mlp(), tmp_path, Fragile(5, another))
    network, whole = mlp(), mlp()
    assert_same_run(fit(network, tmp_path), fit(whole))
    assert equal(network, whole)


def test_a_failed_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(mlp(), tmp_path, epochs=1)
    before = contents(tmp_path)

    def full(number: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"could not write .*checkpoint\.pt: no space left on device"):
        fit(mlp(), tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    network, whole = mlp(), mlp()
    assert_same_run(fit(network, tmp_path), fit(whole))
    assert equal(network, whole)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").symlink_to(tmp_path / "elsewhere.pt")
    fit(mlp(), tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "checkpoint.pt").is_symlink()
    assert fit(mlp(), tmp_path / "run").sizes["epoch"] == EPOCHS


def test_whether_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        fit(mlp(), tmp_path, resume="always")
    fit(mlp(), tmp_path, epochs=1)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="there is a checkpoint"):
        fit(mlp(), tmp_path, resume="never")
    assert contents(tmp_path) == before
    assert fit(mlp(), tmp_path, resume="always").sizes["epoch"] == EPOCHS
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(NotADirectoryError, match="give a folder"):
        fit(mlp(), file)


def test_a_diverged_run_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def exploding(parameters: Any) -> Any:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 1e80)

    network, good = RULES["AR"](0), RULES["AR"](0)
    with pytest.raises(nd.train.DivergedError, match="the last good state is in") as caught:
        fit(network, tmp_path, epochs=5, optimizer=exploding)
    assert caught.value.epoch == 3
    fit(good, epochs=2, optimizer="sgd", learning_rate=0.1)
    state = Checkpoint(tmp_path).load()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["tensors"].values())
    assert (state["epoch"], caught.value.history.sizes["epoch"]) == (3, 2)
    stored = list(state["tensors"].values())
    assert state["batch"] > 0 or all(torch.equal(a, b) for a, b in zip(stored, parameters(good), strict=True))
    with pytest.raises(nd.train.DivergedError, match="no checkpoint was written before"):
        fit(RULES["AR"](0), tmp_path / "new", optimizer="sgd", learning_rate=1e200, checkpoint_minutes=60.0)


def test_a_state_that_cannot_be_stored_is_refused_before_training(tmp_path: Path) -> None:
    class Named(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            self.param_groups[0]["schedule"] = abs

    network = mlp()
    with pytest.raises(TypeError, match="the state of the optimizer holds a builtin_function_or_method"):
        fit(network, tmp_path, optimizer=Named)
    assert equal(network, mlp())
    assert distance(network, mlp()) == 0


def changed(place: int) -> tuple[Tensor, Tensor]:
    inputs, targets = classes()
    inputs[place] += 1.0
    return inputs, targets


def exchanged() -> tuple[Tensor, Tensor]:
    inputs, targets = classes()
    return inputs[[1, 0, *range(2, len(inputs))]], targets


class Held(Dataset[Any]):
    """A data set that is no tensors."""

    def __init__(self, data: tuple[Tensor, Tensor]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.data[0][index], self.data[1][index]


@pytest.mark.parametrize("kind", [tuple, Held])
@pytest.mark.parametrize("data", [changed(0), changed(13), changed(21), exchanged(), (classes()[0], classes()[1] * 2)])
def test_other_data_of_the_same_length_are_refused(data: tuple[Tensor, Tensor], kind: Any, tmp_path: Path) -> None:
    fit(mlp(), tmp_path, kind(classes()), epochs=1)
    with pytest.raises(ValueError, match=r"is of another run: its training data was"):
        fit(mlp(), tmp_path, kind(data))
    fit(mlp(), tmp_path, kind(classes()))


def test_other_test_data_are_refused(tmp_path: Path) -> None:
    nd.train.fit(mlp(), classes(), classes(9, 1), epochs=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"is of another run: its test data was"):
        nd.train.fit(mlp(), classes(), classes(9, 2), epochs=2, checkpoint=tmp_path)


class Augmented(Held):
    """A data set whose inputs come out otherwise each time, by the generators of PyTorch, NumPy and Python."""

    def __init__(self, data: tuple[Tensor, Tensor], crash_at: int | None = None) -> None:
        super().__init__(data)
        self.crash_at, self.batches = crash_at, 0

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        self.batches += 1 < len(indices) <= 8
        if self.batches == self.crash_at:
            raise Crash
        noise = torch.randn(6) + float(np.random.normal()) + random.gauss(0.0, 1.0)  # noqa: NPY002
        return [(inputs + noise, targets) for inputs, targets in map(self.__getitem__, indices)]


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_a_run_goes_on_with_the_random_numbers_of_all_three_generators(batch: int, tmp_path: Path) -> None:
    whole, network = mlp(), mlp()
    history = fit(whole, None, Augmented(classes()))
    with pytest.raises(Crash):
        fit(mlp(), tmp_path, Augmented(classes(), batch))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    before = random.getstate(), torch.get_rng_state()
    assert_same_run(fit(network, tmp_path, Augmented(classes())), history)
    assert equal(network, whole)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    targets = classes()[0], classes()[1] * 2
    with pytest.raises(ValueError, match=r"is of another run: its training data was"):
        fit(mlp(), tmp_path, Augmented(targets), epochs=9)


def scheduled(make: Any) -> dict[str, Any]:
    def optimizer(parameters: Any) -> Any:
        made = torch.optim.SGD(parameters, lr=0.1)
        return made, make(made)

    return {"optimizer": optimizer}


SCHEDULERS = torch.optim.lr_scheduler


def after_one(optimizer: Any, function: Callable[[int], float]) -> Any:
    """Return a scheduler of schedulers: a constant one, and after the first epoch a function of the epoch."""
    first = SCHEDULERS.ConstantLR(optimizer)
    return SCHEDULERS.SequentialLR(optimizer, [first, SCHEDULERS.LambdaLR(optimizer, function)], [1])


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # of SequentialLR itself, in PyTorch 2.8
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda o: SCHEDULERS.StepLR(o, 2, 0.5), lambda o: SCHEDULERS.StepLR(o, 2, 0.1)),
        (lambda o: SCHEDULERS.StepLR(o, 2), lambda o: SCHEDULERS.StepLR(o, 3)),
        (lambda o: SCHEDULERS.CosineAnnealingLR(o, 3), lambda o: SCHEDULERS.CosineAnnealingLR(o, 4)),
        (lambda o: SCHEDULERS.ReduceLROnPlateau(o, patience=1), lambda o: SCHEDULERS.ReduceLROnPlateau(o, patience=2)),
        (lambda o: SCHEDULERS.LambdaLR(o, lambda e: 0.9**e), lambda o: SCHEDULERS.LambdaLR(o, lambda e: 0.5**e)),
        (lambda o: SCHEDULERS.LambdaLR(o, lambda e: [1.0, 0.5, 0.1, 0.1][e]), lambda o: SCHEDULERS.StepLR(o, 1)),
        (lambda o: after_one(o, lambda e: 0.9**e), lambda o: after_one(o, lambda e: 0.5**e)),
        (
            lambda o: SCHEDULERS.CyclicLR(o, 0.01, 0.1, scale_fn=lambda c: 0.9**c),
            lambda o: SCHEDULERS.CyclicLR(o, 0.01, 0.1, scale_fn=lambda c: 0.5**c),
        ),
    ],
)
def test_another_setting_of_the_scheduler_is_refused(one: Any, other: Any, tmp_path: Path) -> None:
    fit(mlp(), tmp_path, epochs=1, **scheduled(one))
    with pytest.raises(ValueError, match=r"is of another run: its (scheduler|optimizer) was"):
        fit(mlp(), tmp_path, **scheduled(other))
    fit(mlp(), tmp_path, **scheduled(one))


def test_an_optimizer_with_the_parameters_in_another_order_is_refused(tmp_path: Path) -> None:
    def in_groups(*first: int) -> Any:
        def optimizer(parameters: list[nn.Parameter]) -> Any:
            rest = [parameter for place, parameter in enumerate(parameters) if place not in first]
            groups: list[dict[str, Any]] = [{"params": [parameters[i] for i in first], "lr": 0.2}, {"params": rest}]
            return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

        return optimizer

    def module() -> nn.Module:
        return nd.mlp([6, 4, 4, 4, 4], dtype=torch.float64)

    fit(module(), tmp_path, epochs=1, optimizer=in_groups(2))  # the weights of the second layer, or of the third
    with pytest.raises(
        ValueError, match=r"order of the optimizer's parameters was '2\.weight', and now is '4\.weight'"
    ):
        fit(module(), tmp_path, optimizer=in_groups(4))
    fit(module(), tmp_path, optimizer=in_groups(2))


@pytest.mark.parametrize("build", [lambda module: module, ar.network], ids=["module", "AR"])
def test_another_mode_is_refused(build: Any, tmp_path: Path) -> None:
    def module() -> Any:
        return nd.mlp([6, 7, 4], dtype=torch.float64)

    fit(build(module()), tmp_path / "mode", epochs=1)
    with pytest.raises(ValueError, match=r"its modes was '.*in training', and now is '.*in evaluation'"):
        fit(build(module().eval()), tmp_path / "mode")
    frozen = module()
    frozen[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"its parameters was '.*', and now is '.*, fixed'"):
        fit(build(frozen), tmp_path / "mode")

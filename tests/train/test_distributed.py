"""Two processes train as one does, on the same global batches."""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.distributed import distributed_c10d
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import neurodyn as nd
from neurodyn.train.parallel import Processes
from tests import processes
from tests.training import RULES, Learning, classes, parameters

SAMPLES = 21
"""With batches of 5, the last one of an epoch is a single sample, of which one process has none."""
SEEDS = (2, 5)
RUNS = ("backprop", "AR simplified", "Fa-Z-IL", "GAIT", "ensemble")


def train(folder: Path) -> None:
    """Do what each process does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    with nd.train.launched() as device:
        assert device.type == "cpu"
        group = weakref.ref(distributed_c10d._get_default_group())
        for run in RUNS:
            network = build(run)
            history = fit(run, network, device=device)
            save(folder, run, network, history)
        with suppress(RuntimeError):
            fit("AR simplified", build("AR simplified"), checkpoint=folder / "run", callbacks=[crash])
        if Processes().rank == 0:
            copytree(folder / "run", folder / "half")
        for run, kept in (("resumed", "run"), ("begun by one", "one")):
            network = build("AR simplified")
            save(folder, run, network, fit("AR simplified", network, checkpoint=folder / kept, resume="always"))
        stopped = fit("backprop", build("backprop"), callbacks=[lambda history: history.sizes["epoch"] == 2])
        assert stopped.sizes["epoch"] == 2
        with pytest.raises(
            ValueError, match="BatchNorm1d in training mode would take the statistics of each process's"
        ):
            fit("backprop", nn.Sequential(*build("backprop"), nn.BatchNorm1d(4).double()))
    assert group() is None, "the group's threads outlive the training, and may abort the process at its end"


def crash(history: xr.Dataset) -> None:
    if history.sizes["epoch"] == 2:
        raise RuntimeError


def build(run: str) -> Any:
    return [RULES["AR"](seed) for seed in SEEDS] if run == "ensemble" else RULES[run](1)


def fit(run: str, network: Any, **arguments: Any) -> xr.Dataset:
    seeds = {"seeds": SEEDS} if run == "ensemble" else {"seed": 4}
    return nd.train.fit(
        network,
        classes(SAMPLES),
        classes(9, 1),
        **{"epochs": 3, "batch_size": 5, "record": ["iterations", "angles"], **seeds, **arguments},
    )


def members(network: Any) -> list[Learning]:
    return network if isinstance(network, list) else [network]


def save(folder: Path, run: str, network: Any, history: xr.Dataset) -> None:
    """Write what each process ended with."""
    rank = Processes().rank
    torch.save([p.detach() for each in members(network) for p in parameters(each)], folder / f"{run}.{rank}.pt")
    nd.save(history, folder / f"{run}.{rank}.nc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train as `torchrun --standalone --nproc-per-node=2` would."""
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.raises(RuntimeError):
        fit("AR simplified", build("AR simplified"), checkpoint=folder / "one", callbacks=[crash])
    processes.forks()
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="forkserver",
        monitor_interval=0.1,
    )
    elastic_launch(launch, train)(folder)
    return folder


@pytest.mark.parametrize("run", [*RUNS, "resumed", "begun by one"])
def test_two_processes_train_as_one(run: str, folder: Path) -> None:
    name = run if run in RUNS else "AR simplified"
    network = build(name)
    history = fit(name, network)
    own = [p.detach() for each in members(network) for p in parameters(each)]
    ranks = [torch.load(folder / f"{run}.{rank}.pt", weights_only=True) for rank in range(2)]
    for mine, first, second in zip(own, *ranks, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, mine, rtol=0, atol=1e-9)
    for rank in range(2):
        found = nd.load(folder / f"{run}.{rank}.nc")
        for variable in history.drop_vars("seconds").data_vars:
            np.testing.assert_allclose(found[variable], history[variable], rtol=1e-7, atol=1e-5, err_msg=str(variable))
        assert found.attrs["processes"] == 2


def test_a_run_of_two_processes_is_gone_on_with_by_one(folder: Path) -> None:
    whole, network = build("AR simplified"), build("AR simplified")
    expected = fit("AR simplified", whole)
    history = fit("AR simplified", network, checkpoint=folder / "half", resume="always")
    np.testing.assert_allclose(history.train_loss, expected.train_loss, rtol=1e-10)
    for mine, other in zip(parameters(network), parameters(whole), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


def test_one_process_by_itself() -> None:
    with nd.train.launched("cpu") as device:
        group = Processes()
        assert device == torch.device("cpu")
        assert (group.size, group.rank) == (1, 0)
        assert torch.equal(group.share(torch.arange(5)), torch.arange(5))

"""What pays on this machine, as `tune` tells it."""

import torch

import neurodyn as nd
from neurodyn.layers import tuning
from neurodyn.layers.kernels import LIBRARIES, kernels_in_use


def test_it_recommends_what_took_less_time_and_changes_nothing(monkeypatch) -> None:
    monkeypatch.setattr(tuning, "_SECONDS", 0.02)
    found = nd.tune()
    assert kernels_in_use() == "torch"
    for library in LIBRARIES[1:]:
        pays = bool((found.seconds.sel(library=library) < 0.9 * found.seconds.sel(library="torch")).all())
        assert (library == found.attrs["kernels"]) == pays
    assert found.attrs["threads"] == torch.get_num_threads()
    assert bool((found.seconds.sel(library="torch") > 0).all())
    nd.kernels(found.kernels)
    assert kernels_in_use() == found.kernels
    nd.kernels()

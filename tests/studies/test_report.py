"""What a study leaves behind."""

import matplotlib.pyplot as plt
import pytest
import xarray as xr
from common.report import write

import neurodyn as nd


def test_results_are_kept_where_a_figure_cannot_be_drawn(tmp_path):
    figure, ax = plt.subplots()
    ax.set_xscale("log")
    ax.set_xlim(1, 2)
    ax.xaxis.set_major_formatter(lambda *_: str(1 / 0))
    found = xr.Dataset({"x": ("time", [1.0, 2.0])})
    with pytest.raises(ZeroDivisionError):
        write(tmp_path, {"drawn": figure}, {"found": found}, {"setting": "any"})
    plt.close(figure)
    assert nd.load(tmp_path / "found.nc").identical(found.assign_attrs(setting="any"))

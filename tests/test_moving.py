"""Films: as many frames as asked for, which show the right moments, and nothing that could not be shown."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.animation import FFMpegWriter
from PIL import Image

import neurodyn as nd
from neurodyn.plot import moving

matplotlib.use("agg")


def trajectory() -> xr.Dataset:
    time = np.linspace(0.0, 2.0, 21)
    x = np.exp(-time[:, None] * np.arange(1, 4))
    return xr.Dataset({"x": (("time", "x_unit"), x), "energy": ("time", (x**2).sum(1))}, {"time": time})


def eigenvalues() -> xr.Dataset:
    steps = [0.5, 1.0, 2.0]
    values = np.array([-1 + 1j, -1 - 1j])
    parts = {"growth": values.real, "frequency": values.imag}
    return xr.Dataset({name: (("step", "mode"), np.tile(v, (3, 1))) for name, v in parts.items()}, {"step": steps})


def test_a_film_has_the_frames_asked_for_and_replaces_the_old_one(tmp_path):
    shown = plt.get_fignums()
    reference = xr.Dataset({"x": ("x_unit", [1.0, 0.5, 0.0])})
    path = nd.plot.animate(trajectory(), tmp_path / "new" / "run.gif", reference=reference, seconds=1.0, rate=4)
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == 4
        first = np.asarray(film.convert("RGB")).copy()
        film.seek(3)
        assert not np.array_equal(first, np.asarray(film.convert("RGB")))
    assert list(path.parent.iterdir()) == [path]
    assert plt.get_fignums() == shown


def panel(data, name, along, **options):
    ax = plt.figure().add_subplot()
    update = moving._panel(ax, data, name, along, options.get("reference"), options.get("step"))
    return ax, update


def test_eigenvalues_are_a_curve_only_where_the_film_is_asked_to_run_along_them():
    swept = eigenvalues().isel(mode=[0, 1, 0, 1]).rename(step="gain")
    assert moving._along(swept) == "gain"
    ax, update = panel(swept.isel(gain=0), "growth", "mode")
    update(1)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), swept.growth[0])


def test_a_population_is_drawn_as_it_is_at_the_frame():
    data = trajectory()
    ax, update = panel(data, "x", "time")
    update(7)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), data.x[7])
    low, high = ax.get_ylim()
    assert low < data.x.min()
    assert high > data.x.max()
    ax, update = panel(data, "energy", "time")
    update(7)
    assert ax.lines[1].get_xydata().tolist() == [[data.time[7], data.energy[7]]]
    plt.close("all")


@pytest.mark.parametrize("value", [0.0, -3.0, 1e16, -1e30])
def test_what_stands_still_has_room_above_and_below(value):
    figure, ax = plt.subplots()
    moving._limits(ax, np.full((2, 3), value))
    low, high = ax.get_ylim()
    plt.close(figure)
    assert low < value < high


def test_units_are_told_by_their_numbers():
    chosen = trajectory().assign_coords(x_unit=[7, 0, 5])
    for data, axis in ((chosen, "xaxis"), (chosen.expand_dims(γ=[0.1, 1.0]), "yaxis")):
        ax, _ = panel(data, "x", "time")
        ax.figure.draw_without_rendering()
        axis = getattr(ax, axis)
        shown = {tick: label.get_text() for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)}
        assert {0: "7", 1: "0", 2: "5"}.items() <= shown.items()
        assert set(shown.values()) <= {"7", "0", "5", ""}
    plt.close("all")


@pytest.mark.parametrize("step", [None, 0.25])
def test_the_circle_is_where_a_step_of_euler_s_method_is_stable(step):
    ax, update = panel(eigenvalues(), "growth", "step", step=step)
    for frame, h in enumerate([0.5, 1.0, 2.0] if step is None else [step] * 3):
        update(frame)
        (circle,) = ax.patches or ax.artists
        for angle in np.linspace(0, 6, 7):
            λ = complex(*circle.center) + circle.radius * np.exp(1j * angle)
            assert abs(1 + h * λ) == pytest.approx(1)
    plt.close("all")


def test_a_sweep_runs_along_its_parameter_and_draws_what_is_left():
    values = np.arange(24.0).reshape(2, 4, 3)
    data = xr.Dataset({"x": (("γ", "time", "x_unit"), values)}, {"γ": [0.1, 1.0], "time": [0.0, 1.0, 2.0, 3.0]})
    ax, update = panel(data, "x", "γ")
    update(1)
    np.testing.assert_array_equal(ax.collections[0].get_array(), values[1].T)
    assert moving._frames(data, "γ", 4) == [0, 0, 1, 1]
    assert moving._where(data, "γ", 0) == "γ = 0.1"
    plt.close("all")


@pytest.mark.parametrize("own", [(), ("x_unit",)])
def test_what_is_drawn_across_stands_where_its_values_are(own):
    for given, places in (
        ([0.5, 1.0, 8.0], [0.5, 1.0, 8.0]),
        (["a", "b", "c"], [0, 1, 2]),
        ([3.0, 1.0, 2.0], [0, 1, 2]),
    ):
        data = xr.Dataset({"x": (("time", "γ", *own), np.ones((2, 3, *(2 for _ in own))))}, {"γ": given})
        ax, _ = panel(data, "x", "time")
        ax.figure.draw_without_rendering()
        if own:
            edges = ax.collections[0].get_coordinates()[0, :, 0]
            assert all(low < place < high for low, place, high in zip(edges, places, edges[1:], strict=False))
        else:
            np.testing.assert_array_equal(ax.lines[0].get_xdata(), places)
        if places != given:
            ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
            assert {tick: label.get_text() for tick, label in ticks if label.get_text()} == {
                place: str(each) for place, each in zip(places, given, strict=True)
            }
    plt.close("all")


def test_time_goes_at_an_even_pace_however_it_was_saved():
    data = xr.Dataset({"x": ("time", np.arange(4.0))}, {"time": [0.0, 1.0, 2.0, 8.0]})
    assert moving._frames(data, "time", 5) == [0, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("data", "path", "options", "message"),
    [
        (trajectory(), "a.mov", {}, "must end in .gif or .mp4"),
        (trajectory(), "a.gif", {"along": "step"}, "no dimension 'step'"),
        (trajectory()[["x"]].isel(time=0), "a.gif", {}, "no time, and no other dimension"),
        (trajectory(), "a.gif", {"seconds": 0}, "seconds must be positive"),
        (trajectory().expand_dims(sample=2, network=2), "a.gif", {}, "choose, as in .isel("),
        (xr.Dataset({f"x{i}": ("time", [0.0, 1.0]) for i in range(13)}), "a.gif", {}, "at most 12"),
        (trajectory(), "a.gif", {"reference": xr.Dataset({"x": ("x_unit", [1.0])})}, "choose one sample"),
    ],
)
def test_what_is_wrong_is_said(data, path, options, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        nd.plot.animate(data, tmp_path / path, **options)
    assert isinstance(raised.value, nd.NeurodynError)
    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_an_mp4_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(ImportError, match="pip install imageio-ffmpeg"):
        nd.plot.animate(trajectory(), tmp_path / "a.mp4")

"""A dataset in motion: relaxations, sweeps, and eigenvalues against the circle in which a step is stable."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from neurodyn.checks import file_path, flag, positive, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError, MissingExtraError
from neurodyn.labelled import xr
from neurodyn.plot.figures import style
from neurodyn.progress import Bar
from neurodyn.simulation.partial import replacing
from neurodyn.view.colours import BLUE, GREY, VERMILION
from neurodyn.view.dims import ALONG, along_of, is_own, numbers_of, numeric

_MOST_PANELS = 12
_ACROSS = 4
_MOST_FRAMES = 20_000
_RESOLUTION = 100

Update = Callable[[int], object]
"""What shows a panel at a place along the dimension that becomes the film's time."""


def animate(
    data: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    along: str | None = None,
    reference: xr.Dataset | None = None,
    step: float | None = None,
    seconds: float = 6.0,
    rate: int = 15,
    progress: bool | None = None,
) -> Path:
    """Write a film of a dataset: each variable has a panel, and one dimension becomes the film's time.

    A population is drawn over its units, a number as a curve with a moving mark, and what depends on one more dimension
    as a map. `growth` and `frequency` over `mode`, as `nd.analysis.stability` returns them, become eigenvalues λ in the
    plane, with the circle |1 + h λ| = 1 within which a step h of Euler's method is stable.

    Parameters
    ----------
    data
        A trajectory, an inference, a sweep; of other dimensions, such as sample, choose one: `.isel(sample=0)`.
    path
        Where; `.gif`, or `.mp4` where ffmpeg is installed. Folders are made, an existing file is replaced.
    along
        The dimension that becomes time; by default time, step or epoch, or else the longest that is not of units or
        eigenvalues.
    reference
        What populations are compared with, such as `nd.analysis.backprop(…)`: drawn in grey behind them.
    step
        h of the circle; by default the coordinate `step`, if the film runs along that.
    seconds
        How long the film is.
    rate
        Frames a second.
    progress
        As of `nd.simulate`.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError, ValueError
        If it is no dataset, has no such dimension, or more dimensions or variables than can be drawn.
    ImportError
        If it should be an `.mp4`, and ffmpeg is not installed.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 3, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=2.0, save_at=5).isel(sample=0)
    >>> nd.plot.animate(run, "leak.gif", seconds=0.2).name
    'leak.gif'
    """
    if not isinstance(data, xr.Dataset):
        raise InvalidTypeError(f"data must be an xarray.Dataset, not {type(data).__name__}")
    if not (reference is None or isinstance(reference, xr.Dataset)):
        raise InvalidTypeError(f"reference must be an xarray.Dataset, not {type(reference).__name__}")
    if not (along is None or isinstance(along, str)):
        raise InvalidTypeError(f"along must be the name of a dimension, not {type(along).__name__}")
    if progress is not None:
        flag("progress", progress)
    path, rate = file_path("path", path), whole("rate", rate, least=1)
    writer = _writer(path, rate)
    count = max(2.0, float(positive("seconds", seconds)) * rate)
    if count > _MOST_FRAMES:
        raise InvalidValueError(f"seconds: a film of {count:.3g} pictures; {_MOST_FRAMES:,} are the most")
    step = None if step is None else positive("step", step)
    shown = numeric(data)
    name = _along(shown) if along is None else along
    if name is None:
        raise InvalidValueError(
            "data: it has no time, and no other dimension than those of units, for a film to run along; give a run"
        )
    if name not in shown.dims:
        raise InvalidValueError(
            f"along: the dataset has no dimension {name!r}; it has {', '.join(map(str, data.dims))}"
        )
    panels = _panels(shown, str(name))
    if reference is not None and not set(panels) & set(map(str, reference.data_vars)):
        raise InvalidValueError(f"reference: it has none of {', '.join(panels)}")
    frames = _frames(shown, str(name), round(count))
    with style(), plt.ioff():
        across = min(_ACROSS, len(panels))
        down = math.ceil(len(panels) / across)
        figure, axes = plt.subplots(down, across, figsize=(max(3.6, 2.2 * across), 0.5 + 1.8 * down), squeeze=False)
        try:
            updates = [
                _panel(ax, shown, title, str(name), reference, step)
                for ax, title in zip(axes.flat, panels, strict=False)
            ]
            for ax in axes.flat[len(panels) :]:
                ax.set_axis_off()
            title = figure.suptitle(" ", fontsize=10)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # so that nothing moves but what is shown
            with replacing(path) as partial, writer.saving(figure, str(partial), _RESOLUTION):
                for frame in Bar(frames, wanted=progress, unit="frame", desc=path.name):
                    for update in updates:
                        update(frame)
                    title.set_text(_where(shown, str(name), frame))
                    writer.grab_frame()
        finally:
            plt.close(figure)
    return path


def _writer(path: Path, rate: int) -> AbstractMovieWriter:
    if path.suffix == ".gif":
        return PillowWriter(fps=rate)
    if path.suffix != ".mp4":
        raise InvalidValueError(f"path: {path.name!r} must end in .gif or .mp4")
    if not FFMpegWriter.isAvailable():
        raise MissingExtraError(
            f"path: {path.name!r} needs ffmpeg, which matplotlib does not find: install it by your system's packages, "
            "or `pip install imageio-ffmpeg` and set matplotlib.rcParams['animation.ffmpeg_path'] to "
            "imageio_ffmpeg.get_ffmpeg_exe(); or write a .gif"
        )
    return FFMpegWriter(fps=rate)


def _panels(data: xr.Dataset, along: str) -> list[str]:
    """Return the names of the variables that have a panel; `growth` stands for the eigenvalues."""
    names = []
    for name, variable in data.data_vars.items():
        if along not in variable.dims or (name == "frequency" and _eigenvalues(data, along)):
            continue
        others = [dim for dim in variable.dims if dim != along and not is_own(str(dim)) and variable.sizes[dim] > 1]
        if len(others) > 1:
            dims = ", ".join(f"{dim}=0" for dim in others)
            raise InvalidValueError(f"data: {name} has more dimensions than a film; choose, as in .isel({dims})")
        names.append(str(name))
    if not names:
        raise InvalidValueError(f"along: no variable of the dataset changes along {along!r}")
    if len(names) > _MOST_PANELS:
        raise InvalidValueError(
            f"data: {len(names)} variables, and a film shows at most {_MOST_PANELS}; choose, as in data[['x1', 'x2']]"
        )
    return names


def _along(data: xr.Dataset) -> str | None:
    """Return what a film runs along of itself: not over eigenvalues, which are drawn at once, as units are."""
    return along_of(data.isel(mode=0) if _eigenvalues(data, None) else data)


def _eigenvalues(data: xr.Dataset, along: str | None) -> bool:
    return along != "mode" and all(name in data and "mode" in data[name].dims for name in ("growth", "frequency"))


def _frames(data: xr.Dataset, along: str, count: int) -> list[int]:
    """Return which places are shown: evenly in time, or one after the other along anything else."""
    places = np.arange(data.sizes[along])
    positions = _positions(data, along) if along in ALONG else places
    wanted = np.linspace(positions[0], positions[-1], count)
    return [int(np.abs(positions - each).argmin()) for each in wanted]


def _positions(data: xr.Dataset, dim: str) -> NDArray[np.float64]:
    values = data[dim].values
    if values.dtype.kind in "fiu" and np.isfinite(values).all() and bool(np.all(np.diff(values) > 0)):
        return values.astype(float)
    return np.arange(data.sizes[dim], dtype=float)


def _where(data: xr.Dataset, along: str, frame: int) -> str:
    value = data[along].values[frame]
    return f"{along} = {value:.4g}" if isinstance(value, (float, np.floating)) else f"{along} = {value}"


def _panel(
    ax: Axes, data: xr.Dataset, name: str, along: str, reference: xr.Dataset | None, step: float | None
) -> Update:
    """Draw what stays, and return what draws the rest."""
    if name == "growth" and _eigenvalues(data, along):
        return _plane(ax, data, along, step)
    variable = data[name].squeeze([dim for dim in data[name].dims if dim != along and data[name].sizes[dim] == 1])
    own = [dim for dim in variable.dims if is_own(str(dim))]
    other = [dim for dim in variable.dims if dim != along and dim not in own]
    ax.set_title(name)
    values = variable.transpose(along, *other, *own).values.astype(float)
    if len(own) == 1:
        _number(ax.yaxis if other else ax.xaxis, numbers_of(variable, str(own[0])))
    if other and own:
        return _map(ax, values.reshape(*values.shape[:2], -1), _places(ax, data, str(other[0])), str(other[0]))
    if other:
        return _lines(ax, values, _places(ax, data, str(other[0])), str(other[0]), None)
    if own:
        values = values.reshape(len(values), -1)
        behind = None if reference is None or name not in reference else reference[name].squeeze()
        grey = None if behind is None else behind.values.astype(float).ravel()
        if grey is not None and grey.size != values.shape[1]:
            raise InvalidValueError(
                f"reference: {name} has {grey.size} values there, and {values.shape[1]} units here; choose one sample"
            )
        return _lines(ax, values, np.arange(values.shape[1]), "unit", grey)
    return _curve(ax, values, _places(ax, data, along), along)


def _places(ax: Axes, data: xr.Dataset, dim: str) -> NDArray[np.float64]:
    """Return the places along a dimension that is drawn across; where its values are none, they are told there."""
    places, values = _positions(data, dim), data[dim].values
    if not np.array_equal(places, values):
        _number(ax.xaxis, values.tolist())
    return places


def _number(axis: Axis, numbers: list[float | str]) -> None:
    """Have an axis of units tell their numbers where they are not counted from 0."""
    if numbers:
        axis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.set_major_formatter(lambda x, _: str(numbers[int(x)]) if 0 <= x < len(numbers) else "")


def _limits(ax: Axes, *values: NDArray[Any] | None) -> None:
    whole = np.concatenate([each[np.isfinite(each)].ravel() for each in values if each is not None])
    low, high = (float(whole.min()), float(whole.max())) if whole.size else (0.0, 1.0)
    room = 0.06 * (high - low) or max(0.5, 1e-3 * abs(high))
    ax.set_ylim(low - room, high + room)


def _lines(ax: Axes, values: NDArray[Any], x: NDArray[Any], label: str, reference: NDArray[Any] | None) -> Update:
    look: dict[str, Any] = {"drawstyle": "steps-mid"} if label == "unit" and len(x) > 1 else {"marker": "."}
    if reference is not None:
        ax.fill_between(x, reference, step="mid" if len(x) > 1 else None, color=GREY, alpha=0.35, linewidth=0)
    (line,) = ax.plot(x, values[0], color=BLUE, linewidth=1.2, **look)
    _limits(ax, values, reference)
    ax.set_xlabel(label)
    return lambda frame: line.set_ydata(values[frame])


def _curve(ax: Axes, values: NDArray[Any], x: NDArray[Any], label: str) -> Update:
    ax.plot(x, values, color=BLUE, linewidth=1.2)
    (mark,) = ax.plot([x[0]], [values[0]], "o", color=VERMILION, markersize=5)
    _limits(ax, values)
    ax.set_xlabel(label)
    return lambda frame: mark.set_data([x[frame]], [values[frame]])


def _map(ax: Axes, values: NDArray[Any], x: NDArray[np.float64], label: str) -> Update:
    """Draw units down and another dimension across, in colours that stay the same."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    both = low < 0 < high
    most = max(-low, high)
    image = ax.pcolormesh(
        x, np.arange(values.shape[2]), values[0].T, cmap="RdBu_r" if both else "viridis", shading="nearest",
        vmin=-most if both else low, vmax=most if both else high,
    )  # fmt: skip
    ax.set(xlabel=label, ylabel="unit")
    ax.invert_yaxis()
    ax.figure.colorbar(image, ax=ax)
    return lambda frame: image.set_array(values[frame].T)


def _plane(ax: Axes, data: xr.Dataset, along: str, step: float | None) -> Update:
    """Draw eigenvalues in the plane, and the circle around −1/h of radius 1/h."""
    real, imaginary = (
        data[name].transpose(along, "mode", ...).values.reshape(data.sizes[along], -1)
        for name in ("growth", "frequency")
    )
    steps = np.full(len(real), step) if step is not None else _positions(data, along) if along == "step" else None
    circle = Circle((0, 0), 1.0, facecolor=GREY, alpha=0.2, edgecolor=GREY)
    if steps is not None:
        ax.add_artist(circle)
    (points,) = ax.plot(real[0], imaginary[0], ".", color=VERMILION)
    ax.axvline(0, color=GREY, linewidth=0.6)
    most = 1.15 * max(float(np.abs(imaginary).max()), float(np.abs(real).max()) / 2, 0.5)
    centre = (float(real.min()) + max(0.0, float(real.max()))) / 2
    ax.set(aspect="equal", xlim=(centre - 1.5 * most, centre + 1.5 * most), ylim=(-most, most))
    factor = "h" if step is None else f"{step:g}"
    title = "eigenvalues" if steps is None else f"eigenvalues; |1 + {factor} λ| < 1"
    ax.set(title=title, xlabel="Re λ", ylabel="Im λ")

    def update(frame: int) -> None:
        points.set_data(real[frame], imaginary[frame])
        if steps is not None:
            circle.set(center=(-1 / steps[frame], 0), radius=1 / steps[frame])

    return update

"""The look of every figure, and its file."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from neurodyn.checks import file_path
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.simulation.partial import replacing
from neurodyn.view.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION


def style() -> AbstractContextManager[None]:
    """Return a context in which figures have the common look: Okabe–Ito colours, constrained layout, open axes.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import neurodyn as nd
    >>> with nd.plot.style():
    ...     figure, ax = plt.subplots()
    >>> ax.spines["top"].get_visible()
    False
    """
    return plt.rc_context(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": 150,
            "pdf.fonttype": 42,
            "font.size": 9,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK]),
            "legend.frameon": False,
        }
    )


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure, under a temporary name until it is complete.

    Parameters
    ----------
    figure
        The figure.
    path
        Where; the suffix tells the format, e.g. `.png` or `.pdf`. Folders are made, an existing file is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError, ValueError
        If it is no figure, or the path's suffix is that of no format.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import neurodyn as nd
    >>> nd.plot.save_figure(plt.figure(), "figure.png").name
    'figure.png'
    """
    if not isinstance(figure, Figure):
        raise InvalidTypeError(f"figure must be a matplotlib figure, not {type(figure).__name__}")
    path = file_path("path", path)
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in formats:
        raise InvalidValueError(f"path: {path.name!r} must end in .png, .pdf or another of {', '.join(formats)}")
    with replacing(path) as partial:
        figure.savefig(partial)
    return path

"""What every study leaves behind: its figures, its datasets, and tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

import neurodyn as nd
from neurodyn import plot


def write(
    out: Path, figures: Mapping[str, Figure], datasets: Mapping[str, xr.Dataset], about: Mapping[str, str]
) -> str:
    """Write datasets as NetCDF and figures as PNG and PDF, close the figures, and return the list of files.

    Parameters
    ----------
    out
        The folder.
    figures, datasets
        By file name, without suffix.
    about
        What ran: attributes of every dataset.
    """
    files = [nd.save(data.assign_attrs(about), out / f"{name}.nc") for name, data in datasets.items()]
    for name, figure in figures.items():
        files.append(plot.save_figure(figure, out / f"{name}.png"))
        figure.set_layout_engine("none")  # the axes keep their places, which to find again takes as long as to draw
        files.append(plot.save_figure(figure, out / f"{name}.pdf"))
        plt.close(figure)
    return "\n".join(["Written:", *(f"  {file}" for file in files)])


def number_of(count: int, what: str) -> str:
    """Return how many there are of what, in words: "one seed", "3 seeds"."""
    return f"one {what}" if count == 1 else f"{count} {what}s"


def short(value: float) -> str:
    """Return two digits that count, and no exponent below 10,000."""
    return f"{value:.0e}".replace("e+0", "e") if value >= 1e4 else f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in (header, ["─" * width for width in widths], *rows)
    )

"""What the benchmarks found, as text, figures, and a section of `docs/benchmarks.md` for each processor."""

from __future__ import annotations

import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

KINDS = {
    "backprop": ("backprop", "#D55E00", "o"),
    "by hand": ("a loop by hand", "#009E73", "s"),
    "one by one": ("one network after the other", "#CC79A7", "v"),
    "neurodyn, ": ("neurodyn, otherwise", "#56B4E9", "P"),
    "vector field": ("its arithmetic or bytes alone", "0.4", "|"),
    "writing": ("its arithmetic or bytes alone", "0.4", "|"),
    "torchdiffeq": ("torchdiffeq, each method", "#0072B2", "^"),
    "": ("diffrax or torchode, each method", "#E69F00", "D"),
}
"""By how the name of a way begins: what the legend calls it, its colour and its marker."""


_COLUMNS = {
    "width": ("depth", 3, "units a layer"),
    "depth": ("width", 128, "layers"),
    "batch": ("width", 300, "samples"),
}
"""By what is varied: where it is, and what the axis says."""


def save_figures(
    table: xr.Dataset, growth: xr.Dataset, relaxations: xr.Dataset, folder: Path, suffix: str = ""
) -> list[Path]:
    """Draw the lines, the growth of gradients and that of relaxations, and return the files."""
    files = [folder / f"{name}{suffix}.png" for name in ("lines", "growth", "relaxations")]
    _plot_lines(table, files[0])
    _plot_growth(growth, files[1])
    _plot_relaxations(relaxations, files[2])
    return files


def _plot_lines(table: xr.Dataset, file: Path) -> None:
    """Draw how many times as long as neurodyn each other way takes: all lines on one axis, in groups."""
    others = table.isel(row=np.flatnonzero(table["way"] != "neurodyn"))
    names = list(dict.fromkeys(zip(table["group"].values, table["line"].values, strict=True)))
    places: dict[str, float] = {}
    heads: dict[str, float] = {}
    height = 0.0
    for group, name in names:
        if group not in heads:
            heads[group] = height + 0.5
            height += 1.2
        places[name] = height
        height += 1.0
    figure, ax = plt.subplots(figsize=(9, 0.23 * height + 0.9), layout="constrained")
    drawn: set[str] = set()
    for row in range(others.sizes["row"]):
        one = others.isel(row=row)
        label, colour, marker = next(kind for start, kind in KINDS.items() if one["way"].item().startswith(start))
        time = 1.0 / one["ratio"].item()
        spread = [[time - 1.0 / one["ratio_high"].item()], [1.0 / one["ratio_low"].item() - time]]
        ax.errorbar(
            time,
            places[one["line"].item()],
            xerr=spread,
            fmt=marker,
            ms=5,
            mew=1.6 if marker == "|" else 0.5,
            color=colour,
            mec=colour if marker == "|" else "white",
            elinewidth=0.8,
            label=None if label in drawn else label,
        )
        drawn.add(label)
    for group, place in heads.items():
        ax.text(0.0, place, f" {group}", transform=ax.get_yaxis_transform(), fontsize=9, fontweight="bold", va="center")
    ax.axvline(1.0, color="0.2", lw=0.9)
    ax.set(xscale="log", ylim=(height - 0.3, -0.2), xlabel="time / neurodyn's (right of 1: neurodyn is faster)")
    ax.set_yticks(list(places.values()), list(places), fontsize=8)
    ax.grid(axis="y", color="0.92", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(file, dpi=160)
    plt.close(figure)


def _plot_growth(growth: xr.Dataset, file: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for ax, (name, (other, at, label)) in zip(axes, _COLUMNS.items(), strict=True):
        points = growth.isel(point=np.flatnonzero(growth[other] == at))
        for colour, marker, rule in zip(("#0072B2", "#D55E00", "#009E73"), "osD", growth["rule"].values, strict=True):
            ax.plot(points[name], points["ratio"].sel(rule=rule), marker=marker, color=colour, label=rule)
        ax.axhline(1.0, color="0.5", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    axes[0].set_ylabel("time / backprop's")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=160)
    plt.close(figure)


def _plot_relaxations(growth: xr.Dataset, file: Path) -> None:
    """Draw time, evaluations and memory over the sizes: a colour a relaxation, and a line style a way."""
    rows = {
        "time / backprop's": growth["seconds"] / growth["seconds"].sel(way="backprop"),
        "evaluations": growth["evaluations"],
        "memory, MB": growth["memory"] / 1e6,
    }
    styles = {"neurodyn": ("-", "o"), "torchdiffeq": (":", "^"), "diffrax": ("--", "D")}
    colours = dict(zip(growth["relaxation"].values, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
    figure, axes = plt.subplots(3, 3, figsize=(10, 8), sharex="col", sharey="row", layout="constrained")
    for line, (what, values) in zip(axes, rows.items(), strict=True):
        for ax, (name, (other, at, label)) in zip(line, _COLUMNS.items(), strict=True):
            points = values.isel(point=np.flatnonzero(growth[other] == at))
            for relaxation, colour in colours.items():
                for way, (style, marker) in styles.items():
                    own = points.sel(relaxation=relaxation, way=way)
                    if own.notnull().any():
                        ax.plot(points[name], own, ls=style, marker=marker, ms=4, color=colour)
            ax.set(xscale="log", yscale="log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
            ax.yaxis.set_major_formatter("{x:g}")
            if ax.get_subplotspec().is_last_row():
                ax.set_xlabel(label)
        line[0].set_ylabel(what)
    handles = [Line2D([], [], color=colour, label=relaxation) for relaxation, colour in colours.items()]
    handles += [Line2D([], [], color="0.3", ls=ls, marker=m, ms=4, label=way) for way, (ls, m) in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=7, frameon=False, fontsize=8)
    figure.savefig(file, dpi=160)
    plt.close(figure)


def text(table: xr.Dataset) -> str:
    """Return the table as text."""
    cells = [("line", "way", "ms", "neurodyn / way", "error"), *_cells(table)]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    row = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>>", wide, strict=True))
    return "\n".join(row.format(*each) for each in cells)


def write_section(page: Path, table: xr.Dataset, growth: xr.Dataset, relaxations: xr.Dataset) -> None:
    """Write what was found into the page's section for this processor, which is put at its end where there is none."""
    facts = table.attrs
    name = f"{facts['processor']}, {facts['cores']} cores" if facts["gpu"] == "none" else str(facts["gpu"])
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    lines, growing, relaxing = save_figures(table, growth, relaxations, page.parent, f"-{slug}")
    rows = ["| line | way | ms | neurodyn / way (quartiles) | error |", "|---|---|---:|---:|---:|"]
    rows += [f"| {' | '.join(cells)} |" for cells in _cells(table)]
    begin, end = f"<!-- begin {slug}: written by benchmarks/run.py -->", f"<!-- end {slug} -->"
    section = f"""{begin}
## {name}

{facts["threads"]} threads, PyTorch {facts["torch"]}, {facts["blas"]}, kernels {facts["kernels"]}.

![How many times as long as neurodyn each other way takes, line by line]({lines.name})

![Time of a gradient beside backprop's, by units a layer, layers, and samples a batch]({growing.name})

![Time beside backprop's, evaluations and memory of relaxations, by units a layer, layers, and samples]({relaxing.name})

{chr(10).join(rows)}
{end}"""
    old = page.read_text(encoding="utf-8")
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", old, re.DOTALL)
    new = old[: found.start()] + section + old[found.end() :] if found else f"{old.rstrip()}\n\n{section}\n"
    part = page.with_suffix(".part")
    part.write_text(new, encoding="utf-8")
    os.replace(part, page)


def _cells(table: xr.Dataset) -> list[tuple[str, str, str, str, str]]:
    cells = []
    for row in range(table.sizes["row"]):
        one = {name: value.item() for name, value in table.isel(row=row).reset_coords().items()}
        spread = f"{one['ratio']:.2f} ({one['ratio_low']:.2f}–{one['ratio_high']:.2f})"
        checked = "–" if np.isnan(one["error"]) else f"{one['error']:.1e}"
        cells.append((one["line"], one["way"], f"{one['milliseconds']:.2f}", spread, checked))
    return cells

"""The page of benchmarks: a section for each processor."""

from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks import report

FACTS = {
    "processor": "A <chip>",
    "cores": 2,
    "threads": 2,
    "gpu": "none",
    "torch": "2",
    "blas": "b",
    "kernels": "torch",
}


def table(milliseconds: float) -> xr.Dataset:
    columns = {name: ("row", np.array([1.0, 0.5])) for name in ("ratio", "ratio_low", "ratio_high")}
    names = {"group": ["all"] * 2, "line": ["a line"] * 2, "way": ["neurodyn", "backprop"]}
    return xr.Dataset(
        columns | {"milliseconds": ("row", np.full(2, milliseconds)), "error": ("row", np.array([1e-7, np.nan]))},
        {name: ("row", values) for name, values in names.items()},
        FACTS,
    )


def growth() -> xr.Dataset:
    sizes = {"width": [64, 128, 300], "depth": [3, 3, 3], "batch": [64, 64, 64]}
    coordinates = {name: ("point", values) for name, values in sizes.items()}
    return xr.Dataset({"ratio": (("point", "rule"), np.ones((3, 3)))}, {"rule": ["AR", "Z-IL", "IL"], **coordinates})


def relaxations() -> xr.Dataset:
    sizes = {"width": [64, 128, 300], "depth": [3, 3, 3], "batch": [64, 64, 64]}
    coordinates = {name: ("point", values) for name, values in sizes.items()}
    values = (("point", "relaxation", "way"), np.ones((3, 4, 4)))
    names = {"relaxation": list("abcd"), "way": ["neurodyn", "torchdiffeq", "diffrax", "backprop"], **coordinates}
    return xr.Dataset(dict.fromkeys(("seconds", "evaluations", "memory"), values), names)


def test_a_processor_has_one_section_and_leaves_those_of_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nText.\n")
    report.write_section(page, table(3.0).assign_attrs(processor="Another"), growth(), relaxations())
    report.write_section(page, table(4.0), growth(), relaxations())
    report.write_section(page, table(5.0), growth(), relaxations())
    text = page.read_text()
    assert text.startswith("# Title\n\nText.\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Another, 2 cores",
        "## A <chip>, 2 cores",
    ]
    assert "| a line | neurodyn | 3.00 | 1.00 (1.00–1.00) | 1.0e-07 |" in text
    assert "| 4.00 |" not in text
    assert "| a line | backprop | 5.00 | 0.50 (0.50–0.50) | – |" in text
    for name in ("lines-a-chip-2-cores.png", "growth-a-chip-2-cores.png", "relaxations-a-chip-2-cores.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).stat().st_size > 0

"""A dataset as one page of HTML that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodyn.checks import file_path
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.sketch import Sketch
from neurodyn.simulation.partial import replacing
from neurodyn.view.dims import OWN_DIM, along_of, is_own, numbers_of, numeric, words

MOST_BYTES = 20_000_000
"""A page is no larger; what would be is thinned."""
_MOST_RAW = 64_000_000
"""How many bytes of values are compressed at once, to see whether they fit."""
_MOST_TEXT = 20_000
_MOST_TEXTS = 10_000
"""Of how many places a page tells what a variable of texts has there."""
_OF_NETWORKS = ("diagram", "equations")
"""What a sweep over networks keeps of each beside its results."""


def view(data: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a page on which to look at a dataset: in any browser, without a network.

    It shows a heat map of units over time for each population, with the network's diagram to choose among them; spikes
    as a raster; energies, distances and other curves; the traces of units that one clicks; and a slider for each other
    dimension, such as sample, network, or the parameters of a sweep. `?` lists its keys. Its values have single
    precision. A page takes at most 20 MB: of larger datasets every 2nd, 4th, … value is shown, and the page says so.

    Parameters
    ----------
    data
        A trajectory, an inference, a training history, an equilibrium, a sweep of any of them. Time, step or epoch runs
        across; where there is none, the longest dimension that is not of units.
    path
        Where; it ends in `.html`. Folders are made, an existing file is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError
        If it is no dataset, or no path.
    ValueError
        If the path ends in something else, or no variable has numbers.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> module = nd.mlp([4, 3, 2], seed=0)
    >>> network = nd.models.predictive_coding.network(module)
    >>> run = nd.infer(network, torch.ones(2, 4), torch.zeros(2, 2))
    >>> nd.view(run, "run.html").name
    'run.html'
    """
    if not isinstance(data, xr.Dataset):
        hint = "; call .to_dataset(name=…)" if isinstance(data, xr.DataArray) else ""
        raise InvalidTypeError(f"data must be an xarray.Dataset, not {type(data).__name__}{hint}")
    path = file_path("path", path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidValueError(f"path: {path.name!r} must end in .html")
    page = page_of(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def page_of(data: xr.Dataset) -> str:
    """Return the page, at most `MOST_BYTES` of UTF-8; parameters and errors as of `view`."""
    shown = numeric(data)
    along = along_of(shown)
    texts = [name for name in words(data, along) if data[name].size <= _MOST_TEXTS and name not in _OF_NETWORKS]
    left_out = _left_out(data, [*shown.data_vars, *texts])
    begin, middle, end = _frame(data)
    fixed = len((begin + middle + end).encode())
    strides: dict[str, int] = {}
    while True:
        raw = sum(variable.size * _type_of(variable).itemsize for variable in shown.data_vars.values())
        encoded: list[_Encoded] = []
        if raw <= _MOST_RAW:
            encoded = [_encode(str(name), shown[name], along) for name in shown.data_vars]
            meta = _meta(data, shown, along, encoded, _texts(data[texts], strides), _thinned(data, strides) + left_out)
            if fixed + len(meta.encode()) + sum(len(each.text) + 60 for each in encoded) <= MOST_BYTES:
                values = [
                    f'<script type="text/plain" id="values{number}">{each.text}</script>\n'
                    for number, each in enumerate(encoded)
                ]
                return "".join([begin, meta, middle, *values, end])
        heaviest = max(shown.data_vars.values(), key=lambda each: each.size * _type_of(each).itemsize)
        longest = max(heaviest.dims, key=lambda dim: shown.sizes[dim], default="")
        if shown.sizes.get(longest, 1) == 1:
            raise InvalidValueError(
                f"data: its {len(shown.data_vars):,} variables fill more than a page of {MOST_BYTES:,} bytes; choose "
                "some of them, as in data[['x1', 'x2']]"
            )
        strides[str(longest)] = 2 * strides.get(str(longest), 1)
        if longest not in shown.coords:  # what is left is known by the numbers that it had
            shown = shown.assign_coords({longest: np.arange(shown.sizes[longest])})
        shown = shown.isel({longest: slice(None, None, 2)})


def _left_out(data: xr.Dataset, shown: list[Hashable]) -> list[str]:
    return [
        f"{name} is not shown: it holds {variable.dtype if variable.size else 'nothing'}."
        for name, variable in data.data_vars.items()
        if name not in shown and name not in _OF_NETWORKS
    ]


def _texts(data: xr.Dataset, strides: dict[str, int]) -> list[dict[str, Any]]:
    thinned = data.isel({dim: slice(None, None, stride) for dim, stride in strides.items() if dim in data.dims})
    return [
        {"name": name, "others": list(each.dims), "values": [_short(str(text), 200) for text in each.values.flat]}
        for name, each in thinned.data_vars.items()
    ]


def _thinned(data: xr.Dataset, strides: dict[str, int]) -> list[str]:
    return [f"Thinned: one in {stride} of {data.sizes[dim]:,} along {dim}." for dim, stride in strides.items()]


def _type_of(variable: xr.DataArray) -> np.dtype[Any]:
    """Return in what the page holds a variable: a bit in a byte, or single precision; what has few values, double."""
    if variable.dtype.kind == "b":
        return np.dtype("u1")
    own = any(is_own(str(dim)) for dim in variable.dims)
    return np.dtype("<f4") if own or variable.size > 100_000 else np.dtype("<f8")


@dataclass(frozen=True)
class _Encoded:
    """A variable as text: its values by rows of what runs across, and what the page has to know of them."""

    text: str
    about: dict[str, Any] = field(repr=False)


def _encode(name: str, variable: xr.DataArray, along: str | None) -> _Encoded:
    dims = [str(dim) for dim in variable.dims]
    own = [dim for dim in dims if is_own(dim)]
    across = [along] if along in dims else []
    others = [dim for dim in dims if dim not in (*own, *across)]
    kind = _type_of(variable)
    values: NDArray[Any] = np.ascontiguousarray(variable.transpose(*others, *own, *across).values.astype(kind))
    finite = values[np.isfinite(values)]
    population = OWN_DIM.fullmatch(own[0]) if own else None
    # Bytes of the same weight stand together, which compresses better.
    planes = values.reshape(-1, 1).view(np.uint8).T
    about = {
        "name": name,
        "label": str(variable.attrs.get("long_name", name)),
        "unit": str(variable.attrs.get("units", "")).removeprefix("1"),
        "population": population[1] if population else name,
        "shape": [[dim.removeprefix(f"{population[1]}_") if population else dim, variable.sizes[dim]] for dim in own],
        "numbers": [_numbers(variable, dim) for dim in own],
        "others": others,
        "across": bool(across),
        "kind": "raster" if own and kind.itemsize == 1 else "map" if own else "curve" if across else "number",
        "bytes": kind.itemsize,
        "low": float(finite.min()) if finite.size else 0.0,
        "high": float(finite.max()) if finite.size else 0.0,
    }
    return _Encoded(base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii"), about)


def _numbers(variable: xr.DataArray, dim: str) -> list[float | str]:
    return [_short(each, 80) if isinstance(each, str) else each for each in numbers_of(variable, dim)]


def _meta(
    data: xr.Dataset,
    shown: xr.Dataset,
    along: str | None,
    encoded: list[_Encoded],
    texts: list[dict[str, Any]],
    notes: list[str],
) -> str:
    sliders = dict.fromkeys(dim for each in [*(each.about for each in encoded), *texts] for dim in each["others"])
    numbers = {name: value for name, value in data.attrs.items() if isinstance(value, int | float | np.number)}
    attributes = {str(name): str(value) for name, value in data.attrs.items() if name != "diagram"}
    meta = {
        "title": _title(data),
        "along": _dimension(shown, along) if along else {"name": "", "label": "", "values": [0], "texts": []},
        "sliders": [_dimension(shown if dim in shown.dims else data, dim) for dim in sliders],
        "variables": [each.about for each in encoded],
        "texts": texts,
        "facts": [[str(name), f"{value:.6g}"] for name, value in numbers.items()],
        "notes": notes,
        "attributes": {name: _short(value) for name, value in attributes.items()},
    }
    # In a script element nothing is escaped but what could end it.
    return json.dumps(meta, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _dimension(data: xr.Dataset, dim: str) -> dict[str, Any]:
    """Return a dimension's coordinates as texts, and as numbers if they increase; else it is counted."""
    size = data.sizes[dim]
    coordinate = data[dim] if dim in data.coords else None
    values = np.arange(size) if coordinate is None else coordinate.values
    numeric = values.dtype.kind in "fiub"
    rising = numeric and np.isfinite(values.astype(float)).all() and bool(np.all(np.diff(values.astype(float)) > 0))
    attributes = {} if coordinate is None else coordinate.attrs
    unit = str(attributes.get("units", "1"))
    return {
        "name": dim,
        "label": dim + (f" ({unit.replace('tau', 'τ')})" if unit != "1" else ""),
        "values": (values.astype(float) if rising else np.arange(size)).tolist(),
        "texts": [] if rising else [_short(str(value), 80) for value in values.tolist()],
    }


def _short(text: str, most: int = _MOST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"


def _title(data: xr.Dataset) -> str:
    return _short(str(data.attrs.get("network", "") or "A dataset"), 200)


def _diagram(data: xr.Dataset) -> str:
    """Return the network's picture, if the dataset tells it; of a sweep over networks, that of the first."""
    from neurodyn.view.svg import network_svg  # imports networkx, which few programs need

    text = data.attrs.get("diagram")
    if text is None and "diagram" in data.data_vars:
        text = next(filter(None, data["diagram"].values.ravel().tolist()), None)
    if not isinstance(text, str):
        return ""
    try:
        return network_svg(Sketch.read(text))
    except InvalidValueError:  # what else is called so
        return ""


def _frame(data: xr.Dataset) -> tuple[str, str, str]:
    """Return the page around the values: up to what is to be known of them, from there to them, and from them on."""
    title, folder = html.escape(_title(data)), resources.files("neurodyn.view")
    style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # Nothing but its own script runs, and nothing is fetched, whatever the dataset holds.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha256-{digest}'"
    begin = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<aside><h1>{title}</h1><div id="diagram">{_diagram(data)}</div><div id="controls"></div></aside>\n'
        f'<main id="panels"></main>\n<script type="application/json" id="meta">'
    )
    return begin, "</script>\n", f"<script>{script}</script>\n</body>\n</html>\n"

"""Arrays that grow hold what Zarr itself would have written, byte for byte."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from neurodyn.simulation import encoding
from neurodyn.simulation.growing import Growing
from neurodyn.simulation.stores import encoding_of, files_of, fingerprint_of, to_zarr
from tests.problems import random


@pytest.mark.parametrize(
    ("shape", "first", "parts"),
    [
        ((2, 3), 8, [8, 8, 3]),  # chunks of 2 times, 4 in a file; the last is cut off within one
        ((2, 3), 8, [8, 8, 8]),
        ((2, 3), 2, [2, 1]),  # a chunk is a file
        ((30,), 3, [3, 2]),  # a time is more than a chunk
        ((), 4, [4, 3, 5]),  # a part is less than a chunk
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_added_is_what_zarr_would_have_written(
    shape: tuple[int, ...],
    first: int,
    parts: list[int],
    dtype: type[np.floating],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 12 * np.dtype(dtype).itemsize)
    whole = random(first + sum(parts), *shape).astype(dtype)
    whole[1] = 0.0
    dims = ["time", "sample", "unit"][: whole.ndim]
    begin = xr.Dataset({"x": (dims, whole[:first])})
    layout = encoding_of(begin)
    if not shape:
        layout["x"]["chunks"] = (10,)
    for name in ("ours", "zarr"):
        to_zarr(begin, tmp_path / name, mode="w", encoding=layout)
    array = zarr.open_array(tmp_path / "zarr" / "x", mode="r+", config={"write_empty_chunks": True})
    place = first
    for number, length in enumerate(parts):
        values = whole[place : place + length]
        if number < 2:  # the third goes on where the second has ended
            growing = Growing(tmp_path / "ours", "x", place)
        found = growing.append(values)
        place += length
        array.resize((place, *shape))
        array[place - length :] = values
        zarr.open_array(tmp_path / "ours" / "x", mode="r+").resize((place, *shape))
        assert found == {key: fingerprint_of(tmp_path / "zarr" / key) for key in found}
    ours, theirs = (dict(files_of(tmp_path / name)) for name in ("ours", "zarr"))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].read_bytes() == theirs[key].read_bytes() for key in ours)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "ours", consolidated=False).x, whole)

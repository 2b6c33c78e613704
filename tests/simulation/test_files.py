"""Files: they give back exactly what was saved, notice damage, run no code, and leave nothing half-done."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import neurodyn as nd
from neurodyn.errors import FileError, MissingFileError
from neurodyn.models import activation_relaxation as ar
from neurodyn.simulation import encoding, stores, trajectory
from neurodyn.simulation.partial import Lock, Partial, remove, replacing
from tests import processes
from tests.files import assert_same, names, run
from tests.problems import decay, mlp, wilson_cowan

FORMATS = [".nc", ".zarr"]


# What is saved comes back


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_file_gives_back_what_was_saved(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    data = run(dtype)
    path = nd.save(data, tmp_path / f"run{suffix}")
    assert path == tmp_path / f"run{suffix}"
    assert_same(nd.load(path), data)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_equilibrium_is_saved_too(suffix: str, tmp_path: Path) -> None:
    example = mlp()
    data = nd.equilibrium(ar.network(example.module), example.inputs, example.targets)
    assert "time" not in data.dims
    assert_same(nd.load(nd.save(data, tmp_path / f"eq{suffix}")), data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_network_without_dynamic_populations_is_saved_too(suffix: str, tmp_path: Path) -> None:
    example = mlp()
    module = nn.Sequential(nn.Linear(12, 5)).double()
    data = nd.simulate(ar.network(module), example.inputs, example.targets, duration=1.0, save_at=3)
    assert list(data.data_vars) == ["x1"]
    assert_same(nd.load(nd.save(data, tmp_path / f"top{suffix}")), data)


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_a_reopened_file_is_saved_again_unchanged(first: str, second: str, tmp_path: Path) -> None:
    data = run()
    nd.save(data, tmp_path / f"a{first}")
    nd.save(nd.load(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    assert_same(nd.load(tmp_path / f"b{second}"), data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_replaced_even_by_what_it_holds(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"run{suffix}"
    nd.save(run(), path)
    nd.save(nd.load(path), path)
    assert_same(nd.load(path), run())
    other = decay().simulate(1.0)
    nd.save(other, path)
    assert_same(nd.load(path), other)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_folders_are_made(suffix: str, tmp_path: Path) -> None:
    data = decay().simulate(1.0)
    assert_same(nd.load(nd.save(data, str(tmp_path / "a" / "b" / f"run{suffix}"))), data)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_half_way_leaves_the_old_file_and_no_litter(
    suffix: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = tmp_path / f"run{suffix}", decay().simulate(1.0)
    if exists:
        nd.save(old, path)
    method = "to_netcdf" if suffix == ".nc" else "to_zarr"
    write = getattr(xr.Dataset, method)

    def write_and_fail(self, *arguments, **settings):
        write(self, *arguments, **settings)
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, method, write_and_fail)
    with pytest.raises(FileError, match=rf"could not write .*run\{suffix}: disk full"):
        nd.save(run(), path)
    monkeypatch.undo()
    assert names(tmp_path) == ([path.name] if exists else [])
    if exists:
        assert_same(nd.load(path), old)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failure_to_move_leaves_the_old_file_and_no_litter(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = tmp_path / f"run{suffix}", decay().simulate(1.0)
    nd.save(old, path)
    replace = os.replace

    def fail_onto_path(source: Path, target: Path) -> None:
        if ".partial" in Path(source).name and target == path and not failed:
            failed.append(source)
            raise PermissionError("in use")
        replace(source, target)

    failed: list[Path] = []
    monkeypatch.setattr(os, "replace", fail_onto_path)
    with pytest.raises(nd.NeurodynError, match=r"could not write .*: in use"):
        nd.save(run(), path)
    assert names(tmp_path) == [path.name]
    assert_same(nd.load(path), old)


@pytest.mark.parametrize("act", [lambda p: nd.save(decay().simulate(1.0), p), nd.load], ids=["save", "load"])
def test_other_formats_are_refused(act, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'run\.pkl': the name must end in \.nc \(NetCDF\) or \.zarr \(Zarr\)"):
        act(tmp_path / "run.pkl")
    assert names(tmp_path) == []


@pytest.mark.parametrize("act", [lambda p: nd.save(decay().simulate(1.0), p), nd.load], ids=["save", "load"])
def test_what_is_no_path_is_refused(act) -> None:
    for path in (3, None, b"a.nc", ["a.nc"]):
        with pytest.raises(TypeError, match="path must be a path") as caught:
            act(path)
        assert isinstance(caught.value, nd.NeurodynError)
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        act("a\0.nc")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_file_is_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"none{suffix} does not exist"):
        nd.load(tmp_path / f"none{suffix}")


def variable(values: Any, **attributes: Any) -> xr.Dataset:
    return xr.Dataset({"v": (("d",) if np.ndim(values) else (), values, attributes)})


VALUES: dict[str, xr.Dataset] = {
    "truth": variable(np.array([True, False])),
    "large integers": variable(np.array([2**62, -1])),
    "small integers": variable(np.array([1, 255], np.uint8)),
    "not finite": variable(np.array([np.inf, -np.inf, np.nan, -0.0])),
    "half": variable(np.array([1, np.nan], np.float16)),
    "text": variable(np.array(["a", "bcé", ""])),
    "times": variable(np.array(["2020-01-01", "NaT"], "M8[ns]")),
    "intervals": variable(np.array([1, 2], "m8[ns]")),
    "numbers in seconds": variable(np.array([1, 2]), units="seconds"),
    "nothing": variable(np.empty(0)),
    "scalars": variable(np.float32(3.5)).assign(text="abc", whole=3),
    "no variables": xr.Dataset(attrs={"a": 1, "dtype": "float32", "_FillValue": 3}),
    "labels": xr.Dataset({"b": ("k", [1.0, 2.0]), "a": ("k", [3, 4])}, {"k": ["x", "yy"], "other": ("k", ["p", "q"])}),
    "no samples": xr.Dataset({"v": (("time", "unit"), np.empty((0, 3)))}, {"time": np.empty(0), "unit": [1, 2, 3]}),
    "odd names": xr.Dataset({"a b.c é": ("d d", [1.0, 2.0]), "c": ("e", [1]), "0": ("e", [2])}),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", VALUES)
def test_any_dataset_comes_back(kind: str, suffix: str, tmp_path: Path) -> None:
    before = VALUES[kind].copy(deep=True)
    assert_same(nd.load(nd.save(VALUES[kind], tmp_path / f"any{suffix}")), before)
    assert_same(VALUES[kind], before)


@pytest.mark.parametrize("suffix", FORMATS)
def test_values_are_stored_as_they_are_and_not_as_they_were_encoded_elsewhere(suffix: str, tmp_path: Path) -> None:
    data = variable(np.array([1.25, 2.5]))
    data.v.encoding = {"dtype": "int16", "scale_factor": 1.0, "_FillValue": -1}
    assert_same(nd.load(nd.save(data, tmp_path / f"a{suffix}")), data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_dask_arrays_are_saved_whatever_their_chunks(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 100)
    data = wilson_cowan().simulate(1.0, save_at=37)
    assert_same(nd.load(nd.save(data.chunk(time=5, E_unit=2), tmp_path / f"a{suffix}")), data)


ATTRIBUTES: dict[str, Any] = {
    "text": "é∂→",
    "empty": "",
    "whole": 3,
    "large": 2**63 - 1,
    "fraction": 1.5,
    "infinite": float("inf"),
    "NumPy's whole": np.int8(3),
    "NumPy's fraction": np.float32(0.1),
    "NumPy's text": np.str_("x"),
    "wholes": [1, 2],
    "fractions": [0.5, 1.0],
    "texts": ["a", ""],
    "array": np.arange(3),
    "array of text": np.array(["a", "bc"]),
    "pair": (1, 2),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_attributes_come_back_as_pythons(suffix: str, tmp_path: Path) -> None:
    data = variable(np.ones(2), **ATTRIBUTES).assign_attrs(ATTRIBUTES)
    found = nd.load(nd.save(data, tmp_path / f"a{suffix}"))
    xr.testing.assert_identical(found, data)
    for attributes in (found.attrs, found.v.attrs):
        assert list(attributes) == list(ATTRIBUTES)
        for name, value in ATTRIBUTES.items():
            expected = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            expected = list(expected) if isinstance(expected, tuple) else expected
            assert attributes[name] == expected
            assert type(attributes[name]) is type(expected)
    assert np.isnan(nd.load(nd.save(data.assign_attrs(of=np.nan), tmp_path / f"a{suffix}")).attrs["of"])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            TypeError,
            [True, None, np.True_, {"a": 1}, {}, b"x", 1j, np.datetime64("2020"), {1}, torch.ones(2), Path("a")],
        ),
        (
            TypeError,
            [[True, False], [1, None], [1], [], ["a"], [1, "a"], [[1, 2], [3, 4]], np.ones((2, 2)), np.array(3)],
        ),
        (ValueError, [2**63, np.uint64(2**63), "a\0b", "\ud800", [2**60 + 1, 0.5]]),
    ],
)
def test_attributes_that_a_file_would_not_give_back_are_refused_by_name(
    kind: type[Exception], values: list[Any], suffix: str, tmp_path: Path
) -> None:
    for value in values:
        for whose in ("", " of variable 'v'"):
            data = variable(np.ones(2), odd=value) if whose else variable(np.ones(2)).assign_attrs(odd=value)
            with pytest.raises(kind, match=f"attribute 'odd'{whose} is ") as caught:
                nd.save(data, tmp_path / f"a{suffix}")
            assert isinstance(caught.value, nd.NeurodynError)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (variable(np.ones(2), _FillValue=1.0), "'_FillValue' of variable 'v' is reserved"),
        (variable(np.ones(2), scale_factor=2.0), "'scale_factor' of variable 'v' is reserved"),
        (variable(np.ones(2), units="days since 2000-01-01"), "hold times as datetime64"),
        (variable(np.ones(2), units="since onset"), "hold times as datetime64"),
        (variable(np.array(["2020-01-01", "3000-01-01"], "datetime64[s]")), "'v' has dates outside of 1678 to 2261"),
        (variable(np.ones(2)).assign_coords({"a b": ("d", [1, 2])}), "coordinate 'a b' has a space in its name"),
        (variable(np.ones(2), **{"": 1}), "attribute '' of variable 'v'"),
        (variable(np.array([1j, 2])), "variable 'v' is complex"),
        (variable(np.array([None, "a"], object)), "variable 'v' holds objects other than text"),
        (xr.Dataset({"a/b": ("d", [1.0])}), "'a/b' cannot be the name"),
        (xr.Dataset({"a": ("d/e", [1.0])}), "'d/e' cannot be the name"),
        (xr.Dataset({1: ("d", [1.0])}), "1 cannot be the name"),
        (xr.Dataset({"..": ("d", [1.0])}), "'..' cannot be the name"),
        (
            xr.Dataset({"v": (("x", "y"), np.ones((2, 2)))}, {"x": [1, 2], "y": [3, 4]}).stack(z=("x", "y")),
            "of a MultiIndex, its levels",
        ),
        (np.ones(3), "data must be an xarray.Dataset, not ndarray"),
        (variable(np.ones(2)).v, "data must be an xarray.Dataset, not DataArray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_datasets_that_a_file_would_not_give_back_are_refused(
    data: Any, message: str, suffix: str, tmp_path: Path
) -> None:
    with pytest.raises(nd.NeurodynError, match=message):
        nd.save(data, tmp_path / f"a{suffix}")
    assert names(tmp_path) == []


# Other programs read them


@pytest.mark.parametrize("suffix", FORMATS)
def test_plain_xarray_reads_what_was_saved(suffix: str, tmp_path: Path) -> None:
    data = run()
    path = nd.save(data, tmp_path / f"run{suffix}")
    xr.testing.assert_identical(xr.load_dataset(path, engine="h5netcdf" if suffix == ".nc" else "zarr"), data)


def test_every_chunk_of_netcdf_has_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 200)
    data = wilson_cowan().simulate(1.0, save_at=37)
    path = nd.save(data, tmp_path / "a.nc")
    with h5py.File(path) as file:
        for name in data.variables:
            assert file[name].fletcher32
            assert name in data.indexes or file[name].chunks[0] == 4  # of 2 samples and 3 units in double precision
    content = bytearray(path.read_bytes())
    place = content.index(data.E.values[17].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="read data"):
        xr.load_dataset(path, engine="h5netcdf")


def test_every_chunk_of_zarr_has_a_checksum(tmp_path: Path) -> None:
    data = wilson_cowan().simulate(1.0, save_at=37)
    path = nd.save(data, tmp_path / "a.zarr")
    for name in map(str, data.variables):
        assert json.loads((path / name / "zarr.json").read_text())["codecs"][-1]["name"] == "crc32c"
    chunk = path / "E" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        xr.load_dataset(path, engine="zarr")


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_of_other_programs_are_opened(suffix: str, tmp_path: Path) -> None:
    data = wilson_cowan().simulate(1.0, save_at=7)
    path = tmp_path / f"a{suffix}"
    if suffix == ".nc":
        data.to_netcdf(path, engine="h5netcdf")
    else:
        data.to_zarr(path, zarr_format=3, consolidated=False)
    xr.testing.assert_identical(nd.load(path), data)
    if suffix == ".nc":  # padded, as some transfers do
        path.write_bytes(path.read_bytes() + bytes(512))
        xr.testing.assert_identical(nd.load(path), data)


def test_a_store_changed_by_another_program_is_no_longer_vouched_for(tmp_path: Path) -> None:
    path = nd.save(decay().simulate(1.0), tmp_path / "a.zarr")
    zarr.open_group(path, mode="r+").attrs["note"] = "mine"
    assert nd.load(path).attrs["note"] == "mine"


# A store is read in pieces


def test_a_store_is_read_chunk_by_chunk_and_has_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 1000)
    data = wilson_cowan().simulate(1.0, save_at=2000).assign(mean=lambda data: data.E.mean("E_unit"))
    found = nd.load(nd.save(data, tmp_path / "a.zarr"))
    for name, each in found.data_vars.items():
        assert 500 <= each.data.chunksize[0] * data[name][0].nbytes <= 1000 or name == "mean"
    assert found.chunks["time"][0] == found.E.data.chunksize[0]  # the same for all
    stored = [path for path in (tmp_path / "a.zarr" / "E").rglob("*") if path.is_file()]
    assert len(stored) - 1 == -(-2000 // (encoding.SHARD_CHUNKS * found.chunks["time"][0]))
    read: list[str] = []
    monkeypatch.setattr(stores._Verified, "_verify", lambda self, key: read.append(key))
    xr.testing.assert_identical(found.E[-1].compute(), data.E[-1])
    assert len(read) == 1


def test_one_large_sample_is_cut_along_its_own_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 96)
    data = xr.Dataset({"a": (("time", "sample", "unit"), np.random.default_rng(0).normal(size=(3, 5, 24)))})
    for suffix in FORMATS:
        assert_same(nd.load(nd.save(data, tmp_path / f"a{suffix}")), data)
    assert nd.load(tmp_path / "a.zarr").a.data.chunksize == (1, 1, 12)


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, Path]:
    data = wilson_cowan().simulate(3.0, save_at=40)
    data = data.assign(text=("k", ["ab", "c"]), flag=("k", [True, False]), scalar=3.5).assign_attrs(n=3, of=["a", "b"])
    folder = tmp_path_factory.mktemp("whole")
    for suffix in FORMATS:
        nd.save(data, folder / f"a{suffix}")
    return data, folder


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file somehow, and say how."""
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.choice([1, 8, 64, 512, 4096]))
    how = draw.choice(["flipped", "zeroed", "overwritten", "cut out", "moved", "truncated", "deleted"])
    if how == "flipped":
        content[start] ^= 1 << draw.randrange(8)
    elif how == "zeroed":
        content[start:end] = bytes(end - start)
    elif how == "overwritten":
        content[start:end] = draw.randbytes(end - start)
    elif how == "cut out":
        del content[start:end]
    elif how == "moved":
        part = content[start:end]
        del content[start:end]
        content[start // 2 : start // 2] = part
    elif how == "truncated":
        del content[start:]
    path.write_bytes(content)
    if how == "deleted":
        path.unlink()
    return how


def opened(path: Path) -> tuple[xr.Dataset | None, str]:
    """Return what a file holds, or the error that it is refused with."""
    try:
        return nd.load(path).load(), ""
    except (FileError, MissingFileError) as error:
        return None, str(error)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damage_anywhere_is_an_error_that_names_the_file(
    suffix: str, whole: tuple[xr.Dataset, Path], tmp_path: Path
) -> None:
    data, folder = whole
    draw, refused = random.Random(suffix), 0
    for number in range(60):
        path = tmp_path / f"{number}{suffix}"
        (shutil.copy if suffix == ".nc" else shutil.copytree)(folder / f"a{suffix}", path)
        part = path if suffix == ".nc" else draw.choice(sorted(file for file in path.rglob("*") if file.is_file()))
        how = damage(part, draw)
        found, message = opened(path)
        if found is None:
            assert str(path) in message, (part, how)
            refused += 1
        else:
            # Without its index, older releases of Zarr list a store in the order of its folder.
            assert_same(found[list(data.data_vars)], data)
    assert refused > 40


def test_the_digest_is_missed_where_it_was_lost(whole: tuple[xr.Dataset, Path], tmp_path: Path) -> None:
    _, folder = whole
    content = (folder / "a.nc").read_bytes()
    path = tmp_path / "a.nc"
    for lost in (1, 20, 80):
        path.write_bytes(content[:-lost] + bytes(lost))
        with pytest.raises(FileError, match=r"a\.nc is damaged"):
            nd.load(path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[xr.Dataset, Path]:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 96)
    data = wilson_cowan().simulate(3.0, save_at=100)
    return data, nd.save(data, tmp_path / "a.zarr")


def test_a_lost_chunk_is_no_nan(store: tuple[xr.Dataset, Path]) -> None:
    data, path = store
    opened = nd.load(path)
    (path / "E" / "c" / "1" / "0" / "0").unlink()
    for read in (lambda: nd.load(path), opened.E.mean().compute):
        with pytest.raises(FileError, match=r"a\.zarr is damaged: c/1/0/0 of variable E is missing"):
            read()
    assert float(opened.I.mean()) == pytest.approx(float(data.I.mean()))


def test_a_chunk_in_anothers_place_is_noticed(store: tuple[xr.Dataset, Path]) -> None:
    _, path = store
    places = [path / "E" / "c" / number / "0" / "0" for number in "01"]
    shutil.copy(*places)
    with pytest.raises(FileError, match=r"a\.zarr is damaged: c/1/0/0 of variable E is not as it was"):
        nd.load(path).load()


def test_a_lost_variable_is_noticed(store: tuple[xr.Dataset, Path]) -> None:
    _, path = store
    shutil.rmtree(path / "E")
    with pytest.raises(FileError, match="of variable E is missing"):
        nd.load(path)


# What may run code


class Program:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def format_2(folder: Path) -> None:
    """Write an array of Zarr format 2 whose chunk is a pickle."""
    folder.mkdir(parents=True)
    codec = {"id": "pickle", "protocol": 5}
    array = {
        **{"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "compressor": None},
        **{"fill_value": None, "filters": [codec]},
    }
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["x"]}))
    (folder / "0").write_bytes(pickle.dumps(Program()))


def all_of_format_2(path: Path) -> None:
    format_2(path / "x")
    (path / ".zgroup").write_text('{"zarr_format": 2}')


def child_of_format_2(path: Path) -> None:
    nd.save(decay().simulate(1.0), path)
    format_2(path / "a" / "y")


def consolidated_as_format_2(path: Path) -> None:
    decay().simulate(1.0).to_zarr(path, zarr_format=3, consolidated=False)
    format_2(path / "y")
    root = json.loads((path / "zarr.json").read_text())
    array = json.loads((path / "y" / ".zarray").read_text())
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {"y": array}}
    (path / "zarr.json").write_text(json.dumps(root))
    (path / "y" / ".zarray").unlink()
    (path / "y" / ".zattrs").unlink()


def linked_format_2(path: Path) -> None:
    decay().simulate(1.0).to_zarr(path, zarr_format=3, consolidated=False)
    format_2(path.parent / "elsewhere")
    (path / "y").symlink_to(path.parent / "elsewhere")


def changed_codecs(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        decay().simulate(1.0).to_zarr(path, zarr_format=3, consolidated=False)
        metadata = json.loads((path / "x" / "zarr.json").read_text())
        change(metadata)
        (path / "x" / "zarr.json").write_text(json.dumps(metadata))

    return write


def in_a_shard(metadata: dict[str, Any]) -> None:
    settings = {"chunk_shape": [1, 1, 1], "codecs": [{"name": "numcodecs.pickle"}], "index_codecs": []}
    metadata["codecs"] = [{"name": "sharding_indexed", "configuration": settings}]


FORGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "all": (all_of_format_2, "only format 3 is opened"),
    "a child": (child_of_format_2, "a/y/.zarray is of Zarr format 2"),
    "in the consolidated metadata": (consolidated_as_format_2, "zarr.json is of Zarr format 2"),
    "behind a link": (linked_format_2, "y in it is a symbolic link"),
    "codec": (changed_codecs(lambda metadata: metadata["codecs"].append({"name": "pickle"})), "the codec 'pickle'"),
    "bare codec": (changed_codecs(lambda metadata: metadata["codecs"].append("pickle")), "the codec 'pickle'"),
    "codec in a shard": (changed_codecs(in_a_shard), "the codec 'numcodecs.pickle'"),
    "format of an array": (changed_codecs(lambda metadata: metadata.update(zarr_format=2)), "of Zarr format 2"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_store_is_refused_before_anything_is_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forge, message = FORGED[kind]
    path = tmp_path / "forged.zarr"
    forge(path)
    with pytest.raises(FileError, match=message):
        nd.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_store_of_format_2_would_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    format_2(tmp_path / "x")
    (tmp_path / "0").write_bytes((tmp_path / "x" / "0").read_bytes())
    pickle.loads((tmp_path / "x" / "0").read_bytes())
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_something_else_is_no_file_of_ours(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("text")
    with pytest.raises(FileError, match=rf"a\{suffix} is"):
        nd.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=rf"a\{suffix} is"):
        nd.load(path)


# What is replaced, and what is not


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("place", ["notes.txt", "E/notes.txt", "deep/er/notes.txt", "E/c/0/notes.txt"])
def test_a_folder_with_anything_of_the_users_is_not_replaced(place: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".zarr":
        nd.save(wilson_cowan().simulate(1.0, save_at=3), path)
    (path / place).parent.mkdir(parents=True, exist_ok=True)
    (path / place).write_text("mine")
    with pytest.raises(FileExistsError, match=f"mine{suffix} .*would be lost"):
        nd.save(decay().simulate(1.0), path)
    assert (path / place).read_text() == "mine"
    assert names(tmp_path) == [path.name]


def test_a_file_is_no_store_and_a_store_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.zarr is no Zarr store, and would be lost"):
        nd.save(decay().simulate(1.0), tmp_path / "a.zarr")
    nd.save(decay().simulate(1.0), tmp_path / "b.zarr").rename(tmp_path / "b.nc")
    with pytest.raises(FileExistsError, match=r"b\.nc is no file, and would be lost"):
        nd.save(decay().simulate(1.0), tmp_path / "b.nc")
    (tmp_path / "empty.zarr").mkdir()
    nd.save(decay().simulate(1.0), tmp_path / "empty.zarr")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_one(suffix: str, exists: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / f"target{suffix}", tmp_path / f"link{suffix}"
    if exists:
        nd.save(decay().simulate(2.0), target)
    link.symlink_to(target)
    data = decay().simulate(1.0)
    assert nd.save(data, link) == link
    assert link.is_symlink()
    assert_same(nd.load(target), data)
    assert names(tmp_path / "far") == [target.name]


# Without space


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Have the system refuse to write files beyond a size, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_a_failed_writer_removes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    rmtree = shutil.rmtree

    def overtaken(path: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        raise FileNotFoundError(2, "No such file or directory", "zarr.partial")

    monkeypatch.setattr(shutil, "rmtree", overtaken)
    remove(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size", [0, 100, 1000, 20_000, 60_000])
def test_without_space_what_was_there_stays(suffix: str, size: int, tmp_path: Path) -> None:
    old, large = decay().simulate(1.0), xr.Dataset({"a": ("d", np.random.default_rng(0).normal(size=10_000))})
    path = nd.save(old, tmp_path / f"a{suffix}")
    with files_no_larger_than(size), pytest.raises(FileError, match=rf"could not write .*a\{suffix}: .*File too large"):
        nd.save(large, path)
    assert_same(nd.load(path), old)
    assert names(tmp_path) == [path.name]


def test_a_streamed_run_without_space_says_so(tmp_path: Path) -> None:
    with files_no_larger_than(1000), pytest.raises(FileError, match=r"could not write store .*run\.zarr: .*too large"):
        wilson_cowan().simulate(10.0, save_at=1000, store=tmp_path / "run.zarr")
    assert names(tmp_path) == []


# What an interrupted process leaves


@pytest.mark.parametrize("suffix", FORMATS)
def test_leftovers_are_removed_unless_their_process_lives(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    living = Partial(path)
    dead = tmp_path / f".a.0123abcd.partial{suffix}"
    dead_others = [tmp_path / ".b.0123abcd.partial.zarr", tmp_path / f".a.b.0123abcd.partial{suffix}"]
    others = [Partial(tmp_path / "b.zarr").path, tmp_path / f".a.0123.partial{suffix}", tmp_path / ".a.partial"]
    for each in (living.path, dead, *dead_others, *others):
        (each / "x").mkdir(parents=True)
    (tmp_path / f".a.0123abcd.lock{suffix}").write_text("99")
    (tmp_path / f".a.4567abcd.lock{suffix}").touch()
    nd.save(decay().simulate(1.0), path)
    assert all(each.exists() for each in (living.path, *others))
    assert not any(each.exists() for each in (dead, *dead_others))
    living.discard()
    nd.save(decay().simulate(1.0), path)
    left = [path, *others, others[0].with_name(others[0].name.replace("partial", "lock"))]
    assert names(tmp_path) == sorted(each.name for each in left)


def test_a_store_set_aside_is_kept_until_there_is_another(tmp_path: Path) -> None:
    path = nd.save(decay().simulate(1.0), tmp_path / "a.zarr")
    aside = tmp_path / ".a.0123abcd.replaced.zarr"
    path.rename(aside)  # as a process leaves it that ends as it puts the new store in its place
    partial = Partial(path)
    assert aside.exists()
    partial.discard()
    nd.save(decay().simulate(2.0), path)
    nd.save(decay().simulate(3.0), path)
    assert names(tmp_path) == ["a.zarr"]


def simulate_until_killed(store: Path) -> None:
    def until(time: float, activity: Any, velocity: Any) -> bool:
        if time > 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    pytest.MonkeyPatch().setattr(trajectory, "_HELD_BYTES", 100_000)
    network = nd.Network("n", [nd.Population("x", 1000, initial=1.0)])
    nd.simulate(network, None, duration=1.0, solver=nd.Euler(0.01), until=until, store=store)


def test_a_run_that_was_killed_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    ended, raised = processes.call(simulate_until_killed, tmp_path / "run.zarr")
    assert ended == -signal.SIGKILL, raised
    assert len(names(tmp_path)) == 3  # the store, where the run stood, and its lock
    decay().simulate(1.0, store=tmp_path / "run.zarr")
    assert names(tmp_path) == ["run.zarr"]


def test_two_runs_do_not_stream_to_one_store(tmp_path: Path) -> None:
    def until(time: float, activity: Any, velocity: Any) -> bool:
        with pytest.raises(FileExistsError, match=r"run\.zarr is being written by another run"):
            decay().simulate(1.0, store=tmp_path / "run.zarr")
        return True

    decay().simulate(1.0, until=until, store=tmp_path / "run.zarr")
    assert names(tmp_path) == ["run.zarr"]


@pytest.mark.parametrize("folders", [True, False])
def test_of_many_that_write_one_target_the_last_one_stands(folders: bool, tmp_path: Path) -> None:
    def write(content: int) -> None:
        for _ in range(10):
            with replacing(tmp_path / "a.x") as path:
                if folders:
                    path.mkdir()
                    path = path / "content"
                path.write_text(str(content))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert names(tmp_path) == ["a.x"]
    content = tmp_path / "a.x" / "content" if folders else tmp_path / "a.x"
    assert content.read_text() in "0123"


def test_a_lock_is_held_once_and_goes_with_its_file(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    lock.release()
    assert names(tmp_path) == []
    another = Lock(tmp_path / "lock")
    lock.release()  # which it has been, so that it leaves the other's alone
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    another.release()


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    leftover = tmp_path / ".a.0123abcd.partial.nc"
    leftover.touch()
    with pytest.warns(RuntimeWarning, match="has no locks"):
        nd.save(decay().simulate(1.0), tmp_path / "a.nc")
    assert leftover.exists()  # its process may live

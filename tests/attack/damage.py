"""Damaged files: NetCDF files, Zarr stores and checkpoints, as a disk, a transfer or a stranger leaves them."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import neurodyn as nd
from tests.attack.cases import Case, Expected, Mismatch

Random = np.random.Generator
_FORMATS = ("nc", "zarr", "checkpoint")


def cases(seed: int, files: int) -> Iterator[Case]:
    """Yield as many damaged files, of every format and damage."""
    for place in range(files):
        kind = _FORMATS[place % len(_FORMATS)]
        which = [*DAMAGES, *{"nc": (), "zarr": OF_STORES, "checkpoint": OF_CHECKPOINTS}[kind]]
        damage = which[place // len(_FORMATS) % len(which)]
        call = f'damage.{"resumed" if kind == "checkpoint" else "loaded"}("{kind}", "{damage}", {1000 * seed + place})'
        yield Case(f"damaged {kind}", call, Expected.EITHER)


# What befalls a file


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for place in random.integers(0, len(content), int(random.integers(1, 9))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = int(random.integers(len(content)))
    return start, start + int(random.integers(1, 4096))


def _zeroed(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + bytes(len(content[start:stop])) + content[stop:]


def _shortened(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def _moved(content: bytes, random: Random) -> bytes:
    """Write one part over another, as a disk does that confuses its blocks."""
    start, stop = _span(content, random)
    place = int(random.integers(len(content)))
    part = content[start:stop]
    return (content[:place] + part + content[place + len(part) :])[: len(content)]


def _of_another_format(content: bytes, random: Random) -> bytes:
    whole = tuple(_original(kind)[0] for kind in _FORMATS)
    files = [each if each.is_file() else next(each.rglob("zarr.json")) for each in whole]
    return files[int(random.integers(len(files)))].read_bytes()


Damage = Callable[[bytes, Random], bytes]
DAMAGES: Mapping[str, Damage] = {
    "flip": _flip,
    "truncate": lambda content, random: content[: int(random.integers(len(content)))],
    "zero": _zeroed,
    "flip again": _flip,
    "delete": _shortened,
    "move": _moved,
    "empty": lambda content, random: b"",
    "noise": lambda content, random: random.bytes(len(content)),
    "append": lambda content, random: content + random.bytes(int(random.integers(1, 200))),
    "text": lambda content, random: b"<html>404</html>\n",
    "other format": _of_another_format,
    "pickle": lambda content, random: pickle.dumps({"a": 1}),
}
"""Of one file, by name."""


def _chunks(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json")


def _removed(store: Path, random: Random) -> None:
    files = sorted(path for path in store.rglob("*") if path.is_file())
    files[int(random.integers(len(files)))].unlink()


def _chunk_removed(store: Path, random: Random) -> None:
    chunks = _chunks(store)
    chunks[int(random.integers(len(chunks)))].unlink()


def _exchanged(store: Path, random: Random) -> None:
    """Exchange two chunks, each of which is whole."""
    chunks = _chunks(store)
    one, other = (chunks[place] for place in random.choice(len(chunks), 2, replace=False))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _array_removed(store: Path, random: Random) -> None:
    arrays = sorted(path for path in store.iterdir() if path.is_dir())
    shutil.rmtree(arrays[int(random.integers(len(arrays)))])


def _a_file(store: Path, random: Random) -> None:
    shutil.rmtree(store)
    store.write_bytes(random.bytes(100))


def _empty_folder(store: Path, random: Random) -> None:
    shutil.rmtree(store)
    store.mkdir()


def _version_2(store: Path, random: Random) -> None:
    shutil.rmtree(store)
    xr.Dataset({"a": ("x", np.arange(3.0))}).to_zarr(store, zarr_format=2, consolidated=False)


OF_STORES: Mapping[str, Callable[[Path, Random], None]] = {
    "remove a file": _removed,
    "remove a chunk": _chunk_removed,
    "exchange chunks": _exchanged,
    "remove an array": _array_removed,
    "a file in its place": _a_file,
    "an empty folder": _empty_folder,
    "version 2": _version_2,
}
"""Of a whole store."""


def _resealed(content: bytes, change: Callable[[dict[str, object], Random], object], random: Random) -> bytes:
    """Return a checkpoint whose state is another, with the checksum that belongs to it."""
    magic, _, payload = content.split(b"\n", 2)
    buffer = io.BytesIO()
    torch.save(change(torch.load(io.BytesIO(payload), weights_only=True), random), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    return b"\n".join((magic, digest, buffer.getvalue()))


def _without(state: dict[str, object], random: Random) -> object:
    del state[str(random.choice(list(state)))]
    return state


def _of_other_kinds(state: dict[str, object], random: Random) -> object:
    other: list[object] = [None, "x", 3, [1, 2], {}, torch.zeros(2)]
    return state | {str(random.choice(list(state))): other[int(random.integers(len(other)))]}


OF_CHECKPOINTS: Mapping[str, Damage] = {
    "foreign state": lambda content, random: _resealed(content, lambda state, random: {"x": torch.zeros(3)}, random),
    "no state": lambda content, random: _resealed(content, lambda state, random: [1, 2, 3], random),
    "state without a part": lambda content, random: _resealed(content, _without, random),
    "parts of other kinds": lambda content, random: _resealed(content, _of_other_kinds, random),
    "parts of other kinds again": lambda content, random: _resealed(content, _of_other_kinds, random),
}
"""Of a checkpoint whose checksum fits."""


# What was there before


def _content() -> xr.Dataset:
    random = np.random.default_rng(0)
    values = random.standard_normal((300, 4, 20)).astype(np.float32)
    return xr.Dataset(
        {
            "a": (("time", "sample", "a_unit"), values, {"units": "1", "role": "dynamic", "tau": 2.0}),
            "count": ("time", np.arange(300)),
            "right": ("sample", np.array([True, False, True, True])),
            "total": ((), 1.5, {"long_name": "a scalar"}),
        },
        {"time": np.linspace(0, 1, 300), "sample": np.arange(4), "a_unit": np.arange(20)},
        {"network": "x", "evaluations": 12, "residual": 1e-9, "equations": "τ dx/dt = −x"},
    )


@cache
def _original(kind: str) -> tuple[Path, Any]:
    """Return a whole file, or store, and what comes of it."""
    folder = Path(tempfile.mkdtemp())
    if kind == "checkpoint":
        wanted = _trained(folder / "unbroken")
        with suppress(InterruptedError):
            _trained(folder / "broken", stop=True)
        return folder / "broken" / "checkpoint.pt", wanted
    path = nd.save(_content(), folder / f"a.{kind}")
    return path, nd.load(path).load()


def _trained(folder: Path, *, stop: bool = False) -> dict[str, np.ndarray]:
    """Train, and return the weights and the losses; or stop after the second of three epochs."""
    module = nd.mlp([3, 5, 2])
    data = torch.linspace(-1, 1, 24).view(8, 3), torch.linspace(1, 0, 16).view(8, 2)

    def callback(history: xr.Dataset) -> None:
        if stop and history.sizes["epoch"] == 2:
            raise InterruptedError

    history = nd.train.fit(
        module,
        data,
        epochs=3,
        batch_size=3,
        checkpoint=folder,
        checkpoint_minutes=0,
        callbacks=[callback],
        progress=False,
    )
    return {"loss": history.train_loss.to_numpy(), **{n: p.detach().numpy() for n, p in module.named_parameters()}}


def _damaged(kind: str, damage: str, number: int) -> Path:
    """Return a damaged copy of an original."""
    random = np.random.default_rng([number, 3])
    original, _ = _original(kind)
    copy = Path(tempfile.mkdtemp()) / original.name
    if original.is_file():
        copy.write_bytes({**DAMAGES, **OF_CHECKPOINTS}[damage](original.read_bytes(), random))
        return copy
    shutil.copytree(original, copy)
    if damage in OF_STORES:
        OF_STORES[damage](copy, random)
        return copy
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    hit = files[int(random.integers(len(files)))]
    hit.write_bytes(DAMAGES[damage](hit.read_bytes(), random))
    return copy


def _naming(path: Path, error: nd.NeurodynError) -> None:
    if str(path) not in str(error) and path.name not in str(error):
        raise Mismatch(f"the error does not name the file: {error}") from error


def loaded(kind: str, damage: str, number: int) -> None:
    """Load a damaged file.

    Raises
    ------
    Mismatch
        If it has other values than before, or an error of neurodyn does not name the file.
    """
    path, wanted = _damaged(kind, damage, number), _original(kind)[1]
    try:
        found = nd.load(path).load()
    except nd.NeurodynError as error:
        _naming(path, error)
        raise
    finally:
        shutil.rmtree(path.parent)
    if not found.identical(wanted) or list(found) != list(wanted):
        raise Mismatch(f"other values, without a word: {_difference(found, wanted)}")


def _difference(found: xr.Dataset, wanted: xr.Dataset) -> str:
    try:
        xr.testing.assert_identical(found, wanted)
    except AssertionError as error:
        return " ".join(str(error).split())[:200]
    return "the order of the variables"


def resumed(kind: str, damage: str, number: int) -> None:
    """Go on with training from a damaged checkpoint.

    Raises
    ------
    Mismatch
        If it ends elsewhere than before, or an error of neurodyn does not name the file.
    """
    path, wanted = _damaged(kind, damage, number), _original(kind)[1]
    try:
        found = _trained(path.parent)
    except nd.NeurodynError as error:
        _naming(path.parent, error)
        raise
    finally:
        shutil.rmtree(path.parent)
    for name, values in found.items():
        if not np.array_equal(values, wanted[name]):
            raise Mismatch(f"{name} is another than that of an unbroken run")

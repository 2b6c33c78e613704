"""Zarr stores whose damage is noticed, and which cannot run code.

Only format 3 is opened, and of it only codecs that decode bytes: a chunk of format 2 may be a program.

Up to 16 chunks that follow each other share a file (a shard, in Zarr's words), so that a reader needs little memory,
and a long trajectory few files. Each chunk carries Zarr's CRC-32C, which every reader verifies. Beside the consolidated
metadata stand the size and the SHA-256 of each file of the store, and a digest of that and of the metadata, so that a
file that is missing, or was put in another's place, is noticed too. Other programs ignore them, and their stores have
none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import UnstableSpecificationWarning
from zarr.storage import LocalStore, WrapperStore

from neurodyn.checks import needed
from neurodyn.errors import FileError
from neurodyn.labelled import xr
from neurodyn.simulation.encoding import SHARD_CHUNKS, chunk_lengths, intervals

LEVEL = -5
"""Of Zstandard's compression: what repeats shrinks, in a sixth of the default's time; activity hardly does at any."""
_METADATA = "zarr.json"
_FORMAT_2 = {".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_CODECS = {
    "blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-bytes", "vlen-utf8", "zstd",
}  # fmt: skip
_CHUNK = re.compile(r"(c|\d+)([/.]\d+)*")

Fingerprints = dict[str, list[int | str]]
"""The size and the SHA-256 of files, by their keys: their paths in the store."""


def write_store(data: xr.Dataset, folder: Path) -> None:
    """Write a dataset to a new store."""
    encoding = encoding_of(data)
    aligned = {
        name: variable.chunk(
            dict(zip(variable.dims, encoding[name].get("shards", encoding[name]["chunks"]), strict=True))
        )
        for name, variable in data.variables.items()
        if variable.chunks is not None
    }
    to_zarr(data.assign(aligned), folder, mode="w", encoding=encoding)
    seal(folder, data.variables, {})


def to_zarr(data: xr.Dataset, folder: Path, **settings: Any) -> None:
    """Write a dataset, or a part of one, to a store of Zarr format 3."""
    # Text of fixed length, which format 3 has no word for yet; what was written is read back as it was.
    text = any(variable.dtype.kind == "U" for variable in data.variables.values())
    with warnings.catch_warnings() if text else nullcontext():  # it is not for threads, of which streams have one
        if text:
            warnings.simplefilter("ignore", UnstableSpecificationWarning)
        # A chunk that holds nothing but the fill value is written, too: one that is missing has been lost.
        write: Callable[..., object] = data.to_zarr
        write(folder, consolidated=False, zarr_format=3, write_empty_chunks=True, **settings)


def encoding_of(data: xr.Dataset) -> dict[Hashable, dict[str, Any]]:
    """Return how each variable of a dataset is stored."""
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, shape in chunk_lengths(data).items():
        encoding[name] = {"chunks": shape, "compressors": [ZstdCodec(level=LEVEL), Crc32cCodec()]}
        if name not in data.indexes and shape:
            along = min(SHARD_CHUNKS, -(-data[name].shape[0] // shape[0]))
            if along > 1:
                encoding[name]["shards"] = (along * shape[0], *shape[1:])
    return encoding


def seal(
    folder: Path,
    variables: Iterable[Hashable],
    known: Fingerprints,
    attributes: Mapping[str, Any] | None = None,
    run: Mapping[str, str | None] | None = None,
) -> None:
    """Consolidate the metadata of a store, the variables in their order, and add the digests.

    Parameters
    ----------
    folder
        The store.
    variables
        Its variables.
    known
        The fingerprints of files that need not be read again.
    attributes
        What its attributes are to say beside what they do.
    run
        The fingerprint of the run whose trajectory it is, if it is one that can be known again.
    """
    root = _metadata_of(folder)
    root["attributes"] |= attributes or {}
    files = {key: known.get(key) or fingerprint_of(file) for key, file in files_of(folder)}
    own = {"files": files} if run is None else {"files": files, "run": dict(run)}
    root["consolidated_metadata"] = {**_consolidated(folder, variables), "neurodyn": own}
    root["consolidated_metadata"]["neurodyn"]["sha256"] = _digest(root)
    _write_metadata(folder, root)


def consolidate(folder: Path, variables: Iterable[Hashable]) -> None:
    """Consolidate the metadata of a store whose values are still to come, the variables in their order."""
    root = _metadata_of(folder)
    root["consolidated_metadata"] = _consolidated(folder, variables)
    _write_metadata(folder, root)


def _write_metadata(folder: Path, root: Mapping[str, Any]) -> None:
    whole = folder / f"{_METADATA}.partial"
    whole.write_text(json.dumps(root))
    os.replace(whole, folder / _METADATA)


def _consolidated(folder: Path, variables: Iterable[Hashable]) -> dict[str, Any]:
    metadata = {str(name): _metadata_of(folder / str(name)) for name in variables}
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def unsealed(folder: Path) -> None:
    """Take back what `seal` has added, for the store to grow."""
    root = _metadata_of(folder)
    if root.pop("consolidated_metadata", None) is not None:
        _write_metadata(folder, root)


def run_of(folder: Path) -> Mapping[str, str | None] | None:
    """Return the fingerprint of the run whose trajectory a store is; None where it does not say so."""
    try:
        seal = _metadata_of(folder)["consolidated_metadata"]["neurodyn"]["run"]
    except (FileError, OSError, LookupError, TypeError):
        return None
    return seal if isinstance(seal, dict) else None


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Iterate over the files of a store with their keys, but for the metadata of the store itself."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            key = file.relative_to(folder).as_posix()
            if key != _METADATA:
                yield key, file


def fingerprint_of(file: Path) -> list[int | str]:
    """Return a file's size and SHA-256."""
    with file.open("rb") as content:
        return [file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest()]


def _digest(root: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(root).encode()).hexdigest()


def read_store(folder: Path) -> xr.Dataset:
    """Return the dataset of a store, each variable read chunk by chunk as it is used.

    Raises
    ------
    OSError
        If the store is damaged, none that xarray can read, or might run code.
    """
    needed("dask.array", extra="zarr")
    root = _members(folder)[""]
    files = _sealed_files(folder, root)
    store = _Verified(LocalStore(folder, read_only=True), folder, files or {})
    try:
        data: xr.Dataset = xr.open_zarr(
            store, chunks={}, consolidated=files is not None, zarr_format=3, decode_timedelta=intervals()
        )
    except FileError:
        raise
    except Exception as error:  # on a store that is not what it says, a reader may raise anything
        raise FileError(f"{folder} is damaged, or no Zarr store of a dataset: {error}") from error
    return data


def foreign_file(folder: Path) -> str | None:
    """Return the name of a file in a folder that is not part of a Zarr store; None if all are."""
    try:
        members = _members(folder)
    except FileError as error:
        return str(error)
    arrays = [path for path, metadata in members.items() if metadata.get("node_type") == "array"]
    for key, file in files_of(folder):
        chunk = any(_CHUNK.fullmatch(key.removeprefix(f"{path}/")) for path in arrays if key.startswith(f"{path}/"))
        if not chunk and file.name != _METADATA:
            return key
    return None


def _members(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the metadata of a store's groups and arrays by their paths, "" for the store, if they are harmless."""
    if not folder.is_dir():
        raise FileError(f"{folder} is a file, and a Zarr store is a folder")
    found: dict[str, dict[str, Any]] = {}
    for place, folders, names in os.walk(folder):
        if links := [name for name in folders if Path(place, name).is_symlink()]:
            raise FileError(f"{folder} was not opened: {links[0]} in it is a symbolic link to another folder")
        if old := sorted(_FORMAT_2.intersection(names)):
            _refuse_format(folder, Path(place, old[0]).relative_to(folder).as_posix(), 2)
        if _METADATA in names:
            path = Path(place).relative_to(folder).as_posix()
            found["" if path == "." else path] = _metadata_of(Path(place))
    if "" not in found:
        raise FileError(f"{folder} is damaged, or no Zarr store: it holds no {_METADATA}")
    for path, metadata in found.items():
        _refuse_harm(folder, f"{path}/{_METADATA}".lstrip("/"), metadata)
    return found


def _metadata_of(node: Path) -> dict[str, Any]:
    file = node / _METADATA
    try:
        metadata = json.loads(file.read_bytes())
        if not isinstance(metadata, dict):
            raise ValueError(f"it is a {type(metadata).__name__}")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file} is damaged, or no metadata of Zarr: {error}") from error
    return metadata


def _refuse_harm(folder: Path, file: str, metadata: Any) -> None:
    """Refuse metadata, the consolidated of other nodes among them, of another format or with codecs unheard of."""
    if not isinstance(metadata, dict):
        raise FileError(f"{folder / file} is damaged, or no metadata of Zarr")
    if metadata.get("zarr_format") != 3:
        _refuse_format(folder, file, metadata.get("zarr_format"))
    _refuse_codecs(folder, file, metadata.get("codecs"))
    consolidated = metadata.get("consolidated_metadata")
    if isinstance(consolidated, dict) and isinstance(consolidated.get("metadata"), dict):
        for node in consolidated["metadata"].values():
            _refuse_harm(folder, file, node)


def _refuse_format(folder: Path, file: str, number: Any) -> None:
    raise FileError(
        f"{folder} was not opened: {file} is of Zarr format {number}, and only format 3 is opened, as another may hold "
        "code. If you trust where it comes from, open it with xarray, and save it anew"
    )


def _refuse_codecs(folder: Path, file: str, codecs: Any) -> None:
    for codec in codecs if isinstance(codecs, list) else []:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if name not in _CODECS:
            raise FileError(
                f"{folder} was not opened: {file} names the codec {name!r}, and only these are known to be harmless: "
                f"{', '.join(sorted(_CODECS))}"
            )
        settings = codec.get("configuration") if isinstance(codec, dict) else None
        for nested in ("codecs", "index_codecs"):  # those of a shard
            _refuse_codecs(folder, file, settings.get(nested) if isinstance(settings, dict) else None)


def _sealed_files(folder: Path, root: Mapping[str, Any]) -> Fingerprints | None:
    """Return what the files of a store were when it was written, if it says so, and it and they still fit.

    What a chunk holds is compared when it is first read.
    """
    consolidated = root.get("consolidated_metadata")
    seal = consolidated.get("neurodyn") if isinstance(consolidated, dict) else None
    if seal is None:
        return None
    digest = seal.pop("sha256", None) if isinstance(seal, dict) else None
    if digest != _digest(root):
        raise FileError(
            f"{folder / _METADATA} is damaged: its checksum does not fit its content; put a copy in its place"
        )
    files: Fingerprints = seal["files"]
    refuse_damage(folder, files)
    return files


def refuse_damage(folder: Path, files: Fingerprints) -> None:
    """Refuse a store whose files are missing, or of another size, or whose metadata are other ones.

    Raises
    ------
    OSError
        If it is so.
    """
    for key, expected in files.items():
        file = folder / key
        if not file.is_file():
            raise FileError(_damaged(folder, key, "is missing"))
        if file.stat().st_size != expected[0] or (file.name == _METADATA and fingerprint_of(file) != expected):
            raise FileError(_damaged(folder, key, "is not as it was written"))


def _damaged(folder: Path, key: str, how: str) -> str:
    variable, file = key.split("/", 1)
    return f"{folder} is damaged: {file} of variable {variable} {how}; put a copy in its place"


class _Verified(WrapperStore[LocalStore]):
    """A store that compares each file with what it was when it was written."""

    def __init__(self, store: LocalStore, folder: Path, files: Fingerprints) -> None:
        super().__init__(store)
        self._folder, self._files = folder, files
        self._verified: set[str] = set()

    def _with_store(self, store: LocalStore) -> _Verified:
        return _Verified(store, self._folder, self._files)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key in self._files and key not in self._verified:
            await asyncio.to_thread(self._verify, key)
            self._verified.add(key)
        content = await super().get(key, prototype, byte_range)
        if content is None and key in self._files:
            raise FileError(_damaged(self._folder, key, "is missing"))
        return content

    def _verify(self, key: str) -> None:
        file = self._folder / key
        if file.is_file() and fingerprint_of(file) != self._files[key]:
            raise FileError(_damaged(self._folder, key, "is not as it was when the store was opened"))

"""Data sets: what is drawn, what is read from each format, what is refused, and what is downloaded."""

import doctest
import gzip
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch
import pytest
import scipy.io
import torch

from neurodyn import data
from neurodyn.data import datasets, files
from neurodyn.data.datasets import DATASETS, Samples
from neurodyn.errors import FileError

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEURODYN_DATA", raising=False)


def pixels(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def labels(count: int, classes: int = 10) -> Bytes:
    return np.arange(count, dtype=np.uint8) % classes


def write_idx(path: Path, array: Bytes) -> None:
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, suffix: str = ".gz") -> dict[str, Bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 25), ("t10k", 12)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", pixels(count, 28, 28))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels(count))
    return {"train": pixels(25, 28, 28), "test": pixels(12, 28, 28)}


def records(label_columns: Bytes, images: Bytes) -> bytes:
    return np.hstack([label_columns, images.reshape(len(images), -1)]).tobytes()


def cifar_files(name: str) -> dict[str, bytes]:
    """Return the content of each member of the archive: three images a file, different from file to file."""
    if name == "cifar10":
        members = [f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)]
        members.append("cifar-10-batches-bin/test_batch.bin")
        columns = np.array([[7], [0], [9]], dtype=np.uint8)
    else:
        members = ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"]
        columns = np.array([[19, 99], [0, 0], [3, 42]], dtype=np.uint8)
    images = pixels(len(members), 3, 3, 32, 32)
    return {member: records(columns, images[index]) for index, member in enumerate(members)}


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        # In another order than they are asked for, as in the published archive.
        for member, content in reversed(files.items()):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_svhn(folder: Path, images: Bytes, classes: Sequence[float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"X": images.transpose(2, 3, 1, 0), "y": np.array(classes)[:, np.newaxis]}
    for split in ("train", "test"):
        scipy.io.savemat(folder / f"{split}_32x32.mat", content, do_compression=True)


# --- Samples


def test_drawn_samples_are_fractions_and_one_hot_targets() -> None:
    stored = torch.tensor([[0, 51], [255, 102], [1, 2]], dtype=torch.uint8)
    samples = Samples(stored, torch.tensor([2, 0, 1]), classes=3, name="three")
    inputs, targets = samples[:2]
    assert torch.equal(inputs, torch.tensor([[0.0, 0.2], [1.0, 0.4]]))
    assert torch.equal(targets, torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert len(samples) == 3
    assert samples.inputs.dtype == torch.uint8
    assert repr(samples) == "<Samples three: 3 inputs of 2 uint8, 3 classes>"


@pytest.mark.parametrize("index", [[4, 1], torch.tensor([4, 1]), np.array([4, 1]), slice(1, 5, 3)])
def test_every_kind_of_index_draws_the_same_samples(index: list[int]) -> None:
    samples = Samples(torch.rand(6, 1, 2, 2), torch.arange(6), classes=6, name="six")
    inputs, targets = samples[index]
    rows = [1, 4] if isinstance(index, slice) else [4, 1]
    assert torch.equal(inputs, samples.inputs[rows])
    assert targets.argmax(1).tolist() == rows
    one, target = samples[rows[0]]
    assert torch.equal(one, inputs[0])
    assert torch.equal(target, targets[0])


def test_drawn_samples_have_the_default_dtype() -> None:
    samples = Samples(torch.rand(2, 3), torch.tensor([0, 1]), classes=2, name="two")
    torch.set_default_dtype(torch.float64)
    try:
        inputs, targets = samples[:]
    finally:
        torch.set_default_dtype(torch.float32)
    assert inputs.dtype == targets.dtype == torch.float64


def test_changing_a_batch_leaves_the_samples_unchanged() -> None:
    samples = Samples(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64), classes=2, name="ones")
    samples[:2][0].zero_()
    assert samples.inputs.min() == 1


def test_samples_feed_a_data_loader() -> None:
    samples = Samples(torch.rand(5, 3), torch.arange(5), classes=5, name="five")
    batches = list(torch.utils.data.DataLoader(samples, batch_size=2))
    assert [tuple(x.shape) for x, _ in batches] == [(2, 3), (2, 3), (1, 3)]
    assert torch.equal(torch.cat([t for _, t in batches]), torch.eye(5))


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), TypeError, "inputs must be"),
        (torch.ones(2, 3), torch.zeros(2), TypeError, "labels must be int64"),
        (torch.ones(2, 3), torch.zeros(3, dtype=torch.int64), ValueError, "as many labels"),
        (torch.ones(2), torch.zeros(2, dtype=torch.int64), ValueError, r"inputs \[n"),
        (torch.ones(0, 3), torch.zeros(0, dtype=torch.int64), ValueError, "no samples"),
        (torch.ones(2, 3), torch.tensor([0, 4]), ValueError, "0 to 3, found 0 to 4"),
        (torch.ones(2, 3), torch.tensor([-1, 0]), ValueError, "found -1 to 0"),
    ],
)
def test_bad_samples_are_refused(
    inputs: torch.Tensor, targets: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^mine: .*{message}"):
        Samples(inputs, targets, classes=4, name="mine")


def test_docstring_examples() -> None:
    result = doctest.testmod(datasets)
    assert result.attempted > 0
    assert result.failed == 0


# --- digits


def test_digits_are_split_by_class_without_overlap() -> None:
    train, test = data.digits(test_fraction=0.25)
    assert len(train) + len(test) == 1797
    together = torch.cat([train.inputs, test.inputs])
    assert together.min() == 0
    assert together.max() == 1
    counts = train.labels.bincount(), test.labels.bincount()
    assert torch.all((counts[1] - 0.25 * (counts[0] + counts[1])).abs() <= 1)
    everything = data.digits(test_fraction=0.5, seed=3)
    rows = torch.cat([everything[0].inputs, everything[1].inputs])
    assert torch.equal(together.unique(dim=0, return_counts=True)[1], rows.unique(dim=0, return_counts=True)[1])


def test_digits_are_the_same_for_the_same_seed() -> None:
    first, again, other = (data.digits(seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


def test_digits_as_images() -> None:
    vectors, _ = data.digits()
    images, _ = data.digits(flatten=False)
    assert images[:2][0].shape == (2, 1, 8, 8)
    assert torch.equal(images.inputs.flatten(1), vectors.inputs)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_digits_refuse_a_bad_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="test_fraction"):
        data.digits(test_fraction=fraction)


# --- files in a folder


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_idx_files(name: str, suffix: str, tmp_path: Path) -> None:
    written = write_mnist(tmp_path, suffix)
    for samples, split in zip(DATASETS[name](tmp_path), ("train", "test"), strict=True):
        assert samples.name == f"{name} {split}"
        assert samples.inputs.dtype == torch.uint8
        assert np.array_equal(samples.inputs.numpy(), written[split].reshape(-1, 784))
        assert samples.labels.tolist() == labels(len(samples)).tolist()
    images, _ = DATASETS[name](tmp_path, flatten=False)
    assert images[0][0].shape == (1, 28, 28)


@pytest.mark.parametrize("extracted", [None, "in their folder", "bare"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files(name: str, extracted: str | None, tmp_path: Path) -> None:
    contents = cifar_files(name)
    if extracted is None:
        (archive,) = files.checksums(name)
        write_archive(tmp_path / archive, {**contents, "readme.html": b"<html>"})
    for member, content in contents.items() if extracted else ():
        path = tmp_path / (member if extracted == "in their folder" else Path(member).name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    train, test = DATASETS[name](tmp_path)
    images = pixels(len(contents), 3, 3, 32, 32)
    fine = [7, 0, 9] if name == "cifar10" else [99, 0, 42]
    assert np.array_equal(train.inputs.numpy(), images[:-1].reshape(-1, 3, 32, 32))
    assert np.array_equal(test.inputs.numpy(), images[-1])
    assert train.labels.tolist() == fine * (len(contents) - 1)
    assert test.labels.tolist() == fine
    assert train.classes == (10 if name == "cifar10" else 100)
    assert DATASETS[name](tmp_path, flatten=True)[1][:][0].shape == (3, 3072)


def test_svhn_files(tmp_path: Path) -> None:
    images = pixels(4, 3, 32, 32)
    write_svhn(tmp_path, images, [1, 9, 10, 5])
    train, test = data.svhn(tmp_path)
    for samples in (train, test):
        assert np.array_equal(samples.inputs.numpy(), images)
        assert samples.labels.tolist() == [1, 9, 0, 5]
    assert train[0][0].shape == (3, 32, 32)
    assert data.svhn(tmp_path, flatten=True)[0][0][0].shape == (3072,)


def test_a_subfolder_of_the_data_sets_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist")
    assert len(data.mnist(tmp_path)[0]) == 25
    monkeypatch.setenv("NEURODYN_DATA", str(tmp_path))
    assert len(data.mnist()[0]) == 25
    with pytest.raises(FileNotFoundError, match=r"holds no train-images.*NEURODYN_DATA"):
        data.kmnist()


def test_a_folder_of_another_data_set_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    with pytest.raises(ValueError, match="another data set than fashion-mnist"):
        data.fashion_mnist(tmp_path / "mnist")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    remedy = "Put .* from http.* into a folder and name it with root= or NEURODYN_DATA"
    with pytest.raises(FileNotFoundError, match=rf"no folder .*absent.*{remedy}"):
        DATASETS[name](tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name} holds no .*{remedy}"):
        DATASETS[name](tmp_path)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"\xff" * 50 + content[60:])


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (f"{IMAGES}.gz", shortened, "end-of-stream"),
        (f"{IMAGES}.gz", garbled, "invalid block"),
        (f"{IMAGES}.gz", lambda path: path.write_bytes(b"<html>Not found</html>"), "[Nn]ot a gzip"),
        (f"{LABELS}.gz", lambda path: write_idx(path, labels(11)), "as many labels"),
        (f"{LABELS}.gz", lambda path: write_idx(path, labels(12, 11)), "0 to 9, found 0 to 10"),
        (f"{LABELS}.gz", lambda path: write_idx(path, pixels(12, 28, 28)), "00 00 08 01, found 00 00 08 03"),
        (f"{IMAGES}.gz", lambda path: write_idx(path, pixels(12, 8, 8)), "28×28 pixels, found"),
        (IMAGES, shortened, "cannot reshape"),
        (IMAGES, lambda path: path.write_bytes(b""), "first bytes"),
        (IMAGES, lambda path: path.write_bytes(bytes([0, 0, 8, 3, 0, 0])), "buffer"),
    ],
)
def test_damaged_idx_files_are_named(file: str, damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path, ".gz" if file.endswith(".gz") else "")
    damage(tmp_path / file)
    with pytest.raises(ValueError, match=f"{file} as a file of mnist: .*{message}.*NEURODYN_DATA"):
        data.mnist(tmp_path)


def test_damaged_cifar_files_are_named(tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    last = "cifar-10-batches-bin/test_batch.bin"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=f"{archive.name} as a file of cifar10: .*{message}"):
            data.cifar10(tmp_path)

    write_archive(archive, {**files, last: files[last][:-1]})
    refused("cannot reshape")
    write_archive(archive, {**files, last: records(np.array([[10]], dtype=np.uint8), pixels(1, 3072))})
    refused("found 10 to 10")
    write_archive(archive, {member: content for member, content in files.items() if member != last})
    refused(f"holds no {last}")
    write_archive(archive, files)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    refused("")
    # The first of the last eight bytes belongs to gzip's checksum, which comes after all members.
    archive.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    refused("CRC")
    archive.write_bytes(gzip.compress(b"no archive" * 100))
    refused("invalid header")


@pytest.mark.parametrize("kept", [0, 2, 100, 128, 140, -1])
def test_truncated_svhn_files_are_named(kept: int, tmp_path: Path) -> None:
    write_svhn(tmp_path, pixels(4, 3, 32, 32), [1, 9, 10, 5])
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"test_32x32\.mat as a file of svhn: "):
        data.svhn(tmp_path)


@pytest.mark.parametrize(
    ("after_text", "message"),
    [
        (b"\x00\x02IM", "v7.3"),
        (b"\x00\x07IM", "version 7"),
        (b"\x00\x01IM" + bytes([1, 0, 0, 0, 8, 0, 0, 0]) + bytes(8), "Expecting miMATRIX"),
    ],
)
def test_svhn_files_of_another_format_are_named(after_text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "train_32x32.mat").write_bytes(b" " * 124 + after_text)
    with pytest.raises(ValueError, match=f"train_32x32.mat as a file of svhn: .*{message}"):
        data.svhn(tmp_path)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((4, 3, 32, 32), [1, 9, 11, 5], "1 to 10, found 1 to 11"),
        ((4, 3, 32, 32), [1, 0, 10, 5], "1 to 10, found 0 to 10"),
        ((4, 3, 32, 32), [1, 4.5, 10, 5], "labels must be whole numbers"),
        ((4, 3, 32, 32), [1, 2, 3], "as many labels"),
        ((4, 3, 16, 16), [1, 2, 3, 4], "expected uint8 images"),
    ],
)
def test_wrong_svhn_files_are_named(shape: tuple[int, ...], classes: list[float], message: str, tmp_path: Path) -> None:
    write_svhn(tmp_path, pixels(*shape), classes)
    with pytest.raises(ValueError, match=f"train_32x32.mat as a file of svhn: .*{message}"):
        data.svhn(tmp_path)


# --- downloads, from a server on the loopback interface


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the folder that this yields as if it published MNIST, with an empty cache."""
    folder = tmp_path / "published"
    write_mnist(folder)
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    md5 = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setitem(files._URLS, "mnist", f"http://127.0.0.1:{http.server_port}/")
        monkeypatch.setattr(files, "_PUBLISHED", "\n".join(f"mnist {file} {sum_}" for file, sum_ in md5))
        monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
        yield folder
        http.shutdown()
        thread.join()


def test_download_fills_the_cache_once(server: Path, tmp_path: Path) -> None:
    train, test = data.mnist()
    assert (len(train), len(test)) == (25, 12)
    assert len(list((tmp_path / "cache" / "neurodyn" / "mnist").iterdir())) == 4
    for path in server.iterdir():
        path.unlink()
    again, _ = data.mnist()
    assert torch.equal(again.inputs, train.inputs)


def test_download_with_a_wrong_checksum_is_refused(server: Path, tmp_path: Path) -> None:
    write_idx(server / "t10k-labels-idx1-ubyte.gz", labels(12, 9))
    with pytest.raises(OSError, match=r"could not download t10k-labels.* hash .*NEURODYN_DATA"):
        data.mnist()
    assert not (tmp_path / "cache" / "neurodyn" / "mnist" / "t10k-labels-idx1-ubyte.gz").exists()


def test_failed_download_says_what_to_do(server: Path) -> None:
    (server / "t10k-labels-idx1-ubyte.gz").unlink()
    url = f"{files._URLS['mnist']}t10k-labels-idx1-ubyte.gz"
    with pytest.raises(FileError, match=rf"could not download .* from {url} to .* 404 .*NEURODYN_DATA"):
        data.mnist()


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"])
def test_a_connection_that_breaks_off_is_named(answer: bytes, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setitem(files._URLS, "mnist", f"http://127.0.0.1:{listening.getsockname()[1]}/")

        def answer_once() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once, daemon=True)
        thread.start()
        with pytest.raises(FileError, match=r"could not download .* of mnist from http://127.*NEURODYN_DATA"):
            data.mnist()
        thread.join()


def test_a_cache_that_cannot_be_written_is_named(server: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FileError, match=r"could not download .* to .*cache.*NEURODYN_DATA"):
        data.mnist()


def test_every_data_set_has_an_address_and_checksums() -> None:
    for name in DATASETS.keys() - {"digits"}:
        sums = files.checksums(name)
        assert files._URLS[name].endswith("/")
        assert sums
        assert all(len(bytes.fromhex(value.removeprefix("md5:"))) == 16 for value in sums.values())

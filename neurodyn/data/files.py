"""The published files of the data sets: found in a folder, or downloaded once and verified."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurodyn.checks import file_path, needed
from neurodyn.errors import FileError, InvalidValueError, MissingFileError

Root = str | os.PathLike[str] | None

_URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "kmnist": "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
    "cifar100": "https://www.cs.toronto.edu/~kriz/",
    "svhn": "http://ufldl.stanford.edu/housenumbers/",
}

# The published MD5 checksums: data set, file, checksum.
_PUBLISHED = """
mnist train-images-idx3-ubyte.gz f68b3c2dcbeaaa9fbdd348bbdeb94873
mnist train-labels-idx1-ubyte.gz d53e105ee54ea40749a09fcbcd1e9432
mnist t10k-images-idx3-ubyte.gz 9fb629c4189551a2d022fa330f9573f3
mnist t10k-labels-idx1-ubyte.gz ec29112dd5afa0611ce80d1b7f02629c
fashion-mnist train-images-idx3-ubyte.gz 8d4fb7e6c68d591d4c3dfef9ec88bf0d
fashion-mnist train-labels-idx1-ubyte.gz 25c81989df183df01b3e8a0aad5dffbe
fashion-mnist t10k-images-idx3-ubyte.gz bef4ecab320f06d8554ea6380940ec79
fashion-mnist t10k-labels-idx1-ubyte.gz bb300cfdad3c16e7a12a480ee83cd310
kmnist train-images-idx3-ubyte.gz bdb82020997e1d708af4cf47b453dcf7
kmnist train-labels-idx1-ubyte.gz e144d726b3acfaa3e44228e80efcd344
kmnist t10k-images-idx3-ubyte.gz 5c965bf0a639b31b8f53240b1b52f4d7
kmnist t10k-labels-idx1-ubyte.gz 7320c461ea6c1c855c0b718fb2a4b134
cifar10 cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530
cifar100 cifar-100-binary.tar.gz 03b5dce01913d631647c71ecec9e9cb8
svhn train_32x32.mat e26dedcc434d2e4c54c9b2d4a06d8373
svhn test_32x32.mat eb5a983be6a315427106f1b164d9cef3
"""


def checksums(name: str) -> dict[str, str]:
    """Return the names of a data set's published files and their checksums, as pooch writes them."""
    lines = (line.split() for line in _PUBLISHED.splitlines() if line)
    return {file: f"md5:{md5}" for dataset, file, md5 in lines if dataset == name}


def _remedy(name: str) -> str:
    files = ", ".join(checksums(name))
    return f"Put {files} from {_URLS[name]} into a folder and name it with root= or NEURODYN_DATA."


def folder_of(name: str, root: Root) -> Path:
    """Return the folder with the files of a data set: the user's own, or the cache, filled if need be."""
    if root is None and not (root := os.environ.get("NEURODYN_DATA")):
        return _download(name)
    folder = file_path("root", root).expanduser()
    if (folder / name).is_dir():
        return folder / name
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}. {_remedy(name)}")
    # MNIST, Fashion-MNIST and KMNIST share their file names: one would pass silently for another.
    if folder.name in _URLS and folder.name != name:
        raise InvalidValueError(f"the folder {folder} is named after another data set than {name}. {_remedy(name)}")
    return folder


def _download(name: str) -> Path:
    pooch = needed("pooch", extra="data")
    folder = pooch.os_cache("neurodyn") / name
    cache = pooch.create(path=folder, base_url=_URLS[name], registry=checksums(name))
    for file in cache.registry_files:
        try:
            cache.fetch(file, progressbar=True)
        except (OSError, ValueError) as error:  # no connection or no space; a wrong checksum
            raise FileError(
                f"could not download {file} of {name} from {cache.get_url(file)} to {folder}: {error}. Try again "
                f"later, or do without. {_remedy(name)}"
            ) from error
    return Path(folder)


def find(name: str, folder: Path, *candidates: str) -> Path:
    """Return the first of the candidates that lies in a folder; a FileNotFoundError says what is wanted."""
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise MissingFileError(f"{folder} holds no {' or '.join(candidates)}. {_remedy(name)}")


# What gzip, tarfile, NumPy and SciPy raise on a damaged file or another format.
_DAMAGE = (
    EOFError, LookupError, NotImplementedError, OSError, TypeError, ValueError,
    tarfile.TarError, zlib.error,
)  # fmt: skip


@contextmanager
def reading(name: str, path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a ValueError that names the file and the remedy."""
    try:
        yield
    except _DAMAGE as error:
        raise InvalidValueError(f"cannot read {path} as a file of {name}: {error}. {_remedy(name)}") from error

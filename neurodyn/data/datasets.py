"""Labelled data sets: downloaded or read from a folder, with inputs in [0, 1] and one-hot targets."""

import gzip
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset

from neurodyn.checks import flag, needed, number, whole
from neurodyn.data import files
from neurodyn.errors import InvalidTypeError, InvalidValueError

_Bytes = npt.NDArray[np.uint8]


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Labelled samples; indexing draws ``(inputs, targets)``, ready for a network and a squared error.

    Drawn inputs and one-hot targets have PyTorch's default dtype. Pixels stored as bytes stay bytes until
    they are drawn, which saves three quarters of the memory.

    Parameters
    ----------
    inputs : Tensor [n, ...]
        One input a row: floating point, drawn unchanged, or uint8, drawn as fractions of 255.
    labels : Tensor [n]
        The class of each sample, int64, from 0 to ``classes − 1``.
    classes : int
        Number of classes, the length of a target.
    name : str
        Name of the set, for messages.

    Raises
    ------
    TypeError
        If the inputs or the labels have another dtype.
    ValueError
        If there are no samples, not as many labels as inputs, or a label is out of range.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.digits()
    >>> inputs, targets = train[:64]
    >>> inputs.shape, targets.shape
    (torch.Size([64, 64]), torch.Size([64, 10]))
    """

    def __init__(self, inputs: Tensor, labels: Tensor, *, classes: int, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidTypeError(f"name of the samples must be text, not {type(name).__name__}")
        for what, tensor in (("inputs", inputs), ("labels", labels)):
            if not isinstance(tensor, Tensor):
                raise InvalidTypeError(f"{name}: {what} must be a torch tensor, not {type(tensor).__name__}")
        if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
            raise InvalidTypeError(f"{name}: inputs must be floating point or uint8, not {inputs.dtype}")
        if labels.dtype != torch.int64:
            raise InvalidTypeError(f"{name}: labels must be int64, not {labels.dtype}")
        if inputs.ndim < 2 or labels.shape != inputs.shape[:1]:
            shapes = f"inputs {list(inputs.shape)} and labels {list(labels.shape)}"
            raise InvalidValueError(f"{name}: expected inputs [n, …] and as many labels [n], got {shapes}")
        if len(labels) == 0:
            raise InvalidValueError(f"{name}: there are no samples")
        classes = whole(f"{name}: classes", classes, least=1)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise InvalidValueError(f"{name}: labels must lie in 0 to {classes - 1}, found {low} to {high}")
        self.inputs = inputs
        self.labels = labels
        self.classes = classes
        self.name = name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.get_default_dtype()
        # Copied, so that whoever changes a batch in place does not change the data set.
        inputs = self.inputs[index].to(dtype, copy=True)
        if self.inputs.dtype == torch.uint8:
            inputs /= 255
        return inputs, one_hot(self.labels[index], self.classes).to(dtype)

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.inputs.shape[1:])
        kind = f"{shape} {str(self.inputs.dtype).removeprefix('torch.')}"
        return f"<Samples {self.name}: {len(self)} inputs of {kind}, {self.classes} classes>"


def digits(*, test_fraction: float = 0.2, seed: int = 0, flatten: bool = True) -> tuple[Samples, Samples]:
    """Return the 1,797 handwritten digits of 8×8 pixels that scikit-learn ships; nothing is downloaded.

    Parameters
    ----------
    test_fraction : float
        Fraction of each class that is held out as the test set, from 0.01 to 0.99.
    seed : int
        Seed of the split and of the order of the samples.
    flatten : bool
        Whether an input is a vector [64] rather than an image [1, 8, 8].

    Returns
    -------
    train, test : Samples
        Inputs stored as float32, in steps of 1/16 from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If ``test_fraction`` is out of range, or another argument is not as above.

    References
    ----------
    E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Repository, 1998.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.digits()
    >>> len(train), len(test)
    (1437, 360)
    >>> inputs, targets = train[:2]
    >>> tuple(inputs.shape), tuple(targets.shape)
    ((2, 64), (2, 10))
    """
    test_fraction, seed = number("test_fraction", test_fraction), whole("seed", seed, least=0)
    flatten = flag("flatten", flatten)
    if seed >= 2**32:
        raise InvalidValueError(f"seed must be less than 2**32, not {seed}")
    # Imported here because scikit-learn takes as long to import as PyTorch, and only the digits need it.
    load_digits = needed("sklearn.datasets", extra="data").load_digits
    train_test_split = needed("sklearn.model_selection", extra="data").train_test_split

    if not 0.01 <= test_fraction <= 0.99:
        raise InvalidValueError(f"test_fraction must lie between 0.01 and 0.99, got {test_fraction}")
    pixels, classes = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32, device="cpu").reshape(
        (-1, 64) if flatten else (-1, 1, 8, 8)
    )
    labels = torch.tensor(classes, dtype=torch.int64, device="cpu")
    train, test = train_test_split(
        np.arange(len(classes)), test_size=test_fraction, stratify=classes, random_state=seed
    )
    return (
        Samples(inputs[train], labels[train], classes=10, name="digits train"),
        Samples(inputs[test], labels[test], classes=10, name="digits test"),
    )


def mnist(root: files.Root = None, *, flatten: bool = True) -> tuple[Samples, Samples]:
    """Return MNIST: 60,000 and 10,000 handwritten digits of 28×28 grey pixels.

    Parameters
    ----------
    root : path
        Folder with the published files, or subsets in their format, compressed or not. If it has a
        subfolder of the data set's name in `DATASETS`, that is read. Default: the folder that the
        environment variable ``NEURODYN_DATA`` names; without it, the files are downloaded once into the
        user's cache, and compared with their published checksums.
    flatten : bool
        Whether an input is a vector [784] rather than an image [1, 28, 28].

    Returns
    -------
    train, test : Samples
        Inputs stored as uint8.

    Raises
    ------
    FileNotFoundError
        If the folder or a file is missing.
    ValueError
        If a file is damaged or of another format, or the folder is named after another data set.
    OSError
        If the download fails.

    References
    ----------
    Y. LeCun et al., Gradient-based learning applied to document recognition, *Proc. IEEE* 86, 1998.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.mnist()  # doctest: +SKIP
    """
    return _idx("mnist", root, flatten)


def fashion_mnist(root: files.Root = None, *, flatten: bool = True) -> tuple[Samples, Samples]:
    """Return Fashion-MNIST: pieces of clothing, in the format and numbers of `mnist`, which says the rest.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.fashion_mnist()  # doctest: +SKIP
    """
    return _idx("fashion-mnist", root, flatten)


def kmnist(root: files.Root = None, *, flatten: bool = True) -> tuple[Samples, Samples]:
    """Return Kuzushiji-MNIST: Japanese characters, in the format and numbers of `mnist`, which says the rest.

    References
    ----------
    T. Clanuwat et al., Deep Learning for Classical Japanese Literature, arXiv:1812.01718, 2018.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.kmnist()  # doctest: +SKIP
    """
    return _idx("kmnist", root, flatten)


def cifar10(root: files.Root = None, *, flatten: bool = False) -> tuple[Samples, Samples]:
    """Return CIFAR-10: 50,000 and 10,000 colour photographs [3, 32, 32] in 10 classes.

    The files are the binary version's archive, or those out of it; `mnist` says the rest.

    References
    ----------
    A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, University of Toronto, 2009.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.cifar10()  # doctest: +SKIP
    """
    files = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar("cifar10", files, "cifar-10-batches-bin/test_batch.bin", 10, root, flatten)


def cifar100(root: files.Root = None, *, flatten: bool = False) -> tuple[Samples, Samples]:
    """Return CIFAR-100 with its 100 fine classes; all else as in `cifar10`.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.cifar100()  # doctest: +SKIP
    """
    return _cifar("cifar100", ["cifar-100-binary/train.bin"], "cifar-100-binary/test.bin", 100, root, flatten)


def svhn(root: files.Root = None, *, flatten: bool = False) -> tuple[Samples, Samples]:
    """Return SVHN: 73,257 and 26,032 colour photographs [3, 32, 32] of house numbers, cropped to a digit.

    The files are ``train_32x32.mat`` and ``test_32x32.mat``; `mnist` says the rest.

    References
    ----------
    Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, *NIPS Workshop on
    Deep Learning and Unsupervised Feature Learning*, 2011.

    Examples
    --------
    >>> import neurodyn as nd
    >>> train, test = nd.data.svhn()  # doctest: +SKIP
    """
    from scipy.io.matlab import MatReadError, loadmat

    flag("flatten", flatten)
    folder = files.folder_of("svhn", root)

    def load(split: str) -> Samples:
        path = files.find("svhn", folder, f"{split}_32x32.mat")
        with files.reading("svhn", path):
            try:
                content = loadmat(path, variable_names=["X", "y"])
            except MatReadError as error:
                raise InvalidValueError(str(error)) from error
            images, labels = content["X"], content["y"].ravel()
            if images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8:
                raise InvalidValueError(f"expected uint8 images (32, 32, 3, n), found {images.dtype} {images.shape}")
            if (labels % 1).any():
                raise InvalidValueError("labels must be whole numbers")
            if labels.min() < 1 or labels.max() > 10:
                raise InvalidValueError(f"labels must lie in 1 to 10, found {labels.min()} to {labels.max()}")
            # The file numbers the digit 0 as class 10.
            return _samples(f"svhn {split}", images.transpose(3, 2, 0, 1), labels % 10, 10, flatten)

    return load("train"), load("test")


#: The loaders, by the names that command lines, folders and the cache use.
DATASETS: Mapping[str, Callable[..., tuple[Samples, Samples]]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "kmnist": kmnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
}


def _samples(name: str, images: _Bytes, labels: npt.NDArray[np.integer], classes: int, flatten: bool) -> Samples:
    # Copied, because PyTorch takes only arrays that may be written to, and bytes read from a file may not.
    inputs = torch.from_numpy(images.copy(order="C"))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Samples(inputs.flatten(1) if flatten else inputs, targets, classes=classes, name=name)


def _idx(name: str, root: files.Root, flatten: bool) -> tuple[Samples, Samples]:
    flag("flatten", flatten)
    folder = files.folder_of(name, root)

    def load(split: str, prefix: str) -> Samples:
        stems = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        image_path, label_path = (files.find(name, folder, f"{stem}.gz", stem) for stem in stems)
        with files.reading(name, image_path):
            images = _idx_array(image_path, 3)
            if images.shape[1:] != (28, 28):
                raise InvalidValueError(f"expected images of 28×28 pixels, found {images.shape[1:]}")
        with files.reading(name, label_path):
            labels = _idx_array(label_path, 1)
            return _samples(f"{name} {split}", images[:, np.newaxis], labels, 10, flatten)

    return load("train", "train"), load("test", "t10k")


def _idx_array(path: Path, dimensions: int) -> _Bytes:
    """Parse an IDX file: the bytes 0, 0, 8 (uint8), number of dimensions; the sizes; the entries."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise InvalidValueError(f"expected its first bytes to be {magic.hex(' ')}, found {content[:4].hex(' ')}")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _cifar(
    name: str, train: Sequence[str], test: str, classes: int, root: files.Root, flatten: bool
) -> tuple[Samples, Samples]:
    flag("flatten", flatten)
    content = _members(name, files.folder_of(name, root), [*train, test])
    label_bytes = 2 if classes == 100 else 1  # CIFAR-100 has the coarse label before the fine one

    def load(split: str, member: str) -> Samples:
        path, raw = content[member]
        with files.reading(name, path):
            records = np.frombuffer(raw, np.uint8).reshape(-1, label_bytes + 3 * 32 * 32)
            images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
            return _samples(f"{name} {split}", images, records[:, label_bytes - 1], classes, flatten)

    parts = [load("train", member) for member in train]
    inputs, labels = torch.cat([each.inputs for each in parts]), torch.cat([each.labels for each in parts])
    return Samples(inputs, labels, classes=classes, name=f"{name} train"), load("test", test)


def _members(name: str, folder: Path, members: Sequence[str]) -> dict[str, tuple[Path, bytes]]:
    """Return each member's content and the file it came from: the archive, or the file extracted from it."""
    (archive,) = files.checksums(name)
    path = folder / archive
    if not path.is_file():
        paths = {each: files.find(name, folder, each, PurePosixPath(each).name, archive) for each in members}
        return {each: (found, found.read_bytes()) for each, found in paths.items()}
    with files.reading(name, path), gzip.open(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as packed:
            entries = ((str(PurePosixPath(entry.name)), packed.extractfile(entry)) for entry in packed)
            content = {each: (path, entry.read()) for each, entry in entries if entry is not None}
        stream.read()  # to the end, where gzip compares the checksum
        if missing := set(members) - set(content):
            raise InvalidValueError(f"it holds no {', '.join(sorted(missing))}")
    return content

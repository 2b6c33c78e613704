"""What a study is asked for on its command line, and the setting that runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from torch.nn.functional import avg_pool2d

import neurodyn as nd
from neurodyn.checks import needed, positive, usable_device, whole, writable_folder
from neurodyn.errors import InvalidValueError
from neurodyn.layers.activations import NAMED
from neurodyn.progress import Bar, show

tyro = needed("tyro", extra="studies")

if TYPE_CHECKING:
    DatasetName = str
    ActivationName = str
else:
    DatasetName = tyro.extras.literal_type_from_choices(nd.data.DATASETS)
    ActivationName = tyro.extras.literal_type_from_choices(NAMED)


@dataclass(frozen=True)
class Options:
    """What every study is asked for.

    Of all options, whole numbers count something and are at least 1, other numbers are positive, and of those that take
    several values there is at least one.

    Parameters
    ----------
    out
        The folder for the results.
    full
        The paper's setting, or where it gives none a larger one; an option that is given wins over it. With --help, the
        options' values in that setting.
    seeds
        Each draws all that is random, such as weights and the order of the samples, and is one repetition.
    device
        Where to compute, e.g. cpu or cuda.
    quiet
        Show no progress.
    """

    once: ClassVar[tuple[str, ...]] = ()
    """Beside the seeds, the options of which a study goes through each value, and so takes it once."""

    out: Path = Path("results")
    full: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    quiet: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value == ():
                raise InvalidValueError(f"{field.name}: give at least one")
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, float):
                    if positive(field.name, each) > torch.finfo(torch.float32).max:
                        raise InvalidValueError(f"{field.name}: single precision does not hold {each:g}")
                elif isinstance(each, int) and not isinstance(each, bool):
                    whole(field.name, each, least=0 if field.name == "seeds" else 1)
        for name in ("seeds", *self.once):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InvalidValueError(f"{name}: each once, not {_text(values)}")
        usable_device("device", self.device)
        writable_folder("out", self.out)

    def setting(self, paper: Self) -> str:
        """Say which setting runs, and in what it differs from that."""
        preset = paper if self.full else type(self)()
        differing = [
            f"{field.name.replace('_', ' ')} {_text(getattr(self, field.name))}"
            for field in fields(self)
            if field.name not in ("out", "full", "quiet") and getattr(self, field.name) != getattr(preset, field.name)
        ]
        return f"Setting: {'--full' if self.full else 'default'}" + (f", but {', '.join(differing)}" * bool(differing))

    def progress(self, things: Iterable[Any] | None = None, **look: Any) -> Any:
        """Return a bar for things that are gone through, or of `total` steps; in a log file lines, unless `quiet`."""
        return Bar(things, wanted=not self.quiet, **look)


@dataclass(frozen=True)
class DataOptions(Options):
    """What a study of a data set is asked for.

    Parameters
    ----------
    dataset
        The inputs and targets; all but digits are downloaded, unless `root` or NEURODYN_DATA names a folder.
    root
        A folder with the data set's files, or subsets in their format.
    """

    dataset: DatasetName = "digits"
    root: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_root(self.root, [self.dataset])

    def load(self, *, flatten: bool = True) -> tuple[nd.data.Samples, nd.data.Samples]:
        """Return the training and the test set, of vectors or of images."""
        return load(self.dataset, self.root, flatten)


@dataclass(frozen=True)
class TrainingOptions(DataOptions):
    """What a study that trains on a data set is asked for.

    Parameters
    ----------
    epochs
        Of training.
    """

    epochs: int = 10


@dataclass(frozen=True)
class ImageOptions(TrainingOptions):
    """What a study is asked for that trains on images, which it may make smaller.

    Parameters
    ----------
    pool
        Images are averaged over squares of so many pixels a side: with 2, those of MNIST have 14 × 14 pixels.
    """

    pool: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self.pool, [self.dataset])

    @property
    def pixels(self) -> int:
        """The numbers of an image."""
        channels, size = _image(self.dataset)
        return channels * (size // self.pool) ** 2

    @property
    def images(self) -> str:
        """What is trained on, in words."""
        return images(self.dataset, self.pool)

    def load(self, *, flatten: bool = True) -> tuple[nd.data.Samples, nd.data.Samples]:
        """Return the training and the test set, of vectors or of images."""
        return pooled(self.dataset, self.root, flatten, self.pool)


Study = TypeVar("Study", bound=Options)


def parse(paper: Study, description: str | None, arguments: Sequence[str] | None = None) -> Study:
    """Return the options given on the command line, and those of a preset where they are not given.

    From then on, all that takes long tells how far it is, unless they are `quiet`.

    Parameters
    ----------
    paper
        The options under `--full`; without it, their class's defaults are the preset.
    description
        Of the study, for `--help`.
    arguments
        In place of the command line's.
    """
    given = sys.argv[1:] if arguments is None else arguments
    flags = [argument for argument in given if argument in ("--full", "--no-full")]
    preset = paper if flags[-1:] == ["--full"] else type(paper)()
    options: Study = tyro.cli(type(paper), args=given, default=preset, description=description)
    show(not options.quiet)
    return options


@lru_cache(maxsize=2)
def load(dataset: str, root: Path | None, flatten: bool) -> tuple[nd.data.Samples, nd.data.Samples]:
    """Return the training and the test set of a name in `nd.data.DATASETS`."""
    where: dict[str, Any] = {} if dataset == "digits" else {"root": root}
    return nd.data.DATASETS[dataset](flatten=flatten, **where)


@lru_cache(maxsize=2)
def pooled(dataset: str, root: Path | None, flatten: bool, side: int) -> tuple[nd.data.Samples, nd.data.Samples]:
    """Return the training and the test set, images averaged over squares of so many pixels a side."""
    if side == 1:
        return load(dataset, root, flatten)

    def narrow(samples: nd.data.Samples) -> nd.data.Samples:
        images, _ = samples[:]
        if any(size % side for size in images.shape[-2:]):
            shape = "×".join(map(str, images.shape[-2:]))
            raise InvalidValueError(f"pool: {side} does not divide the {shape} pixels of {dataset}")
        small = avg_pool2d(images, side)
        small = small.flatten(1) if flatten else small
        return nd.data.Samples(small, samples.labels, classes=samples.classes, name=samples.name)

    train, test = map(narrow, load(dataset, root, False))
    return train, test


def images(dataset: str, side: int) -> str:
    """Return what `pooled` returns, in words."""
    return dataset + f" averaged over {side} × {side} pixels" * (side > 1)


def check_root(root: Path | None, datasets: Sequence[str]) -> None:
    """Refuse a folder for data sets of which none is read from a folder."""
    if root is not None and set(datasets) <= {"digits"}:
        raise InvalidValueError("root: digits come with scikit-learn, from no folder; name another dataset, or no root")


def check_pool(side: int, datasets: Iterable[str]) -> None:
    """Refuse squares into which the images of a data set are not cut, of so many pixels a side."""
    for dataset in datasets:
        _, size = _image(dataset)
        if size % side:
            raise InvalidValueError(f"pool: {side} does not divide the {size}×{size} pixels of {dataset}")


def _image(dataset: str) -> tuple[int, int]:
    """Return the channels of a data set's images, and their pixels a side."""
    return {"digits": (1, 8), "cifar10": (3, 32), "cifar100": (3, 32), "svhn": (3, 32)}.get(dataset, (1, 28))


def check_samples(samples: int, train: nd.data.Samples) -> None:
    """Refuse to take more samples than there are."""
    if samples > len(train):
        raise InvalidValueError(f"samples: {train.name} has {len(train)}, not {samples}")


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

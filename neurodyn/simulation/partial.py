"""Files and folders that appear whole or not at all, and locks that end with the process that holds them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neurodyn.errors import FileError, NeurodynError

if sys.platform != "win32":
    import fcntl


class Lock:
    """A lock file, held until `release`, or until the process ends, however that happens.

    Parameters
    ----------
    path
        The lock file, which holds the number of the process and goes with the lock.

    Raises
    ------
    BlockingIOError
        If it is held already, in this process or another.

    Warns
    -----
    RuntimeWarning
        If the file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sure = sys.platform != "win32"
        """Whether the file system vouches that nobody else holds it."""
        self._descriptor = self._open()
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())
        except BaseException:
            self.release()
            raise

    def _open(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(descriptor)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever held it has removed the file since

    def _lock(self, descriptor: int) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            self.sure = False
            warnings.warn(
                f"the file system of {self._path.parent} has no locks ({error}): let only one run write there",
                RuntimeWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        """Give it up."""
        self._path.unlink(missing_ok=True)
        if sys.platform != "win32" and self.sure:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # closing does not, while a forked process has it open
        os.close(self._descriptor)


class Partial:
    """A file or folder under a temporary name, which takes its own when it is complete.

    What an interrupted process left under such a name is removed, unless that process lives.

    Parameters
    ----------
    target
        Its own name. Where that is a symbolic link, it stays one, and what it points to is replaced.
    """

    def __init__(self, target: Path) -> None:
        self._target = Path(os.path.realpath(target))
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._mark = uuid.uuid4().hex[:8]
        self.path = self._named("partial", self._mark)
        """Where to write."""
        self._lock = Lock(self._named("lock", self._mark))
        self.contested = self._lock.sure and self._sweep()
        """Whether a living process is writing the same target."""

    def _named(self, kind: str, mark: str) -> Path:
        return self._target.with_name(f".{self._target.stem}.{mark}.{kind}{self._target.suffix}")

    def _sweep(self) -> bool:
        stem, suffix = re.escape(self._target.stem), re.escape(self._target.suffix)
        pattern = re.compile(rf"\.{stem}\.([0-9a-f]{{8}})\.(lock|partial|replaced){suffix}")
        marks = {match[1] for name in os.listdir(self._target.parent) if (match := pattern.fullmatch(name))}
        contested = False
        for mark in marks - {self._mark}:
            try:
                lock = Lock(self._named("lock", mark))
            except BlockingIOError:
                contested = True
                continue
            except OSError:  # it is somebody else's
                continue
            with suppress(OSError):
                remove(self._named("partial", mark))
                if self._target.exists():  # else the process ended as it put the new one in place of this one
                    remove(self._named("replaced", mark))
            lock.release()
        return contested

    def commit(self) -> None:
        """Give what was written its own name, in one stroke; what had that name is gone."""
        _sync(self.path)
        if self._target.is_dir():
            # A folder can only be moved to a free name.
            aside = self._named("replaced", self._mark)
            os.replace(self._target, aside)
            try:
                os.replace(self.path, self._target)
            except BaseException:
                os.replace(aside, self._target)
                raise
            remove(aside)
        else:
            os.replace(self.path, self._target)
        with suppress(OSError):  # some file systems know no such thing
            _sync_one(self._target.parent)
        self._lock.release()

    def discard(self) -> None:
        """Remove what was written."""
        remove(self.path)
        self._lock.release()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary name, of which what is written there takes the place of a target at the end, unless it fails.

    Raises
    ------
    OSError
        If the system refuses; what was there before stays.
    """
    try:
        partial = Partial(target)
        try:
            yield partial.path
            partial.commit()
        except BaseException:
            partial.discard()
            raise
    except NeurodynError:
        raise
    except OSError as error:
        failed = FileError(f"could not write {target}: {error}; what was there before stays")
        failed.errno = error.errno
        raise failed from error


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or all files of a folder."""
    if not path.is_dir():
        _sync_one(path)
    for folder, _, files in os.walk(path):
        for file in files:
            _sync_one(Path(folder, file))


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

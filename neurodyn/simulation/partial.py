"""Files and folders that appear whole or not at all, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
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


_LASTING = "unfinished"
_LEFTOVER = re.compile(r"\.(.+)\.([0-9a-f]{8})\.(lock|partial|replaced)(\.[^.]+)")


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
        descriptor = self._open()
        self._descriptor: int | None = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
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
        """Give it up, if that has not been done yet."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        self._path.unlink(missing_ok=True)
        if sys.platform != "win32" and self.sure:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not, while a forked process has it open
        os.close(descriptor)


class Partial:
    """A file or folder under a temporary name, which takes its own when it is complete.

    What interrupted processes left in its folder under such names is removed, unless they live.

    Parameters
    ----------
    target
        Its own name. Where that is a symbolic link, it stays one, and what it points to is replaced.
    lasting
        Whether the temporary name is always the same one, and what an interrupted process has left there stays, to be
        gone on with.

    Raises
    ------
    BlockingIOError
        If a living process is writing what is lasting.
    """

    def __init__(self, target: Path, *, lasting: bool = False) -> None:
        self._target = Path(os.path.realpath(target))
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if lasting:
            self._mark, self._lock = _LASTING, Lock(_named(self._target, "lock", _LASTING))
        else:
            self._mark, self._lock = self._marked()
        self.path = _named(self._target, "partial", self._mark)
        """Where to write."""
        self.contested = self._lock.sure and self._sweep()
        """Whether a living process is writing the same target."""

    def _marked(self) -> tuple[str, Lock]:
        while True:
            mark = uuid.uuid4().hex[:8]
            with suppress(BlockingIOError):  # another process has taken it for a leftover before it was locked
                return mark, Lock(_named(self._target, "lock", mark))

    def beside(self, suffix: str) -> Path:
        """Return the name of a file beside it, which belongs to it as long as it has its temporary name."""
        return self.path.with_suffix(suffix)

    def _sweep(self) -> bool:
        """Remove what interrupted processes left in the folder; tell whether a living one writes the same target."""
        folder, contested = self._target.parent, False
        found = {(match[1] + match[4], match[2]) for name in os.listdir(folder) if (match := _LEFTOVER.fullmatch(name))}
        for name, mark in found - {(self._target.name, self._mark)}:
            target = folder / name
            try:
                lock = Lock(_named(target, "lock", mark))
            except BlockingIOError:
                contested |= target == self._target
                continue
            except OSError:  # it is somebody else's
                continue
            with suppress(OSError):
                remove(_named(target, "partial", mark))
                if target.exists():  # else the process ended as it put the new one in place of this one
                    remove(_named(target, "replaced", mark))
            lock.release()
        return contested

    def commit(self) -> None:
        """Give what was written its own name, in one stroke; what had that name is gone."""
        sync(self.path)
        aside = _named(self._target, "replaced", self._mark)
        while True:
            try:
                os.replace(self.path, self._target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    if aside.exists():
                        os.replace(aside, self._target)
                    raise
            # A folder can only be moved to a free name.
            remove(aside)
            with suppress(FileNotFoundError):  # another process has just done so
                os.replace(self._target, aside)
        remove(aside)
        with suppress(OSError):  # some file systems know no such thing
            _sync_one(self._target.parent)
        self._lock.release()

    def discard(self) -> None:
        """Remove what was written."""
        remove(self.path)
        self.leave()

    def leave(self) -> None:
        """Leave what was written, if that is lasting, to whoever goes on with it."""
        self._lock.release()


def _named(target: Path, kind: str, mark: str) -> Path:
    return target.with_name(f".{target.stem}.{mark}.{kind}{target.suffix}")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary name, of which what is written there takes the place of a target at the end, unless it fails.

    Raises
    ------
    OSError
        If the system refuses; what was there before stays.
    """
    with system_errors(f"could not write {target}"):
        partial = Partial(target)
        try:
            yield partial.path
            partial.commit()
        except BaseException:
            partial.discard()
            raise


@contextmanager
def system_errors(failed: str) -> Iterator[None]:
    """Have what the system refuses say what failed."""
    try:
        yield
    except NeurodynError:
        raise
    except OSError as error:
        told = FileError(f"{failed}: {error}")
        told.errno = error.errno
        raise told from error


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):  # a thread whose writing has failed removes its own files meanwhile
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
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

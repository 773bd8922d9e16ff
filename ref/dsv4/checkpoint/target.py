"""The directory that a checkpoint is written to: what it may replace, and how it gets there.

It is built under a hidden name beside its place, with a lock, and takes the place by one rename, which the system
refuses where anything has appeared there meanwhile. Only what a record shows to be dsv4's own is ever removed.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from dsv4.checkpoint.lock import try_lock
from dsv4.checkpoint.record import RECORD, remove_own, strangers, write_record
from dsv4.errors import CheckpointError, reason

NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
"""What the system says when a directory would take the place of one that holds something."""

WRITTEN_SUFFIXES = (".safetensors", ".json", ".partial")
"""Of the files that stand in a directory while it is built."""

WRITTEN_DIRECTORIES = ("states", "model", ".model.partial")
"""What may stand beside the files: the parts of a training run."""


@contextmanager
def built_beside(target: Path, overwrite: bool) -> Iterator[Path]:
    """A directory to fill with files, which takes the place of `target` when all went well, and vanishes when not.

    `target` must be new or an empty directory; with `overwrite` it may hold what dsv4 has written there before, and
    nothing else. A link is followed. Raises CheckpointError where it is neither, when the work starts and again when
    it ends; where another process writes to the same target; and where the place cannot be written to or replaced,
    as a mount point and the current directory cannot.
    """
    target = Path(os.path.realpath(target))
    if not target.name:
        raise CheckpointError(f"{target}: expected a directory to write, found the root directory")
    partial = target.with_name(f".{target.name}.partial")
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(target, partial)
    try:
        with _explained(target):
            _require_free(target, overwrite)
            _require_replaceable(target)
        yield partial
        with _explained(target):
            write_record(partial)
            old = _put_in_place(partial, target, overwrite)
    except BaseException:
        _discard(partial, lock)
        raise
    else:
        if old is not None:
            _remove_old(old, target)
    finally:
        os.close(lock)


def _require_free(target: Path, overwrite: bool) -> None:
    """Nothing may be there but an empty directory, or, to be overwritten, what dsv4 has written."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        kind = "a link that leads to itself" if target.is_symlink() else "a file"
        raise CheckpointError(f"{target}: expected a directory, found {kind}")
    if target.samefile(os.curdir):
        raise CheckpointError(f"{target}: expected a directory that can be replaced, found the current one")
    names = strangers(target)
    if names:
        or_own = " or only files that dsv4 wrote" if overwrite else ""
        raise CheckpointError(f"{target}: expected a new or empty directory{or_own}, found {names[0]}")
    if not overwrite and any(target.iterdir()):
        raise CheckpointError(f"{target}: expected a new or empty directory, found a checkpoint; overwrite replaces it")


def _require_replaceable(target: Path) -> None:
    """Try the last step with an empty directory, so that what cannot be replaced is found before the work starts."""
    if not target.exists():
        return
    trial = Path(tempfile.mkdtemp(prefix=".dsv4-", dir=target.parent))
    try:
        shutil.copymode(target, trial)
        trial.rename(target)
    except OSError as error:
        trial.rmdir()
        if error.errno == errno.EBUSY:
            expected = f"{target}: expected a directory that can be replaced, found a mount point or one in use"
            raise CheckpointError(expected) from error
        if error.errno not in NOT_EMPTY:
            raise


def _claim(target: Path, partial: Path) -> int:
    """Make the directory, or clear what a killed process has left of it, and lock it; return the lock to be closed."""
    while True:
        made = _make(partial)
        try:
            if not made and not _may_be_own(partial):
                raise CheckpointError(f"{partial}: expected nothing of this name, found files that dsv4 did not write")
            lock = os.open(partial / RECORD, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just moved or removed it
            continue
        try:
            if not try_lock(lock, otherwise=made):  # without locks, who made the directory has it
                found = f"found {partial.name} of another process"
                raise CheckpointError(f"{target}: expected no other process to write there, {found}")
            if _is_own(partial, lock):
                _clear(partial)
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _make(partial: Path) -> bool:
    """Make a directory unless it is there; whether it was made."""
    try:
        partial.mkdir()
    except FileExistsError:
        return False
    return True


def _may_be_own(partial: Path) -> bool:
    """Whether a directory that is there already is one of dsv4's: its lock is the first file in it and the last."""
    if partial.is_symlink():
        return False
    names = [path.name for path in partial.iterdir()]
    return not names or RECORD in names or (partial / RECORD).exists()


def _is_own(partial: Path, lock: int) -> bool:
    """Whether the directory of this name is still the one that the lock is in."""
    try:
        return os.path.samestat((partial / RECORD).stat(), os.fstat(lock))
    except FileNotFoundError:
        return False


def _clear(partial: Path) -> None:
    """Remove all files but the lock; refuse where there is one that dsv4 cannot have written."""
    files, directories = _below(partial)
    odd = [path for path in files if not path.is_file() or path.suffix not in WRITTEN_SUFFIXES]
    odd += [path for path in directories if path.name not in WRITTEN_DIRECTORIES]
    if odd:
        found = odd[0].relative_to(partial)
        raise CheckpointError(f"{partial}: expected only files of a killed conversion, found {found}; please remove it")
    _remove(files, directories)


def _discard(partial: Path, lock: int) -> None:
    """Remove what was built, the lock last, so that nobody claims a directory that is half gone."""
    with suppress(OSError):
        if _is_own(partial, lock):
            _remove(*_below(partial))
            (partial / RECORD).unlink()
            partial.rmdir()


def _below(partial: Path) -> tuple[list[Path], list[Path]]:
    """The files below a directory but for the lock, and its directories, the inner ones first."""
    paths = sorted(partial.rglob("*"), reverse=True)
    directories = [path for path in paths if path.is_dir() and not path.is_symlink()]
    return [path for path in paths if path not in directories and path != partial / RECORD], directories


def _remove(files: list[Path], directories: list[Path]) -> None:
    for file in files:
        file.unlink()
    for directory in directories:
        directory.rmdir()


def _put_in_place(partial: Path, target: Path, overwrite: bool) -> Path | None:
    """Rename the finished directory; return under which name the one is now that it has replaced, if any."""
    if target.is_dir():
        shutil.copymode(target, partial)
    try:
        partial.rename(target)
        return None
    except OSError as error:
        if error.errno not in NOT_EMPTY:
            raise
        _require_free(target, overwrite)
    old = target.with_name(f".{target.name}.{uuid4().hex}.old")
    try:
        target.rename(old)
        if strangers(old):
            raise CheckpointError(f"{target}: expected only files that dsv4 wrote, found {strangers(old)[0]}")
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    return old


def _remove_old(old: Path, target: Path) -> None:
    """Remove a directory that was replaced, unless somebody has put something there at the last moment."""
    try:
        remove_own(old)
    except OSError as error:
        raise CheckpointError(
            f"{target}: written, but the old directory could not be removed: {reason(error)}; the rest is in {old}"
        ) from error


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{target}: expected a directory that can be written, found: {reason(error)}") from error

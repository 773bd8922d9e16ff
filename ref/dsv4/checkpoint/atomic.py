"""Files that appear complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsv4.errors import SettingError, reason

TEMPORARY_SUFFIX = ".partial"
"""What the name of a temporary file ends with; it begins with a dot."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, which takes its place at the end, or vanishes on failure.

    A link is followed; a file that is replaced passes on who may read and write it. Raises SettingError where `path` is
    a directory, a device or a pipe, or cannot be written to, and where the disk is full.
    """
    try:
        target = Path(os.path.realpath(path))  # unlike resolve(), it does not mind a link that leads to itself
        if os.path.lexists(target) and not target.is_file():
            kind = "directory" if target.is_dir() else "device or pipe" if target.exists() else "link to itself"
            raise SettingError(f"{path}: expected a file to write, found a {kind}")
        handle, name = tempfile.mkstemp(TEMPORARY_SUFFIX, f".{target.name[:50]}.", target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            else:
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        found = reason(error) if error.strerror else f"a write that was cut short, as on a full disk ({reason(error)})"
        raise SettingError(f"{path}: expected a file that can be written, found: {found}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

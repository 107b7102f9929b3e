"""Marks of files: two that are equal mean that a file is as it was when it was last read."""

from __future__ import annotations

from pathlib import Path

Mark = tuple[int, int, int]
"""Inode, time of the last change and size. A file that is swapped by a symlink above it has another inode."""


def of(path: Path) -> Mark:
    """The mark of a file as it is now.

    Raises:
        OSError: if it can't be looked at.
    """
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size

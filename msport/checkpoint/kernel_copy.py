"""Copies between files inside the kernel: shared blocks if the filesystem supports this, else copied bytes."""

from __future__ import annotations

import errno
import fcntl
import os

_FICLONE = 0x40049409  # linux/fs.h

# Errors of a kernel or filesystem that does not support it; every other error is real.
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)


def clone(source: int, target: int) -> bool:
    """Let the open file ``target`` share all bytes of ``source`` until one of them is changed; False if impossible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def copy_range(source: int, target: int, offset: int, size: int) -> bool:
    """Copy ``size`` bytes at ``offset`` to the same place in ``target``. Returns False if the kernel does not support
    this.

    Raises OSError if the disk fails, and EIO if ``source`` ends before.
    """
    if not hasattr(os, "copy_file_range"):
        return False
    end = offset + size
    while offset < end:
        try:
            count = os.copy_file_range(source, target, end - offset, offset, offset)
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        if not count:
            raise OSError(errno.EIO, "the source shrank while it was copied")
        offset += count
    return True

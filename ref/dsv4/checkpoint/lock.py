"""A lock on an open file, which the operating system releases when the process ends, however it ends."""


def try_lock(handle: int, otherwise: bool) -> bool:
    """Lock an open file, by its descriptor, until it is closed; whether that went well.

    False where another process has the lock. otherwise: what to say where the system or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return otherwise
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return otherwise
    return True

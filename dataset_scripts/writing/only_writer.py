"""One process at a time writes a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..reading.bad_input import BadInput


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Keep other processes of this machine from writing a folder at the same time; a kill sets it free.

    Raises:
        BadInput: another process is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows cannot lock a folder
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = "another process is writing there; wait for it, or name another folder"
            raise BadInput(f"{folder}: {reason}") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
        if not any(folder.iterdir()):
            folder.rmdir()

"""Files that are written whole or not at all, and files named by their content."""

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# of safetensors and pyarrow, which pass on the number; then of torch and datasets, which have words of their own
_WORDS_OF_LIBRARIES = (
    *(f"os error {code})" for code in _NO_ROOM),
    *(f"[errno {code}]" for code in _NO_ROOM),
    "PytorchStreamWriter failed",
    "inline_container.cc",
    "Not enough disk space",
)


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or a folder beside its place, and put it there when it is complete.

        with write_whole("scores.json") as unfinished:
            unfinished.write_text("{}", encoding="utf-8")

    The body writes to the path it is given: a file, or a folder that it makes itself. Where it raises, what it wrote is
    removed and `path` is as before. Parent folders are made. Processes may write the same path at the same time. What a
    process of this machine left behind when it was killed is removed. A device or a pipe is written as it is.

    Args:
        path: the file or folder to write; a file that is there is replaced, and so is a folder.

    Raises:
        FullDisk: the disk is full.
    """
    path = Path(path)
    if path.is_symlink() and path.is_dir():
        path = path.resolve()  # the link stays, and the files where it leads
    if path.exists() and not (path.is_file() or path.is_dir()):
        with told_of_a_full_disk(path):
            yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    unfinished, replaced = (path.with_name(f"{_prefix(path, part)}{os.getpid()}") for part in _PARTS)
    try:
        with told_of_a_full_disk(path):
            yield unfinished
        _put_in_place(unfinished, path, replaced)
    finally:
        remove(unfinished)
        _remove_or_put_back(replaced, path)


_PARTS = ("unfinished", "replaced")


def _prefix(path: Path, part: str) -> str:
    return f".{path.name}.{part}-{platform.node()}-"


def _put_in_place(unfinished: Path, path: Path, replaced: Path) -> None:
    """Move what is complete to its place, and a folder that is there out of the way: it is never there in part."""
    while True:
        if path.is_dir():
            remove(replaced)
            with suppress(FileNotFoundError):  # another process took it away
                os.replace(path, replaced)
        try:
            os.replace(unfinished, path)
            return
        except OSError:
            if not path.is_dir():  # else another process put its folder there in between
                raise


def _remove_or_put_back(replaced: Path, path: Path) -> None:
    """Remove a folder that was replaced; where nothing took its place, it comes back."""
    if replaced.exists() and not path.exists():
        os.replace(replaced, path)
    else:
        remove(replaced)


def remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that are no more left beside a path that they were writing."""
    prefixes = tuple(_prefix(path, part) for part in _PARTS)
    with os.scandir(path.parent) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(prefixes)]
    for name in left:
        process = name.rpartition("-")[2]
        if process.isdecimal() and (int(process) == os.getpid() or not _is_running(int(process))):
            if name.startswith(_prefix(path, "replaced")):
                _remove_or_put_back(path.with_name(name), path)
            else:
                remove(path.with_name(name))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        pass
    return True


class FullDisk(OSError):
    """Something could not be written for lack of room, in one sentence."""


@contextmanager
def told_of_a_full_disk(what: str | os.PathLike) -> Iterator[None]:
    """Turn what libraries raise where a disk is full into one sentence that says what could not be written.

    Args:
        what: the file or folder that the body writes.

    Raises:
        FullDisk: instead of their errors.
    """
    try:
        yield
    except FullDisk:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise FullDisk(
            f"{what} could not be written, the disk is full or failing: make room and run the command again"
        ) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk, a quota or a limit on the size of files is behind an error."""
    while error is not None:
        said = str(error).replace("[Errno", "[errno")
        if getattr(error, "errno", None) in _NO_ROOM or any(words in said for words in _WORDS_OF_LIBRARIES):
            return True
        error = error.__cause__ or error.__context__
    return False


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_hash(source: str | os.PathLike | bytes) -> str:
    """Name a file, or bytes, by the content.

    Args:
        source: path of the file, or the bytes themselves.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    with open(source, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""Files are written whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from modeling_umgf.files import FullDisk, file_hash, told_of_a_full_disk, write_whole


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with write_whole(path) as unfinished:
        unfinished.write_text("{}")
        assert not path.exists()
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("before")
    with pytest.raises(KeyError), write_whole(path) as unfinished:
        unfinished.write_text("half of")
        raise KeyError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    with write_whole(path) as unfinished:
        unfinished.write_text("{}")
    assert reader.communicate(timeout=60)[0] == b"{}"
    assert path.is_fifo() and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with write_whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    path = tmp_path / "model"
    with write_whole(path) as unfinished:
        unfinished.mkdir()
        name, _, number = unfinished.name.rpartition("-")
        assert number == str(os.getpid())
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        for process in (dead.pid, os.getppid()):
            (tmp_path / f"{name}-{process}").mkdir()
            (tmp_path / f"{name}-{process}" / "half").touch()
        (tmp_path / ".another.unfinished-1").touch()
    with write_whole(path) as unfinished:
        unfinished.mkdir()
    left = {".another.unfinished-1", "model", f"{name}-{os.getppid()}"}
    assert {file.name for file in tmp_path.iterdir()} == left


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(FileNotFoundError), write_whole(path):
        pass  # the body wrote nothing
    assert [file.name for file in path.iterdir()] == ["old"]
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # a process that is no more, killed between the two steps
    with write_whole(tmp_path / "other") as unfinished:
        killed = unfinished.name.replace("other", "model").replace("unfinished", "replaced")
        unfinished.mkdir()
    monkeypatch.undo()
    path.rename(tmp_path / killed)
    with pytest.raises(KeyError), write_whole(path):
        raise KeyError
    assert [file.name for file in path.iterdir()] == ["old"]


def test_a_link_to_a_folder_stays_and_leads_to_the_new_one(tmp_path):
    (tmp_path / "large_disk" / "model").mkdir(parents=True)
    path = tmp_path / "model"
    path.symlink_to(tmp_path / "large_disk" / "model")
    with write_whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert path.is_symlink()
    assert [file.name for file in (tmp_path / "large_disk" / "model").iterdir()] == ["new"]


def test_a_folder_that_another_process_puts_there_in_between_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "model"
    replace = os.replace
    calls = []

    def late(source, target):
        calls.append(target)
        if len(calls) == 1:
            (path / "of another").mkdir(parents=True)
        replace(source, target)

    monkeypatch.setattr(os, "replace", late)
    with write_whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_a_full_disk_is_one_sentence_whatever_a_library_makes_of_it(tmp_path, error):
    with pytest.raises(FullDisk, match="model could not be written, the disk is full") as caught:
        with told_of_a_full_disk("the whole"), write_whole(tmp_path / "model") as unfinished:
            unfinished.mkdir()
            raise error
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(FullDisk), told_of_a_full_disk("the cache"):
        try:
            raise error
        except Exception as cause:
            raise KeyError("a library hides it") from cause
    with pytest.raises(FileNotFoundError), told_of_a_full_disk("this"):
        open(tmp_path / "absent")


def test_a_hash_is_that_of_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_hash(path) == file_hash(b"abc") == hashlib.sha256(b"abc").hexdigest()

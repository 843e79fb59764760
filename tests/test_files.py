"""Files are written whole or not at all."""

import hashlib

import pytest

from modeling_umgf.files import file_hash, write_whole


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


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with write_whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]


def test_a_hash_is_that_of_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_hash(path) == file_hash(b"abc") == hashlib.sha256(b"abc").hexdigest()

"""Files that are read whole, and what must not be."""

import os
import re

import pytest

from model import small_files
from model.data.vocabulary import Vocabulary
from model.exchange.hugging_face import import_model
from model.small_files import read_small_file


def test_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"\0content")
    assert read_small_file(tmp_path / "a") == b"\0content"
    (tmp_path / "link").symlink_to("a")
    assert read_small_file(tmp_path / "link") == b"\0content"
    with pytest.raises(FileNotFoundError):
        read_small_file(tmp_path / "none")


def test_what_may_never_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: not a file but"):
            read_small_file(path)


def test_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(small_files, "LIMIT", 5)
    (tmp_path / "a").write_bytes(b"12345")
    assert read_small_file(tmp_path / "a") == b"12345"
    (tmp_path / "a").write_bytes(b"123456")
    with pytest.raises(ValueError, match="6 bytes, too large"):
        read_small_file(tmp_path / "a")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_models_of_pipes_and_devices(tmp_path, name):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"{name}: not a file but"):
        import_model(tmp_path)


def test_a_vocabulary_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a file but"):
        Vocabulary(tmp_path / "pipe")

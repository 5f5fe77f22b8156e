import os

import pytest

from genie.core.files import replacing, replacing_folder


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_folder_appears_at_the_end_in_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "new" / "a"
    for content in ("old", "new"):
        with replacing_folder(folder) as temporary:
            (temporary / f"{content}.txt").write_text(content)
            assert not (folder / f"{content}.txt").exists()
    assert [path.read_text() for path in folder.iterdir()] == ["new"]
    assert os.listdir(folder.parent) == ["a"]


def test_a_fault_keeps_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("old")

    def fail(replace, path):
        with replace(path) as temporary:
            (temporary / "c" if temporary.is_dir() else temporary).write_text("new")
            raise RuntimeError("the model failed")

    for replace, path in ((replacing, tmp_path / "a/b.txt"), (replacing_folder, tmp_path / "a")):
        with pytest.raises(RuntimeError, match="the model failed"):
            fail(replace, path)
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["b.txt"]
    assert (tmp_path / "a/b.txt").read_text() == "old"


def test_what_is_linked_to_the_old_file_stays(tmp_path):
    """DVC's cache holds hard links to what stages wrote."""
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("old")
    os.link(tmp_path / "a.txt", tmp_path / "cached")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "cached").read_text() == "old"

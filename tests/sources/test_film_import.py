import os
from pathlib import Path

import numpy as np
import pytest

from genie.sources import film_import
from genie.sources.film_import import import_films
from genie.sources.films import FilmError
from tests.films import moving, write_film, write_pictures


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "my videos"
    folder.mkdir()
    write_film(folder / "b.mp4", moving(20))
    write_film(folder / "Прогулка 散歩.mkv", moving(12, hue=1))
    (folder / "notes.txt").write_text("no film")
    return folder


@pytest.fixture
def films(tmp_path):
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_films_is_linked(videos, films):
    imported = import_films([videos], films)
    assert [(film.path.name, film.num_frames, film.size) for film in imported] == [
        ("b.mp4", 20, (64, 48)),
        ("Прогулка 散歩.mkv", 12, (64, 48)),
    ]
    assert str(imported[0]) == "b.mp4: 20 frames of 64x48, 0.0 min at 10 fps"
    assert names(films) == ["b.mp4", "Прогулка 散歩.mkv"]
    assert (films / "b.mp4").samefile(videos / "b.mp4")


def test_where_no_link_is_possible_films_are_copied(videos, films, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    import_films([videos / "b.mp4"], films)
    assert not (films / "b.mp4").samefile(videos / "b.mp4")
    assert (films / "b.mp4").read_bytes() == (videos / "b.mp4").read_bytes()


def test_a_copy_that_fails_leaves_nothing(videos, films, monkeypatch):
    def fail(_, goal):
        Path(goal).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film_import, "_link_or_copy", fail)
    with pytest.raises(OSError, match="No space left"):
        import_films([videos], films)
    assert names(films) == []


def test_a_folder_of_pictures_is_a_film(tmp_path, films):
    folder = write_pictures(tmp_path / "walk.1", moving(12), suffix=".jpg")
    (folder / "notes.txt").write_text("no picture")
    [film] = import_films([folder], films)
    assert str(film) == "walk.1: 12 frames of 64x48"
    assert names(films / "walk.1") == sorted(f"{index}.jpg" for index in range(1, 13))
    import_films([folder], films)


def test_what_is_there_already_is_no_error(videos, films):
    import_films([videos], films)
    import_films([videos, videos / "b.mp4"], films)
    assert names(films) == ["b.mp4", "Прогулка 散歩.mkv"]


def test_another_film_of_the_same_name_is_one_line(videos, films, tmp_path):
    import_films([videos], films)
    (tmp_path / "other").mkdir()
    for name in ("b.mp4", "b.mkv"):
        other = write_film(tmp_path / "other" / name, moving(9))
        with pytest.raises(FilmError, match=r"another film of this name is .*films/b\.mp4; rename one of them"):
            import_films([other], films)
    assert (films / "b.mp4").samefile(videos / "b.mp4")


def test_a_sidecar_comes_along_and_is_replaced(videos, films):
    path = videos / "b.actions.csv"
    path.write_text("frame,action\n" + "".join(f"{frame},left\n" for frame in range(20)))
    [film] = import_films([videos / "b.mp4"], films)
    assert str(film).endswith(", with true actions")
    assert (films / path.name).read_text() == path.read_text()
    path.write_text(path.read_text().replace("left", "right"))
    import_films([videos / "b.mp4"], films)
    assert "right" in (films / path.name).read_text()
    path.write_text("frame,action\n0,left\n")
    with pytest.raises(FilmError, match=r"b\.actions\.csv: 1 rows, but b\.mp4 has 20 frames"):
        import_films([videos / "b.mp4"], films)


def test_broken_films_are_named_and_left_out_only_if_asked(videos, films, capsys):
    for index in range(2):
        (videos / f"broken{index}.mp4").write_text("no film")
    with pytest.raises(FilmError, match=r"2 of 4 films are broken.* Nothing was imported; --skip-broken leaves out"):
        import_films([videos], films)
    told = capsys.readouterr().err
    assert "broken0.mp4: FFmpeg cannot read it" in told
    assert "broken1.mp4: FFmpeg cannot read it" in told
    assert names(films) == []

    assert len(import_films([videos], films, skip_broken=True)) == 2
    assert "left out: " in capsys.readouterr().err
    assert names(films) == ["b.mp4", "Прогулка 散歩.mkv"]


def test_a_single_broken_film_is_one_line(films, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("no film")
    with pytest.raises(FilmError, match=r"a\.mp4: FFmpeg cannot read it .* Nothing was imported$"):
        import_films([path], films, skip_broken=True)


def test_a_single_frame_is_no_film(films, tmp_path):
    path = write_film(tmp_path / "a.mp4", moving(1))
    with pytest.raises(FilmError, match=r"a\.mp4: a single frame, in which nothing can move"):
        import_films([path], films)


def test_an_empty_folder(films, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FilmError, match="nothing: neither films nor pictures in it"):
        import_films([tmp_path / "nothing"], films)


def test_a_link_is_imported_as_what_it_names(videos, films):
    (videos / "c.mp4").symlink_to(videos / "b.mp4")
    (videos / "d.mp4").symlink_to(videos / "gone.mp4")
    import_films([videos / "c.mp4"], films)
    assert not (films / "c.mp4").is_symlink()
    with pytest.raises(FilmError, match=r"d\.mp4: a link to .*gone\.mp4, which does not exist"):
        import_films([videos / "d.mp4"], films)


def test_a_still_film_can_be_imported(films, tmp_path):
    path = write_film(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5)
    assert import_films([path], films)[0].num_frames == 5

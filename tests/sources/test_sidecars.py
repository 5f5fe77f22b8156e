import numpy as np
import pytest

from genie.sources.films import FilmError
from genie.sources.sidecars import action_names, check_sidecar, label, read_sidecar


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sidecar_is_read(tmp_path):
    text = "\ufeffframe,action\r\n0,left\r\n1, right \r\n2,élan\r\n"
    assert read_sidecar(written(tmp_path / "a.actions.csv", text)) == ["left", "right", "élan"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header is 'missing', not 'frame,action'"),
        ("frame;action\n0;left\n", "the header is 'frame;action'"),
        ("0,left\n1,right\n", "the header is '0,left'"),
        ("frame,action\n0,left\n2,left\n", "row 2 after the header is '2,left', not frame 1"),
        ("frame,action\n1,left\n", "row 1 after the header is '1,left', not frame 0"),
        ("frame,action\n0,left\n0,left\n", "row 2 after the header is '0,left'"),
        ("frame,action\n0\n", "row 1 after the header is '0', not frame 0 and its action"),
        ("frame,action\n0, \n", "frame 0 has no action"),
    ],
)
def test_another_table_is_one_line(text, message, tmp_path):
    path = written(tmp_path / "a.actions.csv", text)
    with pytest.raises(FilmError, match=message) as fault:
        read_sidecar(path)
    assert str(fault.value).startswith(str(path))


def test_what_is_no_text(tmp_path):
    (tmp_path / "a.actions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FilmError, match="not a table of text"):
        read_sidecar(tmp_path / "a.actions.csv")


def test_another_number_of_frames(tmp_path):
    with pytest.raises(FilmError, match=r"a\.actions\.csv: 2 rows, but a\.mp4 has 3 frames; mend it"):
        check_sidecar(tmp_path / "a.actions.csv", ["left"] * 2, "a.mp4", 3)


def test_names_are_in_the_order_in_which_they_appear():
    assert action_names([["left", "stay", "left"], ["jump", "left"]]) == ("left", "stay", "jump")
    with pytest.raises(FilmError, match="255 different actions, of which at most 254"):
        action_names([[str(number) for number in range(255)]])


def test_a_label_is_the_most_frequent_action_up_to_the_next_sample():
    names = ("a", "b", "c")
    sidecar = list("abbabccbbc")
    assert label(sidecar, np.array([0, 3, 5, 6]), names).tolist() == [1, 0, 2, 2]

from itertools import product

import numpy as np
import pytest
from PIL import Image

from genie.evaluation import pictures


def enlarged_panel(sheet, row, column):
    """Returns one of a sheet's panels of `SIDE` pixels, which frames of 8x8 and of 64x64 fill exactly."""
    side, gap, caption = pictures.SIDE, pictures.GAP, pictures.CAPTION_HEIGHT
    top = gap + caption + row * (side + caption + gap)
    left = gap + column * (side + gap)
    return sheet[top : top + side, left : left + side]


def panel(sheet, row, column):
    """Returns one of a sheet's panels of 8x8 pixels as it was before enlargement."""
    scale = pictures.SIDE // 8
    return enlarged_panel(sheet, row, column)[::scale, ::scale]


def test_contact_sheet_enlarges_without_mixing_pixels():
    panels = np.random.default_rng(0).integers(256, size=(2, 3, 8, 8, 3), dtype=np.uint8)
    sheet = pictures.contact_sheet(panels, [["a"] * 3] * 2)
    for row, column in np.ndindex(2, 3):
        np.testing.assert_array_equal(panel(sheet, row, column), panels[row, column])


def test_action_sheets_have_a_panel_for_each_of_an_odd_number_of_actions():
    dreams = np.zeros((5, 4, 8, 8, 3), np.uint8)
    sheets = pictures.action_sheets(np.full((8, 8, 3), 9, np.uint8), dreams, ["jump"] * 5)
    assert len(sheets) == 4 + 1
    assert len({sheet.shape for sheet in sheets}) == 1


def test_an_action_strip_shows_each_action_from_its_first_frame_to_its_last():
    dreams = np.random.default_rng(0).integers(256, size=(2, 9, 8, 8, 3), dtype=np.uint8)
    sheet = pictures.action_strip(dreams, ["left", "right"], num_columns=3)
    for action, (column, step) in product(range(2), enumerate([0, 4, 8])):
        np.testing.assert_array_equal(panel(sheet, action, column), dreams[action, step])
    renamed = pictures.action_strip(dreams, ["left", "jump"], num_columns=3)
    assert not np.array_equal(sheet, renamed), "the names are shown"


@pytest.mark.parametrize("motions", [[(2.0, 0.0), (0.1, 0.0), None], [None] * 3])
def test_a_button_sheet_has_an_example_beside_an_arrow_of_the_motion(motions):
    examples = np.random.default_rng(0).integers(200, size=(3, 2, 8, 8, 3), dtype=np.uint8)
    sheet = pictures.button_sheet(examples, motions, 0.25, ["right", "still", "2"])
    first = int(any(motions))
    for row, side in np.ndindex(3, 2):
        np.testing.assert_array_equal(panel(sheet, row, first + side), examples[row, side])
    if first:
        drawn = [(enlarged_panel(sheet, row, 0) == pictures.ARROW).all(-1) for row in range(3)]
        columns = [np.flatnonzero(panel.any(0)) for panel in drawn]
        assert np.ptp(columns[0]) > np.ptp(columns[1]) > 0, "an arrow, and a dot"
        assert not drawn[2].any()


def test_an_arrow_of_a_button_points_where_it_moves():
    examples = np.zeros((4, 2, 64, 64, 3), np.uint8)
    sheet = pictures.button_sheet(examples, [(3, 0), (-3, 0), (0, 3), (0, -3)], 0.25, ["", "", "", ""])
    for row, direction in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
        drawn = (enlarged_panel(sheet, row, 0) == pictures.ARROW).all(-1)
        y, x = np.nonzero(drawn)
        heavier = np.array([x.mean(), y.mean()]) - (pictures.SIDE - 1) / 2  # its head is wider than its tail
        assert heavier @ direction > 2
        assert abs(heavier @ direction[::-1]) < 1


def test_a_branch_sheet_has_what_was_imagined_below_what_is_real():
    rng = np.random.default_rng(0)
    now, real, imagined = (rng.integers(256, size=(*axes, 8, 8, 3), dtype=np.uint8) for axes in [(2,), (2, 3), (2, 4)])
    sheet = pictures.branch_sheet(now, real, imagined, ["stay", "left", "right"], list("abcd"))
    empty = np.full((8, 8, 3), pictures.BACKGROUND, np.uint8)
    for state in range(2):
        rows = [[now[state], *real[state], empty], [empty, *imagined[state]]]
        for (below, row), column in product(enumerate(rows), range(5)):
            np.testing.assert_array_equal(panel(sheet, 2 * state + below, column), row[column])


def test_gif_keeps_few_colours_exactly(tmp_path):
    sheets = [np.full((9, 9, 3), value, np.uint8) for value in (10, 200)]
    pictures.save_gif(tmp_path / "two.gif", sheets)
    with Image.open(tmp_path / "two.gif") as gif:
        for index, sheet in enumerate(sheets):
            gif.seek(index)
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), sheet)


@pytest.mark.parametrize("box", [(3, 2, 4, 5), (-2, -1, 4, 5), (5, 6, 4, 4)], ids=["within", "above", "below"])
def test_an_outline_is_drawn_around_a_box_s_pixels_as_far_as_they_are_in_the_picture(box):
    frames_CHW3 = np.random.default_rng(0).integers(200, size=(2, 8, 9, 3), dtype=np.uint8)
    drawn_CHW3 = pictures.outlined(frames_CHW3, box)
    top, left, height, width = box
    kept = np.zeros((8, 9), bool)
    rows = range(max(top, 1 if top < 0 else 0), min(top + height, 7))
    columns = range(max(left, 1 if left < 0 else 0), min(left + width, 8))
    kept[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(drawn_CHW3[:, kept], frames_CHW3[:, kept])
    outline = (drawn_CHW3 == pictures.OUTLINE).all(-1)
    assert outline.any()
    assert not outline[:, kept].any()

import numpy as np
from PIL import Image

from genie.evaluation import pictures


def test_contact_sheet_enlarges_without_mixing_pixels():
    panels = np.random.default_rng(0).integers(256, size=(2, 3, 8, 8, 3), dtype=np.uint8)
    sheet = pictures.contact_sheet(panels, [["a"] * 3] * 2)
    y, x = pictures.GAP + pictures.CAPTION_HEIGHT, pictures.GAP
    step_y = 8 * pictures.SCALE + pictures.CAPTION_HEIGHT + pictures.GAP
    step_x = 8 * pictures.SCALE + pictures.GAP
    for row, column in np.ndindex(2, 3):
        top, left = y + row * step_y, x + column * step_x
        shown = sheet[
            top : top + 8 * pictures.SCALE : pictures.SCALE, left : left + 8 * pictures.SCALE : pictures.SCALE
        ]
        np.testing.assert_array_equal(shown, panels[row, column])


def test_action_sheets_have_a_panel_for_each_of_an_odd_number_of_actions():
    dreams = np.zeros((5, 4, 8, 8, 3), np.uint8)
    sheets = pictures.action_sheets(np.full((8, 8, 3), 9, np.uint8), dreams)
    assert len(sheets) == 4 + 1
    assert len({sheet.shape for sheet in sheets}) == 1


def test_gif_keeps_few_colours_exactly(tmp_path):
    sheets = [np.full((9, 9, 3), value, np.uint8) for value in (10, 200)]
    pictures.save_gif(tmp_path / "two.gif", sheets)
    with Image.open(tmp_path / "two.gif") as gif:
        for index, sheet in enumerate(sheets):
            gif.seek(index)
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), sheet)

"""Frames as text: a character shows two pixels, the upper as a half block, the lower as its background colour.

Larger frames are averaged to 64x64, so that any world fits the same terminal.
"""

import numpy as np
import torch

from genie.models.measured_size import MEASURED_SIZE, at_measured_size

NUM_LINES, NUM_COLUMNS = MEASURED_SIZE[0] // 2, MEASURED_SIZE[1]
NEW_LINE = "\x1b[0m\x1b[K\n"


def half_blocks(frame_HWC: np.ndarray) -> str:
    """Converts a uint8 frame to text in true colour: `NUM_LINES` of `NUM_COLUMNS` characters, separated by line feeds.

    Raises:
        FrameSizeError: the frame has an unsupported size.
    """
    frame_HWC = at_measured_size(torch.from_numpy(frame_HWC)).numpy()
    lines = []
    for cells_W6 in np.concatenate([frame_HWC[::2], frame_HWC[1::2]], axis=-1).tolist():
        line, last = [], None
        for cell in cells_W6:
            if cell != last:  # a run of one colour needs a single escape sequence
                line.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*cell))
                last = cell
            line.append("▀")
        lines.append("".join(line))
    return NEW_LINE.join(lines) + "\x1b[0m"

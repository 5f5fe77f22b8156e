"""Frames as text: two pixels share a character, the upper one the colour of a half block, the lower one its ground."""

import numpy as np

NEW_LINE = "\x1b[0m\x1b[K\n"


def half_blocks(frame_HWC: np.ndarray) -> str:
    """A frame in true colour: H / 2 lines of W characters, each but the last ended by a line feed."""
    lines = []
    for cells_W6 in np.concatenate([frame_HWC[::2], frame_HWC[1::2]], axis=-1).tolist():
        line, last = [], None
        for cell in cells_W6:
            if cell != last:  # a run of one colour needs saying once
                line.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*cell))
                last = cell
            line.append("▀")
        lines.append("".join(line))
    return NEW_LINE.join(lines) + "\x1b[0m"

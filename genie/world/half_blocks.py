"""Frames as text: a character shows two pixels, the upper as a half block, the lower as its background colour."""

import numpy as np

NEW_LINE = "\x1b[0m\x1b[K\n"


def half_blocks(frame_HWC: np.ndarray) -> str:
    """Converts a frame to text in true colour: H / 2 lines of W characters, separated by line feeds."""
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

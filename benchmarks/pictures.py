"""`make pictures`: makes the pictures of the page in `docs/`, by playing a world in a real browser.

The game is paused, so that each press is one frame and the machine's speed has no effect.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.page import opened_page

DOCS = Path("docs")
DESKTOP = {"width": 1280, "height": 800}
PRESSED = ["right"] * 8 + ["jump right"] * 6 + ["right"] * 6 + ["left"] * 6 + ["jump"] * 5
LEVEL = 12  # the first in which the player survives `PRESSED`; most end sooner
MILLISECONDS, LAST, COLOURS = 110, 1500, 40
GIF_WIDTH = 380  # with so few colours, it stays under a megabyte


def photograph(page: Page, **clip) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(**clip))).convert("RGB")


def play_twin(page: Page) -> None:
    """Pauses, and starts a dream of a level beside the real game."""
    page.keyboard.press("Space")
    page.evaluate("level => start({ kind: 'level', level, twin: true })", LEVEL)
    expect(page.locator("#real-figure")).to_be_visible(timeout=60_000)


def press(page: Page, effect: str) -> None:
    """Presses the arrow of an effective action, and waits for the next frame."""
    page.locator(f"#cross .pad[title='{effect}']").click()
    while page.evaluate("Boolean(tap || asked)"):
        page.wait_for_timeout(20)


def film(page: Page) -> None:
    """Writes `docs/play.gif`: dream and real game side by side, and the next frame under each button."""
    page.locator("#imagine").check()
    play_twin(page)
    # These two are meaningless when frames are pressed one at a time.
    page.evaluate("for (const id of ['fps', 'latency']) byId(id).parentElement.hidden = true")
    pictures = []
    for effect in PRESSED:
        press(page, effect)
        box = page.locator("#stage").bounding_box()
        picture = photograph(page, clip=box)
        size = (GIF_WIDTH, round(picture.height * GIF_WIDTH / picture.width))
        pictures.append(picture.resize(size, Image.Resampling.LANCZOS))
    size = (GIF_WIDTH, max(picture.height for picture in pictures))
    pictures = [picture.crop((0, 0, *size)).quantize(COLOURS, dither=Image.Dither.NONE) for picture in pictures]
    durations = [MILLISECONDS] * (len(pictures) - 1) + [LAST]
    pictures[0].save(DOCS / "play.gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--world", help="as of `genie play`; without: the shipped one")
    with opened_page(parser.parse_args().world, viewport=DESKTOP) as (page, _):
        film(page)
        page.screenshot(path=DOCS / "page.png")


if __name__ == "__main__":
    main()

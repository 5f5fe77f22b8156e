"""`make pictures`: makes the pictures of the page in `docs/`, by playing a world in a real browser.

A world with arrows is played beside the real game: `play.gif`, `page.png`. One that was learnt from films is played by
each of its buttons in turn: `films.gif`, `films.png`. The game is paused, so that each press is one frame and the
machine's speed has no effect.
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
FRAMES_A_BUTTON = 10  # in a world without arrows
LEVEL = 12  # the first in which the player survives `PRESSED`; most end sooner
MILLISECONDS, LAST, COLOURS = 110, 1500, 40
GIF_WIDTH = 380  # with so few colours, it stays under a megabyte


def photograph(page: Page, **clip) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(**clip))).convert("RGB")


def play_twin(page: Page) -> None:
    """Starts a dream of a level beside the real game."""
    page.evaluate("level => start({ kind: 'level', level, twin: true })", LEVEL)
    expect(page.locator("#real-figure")).to_be_visible(timeout=60_000)


def press(page: Page, pad: str) -> None:
    """Presses an arrow or a button, and waits for the next frame."""
    page.locator(pad).click()
    while page.evaluate("Boolean(tap || asked)"):
        page.wait_for_timeout(20)


def film(page: Page, name: str, pads: list[str]) -> None:
    """Writes `docs/<name>.gif`: what is shown while pads are pressed in turn, and the next frame under each button."""
    # These two are meaningless when frames are pressed one at a time.
    page.evaluate("for (const id of ['fps', 'latency']) byId(id).parentElement.hidden = true")
    pictures = []
    for pad in pads:
        press(page, pad)
        box = page.locator("#stage").bounding_box()
        picture = photograph(page, clip=box)
        size = (GIF_WIDTH, round(picture.height * GIF_WIDTH / picture.width))
        pictures.append(picture.resize(size, Image.Resampling.LANCZOS))
    size = (GIF_WIDTH, max(picture.height for picture in pictures))
    pictures = [picture.crop((0, 0, *size)).quantize(COLOURS, dither=Image.Dither.NONE) for picture in pictures]
    durations = [MILLISECONDS] * (len(pictures) - 1) + [LAST]
    pictures[0].save(DOCS / f"{name}.gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--world", help="as of `genie play`; without: the shipped one")
    with opened_page(parser.parse_args().world, viewport=DESKTOP) as (page, _):
        page.keyboard.press("Space")
        page.locator("#imagine").check()
        if page.locator("#cross .pad").count():
            play_twin(page)
            film(page, "play", [f"#cross .pad[title='{effect}']" for effect in PRESSED])
            page.screenshot(path=DOCS / "page.png")
        else:
            buttons = range(1, page.locator("#latents .pad").count() + 1)
            pads = [f"#latents .pad:nth-child({button})" for button in buttons for _ in range(FRAMES_A_BUTTON)]
            film(page, "films", pads)
            page.screenshot(path=DOCS / "films.png")


if __name__ == "__main__":
    main()

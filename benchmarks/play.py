"""Measures how fast a world plays in a browser; a part of `make bench`."""

import argparse
import random
import time

from playwright.sync_api import Page

from benchmarks.page import opened_page

SECONDS_HELD, PRESSES = 10, 40


def measure_browser(source: str | None) -> None:
    with opened_page(source) as (page, seconds):
        print(f"first frame {seconds:.1f} s after the command")
        measure_page(page)


def measure_page(page: Page) -> None:
    rate = page.locator("#rate")
    usual, fastest = rate.input_value(), rate.get_attribute("max")
    assert fastest is not None
    for asked in (usual, fastest):
        rate.fill(asked)
        page.keyboard.down("ArrowRight")
        page.wait_for_timeout(500)
        first, start = int(page.locator("#step").inner_text()), time.perf_counter()
        page.wait_for_timeout(SECONDS_HELD * 1000)
        last, seconds = int(page.locator("#step").inner_text()), time.perf_counter() - start
        page.keyboard.up("ArrowRight")
        print(f"browser, {asked} frames/s asked for: {(last - first) / seconds:.1f} frames/s")
    rate.fill(usual)
    for press in range(PRESSES):
        page.keyboard.press(("ArrowLeft", "ArrowRight")[press % 2])
        page.wait_for_timeout(random.Random(press).uniform(150, 400))
    print(f"browser, key to frame: {page.locator('#latency').inner_text()} ms, median of the last presses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--world", help="as of `genie play`; without: the shipped one")
    measure_browser(parser.parse_args().world)


if __name__ == "__main__":
    main()

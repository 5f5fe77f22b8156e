"""The page in a real browser. Without one these tests are skipped; with GENIE_NEEDS_BROWSER=1, as in CI, they fail."""

import base64
import io
import os
import re
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from genie.core.actions import game_actions
from genie.play.server import Arcade
from genie.world.controls import Button
from tests.play.conftest import serving

NAMES = game_actions("coinrun").names

pytestmark = pytest.mark.slow

FLAGS = [
    "--no-sandbox",  # Chromium does not sandbox root, the user in CI
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
DROP = """([content, name]) => {
    const files = new DataTransfer();
    files.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
NUMBER, MORE_THAN_THREE = re.compile(r"^[\d.]+$"), re.compile(r"^\D*([4-9]|\d\d)")
PRESSED_BY = """effect => [...document.querySelectorAll("#table tr:not(:first-child)")]
    .findIndex(row => row.cells[1 + hello.effects.indexOf(effect)].textContent)"""
PIXELS = "c => Array.from(c.getContext('2d').getImageData(0, 0, 64, 64).data)"


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        assert os.environ.get("GENIE_NEEDS_BROWSER") != "1", "no chromium here: apt-get install chromium"
        pytest.skip("no browser here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, address, **options):
    """Yields the page, showing the first prompt; any error in its script fails the test."""
    page, faults = browser.new_page(**options), []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(address)
    expect(page.locator("#curtain")).to_have_text(re.compile("^hold an? .*number$"))
    yield page
    page.close()
    assert [fault for fault in faults if "status of 4" not in fault] == []  # the page reports those itself


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def open_world(browser, tiny_params):
    """Opens the page of another world."""
    with ExitStack() as stack:

        def open_world(world, **options):
            arcade = Arcade(world, tiny_params.collect, num_threads=1)
            return stack.enter_context(opened(browser, stack.enter_context(serving(arcade)), **options))

        yield open_world


def pixels(page, canvas="#dream"):
    """Returns the pixels of a canvas, `(64, 64, 3)`."""
    return np.array(page.locator(canvas).evaluate(PIXELS), np.uint8).reshape(64, 64, 4)[..., :3]


def shows_step(page, step):
    expect(page.locator("#step")).to_have_text(str(step))


def begun(shared_world):
    """Returns a world in the page's initial state."""
    world, prompt = shared_world.fork(), shared_world.prompts[0]
    world.reset(prompt.frames_THWC, actions=prompt.actions)
    return world


def png(size=(90, 120)):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def drop(page, content, name="picture.png"):
    page.evaluate(DROP, [base64.b64encode(content).decode(), name])


def test_it_shows_the_prompt_that_it_starts_from(page, shared_world):
    prompt = shared_world.prompts[0]
    assert np.array_equal(pixels(page), shared_world.fork().reset(prompt.frames_THWC, actions=prompt.actions))
    assert page.locator("#prompts canvas").count() == len(shared_world.prompts)
    thumbnail = pixels(page, "#prompts button:nth-child(2) canvas")
    assert np.array_equal(thumbnail, shared_world.prompts[1].frames_THWC[-1])
    assert page.locator("#source").inner_text() == prompt.source


def test_it_shows_what_the_buttons_mean(page, shared_world):
    rows = page.locator("#table tr").all()[1:]
    pads = page.locator("#latents .pad").all()
    for button, row, pad in zip(shared_world.buttons, rows, pads, strict=True):
        name, confidence = button.action.replace("_", " "), f"{button.confidence:.0%}"
        assert name in row.inner_text()
        assert name in pad.inner_text()
        assert confidence in row.inner_text()
        titles = [cell.get_attribute("title") for cell in row.locator("td[title]").all()]
        shown = [int(re.search(r"(\d+)%", title)[1]) for title in titles]
        assert np.allclose(shown, np.array(button.shares) * 100, atol=0.51)


def test_it_shows_what_each_arrow_presses_after_what_was_pressed(page, shared_world):
    world, signs = begun(shared_world), "·←→↑↖↗"
    page.keyboard.press("Space")
    for step, latent in enumerate([None, 3, 1]):
        if latent is not None:
            page.keyboard.press(str(latent + 1))
            world.step(latent)
        shows_step(page, step)
        rows = [row.locator("td[title]").all_inner_texts() for row in page.locator("#table tr").all()[1:]]
        presses = [world.steer(effect) for effect in range(6)]
        assert rows == [
            [sign if presses[effect] == latent else "" for effect, sign in enumerate(signs)] for latent in range(5)
        ]


@pytest.mark.parametrize("key", ["1", "5", "ArrowRight"])
def test_a_key_pressed_changes_the_canvas(page, key):
    before = pixels(page)
    page.keyboard.press("Space")  # while paused, a key steps one frame
    page.keyboard.press(key)
    shows_step(page, 1)
    assert not np.array_equal(pixels(page), before)
    expect(page.locator("#latency")).to_have_text(NUMBER)


def test_a_key_held_plays_on_and_one_let_go_does_not(page):
    page.locator("#idle").select_option("wait")
    page.keyboard.down("2")
    expect(page.locator("#fps")).to_have_text(NUMBER)
    expect(page.locator("#latents .pad.pressed")).to_contain_text("2")
    expect(page.locator("#step")).to_have_text(MORE_THAN_THREE)
    page.keyboard.up("2")
    page.wait_for_timeout(300)  # lets replies in flight arrive
    last = page.locator("#step").inner_text()
    page.wait_for_timeout(300)
    shows_step(page, last)


def test_with_nothing_held_the_world_stays(page, shared_world):
    page.keyboard.press("1")
    expect(page.locator("#step")).to_have_text(MORE_THAN_THREE)
    page.keyboard.press("Space")
    page.wait_for_timeout(300)  # lets replies in flight arrive
    world, num_frames = begun(shared_world), int(page.locator("#step").inner_text())
    for _ in range(3):  # a tap may last up to three frames
        world.step(0)
        staying = world.fork()
        for _ in range(num_frames - 1):
            last_HWC = staying.step(staying.steer(NAMES.index("stay")))
        if np.array_equal(pixels(page), last_HWC):
            return
        num_frames -= 1
    pytest.fail("it did something else than staying")


@pytest.mark.parametrize(
    ("keys", "effect"),
    [
        (["ArrowUp"], "jump"),
        (["ArrowUp", "ArrowLeft"], "jump_left"),
        (["ArrowRight", "ArrowUp"], "jump_right"),
        (["ArrowLeft", "ArrowRight"], "stay"),
    ],
)
def test_arrows_are_chords(page, keys, effect):
    page.keyboard.press("Space")
    for step, key in enumerate(keys, start=1):
        latent = page.evaluate(PRESSED_BY, effect)
        page.keyboard.down(key)
        shows_step(page, step)
    expect(page.locator("#latents .pad.pressed b")).to_have_text(str(latent + 1))


@pytest.mark.parametrize("pad", ["#cross .pad >> nth=5", "#latents .pad >> nth=2"])
def test_buttons_do_the_same_on_a_phone(browser, address, pad):
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.goto(address)
    expect(page.locator("#curtain")).to_have_text("hold an arrow or a number")
    page.locator("#pause").tap()
    page.locator(pad).tap()
    shows_step(page, 1)
    page.close()


def test_reset_begins_again_and_a_seed_decides(page):
    page.locator("#temperature").fill("1")
    page.keyboard.press("Space")

    def played(seed):
        page.locator("#seed").fill(str(seed))
        page.locator("#seed").dispatch_event("change")
        page.locator("#reset").click()
        shows_step(page, 0)
        for step in range(1, 4):
            page.keyboard.press("3")
            shows_step(page, step)
        return pixels(page)

    first = played(seed=1)
    assert not np.array_equal(first, played(seed=2))
    assert np.array_equal(first, played(seed=1))


def test_what_each_button_would_do_is_shown_when_asked(page, shared_world):
    expect(page.locator("#latents canvas >> nth=0")).to_be_hidden()
    page.locator("#imagine").check()
    page.locator("#reset").click()
    expect(page.locator("#latents canvas >> nth=0")).to_be_visible()
    world, prompt = shared_world.fork(), shared_world.prompts[0]
    world.reset(prompt.frames_THWC, actions=prompt.actions)
    imagined = [pixels(page, f"#latents .pad:nth-child({action + 1}) canvas") for action in range(5)]
    assert np.array_equal(imagined, world.imagine())


def test_a_dropped_picture_starts_a_world(page):
    page.evaluate("window.addEventListener('drop', event => window.dropped = event.defaultPrevented)")
    before = pixels(page)
    drop(page, png())
    expect(page.locator("#source")).to_have_text("a picture")
    assert page.evaluate("window.dropped"), "else the browser would leave the page for the picture"
    assert not np.array_equal(pixels(page), before)


def test_a_chosen_picture_starts_a_world_and_a_faulty_one_does_not(page):
    page.locator("#file").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#said.fault")).to_contain_text("no picture")
    shows_step(page, 0)
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png()})
    expect(page.locator("#source")).to_have_text("a picture")


def test_twins_are_shown_side_by_side(page):
    page.keyboard.press("Space")
    page.locator("#twin").click()
    expect(page.locator("#real")).to_be_visible(timeout=30_000)  # the simulator loads its assets
    expect(page.locator("#psnr")).to_have_text(re.compile(r"^\d+\.\d$"))
    dream, real = page.locator("#dream").bounding_box(), page.locator("#real").bounding_box()
    assert dream["y"] == real["y"]
    assert dream["x"] + dream["width"] <= real["x"]
    assert not np.array_equal(pixels(page), pixels(page, "#real"))
    before = pixels(page), pixels(page, "#real")
    for step in range(1, 4):
        page.keyboard.press("ArrowRight")
        shows_step(page, step)
    assert not np.array_equal(pixels(page), before[0])
    assert not np.array_equal(pixels(page, "#real"), before[1])
    page.locator("#prompts button >> nth=0").click()
    expect(page.locator("#real")).to_be_hidden()


@pytest.mark.parametrize("format", ["gif", "mp4"])
def test_a_recording_is_downloaded(page, format, tmp_path):
    expect(page.locator(f"#{format}")).to_be_disabled()
    page.locator("#record").click()
    page.keyboard.down("1")
    expect(page.locator("#record")).to_have_text(MORE_THAN_THREE)
    with page.expect_download() as download:
        page.locator(f"#{format}").click()
    download.value.save_as(tmp_path / "file")
    assert download.value.suggested_filename == f"dream.{format}"
    content = Path(tmp_path / "file").read_bytes()
    assert content[:6] == b"GIF89a" if format == "gif" else content[4:8] == b"ftyp"


@pytest.mark.parametrize("width", [390, 800, 1100, 1360, 1920])
def test_nothing_sticks_out(page, width):
    page.set_viewport_size({"width": width, "height": 860})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_lost_server_is_told_and_found_again(page):
    page.evaluate("socket.close(4000, 'gone')")
    expect(page.locator("#curtain")).to_contain_text("click to connect again")
    page.locator("#curtain").click()
    expect(page.locator("#curtain")).to_have_text("hold an arrow or a number")


def test_buttons_without_names_are_arrows_of_their_motion(open_world, moving_world):
    page = open_world(moving_world)
    expect(page.locator("#curtain")).to_have_text("hold an arrow or a number")
    pads = page.locator("#latents .pad").all()
    assert [pad.get_attribute("title") for pad in pads] == [button.title for button in moving_world.buttons]
    assert [pad.inner_text().strip() for pad in pads] == ["1→", "2←", "3", "4↑", "5"]
    turns = [pad.locator("path").get_attribute("transform") if pad.locator("path").count() else None for pad in pads]
    assert turns[1:] == ["rotate(180)", None, "rotate(-49)", "rotate(0)"]
    assert [pad.locator("circle").count() for pad in pads] == [0, 0, 1, 0, 0]
    for button, row in zip(moving_world.buttons, page.locator("#table tr").all()[1:], strict=True):
        assert button.title in row.inner_text()
    for absent in ("#arrows", "#level", "#twin"):
        expect(page.locator(absent)).to_be_hidden()


def test_keys_press_buttons_without_names(open_world, moving_world):
    page, world = open_world(moving_world), begun(moving_world)
    page.keyboard.press("Space")
    for step, (key, latent) in enumerate([("4", 3), ("ArrowLeft", 1), ("ArrowUp", 3), (".", 2)], start=1):
        page.keyboard.press(key)
        shows_step(page, step)
        assert np.array_equal(pixels(page), world.step(latent))
        expect(page.locator("#latents .pad.pressed b")).to_contain_text(str(latent + 1))
    page.keyboard.press("ArrowDown")  # no button moves that way
    page.keyboard.press("4")
    shows_step(page, 5)


def test_a_random_clip_is_another_one(open_world, moving_world):
    page = open_world(moving_world)
    sources = [page.locator("#source").inner_text()]
    for _ in range(4):
        page.locator("#clip").click()
        expect(page.locator("#source")).not_to_have_text(sources[-1])
        sources.append(page.locator("#source").inner_text())
    assert set(sources) <= {prompt.source for prompt in moving_world.prompts}


def test_buttons_of_which_nothing_is_known_show_what_they_make_of_a_frame(open_world, pictured_world):
    page, world = open_world(pictured_world), begun(pictured_world)
    expect(page.locator("#curtain")).to_have_text("hold a number")
    imagined, first = world.imagine(), pixels(page)

    def examples():
        pads = [f"#latents .pad:nth-child({action + 1}) canvas" for action in range(5)]
        return [[pixels(page, f"{pad} >> nth={index}") for pad in pads] for index in (0, 1)]

    before, after = examples()
    assert np.array_equal(before, [first] * 5)
    assert np.array_equal(after, imagined)
    page.keyboard.press(".")
    expect(page.locator("#said")).to_contain_text("hold a button")
    page.keyboard.press("2")
    shows_step(page, 1)
    assert np.array_equal(pixels(page), world.step(1))
    assert np.array_equal(examples()[1], imagined), "the last examples stay"
    expect(page.locator("#latents canvas >> nth=1")).to_be_visible()


def test_arrows_of_other_names(open_world, with_buttons):
    names = ("stay", "up", "down", "up_fire", "fire")
    world = with_buttons([Button(names, (0.2,) * 5)] * 5)
    page, played = open_world(world), begun(world)
    cross, rest = page.locator("#cross .pad").all(), page.locator("#rest .pad").all()
    assert [pad.inner_text() for pad in cross] == ["↑", "·", "↓"]
    assert [pad.inner_text() for pad in rest] == ["up fireF↑", "fireF"]
    tops = [pad.bounding_box()["y"] for pad in cross]
    assert tops == sorted(set(tops))
    page.keyboard.press("Space")
    for step, (key, effect) in enumerate([("ArrowDown", "down"), ("f", "fire"), ("ArrowUp", "up_fire")], start=1):
        if effect == "up_fire":
            page.keyboard.down("f")
            shows_step(page, step)
            played.step(played.steer(names.index("fire")))
            step += 1
        latent = played.steer(names.index(effect))
        page.keyboard.press(key)
        shows_step(page, step)
        assert np.array_equal(pixels(page), played.step(latent))


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("kind", ["moving", "pictured", "named"])
def test_nothing_of_other_worlds_sticks_out(open_world, with_buttons, moving_world, pictured_world, kind, width):
    named = [Button(game_actions("starpilot").names, (1.0,) + (0.0,) * 10)] * 5
    world = {"moving": moving_world, "pictured": pictured_world, "named": with_buttons(named)}[kind]
    page = open_world(world, viewport={"width": width, "height": 860})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_larger_frames_are_shown_pixel_by_pixel(browser, larger_world, tiny_params):
    size, prompt = larger_world.frame_shape[0], larger_world.prompts[0]
    with serving(Arcade(larger_world, tiny_params.collect, num_threads=1)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#curtain")).to_have_text("hold an arrow or a number")
        shown = page.locator("#dream").evaluate(PIXELS.replace("64, 64", f"{size}, {size}"))
        page.close()
    shown_HWC = np.array(shown, np.uint8).reshape(size, size, 4)[..., :3]
    assert np.array_equal(shown_HWC, larger_world.fork().reset(prompt.frames_THWC, actions=prompt.actions))

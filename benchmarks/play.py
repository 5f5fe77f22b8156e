"""`make bench`: how fast a world is played, by the sampler alone and in a browser, in one run.

Axes: `B` batch (of one), `T` frames of the past, `N` tokens a frame.
"""

import argparse
import random
import time
from collections.abc import Callable

import torch
from playwright.sync_api import Page

from benchmarks.page import opened_page
from genie.models.dynamics import Dynamics, Memory
from genie.models.maskgit import sample_frame
from genie.params import load_params
from genie.play.opening import open_world
from genie.world import WorldModel

WARM_UP, FRAMES, ROUNDS = 5, 20, 3
SECONDS_HELD, PRESSES = 10, 40
MASKGIT_STEPS = 8  # measured beside the world's own


class Uncached:
    """Stands for a dynamics in `sample_frame`: all of the past is read anew in every MaskGIT step."""

    def __init__(self, dynamics: Dynamics):
        self._dynamics = dynamics
        self.num_tokens, self.mask_token = dynamics.num_tokens, dynamics.mask_token

    def predict(self, tokens_BN: torch.Tensor, action_B: torch.Tensor, unread: Memory) -> tuple[torch.Tensor, Memory]:
        return self._dynamics.predict(tokens_BN, action_B, unread)[0], unread


def cached_sampler(world: WorldModel) -> Callable[[int], None]:
    """Goes a frame on under a latent action, as it is played."""
    world = world.fork()
    world.reset(world.prompts[0].frames_THWC)
    return world.step


def uncached_sampler(world: WorldModel) -> Callable[[int], None]:
    """The same without a cache: from the tokens of as many frames as a frame depends on."""
    dynamics, sampling = world.dynamics, world.sampling
    past_frames = dynamics.config.num_layers * dynamics.config.context_frames + 1
    tokens_BTN = world.tokenizer.encode(torch.from_numpy(world.prompts[0].frames_THWC)).unsqueeze(0)
    tokens_BTN = tokens_BTN[:, torch.arange(-past_frames, 0).clamp_min(-tokens_BTN.shape[1])]
    led_to_BT = torch.full(tokens_BTN.shape[:2], dynamics.no_action)
    uncached = Uncached(dynamics)

    def step(action: int) -> None:
        nonlocal tokens_BTN, led_to_BT
        action_B = torch.tensor([action])
        unread = dynamics.remember(tokens_BTN, led_to_BT)
        tokens_BN, _ = sample_frame(uncached, unread, action_B, sampling.maskgit_steps, sampling.temperature)
        tokens_BTN = torch.cat([tokens_BTN[:, 1:], tokens_BN.unsqueeze(1)], dim=1)
        led_to_BT = torch.cat([led_to_BT[:, 1:], action_B.unsqueeze(1)], dim=1)
        world.tokenizer.decode(tokens_BN).numpy()

    return step


def frames_per_second(*samplers: Callable[[int], None]) -> list[float]:
    """Of each sampler, its best round: they take turns, so that what else the machine does meets all alike."""
    best = [0.0] * len(samplers)
    for step in samplers:
        for _ in range(WARM_UP):
            step(0)
    for _ in range(ROUNDS):
        for index, step in enumerate(samplers):
            start = time.perf_counter()
            for frame in range(FRAMES):
                step(frame % 2)
            best[index] = max(best[index], FRAMES / (time.perf_counter() - start))
    return best


def measure_samplers(world: WorldModel) -> None:
    for steps in sorted({world.sampling.maskgit_steps, MASKGIT_STEPS}):
        world.sampling = world.sampling.model_copy(update={"maskgit_steps": steps})
        cached, uncached = frames_per_second(cached_sampler(world), uncached_sampler(world))
        print(
            f"sampler, {steps} MaskGIT step{'s' * (steps > 1)}: {cached:.1f} frames/s, "
            f"uncached {uncached:.1f}: {cached / uncached:.1f} times as fast"
        )


def measure_browser(source: str | None) -> None:
    with opened_page(source) as (page, seconds):
        print(f"first frame {seconds:.1f} s after the command")
        measure_page(page)


def measure_page(page: Page) -> None:
    rate = page.locator("#rate")
    usual, fastest = rate.input_value(), rate.get_attribute("max")
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", help="as of `genie play`; without: the shipped one")
    source = parser.parse_args().world
    measure_samplers(open_world(source, load_params()))
    measure_browser(source)


if __name__ == "__main__":
    main()

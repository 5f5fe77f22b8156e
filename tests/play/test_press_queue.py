"""Many clients press at once on a real server; each plays the dream that it would play alone.

Without motion compensation, rounding in a batch changes no token, and pixels by one at most (see test_batching.py).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from genie.play import press_queue
from genie.play.messages import FromPrompt, Press
from genie.play.press_queue import PressQueue
from genie.play.server import Arcade
from genie.play.session import Session
from genie.world import WorldError
from tests.play.conftest import Client, serving

CLIENTS, FRAMES = 20, 6


@pytest.fixture
def sizes(monkeypatch):
    """Sizes of the batches that the server steps."""
    sizes, press_together = [], press_queue.press_together

    def counted(sessions, *others):
        sizes.append(len(sessions))
        return press_together(sessions, *others)

    monkeypatch.setattr(press_queue, "press_together", counted)
    return sizes


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def address(request, uncompensated_world, tiny_params):
    with serving(Arcade(uncompensated_world, tiny_params.collect, num_threads=request.param)) as address:
        yield address


def press(number, step):
    return {"kind": "press", "action": (number + step) % 5}


def play(address, number):
    """Plays some frames; the clients join one after the other, and one of them makes a mistake between two frames."""
    with Client(address) as it:
        it.ask({"kind": "settings", "seed": number, "maskgit_steps": 2, "temperature": 1.0, "imagine": number == 3})
        frames = [it.ask({"kind": "prompt", "index": number % 3})[1][0]]
        for step in range(FRAMES):
            if number == 5:
                assert "0 to 4" in it.ask({"kind": "press", "action": 5})[0]["message"]
            facts, shown = it.ask(press(number, step))
            assert facts["step"] == step + 1
            frames.append(shown[0])
        return np.stack(frames).astype(int)


@pytest.mark.slow
def test_many_clients_play_their_own_dreams_at_once(address, sizes):
    with ThreadPoolExecutor(CLIENTS) as pool:
        together = list(pool.map(play, [address] * CLIENTS, range(CLIENTS)))
    assert max(sizes) > 1
    sizes.clear()
    alone = [play(address, number) for number in range(CLIENTS)]
    assert max(sizes) == 1
    assert all(np.abs(mine - its).max() <= 1 for mine, its in zip(together, alone, strict=True))
    assert len({frames[-1].tobytes() for frames in together}) == CLIENTS


@pytest.fixture
def sessions(uncompensated_world, tiny_params):
    sessions = [Session(uncompensated_world, tiny_params.collect) for _ in range(5)]
    for session in sessions:
        session.answer(FromPrompt(kind="prompt", index=0))
    return sessions


def answers(sessions, actions, max_batch):
    """Presses an action in each session at once; returns the replies or errors."""

    async def press_all():
        presses = PressQueue(thread, max_batch, num_threads=1)
        asked = [presses.answer(session, Press(kind="press", action=action)) for session, action in actions]
        return await asyncio.gather(*asked, return_exceptions=True)

    actions = list(zip(sessions, actions, strict=True))
    with ThreadPoolExecutor(1) as thread:
        return asyncio.run(press_all())


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_no_batch_is_larger_than_its_limit_and_all_are_answered(max_batch, sessions, sizes):
    assert all(isinstance(reply, bytes) for reply in answers(sessions, [0, 1, 2, 3, 4], max_batch))
    assert max(sizes) == max_batch
    assert sum(sizes) == len(sessions)


def test_an_error_answers_its_own_client_alone(sessions, sizes):
    replies = answers(sessions, [0, 9, 2, -1, 4], max_batch=5)
    assert [isinstance(reply, WorldError) for reply in replies] == [False, True, False, True, False]
    assert sizes == [5]
    # Those whose press was invalid go on from where they were.
    steps = [b'"step": 1' in sessions[index].answer(Press(kind="press", action=0)) for index in range(5)]
    assert steps == [False, True, False, True, False]


def test_an_unforeseen_fault_of_a_batch_ends_each_press_and_not_the_queue(sessions, monkeypatch):
    def fail(*_):
        raise MemoryError("no memory is left")

    with monkeypatch.context() as patch:
        patch.setattr(press_queue, "press_together", fail)
        assert [type(reply) for reply in answers(sessions, [0] * 5, max_batch=2)] == [MemoryError] * 5
    assert all(isinstance(reply, bytes) for reply in answers(sessions, [0] * 5, max_batch=2))

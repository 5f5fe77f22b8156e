import json
from contextlib import closing

import numpy as np
import pytest

from genie.core.actions import game_actions
from genie.play.messages import Again, FromLevel, FromPrompt, MessageError, Press, Record, Save, Settings, Steer
from genie.play.recording import RecordingError
from genie.play.session import Session
from genie.sources import engines
from genie.sources.twin import RealGame
from genie.world import WorldError
from genie.world.controls import Button
from genie.world.maskgit import Sampling

NAMES = game_actions("coinrun").names

LEVEL, DEADLY_LEVEL = 0, 3  # in the deadly level, the policy dies in its fifth frame
PRESSES = (0, 3, 1, 4, 4, 2)


def likeness(one_HWC, other_HWC):
    """Returns the PSNR by its definition."""
    mse = np.mean((one_HWC.astype(float) - other_HWC) ** 2) / 255**2
    return -10 * np.log10(mse)


@pytest.fixture
def begin(shared_world, tiny_params):
    """Opens sessions that sample frames at random unless set otherwise; all are closed at the end."""
    sessions = []

    def begin(**settings):
        sessions.append(Session(shared_world, tiny_params.collect))
        drawn = {"seed": 0, "maskgit_steps": 2, "temperature": 1.0, "imagine": False} | settings
        sessions[-1].answer(Settings(kind="settings", **drawn))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def ask(session, message):
    """Sends a message; returns the facts and the frames of the reply."""
    facts, _, pixels = session.answer(message).partition(b"\n")
    return json.loads(facts), np.frombuffer(pixels, np.uint8).reshape(-1, 64, 64, 3)


def prompt(index):
    return FromPrompt(kind="prompt", index=index)


def level(twin, number=LEVEL):
    return FromLevel(kind="level", level=number, twin=twin)


def press(action):
    return Press(kind="press", action=action)


def steer(effect):
    return Steer(kind="steer", effect=effect)


def played(session, start):
    return [session.answer(message) for message in (start, *map(press, PRESSES))]


@pytest.mark.parametrize("start", [prompt(1), level(twin=False), level(twin=True)], ids=["prompt", "level", "twin"])
def test_the_same_start_seed_and_presses_give_the_same_replies(begin, start):
    first = played(begin(), start)
    assert first == played(begin(), start)
    other = played(begin(seed=1), start)
    assert first[0] == other[0]  # the prompt is not sampled
    assert first[1:] != other[1:]


def test_sessions_do_not_touch_each_other(begin):
    one, other = begin(), begin(seed=5, temperature=0.5)
    alone = played(begin(), prompt(0))
    together = []
    for message in (prompt(0), *map(press, PRESSES)):
        together.append(one.answer(message))
        other.answer(prompt(2) if message == prompt(0) else press(1))
    assert together == alone


@pytest.mark.parametrize("twin", [True, False])
def test_reset_begins_again(begin, twin):
    session = begin()
    first = played(session, level(twin=twin))
    assert [session.answer(message) for message in (Again(kind="reset"), *map(press, PRESSES))] == first


def test_settings_count_from_the_next_frame_on(begin):
    session, other = begin(temperature=0.0), begin(temperature=0.0, maskgit_steps=32)
    assert session.answer(prompt(0)) == other.answer(prompt(0))
    assert session.answer(press(1)) != other.answer(press(1))
    assert session.answer(Settings(kind="settings", seed=0, maskgit_steps=32, temperature=0.0, imagine=False))
    assert session.answer(prompt(0)) == other.answer(prompt(0))
    assert session.answer(press(1)) == other.answer(press(1))


def test_what_each_button_would_do_is_shown_beside_what_was_done(begin, shared_world):
    prompt_, world = shared_world.prompts[0], shared_world.fork()
    world.sampling = Sampling(maskgit_steps=2, temperature=1.0)
    shown = [world.reset(prompt_.frames_THWC, actions=prompt_.actions, seed=7)]
    imagined = [world.imagine()]
    shown.append(world.step(2))
    imagined.append(world.imagine())
    session = begin(imagine=True, seed=7)
    for message, frame_HWC, imagined_AHWC in zip((prompt(0), press(2)), shown, imagined, strict=True):
        facts, frames = ask(session, message)
        assert facts["imagined"] == shared_world.num_actions
        assert np.array_equal(frames, [frame_HWC, *imagined_AHWC])


def test_an_effect_presses_the_button_that_stands_for_it(begin, shared_world):
    for index, effect in enumerate(NAMES):
        steered, pressed = begin(), begin()
        begun, _ = ask(steered, prompt(0))
        assert begun == ask(pressed, prompt(0))[0]
        facts, frames = ask(steered, steer(effect))
        assert facts["pressed"] == begun["steering"][index]
        assert np.array_equal(frames, ask(pressed, press(facts["pressed"]))[1])


def test_the_twin_is_the_real_game_under_the_same_effects(begin, shared_world, tiny_params):
    session = begin()
    with closing(RealGame(tiny_params.collect, LEVEL)) as game:
        begun_THWC, _ = game.begin(shared_world.context_frames)
        facts, (dream, real) = ask(session, level(twin=True))
        assert np.array_equal(real, begun_THWC[-1])
        assert facts["source"] == f"level {game.level_seed}"
        for effect in ("right", "jump_right", "right", "stay"):
            facts, (dream, real) = ask(session, steer(effect))
            assert facts["twin"]
            assert np.array_equal(real, game.step(NAMES.index(effect))[0])
            assert facts["psnr"] == pytest.approx(likeness(dream, real), abs=0.01)
        _, (_, real) = ask(session, press(2))
        assert np.array_equal(real, game.step(shared_world.buttons[2].effect)[0])


def test_with_a_twin_the_dream_is_the_same_as_without(begin):
    alone, beside = begin(), begin()
    frames = ask(alone, level(twin=False))[1], ask(beside, level(twin=True))[1]
    assert [len(each) for each in frames] == [1, 2]
    for message in map(press, PRESSES):
        assert np.array_equal(frames[0][0], frames[1][0])
        frames = ask(alone, message)[1], ask(beside, message)[1]


def test_when_the_real_life_ends_both_begin_anew(begin, shared_world, tiny_params):
    with closing(RealGame(tiny_params.collect, DEADLY_LEVEL)) as game:
        _, effects = game.begin(5)
    session = begin()
    session.answer(level(twin=True, number=DEADLY_LEVEL))
    replies = []
    for effect in effects[shared_world.context_frames - 1 :] + effects[-1:]:
        replies.append(ask(session, steer(NAMES[effect])))
    assert [facts["step"] for facts, _ in replies] == [*range(1, len(replies)), 0]
    facts, (dream, real) = replies[-1]
    assert facts["ended"]
    assert facts["twin"]
    assert facts["psnr"] == pytest.approx(likeness(dream, real), abs=0.01)
    facts, _ = ask(session, steer("right"))
    assert facts["step"] == 1
    assert "ended" not in facts


def test_a_start_from_elsewhere_ends_the_twin(begin):
    session = begin()
    assert len(ask(session, level(twin=True))[1]) == 2
    facts, frames = ask(session, prompt(0))
    assert (facts["twin"], facts["psnr"], len(frames)) == (False, None, 1)


@pytest.mark.parametrize("format", ["gif", "mp4"])
def test_what_is_shown_is_recorded(begin, format):
    session = begin()
    session.answer(prompt(0))
    assert not ask(session, press(0))[0]["recording"]
    session.answer(Record(kind="record", on=True))
    for count in (1, 2, 3):
        facts, _ = ask(session, press(count))
        assert (facts["recording"], facts["recorded"]) == (True, count)
    facts, _, content = session.answer(Save(kind="save", format=format, frames_per_second=15)).partition(b"\n")
    assert json.loads(facts) == {"kind": "file", "name": f"dream.{format}"}
    assert content[:6] == b"GIF89a" if format == "gif" else content[4:8] == b"ftyp"


def test_hello_tells_what_there_is(begin, shared_world):
    facts, _, pixels = begin().hello().partition(b"\n")
    facts = json.loads(facts)
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, 64, 64, 3)
    assert np.array_equal(frames, [prompt.frames_THWC[-1] for prompt in shared_world.prompts])
    assert facts["prompts"] == [prompt.source for prompt in shared_world.prompts]
    for button, told in zip(shared_world.buttons, facts["buttons"], strict=True):
        assert (button.action, button.confidence) == (told["action"], told["confidence"])
        assert list(button.shares) == told["shares"]


def test_a_world_without_true_actions_has_neither_arrows_nor_levels(moving_world, tiny_params):
    session = Session(moving_world, tiny_params.collect)
    facts = json.loads(session.hello().partition(b"\n")[0])
    assert (facts["effects"], facts["levels"], facts["lacks_simulator"]) == ([], False, False)
    assert facts["chords"] == [[[], 2], [["left"], 1], [["right"], 0], [["up"], 3]]
    assert [button["title"] for button in facts["buttons"]] == [button.title for button in moving_world.buttons]
    shown, frames = ask(session, prompt(1))
    assert (shown["steering"], len(frames)) == ([], 1)
    assert len(ask(session, press(4))[1]) == 1
    with pytest.raises(MessageError, match="arrows are none"):
        session.answer(steer("left"))
    with pytest.raises(MessageError, match="not learnt from coinrun"):
        session.answer(level(twin=False))


def test_arrows_of_other_names_are_steered(with_buttons, tiny_params):
    names = ("stay", "up", "down")
    world = with_buttons([Button(names, (0.5, 0.2, 0.3))] * 5)
    session = Session(world, tiny_params.collect)
    facts = json.loads(session.hello().partition(b"\n")[0])
    assert (facts["effects"], facts["levels"]) == (list(names), False)
    assert facts["chords"] == [[[], 0], [["up"], 1], [["down"], 2]]
    steering = ask(session, prompt(0))[0]["steering"]
    assert ask(session, steer("down"))[0]["pressed"] == steering[2]


def test_buttons_of_which_nothing_is_known_are_shown_by_what_they_make_of_the_first_frame(pictured_world, tiny_params):
    session, world = Session(pictured_world, tiny_params.collect), pictured_world.fork()
    begun = pictured_world.prompts[0]
    world.reset(begun.frames_THWC, actions=begun.actions)
    for message in (prompt(0), Again(kind="reset")):
        facts, frames = ask(session, message)
        assert facts["imagined"] == 5
        assert np.array_equal(frames[1:], world.imagine())
        assert ask(session, press(1))[0]["imagined"] == 0


def test_a_world_that_takes_too_many_steps_takes_fewer_here(shared_world, tiny_params):
    world = shared_world.fork()
    world.sampling = Sampling(maskgit_steps=200, temperature=100.0)
    facts = json.loads(Session(world, tiny_params.collect).hello().partition(b"\n")[0])
    assert facts["settings"] == {"seed": 0, "maskgit_steps": 32, "temperature": 100.0, "imagine": False}


@pytest.mark.parametrize(
    ("message", "fault", "cause"),
    [
        (prompt(3), MessageError, "no prompt 3: this world has 3"),
        (press(5), WorldError, "0 to 4"),
        (press(-1), WorldError, "0 to 4"),
        (press(10**30), WorldError, "0 to 4"),
        (Save(kind="save", format="gif", frames_per_second=15), RecordingError, "nothing was recorded"),
    ],
)
def test_what_cannot_be_done_changes_nothing(begin, message, fault, cause):
    session, other = begin(), begin()
    assert played(session, prompt(0)) == played(other, prompt(0))
    with pytest.raises(fault, match=cause):
        session.answer(message)
    assert session.answer(press(1)) == other.answer(press(1))


@pytest.mark.parametrize("message", [press(0), steer("left"), Again(kind="reset")], ids=lambda message: message.kind)
def test_nothing_goes_on_before_a_start(begin, message):
    with pytest.raises(MessageError, match="nothing is played yet"):
        begin().answer(message)


def test_a_simulator_that_lacks_a_library_is_told(tiny_world, tiny_params, monkeypatch):
    """As in a slim container image without libGL."""

    def lacking(*_):
        raise OSError("libGL.so.1: cannot open shared object file: No such file or directory")

    for name in ("_Gym3Engine", "_GymEngine"):
        monkeypatch.setattr(engines, name, lacking)
    session = Session(tiny_world, tiny_params.collect)
    with pytest.raises(MessageError, match=r"libGL\.so\.1.*apt-get install libgl1 libglib2\.0-0"):
        session.answer(FromLevel(kind="level", level=3, twin=False))

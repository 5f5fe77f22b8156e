import json
import math

import numpy as np
import pytest

from genie.core.actions import game_actions
from genie.core.frames import FRAME_SIZES
from genie.play.messages import MAX_MESSAGE_BYTES, MessageError, Steer, file_reply, parse_frame, parse_message, reply

NAMES = game_actions("coinrun").names

SETTINGS = {"kind": "settings", "seed": 0, "maskgit_steps": 1, "temperature": 0.5, "imagine": False}


@pytest.mark.parametrize("effect", NAMES)
def test_what_is_said_is_understood(effect):
    assert parse_message(json.dumps({"kind": "steer", "effect": effect})) == Steer(kind="steer", effect=effect)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("[" * 10000, "Invalid JSON"),
        ("press", "Invalid JSON"),
        ("[]", "object"),
        ("{}", "kind"),
        ({"kind": "fly"}, "'fly'"),
        ({"kind": "press"}, "press.action"),
        ({"kind": "press", "action": "1"}, "press.action"),
        ({"kind": "press", "action": 1.5}, "press.action"),
        ({"kind": "press", "action": 1, "path": "/etc/passwd"}, "press.path: Extra"),
        ({"kind": "steer", "effect": 2}, "steer.effect"),
        ({"kind": "prompt", "index": -1}, "prompt.index"),
        ({"kind": "prompt", "index": "../prompts.npz"}, "prompt.index"),
        ({"kind": "level", "level": 2**31, "twin": True}, "level.level"),
        ({"kind": "level", "level": 0, "twin": 1}, "level.twin"),
        (SETTINGS | {"maskgit_steps": 0}, "settings.maskgit_steps"),
        (SETTINGS | {"maskgit_steps": 33}, "settings.maskgit_steps"),
        (SETTINGS | {"temperature": -1}, "settings.temperature"),
        (json.dumps(SETTINGS | {"temperature": float("nan")}), "settings.temperature"),
        (json.dumps(SETTINGS | {"temperature": float("inf")}), "settings.temperature"),
        (SETTINGS | {"seed": -1}, "settings.seed"),
        ({"kind": "save", "format": "exe", "frames_per_second": 15}, "save.format"),
        ({"kind": "save", "format": "gif", "frames_per_second": 0}, "save.frames_per_second"),
    ],
)
def test_what_cannot_be_said_is_named_in_one_line(message, cause):
    with pytest.raises(MessageError, match=cause) as fault:
        parse_message(message if isinstance(message, str) else json.dumps(message))
    assert len(str(fault.value)) < 300
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("size", [0, 1, 64 * 64 * 3 - 1, 64 * 64 * 3 + 1])
def test_a_frame_has_its_size(size):
    with pytest.raises(MessageError, match=f"12288 bytes of 64x64 RGB, got {size}"):
        parse_frame(bytes(size), (64, 64, 3))


@pytest.mark.parametrize("size", FRAME_SIZES)
def test_the_largest_message_holds_a_frame_of_any_size(size):
    shape = size, size, 3
    assert math.prod(shape) <= MAX_MESSAGE_BYTES
    assert parse_frame(bytes(math.prod(shape)), shape).shape == shape


def test_frames_come_back_as_they_were_sent():
    frames_MHWC = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    facts, _, pixels = reply("frame", frames_MHWC, step=4).partition(b"\n")
    assert json.loads(facts) == {"kind": "frame", "frames": 3, "step": 4}
    parts = [pixels[start : start + 12288] for start in range(0, len(pixels), 12288)]
    assert np.array_equal([parse_frame(part, (64, 64, 3)) for part in parts], frames_MHWC)


def test_a_newline_in_a_reply_is_not_its_end():
    facts, _, content = file_reply("file", b"1\n2", name="a\nb").partition(b"\n")
    assert json.loads(facts) == {"kind": "file", "name": "a\nb"}
    assert content == b"1\n2"

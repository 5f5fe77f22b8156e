"""The server answers foreign origins, faulty input and too many clients with clear errors, and keeps running."""

import io
import re
import socket
import struct
import time
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from genie.play import server as server_module
from genie.play.server import PAGE, Arcade, PlayError, serve
from genie.world.prompts import picture_prompt
from tests.play.conftest import serving

START, STEP = {"kind": "prompt", "index": 0}, {"kind": "press", "action": 1}
NUM_FLOODED = 3000


def post(address, body, **headers):
    """Uploads a picture; returns the status and body of the response."""
    request = urllib.request.Request(f"{address}/picture", body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


def png(picture):
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def bomb():
    """Returns a PNG of a few bytes that declares a size of 60000 x 60000 pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND"]
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def assert_lives_on(client):
    with client() as other:
        assert other.ask(START)[0]["kind"] == "frame"
        assert other.ask(STEP)[0]["step"] == 1


def test_one_page_is_all_there_is_to_load(address):
    with urllib.request.urlopen(address) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert page == PAGE.read_text()
    assert "default-src 'none'" in policy
    assert "://" not in page.replace('"wss" : "ws"}://', "")
    assert " src=" not in page
    assert "<link " not in page.replace('<link rel="icon" href="data:,">', "")
    assert not re.search(r"\bimport\b|@import|url\(", page)


@pytest.mark.parametrize("path", ["/page.html", "/../params.yaml", "/%2e%2e/params.yaml", "/play", "/docs"])
def test_no_file_is_served(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path)


def test_a_client_plays(client, shared_world):
    with client() as it:
        assert np.array_equal(it.prompts_MHWC, [prompt.frames_THWC[-1] for prompt in shared_world.prompts])
        facts, frames = it.ask(START)
        prompt, world = shared_world.prompts[0], shared_world.fork()
        assert np.array_equal(frames[0], world.reset(prompt.frames_THWC, actions=prompt.actions, seed=0))
        facts, frames = it.ask(STEP)
        assert facts["step"] == 1
        assert np.array_equal(frames[0], world.step(1))


def test_a_frame_of_ones_own_is_a_start(client, shared_world):
    frame_HWC = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    with client() as it:
        assert np.array_equal(it.ask(frame_HWC.tobytes())[1][0], shared_world.fork().reset(frame_HWC[None]))


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "http://127.0.0.1:1", "https://localhost", "null", ""])
def test_pages_of_others_may_not_play(client, address, origin):
    with pytest.raises(ConnectionClosed) as closed, client(origin=origin):
        pass
    assert closed.value.rcvd.code == 1008
    assert "only this server's own page may play" in closed.value.rcvd.reason
    status, answer = post(address, png(Image.new("RGB", (8, 8))), Origin=origin)
    assert status == 403
    assert "own page" in answer


def test_its_own_page_may(client, address):
    with client(origin=address) as it:
        assert it.ask(START)[0]["kind"] == "frame"
    assert post(address, png(Image.new("RGB", (8, 8))), Origin=address)[0] == 200


def test_another_name_for_this_machine_is_not_taken(client, address):
    """Otherwise any page could resolve its own host name to this machine and be of the same origin (DNS rebinding)."""
    port = address.rpartition(":")[2]
    host = f"elsewhere.example:{port}"
    with (
        socket.create_connection(("127.0.0.1", int(port))) as plain,
        pytest.raises(ConnectionClosed, match="--host"),
        client(f"http://{host}", origin=f"http://{host}", sock=plain),
    ):
        pass
    status, answer = post(address, b"", Host=host, Origin=f"http://{host}")
    assert status == 403
    assert "--host" in answer


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("{", "Invalid JSON"),
        ("[" * 20000, "Invalid JSON"),
        ({"kind": "fly"}, "fly"),
        ({"kind": "press", "action": 99}, "0 to 4"),
        ({"kind": "press", "action": "up"}, "press.action"),
        ({"kind": "prompt", "index": 99}, "this world has 3"),
        ({"kind": "save", "format": "gif", "frames_per_second": 9}, "nothing was recorded"),
        (b"", "12288 bytes"),
        (bytes(40000), "12288 bytes"),
    ],
)
def test_a_faulty_message_is_answered_and_play_goes_on(client, message, cause):
    with client() as it:
        it.ask(START)
        facts, _ = it.ask(message)
        assert facts["kind"] == "fault"
        assert cause in facts["message"]
        assert it.ask(STEP)[0]["step"] == 1


@pytest.mark.parametrize("message", [bytes(100_000), "x" * 100_000], ids=["bytes", "text"])
def test_a_message_too_big_ends_its_own_connection_alone(client, message):
    with client() as other:
        other.ask(START)
        with client() as it:
            it.tell(message)
            with pytest.raises(ConnectionClosed) as closed:
                it.hear()
            assert closed.value.rcvd.code == 1009
        assert other.ask(STEP)[0]["step"] == 1


def test_a_picture_becomes_a_frame(address, tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(90, 130, 3), dtype=np.uint8)
    (tmp_path / "picture.png").write_bytes(png(Image.fromarray(pixels)))
    status, frame = post(address, (tmp_path / "picture.png").read_bytes())
    assert status == 200
    assert frame == picture_prompt(tmp_path / "picture.png", (64, 64, 3)).frames_THWC.tobytes()


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        (lambda: b"", 422, "no picture"),
        (lambda: b"no picture", 422, "no picture"),
        (lambda: png(Image.effect_noise((64, 64), 50))[:1000], 422, "damaged"),
        (lambda: bomb(), 422, "scale it down"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", 422, "no picture"),
        (lambda: bytes(100_000_000), 413, "exceeds 16 MiB"),
    ],
    ids=["nothing", "text", "cut", "bomb", "program", "100 MB"],
)
def test_what_is_no_picture_is_refused(address, client, body, status, cause):
    found, answer = post(address, body())
    assert found == status
    assert cause in answer
    assert "\n" not in answer
    assert_lives_on(client)


def test_pictures_beyond_the_limit_are_told_to_come_again(address, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_UPLOADS", 0)
    status, answer = post(address, b"")
    assert status == 503
    assert "try again" in answer


def test_dropped_connections_leave_nothing(client, arcade):
    for number in range(3):
        it = client()
        it.__enter__()
        it.tell({"kind": "level", "level": number, "twin": True})
        it.socket.socket.shutdown(socket.SHUT_RDWR)  # without a WebSocket close frame
    assert_lives_on(client)
    wait_until(lambda: arcade.num_clients == 0)


def test_clients_beyond_the_limit_are_told_to_come_again(client, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 1)
    with client() as it:
        with pytest.raises(ConnectionClosed) as closed, client():
            pass
        assert closed.value.rcvd.code == 1013
        assert "try again later" in closed.value.rcvd.reason
        assert it.ask(START)[0]["kind"] == "frame"
    assert_lives_on(client)


def test_a_client_that_does_not_listen_is_not_played_on(client, arcade):
    """The server waits until the client has received the last frames, so that they pile up nowhere."""
    taken = arcade.num_taken
    with client(max_queue=1, close_timeout=0) as it, client() as other:
        it.tell(START)
        for _ in range(NUM_FLOODED):
            it.tell(STEP)
        wait_until_still(lambda: arcade.num_taken)
        assert arcade.num_taken - taken < NUM_FLOODED / 2, "the rest waits at the client's"
        assert other.ask(START)[0]["kind"] == "frame"
        assert [it.hear()[0]["step"] for _ in range(100)] == [*range(100)]


def test_a_port_in_use_ends_in_one_line(address, arcade):
    with pytest.raises(PlayError, match=r"--host 127\.0\.0\.1 --port \d+: .*choose another --port"):
        serve(arcade, "127.0.0.1", int(address.rpartition(":")[2]), open_page=False)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until_still(count):
    """Waits until a count has stayed the same for half a second."""
    last = None
    while last != (last := count()):
        time.sleep(0.5)


def test_a_world_of_larger_frames_is_played(larger_world, tiny_params, client):
    shape = larger_world.frame_shape
    with serving(Arcade(larger_world, tiny_params.collect, num_threads=1)) as address, client(address) as it:
        assert it.hello["frame_size"] == shape[0]
        assert not it.hello["levels"]
        assert np.array_equal(it.prompts_MHWC, [prompt.frames_THWC[-1] for prompt in larger_world.prompts])
        world, prompt = larger_world.fork(), larger_world.prompts[0]
        world.reset(prompt.frames_THWC, actions=prompt.actions, seed=0)
        it.ask(START)
        assert np.array_equal(it.ask(STEP)[1][0], world.step(1))
        status, content = post(address, png(Image.effect_noise((150, 100), 50)))
        assert status == 200
        frame_HWC = np.frombuffer(content, np.uint8).reshape(shape)
        assert np.array_equal(it.ask(content)[1][0], world.reset(frame_HWC[None]))
        assert f"of {shape[0]}x{shape[0]} RGB, got 12288" in it.ask(bytes(12288))[0]["message"]
        level = {"kind": "level", "level": 0, "twin": True}
        assert "no levels" in it.ask(level)[0]["message"]

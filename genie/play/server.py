"""The web server: serves the page, one WebSocket per client, and an endpoint that converts pictures to frames.

All worlds share their weights and one thread that runs all models in the order of requests, where presses that wait are
answered as a batch (`genie.play.press_queue`). Each client has at most one message in that queue, so clients share the
thread fairly, and the event loop stays free. A second thread opens pictures and encodes recordings, one at a time,
which bounds their memory.
"""

import asyncio
import io
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse, PlainTextResponse

from genie.core.params import CollectParams
from genie.play.messages import MAX_MESSAGE_BYTES, MessageError, Press, Save, Steer, parse_frame, parse_message, reply
from genie.play.press_queue import MAX_BATCH, PressQueue
from genie.play.recording import RecordingError
from genie.play.session import Session
from genie.world.prompts import Prompt, PromptError, read_picture
from genie.world.world_model import WorldError, WorldModel

PAGE = Path(__file__).with_name("page.html")
MAX_CLIENTS = 64
MAX_UPLOADS = 4  # at the same time
MAX_PICTURE_BYTES = 16 * 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # WebSocket close codes
# The page is self-contained: content injected into it can neither load anything nor send anything elsewhere.
SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Result = TypeVar("Result")


class PlayError(ValueError):
    """The server cannot start with these options; the message names the option and the fix."""


class Arcade:
    """State shared by all clients: the world's weights and two threads.

    Args:
        world: the world, of which each client plays a fork.
        game: params of the real game.
        num_threads: threads that step the dreams of a batch.
    """

    def __init__(self, world: WorldModel, game: CollectParams, num_threads: int):
        self._world, self._game = world, game
        self._stepping = ThreadPoolExecutor(1, "stepping")
        self._encoding = ThreadPoolExecutor(1, "encoding")
        # A GPU steps all clients at once.
        self._presses = PressQueue(
            self._stepping, MAX_BATCH if world.device.type == "cpu" else MAX_CLIENTS, num_threads
        )
        self.num_clients = self._num_uploads = 0

    async def play(self, socket: WebSocket) -> None:
        """Serves one client until it disconnects."""
        await socket.accept()
        if self.num_clients == MAX_CLIENTS:
            await socket.close(TRY_AGAIN_LATER, f"{MAX_CLIENTS} clients play already: try again later")
            return
        self.num_clients += 1
        session = Session(self._world, self._game)
        try:
            await socket.send_bytes(session.hello())
            while True:
                await socket.send_bytes(await self._answer(session, await socket.receive()))
        except WebSocketDisconnect:
            pass
        finally:
            self.num_clients -= 1
            await _run(self._stepping, session.close)

    async def picture(self, request: Request) -> Response:
        """Converts the picture in the request's body to the raw pixels of a frame."""
        if self._num_uploads == MAX_UPLOADS:
            return PlainTextResponse("too many pictures at once: try again", 503)
        self._num_uploads += 1
        try:
            content, size = io.BytesIO(), 0
            async for chunk in request.stream():  # reads all, even if too large: else the client misses the response
                size += len(chunk)
                if size <= MAX_PICTURE_BYTES:
                    content.write(chunk)
            if size > MAX_PICTURE_BYTES:
                return PlainTextResponse(f"the picture exceeds {MAX_PICTURE_BYTES >> 20} MiB: scale it down", 413)
            frame_HWC = await _run(self._encoding, read_picture, content, "the picture", self._world.frame_shape)
        except PromptError as fault:
            return PlainTextResponse(str(fault), 422)
        finally:
            self._num_uploads -= 1
        return Response(frame_HWC.tobytes(), media_type="application/octet-stream")

    async def _answer(self, session: Session, received: MutableMapping[str, Any]) -> bytes:
        """The reply to a WebSocket message; errors caused by the client are also replies."""
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1005))
        try:
            if received.get("text") is None:
                prompt = Prompt(parse_frame(received["bytes"], session.frame_shape)[None], None, "a picture")
                return await _run(self._stepping, session.start, prompt)
            message = parse_message(received["text"])
            if isinstance(message, Press | Steer):
                return await self._presses.answer(session, message)
            thread = self._encoding if isinstance(message, Save) else self._stepping
            return await _run(thread, session.answer, message)
        except (MessageError, WorldError, RecordingError) as fault:
            return reply("fault", message=str(fault))


def make_app(arcade: Arcade, hosts: Sequence[str] | None = LOOPBACK) -> FastAPI:
    """The server's routes.

    Args:
        arcade: the state shared by all clients.
        hosts: host names under which clients may reach the server; None: any. This rejects foreign pages whose own
            host name points to this machine (DNS rebinding).
    """
    app = FastAPI(title="mini-genie", openapi_url=None)

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(), headers={"Content-Security-Policy": SECURITY_POLICY})

    @app.post("/picture")
    async def picture(request: Request) -> Response:
        fault = stranger(request, hosts)
        return PlainTextResponse(fault, 403) if fault else await arcade.picture(request)

    @app.websocket("/play")
    async def play(socket: WebSocket) -> None:
        fault = stranger(socket, hosts)
        if fault:
            await socket.accept()  # a refused handshake could not give the reason
            await socket.close(POLICY_VIOLATION, fault)
        else:
            await arcade.play(socket)

    return app


def stranger(connection: HTTPConnection, hosts: Sequence[str] | None) -> str:
    """Why a connection is not from our own page, or "". Browsers send the page's origin; other programs need not."""
    host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
    if hosts is not None and connection.url.hostname not in hosts:
        return f"this server is not {host}: start it with --host to be reached by other names"
    if origin is not None and origin.partition("://")[2] != host:
        return f"only this server's own page may play, not one of {origin}"
    return ""


def serve(arcade: Arcade, host: str, port: int, open_page: bool) -> None:
    """Prints the address and serves until Ctrl-C.

    Args:
        host: address to listen on.
        port: port to listen on; 0 selects a free one.
        open_page: whether to open the page in a browser, if there is a display.

    Raises:
        PlayError: the server cannot listen on the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise PlayError(f"--host {host} --port {port}: cannot listen there ({error}); choose another --port") from None
    with listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        print(f"play at {address} (stop with Ctrl-C)", flush=True)
        if open_page and (sys.platform != "linux" or os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}):
            webbrowser.open(address)  # may connect before the server starts: it waits in the listening socket
        server = uvicorn.Server(server_config(make_app(arcade, LOOPBACK if host in LOOPBACK else None)))
        server.run(sockets=[listening])


def server_config(app: FastAPI) -> uvicorn.Config:
    """uvicorn's config for the app. Without compression: it would delay every frame, and noisy frames do not shrink."""
    return uvicorn.Config(
        app,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        limit_concurrency=4 * MAX_CLIENTS,
        timeout_graceful_shutdown=1,
    )


async def _run(thread: ThreadPoolExecutor, call: Callable[..., Result], *arguments) -> Result:
    return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)

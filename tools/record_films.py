"""Records films of Atari games, and apart from them the actions that were played, which only judge a world.

A random player plays; the films show what a camera before the screen would see. The games come with ale-py.

    python -m tools.record_films freeway --minutes 10 --out films/freeway --judge films/freeway-judge

A film holds one game, or its first `MAX_FRAMES` frames. Each film frame shows two frames of the emulator, by the larger
of both values of each pixel, because Atari games draw some objects only in every other frame. The same arguments give
the same bytes on the same machine and version of FFmpeg.

Legend: `H W C` pixels.
"""

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genie.core.files import replacing_folder
from genie.distributed.faults import faults_in_one_line
from genie.distributed.progress import progress
from tools.films import SIDECAR, write_film, write_sidecar

FRAMES_PER_SECOND = 30
EMULATOR_FRAMES = 2  # per film frame
DECISION = 2  # film frames for which an action is held at least; films sampled at 15 frames/s show each action whole
MAX_FRAMES = 150 * FRAMES_PER_SECOND  # of a film
IDLE_FRAMES = 30  # film frames played before the film starts: games open with wrong colours or a still picture
WIDTH_SCALE, HEIGHT_SCALE = 3, 2  # film pixels per pixel of the game: about the shape of a television's picture
CRF = 16


class RecordError(ValueError):
    """Films cannot be recorded; the message names cause and fix."""


@dataclass(frozen=True)
class Player:
    """How a game is played at random.

    Attributes:
        draws: names of the actions to draw from, equally often; a name listed twice is drawn twice as often.
        hold: probability that a decision keeps the last action.
    """

    draws: tuple[str, ...]
    hold: float


# Uniform draws of all minimal actions, each held for long, keep the player of these games at a border.
# Freeway: the cars push the chicken back, so that it would hardly pass the middle of the road.
# Pong: the paddle crosses the screen in half a second. Fire does nothing.
# Laser Gates scrolls by itself. Fire opens gates, which a player that does not aim cannot do.
PLAYERS = {
    "freeway": Player(("noop", "up", "up", "down"), hold=0.6),
    "pong": Player(("noop", "right", "left"), hold=0.5),
    "laser_gates": Player(("noop", "up", "right", "left", "down"), hold=0.6),
}
HOLD = 0.75  # in all other games, in which all minimal actions are drawn equally often


class Game:
    """An Atari game from its start, one film frame at a time.

    Args:
        name: one of `ale_py.roms.get_all_rom_ids()`.

    Attributes:
        actions: the minimal actions by name, such as `noop` or `up_right_fire`.

    Raises:
        RecordError: ale-py is not installed, or has no such game.
    """

    def __init__(self, name: str):
        try:
            import ale_py  # here, so that its absence is one line
            from ale_py.roms import get_all_rom_ids, get_rom_path
        except ImportError:
            raise RecordError("ale-py, which has the games, is missing: pip install 'mini-genie[films]'") from None
        known = get_all_rom_ids()
        if name not in known:
            alike = ", ".join(difflib.get_close_matches(name, known)) or ", ".join(known)
            raise RecordError(f"ale-py has no game {name!r}; it has {alike}")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._emulator = ale_py.ALEInterface()
        self._emulator.setInt("random_seed", 0)
        self._emulator.setInt("frame_skip", 1)
        self._emulator.setFloat("repeat_action_probability", 0.0)
        self._emulator.loadROM(str(get_rom_path(name)))
        self.actions = {_spell(action.name): action for action in self._emulator.getMinimalActionSet()}

    @property
    def is_over(self) -> bool:
        return self._emulator.game_over()

    def step(self, action: str) -> np.ndarray:
        """Plays an action for one film frame, and returns the frame: `(210, 160, 3)` uint8 RGB."""
        shown = []
        for _ in range(EMULATOR_FRAMES):
            self._emulator.act(self.actions[action])
            shown.append(self._emulator.getScreenRGB())
        return np.maximum.reduce(shown)


def play(game: Game, player: Player, rng: np.random.Generator, num_frames: int) -> Iterator[tuple[np.ndarray, str]]:
    """Plays a game to its end.

    Args:
        game: at its start.
        player: who plays it.
        rng: source of its decisions.
        num_frames: maximum number of frames.

    Yields:
        A frame `(210, 160, 3)` uint8, and the action that leads from it to the next.
    """
    action = player.draws[0]
    for _ in range(IDLE_FRAMES):
        frame_HWC = game.step(action)
    for index in range(num_frames):
        if index % DECISION == 0 and rng.random() >= player.hold:
            action = str(rng.choice(player.draws))
        yield frame_HWC, action
        frame_HWC = game.step(action)
        if game.is_over:
            return


def record(name: str, minutes: float, out: Path, judge: Path, seed: int = 0) -> int:
    """Records films of a game until they last `minutes` together.

    Args:
        name: of the game, one of `ale_py.roms.get_all_rom_ids()`.
        minutes: of film.
        out: folder of the films, `NAME-00.mp4` and so on; must not exist, or be empty.
        judge: the same of their sidecars, `NAME-00.actions.csv` and so on.
        seed: of the player; the emulator is deterministic.

    Returns:
        Number of films.

    Raises:
        RecordError: as `Game`; or a folder holds something, or the minutes are too few for one frame.
    """
    for folder in (out, judge):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecordError(f"{folder} is there and not empty: remove it, or choose another folder")
    left, number = round(minutes * 60 * FRAMES_PER_SECOND), 0
    if left < 1:
        raise RecordError(f"{minutes} minutes hold no frame: record more")
    player = PLAYERS.get(name) or Player(tuple(Game(name).actions), HOLD)
    bar = progress(name=f"record {name}", total=left, unit="frame")
    with replacing_folder(out) as films, replacing_folder(judge) as sidecars, bar:
        while left:
            played = play(Game(name), player, np.random.default_rng((seed, number)), min(left, MAX_FRAMES))
            actions = []
            film = f"{name}-{number:02d}"
            write_film(films / f"{film}.mp4", _shown(played, actions, bar), FRAMES_PER_SECOND, CRF)
            write_sidecar(sidecars / f"{film}{SIDECAR}", actions)
            left, number = left - len(actions), number + 1
    return number


def _shown(played: Iterable[tuple[np.ndarray, str]], actions: list[str], bar: tqdm) -> Iterator[np.ndarray]:
    """Yields the film's frames, and appends their actions."""
    for frame_HWC, action in played:
        actions.append(action)
        bar.update()
        yield frame_HWC.repeat(HEIGHT_SCALE, axis=0).repeat(WIDTH_SCALE, axis=1)


def _spell(name: str) -> str:
    """Spells ale-py's name of an action, such as `UPRIGHTFIRE`, as `up_right_fire`."""
    return "_".join(re.findall("NOOP|UP|DOWN|LEFT|RIGHT|FIRE", name)).lower()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.record_films", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("game", metavar="GAME", help="name of a game of ale-py, such as freeway, pong or laser_gates")
    parser.add_argument("--minutes", type=float, default=10, help="minutes of film (default: 10)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the films")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the actions that were played")
    parser.add_argument("--seed", type=int, default=0, help="seed of the player (default: 0)")
    given = parser.parse_args()
    with faults_in_one_line("record_films"):
        number = record(given.game, given.minutes, given.out, given.judge, given.seed)
        print(f"{number} films in {given.out}, their actions in {given.judge}")


if __name__ == "__main__":
    main()

"""The transition of a split that is most typical of each latent action, to be shown as an example of it.

Legend: `B` candidates, `T` frames, `H W C` pixels, `N` frames of a split, `A` latent actions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.models.lam import LatentActionModel, SurpriseLam
from genie.world.controls import Button

NUM_CANDIDATES = 32  # of a latent action, spread over the split


def typical_transitions(
    lam: LatentActionModel, store: EpisodeStore, latent_actions: np.ndarray, buttons: Sequence[Button]
) -> list[int | None]:
    """First frame of the transition that is most typical of each latent action; None if there is none.

    Of some candidates, that is the one whose motion is closest to the button's mean motion, or the one whose change is
    the median where the LAM measures no motion.

    Args:
        lam: the latent action model.
        store: a split of N frames.
        latent_actions: `(N,)` latent actions inferred from the split, `NO_ACTION` at an episode's last frame.
        buttons: A buttons.

    Raises:
        WindowError: no episode holds a transition and the past that the LAM needs.
    """
    length = lam.history + 1
    lasts = window_starts(store.episode_starts, store.num_frames, length) + length - 2
    found = []
    for latent, button in enumerate(buttons):
        candidates_B = spread_starts(lasts[latent_actions[lasts] == latent], NUM_CANDIDATES)
        if len(candidates_B) == 0:
            found.append(None)
            continue
        frames_BTHWC = read_windows(store, candidates_B - (length - 2), length)
        if isinstance(lam, SurpriseLam) and button.motion is not None:
            strangeness_B = _distance(lam, frames_BTHWC, button.motion)
        else:
            change_B = np.abs(np.diff(frames_BTHWC[:, -2:].astype(np.int16), axis=1)).mean((1, 2, 3, 4))
            strangeness_B = np.abs(change_B - np.median(change_B))
        found.append(int(candidates_B[strangeness_B.argmin()]))
    return found


@torch.no_grad()
def _distance(lam: SurpriseLam, frames_BTHWC: np.ndarray, motion: tuple[float, float]) -> np.ndarray:
    """Pixels between the last motion of each clip and a motion, `(B,)`."""
    observed = lam.observe(torch.from_numpy(frames_BTHWC).to(next(lam.parameters()).device))
    moved_Bd = -observed["next_Md"][:, -1].cpu().numpy()  # with the sign of `Button.motion`
    return np.linalg.norm(moved_Bd - np.array(motion), axis=1)

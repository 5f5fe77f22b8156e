"""The latent action model: which of A actions took this frame to the next? (Genie, section 2.1).

Two kinds, `surprise` and `pixels`, the first of which tracks the agent where no camera follows it; one interface:

- `num_actions`, and `history`, the frames before the next one on which an inferred action depends;
- `forward(batch) -> (loss, metrics)`, for the training loop;
- `infer_actions(frames_BTHWC)`: latent actions `(B, T - 1)` int64 in [0, A) of uint8 frames `(B, T, H, W, 3)`; before
  the first frame the world stands still;
- a checkpoint rebuilds it alone, and its `fingerprint` ties latent actions to it.
"""

from genie.models.pixel_lam import PixelLam
from genie.models.surprise_lam import SurpriseLam
from genie.models.tracking_lam import TrackingLam

LatentActionModel = PixelLam | SurpriseLam | TrackingLam

"""The latent action model: infers which of A actions led from one frame to the next (Genie, section 2.1).

There are two kinds, `surprise` and `pixels`; `surprise` tracks the agent where no camera follows it. The interface:

- `num_actions`, and `history`, the frames before the next one on which an inferred action depends;
- `forward(batch) -> (loss, metrics)`, for the training loop;
- `infer_actions(frames_BTHWC)`: latent actions `(B, T - 1)` int64 in [0, A) of uint8 frames `(B, T, H, W, 3)`; the
  world is assumed to stand still before the first frame;
- a checkpoint is enough to rebuild it, and its `fingerprint` ties latent actions to it.
"""

from genie.models.pixel_lam import PixelLam
from genie.models.surprise_lam import SurpriseLam
from genie.models.tracking_lam import TrackingLam

LatentActionModel = PixelLam | SurpriseLam | TrackingLam

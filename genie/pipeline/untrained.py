"""What a stage that needs the true actions does where nobody recorded them, as with most films."""

import sys
from typing import Any

from genie.distributed.processes import rank
from genie.models.checkpoint import save_untrained
from genie.pipeline.outputs import write_curve, write_metrics


def leave_untrained(name: str, model_class: Any, without: str) -> None:
    """Writes the outs of a training stage that trains nothing, and says so in one line.

    Args:
        name: name of the model in metrics, curves and `data/models`.
        model_class: the model that is not trained.
        without: what later stages go without.
    """
    if rank() > 0:
        return
    print(
        f"train_{name}: the true actions are unknown, so nothing is trained; there will be {without}", file=sys.stderr
    )
    write_curve(name, [], columns=("step", "train_loss"))
    write_metrics(name, {})
    save_untrained(f"data/models/{name}", model_class, "the true actions are unknown")

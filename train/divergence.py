"""Training that diverged is refused where it shows: in the loss, in logits, in weights about to be saved.

Why weights too: a gradient that overflows ruins them in the step after the last finite loss, and a checkpoint of NaN
would replace the one that could still be used.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cache.errors import ConfigError


def diverged(what: str) -> ConfigError:
    """The error for a number that is NaN or infinite; `what` says which."""
    return ConfigError(
        f"{what}: training diverged. The checkpoint before is kept; lower train.optimizer.learning_rate and train "
        "into a new run directory"
    )


def check_finite_weights(state: Mapping[str, Tensor]) -> None:
    """Refuses weights that are NaN or infinite; names the first."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise diverged(f"the weights are NaN or infinite, first in {name}")


def check_finite_logits(logits: npt.NDArray[np.float32], split: str) -> None:
    """Refuses logits (n, C) that are NaN or infinite."""
    if not np.isfinite(logits).all():
        raise diverged(f"the model's logits of split {split!r} are NaN or infinite")

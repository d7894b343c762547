"""Which clips are drawn together: those of one subject, where the predictions know their subjects.

The decision to question: this is the default, because a person filmed thirty times is not thirty persons. With fewer
than five subjects each clip is drawn alone, and every report says which of the two it did: two persons tell next to
nothing about a third, but an interval of the clips at hand still says how far chance reaches.
"""

from cache.errors import ConfigError
from cache.predictions import Predictions
from evaluate.uncertainty import Resamples

AUTO = "auto"
"""The wish for subjects where they are known."""
SUBJECT = "subject"
FEWEST_SUBJECTS = 5


def cluster_of(predictions: Predictions, wish: str | None) -> str | None:
    """The group whose clips are drawn together; None for each clip alone.

    Args:
        predictions: of one split.
        wish: a group, None, or `AUTO`.

    Raises:
        ConfigError: the predictions do not know the group.
    """
    if wish == AUTO:
        return SUBJECT if num_known(predictions, SUBJECT) >= FEWEST_SUBJECTS else None
    if wish is not None and wish not in predictions.groups:
        raise ConfigError(f"cannot resample by {wish!r}: {predictions!r} knows the groups {sorted(predictions.groups)}")
    return wish


def num_known(predictions: Predictions, group: str) -> int:
    """How many values of a group the clips have, 0 where it is unknown."""
    return len(set(predictions.groups.get(group, ())) - {""})


def resamples_of(predictions: Predictions, *, cluster: str | None, num_resamples: int, seed: int) -> Resamples:
    """What to draw from these predictions: clips, or the clips of one group together.

    Args:
        predictions: of one split.
        cluster: a group, None for each clip alone, or `AUTO`.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: the predictions do not know the group.
    """
    clusters: list[tuple[str, str]] | None = None
    group = cluster_of(predictions, cluster)
    if group is not None:  # a clip of unknown group stands alone
        values = zip(predictions.groups[group], predictions.clip_ids, strict=True)
        clusters = [("known", value) if value else ("alone", clip_id) for value, clip_id in values]
    return Resamples(num_clips=len(predictions.clip_ids), clusters=clusters, count=num_resamples, seed=seed)

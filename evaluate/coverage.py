"""What a number leaves out, in lines beside it: clips, classes, and the order of tied scores.

The decision to question: the benchmark's own count comes from its manifest, not from a table here, and is compared
with what the manifest selects: a clip that was never listed is missing as much as one whose video cannot be read. Ties
have a line where they are more than one score in a thousand: of some thousand float32 scores a few are equal by
accident, while half precision, saturation or two classes of one text make many; `num_ties` counts all.
"""

from collections import Counter
from collections.abc import Mapping

from cache.predictions import Predictions

_ACCIDENTAL = 0.001


def coverage(predictions: Predictions) -> str:
    """Clips evaluated of clips listed, why the others were not, and what the benchmark has.

    Returns:
        For example '341 of 355 clips; left out: 12 for "frames: missing", 2 for "no label for task activity"', with
        "; the benchmark has 360" where it has not as many as are listed; empty where nothing was skipped and the
        benchmark has no more, or is of unknown size.
    """
    evaluated, official = len(predictions.clip_ids), predictions.num_official
    listed = evaluated + len(predictions.skipped)
    reasons = Counter(predictions.skipped.values()).most_common()
    left_out = ", ".join(f'{count} for "{reason}"' for reason, count in reasons)
    parts = [f"{evaluated} of {listed} clips; left out: {left_out}"] if reasons else []
    if official not in (None, listed):
        parts = [*(parts or [f"{evaluated} clips"]), f"the benchmark has {official}"]
    return "; ".join(parts)


def remarks(card: Mapping[str, float]) -> list[str]:
    """What to know of the means over classes and of ties, a line each; none where there is nothing to say.

    Args:
        card: of `evaluate.metrics.evaluate`.
    """
    clips, classes, dropped, ties = (
        round(card[name]) for name in ("num_clips", "num_classes", "num_classes_dropped", "num_ties")
    )
    lines = []
    if dropped:
        are = "has no clip and is" if dropped == 1 else "have no clip and are"
        lines.append(f"{dropped} of {classes} classes {are} left out of means over the classes")
    if ties > _ACCIDENTAL * clips * classes:
        are = "is" if ties == 1 else "are"
        lines.append(f"{ties} of {clips * classes} scores {are} tied; ties count by chance")
    return lines

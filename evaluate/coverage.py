"""On how many of the official clips a number stands, in one line beside it.

The decision to question: the benchmark's own count comes from its manifest, not from a table here, and is compared
with what the manifest selects: a clip that was never listed is missing as much as one whose video cannot be read.
"""

from collections import Counter

from cache.predictions import Predictions


def coverage(predictions: Predictions) -> str:
    """Clips evaluated of clips listed, why the others were not, and what the benchmark has.

    Returns:
        For example "341 of 355 clips (12 frames: missing, 2 no label for task activity); the benchmark has 355"; empty
        where nothing was skipped and the benchmark has no more, or is of unknown size.
    """
    evaluated, official = len(predictions.clip_ids), predictions.num_official
    listed = evaluated + len(predictions.skipped)
    if evaluated == listed and official in (None, listed):
        return ""
    text = f"{evaluated} clips"
    if evaluated < listed:
        reasons = Counter(predictions.skipped.values()).most_common()
        text = f"{evaluated} of {listed} clips ({', '.join(f'{count} {reason}' for reason, count in reasons)})"
    return text if official is None else f"{text}; the benchmark has {official}"

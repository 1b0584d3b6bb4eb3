"""Whether an encoder in training is lost: collapsed to a few codes, or saturated.

The bounds are far beyond those of `evaluate.illnesses`, which judge a finished encoder: a run is
stopped only where going on has never mended it.
"""

from collections.abc import Mapping

LARGEST_SHARE = 0.5
FEWEST_CODES = 0.02
MOST_EXTREME = 0.3


def sickness(figures: Mapping[str, float]) -> str | None:
    """One clause with the figure that tells that an encoder is lost, or None. `figures` are those
    of `EncoderTask.validate`."""
    codes, frames = figures["real/codes_in_use"], figures["real/frames"]
    largest, extreme = figures["real/largest_share"], figures["real/extreme"]
    if largest > LARGEST_SHARE:
        return (
            f"the encoder has collapsed: one semantic code has {100 * largest:.0f} % of the frames "
            f"of real speech (more than {100 * LARGEST_SHARE:.0f} %)"
        )
    if codes < max(2.0, FEWEST_CODES * frames):
        return (
            f"the encoder has collapsed: {codes:.0f} semantic codes are in use in {frames:.0f} "
            f"frames of real speech (fewer than {100 * FEWEST_CODES:.0f} %)"
        )
    if extreme > MOST_EXTREME:
        return (
            f"the encoder has saturated: {100 * extreme:.0f} % of the acoustic levels of real "
            f"speech lie at either end (more than {100 * MOST_EXTREME:.0f} %)"
        )
    return None

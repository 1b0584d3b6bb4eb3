"""What speech must be to be trained on: rules that `data validate` and training have in common."""

MISSING_SHARE = 0.05
"""Of the clips, so many may be missing, or be no sound, and are left out of training."""


def too_many(bad: int, clips: int, share: float = MISSING_SHARE) -> bool:
    """Whether `bad` are more than that share of all clips, so that the others are not trained on
    without them."""
    return bad > share * clips


def too_few(speakers: int) -> str | None:
    """Why speech of so many speakers must not be trained on; None where it may be."""
    if speakers > 1:
        return None
    return "An encoder of one voice is an encoder of no other."

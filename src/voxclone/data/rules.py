"""Rules for training speech that `data validate` and `train encoder` share."""

MISSING_SHARE = 0.05
"""Of the clips, which may be missing or undecodable; they are left out of training."""


def too_many(bad: int, clips: int, share: float = MISSING_SHARE) -> bool:
    """Whether `bad` is more than that share of all clips."""
    return bad > share * clips


def too_few(speakers: int) -> str | None:
    """Why an encoder must not be trained on so many speakers; None where it may be."""
    return None if speakers > 1 else "An encoder of one voice cannot encode others."

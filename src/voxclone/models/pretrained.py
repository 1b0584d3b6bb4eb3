"""Networks of transformers, with failures to load them as sentences."""

from typing import Any

from voxclone.errors import MissingExtraError, VoxcloneError


def load_pretrained(kind: str, source: str, purpose: str) -> Any:
    """`transformers.<kind>.from_pretrained(source)`, with failures as sentences.

    Raises MissingExtraError without transformers, VoxcloneError if `source` cannot be loaded.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "speech", purpose) from None
    try:
        return getattr(transformers, kind).from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VoxcloneError(f"{purpose} cannot load {source!r}: {reason}") from None

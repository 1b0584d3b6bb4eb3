"""What third-party networks share: loading with failures as sentences, and input at 16 kHz.

Shapes: S samples at 24 kHz, R samples at 16 kHz.
"""

from typing import Any

from torch import Tensor

from voxclone.audio.loudness import check_wave
from voxclone.audio.resample import to_16k
from voxclone.errors import MissingExtraError, VoxcloneError


def load_pretrained(kind: str, source: str, purpose: str) -> Any:
    """`transformers.<kind>.from_pretrained(source)`.

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


def clip_at_16k(wave_S: Tensor) -> Tensor:
    """One clip [S] as float32 [R] on the CPU. Raises AudioError (empty, silent, not finite)."""
    check_wave(wave_S)
    return to_16k(wave_S[None].detach().float().cpu())[0]

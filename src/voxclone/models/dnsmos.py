"""How good speech sounds, as listeners would say: DNSMOS (arXiv 2110.01763), 1 to 5.

The networks are those of the package speechmos. They hear 9 s at 16 kHz; a shorter clip is repeated
and a longer one is heard in steps of a second. Made for noise suppression, they judge noise and
distortion and not likeness.

Shapes: S samples.
"""

from typing import Protocol

from torch import Tensor

from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.errors import MissingExtraError


class Listener(Protocol):
    """Rates a clip on scales of 1 to 5."""

    name: str

    def rate(self, wave_S: Tensor) -> dict[str, float]:
        """Ratings by scale of a clip at 24 kHz."""
        ...


class DnsmosListener:
    """DNSMOS P.835 (`overall`, `speech`, `background`) and P.808 (`p808`)."""

    name = "dnsmos"

    def rate(self, wave_S: Tensor) -> dict[str, float]:
        """Raises MissingExtraError without speechmos, onnxruntime or librosa."""
        try:
            from speechmos import dnsmos
        except ImportError as error:
            raise MissingExtraError(error.name or "speechmos", "eval", "DNSMOS") from None
        samples = to_16k(wave_S[None])[0].clamp(-1, 1).cpu().numpy()
        made = dnsmos.run(samples, MODEL_RATE)
        return {
            "overall": float(made["ovrl_mos"]),
            "speech": float(made["sig_mos"]),
            "background": float(made["bak_mos"]),
            "p808": float(made["p808_mos"]),
        }

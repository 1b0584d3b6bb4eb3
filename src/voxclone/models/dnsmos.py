"""DNSMOS (arXiv 2110.01763): predicted mean opinion scores of speech quality, 1 to 5.

The networks come from the package speechmos. Their input is 9 s at 16 kHz: shorter clips are
repeated, longer ones are scored in steps of a second. They were trained for noise suppression, so
they measure noise and distortion and not speaker similarity.

Shapes: S samples.
"""

from typing import Protocol

from torch import Tensor

from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.errors import MissingExtraError


class MosPredictor(Protocol):
    """A network that predicts mean opinion scores of 1 to 5."""

    name: str

    def predict(self, wave_S: Tensor) -> dict[str, float]:
        """Scores by scale of a clip [S] at 24 kHz."""
        ...


class Dnsmos:
    """DNSMOS P.835 (`overall`, `speech`, `background`) and P.808 (`p808`)."""

    name = "dnsmos"

    def predict(self, wave_S: Tensor) -> dict[str, float]:
        """Scores by scale. Raises MissingExtraError without speechmos, onnxruntime or librosa."""
        try:
            from speechmos import dnsmos
        except ImportError as error:
            raise MissingExtraError(error.name or "speechmos", "eval", "DNSMOS") from None
        samples = to_16k(wave_S[None])[0].clamp(-1, 1).cpu().numpy()
        scores = dnsmos.run(samples, MODEL_RATE)
        return {
            "overall": float(scores["ovrl_mos"]),
            "speech": float(scores["sig_mos"]),
            "background": float(scores["bak_mos"]),
            "p808": float(scores["p808_mos"]),
        }

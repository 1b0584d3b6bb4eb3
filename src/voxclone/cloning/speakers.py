"""Speaker consistency: a hint of several speakers in a reference, by the packaged speaker encoder.

Windows of 1.6 s are clustered into their two most different groups, and the result is the cosine
of these. It was measured on clips of 12 s of 175 speakers in several languages: 100 of one speaker,
and 100 of two, 6 s each. Below 0.74 are 3 % of the clips of one speaker and 90 % of those of two
(88 % for two of one sex).

Shapes: S samples at 24 kHz, R samples at 16 kHz, W windows, E embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.errors import AudioError
from voxclone.models.speaker_encoder import HOP, PARTIAL_FRAMES, Ge2eEmbedder, preprocess_wave

WINDOW = PARTIAL_FRAMES * HOP
LEAST_WINDOWS = 5
LEAST_SHARE = 0.2  # a group of fewer windows is a cough or a laugh
ROUNDS = 10


@torch.no_grad()
def speaker_consistency(wave_S: Tensor) -> float | None:
    """Cosine between the two most different groups of windows of a clip [S]; 1 if there are no two
    groups, None for less than about 5 s of speech."""
    try:
        speech_R = preprocess_wave(normalize_loudness(wave_S))
    except AudioError:
        return None
    starts = range(0, len(speech_R) - WINDOW + 1, WINDOW // 2)
    if len(starts) < LEAST_WINDOWS:
        return None
    windows_WR = torch.stack([speech_R[start : start + WINDOW] for start in starts])
    return _cluster_cosine(Ge2eEmbedder.load().embed_windows(windows_WR))


def _cluster_cosine(embedded_WE: Tensor) -> float:
    """Two groups by spherical k-means from the sign of the first principal direction."""
    centered_WE = embedded_WE - embedded_WE.mean(dim=0)
    first_W = centered_WE @ torch.linalg.svd(centered_WE, full_matrices=False).Vh[0] > 0
    centers = torch.ones(2, 1)
    for _ in range(ROUNDS):
        least = min(int(first_W.sum()), int((~first_W).sum()))
        if least < LEAST_SHARE * len(embedded_WE):
            return 1.0
        means = torch.stack([embedded_WE[first_W].mean(dim=0), embedded_WE[~first_W].mean(dim=0)])
        centers = F.normalize(means, dim=-1)
        nearer_W = embedded_WE @ centers[0] > embedded_WE @ centers[1]
        if torch.equal(nearer_W, first_W):
            break
        first_W = nearer_W
    return float(centers[0] @ centers[1])

"""Decoding a clip in overlapping pieces, all at once, with the result of decoding it whole.

The decoder sees `decoder_history` frames (21 in the release) before a sample's own, so a piece that
begins so much earlier gives the same samples. Unlike `codec.streaming`, which keeps the past and
goes on, the pieces form a batch, and gradients reach every frame that a sample depends on.

Shapes: B pieces, D latent width, T frames, P frames of a piece, S samples.
"""

import torch
from torch import Tensor

from voxclone.codec.model import Decoder


def decode_in_pieces(decoder: Decoder, latent_DT: Tensor, piece: int) -> Tensor:
    """Waveform [S] of a quantized latent [D, T]; clips up to `piece` frames are decoded whole."""
    frames = latent_DT.shape[1]
    history = decoder.config.decoder_history
    if frames <= piece + history:
        return decoder(latent_DT[None])[0].float()
    # The first piece has nothing before it and is used whole; the others begin with history.
    starts = list(range(0, frames - piece - history, piece))
    starts.append(frames - piece - history)
    latent_BDP = torch.stack([latent_DT[:, s : s + piece + history] for s in starts])
    wave_BS = decoder(latent_BDP).float()
    size = decoder.config.frame_size
    parts = [wave_BS[0]]
    done = piece + history
    for wave_S, start in zip(wave_BS[1:], starts[1:], strict=True):
        parts.append(wave_S[(done - start) * size :])
        done = start + piece + history
    return torch.cat(parts)

"""Codes of a whole corpus, kept in a file: what a language model is trained on.

Every clip is encoded in several *variants*: played slower or faster, or with another colour (both
make other voices of the same speech), and started a part of a frame later (which gives other codes
for the same sound). With so little speech, this is most of what there is to learn from.

Shapes: S samples, K code books, T frames, U frames of all clips of a variant.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.io import atomic_file
from voxclone.spec import SAMPLING_RATE

COLOUR_DB = 4.0
"""Spread of a colour's gains: as rooms and microphones differ."""


@dataclass(frozen=True)
class Variant:
    """`speed` 1.1 is a tenth faster and higher; `delay` is the part of a frame cut off in front;
    `colour` (0: none) is a number that with the speaker's name draws a filter."""

    speed: float
    delay: float
    colour: int = 0

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.speed:g}-{self.delay:g}" + (f"-{self.colour}" if self.colour else "")


@dataclass(frozen=True)
class CodeBank:
    """Codes [U, K] of each variant, and where each clip's begin (the end comes last)."""

    variants: list[Variant]
    codes: list[np.ndarray]
    starts: list[np.ndarray]

    def clip(self, variant: int, index: int) -> Tensor:
        """Codes [T, K] of a clip (int64)."""
        start, end = self.starts[variant][index : index + 2]
        return torch.from_numpy(self.codes[variant][start:end].astype(np.int64))


def variants_of(
    speeds: Sequence[float], delays: Sequence[float], coloured: Sequence[float] = ()
) -> list[Variant]:
    """Every delay of every speed, then the `coloured` speeds, each with a colour of its own; the
    first is the speech as it is."""
    plain = [Variant(speed, delay) for speed in speeds for delay in delays]
    return plain + [Variant(speed, 0.0, 1 + n) for n, speed in enumerate(coloured)]


def encode_corpus(
    codec: Codec,
    corpus: Corpus,
    indices: Sequence[int],
    variants: Sequence[Variant],
    folder: Path,
    track: Callable[[Iterable[Variant]], Iterable[Variant]] = iter,
) -> CodeBank:
    """Encode the clips of `indices` (others stay empty) into `folder`, one file for each variant;
    files that are there already are used."""
    encoder = codec.require_encoder()
    state = encoder.state_dict()
    digest = hashlib.sha256(b"".join(state[k].cpu().numpy().tobytes() for k in sorted(state)))
    digest.update(json.dumps(list(indices)).encode())
    codes, starts = [], []
    for variant in track(variants):
        path = folder / f"codes-{digest.hexdigest()[:12]}-{variant.name}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            made = _encode_variant(codec, corpus, indices, variant)
            with atomic_file(path) as file:
                np.savez(file, codes=made[0], starts=made[1])
        with np.load(path, allow_pickle=False) as stored:
            codes.append(stored["codes"])
            starts.append(stored["starts"])
    return CodeBank(list(variants), codes, starts)


def random_equalizer(
    wave_BS: Tensor, spread_db: float, generator: torch.Generator, rate: int, knots: int = 10
) -> Tensor:
    """One smooth random filter for the batch: normal gains in dB at `knots` points of the mel
    scale, linear between them. The level of each item stays. The speech gets another timbre."""
    samples = wave_BS.shape[1]
    hertz_F = torch.fft.rfftfreq(samples, 1 / rate)
    knot_F = torch.log10(1 + hertz_F / 700) / math.log10(1 + rate / 2 / 700) * (knots - 1)
    gain_M = spread_db * torch.randn(knots, generator=generator)
    left_F = knot_F.floor().long().clamp(max=knots - 2)
    between_F = knot_F - left_F
    gain_F = gain_M[left_F] * (1 - between_F) + gain_M[left_F + 1] * between_F
    factor_F = (10 ** (gain_F / 20)).to(wave_BS.device)
    filtered_BS = torch.fft.irfft(torch.fft.rfft(wave_BS.float()) * factor_F, samples)
    before_B1, after_B1 = (x.square().mean(-1, keepdim=True) for x in (wave_BS, filtered_BS))
    return filtered_BS * ((before_B1 + 1e-8) / (after_B1 + 1e-8)).sqrt()


def varied_wave(wave_S: Tensor, speaker: str, variant: Variant, codec: Codec) -> Tensor:
    """The samples of a speaker's clip in one variant, as many as fill whole frames."""
    if variant.colour:
        seed = hashlib.sha256(f"{variant.colour}/{speaker}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(seed, "little") % 2**63)
        wave_S = random_equalizer(wave_S[None], COLOUR_DB, generator, codec.sampling_rate)[0]
    if variant.speed != 1.0:
        slower = soxr.resample(
            wave_S.numpy(), codec.sampling_rate, codec.sampling_rate / variant.speed
        )
        wave_S = torch.from_numpy(slower)
    wave_S = wave_S[round(variant.delay * codec.frame_size) :]
    return wave_S[: len(wave_S) // codec.frame_size * codec.frame_size]


def _encode_variant(
    codec: Codec, corpus: Corpus, indices: Sequence[int], variant: Variant
) -> tuple[np.ndarray, np.ndarray]:
    device = next(codec.parameters()).device
    rows: dict[int, np.ndarray] = {}
    for batch in _batches(corpus, indices, seconds=120):
        waves = [
            varied_wave(corpus.wave(i), corpus.clips[i].speaker, variant, codec) for i in batch
        ]
        longest = max(len(wave) for wave in waves)
        padded = torch.stack([torch.nn.functional.pad(w, (0, longest - len(w))) for w in waves])
        with torch.inference_mode():
            codes_BKT = codec.encode(padded.to(device)).cpu()
        for index, wave, codes_KT in zip(batch, waves, codes_BKT, strict=True):
            frames = len(wave) // codec.frame_size
            rows[index] = codes_KT[:, :frames].T.numpy().astype(np.int16)
    empty = np.zeros((0, codec.num_codebooks), dtype=np.int16)
    ordered = [rows.get(index, empty) for index in range(len(corpus))]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ordered])])
    return np.concatenate(ordered), starts


def _batches(corpus: Corpus, indices: Sequence[int], seconds: float) -> Iterable[list[int]]:
    batch: list[int] = []
    for index in sorted(indices, key=corpus.length):
        if batch and corpus.length(index) * (len(batch) + 1) > seconds * SAMPLING_RATE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

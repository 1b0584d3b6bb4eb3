"""How an encoder in training is doing, on nothing but the release and some speech: metrics of a
validation, whether it has collapsed, and which encoder of a run is kept as the best.

The bounds of a collapse are far beyond those of `evaluate.checks`, for a finished encoder: a run is
stopped only where more steps have never mended it.

No single cheap metric predicts the quality of cloned speech (docs/LOG.md, 2026-11-26): speaker
similarity follows the levels, words and endings the semantic codes, and a choice by one of them
alone gives an encoder that is bad in the other. So an encoder replaces the one that was kept only
if

- *neither* metric is worse than the best of that metric among all that were kept, by more than a
  slack for its noise (so many small losses cannot add up), and
- both together, each in units of its slack, are better than those of the one that is kept.

Shapes: B batch, S samples, K codebooks, T frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from voxclone.audio.distance import mel_loss
from voxclone.codec.model import Codec
from voxclone.evaluate.agreement import agreement
from voxclone.train.logging import Log

LEVELS, SEMANTIC = "preset/within_one", "preset/semantic"
"""The metrics that choose: shares of the held-out presets' codes."""
SLACK = 0.01
LARGEST_SHARE = 0.5
FEWEST_CODES = 0.02
MOST_EXTREME = 0.3


def preset_metrics(codec: Codec, presets: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the codes [K, T] of presets, decoded and encoded again: shares that are right."""
    device = codec.device
    results = []
    for codes_KT in presets.values():
        wave_BS = codec.decode(codes_KT[None].to(device))
        results.append(agreement(codes_KT, codec.encode(wave_BS)[0].cpu()))
    return {
        SEMANTIC: sum(r.semantic for r in results) / len(results),
        "preset/exact": sum(r.exact for r in results) / len(results),
        LEVELS: sum(r.within_one for r in results) / len(results),
    }


@dataclass(frozen=True)
class SpeechCheck:
    """Metrics of real speech [B, S], its codes [B, K, T], and what they are decoded to [B, S]."""

    metrics: dict[str, float]
    wave_BS: Tensor
    codes_BKT: Tensor
    decoded_BS: Tensor


def check_speech(codec: Codec, wave_BS: Tensor) -> SpeechCheck:
    """What an encoder makes of real speech [B, S]."""
    codes_BKT = codec.encode(wave_BS)
    decoded_BS = codec.decode(codes_BKT)[:, : wave_BS.shape[-1]]
    semantic_N, levels = codes_BKT[:, 0].flatten(), codes_BKT[:, 1:]
    counts = semantic_N.unique(return_counts=True)[1]
    top = codec.quantizer.levels - 1
    metrics = {
        "real/mel": float(mel_loss(decoded_BS, wave_BS)),
        "real/codes_in_use": float(len(counts)),
        "real/frames": float(len(semantic_N)),
        "real/largest_share": float(counts.max()) / len(semantic_N),
        "real/extreme": float(((levels == 0) | (levels == top)).float().mean()),
    }
    return SpeechCheck(metrics, wave_BS, codes_BKT, decoded_BS)


def log_speech(check: SpeechCheck, codec: Codec, step: int, log: Log) -> None:
    """The first recording and what became of it, as audio and spectrograms; the codes of all."""
    log.audio(step, "real/recording", check.wave_BS[0])
    log.audio(step, "real/decoded", check.decoded_BS[0])
    log_codes(check.codes_BKT, codec, "real", step, log)


def log_codes(codes_BKT: Tensor, codec: Codec, group: str, step: int, log: Log) -> None:
    """Which semantic codes, and which levels of all channels together, are in use."""
    sizes = codec.config.semantic_codebook_size, codec.quantizer.levels
    log.codes(step, f"{group}/semantic_codes", codes_BKT[:, 0].flatten(), sizes[0])
    log.codes(step, f"{group}/levels", codes_BKT[:, 1:].flatten(), sizes[1])


def collapse(metrics: Mapping[str, float]) -> str | None:
    """One clause with the metric that says that an encoder has collapsed to a few codes or is
    saturated, or None. `metrics` are those of a validation."""
    codes, frames = metrics["real/codes_in_use"], metrics["real/frames"]
    largest, extreme = metrics["real/largest_share"], metrics["real/extreme"]
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


def choose_best(
    best: Mapping[str, Any] | None, metrics: Mapping[str, float], step: int
) -> dict[str, Any]:
    """What is known of the best encoder (JSON values) after one with these metrics: `step` tells
    which it is, `scores` are its own, `tops` the highest of each metric that was ever kept."""
    scores = {name: metrics[name] for name in (LEVELS, SEMANTIC)}
    if best is None:
        return {"step": step, "scores": scores, "tops": dict(scores)}
    no_worse = all(scores[name] >= best["tops"][name] - SLACK for name in scores)
    gain = sum((scores[name] - best["scores"][name]) / SLACK for name in scores)
    if not no_worse or gain <= 0:
        return dict(best)
    tops = {name: max(scores[name], best["tops"][name]) for name in scores}
    return {"step": step, "scores": scores, "tops": tops}

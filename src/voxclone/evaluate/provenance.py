"""Check of an encoder without provenance before it is injected: how were its latents bounded?

A weight file does not contain what its trainer computed after the last layer. The trainer of the
community's `best_encoder.pt` bounds acoustic latents by tanh(0.3 z) before the quantizer's own
tanh. A runtime applies only the latter and gets other codes, mostly saturated. The presets settle
it: their known codes are decoded and encoded again with each known activation, and the right one
comes nearest to the known codes.

Shapes: K codebooks, C acoustic channels, T frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.evaluate.agreement import Agreement, agreements, chance_agreements, mean_agreement
from voxclone.evaluate.checks import FailedCheck, saturation
from voxclone.evaluate.levels import LevelStats, level_stats
from voxclone.release.release import Release, preset_names
from voxclone.voice.presets import preset_inversions

RUNTIME = "one tanh"
# Gains before a first tanh; the quantizer's own comes after it.
EXTRA_TANH = {"tanh of tanh(0.3 z)": 0.3, "tanh of tanh(z)": 1.0}
CLEARLY_BETTER = 0.7
MAX_PRESETS = 6


@dataclass(frozen=True)
class PresetReencoding:
    """Agreement with the presets' codes by activation, beside that of another preset's codes
    (`chance`). `constant_error` is the level error of each channel's median level. Levels are those
    with the activation of runtimes."""

    presets: tuple[str, ...]
    by_activation: dict[str, Agreement]
    chance: Agreement
    constant_error: float
    levels: LevelStats
    preset_levels: LevelStats

    @property
    def best(self) -> str:
        """The activation whose levels come nearest to the presets'."""
        return min(self.by_activation, key=lambda name: self.by_activation[name].level_error)


@torch.inference_mode()
def reencode_presets(release: Release, codec: Codec) -> PresetReencoding:
    """Decode and encode some presets of the release, with every known activation.

    Raises ReleaseError if fewer than two presets can be inverted to codes.
    """
    codec.require_encoder()
    names = preset_names(release)[:: max(1, len(release.params.voices) // MAX_PRESETS)][
        :MAX_PRESETS
    ]
    known = {
        name: each.codes_KT
        for name, each in preset_inversions(release, names).items()
        if each.codes_KT.shape[1] and bool(each.exact_T.float().mean() > 0.5)
    }
    if len(known) < 2:
        raise ReleaseError(
            f"The presets of {release.path} cannot be inverted to codes, so that an encoder cannot "
            "be compared with them."
        )
    truth = list(known.values())
    encoded = [_encode_again(codec, codes_KT) for codes_KT in truth]
    levels_CT = torch.cat(truth, dim=1)[1:].float()
    median_C1 = levels_CT.median(dim=1, keepdim=True).values
    return PresetReencoding(
        presets=tuple(known),
        by_activation={
            name: mean_agreement(agreements(truth, [each[name] for each in encoded]))
            for name in (RUNTIME, *EXTRA_TANH)
        },
        chance=mean_agreement(chance_agreements(truth)),
        constant_error=float((levels_CT - median_C1).abs().mean()),
        levels=level_stats([each[RUNTIME] for each in encoded], codec.quantizer.levels),
        preset_levels=level_stats(truth, codec.quantizer.levels),
    )


def failed_checks(found: PresetReencoding) -> list[FailedCheck]:
    """Checks that an encoder without provenance fails."""
    runtime, best = found.by_activation[RUNTIME], found.by_activation[found.best]
    failed: list[FailedCheck | None] = []
    if best.level_error < CLEARLY_BETTER * runtime.level_error:
        failed.append(
            FailedCheck(
                "double tanh",
                f"It was trained with a tanh of its own before the quantizer's ({found.best}); "
                "runtimes apply only the quantizer's and get other codes.",
                f"level error on presets {runtime.level_error:.1f} in a runtime, "
                f"{best.level_error:.1f} as trained",
                "Train one without that tanh (`voxclone train encoder`).",
            )
        )
    elif runtime.level_error >= found.constant_error:
        failed.append(
            FailedCheck(
                "mismatched encoder",
                "Its levels of decoded presets are no nearer to the true ones than the median "
                "levels of the channels.",
                f"level error on presets {runtime.level_error:.1f}, of medians "
                f"{found.constant_error:.1f}",
                "It was made for another release, or not trained: train one for this release.",
            )
        )
    failed.append(saturation(found.levels.extreme, found.preset_levels.extreme))
    return [each for each in failed if each is not None]


def _encode_again(codec: Codec, codes_KT: Tensor) -> Mapping[str, Tensor]:
    """Codes [K, T] of a preset, decoded and encoded again, by activation."""
    latent_1DT = codec.latents(codec.decode(codes_KT[None]))
    semantic_1DT, acoustic_1CT = codec.quantizer.split(latent_1DT)
    codes = {RUNTIME: codec.quantizer.encode(latent_1DT)[0]}
    for name, gain in EXTRA_TANH.items():
        bounded_1DT = torch.cat([semantic_1DT, torch.tanh(gain * acoustic_1CT)], dim=1)
        codes[name] = codec.quantizer.encode(bounded_1DT)[0]
    return codes

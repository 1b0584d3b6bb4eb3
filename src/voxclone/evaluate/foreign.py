"""An encoder of unknown making, examined before it is injected: is it read as it was trained?

A file of weights does not tell what its trainer computed after them. The trainer of the community's
`best_encoder.pt` bounds acoustic latents by tanh(0.3 z) before the quantizer applies its own tanh
(spec/recipe C.2): no weight shows it, and a runtime, which has the one tanh, gets other codes from
them, mostly at the ends. What settles it are the presets: their codes are known, so they are
decoded, encoded again, and read in each way; the right reading comes nearest to the known codes.

Shapes: K code books, C acoustic channels, T frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.evaluate.agreement import Agreement, agreement, mean_agreement
from voxclone.evaluate.checks import SATURATED, Finding
from voxclone.evaluate.levels import LevelFigures, level_figures
from voxclone.release.release import Release, preset_names
from voxclone.voice.presets import preset_inversions

RUNTIME = "one tanh"
# Gains that are known before a first tanh; the quantizer's own comes after it.
EXTRA_TANH = {"tanh of tanh(0.3 z)": 0.3, "tanh of tanh(z)": 1.0}
CLEARLY = 0.7
MOST_PRESETS = 6


@dataclass(frozen=True)
class Examination:
    """Agreement with the presets' codes for each reading of the acoustic latents, beside that of
    another preset's codes (`chance`); `deaf` is the error of levels that are always the middle
    ones of their channels. Levels as a runtime reads them, and genuine ones."""

    presets: tuple[str, ...]
    readings: dict[str, Agreement]
    chance: Agreement
    deaf: float
    levels: LevelFigures
    genuine: LevelFigures

    @property
    def best(self) -> str:
        """The reading whose levels come nearest to the presets'."""
        return min(self.readings, key=lambda name: self.readings[name].level_error)


@torch.inference_mode()
def examine(release: Release, codec: Codec, most: int = MOST_PRESETS) -> Examination:
    """Read an encoder in every known way on some presets of the release.

    Raises ReleaseError if fewer than two presets can be turned back to codes.
    """
    codec.require_encoder()
    names = preset_names(release)[:: max(1, len(release.params.voices) // most)][:most]
    found = {
        name: each.codes_KT
        for name, each in preset_inversions(release, names).items()
        if each.codes_KT.shape[1] and bool(each.exact_T.float().mean() > 0.5)
    }
    if len(found) < 2:
        raise ReleaseError(
            f"The presets of {release.path} cannot be turned back to codes, so that an encoder "
            "cannot be compared with them."
        )
    read: dict[str, list[Tensor]] = {}
    for codes_KT in found.values():
        for reading, again_KT in _readings(codec, codes_KT).items():
            read.setdefault(reading, []).append(again_KT)
    genuine = list(found.values())
    others = [*genuine[1:], genuine[0]]
    levels_CT = torch.cat(genuine, dim=1)[1:].float()
    middle_C1 = levels_CT.median(dim=1, keepdim=True).values
    return Examination(
        presets=tuple(found),
        readings={
            reading: mean_agreement([agreement(a, b) for a, b in zip(genuine, codes, strict=True)])
            for reading, codes in read.items()
        },
        chance=mean_agreement([agreement(a, b) for a, b in zip(genuine, others, strict=True)]),
        deaf=float((levels_CT - middle_C1).abs().mean()),
        levels=level_figures(read[RUNTIME], codec.quantizer.levels),
        genuine=level_figures(genuine, codec.quantizer.levels),
    )


def findings(found: Examination) -> list[Finding]:
    """What is wrong with an encoder of unknown making, if anything."""
    runtime, best = found.readings[RUNTIME], found.readings[found.best]
    made: list[Finding] = []
    if best.level_error < CLEARLY * runtime.level_error:
        made.append(
            Finding(
                "double tanh",
                f"It was trained with a tanh of its own before the quantizer's ({found.best}); "
                "runtimes apply the quantizer's alone and get other codes.",
                f"levels {runtime.level_error:.1f} beside the presets' as a runtime reads them, "
                f"{best.level_error:.1f} as they were trained",
                "Train one without that tanh (`voxclone train encoder`).",
            )
        )
    elif runtime.level_error >= found.deaf:
        made.append(
            Finding(
                "deaf",
                "It gives presets that were decoded levels no nearer to their own than the middle "
                "levels of each channel are.",
                f"levels {runtime.level_error:.1f} beside the presets', the middle ones "
                f"{found.deaf:.1f}",
                "It was made for another release, or not trained: train one for this release.",
            )
        )
    if found.levels.extreme > max(SATURATED, 3 * found.genuine.extreme):
        made.append(
            Finding(
                "saturation",
                "Acoustic levels are driven to the ends of their range, where genuine ones hardly "
                "are.",
                f"{100 * found.levels.extreme:.1f} % of levels at either end, presets "
                f"{100 * found.genuine.extreme:.1f} %",
                "See `voxclone diagnose` with speech of your own.",
            )
        )
    return made


def _readings(codec: Codec, codes_KT: Tensor) -> Mapping[str, Tensor]:
    """Codes [K, T] of a preset that was decoded and encoded again, by way of reading."""
    latent_1DT = codec.latents(codec.decode(codes_KT[None]))
    semantic_1DT, acoustic_1CT = codec.quantizer.split(latent_1DT)
    read = {RUNTIME: codec.quantizer.encode(latent_1DT)[0]}
    for name, gain in EXTRA_TANH.items():
        bounded_1DT = torch.cat([semantic_1DT, torch.tanh(gain * acoustic_1CT)], dim=1)
        read[name] = codec.quantizer.encode(bounded_1DT)[0]
    return read

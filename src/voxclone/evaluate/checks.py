"""Checks of an encoder for its known failures, as functions of a diagnosis.

Everybody who tried to restore this encoder met some of them. Each failed check gives its metric and
its bound, so that a reader can disagree. Bounds are relative to what the release itself shows
(prior, presets, its own speech) wherever it shows that.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from voxclone.codec.model import Codec
from voxclone.evaluate.diagnosis import Diagnosis, diagnose
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.speechset import SpeechSet
from voxclone.release.release import Release
from voxclone.tts.tts import TTS

COLLAPSED_PERPLEXITY = 0.1  # of the prior's
NORM_RATIO = 2.0
EXTREME_SHARE = 0.05
MIN_OUTER_LEVELS = 20  # expected ones: of fewer, none may be chance
MEAN_SHIFT = 1.5
MAHALANOBIS = 1.5
LEVEL_DB = 4.0
BATCH_EXACT = 0.99
BF16_WITHIN_ONE = 0.97
BF16_SEMANTIC = 0.75
GAIN_SHARE = 0.2  # of the gain of generated speech


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed: its name, what that means, what was measured, and the remedy."""

    name: str
    meaning: str
    measured: str
    remedy: str


@dataclass(frozen=True)
class CheckResults:
    """Failed checks, and the names of those that could not be made."""

    failed: list[FailedCheck]
    skipped: list[str]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def summary(self) -> str:
        """One sentence or two."""
        if self.failed:
            return f"Failed: {', '.join(each.name for each in self.failed)}."
        skipped = f" Skipped: {', '.join(self.skipped)}." if self.skipped else ""
        return f"All checks passed.{skipped}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"passed": self.passed, "summary": self.summary}


def checked_diagnosis(
    release: Release,
    codec: Codec,
    speech: SpeechSet,
    *,
    names: tuple[str, str],
    model: TTS | None,
    track: Track = untracked,
) -> dict[str, Any]:
    """The report of `diagnose` on the encoder of `codec`: measurements and checks, as JSON values.
    `names` are those of the release and of the encoder; the rest is as in `diagnosis.diagnose`."""
    result = diagnose(release, codec, speech, encoder=names[1], model=model, track=track)
    return result.to_json() | {"release": names[0], "checks": run_checks(result).to_json()}


def run_checks(diagnosis: Diagnosis) -> CheckResults:
    """All checks of an encoder."""
    checks = (
        check_collapse, check_saturation, check_double_tanh, check_channel_offsets,
        check_level_distribution, check_level_difference, check_end_embeddings, check_batching,
        check_bf16, check_semantic_codes, check_conditioning,
    )  # fmt: skip
    failed = [found for check in checks if (found := check(diagnosis)) is not None]
    skipped = []
    if diagnosis.levels.mahalanobis is None:
        skipped.append("off-distribution levels (too few preset frames)")
    if diagnosis.language_model is None or diagnosis.language_model.conditioning_gain is None:
        skipped.append("conditioning gain")
    return CheckResults(failed, skipped)


def check_collapse(diagnosis: Diagnosis) -> FailedCheck | None:
    """The perplexity of semantic codes, against as many draws from the prior."""
    codes = diagnosis.semantic_codes
    if codes.perplexity >= COLLAPSED_PERPLEXITY * codes.expected_perplexity:
        return None
    measured = (
        f"perplexity {codes.perplexity:.1f}, for as many frames of the prior "
        f"{codes.expected_perplexity:.0f}; {codes.codes_in_use} codes in {codes.frames} frames"
    )
    if not 1 / NORM_RATIO < codes.norm_ratio < NORM_RATIO:
        return FailedCheck(
            "codebook collapse by scale",
            "Semantic latents and code vectors differ in scale, so almost all latents fall to the "
            "few vectors of the smallest or the largest norm.",
            f"{measured}; latents have {codes.norm_ratio:.2f} times the norm of code vectors",
            "Initialize the output with the codebook's mean and spread, and train with the "
            "cross-entropy of distances, whose logits fix the scale.",
        )
    return FailedCheck(
        "codebook collapse",
        "Semantic latents have the norm of code vectors, but fall to a few of them.",
        f"{measured}; the most frequent has {100 * codes.largest_share:.0f} % of the frames",
        "Train on pairs with the true code as target; a reconstruction loss alone does not need "
        "the semantic stream.",
    )


def check_saturation(diagnosis: Diagnosis) -> FailedCheck | None:
    """The share of levels at either end, against that of the presets."""
    encoder, presets = diagnosis.levels.encoder.extreme, diagnosis.levels.presets.extreme
    return saturation(encoder, presets)


def saturation(encoder: float, presets: float) -> FailedCheck | None:
    """The check for shares of levels at either end."""
    if encoder <= max(EXTREME_SHARE, 3 * presets):
        return None
    return FailedCheck(
        "saturation",
        "Acoustic levels lie at the ends of their range, where those of the presets hardly are.",
        f"{100 * encoder:.1f} % of levels at either end, presets {100 * presets:.1f} %",
        "Match the presets' histograms of levels, or train on pairs; reconstruction losses alone "
        "reward extremes.",
    )


def check_double_tanh(diagnosis: Diagnosis) -> FailedCheck | None:
    """The share of levels that a second tanh could not reach."""
    levels = diagnosis.levels
    encoder, presets = levels.encoder.outer, levels.presets.outer
    expected = presets * levels.encoder.frames * len(levels.encoder.mean)
    if expected < MIN_OUTER_LEVELS or encoder > presets / 20:
        return None
    return FailedCheck(
        "double tanh",
        "No level lies beyond the range of a tanh of a tanh, though levels of the presets do.",
        f"{100 * encoder:.3f} % of levels outside 2..18, presets {100 * presets:.2f} %",
        "End the encoder without a tanh: the quantizer applies the only one.",
    )


def check_channel_offsets(diagnosis: Diagnosis) -> FailedCheck | None:
    """The mean level of each channel, against that of the presets."""
    shifts = [abs(shift) for shift in diagnosis.levels.mean_shift]
    shifted = [shift for shift in shifts if shift > MEAN_SHIFT]
    if not shifted:
        return None
    return FailedCheck(
        "channel offsets",
        "The mean levels of some acoustic channels differ from those of the presets.",
        f"{len(shifted)} channels shifted by more than {MEAN_SHIFT} standard deviations, channel "
        f"{shifts.index(max(shifts))} by {max(shifts):.1f}",
        "Match the mean of every channel to that of the presets; each channel of this codec has "
        "its own offset.",
    )


def check_level_distribution(diagnosis: Diagnosis) -> FailedCheck | None:
    """The joint distribution of levels, against that of the presets."""
    own, most = diagnosis.levels.mahalanobis, diagnosis.levels.mahalanobis_max_preset
    if own is None or most is None or own <= max(MAHALANOBIS, 1.2 * most):
        return None
    return FailedCheck(
        "off-distribution levels",
        "The joint distribution of levels is not that of the presets. The decoder may sound right, "
        "but the language model never saw such frames.",
        f"Mahalanobis distance {own:.2f} (presets 1 on average, {most:.2f} at most)",
        "Train on pairs from the release; codes optimized for the waveform alone end here.",
    )


def check_level_difference(diagnosis: Diagnosis) -> FailedCheck | None:
    """The loudness of decoded speech, against the recordings."""
    change = diagnosis.round_trip.level_difference.mean
    if abs(change) <= LEVEL_DB:
        return None
    return FailedCheck(
        "level difference",
        "Decoded speech is louder or quieter than the recordings.",
        f"{change:+.1f} dB from recordings to decoded speech",
        "Check the scale of the encoder's input: samples in -1 .. 1, without normalization.",
    )


def check_end_embeddings(diagnosis: Diagnosis) -> FailedCheck | None:
    """The END embedding of every voice."""
    without = diagnosis.preset_inversion.no_end
    if not without:
        return None
    return FailedCheck(
        "missing END embedding",
        "Speech in a voice without the END embedding does not stop.",
        f"{len(without)} voices, such as {without[0]}",
        "Append the embedding of the END frame: semantic code 1 and zeros in the shifted space.",
    )


def check_batching(diagnosis: Diagnosis) -> FailedCheck | None:
    """Codes of clips in a batch, against those of clips alone."""
    batched = diagnosis.round_trip.batched
    if batched.exact >= BATCH_EXACT:
        return None
    return FailedCheck(
        "batch leakage",
        "Clips that are encoded together get other codes than alone.",
        f"only {100 * batched.exact:.1f} % of levels and {100 * batched.semantic:.1f} % of "
        "semantic codes are the same",
        "Attend over [batch, time], and never over both joined.",
    )


def check_bf16(diagnosis: Diagnosis) -> FailedCheck | None:
    """Codes computed in bf16, as the runtimes do, against those in fp32."""
    bf16 = diagnosis.round_trip.bf16
    if bf16.within_one >= BF16_WITHIN_ONE and bf16.semantic >= BF16_SEMANTIC:
        return None
    return FailedCheck(
        "bf16 drift",
        "In bf16, as the runtimes compute it, the encoder gives other codes than in fp32.",
        f"{100 * bf16.semantic:.1f} % of semantic codes the same, "
        f"{100 * bf16.within_one:.1f} % of levels within one",
        "Look for large activations that cancel; train with bf16 autocast.",
    )


def check_semantic_codes(diagnosis: Diagnosis) -> FailedCheck | None:
    """The likelihood of semantic codes given voice and text, against the prior's (entropy plus
    KL)."""
    stats, codes = diagnosis.language_model, diagnosis.semantic_codes
    if stats is None or stats.conditioning_gain is None:
        return None
    nll, prior_nll = stats.conditioning_gain.semantic_nll.mean, math.log(codes.perplexity)
    prior_nll += codes.kl
    if nll < prior_nll:
        return None
    return FailedCheck(
        "permuted semantic codes",
        "Given voice and text, the language model finds the semantic codes less likely than the "
        "prior does: they are valid codes of other sounds.",
        f"{nll:.2f} nats per frame, {prior_nll:.2f} by the prior alone",
        "Reconstruction does not fix which code stands for which sound: train on pairs, and for "
        "real speech through a recognizer.",
    )


def check_conditioning(diagnosis: Diagnosis) -> FailedCheck | None:
    """The conditioning gain, against that of generated speech. Skipped for a language model that
    no voice conditions."""
    stats = diagnosis.language_model
    if stats is None or not stats.conditioning_gain or not stats.generated_conditioning_gain:
        return None
    gain, generated = (
        stats.conditioning_gain.flow_gain,
        stats.generated_conditioning_gain.flow_gain,
    )
    if not generated.above(0.0) or not gain.below(GAIN_SHARE * generated.mean):
        return None
    return FailedCheck(
        "no speaker conditioning",
        "The codes of a voice do not condition the language model: any speaker's do as well.",
        f"conditioning gain of the flow {gain.mean:.4f}, of generated speech {generated.mean:.4f}",
        "Reconstruction does not show this: train towards the codes, and not the waveform.",
    )

"""The known illnesses of encoders, each told from figures.

Who tried to restore this encoder met them all (arXiv 2603.25551 has none of them, the public
attempts have): each rule names its figure and the bound, so that a reader can disagree. Bounds are
relative to what the release itself shows (prior, presets, its own speech) wherever it shows it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from voxclone.evaluate.diagnosis import Diagnosis

COLLAPSED_SHARE = 0.1
ODD_SCALE = 2.0
SATURATED = 0.05
DOUBLE_TANH_LEAST = 20  # levels that should lie there: of fewer, none may be chance
OFFSET_SPREADS = 1.5
STRANGE = 1.5
LOUDNESS_DB = 4.0
BATCH_EXACT = 0.99
BF16_WITHIN_ONE = 0.97
BF16_SEMANTIC = 0.75
GAIN_SHARE = 0.2


@dataclass(frozen=True)
class Finding:
    """One illness: its name, what it means, the figure it was told from, and what helps."""

    name: str
    sentence: str
    figure: str
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """`healthy` if nothing was found. `unsure` says what could not be examined."""

    healthy: bool
    findings: list[Finding]
    unsure: list[str]

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.findings:
            return "Healthy: none of the known illnesses was found." + (
                f" Not examined: {', '.join(self.unsure)}." if self.unsure else ""
            )
        names = ", ".join(finding.name for finding in self.findings)
        return f"Ill: {names}."

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"summary": self.summary}


def verdict(found: Diagnosis) -> Verdict:
    """Examine a diagnosis for every illness that is known."""
    rules = (
        _collapse, _saturation, _double_tanh, _offsets, _off_manifold, _loudness, _end_row,
        _batch_leakage, _bf16_drift, _foreign, _unheard,
    )  # fmt: skip
    findings = [finding for rule in rules if (finding := rule(found)) is not None]
    unsure = []
    if found.levels.strangeness is None:
        unsure.append("off-manifold (too few preset frames)")
    if found.acceptance is None:
        unsure.append("acceptance by the model")
    return Verdict(not findings, findings, unsure)


def _collapse(found: Diagnosis) -> Finding | None:
    book = found.book
    if book.perplexity >= COLLAPSED_SHARE * book.expected_perplexity:
        return None
    figure = (
        f"perplexity {book.perplexity:.1f} where as many frames of the prior give "
        f"{book.expected_perplexity:.0f}; {book.codes_in_use} codes in {book.frames} frames"
    )
    if not 1 / ODD_SCALE < book.scale < ODD_SCALE:
        return Finding(
            "collapse by scale mismatch",
            "Semantic latents are of another size than the code vectors, so that almost all fall "
            "to the few vectors nearest to zero or farthest out.",
            f"{figure}; latents have {book.scale:.2f} times the norm of code vectors",
            "Initialise the output to the code book's mean and spread and train with the distance "
            "cross-entropy, whose logits set the scale.",
        )
    return Finding(
        "collapse into one cell",
        "Semantic latents have the size of code vectors but all lie in the cells of a few.",
        f"{figure}; the commonest has {100 * book.largest_share:.0f} % of the frames",
        "Train on pairs with the true code as target; a loss on reconstruction alone does not "
        "need the semantic stream.",
    )


def _saturation(found: Diagnosis) -> Finding | None:
    own, genuine = found.levels.own.extreme, found.levels.genuine.extreme
    if own <= max(SATURATED, 3 * genuine):
        return None
    return Finding(
        "saturation",
        "Acoustic levels are driven to the ends of their range, where genuine codes hardly are.",
        f"{100 * own:.1f} % of levels at either end, presets {100 * genuine:.1f} %",
        "Hold levels to the presets' histograms, or train on pairs; reconstruction losses alone "
        "reward extremes.",
    )


def _double_tanh(found: Diagnosis) -> Finding | None:
    own, genuine = found.levels.own.outer, found.levels.genuine.outer
    levels = found.levels.own.frames * len(found.levels.own.mean)
    if genuine * levels < DOUBLE_TANH_LEAST or own > genuine / 20:
        return None
    return Finding(
        "double tanh",
        "No level lies beyond what a tanh of a tanh can reach, though genuine codes do.",
        f"{100 * own:.3f} % of levels outside 2..18, presets {100 * genuine:.2f} %",
        "The encoder must end without a tanh: the quantizer applies the only one.",
    )


def _offsets(found: Diagnosis) -> Finding | None:
    moved = [
        (abs(by), channel) for channel, by in enumerate(found.levels.moved)
        if abs(by) > OFFSET_SPREADS
    ]  # fmt: skip
    if not moved:
        return None
    most, channel = max(moved)
    return Finding(
        "offset channels",
        "Some acoustic channels lie beside where genuine codes have them.",
        f"{len(moved)} channels moved by more than {OFFSET_SPREADS} spreads, the most channel "
        f"{channel} by {most:.1f}",
        "Hold every channel's mean to that of the presets; channels of this codec have offsets of "
        "their own, one common mean is wrong.",
    )


def _off_manifold(found: Diagnosis) -> Finding | None:
    own, most = found.levels.strangeness, found.levels.strangest_genuine
    if own is None or most is None or own <= max(STRANGE, 1.2 * most):
        return None
    return Finding(
        "off-manifold",
        "Levels do not go together as those of genuine codes do: the decoder may sound right, but "
        "the language model never saw such frames.",
        f"strangeness {own:.2f} (genuine codes 1, the strangest preset {most:.2f})",
        "Train on pairs from the release and with the critic; codes optimised for the waveform "
        "alone end here.",
    )


def _loudness(found: Diagnosis) -> Finding | None:
    change = found.passage.loudness
    if abs(change.mean) <= LOUDNESS_DB:
        return None
    return Finding(
        "wrong loudness",
        "Speech comes back from the codes at another level than it went in.",
        f"{change.mean:+.1f} dB from recordings to decoded speech",
        "Check the scale of what the encoder is given: samples in -1 .. 1, no normalisation.",
    )


def _end_row(found: Diagnosis) -> Finding | None:
    without = found.inversion.no_end
    if not without:
        return None
    return Finding(
        "missing END row",
        "Voices without the END row run on: the model does not know where they stop.",
        f"{len(without)} voices, such as {without[0]}",
        "Append the row of the END frame, semantic code 1 and zeros in the shifted space.",
    )


def _batch_leakage(found: Diagnosis) -> Finding | None:
    batched = found.passage.batched
    if batched.exact >= BATCH_EXACT:
        return None
    return Finding(
        "batch leakage",
        "Clips that are encoded together get other codes than alone.",
        f"only {100 * batched.exact:.1f} % of levels and {100 * batched.semantic:.1f} % of "
        "semantic codes are the same",
        "Attention must be over [batch, time], never over both joined.",
    )


def _bf16_drift(found: Diagnosis) -> Finding | None:
    drifted = found.passage.bf16
    if drifted.within_one >= BF16_WITHIN_ONE and drifted.semantic >= BF16_SEMANTIC:
        return None
    return Finding(
        "bf16 drift",
        "Computed in bf16, as the runtimes do, the encoder gives other codes than in fp32.",
        f"{100 * drifted.semantic:.1f} % of semantic codes the same, "
        f"{100 * drifted.within_one:.1f} % of levels within one",
        "Look for large activations that cancel; train in bf16 autocast.",
    )


def _foreign(found: Diagnosis) -> Finding | None:
    """What the codes cost without any context, guessed from the prior alone, is entropy plus KL."""
    if found.acceptance is None:
        return None
    nats, guessed = found.acceptance.semantic.mean, math.log(found.book.perplexity) + found.book.kl
    if nats < guessed:
        return None
    return Finding(
        "foreign semantic codes",
        "The model, given voice and text, finds the semantic codes less likely than the prior does "
        "without either: they are real codes that say something else.",
        f"{nats:.2f} nats per frame where the prior alone gives {guessed:.2f}",
        "Reconstruction does not fix which code stands for which sound: learn it from pairs, and "
        "for real speech through a recogniser.",
    )


def _unheard(found: Diagnosis) -> Finding | None:
    """Only where the model hears its own voices: a model too small to be moved by any voice says
    nothing of an encoder."""
    if found.acceptance is None or found.own_acceptance is None:
        return None
    gain, own = found.acceptance.flow_gain, found.own_acceptance.flow_gain
    if not own.above(0.0) or not gain.below(GAIN_SHARE * own.mean):
        return None
    return Finding(
        "not heard by the model",
        "It makes no difference to the model whose voice it is given in these codes.",
        f"conditioning gain of the flow {gain.mean:.4f}, of its own speech {own.mean:.4f}",
        "Reconstruction does not show this: train towards the codes, not towards the waveform.",
    )

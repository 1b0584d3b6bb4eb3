"""Whether an adapter is good, by generated speech: losses do not rank adapters.

Base and adapted model speak the same texts with the same seeds. An adapter succeeds if

1. no metric of presets, and none of clones, leaves the 95 % interval of the base for the worse, and
2. the similarity of clones of unseen speakers improves by every embedder: the interval of the
   paired difference, over speakers, lies above zero.

Shapes: S samples, N frames of a voice embedding, D width, K codebooks, T frames.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.cloning.enroll import decode_codes
from voxclone.codec.model import Codec
from voxclone.data.pairs import TEXTS, read_texts
from voxclone.errors import ConfigError
from voxclone.evaluate import networks
from voxclone.evaluate.cloning import ClonedVoice, CloningPlan, clone_speakers, plan_requests
from voxclone.evaluate.conditioning_gain import Trial, trial_gains
from voxclone.evaluate.speechset import (
    SpeechSet,
    Utterance,
    list_clips,
    load_speech,
    select_clips,
)
from voxclone.evaluate.statistics import bootstrap
from voxclone.evaluate.synthesis import Synthesis, SynthesisRequest, synthesize
from voxclone.evaluate.wer import character_error_rate, word_error_rate
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber, transcribe_or_empty
from voxclone.release.release import Release
from voxclone.spec import SAMPLING_RATE
from voxclone.train.adapter.config import GateConfig
from voxclone.train.adapter.material import KnownUtterance, Material
from voxclone.tts.adapter import Adapter
from voxclone.tts.likelihood import likelihood
from voxclone.tts.text import expected_seconds
from voxclone.tts.tts import TTS

SECONDS_PER_SPEAKER = 40.0
"""Of speech that is read for a speaker: a reference, and clips whose texts are spoken."""
MOST_GAIN_FRAMES = 125
SIMILARITY, CLONE, PRESET = "similarity", "clone", "preset"
HIGHER, LOWER = 1, -1

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """The values of a metric, each of a group (speaker or preset), and whether higher ones are
    better (1) or lower ones (-1)."""

    values: list[float]
    groups: list[str]
    better: int


Measured = dict[str, Sample]
"""Metrics by name, such as `clone/similarity_ge2e`."""


@dataclass(frozen=True)
class Verdict:
    """Base and adapted means with the base's interval and that of the difference, by metric; a
    sentence for each metric that was lost, and whether clones improve."""

    rows: dict[str, dict[str, float | None]]
    lost: list[str]
    score: float

    @property
    def passed(self) -> bool:
        return not self.lost

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "lost": self.lost, "score": self.score, "metrics": self.rows}


@dataclass
class Gate:
    """Speakers whom the adapter did not learn from, and presets. `references` are decoded presets
    [S]."""

    config: GateConfig
    release: Release
    tts: TTS
    adapter: Adapter
    presets: dict[str, Tensor]
    known: list[KnownUtterance]
    embedders: Sequence[SpeakerEmbedder]
    transcriber: Transcriber
    speech: dict[str, SpeechSet]
    _base: dict[str, Measured] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        config: GateConfig,
        release: Release,
        material: Material,
        adapter: Adapter,
        known: list[KnownUtterance],
        manifest: Path,
    ) -> "Gate":
        """Read the speech of both splits. `known` are utterances of presets that the adapter does
        not learn from. Raises ConfigError for a split of fewer than two such speakers."""
        learned = set(material.speech.by_speaker())
        speech = {
            "valid": read_split(manifest, "valid", learned, config.speakers),
            "test": read_split(manifest, "test", learned, None),
        }
        return cls(
            config, release, material.tts, adapter, material.presets, known,
            [networks.pick(networks.EMBEDDERS, name, "`gate.embedders`")
             for name in config.embedders],
            networks.pick(networks.TRANSCRIBERS, config.transcriber, "`gate.transcriber`"),
            speech,
        )  # fmt: skip

    def verdict(self, split: str) -> Verdict:
        """Compare the adapted model with the base, on the speakers of a split and presets."""
        if split not in self._base:
            with self.adapter.disabled():
                self._base[split] = self.measure(split)
        return compare(self._base[split], self.measure(split))

    def measure(self, split: str) -> Measured:
        """All metrics of the model as it is now."""
        config, tts = self.config, self.tts
        speakers = self.speech[split].by_speaker()
        voices = clone_speakers(self.release, tts.codec, tts, speakers, config.reference_seconds)
        if len(voices) < 2:
            raise ConfigError(
                f"Fewer than two speakers of the split {split!r} have "
                f"{config.reference_seconds:g} s of speech: lower `gate.reference_seconds`, or "
                "give more."
            )
        plan = CloningPlan(sentences=config.sentences, seeds=tuple(range(config.seeds)))
        clones = synthesize(tts, plan_requests(voices, plan))
        references = {name: voice.reference_S for name, voice in voices.items()}
        found = self._generated(CLONE, clones, references) | self._gain(voices, speakers)
        texts = read_texts(TEXTS)
        requests = [
            SynthesisRequest(name, voice_ND, texts[(number * 13 + turn) % len(texts)], 0)
            for number, (name, voice_ND) in enumerate(self.presets.items())
            for turn in range(config.sentences)
        ]
        sounds = {each.preset: each for each in reversed(self.known)}
        decoded = {
            name: decode_codes(each.codes_KT.long(), tts.codec) for name, each in sounds.items()
        }
        spoken = [each for each in synthesize(tts, requests) if each.speaker in decoded]
        return found | self._generated(PRESET, spoken, decoded) | self._likelihood()

    def _generated(
        self, kind: str, made: Sequence[Synthesis], references: dict[str, Tensor]
    ) -> Measured:
        """Similarity to the references [S], error rates, endings and length."""
        groups = [each.speaker for each in made]
        found: Measured = {}
        for embedder in self.embedders:
            known = {n: embedder.embed(normalize_loudness(w)) for n, w in references.items()}
            values = [
                float(embedder.embed(normalize_loudness(each.wave_S)) @ known[each.speaker])
                if len(each.wave_S) else 0.0
                for each in made
            ]  # fmt: skip
            found[f"{kind}/{SIMILARITY}_{embedder.name}"] = Sample(values, groups, HIGHER)
        pairs = [(each.text, transcribe_or_empty(self.transcriber, each.wave_S)) for each in made]
        errors = {"cer": character_error_rate, "wer": word_error_rate}
        for name, rate in errors.items():
            found[f"{kind}/{name}"] = Sample([rate([pair]) for pair in pairs], groups, LOWER)
        ended = [float(bool(each.ended)) for each in made]
        found[f"{kind}/ended"] = Sample(ended, groups, HIGHER)
        pace = [len(e.wave_S) / SAMPLING_RATE / expected_seconds(e.text) for e in made]
        wrong = [abs(math.log(max(value, 0.1))) for value in pace]
        found[f"{kind}/length_error"] = Sample(wrong, groups, LOWER)
        return found

    def _gain(
        self, voices: dict[str, ClonedVoice], speakers: dict[str, list[Utterance]]
    ) -> Measured:
        """Conditioning gain on a clip of each speaker that is not in the reference."""
        trials = []
        for name, voice in voices.items():
            for each in speakers[name][voice.used :]:
                frames = len(each.wave_S) / self.tts.codec.frame_size
                if each.clip.text and frames <= MOST_GAIN_FRAMES:
                    codes_KT = _encode(self.tts.codec, each.wave_S)
                    trials.append(Trial(name, voice.voice_ND, each.clip.text, codes_KT))
                    break
        groups = [trial.speaker for trial in trials]
        if len(set(groups)) < 2:
            return {}
        _, gains = trial_gains(self.tts, trials)
        return {
            f"{CLONE}/semantic_gain": Sample([gain for gain, _ in gains], groups, HIGHER),
            f"{CLONE}/flow_gain": Sample([gain for _, gain in gains], groups, HIGHER),
        }

    def _likelihood(self) -> Measured:
        """How likely the base's own speech with presets is."""
        found = [
            likelihood(self.tts, self.presets[each.preset], each.text, each.codes_KT.long())
            for each in self.known
        ]
        groups = [each.preset for each in self.known]
        return {
            f"{PRESET}/nll": Sample([each.semantic for each in found], groups, LOWER),
            f"{PRESET}/flow_error": Sample([each.flow for each in found], groups, LOWER),
        }


def read_split(manifest: Path, split: str, learned: set[str], speakers: int | None) -> SpeechSet:
    """Speech of the speakers of a split who are not among the `learned` ones, or of the first few.
    Raises ConfigError for fewer than two."""
    listed = [clip for clip in list_clips(manifest) if clip.split == split and clip.text]
    clips = [clip for clip in listed if clip.speaker not in learned]
    names = sorted({clip.speaker for clip in clips})[:speakers]
    if len(names) < 2:
        raise ConfigError(
            f"{manifest} has {len(names)} speakers with texts in the split {split!r} who are not "
            "in `train`, too, and an adapter is measured with two or more: set `split` of some "
            "speakers' clips."
        )
    found = [
        clip
        for name in names
        for clip in select_clips([c for c in clips if c.speaker == name], SECONDS_PER_SPEAKER)
    ]
    return load_speech(found)


def compare(base: Measured, adapted: Measured) -> Verdict:
    """The verdict on metrics of the same speech."""
    rows: dict[str, dict[str, float | None]] = {}
    lost, gains = [], []
    for name, before in base.items():
        after = adapted[name]
        interval = bootstrap(before.values, before.groups)
        mean = bootstrap(after.values, after.groups).mean
        differences = [b - a for a, b in zip(before.values, after.values, strict=True)]
        difference = bootstrap(differences, before.groups)
        rows[name] = {
            "base": interval.mean, "base_low": interval.low, "base_high": interval.high,
            "adapted": mean, "difference": difference.mean, "difference_low": difference.low,
            "difference_high": difference.high,
        }  # fmt: skip
        low, high = interval.low, interval.high
        bound = low if before.better == HIGHER else high
        bound = interval.mean if bound is None else bound
        if before.better * (mean - bound) < -1e-9:
            lost.append(f"{name} is {mean:.3f}, and was {_shown(interval)}.")
        if name.startswith(f"{CLONE}/{SIMILARITY}"):
            gains.append(difference.mean)
            if not difference.above(0.0):
                lost.append(
                    f"{name} of unseen speakers does not improve: the difference is "
                    f"{_shown(difference)}."
                )
    return Verdict(rows, lost, sum(gains) / max(1, len(gains)))


def _shown(interval: Any) -> str:
    if interval.low is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _encode(codec: Codec, wave_S: Tensor) -> Tensor:
    with torch.inference_mode():
        codes_KT: Tensor = codec.encode(wave_S[None].to(codec.device))[0].cpu()
    return codes_KT

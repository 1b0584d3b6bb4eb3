"""Everything that a diagnosis measures of an encoder, from real speech and the release.

Nothing here compares with the true encoder: a real release has none. What an encoder must agree
with is what the release holds: code book, presets, decoder, language model.

Shapes: S samples, K code books, T frames, N rows, D latent width.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import AudioError, ConfigError
from voxclone.evaluate.acceptance import Acceptance, Trial, acceptance
from voxclone.evaluate.agreement import Agreement, agreement, mean_agreement
from voxclone.evaluate.book import BookHealth, book_health
from voxclone.evaluate.geometry import InversionHealth, RowHealth, inversion_health, row_health
from voxclone.evaluate.levels import LevelFigures, LevelHealth, level_figures, level_health
from voxclone.evaluate.signal import level_difference, mel_distance
from voxclone.evaluate.speechset import SpeechSet, Utterance
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets
from voxclone.tts.generate import Sampling, generate
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS
from voxclone.voice.presets import invert_presets
from voxclone.voice.rows import Inversion, voice_rows

SCHEMA = "voxclone.diagnosis/1"
VOICE_SECONDS = 8.0
PROBE_SECONDS = 2.0
MOST_TRIALS = 32
SILENT_DB = -60.0
SPOKEN_TEXTS = (
    "The morning train was late again, so we walked along the river.",
    "Nobody had seen the old map until she opened the drawer.",
    "Please put the small blue box next to the window.",
)

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Passage:
    """What the encoder and the decoder do to real speech: mel distance and level change (dB) of
    decoded speech to the recordings; agreement of codes computed in bf16, and in a batch, with
    those in fp32 and alone; presets decoded and encoded again against their codes."""

    mel: Interval
    loudness: Interval
    bf16: Agreement
    batched: Agreement
    presets: Agreement
    presets_by_chance: Agreement


@dataclass(frozen=True)
class Diagnosis:
    """All figures; what could not be measured is None and stands in `missing` with the reason."""

    release: str
    encoder: str
    seconds: float
    speakers: int
    clips: int
    unreadable: dict[str, str]
    book: BookHealth
    levels: LevelHealth
    spoken: LevelFigures | None
    rows: RowHealth
    inversion: InversionHealth
    passage: Passage
    acceptance: Acceptance | None
    own_acceptance: Acceptance | None
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON values, with schema and version of the tool."""
        return {
            "schema": SCHEMA,
            "tool": f"voxclone {importlib.metadata.version('voxclone')}",
        } | asdict(self)


@dataclass(frozen=True)
class Encoded:
    """One utterance: semantic latents [D, T] and codes [K, T]."""

    utterance: Utterance
    semantic_DT: Tensor
    codes_KT: Tensor


def diagnose(
    release: Release,
    codec: Codec,
    speech: SpeechSet,
    *,
    encoder: str,
    model: TTS | None,
    inversions: Mapping[str, Inversion] | None = None,
    seed: int = 0,
    track: Track = lambda items, what: items,
) -> Diagnosis:
    """Measure the encoder of `codec` on `speech`. Without `model` (the release's language model)
    the figures that need it are missing. `inversions` are those of `preset_inversions`, if they are
    known already. Raises ReleaseError if the codec has no encoder."""
    codec.require_encoder()
    encoded = [encode(codec, each) for each in track(speech.utterances, "encoding")]
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    preset_rows = {name: load_preset(release, name) for name in preset_names(release)}
    if inversions is None:
        inversions = invert_presets(preset_rows, table_VD, release.params)
    if len(inversions) < 2:
        raise ConfigError(f"{release.path} has {len(inversions)} presets; two are needed.")
    genuine = {name: found.codes_KT for name, found in inversions.items()}
    voices = enrolled_codes(encoded)
    levels = codec.quantizer.levels
    codes = [each.codes_KT for each in encoded]
    missing: dict[str, str] = {}
    accepted = own = spoken = None
    if model is None:
        missing["acceptance"] = missing["spoken"] = "the language model was left out"
    else:
        trials = make_trials(encoded, table_VD, offsets)
        said = speak_with_presets(model, preset_rows, seed)
        spoken = level_figures([trial.codes_KT for trial in said], levels)
        own = acceptance(model, said, seed=seed)
        accepted = acceptance(
            model, trials, seed=seed, track=lambda items: track(items, "asking the model")
        )
        if accepted is None:
            missing["acceptance"] = (
                "two speakers with two clips each, one of them with its text, are needed for a "
                "shuffled comparison"
            )
    return Diagnosis(
        release=str(release.path),
        encoder=encoder,
        seconds=speech.seconds,
        speakers=len(speech.by_speaker()),
        clips=len(speech.utterances),
        unreadable=speech.unreadable,
        book=book_health(
            codec.quantizer.semantic_codebook,
            [each.semantic_DT.T for each in encoded],
            [each.codes_KT[0] for each in encoded],
            seed=seed,
        ),
        levels=level_health(codes, list(genuine.values()), levels),
        spoken=spoken,
        rows=row_health(
            {name: rows[: genuine[name].shape[1]] for name, rows in preset_rows.items()},
            {
                name: voice_rows(codes_KT, table_VD, offsets)[:-1]
                for name, codes_KT in voices.items()
            },
        ),
        inversion=inversion_health(inversions, preset_rows, table_VD, offsets, levels),
        passage=measure_passage(codec, encoded, inversions, track),
        acceptance=accepted,
        own_acceptance=own,
        missing=missing,
    )


@torch.inference_mode()
def encode(codec: Codec, utterance: Utterance) -> Encoded:
    """Latents and codes in fp32."""
    latent_BDT = codec.latents(utterance.wave_S[None])
    semantic_BDT, _ = codec.quantizer.split(latent_BDT)
    return Encoded(utterance, semantic_BDT[0], codec.quantizer.encode(latent_BDT)[0])


def enrolled_codes(encoded: Sequence[Encoded]) -> dict[str, Tensor]:
    """Codes [K, T] of about eight seconds of each speaker."""
    voices: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}
    for each in encoded:
        name = each.utterance.speaker
        if seconds.get(name, 0.0) < VOICE_SECONDS:
            voices.setdefault(name, []).append(each.codes_KT)
            seconds[name] = seconds.get(name, 0.0) + each.utterance.seconds
    return {name: torch.cat(parts, dim=1) for name, parts in sorted(voices.items())}


def make_trials(
    encoded: Sequence[Encoded], table_VD: Tensor, offsets: Sequence[int]
) -> list[Trial]:
    """Each speaker's clips with a text, judged after a voice of the speaker's other clips; at most
    `MOST_TRIALS`, speakers in turn."""
    clips: dict[str, list[Encoded]] = {}
    for each in encoded:
        clips.setdefault(each.utterance.speaker, []).append(each)
    by_speaker: list[list[Trial]] = []
    for name, own in sorted(clips.items()):
        trials = []
        for place, target in enumerate(own):
            others = [own[(place + 1 + i) % len(own)] for i in range(len(own) - 1)]
            if not target.utterance.clip.text or not others:
                continue
            voice_KT = next(iter(enrolled_codes(others).values()))
            rows_ND = voice_rows(voice_KT, table_VD, offsets)
            trials.append(Trial(name, rows_ND, target.utterance.clip.text, target.codes_KT))
        by_speaker.append(trials)
    turns = max((len(trials) for trials in by_speaker), default=0)
    ordered = [trials[turn] for turn in range(turns) for trials in by_speaker if turn < len(trials)]
    return ordered[:MOST_TRIALS]


def speak_with_presets(model: TTS, presets: Mapping[str, Tensor], seed: int) -> list[Trial]:
    """Speech of the model itself with each preset: what it finds likely for certain."""
    prompts, caps, texts = [], [], []
    for place, rows_ND in enumerate(presets.values()):
        text = SPOKEN_TEXTS[place % len(SPOKEN_TEXTS)]
        prompts.append(model.prompt(text, rows_ND))
        caps.append(frame_cap(text, model.codec.frame_rate))
        texts.append(text)
    seeds = [seed + place for place in range(len(prompts))]
    spoken = generate(model.backbone, model.head, prompts, seeds, caps, Sampling())
    return [
        Trial(name, rows_ND, text, made.codes_KT.cpu())
        for (name, rows_ND), text, made in zip(presets.items(), texts, spoken, strict=True)
        if made.codes_KT.shape[1] > 1
    ]


@torch.inference_mode()
def measure_passage(
    codec: Codec, encoded: Sequence[Encoded], inversions: Mapping[str, Inversion], track: Track
) -> Passage:
    """Decode what was encoded, encode in other ways, and send the presets around."""
    mel, loudness, speakers, drifted = [], [], [], []
    for each in track(encoded, "decoding"):
        wave_S = each.utterance.wave_S
        decoded_S = codec.decode(each.codes_KT[None])[0][: len(wave_S)]
        mel.append(mel_distance(wave_S, decoded_S))
        loudness.append(_level_change(wave_S, decoded_S))
        speakers.append(each.utterance.speaker)
        in_bf16_KT = codec.encode(wave_S[None], dtype=torch.bfloat16)[0]
        drifted.append(agreement(each.codes_KT, in_bf16_KT))
    again = []
    for found in track(list(inversions.values()), "presets"):
        decoded_BS = codec.decode(found.codes_KT[None])
        again.append((found.codes_KT, codec.encode(decoded_BS)[0]))
    truth = [codes_KT for codes_KT, _ in again]
    return Passage(
        mel=bootstrap(mel, speakers),
        loudness=bootstrap(loudness, speakers),
        bf16=mean_agreement(drifted),
        batched=_batched(codec, [each.utterance.wave_S for each in encoded]),
        presets=mean_agreement([agreement(a, b) for a, b in again]),
        presets_by_chance=mean_agreement(
            [agreement(a, b) for a, b in zip(truth, [*truth[1:], truth[0]], strict=True)]
        ),
    )


def _level_change(wave_S: Tensor, decoded_S: Tensor) -> float:
    try:
        return level_difference(wave_S, decoded_S)
    except AudioError:
        return SILENT_DB  # nothing was decoded that could be measured


def _batched(codec: Codec, waves: Sequence[Tensor]) -> Agreement:
    """Two-second beginnings encoded together against the same encoded alone."""
    samples = int(PROBE_SECONDS * codec.sampling_rate)
    chosen = [wave_S[:samples] for wave_S in waves if len(wave_S) >= samples][:8] or [
        wave_S[: codec.sampling_rate] for wave_S in waves[:8]
    ]
    together_BKT = codec.encode(torch.stack(chosen))
    alone = [codec.encode(wave_S[None])[0] for wave_S in chosen]
    return mean_agreement([agreement(a, b) for a, b in zip(alone, together_BKT, strict=True)])

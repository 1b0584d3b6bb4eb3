"""Published test lists in their own format.

- seed-tts-eval (github.com/BytedanceSpeech/seed-tts-eval): `meta.lst`, a line for each sentence,
  `id|text of the prompt|prompt file|text to speak`, files relative to the list. Its scores are the
  means over sentences of the word error rate, and of the cosine of speech and whole prompt.
- MiniMax TTS-Multilingual-Test-Set (arXiv 2505.07916): `text/<language>.txt` with lines
  `speaker|text to speak`, the speaker's one prompt in `speaker/<language>/<speaker>/`. It has no
  official script and is scored by the same rules.

The speech is synthesized here, or read from another program's files `<id>.wav`.

Shapes: S samples, N voice embeddings, D width.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.files import read_wave
from voxclone.audio.kinds import SOUND_SUFFIXES
from voxclone.errors import AudioError, ConfigError, shorten
from voxclone.evaluate.metric_models import MetricModels, mean_mos, transcripts
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.similarity import Similarity, similarity_by_embedder
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.synthesis import (
    Synthesis,
    SynthesisRequest,
    speech_stats,
    synthesize,
    without_silence,
)
from voxclone.evaluate.wer import character_error_rate, word_error_rate
from voxclone.readers import read_text, require_path
from voxclone.tts.tts import TTS

SCHEMA = "voxclone.protocol/3"


@dataclass(frozen=True)
class Sentence:
    """One line of a list: a text, and the prompt whose voice speaks it."""

    id: str
    speaker: str
    prompt: Path
    text: str


@dataclass(frozen=True)
class ProtocolScores:
    """Means over sentences and seeds, intervals over speakers. `similarity` to whole prompts is by
    embedder; `wer` and `cer` by transcriber are means of the sentences' rates; `ended` to `level`
    are as in `synthesis.SpeechStats`. `silent` names sentences without speech: they count with
    similarity 0 and error rate 1. `missing` gives the reason of what was not measured."""

    sentences: int
    speakers: int
    seeds: int
    similarity: dict[str, Similarity]
    wer: dict[str, Interval]
    cer: dict[str, Interval]
    dnsmos: dict[str, Interval]
    ended: Interval | None
    early: Interval
    pace: Interval
    level: Interval | None
    silent: list[str]
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema."""
        return {"schema": SCHEMA} | asdict(self)


def read_seed_tts(path: Path) -> list[Sentence]:
    """Sentences of a `meta.lst`; every prompt counts as a speaker. Raises ConfigError."""
    sentences = []
    for number, line in _lines(path):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) not in (4, 5):
            raise ConfigError(
                f"Line {number} of {path} has {len(parts)} fields; seed-tts-eval has four or five."
            )
        name, prompt = (_path_in(parts[index], number, path) for index in (0, 2))
        sentences.append(Sentence(name, prompt, path.parent / prompt, parts[3]))
    return _checked(sentences, path)


def read_minimax(folder: Path, language: str) -> list[Sentence]:
    """Sentences of one language ("english") of the MiniMax set. Raises ConfigError."""
    path = folder / "text" / f"{language}.txt"
    sentences = []
    for number, line in _lines(path):
        speaker, separator, text = (part.strip() for part in line.partition("|"))
        if not separator:
            raise ConfigError(f"Line {number} of {path} is not of the form speaker|text.")
        _path_in(speaker, number, path)
        home = folder / "speaker" / language / speaker
        found = home.glob("*") if os.path.isdir(home) else ()
        prompts = sorted(p for p in found if p.suffix.lower() in SOUND_SUFFIXES)
        if not prompts:
            raise ConfigError(f"The speaker {speaker!r} has no recording in {home}.")
        sentences.append(Sentence(f"{speaker}-{number:03d}", speaker, prompts[0], text))
    return _checked(sentences, path)


def synthesize_list(
    model: TTS,
    sentences: Sequence[Sentence],
    enroll: Callable[[Path], Tensor],
    *,
    seeds: Sequence[int],
    track: Track = untracked,
) -> list[Synthesis]:
    """All sentences with the first seed, then with the next one. `enroll` makes the voice [N, D] of
    a prompt, once for each prompt."""
    prompts = list(dict.fromkeys(each.prompt for each in sentences))
    voices = {prompt: enroll(prompt) for prompt in track(prompts, "enrolling")}
    requests = [
        SynthesisRequest(each.speaker, voices[each.prompt], each.text, seed)
        for seed in seeds
        for each in sentences
    ]
    return synthesize(model, requests, track=track)


def read_syntheses(sentences: Sequence[Sentence], folder: Path) -> list[Synthesis]:
    """Speech of another program; undecodable files count as silence. Raises ConfigError if files
    are missing."""
    missing = [each.id for each in sentences if not os.path.isfile(folder / f"{each.id}.wav")]
    if missing:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of {len(sentences)} files, such as {missing[0]}.wav."
        )
    syntheses = []
    for each in sentences:
        try:
            wave_S = without_silence(torch.from_numpy(read_wave(folder / f"{each.id}.wav")))
        except AudioError:
            wave_S = torch.zeros(0)
        syntheses.append(Synthesis(each.speaker, each.text, wave_S, None))
    return syntheses


def score_list(
    sentences: Sequence[Sentence],
    syntheses: Sequence[Synthesis],
    models: MetricModels,
    track: Track = untracked,
) -> ProtocolScores:
    """Score the syntheses of a list, with one or several seeds, against its prompts and texts."""
    speakers = [each.speaker for each in syntheses]
    prompts = {each.speaker: each.prompt for each in reversed(sentences)}
    missing: dict[str, str] = {}
    references = {
        speaker: torch.from_numpy(read_wave(prompt)) for speaker, prompt in prompts.items()
    }
    similarity = similarity_by_embedder(syntheses, references, models.embedders, missing, track)
    if len(prompts) < 2:
        missing["cross-speaker similarity"] = "the list has one speaker"
    waves = [each.wave_S for each in syntheses]
    pairs = transcripts(models, [each.text for each in syntheses], waves, track)
    stats = speech_stats(syntheses)
    if stats.ended is None:
        missing["ended by itself"] = "a file does not show whether its program stopped or was cut"
    names = [each.id for each in sentences]
    silent = [names[i % len(names)] for i, each in enumerate(syntheses) if not len(each.wave_S)]
    return ProtocolScores(
        sentences=len(sentences),
        speakers=len(prompts),
        seeds=len(syntheses) // len(sentences),
        similarity=similarity,
        wer={
            name: bootstrap([word_error_rate([pair]) for pair in each], speakers)
            for name, each in pairs.items()
        },
        cer={
            name: bootstrap([character_error_rate([pair]) for pair in each], speakers)
            for name, each in pairs.items()
        },
        dnsmos=mean_mos(models.mos, waves, speakers, missing, track),
        **vars(stats),
        silent=list(dict.fromkeys(silent)),
        missing=missing,
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    text = read_text(path, ConfigError, "The list")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _path_in(text: str, number: int, path: Path) -> str:
    """A field of a list that is part of a path. Raises ConfigError where it cannot be one."""
    try:
        return require_path(text)
    except ValueError as error:
        raise ConfigError(f"In line {number} of {path}, {shorten(text)!r}: {error}.") from None


def _checked(sentences: list[Sentence], path: Path) -> list[Sentence]:
    if not sentences:
        raise ConfigError(f"The list {path} has no sentence.")
    seen: set[str] = set()
    for each in sentences:
        if each.id in seen:
            raise ConfigError(f"The list {path} has {each.id!r} twice.")
        if not os.path.isfile(each.prompt):
            raise ConfigError(f"The list {path} names {each.prompt}, which is not there.")
        seen.add(each.id)
    return sentences

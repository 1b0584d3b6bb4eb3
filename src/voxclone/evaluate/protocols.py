"""Published test lists, run as they are.

- seed-tts-eval (github.com/BytedanceSpeech/seed-tts-eval): `meta.lst`, a line for each sentence,
  `id|text of the prompt|prompt file|text to say`, files relative to the list. Its scores are the
  mean over sentences of the word error rate, and of the cosine of speech and whole prompt.
- MiniMax TTS-Multilingual-Test-Set (arXiv 2505.07916): `text/<language>.txt` with lines
  `speaker|text to say`, the speaker's one prompt in `speaker/<language>/<speaker>/`. No official
  script; scored alike.

Speech may be made here, or by any other program: one file `<id>.wav` for each sentence.

Shapes: S samples, N rows, D width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.files import SOUND_SUFFIXES, read_wave
from voxclone.audio.loudness import normalize_loudness
from voxclone.errors import AudioError, ConfigError
from voxclone.evaluate.mos import rate_all
from voxclone.evaluate.similarity import likeness_of
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.synthesis import Manner, Said, Saying, manner_of, say
from voxclone.evaluate.wer import word_error
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber
from voxclone.tts.tts import TTS

SCHEMA = "voxclone.protocol/2"
BATCH = 16
NOTHING_S = torch.zeros(0)


@dataclass(frozen=True)
class Sentence:
    """One line of a list: what to say, in the voice of which prompt."""

    id: str
    speaker: str
    prompt: Path
    text: str


@dataclass(frozen=True)
class ProtocolScores:
    """Means over sentences (and seeds), intervals over speakers. `likeness` is by embedder, against
    whole prompts: matched, shuffled and gain, the last two where there are several speakers; `wer`
    and `cer` by transcriber, each the mean of the sentences' rates; `manner` as in `said.Manner`.
    `silent` names sentences that nothing was said for: they count as likeness 0 and error rate 1.
    `missing` says why a figure could not be had."""

    sentences: int
    speakers: int
    seeds: int
    likeness: dict[str, dict[str, Interval]]
    wer: dict[str, Interval]
    cer: dict[str, Interval]
    opinion: dict[str, Interval]
    manner: Manner
    missing: dict[str, str]
    silent: list[str]

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
        name, _, prompt, text = parts[:4]
        sentences.append(Sentence(name, prompt, path.parent / prompt, text))
    return _checked(sentences, path)


def read_minimax(folder: Path, language: str) -> list[Sentence]:
    """Sentences of one language ("english") of the MiniMax set. Raises ConfigError."""
    path = folder / "text" / f"{language}.txt"
    sentences = []
    for number, line in _lines(path):
        speaker, separator, text = (part.strip() for part in line.partition("|"))
        if not separator:
            raise ConfigError(f"Line {number} of {path} is not of the form speaker|text.")
        home = folder / "speaker" / language / speaker
        prompts = sorted(p for p in home.glob("*") if p.suffix.lower() in SOUND_SUFFIXES)
        if not prompts:
            raise ConfigError(f"The speaker {speaker!r} has no recording in {home}.")
        sentences.append(Sentence(f"{speaker}-{number:03d}", speaker, prompts[0], text))
    return _checked(sentences, path)


def say_all(
    model: TTS,
    sentences: Sequence[Sentence],
    voice_of: Callable[[Path], Tensor],
    *,
    seeds: Sequence[int],
    cfg: float = 1.2,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[Said]:
    """All sentences with the first seed, then with the next one: each prompt becomes a voice
    [N, D] once, by `voice_of`."""
    voices: dict[Path, Tensor] = {}
    said: list[Said] = []
    wanted = [(seed, each) for seed in seeds for each in sentences]
    for start in track(range(0, len(wanted), BATCH)):
        group = wanted[start : start + BATCH]
        for _, each in group:
            if each.prompt not in voices:
                voices[each.prompt] = voice_of(each.prompt)
        sayings = [
            Saying(each.speaker, voices[each.prompt], NOTHING_S, each.text, seed)
            for seed, each in group
        ]
        for (_, each), (wave_S, ended) in zip(
            group, say(model, sayings, cfg=cfg, batch=BATCH), strict=True
        ):
            said.append(Said(each.speaker, each.text, wave_S, ended))
    return said


def read_spoken(sentences: Sequence[Sentence], folder: Path) -> list[Said]:
    """Speech of another program. Raises ConfigError if files are missing."""
    missing = [each.id for each in sentences if not (folder / f"{each.id}.wav").is_file()]
    if missing:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of {len(sentences)} files, such as {missing[0]}.wav."
        )
    said = []
    for each in sentences:
        try:
            wave_S = torch.from_numpy(read_wave(folder / f"{each.id}.wav"))
        except AudioError:
            wave_S = NOTHING_S  # silence, or no sound
        said.append(Said(each.speaker, each.text, wave_S, None))
    return said


def score_spoken(
    sentences: Sequence[Sentence],
    spoken: Sequence[Said],
    embedders: Sequence[SpeakerEmbedder],
    transcribers: Sequence[Transcriber],
    listener: MosPredictor | None = None,
    track: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, what: items,
) -> ProtocolScores:
    """Score what was said of a list, once or with several seeds, against prompts and texts."""
    said = [each if _sounds(each.wave_S) else replace(each, wave_S=NOTHING_S) for each in spoken]
    speakers = [each.speaker for each in said]
    prompts = {each.speaker: each.prompt for each in reversed(sentences)}
    likeness, wer, cer = {}, {}, {}
    missing: dict[str, str] = {}
    for embedder in embedders:
        references = {}
        for speaker, prompt in track(list(prompts.items()), f"likeness, {embedder.name}"):
            prompt_S = torch.from_numpy(read_wave(prompt))
            references[speaker] = embedder.embed(normalize_loudness(prompt_S))
        likeness[embedder.name] = likeness_of(said, references, embedder)
    if len(prompts) < 2:
        missing["likeness to others"] = "the list has one speaker"
    for transcriber in transcribers:
        words, characters = [], []
        for each in track(said, f"hearing, {transcriber.name}"):
            heard = transcriber.transcribe(each.wave_S) if len(each.wave_S) else ""
            words.append(word_error([(each.text, heard)]))
            characters.append(word_error([(each.text, heard)], characters=True))
        wer[transcriber.name] = bootstrap(words, speakers)
        cer[transcriber.name] = bootstrap(characters, speakers)
    opinion = {}
    if listener is not None:
        waves = [each.wave_S for each in said]
        opinion = rate_all(listener, track(waves, "rating"), speakers, missing)
    manner = manner_of(said)
    if manner.ended is None:
        missing["ended by itself"] = "a file does not tell whether its program stopped or was cut"
    names = [each.id for each in sentences]
    silent = [names[i % len(names)] for i, each in enumerate(said) if not len(each.wave_S)]
    return ProtocolScores(
        sentences=len(sentences),
        speakers=len(prompts),
        seeds=len(said) // len(sentences),
        likeness=likeness,
        wer=wer,
        cer=cer,
        opinion=opinion,
        manner=manner,
        missing=missing,
        silent=list(dict.fromkeys(silent)),
    )


def _sounds(wave_S: Tensor) -> bool:
    return len(wave_S) > 0 and bool(wave_S.abs().max() > 1e-5)


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The list {path} cannot be read: {error.strerror}.") from None
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _checked(sentences: list[Sentence], path: Path) -> list[Sentence]:
    if not sentences:
        raise ConfigError(f"The list {path} has no sentence.")
    seen: set[str] = set()
    for each in sentences:
        if each.id in seen:
            raise ConfigError(f"The list {path} has {each.id!r} twice.")
        if not each.prompt.is_file():
            raise ConfigError(f"The list {path} names {each.prompt}, which is not there.")
        seen.add(each.id)
    return sentences

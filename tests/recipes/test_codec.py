"""Recognizer, speaker network and codec of the mini release learn."""

from pathlib import Path

import pytest
import torch

from recipes.mini_release.codec import CodecTask, CodecTraining, CodecWeights, update_codebook
from recipes.mini_release.listeners import Listeners
from recipes.mini_release.recogniser import RecogniserTask, RecogniserTraining
from recipes.mini_release.teacher import teacher_features
from recipes.mini_release.training import RunSettings
from recipes.mini_release.voices import VoicesTask, VoicesTraining
from tests.train.tiny import CODEC, FAST, QUIET, mean, steps
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.rng import step_generator
from voxclone.train.logging import Log
from voxclone.train.loop import fit


def codec_task(corpus: Corpus, folder: Path) -> CodecTask:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recogniser = Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=1)).eval()
    teacher = teacher_features(recogniser, corpus, CODEC.frame_size, folder)
    settings = CodecTraining.model_validate(
        {
            "run": {"steps": 12, "save_every": 3, "validate_every": 12, "autocast": False},
            "optimiser": FAST.model_dump(),
            "batch": 2,
            "frames": 4,
            "quantise_from": 2,
            "consistency_from": 4,
            "adversary_from": 6,
            "adversary": {"n_ffts": (256, 64), "channels": 4},
        }
    )
    subset = corpus.subset(lambda c: c.split == "train")
    valid = corpus.subset(lambda c: c.split == "valid")
    return CodecTask.create(settings, CODEC, corpus, subset, valid, teacher)


def test_codec_training_learns_through_all_its_phases(corpus: Corpus, tmp_path: Path) -> None:
    task = codec_task(corpus, tmp_path)
    rows = steps(task, 12)
    assert {"loss/again_semantic", "loss/feature", "loss/hinge", "codes/revived"} <= set(rows[-1])
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert rows[-1]["loss/mel"] < rows[0]["loss/mel"]
    figures = task.validate(12, Log(tmp_path))
    assert 0 <= figures["valid/again_within_one"] <= 1


def test_codec_training_resumes_bit_identically(corpus: Corpus, tmp_path: Path) -> None:
    whole = codec_task(corpus, tmp_path)
    settings = whole.settings.run
    fit(whole, settings, tmp_path / "a", resume=True, config={}, console=QUIET)
    first = codec_task(corpus, tmp_path)
    limited = settings.model_copy(update={"max_minutes": 0.0})  # stops after every step
    for _ in range(7):
        reason = fit(first, limited, tmp_path / "b", resume=True, config={}, console=QUIET).reason
        assert reason == "time"
        first = codec_task(corpus, tmp_path)
    fit(first, settings, tmp_path / "b", resume=True, config={}, console=QUIET)
    for name, value in whole.state.tensors().items():
        assert torch.equal(value, first.state.tensors()[name]), name


def humming_corpus() -> Corpus:
    """Three speakers who hum, each at pitches and in a timbre of their own."""
    time = torch.arange(24000) / 24000
    clips, waves = [], []
    for s, speaker in enumerate(("ada", "ben", "cid")):
        for c in range(4):
            pitch = 100 * 1.5**s + 5 * c
            parts = [torch.sin(2 * torch.pi * pitch * h * time) / h ** (s + 1) for h in range(1, 9)]
            clips.append(Clip(f"{speaker}-{c}", Path("none"), speaker, 1.0))
            waves.append((0.1 * sum(parts) * 32767).to(torch.int16))
    starts = [24000 * i for i in range(len(waves) + 1)]
    return PackedCorpus(clips, starts, torch.cat(waves).numpy())


def test_a_network_learns_to_tell_speakers_apart(tmp_path: Path) -> None:
    corpus = humming_corpus()
    settings = VoicesTraining(
        run=RunSettings(steps=40, autocast=False), optimiser=FAST, dim=8, blocks=1, batch=6,
        seconds=0.5,
    )  # fmt: skip
    train = corpus.subset(lambda c: not c.id.endswith("3"))
    held_out = corpus.subset(lambda c: c.id.endswith(("2", "3")))
    task = VoicesTask.create(settings, corpus, train, held_out)
    rows = steps(task, 40)
    assert mean(rows[-8:], "loss/voices") < 0.8 * mean(rows[:4], "loss/voices")
    figures = task.validate(40, Log(tmp_path))
    assert figures["valid/same"] > figures["valid/others"]


def test_silence_after_a_clip_has_no_direction_to_learn(corpus: Corpus, tmp_path: Path) -> None:
    task = codec_task(corpus, tmp_path)
    crops = task.train.crops(3, 24000 * 8, step_generator(0, 0), task.train.weights(0.0), grid=480)
    states = task.teacher.crops(crops)
    assert states.shape[:3] == (3, 100, 4)
    for row, index in enumerate(crops.indices):
        frames = -(-corpus.length(index) // 480)
        assert bool((states[row].flatten(0, 1)[frames:] == 0).all())
        assert bool((states[row].flatten(0, 1)[: frames - 1].abs().sum(-1) > 0).all())


def test_codebook_follows_latents_and_revives_the_dead() -> None:
    codec = Codec(CODEC)
    book = codec.quantizer.semantic_codebook
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 6, generator=generator)
    book.embedding_sum.copy_(latents[:16])
    book.embedding_sum[3] = 100.0
    for _ in range(200):
        codes = torch.cdist(latents, book.vectors()).argmin(-1)
        update_codebook(book, latents, codes, decay=0.9, revive_below=0.03, generator=generator)
    codes = torch.cdist(latents, book.vectors()).argmin(-1)
    assert len(codes.unique()) == 16
    means = torch.stack([latents[codes == v].mean(0) for v in range(16)])
    torch.testing.assert_close(book.vectors(), means, atol=0.1, rtol=0)
    share = book.cluster_usage / book.cluster_usage.sum()
    counts = torch.bincount(codes, minlength=16) / 400
    torch.testing.assert_close(share, counts, atol=0.05, rtol=0)


def test_recogniser_learns(corpus: Corpus, tmp_path: Path) -> None:
    settings = RecogniserTraining(
        run=RunSettings(steps=30, autocast=False),
        optimiser=FAST,
        dim=16,
        blocks=1,
        batch_seconds=6,
        min_character_count=1,
    )
    everything = corpus.subset(lambda c: True)
    task = RecogniserTask.create(settings, corpus, everything, everything)
    rows = steps(task, 30)
    assert rows[-1]["loss/ctc"] < 0.6 * rows[0]["loss/ctc"]
    figures = task.validate(30, Log(tmp_path))
    assert 0 <= figures["valid/cer"] <= 1.5


def test_listeners_hear_a_difference_and_teach_what_they_hear(corpus: Corpus) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        listeners = Listeners.frozen(
            Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=2)),
            SpeakerNetwork(3, 8, 1),
        )
    wave_BS = corpus.wave(0, 0, 12000)[None]
    generator = torch.Generator().manual_seed(0)
    noise_BS = torch.randn(wave_BS.shape, generator=generator)
    distances = [
        float(listeners.distance(wave_BS + share * noise_BS, wave_BS)) for share in (0, 1e-3, 1e-1)
    ]
    assert distances[0] == 0 and 0 < distances[1] < distances[2]
    estimate_BS = (wave_BS + 1e-2 * noise_BS).requires_grad_()
    listeners.distance(estimate_BS, wave_BS).backward()
    assert estimate_BS.grad is not None and bool(estimate_BS.grad.abs().sum() > 0)
    assert all(p.grad is None for p in listeners.voices.parameters())
    with pytest.raises(ConfigError, match="needs listeners"):
        settings = CodecTraining(run=RunSettings(steps=1), weights=CodecWeights(heard=1.0))
        CodecTask.create(settings, CODEC, corpus, None, None, None)

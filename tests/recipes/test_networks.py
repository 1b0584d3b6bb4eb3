"""The recognizer and the speaker network learn, and their states measure decoded speech."""

from pathlib import Path

import torch

from recipes.mini_release.objectives import PerceptualLoss, draw_starts, spectral_losses
from recipes.mini_release.recognizer import RecognizerTask, RecognizerTraining
from recipes.mini_release.speaker_network import SpeakerNetworkTask, SpeakerNetworkTraining
from tests.train.tiny import CPU, FAST, mean, steps
from voxclone.audio.distance import mel_loss
from voxclone.data.corpus import Corpus, PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.train.logging import Log
from voxclone.train.loop import RunSettings


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
    settings = SpeakerNetworkTraining(
        run=RunSettings(steps=40, autocast=False), optimizer=FAST, dim=8, blocks=1, batch=6,
        seconds=0.5,
    )  # fmt: skip
    train = corpus.subset(lambda c: not c.id.endswith("3"))
    held_out = corpus.subset(lambda c: c.id.endswith(("2", "3")))
    task = SpeakerNetworkTask.create(settings, train, held_out, CPU)
    rows = steps(task, 40)
    assert mean(rows[-8:], "loss/speakers") < 0.8 * mean(rows[:4], "loss/speakers")
    metrics = task.validate(40, Log(tmp_path))
    assert metrics["valid/same"] > metrics["valid/others"]


def test_a_recognizer_learns(corpus: Corpus, tmp_path: Path) -> None:
    settings = RecognizerTraining(
        run=RunSettings(steps=30, autocast=False), optimizer=FAST, dim=16, blocks=1,
        batch_seconds=6, min_character_count=1,
    )  # fmt: skip
    everything = corpus.subset(lambda c: True)
    task = RecognizerTask.create(settings, everything, everything, CPU)
    rows = steps(task, 30)
    assert rows[-1]["loss/ctc"] < 0.6 * rows[0]["loss/ctc"]
    assert 0 <= task.validate(30, Log(tmp_path))["valid/cer"] <= 1.5


def test_a_perceptual_loss_grows_with_the_difference_and_teaches_the_wave(corpus: Corpus) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recognizer = Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=2))
        loss = PerceptualLoss(recognizer, SpeakerNetwork(3, 8, 1))
    wave_BS = corpus.wave(0, 0, 12000)[None]
    noise_BS = torch.randn(wave_BS.shape, generator=torch.Generator().manual_seed(0))
    distances = [float(loss(wave_BS + share * noise_BS, wave_BS)) for share in (0, 1e-3, 1e-1)]
    assert distances[0] == 0 and 0 < distances[1] < distances[2]
    estimate_BS = (wave_BS + 1e-2 * noise_BS).requires_grad_()
    loss(estimate_BS, wave_BS).backward()
    assert estimate_BS.grad is not None and bool(estimate_BS.grad.abs().sum() > 0)
    assert all(p.grad is None for network in loss.networks for p in network.parameters())


def test_spectral_losses_at_random_starts_are_those_of_the_library_on_average(
    corpus: Corpus,
) -> None:
    wave_BS = corpus.wave(1, 0, 24000)[None]
    noise_BS = torch.randn(wave_BS.shape, generator=torch.Generator().manual_seed(0))
    estimate_BS = wave_BS + 0.01 * noise_BS
    generator = torch.Generator().manual_seed(1)
    found = [
        spectral_losses(estimate_BS, wave_BS, draw_starts(generator), floor=0.0) for _ in range(40)
    ]
    mean_mel = sum(float(each["mel"]) for each in found) / len(found)
    wanted = float(mel_loss(estimate_BS, wave_BS))
    assert abs(mean_mel - wanted) < 0.05 * wanted
    assert len({float(each["mel"]) for each in found}) > 30
    same = spectral_losses(wave_BS, wave_BS, draw_starts(generator), floor=0.0)
    assert float(same["mel"]) == 0 and float(same["stft"]) == 0

"""The codec of the mini release: its phases, its codebook, its decoder alone, and resume."""

from pathlib import Path

import pytest
import torch

from recipes.mini_release.codebook import update_codebook
from recipes.mini_release.codec import CodecTask, CodecTraining, fresh_codec
from recipes.mini_release.crops import CropSource
from recipes.mini_release.objectives import PerceptualLoss
from recipes.mini_release.teacher import TeacherStates
from tests.train.tiny import CODEC, CPU, QUIET, steps
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.train.logging import Log
from voxclone.train.loop import fit

VALUES = {
    "run": {"steps": 10, "save_every": 3, "validate_every": 10, "autocast": False},
    "optimizer": {"lr": 3e-3, "warmup_steps": 2, "muon": True},
    "crops": {"batch": 3, "frames": 4},
    "quantize_from": 2,
    "discriminators_from": 5,
    "discriminators": {"n_ffts": (256, 64), "channels": 4, "frames": 2},
}


def perceptual() -> PerceptualLoss:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recognizer = Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=1))
        return PerceptualLoss(recognizer, SpeakerNetwork(3, 8, 1))


def measure(codec: Codec, step: int) -> dict[str, float]:
    assert not codec.training
    return {"valid/step": float(step)}


def codec_task(
    corpus: Corpus, teacher: TeacherStates | None, device: torch.device = CPU, **changed: object
) -> CodecTask:
    settings = CodecTraining.model_validate(VALUES | changed)
    crops = CropSource(corpus.subset(lambda c: True), settings.crops, CODEC.frame_size, device)
    return CodecTask.create(settings, fresh_codec(CODEC, 0), crops, teacher, perceptual(), measure)


def test_a_codec_learns_through_all_its_phases(
    corpus: Corpus, teacher: TeacherStates, tmp_path: Path
) -> None:
    task = codec_task(corpus, teacher)
    book = task.codec.quantizer.semantic_codebook
    first = steps(task, 2)
    assert float(book.embedding_sum.abs().sum()) == 0
    assert not {"loss/commitment", "loss/feature", "codes/revived"} & set(first[-1])
    second = steps(task, 3, start=2)
    assert float(book.embedding_sum.abs().sum()) > 0
    assert {"loss/commitment", "codes/revived", "loss/asr"} <= set(second[-1])
    assert "loss/feature" not in second[-1]
    third = steps(task, 5, start=5)
    assert {"loss/feature", "loss/discriminator"} <= set(third[-1])
    rows = [*first, *second, *third]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert rows[-1]["loss/mel"] < rows[0]["loss/mel"]
    assert task.validate(10, Log(tmp_path)) == {"valid/step": 10.0} and task.codec.training


def test_codec_training_resumes_bit_identically(
    corpus: Corpus, teacher: TeacherStates, tmp_path: Path
) -> None:
    whole = codec_task(corpus, teacher)
    settings = whole.settings.run
    fit(whole, settings, tmp_path / "a", resume=True, config={}, console=QUIET)
    limited = settings.model_copy(update={"max_minutes": 0.0})  # stops after every step
    for _ in range(7):
        task = codec_task(corpus, teacher)
        reason = fit(task, limited, tmp_path / "b", resume=True, config={}, console=QUIET).reason
        assert reason == "time"
    last = codec_task(corpus, teacher)
    fit(last, settings, tmp_path / "b", resume=True, config={}, console=QUIET)
    assert whole.state.tensors().keys() == last.state.tensors().keys()
    for name, value in whole.state.tensors().items():
        assert torch.equal(value, last.state.tensors()[name]), name


def test_the_decoder_alone_changes_nothing_else(corpus: Corpus) -> None:
    task = codec_task(corpus, None, decoder_only=True, discriminators_from=0)
    book = task.codec.quantizer.semantic_codebook
    book.embedding_sum.copy_(torch.randn(book.embedding_sum.shape, generator=torch.Generator()))
    before = {name: value.clone() for name, value in task.codec.state_dict().items()}
    rows = steps(task, 3)
    assert {"loss/feature", "loss/perceptual"} <= set(rows[0])
    assert not {"loss/commitment", "loss/asr", "codes/revived"} & set(rows[0])
    for name, value in task.codec.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("decoder."), name


def test_weights_of_a_file_keep_their_codebook(corpus: Corpus, teacher: TeacherStates) -> None:
    """A stage that starts from trained weights finds a codebook, and draws none."""
    task = codec_task(corpus, teacher, quantize_from=0)
    book = task.codec.quantizer.semantic_codebook
    book.embedding_sum.copy_(torch.randn(book.embedding_sum.shape, generator=torch.Generator()))
    before = book.vectors().clone()
    task.train_step(0)
    assert float((book.vectors() - before).abs().median()) < 0.2 * float(before.std())


def test_a_codebook_follows_latents_and_revives_the_dead() -> None:
    codec = Codec(CODEC)
    book = codec.quantizer.semantic_codebook
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 6, generator=generator)
    book.embedding_sum.copy_(latents[:16])
    book.embedding_sum[3] = 100.0
    limit = torch.tensor(0.03)
    for _ in range(2000):
        codes = torch.cdist(latents, book.vectors()).argmin(-1)
        revived_V = torch.randint(400, (16,), generator=generator)
        update_codebook(book, latents, codes, revived_V, limit)
    codes = torch.cdist(latents, book.vectors()).argmin(-1)
    assert len(codes.unique()) == 16
    means = torch.stack([latents[codes == v].mean(0) for v in range(16)])
    torch.testing.assert_close(book.vectors(), means, atol=0.1, rtol=0)
    counts = torch.bincount(codes, minlength=16) / 400
    share = book.cluster_usage / book.cluster_usage.sum()
    torch.testing.assert_close(share, counts, atol=0.05, rtol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_latents_that_are_not_finite_leave_the_codebook(bad: float) -> None:
    book = Codec(CODEC).quantizer.semantic_codebook
    book.embedding_sum.copy_(torch.ones(16, 6))
    before = book.vectors().clone()
    latents = torch.zeros(10, 6)
    latents[3, 2] = bad
    revived_V, limit = torch.full((16,), 3), torch.tensor(0.03)
    update_codebook(book, latents, torch.zeros(10, dtype=torch.long), revived_V, limit)
    assert torch.equal(book.vectors(), before)

"""Speaker embeddings: equal to the original package, and defined at the edges."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.synthetic_voice import noise, voice
from voxclone.errors import AudioError, MissingExtraError, VoxcloneError
from voxclone.models.pretrained import load_pretrained
from voxclone.models.speaker_encoder import (
    EcapaEmbedder,
    Ge2eEmbedder,
    WavLmEmbedder,
    partial_starts,
    speaker_similarity,
    trim_pauses,
)

GOLDEN = json.loads((Path(__file__).parent / "data" / "ge2e_golden.json").read_text())


@pytest.fixture(scope="module")
def embedder() -> Ge2eEmbedder:
    return Ge2eEmbedder.load()


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=["long", "short", "quiet"])
def test_ge2e_equals_the_package(embedder: Ge2eEmbedder, case: dict[str, Any]) -> None:
    wave_S = voice(case["seconds"], case["pitch"], case["level"])
    truth_E = torch.tensor(case["embedding"])
    ours_E = embedder.embed_batch(wave_S[None])[0]
    # Weights in float16 and another resampler are all that differs.
    assert (ours_E - truth_E).abs().max() < 1e-3
    assert ours_E @ truth_E > 1 - 1e-5


@pytest.mark.parametrize("samples, starts", GOLDEN["partials"])
def test_partials_begin_where_those_of_the_package_do(samples: int, starts: list[int]) -> None:
    assert partial_starts(samples) == starts


def test_the_network_is_cached_and_frozen(embedder: Ge2eEmbedder) -> None:
    assert Ge2eEmbedder.load() is embedder
    assert not any(parameter.requires_grad for parameter in embedder.parameters())


def test_voices_are_distinguished(embedder: Ge2eEmbedder) -> None:
    low_S, again_S = voice(2.0, 110), voice(3.0, 112)
    high_S = voice(2.0, 230)
    assert speaker_similarity(embedder, low_S, low_S) == pytest.approx(1, abs=1e-5)
    assert (
        speaker_similarity(embedder, low_S, again_S)
        > speaker_similarity(embedder, low_S, high_S) + 0.1
    )


def test_batch_equals_single_clips(embedder: Ge2eEmbedder) -> None:
    waves_BS = torch.stack([voice(2.5, pitch) for pitch in (100, 180)])
    both_BE = embedder.embed_batch(waves_BS)
    for wave_S, embedding_E in zip(waves_BS, both_BE, strict=True):
        assert torch.allclose(embedder.embed_batch(wave_S[None])[0], embedding_E, atol=1e-5)
        assert torch.allclose(embedder.embed(wave_S), embedding_E, atol=1e-5)  # no pauses in it


def test_gradients_reach_the_samples(embedder: Ge2eEmbedder) -> None:
    wave_BS = voice(1.8)[None].repeat(2, 1).requires_grad_(True)
    target_E = embedder.embed(voice(1.8, 200))
    cosines_B = embedder.embed_batch(wave_BS) @ target_E
    (grad_BS,) = torch.autograd.grad(cosines_B.sum(), wave_BS)
    assert bool(grad_BS.isfinite().all()) and float(grad_BS.abs().amax(dim=1).min()) > 0


def test_a_silent_clip_of_a_batch_stays_finite(embedder: Ge2eEmbedder) -> None:
    wave_BS = torch.zeros(1, 30000, requires_grad=True)
    embedding_BE = embedder.embed_batch(wave_BS)
    (grad_BS,) = torch.autograd.grad(embedding_BE.sum(), wave_BS)
    assert bool(embedding_BE.isfinite().all()) and bool(grad_BS.isfinite().all())


def test_autocast_does_not_change_the_embedding(embedder: Ge2eEmbedder) -> None:
    wave_BS = voice(1.7)[None]
    plain_BE = embedder.embed_batch(wave_BS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embedder.embed_batch(wave_BS), plain_BE)


@pytest.mark.parametrize("samples", [1, 300, 2400, 24000])
def test_short_clips_give_unit_vectors(embedder: Ge2eEmbedder, samples: int) -> None:
    embedding_E = embedder.embed(voice(1.0, 150)[-samples:] + 0.01)
    assert embedding_E.shape == (256,) and embedding_E.dtype == torch.float32
    assert float(embedding_E.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "wave_S, words",
    [
        (torch.zeros(0), "empty"),
        (torch.zeros(24000), "silent"),
        (torch.tensor([0.1, float("nan")]), "not finite"),
        (torch.ones(2, 100), "One channel"),
    ],
)
def test_clips_without_speech_are_refused(
    embedder: Ge2eEmbedder, wave_S: torch.Tensor, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        embedder.embed(wave_S)


def test_pauses_do_not_count(embedder: Ge2eEmbedder) -> None:
    wave_S, pause_S = voice(2.4), noise(24000, 1e-4)
    framed_S = torch.cat([pause_S, wave_S, pause_S])
    assert speaker_similarity(embedder, wave_S, framed_S) > 0.97
    left_in = embedder.embed_batch(framed_S[None])[0] @ embedder.embed(wave_S)
    assert left_in < speaker_similarity(embedder, wave_S, framed_S)


def test_trimming_keeps_short_gaps_and_never_everything() -> None:
    rate = 16000
    tone_R = torch.sin(torch.arange(rate) * 0.3)
    short, long = torch.zeros(rate // 10), torch.zeros(rate)
    assert len(trim_pauses(torch.cat([tone_R, short, tone_R]))) >= 2 * rate
    assert len(trim_pauses(torch.cat([tone_R, long, tone_R]))) < 2.4 * rate
    click_R = torch.zeros(rate)
    click_R[8000] = 1.0
    assert torch.equal(trim_pauses(click_R), click_R)
    assert len(trim_pauses(torch.ones(479))) == 479


def test_wavlm_embeds_with_a_model_from_disk(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=[24] * 5,
        xvector_output_dim=12,
        classifier_proj_size=16,
    )
    transformers.WavLMForXVector(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    embedder = WavLmEmbedder(str(tmp_path))
    embedding_E = embedder.embed(voice(0.5))
    assert embedding_E.shape == (12,)
    assert float(embedding_E.norm()) == pytest.approx(1, abs=1e-5)
    # The extractor normalizes mean and level, so this network ignores loudness.
    assert speaker_similarity(embedder, voice(0.5), 0.1 * voice(0.5)) == pytest.approx(1, abs=1e-4)
    with pytest.raises(AudioError, match=r"needs 0\.4 s"):
        embedder.embed(voice(0.3))


def test_ecapa_gets_16_khz_through_speechbrain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: dict[str, Any] = {}

    class Classifier:
        @classmethod
        def from_hparams(cls, **options: Any) -> "Classifier":
            calls.update(options)
            return cls()

        def encode_batch(self, wave_BR: torch.Tensor) -> torch.Tensor:
            calls["shape"] = tuple(wave_BR.shape)
            return torch.tensor([[[3.0, 4.0]]])

    fake = types.SimpleNamespace(EncoderClassifier=Classifier)
    monkeypatch.setitem(sys.modules, "speechbrain.inference.classifiers", fake)
    embedding_E = EcapaEmbedder(str(tmp_path)).embed(voice(1.0))
    assert embedding_E.tolist() == pytest.approx([0.6, 0.8])
    assert calls["shape"] == (1, 16000)
    assert calls["overrides"] == {"pretrained_path": str(tmp_path)}


def test_absent_packages_and_models_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "speechbrain", None)
    with pytest.raises(MissingExtraError, match="speechbrain"):
        EcapaEmbedder()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers"):
        WavLmEmbedder()


def test_a_model_that_cannot_be_loaded_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(VoxcloneError, match="WavLM similarity cannot load"):
        load_pretrained("WavLMForXVector", str(tmp_path), "WavLM similarity")

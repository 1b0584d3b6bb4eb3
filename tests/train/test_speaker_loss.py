"""The speaker loss through the language model: what it trains, on what, and by what."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes.mini_release.speaker_network import save_speaker_network
from tests.helpers.tiny_speech import TinySpeech
from tests.train.tiny import CPU, config_of, language_model, tiny_material
from voxclone.codec.model import Codec
from voxclone.data.corpus import FULL_SCALE, PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.data.speakers import Sizes, SpeakerBatch, SpeakerPool, draw_speakers
from voxclone.errors import ConfigError
from voxclone.models.speaker_network import (
    SPEAKER_NETWORK_FILE,
    SpeakerNetwork,
    load_speaker_network,
)
from voxclone.release.safetensors import read_header
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train.batch import MicroBatch, item_generators
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.speaker_loss import SpeakerLoss, level_slopes, speaker_loss

SIZES = Sizes(
    items=2, negatives=1, voice_frames=(20, 40), target_frames=(16, 400), crop_frames=16,
    negative_frames=30,
)  # fmt: skip
Frozen = tuple[SpeakerLoss, Codec]


def drawn_voices() -> SpeakerNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpeakerNetwork(3, 8, 1).eval().requires_grad_(False)


@pytest.fixture
def frozen(speech_model: TinySpeech) -> Frozen:
    codec, model = language_model(speech_model)
    codec.decoder.requires_grad_(False)
    speech = speech_model.corpus.subset(lambda c: True)
    pool = SpeakerPool.of(speech, SIZES, codec.frame_size)
    return SpeakerLoss.frozen(model, drawn_voices(), pool, SIZES), codec


def batch_of(speakers: SpeakerLoss, codec: Codec, seed: int = 0) -> SpeakerBatch:
    return draw_speakers(speakers.pool, SIZES, codec.frame_size, step_generator(seed, 0))


def loss_of(speakers: SpeakerLoss, codec: Codec, part: slice) -> torch.Tensor:
    sources = item_generators(0, 0, 100, part)
    return speaker_loss(speakers, codec, batch_of(speakers, codec), part, sources)[0]


def test_the_encoder_alone_gets_gradients_and_only_its_levels(frozen: Frozen) -> None:
    speakers, codec = frozen
    encoder = codec.require_encoder()
    latents: list[torch.Tensor] = []

    def keep(module: object, given: object, latent_BDT: torch.Tensor) -> None:
        if latent_BDT.requires_grad:
            latent_BDT.retain_grad()
            latents.append(latent_BDT)

    hook = encoder.register_forward_hook(keep)
    loss_of(speakers, codec, slice(0, 2)).backward()
    hook.remove()
    (latent_BDT,) = latents  # generated speech is encoded without gradients
    assert latent_BDT.grad is not None
    semantic, acoustic = codec.quantizer.split(latent_BDT.grad)
    assert float(semantic.abs().max()) == 0 and float(acoustic.abs().max()) > 0
    still = (speakers.model.backbone, speakers.model.head, codec.decoder)
    assert all(p.grad is None for module in still for p in module.parameters())
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_row_changes_by_the_slope_of_its_levels(frozen: Frozen) -> None:
    speakers, codec = frozen
    backbone, levels = speakers.model.backbone, codec.quantizer.levels
    slope_CQD = level_slopes(backbone, levels)
    codes_QK = torch.full((levels, 1 + codec.config.acoustic_dim), SHIFT + 3)
    codes_QK[:, 2] = SHIFT + torch.arange(levels)
    row_QD = backbone.embed_codes(codes_QK).detach()
    assert torch.allclose(slope_CQD[1, 1:-1], (row_QD[2:] - row_QD[:-2]) / 2, atol=1e-6)
    assert torch.allclose(slope_CQD[1, 0], row_QD[1] - row_QD[0], atol=1e-6)
    assert torch.allclose(slope_CQD[1, -1], row_QD[-1] - row_QD[-2], atol=1e-6)


def test_parts_make_the_loss_of_the_whole(frozen: Frozen) -> None:
    speakers, codec = frozen
    with torch.no_grad():
        whole = float(loss_of(speakers, codec, slice(0, 2)))
        parts = [float(loss_of(speakers, codec, slice(i, i + 1))) for i in range(2)]
    assert abs(parts[0] - parts[1]) > 1e-4
    assert sum(parts) / 2 == pytest.approx(whole, abs=1e-4)


def test_a_model_in_half_precision_gives_the_same(frozen: Frozen) -> None:
    speakers, codec = frozen
    with torch.no_grad():
        whole = float(loss_of(speakers, codec, slice(0, 2)))
    for module in (speakers.model.backbone, speakers.model.head):
        module.to(torch.bfloat16)
    half = SpeakerLoss.frozen(speakers.model, speakers.embed, speakers.pool, SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(half, codec, slice(0, 2))
    loss.backward()
    # A level that rounds to its neighbor changes the codes from there on.
    assert float(loss.detach()) == pytest.approx(whole, rel=0.2)
    gradients = [p.grad for p in codec.require_encoder().parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def numbered_corpus() -> PackedCorpus:
    """Four clips of each of three speakers; the samples of a clip are all its number."""
    clips = [Clip(f"{s}{c}", Path("none"), s, 1.0, text=f"{s}{c}") for s in "abc" for c in range(4)]
    samples = torch.arange(1, 13, dtype=torch.int16).repeat_interleave(24000)
    return PackedCorpus(clips, [24000 * i for i in range(13)], samples.numpy())


def test_a_voice_holds_other_clips_of_its_speaker() -> None:
    corpus, frame_size = numbered_corpus(), 1000
    pool = SpeakerPool.of(corpus.subset(lambda c: True), SIZES, frame_size)
    lengths = set()
    for seed in range(20):
        batch = draw_speakers(pool, SIZES, frame_size, step_generator(seed, 0))
        speakers = []
        for voice_S, target_S, text in zip(batch.voice_IS, batch.targets, batch.texts, strict=True):
            number = round(float(target_S[0]) * FULL_SCALE)
            assert corpus.clips[number - 1].text == text and (target_S == target_S[0]).all()
            inside = set((voice_S * FULL_SCALE).round().int().tolist())
            assert number not in inside
            speakers.append({corpus.clips[i - 1].speaker for i in inside | {number}})
        negative = set((batch.negative_RS * FULL_SCALE).round().int().flatten().tolist())
        speakers.append({corpus.clips[i - 1].speaker for i in negative})
        assert all(len(each) == 1 for each in speakers) and len(set.union(*speakers)) == 3
        lengths.add(batch.voice_IS.shape[1] // frame_size)
    assert min(lengths) >= 20 and max(lengths) <= 40 and len(lengths) > 5


def training_of(
    speech_model: TinySpeech, speakers: SpeakerLoss | None, codec: Codec, **values: object
) -> EncoderTraining:
    given: dict[str, object] = {
        "run": {"steps": 8}, "speaker_loss": {"start": 2, "every": 3},
        "weights": {"speaker_contrastive": 1.0, "pair_semantic": 0, "pair_levels": 0},
    }  # fmt: skip
    speech = speech_model.corpus.subset(lambda c: True)
    material = tiny_material(speech, codec, speakers=speakers)
    return build(config_of(**(given | values)), material, CPU)


def test_a_training_has_the_loss_at_the_steps_of_its_config(
    speech_model: TinySpeech, frozen: Frozen
) -> None:
    training = training_of(speech_model, *frozen)
    rows = [training.train_step(step) for step in range(6)]
    found = ["loss/speaker_contrastive" in row for row in rows]
    assert found == [False, False, True, False, False, True]
    assert all(0 <= float(rows[i]["loss/speaker_accuracy"]) <= 1 for i in (2, 5))
    again = training_of(speech_model, *frozen)
    for step in range(6):
        same = again.train_step(step)
    name = "loss/speaker_contrastive"
    assert float(same[name]) == float(rows[5][name])


def test_a_few_clones_at_a_time_give_the_gradients_of_all_together(
    speech_model: TinySpeech, frozen: Frozen
) -> None:
    gradients = []
    for micro_batch in (1, 2):
        given = {"start": 2, "micro_batch": micro_batch}
        training = training_of(speech_model, *frozen, speaker_loss=given)
        found = training.objective.backward_speaker_loss(2, MicroBatch())
        assert float(found["speaker_contrastive"]) > 0 and 0 <= found["speaker_accuracy"] <= 1
        grads = [p.grad.flatten() for p in training.encoder.parameters() if p.grad is not None]
        gradients.append(torch.cat(grads))
    one, other = gradients
    assert float((one - other).abs().max()) < 1e-3 * float(other.abs().max()) > 0


def test_clones_need_a_speaker_encoder_and_speakers(
    speech_model: TinySpeech, frozen: Frozen
) -> None:
    speakers, codec = frozen
    with pytest.raises(ConfigError, match=r"needs a `speaker_loss.speaker_encoder`"):
        training_of(speech_model, None, codec)
    with pytest.raises(ConfigError, match=r"speakers of a step.*cannot share evenly"):
        training_of(speech_model, speakers, codec, run={"steps": 8, "micro_batches": 4},
                    real_batch=4)  # fmt: skip
    many = replace(SIZES, negatives=5)
    everything = speakers.pool.corpus.subset(lambda c: True)
    with pytest.raises(ConfigError, match=r"needs 7 speakers .* has 3"):
        SpeakerPool.of(everything, many, codec.frame_size)
    with pytest.raises(ValueError, match="crop_frames"):
        Sizes(crop_frames=40, target_frames=(30, 60))


def test_a_network_of_voices_is_kept_without_its_speakers(tmp_path: Path) -> None:
    network = drawn_voices()
    save_speaker_network(network, tmp_path / "voices")
    found = load_speaker_network(tmp_path / "voices")
    wave_BS = 0.1 * torch.randn(2, 12000, generator=torch.Generator().manual_seed(1))
    assert float((found(wave_BS) * network(wave_BS)).sum(dim=-1).min()) > 0.99
    assert not any(
        "centers" in name
        for name in read_header(tmp_path / "voices" / SPEAKER_NETWORK_FILE).tensors
    )
    with pytest.raises(ConfigError, match="cannot be read"):
        load_speaker_network(tmp_path)

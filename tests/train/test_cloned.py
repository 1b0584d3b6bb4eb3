"""Clones heard while an encoder learns: who is taught, what, and by whom."""

from pathlib import Path

import pytest
import torch

from recipes.mini_release.speech import SpeechTask
from tests.train.test_tasks import labelled
from tests.train.tiny import FAST
from voxclone.codec.model import Codec
from voxclone.config import parse_settings
from voxclone.data.corpus import FULL_SCALE, PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.errors import ConfigError
from voxclone.models.voice_network import VOICES_FILE, VoiceNetwork, load_voices, save_voices
from voxclone.release.safetensors import read_header
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train.cloned import (
    Cast,
    CloneListener,
    CloneSettings,
    Scene,
    cloned_loss,
    draw_scene,
    level_slopes,
)
from voxclone.train.encoder import EncoderTask
from voxclone.train.encoder_settings import EncoderTraining, EncoderWeights
from voxclone.train.parts import sources_of
from voxclone.train.ranks import WHOLE
from voxclone.train.run import RunSettings

SETTINGS = CloneSettings(
    items=2, strangers=1, voice_frames=(20, 40), target_frames=(16, 400), heard_frames=16,
    stranger_frames=30,
)  # fmt: skip


def drawn_voices() -> VoiceNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VoiceNetwork(3, 8, 1).eval().requires_grad_(False)


@pytest.fixture
def listener(speech_task: SpeechTask) -> tuple[CloneListener, Codec]:
    codec, model = labelled(speech_task)
    codec.decoder.requires_grad_(False)
    subset = speech_task.train.corpus.subset(lambda c: True)
    cast = Cast.of(subset, SETTINGS, codec.frame_size)
    return CloneListener.frozen(model, drawn_voices(), cast, SETTINGS), codec


def scene_of(listener: CloneListener, codec: Codec, seed: int = 0) -> Scene:
    return draw_scene(listener.cast, SETTINGS, codec.frame_size, step_generator(seed, 0))


def loss_of(listener: CloneListener, codec: Codec, part: slice) -> torch.Tensor:
    sources = sources_of(0, 0, 100, part)
    return cloned_loss(listener, codec, scene_of(listener, codec), part, sources)[0]


def test_the_encoder_alone_is_taught_and_only_its_levels(
    listener: tuple[CloneListener, Codec],
) -> None:
    ear, codec = listener
    encoder = codec.require_encoder()
    latents: list[torch.Tensor] = []

    def keep(module: object, given: object, latent_BDT: torch.Tensor) -> None:
        if latent_BDT.requires_grad:
            latent_BDT.retain_grad()
            latents.append(latent_BDT)

    hook = encoder.register_forward_hook(keep)
    loss_of(ear, codec, slice(0, 2)).backward()
    hook.remove()
    (latent_BDT,) = latents  # what is said is encoded without gradients
    assert latent_BDT.grad is not None
    semantic, acoustic = codec.quantizer.split(latent_BDT.grad)
    assert float(semantic.abs().max()) == 0 and float(acoustic.abs().max()) > 0
    frozen = (ear.model.backbone, ear.model.head, codec.decoder)
    assert all(p.grad is None for module in frozen for p in module.parameters())
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_row_changes_by_the_slope_of_its_levels(listener: tuple[CloneListener, Codec]) -> None:
    ear, codec = listener
    backbone, levels = ear.model.backbone, codec.quantizer.levels
    slope_CQD = level_slopes(backbone, levels)
    codes_QK = torch.full((levels, 1 + codec.config.acoustic_dim), SHIFT + 3)
    codes_QK[:, 2] = SHIFT + torch.arange(levels)
    row_QD = backbone.embed_codes(codes_QK).detach()
    assert torch.allclose(slope_CQD[1, 1:-1], (row_QD[2:] - row_QD[:-2]) / 2, atol=1e-6)
    assert torch.allclose(slope_CQD[1, 0], row_QD[1] - row_QD[0], atol=1e-6)
    assert torch.allclose(slope_CQD[1, -1], row_QD[-1] - row_QD[-2], atol=1e-6)


def test_parts_make_the_loss_of_the_whole(listener: tuple[CloneListener, Codec]) -> None:
    ear, codec = listener
    with torch.no_grad():
        whole = float(loss_of(ear, codec, slice(0, 2)))
        parts = [float(loss_of(ear, codec, slice(i, i + 1))) for i in range(2)]
    assert abs(parts[0] - parts[1]) > 1e-4
    assert sum(parts) / 2 == pytest.approx(whole, abs=1e-4)


def test_a_model_in_half_precision_teaches_the_same(
    listener: tuple[CloneListener, Codec],
) -> None:
    ear, codec = listener
    with torch.no_grad():
        whole = float(loss_of(ear, codec, slice(0, 2)))
    for module in (ear.model.backbone, ear.model.head):
        module.to(torch.bfloat16)
    half = CloneListener.frozen(ear.model, ear.hear, ear.cast, SETTINGS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(half, codec, slice(0, 2))
    loss.backward()
    # A level that rounds to its neighbour changes what is said from there on.
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
    cast = Cast.of(corpus.subset(lambda c: True), SETTINGS, frame_size)
    lengths = set()
    for seed in range(20):
        scene = draw_scene(cast, SETTINGS, frame_size, step_generator(seed, 0))
        speakers = []
        for voice_S, said_S, text in zip(scene.voice_IS, scene.said, scene.texts, strict=True):
            number = round(float(said_S[0]) * FULL_SCALE)
            assert corpus.clips[number - 1].text == text and (said_S == said_S[0]).all()
            inside = set((voice_S * FULL_SCALE).round().int().tolist())
            assert number not in inside
            speakers.append({corpus.clips[i - 1].speaker for i in inside | {number}})
        strange = set((scene.stranger_RS * FULL_SCALE).round().int().flatten().tolist())
        speakers.append({corpus.clips[i - 1].speaker for i in strange})
        assert all(len(each) == 1 for each in speakers) and len(set.union(*speakers)) == 3
        lengths.add(scene.voice_IS.shape[1] // frame_size)
    assert min(lengths) >= 20 and max(lengths) <= 40 and len(lengths) > 5


def task_of(
    speech_task: SpeechTask, codec: Codec, listener: CloneListener | None, **values: object
) -> EncoderTask:
    settings = EncoderTraining(
        run=RunSettings(steps=8, autocast=False),
        optimiser=FAST,
        weights=EncoderWeights(cloned=1.0, pair_semantic=0, pair_levels=0),
        clones=SETTINGS,
        real_batch=2, frames=6, real_from=0, cycle_from=99, cloned_from=2, cloned_every=3,
    ).model_copy(update=values)  # fmt: skip
    sizes = [codec.config.semantic_codebook_size]
    sizes += [codec.quantizer.levels] * codec.config.acoustic_dim
    codes_KT = torch.stack([torch.arange(9) % size for size in sizes])
    corpus = speech_task.train.corpus
    return EncoderTask.create(
        settings, codec, [codes_KT], {"p": codes_KT}, corpus, corpus.subset(lambda c: True),
        listener=listener,
    )  # fmt: skip


def test_recovery_hears_clones_when_it_is_told_to(
    speech_task: SpeechTask, listener: tuple[CloneListener, Codec]
) -> None:
    ear, codec = listener
    task = task_of(speech_task, codec, ear)
    rows = [task.train_step(step) for step in range(6)]
    assert ["loss/cloned" in row for row in rows] == [False, False, True, False, False, True]
    assert all(0 <= float(rows[i]["loss/clones_hit"]) <= 1 for i in (2, 5))
    again = task_of(speech_task, codec, ear)
    for step in range(6):
        same = again.train_step(step)
    assert float(same["loss/cloned"]) == float(rows[5]["loss/cloned"])


def test_a_few_clones_at_a_time_teach_as_all_together(
    speech_task: SpeechTask, listener: tuple[CloneListener, Codec]
) -> None:
    ear, codec = listener
    gradients = []
    for at_once in (1, 2):
        clones = SETTINGS.model_copy(update={"at_once": at_once})
        task = task_of(speech_task, codec, ear, clones=clones)
        loss, hit = task._teach_clones(2, WHOLE)
        assert float(loss) > 0 and 0 <= float(hit) <= 1
        found = [p.grad.flatten() for p in task.codec.require_encoder().parameters()]  # type: ignore[union-attr]
        gradients.append(torch.cat(found))
    one, other = gradients
    assert float((one - other).abs().max()) < 1e-3 * float(other.abs().max()) > 0


def test_clones_need_a_listener_and_speakers(
    speech_task: SpeechTask, listener: tuple[CloneListener, Codec]
) -> None:
    ear, codec = listener
    with pytest.raises(ConfigError, match="needs a `listener`"):
        task_of(speech_task, codec, None)
    with pytest.raises(ConfigError, match=r"cannot share evenly"):
        run = RunSettings(steps=8, autocast=False, accumulate=4)
        task_of(speech_task, codec, ear, run=run, real_batch=4)
    many = SETTINGS.model_copy(update={"strangers": 5})
    everything = ear.cast.corpus.subset(lambda c: True)
    with pytest.raises(ConfigError, match=r"needs 7 speakers .* has 3"):
        Cast.of(everything, many, codec.frame_size)
    with pytest.raises(ConfigError, match="heard_frames"):
        values = {"heard_frames": 40, "target_frames": [30, 60]}
        parse_settings(CloneSettings, values, "the given settings")


def test_a_network_of_voices_is_kept_without_its_speakers(tmp_path: Path) -> None:
    network = drawn_voices()
    save_voices(network, tmp_path / "voices")
    found = load_voices(tmp_path / "voices")
    wave_BS = 0.1 * torch.randn(2, 12000, generator=torch.Generator().manual_seed(1))
    assert float((found(wave_BS) * network(wave_BS)).sum(dim=-1).min()) > 0.99
    assert not any(
        "centres" in name for name in read_header(tmp_path / "voices" / VOICES_FILE).tensors
    )
    with pytest.raises(ConfigError, match="no network of voices in"):
        load_voices(tmp_path)

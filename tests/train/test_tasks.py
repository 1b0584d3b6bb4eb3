"""Each training runs, learns, and can be resumed, on a tiny corpus."""

import json
from pathlib import Path

import pytest
import torch
from recipes.mini_release.codebank import Variant, varied_wave
from recipes.mini_release.codec import CodecTask, CodecTraining, CodecWeights, update_codebook
from recipes.mini_release.recogniser import RecogniserTask, RecogniserTraining
from recipes.mini_release.speech import SpeechTask

from tests.golden.draw import drawn_codec
from tests.train.tiny import CODEC, FAST, QUIET, mean, steps
from voxclone.codec.model import Codec
from voxclone.data.augment import add_noise, colour, disperse, roughen
from voxclone.data.corpus import Corpus, PackedCorpus, step_generator
from voxclone.data.manifest import Clip
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import Recogniser, RecogniserConfig
from voxclone.train.adversary import AdversarySettings
from voxclone.train.bridge import advice, lesson
from voxclone.train.channel import (
    ChannelSettings,
    Label,
    label_clip,
    load_labels,
    save_labels,
    semantic_opinion,
    told_loss,
)
from voxclone.train.encoder import EncoderTask
from voxclone.train.encoder_settings import EncoderTraining, EncoderWeights
from voxclone.train.listeners import Listeners, VoiceNetwork, VoicesTask, VoicesTraining
from voxclone.train.log import Log
from voxclone.train.parts import TOLD
from voxclone.train.ranks import WHOLE
from voxclone.train.run import RunSettings, fit
from voxclone.train.semantic import teacher_features
from voxclone.train.told import Told
from voxclone.tts.acoustic import SHIFT
from voxclone.tts.tts import TTS


def codec_task(corpus: Corpus, folder: Path) -> CodecTask:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recogniser = Recogniser(RecogniserConfig(characters=" abc", dim=8, blocks=1)).eval()
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


def test_listeners_hear_a_difference_and_teach_what_they_hear(corpus: Corpus) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        listeners = Listeners.frozen(
            Recogniser(RecogniserConfig(characters=" abc", dim=8, blocks=2)), VoiceNetwork(3, 8, 1)
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


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    wave = torch.randn(200, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    noisy = add_noise(wave, (20.0, 20.0), torch.Generator().manual_seed(1))
    ratio = wave.square().mean() / (noisy - wave).square().mean()
    assert 10 * float(ratio.log10()) == pytest.approx(20.0, abs=1.0)


def test_dispersion_keeps_magnitudes_and_changes_phases() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[:, :1200] = wave[:, -1200:] = 0
    moved = disperse(wave, 2.0, 12, torch.Generator().manual_seed(1))
    assert (moved - wave).abs().mean() > 0.5
    before, after = torch.fft.rfft(wave).abs(), torch.fft.rfft(moved).abs()
    # a constant phase cannot turn what is real: 0 Hz and half the rate
    torch.testing.assert_close(after[:, 20:-20], before[:, 20:-20], atol=1.0, rtol=0.02)
    centre = (wave.square() * torch.arange(9600)).sum(1) / wave.square().sum(1)
    shifted = (moved.square() * torch.arange(9600)).sum(1) / moved.square().sum(1)
    assert (shifted - centre).abs().max() < 24  # a millisecond: no delay as a whole


def test_a_colour_is_a_smooth_filter_of_the_speakers_own() -> None:
    wave_BS = torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))
    made_BS = colour(wave_BS, 4.0, torch.Generator().manual_seed(1), 24000)
    ratio_BF = torch.fft.rfft(made_BS).abs() / torch.fft.rfft(wave_BS).abs()
    level_BF = 20 * ratio_BF.log10()
    assert torch.allclose(made_BS.square().mean(1), wave_BS.square().mean(1), rtol=1e-3)
    assert (
        level_BF.diff(dim=1).abs().max() < 0.02 and float(level_BF[0].max() - level_BF[0].min()) > 4
    )
    assert torch.allclose(level_BF[0], level_BF[1], atol=0.2)  # one filter for the batch
    codec = drawn_codec(CODEC)
    first, again, other = (
        varied_wave(wave_BS[0], who, Variant(1.0, 0.0, 1), codec) for who in ("a", "a", "b")
    )
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-2)


def test_roughening_changes_texture_and_keeps_level() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[2] = 0
    rough = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert rough.shape == wave.shape and torch.equal(rough[2], wave[2])
    torch.testing.assert_close(rough.square().mean(1), wave.square().mean(1), rtol=1e-3, atol=1e-6)
    assert 0.01 < (rough - wave)[:2].square().mean() < 2
    again = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert torch.equal(rough, again)


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


def encoder_task(corpus: Corpus, **weights: float) -> EncoderTask:
    codec = drawn_codec(CODEC)
    # A code that is hardly used has an enormous vector, and a loss that hides all others.
    codec.quantizer.semantic_codebook.cluster_usage.clamp_(min=0.5)
    generator = torch.Generator().manual_seed(0)
    genuine = [
        torch.cat(
            [
                torch.randint(16, (1, 9), generator=generator),
                torch.randint(5, 16, (3, 9), generator=generator),
            ]
        )
        for _ in range(6)
    ]
    settings = EncoderTraining(
        run=RunSettings(steps=40, autocast=False),
        optimiser=FAST,
        weights=EncoderWeights(**weights),
        pair_batch=2,
        real_batch=2,
        frames=6,
        real_from=3,
        cycle_from=5,
    )
    subset = corpus.subset(lambda c: c.split == "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = Recogniser(RecogniserConfig(characters=" abc", dim=8, blocks=1))
    held_out = {"p": genuine[0]}
    return EncoderTask.create(settings, codec, genuine, held_out, corpus, subset, teacher)


def test_the_bridge_learns_from_pairs_and_advises_on_real_speech(corpus: Corpus) -> None:
    task = encoder_task(corpus, bridge=0.5)
    bridge = task.bridge
    assert bridge is not None
    book = task.codec.quantizer.semantic_codebook
    codes_BKT = torch.stack(list(task.genuine))
    wave_BS = task.codec.decode(codes_BKT)
    mask_BT = torch.ones(len(codes_BKT), codes_BKT.shape[2], dtype=torch.bool)
    before = lesson(bridge, book, wave_BS, codes_BKT[:, 0], mask_BT).item()
    rows = steps(task, 40)
    assert lesson(bridge, book, wave_BS, codes_BKT[:, 0], mask_BT).item() < before
    assert rows[-1]["loss/bridge"] > 0 and "loss/bridge" not in rows[0]
    semantic_BDT = torch.zeros(len(codes_BKT), CODEC.semantic_dim, 9, requires_grad=True)
    advice(bridge, book, wave_BS, semantic_BDT).backward()
    assert semantic_BDT.grad is not None and bool(semantic_BDT.grad.abs().sum() > 0)
    assert all(p.grad is None for p in bridge.parameters())
    with pytest.raises(ConfigError, match="needs a `teacher`"):
        EncoderTask.create(task.settings, task.codec, task.genuine, {}, corpus, task.train, None)


def test_recovery_learns_with_every_loss_on(corpus: Corpus, tmp_path: Path) -> None:
    task = encoder_task(
        corpus, critic=0.1, level_prior=0.5, usage_prior=0.1, code_means=0.1, commitment=0.1,
        stft=0.1, low=0.1, robust_semantic=0.1, robust_levels=0.2, bridge=0.1,
    )  # fmt: skip
    before = {k: v.clone() for k, v in task.codec.decoder.state_dict().items()}
    rows = steps(task, 40)
    assert mean(rows[-10:], "loss/pair_semantic") < 0.7 * mean(rows[:10], "loss/pair_semantic")
    weights = task.settings.weights.model_dump(exclude={"waveform"})
    assert {f"loss/{name}" for name, value in weights.items() if value} <= set(rows[-1])
    after = task.codec.decoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the decoder moved"
    figures = task.validate(40, Log(tmp_path))
    assert 0 <= figures["preset/within_one"] <= 1 and figures["real/codes_in_use"] >= 1


def test_recovery_starts_from_nothing_of_a_given_encoder(corpus: Corpus) -> None:
    task = encoder_task(corpus)
    given = drawn_codec(CODEC).require_encoder().state_dict()
    made = task.codec.require_encoder().state_dict()
    assert not any(torch.equal(given[name], made[name]) for name in given if "original1" in name)


def labelled(speech_task: SpeechTask) -> tuple[Codec, TTS]:
    codec = drawn_codec(speech_task.params.codec).eval()
    model = TTS(
        speech_task.params, speech_task.backbone.eval(), speech_task.head, codec,
        speech_task.prompts,
    )  # fmt: skip
    return codec, model


def test_labels_are_the_product_of_what_is_heard_and_what_is_said(
    speech_task: SpeechTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, model = labelled(speech_task)
    corpus = speech_task.train.corpus
    codes_KT = codec.encode(corpus.wave(0)[None])[0]

    def sure(*args: object) -> torch.Tensor:
        opinion_TV = torch.full((codes_KT.shape[1], codec.config.semantic_codebook_size), -50.0)
        opinion_TV[:, 3] = 0.0
        return opinion_TV

    alone = ChannelSettings(model=0.0, kept=2)
    label = label_clip(codec, None, model, corpus, 0, 1, alone)
    assert torch.equal(label.code_TJ[:, 0], codes_KT[0])
    assert torch.allclose(label.weight_TJ.sum(dim=-1), torch.ones(len(label.code_TJ)))
    monkeypatch.setattr("voxclone.train.channel.semantic_opinion", sure)
    told = label_clip(codec, None, model, corpus, 0, 1, ChannelSettings(encoder=0.0, model=1.0))
    assert (told.code_TJ[:, 0] == 3).all()


def test_the_model_is_asked_as_it_was_trained(speech_task: SpeechTask) -> None:
    """The same logits as in training, for the same voice, text and codes."""
    _, model = labelled(speech_task)
    generator = step_generator(0, 0)
    data = speech_task.train
    example = data.draw(speech_task.settings, generator, data.subset.weights(0.0))
    batch = speech_task.sequences([example])
    backbone, head = speech_task.backbone, speech_task.head
    with torch.no_grad():
        embedded = torch.where(
            batch.is_code_BL[..., None],
            backbone.embed_codes(batch.codes_BLK),
            backbone.text_table(batch.ids_BL),
        )
        hidden_ND = backbone(embedded)[batch.item_N, batch.place_N]
        text = bytes(i - 40 for i in example.text_ids).decode()
        found_TV = semantic_opinion(model, example.voice_TK.T, text, example.target_TK + SHIFT)
        size = head.semantic_size
        wanted_TV = head.semantic_logits(hidden_ND[:-1])[:, SHIFT : SHIFT + size].log_softmax(-1)
    assert torch.allclose(found_TV, wanted_TV, atol=1e-4)


def test_what_is_told_ends_with_the_clip() -> None:
    book = drawn_codec(CODEC).quantizer.semantic_codebook
    codes_T = torch.tensor([1, 2, 3])
    label = Label(codes_T[:, None], torch.ones(3, 1))
    vectors_VD = book.vectors()
    right_BDT = vectors_VD[codes_T].T[None].clone()
    assert told_loss(book, right_BDT, [label], [0], 0) < 0.1
    late_BDT = vectors_VD[torch.tensor([2, 3, 9])].T[None].clone()
    assert told_loss(book, late_BDT, [label], [1], 0) < 0.1  # the third frame is beyond the end
    assert told_loss(book, late_BDT, [label], [0], 0) > 1.0


def test_what_is_told_of_frames_without_a_past_does_not_count() -> None:
    book = drawn_codec(CODEC).quantizer.semantic_codebook
    codes_T = torch.arange(8) % 3
    label = Label(codes_T[:, None], torch.ones(8, 1))
    crop_BDT = book.vectors()[torch.tensor([9, 9, *codes_T[4:7].tolist()])].T[None].clone()
    assert (
        told_loss(book, crop_BDT, [label], [2], 2)
        < 0.1
        < 1.0
        < (told_loss(book, crop_BDT, [label], [2], 1))
    )
    assert told_loss(book, crop_BDT, [label], [0], 2) > 1.0  # nothing comes before a beginning
    assert told_loss(book, crop_BDT, [label], [6], 5) == 0.0  # the clip ends before


def test_crops_that_are_told_are_read_with_their_past(
    speech_task: SpeechTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that count are those of the whole clip."""
    codec, model = labelled(speech_task)
    train = speech_task.train.subset
    corpus, size = train.corpus, codec.frame_size
    settings = EncoderTraining(
        run=RunSettings(steps=9), told_batch=8, frames=3, channel=ChannelSettings(at=(0,))
    )
    label = Label(torch.zeros(400, 1, dtype=torch.long), torch.ones(400, 1))
    seen = []

    def loss(book: object, semantic_BDT: torch.Tensor, *given: object) -> torch.Tensor:
        seen.append((semantic_BDT, *given))
        return torch.zeros(())

    monkeypatch.setattr("voxclone.train.told.told_loss", loss)
    told = Told(settings, model, tmp_path, train)
    told.hold(dict.fromkeys(train.indices, label))
    told.loss(0, WHOLE, codec)
    ((semantic_BDT, _, starts, history),) = seen
    assert history == codec.config.encoder_history and semantic_BDT.shape[-1] == history + 3
    within = [row for row, start in enumerate(starts) if start]
    assert within
    drawn = train.crops(8, (history + 3) * size, step_generator(0, 0, TOLD), train.weights(0.7),
                        grid=size)  # fmt: skip
    for row in within:
        whole_BDT, _ = codec.quantizer.split(codec.latents(corpus.wave(drawn.indices[row])[None]))
        part = slice(starts[row] + history, starts[row] + history + 3)
        torch.testing.assert_close(
            semantic_BDT[row, :, history:], whole_BDT[0, :, part], atol=1e-4, rtol=1e-3
        )


def test_recovery_is_told_and_goes_on_from_its_labels(
    speech_task: SpeechTask, tmp_path: Path
) -> None:
    codec, model = labelled(speech_task)
    corpus = speech_task.train.corpus
    generator = torch.Generator().manual_seed(0)
    books = [codec.config.semantic_codebook_size]
    books += [codec.quantizer.levels] * codec.config.acoustic_dim
    genuine = [
        torch.stack([torch.randint(size, (9,), generator=generator) for size in books])
        for _ in range(4)
    ]

    def task() -> EncoderTask:
        settings = EncoderTraining(
            run=RunSettings(steps=8, autocast=False),
            optimiser=FAST,
            weights=EncoderWeights(told=0.5),
            pair_batch=2, real_batch=2, told_batch=2, frames=6, real_from=0, cycle_from=99,
            channel=ChannelSettings(at=(2, 5), clips=3),
        )  # fmt: skip
        return EncoderTask.create(
            settings, codec, genuine, {"p": genuine[0]}, corpus, corpus.subset(lambda c: True),
            None, model, tmp_path,
        )  # fmt: skip

    whole = task()
    rows = [whole.train_step(step) for step in range(6)]
    assert ["loss/told" in row for row in rows] == [False, False, True, True, True, True]
    assert sorted(path.name for path in tmp_path.glob("labels-*")) == [
        "labels-0000002.safetensors", "labels-0000005.safetensors",
    ]  # fmt: skip
    again = task()
    again.train_step(4)
    assert again.told is not None
    first, clips = load_labels(tmp_path / "labels-0000002.safetensors")
    assert again.told.labels.keys() == first.keys()
    stale = {i: Label(torch.zeros_like(each.code_TJ), each.weight_TJ) for i, each in first.items()}
    save_labels(tmp_path / "labels-0000002.safetensors", stale, clips)  # of another encoder, say
    anew = task()
    for step in range(3):
        anew.train_step(step)
    assert anew.told is not None and anew.told.labels.keys() == first.keys()
    assert all(torch.equal(anew.told.labels[i].code_TJ, each.code_TJ) for i, each in first.items())
    save_labels(tmp_path / "labels-0000002.safetensors", first, "others")
    with pytest.raises(ConfigError, match="labels of other clips"):
        task().train_step(4)
    (tmp_path / "labels-0000002.safetensors").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        task().train_step(4)
    with pytest.raises(ConfigError, match="steps in"):
        EncoderTask.create(
            again.settings, codec, genuine, {}, corpus, again.train, None, None, None
        )


def test_the_paper_s_losses_are_balanced_and_learn(corpus: Corpus) -> None:
    task = encoder_task(
        corpus, pair_semantic=0, pair_levels=0, cycle_semantic=0, cycle_levels=0, mel=2.0, l1=1.0,
        stft=1.0, feature=1.0, distil=1.0, diversity=0.1, scale=0.1, shaping=0.1,
    )  # fmt: skip
    settings = task.settings.model_copy(
        update={
            "balance": True, "fade": 0.9, "real_from": 0, "cycle_from": 99,
            "adversary": AdversarySettings(n_ffts=(64, 32), channels=2), "adversary_from": 2,
        }
    )  # fmt: skip
    held_out = {"p": task.genuine[0]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = Recogniser(RecogniserConfig(characters=" abc", dim=8, blocks=1))
    task = EncoderTask.create(
        settings, task.codec, task.genuine, held_out, corpus, task.train, teacher
    )
    before = task.real.distillation.projection.weight.clone()  # type: ignore[union-attr]
    rows = steps(task, 30)
    names = {"loss/mel", "loss/l1", "loss/stft", "loss/distil", "loss/diversity", "loss/scale",
             "loss/shaping", "loss/waveform"}  # fmt: skip
    assert names <= set(rows[0]) and "loss/feature" not in rows[1] and "loss/hinge" in rows[2]
    assert mean(rows[-5:], "loss/scale") < mean(rows[:5], "loss/scale")
    assert not torch.equal(before, task.real.distillation.projection.weight)  # type: ignore[union-attr]
    assert set(task.state.values["balancer"]) == {"mel", "l1", "stft", "feature"}
    json.dumps(task.state.values)

"""Each training runs, learns, and can be resumed, on a tiny corpus."""

import json
from pathlib import Path

import pytest
import torch

from recipes.mini_release.codec import CodecTask, CodecTraining, CodecWeights
from recipes.mini_release.speech import SpeechTask
from tests.golden.draw import drawn_codec
from tests.train.tiny import CODEC, FAST, mean, steps
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import Recogniser, RecogniserConfig
from voxclone.models.voice_network import VoiceNetwork
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train.adversary import AdversarySettings
from voxclone.train.bridge import advice, lesson
from voxclone.train.channel import (
    ChannelSettings,
    Label,
    label_clip,
    load_labels,
    save_labels,
    told_loss,
)
from voxclone.train.encoder import EncoderTask
from voxclone.train.encoder_settings import EncoderTraining, EncoderWeights
from voxclone.train.listeners import Listeners
from voxclone.train.log import Log
from voxclone.train.parts import TOLD
from voxclone.train.ranks import WHOLE
from voxclone.train.run import RunSettings
from voxclone.train.told import Told
from voxclone.tts.likelihood import semantic_opinion
from voxclone.tts.tts import TTS


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
    monkeypatch.setattr("voxclone.tts.likelihood.semantic_opinion", sure)
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

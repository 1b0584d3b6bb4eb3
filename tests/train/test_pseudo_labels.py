"""Pseudo-labels: what they are made of, which frames count, and how a run reads them again."""

from pathlib import Path

import pytest
import torch

from tests.helpers.random_weights import drawn_codec
from tests.helpers.tiny_speech import TinySpeech
from tests.train.tiny import CODEC, CPU, config_of, language_model, with_model
from voxclone.data.labels import Label, load_labels, save_labels
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train.batch import LABELED, MicroBatch
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.pseudo_labels import Exponents, label_clip, pseudo_label_loss
from voxclone.tts.likelihood import semantic_log_probs


def test_labels_are_the_product_of_encoder_and_model(
    speech_model: TinySpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, model = language_model(speech_model)
    corpus = speech_model.corpus
    codes_KT = codec.encode(corpus.wave(0)[None])[0]

    def sure(*args: object) -> torch.Tensor:
        log_TV = torch.full((codes_KT.shape[1], codec.config.semantic_codebook_size), -50.0)
        log_TV[:, 3] = 0.0
        return log_TV

    label = label_clip(codec, model, corpus, 0, 1, Exponents(model=0.0), top_k=2)
    assert torch.equal(label.code_TJ[:, 0], codes_KT[0])
    assert torch.allclose(label.weight_TJ.sum(dim=-1), torch.ones(len(label.code_TJ)))
    monkeypatch.setattr("voxclone.train.pseudo_labels.semantic_log_probs", sure)
    label = label_clip(codec, model, corpus, 0, 1, Exponents(encoder=0.0, model=1.0))
    assert (label.code_TJ[:, 0] == 3).all()


def test_the_model_is_asked_as_it_was_trained(speech_model: TinySpeech) -> None:
    """The same logits as in training, for the same voice, text and codes."""
    _, model = language_model(speech_model)
    example = speech_model.example()
    batch = speech_model.batch(example)
    backbone, head = speech_model.backbone, speech_model.head
    with torch.no_grad():
        embedded = torch.where(
            batch.is_code_BL[..., None],
            backbone.embed_codes(batch.codes_BLK),
            backbone.text_table(batch.ids_BL),
        )
        hidden_ND = backbone(embedded)[batch.item_N, batch.position_N]
        text = bytes(i - 40 for i in example.text_ids).decode()
        found_TV = semantic_log_probs(model, example.voice_TK.T, text, example.target_TK + SHIFT)
        size = head.semantic_size
        wanted_TV = head.semantic_logits(hidden_ND[:-1])[:, SHIFT : SHIFT + size].log_softmax(-1)
    assert torch.allclose(found_TV, wanted_TV, atol=1e-4)


def test_labels_end_with_the_clip() -> None:
    book = drawn_codec(CODEC).quantizer.semantic_codebook
    codes_T = torch.tensor([1, 2, 3])
    label = Label(codes_T[:, None], torch.ones(3, 1))
    vectors_VD = book.vectors()
    right_BDT = vectors_VD[codes_T].T[None].clone()
    assert pseudo_label_loss(book, right_BDT, [label], [0], 0) < 0.1
    late_BDT = vectors_VD[torch.tensor([2, 3, 9])].T[None].clone()
    assert pseudo_label_loss(book, late_BDT, [label], [1], 0) < 0.1  # the third is beyond the end
    assert pseudo_label_loss(book, late_BDT, [label], [0], 0) > 1.0


def test_frames_without_their_left_context_do_not_count() -> None:
    book = drawn_codec(CODEC).quantizer.semantic_codebook
    codes_T = torch.arange(8) % 3
    label = Label(codes_T[:, None], torch.ones(8, 1))
    crop_BDT = book.vectors()[torch.tensor([9, 9, *codes_T[4:7].tolist()])].T[None].clone()

    def loss(start: int, left_context: int) -> float:
        return float(pseudo_label_loss(book, crop_BDT, [label], [start], left_context))

    assert loss(2, 2) < 0.1 < 1.0 < loss(2, 1)
    assert loss(0, 2) > 1.0  # nothing comes before a beginning
    assert loss(6, 5) == 0.0  # the clip ends before


def test_labeled_crops_are_read_with_their_left_context(
    speech_model: TinySpeech, tmp_path: Path
) -> None:
    """The frames that count are those of the whole clip."""
    material = with_model(speech_model, tmp_path)
    config = config_of(
        run={"steps": 9}, frames=3, weights={"pseudo_label": 1.0},
        pseudo_labels={"label_steps": [0], "batch": 8},
    )  # fmt: skip
    objective = build(config, material, CPU).objective
    codec, speech = objective.codec.eval(), material.speech
    corpus, size, past = speech.corpus, codec.frame_size, codec.config.encoder_history
    assert objective.labels is not None and objective.left_context == past
    label = Label(torch.zeros(400, 1, dtype=torch.long), torch.ones(400, 1))
    objective.labels.hold(dict.fromkeys(speech.indices, label))
    labeled = objective.encode_labeled(objective.draw(0, MicroBatch()).labeled)
    assert labeled is not None
    crops, semantic_BDT = labeled
    assert semantic_BDT.shape[-1] == past + 3
    within = [row for row, start in enumerate(crops.starts) if start]
    assert within
    drawn = speech.crops(8, (past + 3) * size, step_generator(0, 0, LABELED), speech.weights(0.7),
                         grid=size)  # fmt: skip
    assert drawn.starts == crops.starts
    for row in within:
        whole_BDT, _ = codec.quantizer.split(codec.latents(corpus.wave(crops.indices[row])[None]))
        start = crops.starts[row] // size + past
        torch.testing.assert_close(
            semantic_BDT[row, :, past:], whole_BDT[0, :, start : start + 3], atol=1e-4, rtol=1e-3
        )


def test_a_training_labels_and_reads_its_labels_again(
    speech_model: TinySpeech, tmp_path: Path
) -> None:
    material = with_model(speech_model, tmp_path)
    config = config_of(
        run={"steps": 8}, weights={"pseudo_label": 0.5},
        pseudo_labels={"label_steps": [2, 5], "clips": 3, "batch": 2},
    )  # fmt: skip

    def training() -> EncoderTraining:
        return build(config, material, CPU)

    def labels_of(found: EncoderTraining) -> dict[int, Label]:
        assert found.objective.labels is not None
        return found.objective.labels.labels

    whole = training()
    rows = [whole.train_step(step) for step in range(6)]
    found = ["loss/pseudo_label" in row for row in rows]
    assert found == [False, False, True, True, True, True]
    path = tmp_path / "labels-0000002.safetensors"
    assert sorted(tmp_path.glob("labels-*")) == [path, tmp_path / "labels-0000005.safetensors"]
    again = training()
    again.train_step(4)
    first, clips = load_labels(path)
    assert labels_of(again).keys() == first.keys()
    stale = {i: Label(torch.zeros_like(each.code_TJ), each.weight_TJ) for i, each in first.items()}
    save_labels(path, stale, clips)  # of another encoder, say
    anew = training()
    for step in range(3):
        anew.train_step(step)
    assert labels_of(anew).keys() == first.keys()
    assert all(torch.equal(labels_of(anew)[i].code_TJ, each.code_TJ) for i, each in first.items())
    save_labels(path, first, "others")
    with pytest.raises(ConfigError, match="labels of other clips"):
        training().train_step(4)
    path.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        training().train_step(4)
    with pytest.raises(ConfigError, match="needs steps in"):
        build(config_of(weights={"pseudo_label": 0.5}), material, CPU)
    with pytest.raises(ConfigError, match="needs the release's language model"):
        build(config, with_model(speech_model, None), CPU)

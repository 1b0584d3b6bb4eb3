"""The language model's training: what it reads, what is changed in it, and that it learns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.mini_release.corruption import add_code_noise, choose, drop_history, frames_of
from recipes.mini_release.crops import device_generator
from recipes.mini_release.language_model import attention_loss, forward
from recipes.mini_release.speech import TRAIN, SpeechTask
from recipes.mini_release.speech_data import encode_corpus, pack, wave_at
from tests.helpers.random_weights import drawn_codec
from tests.recipes.conftest import make_speech_task
from tests.train.tiny import CODEC, CPU, QUIET, mean, steps
from voxclone.data.corpus import Corpus
from voxclone.spec import AUDIO, EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.train.logging import Log
from voxclone.train.loop import fit
from voxclone.train.sequences import length_of
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import invert_embedding

Tensors = dict[str, torch.Tensor]


def inputs_of(task: SpeechTask, step: int = 0) -> Tensors:
    """A batch, and the numbers of a step."""
    _, batch = task.train[step]
    return batch | task.draw(batch, device_generator(0, step, TRAIN, CPU))


def test_the_forward_of_fixed_shape_is_the_backbone(speech_task: SpeechTask) -> None:
    """States are the runtime's, and attention is that of the guided layer."""
    backbone, generator = speech_task.backbone, torch.Generator().manual_seed(0)
    embedded_BLD = torch.randn(2, 11, speech_task.params.lm.dim, generator=generator)
    given: list[Any] = []
    layer: Any = backbone.model.layers[2]
    hook = layer.self_attn.register_forward_hook(lambda m, inputs, output: given.append(output[1]))
    with torch.no_grad():
        wanted_BLD = backbone(embedded_BLD)
        found_BLD, attention_BHLL = forward(backbone, embedded_BLD, 2, 2)
    hook.remove()
    torch.testing.assert_close(found_BLD, wanted_BLD, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention_BHLL, given[0][:, :2], atol=1e-6, rtol=1e-5)


def test_heads_that_look_at_the_character_have_no_loss() -> None:
    attention = torch.zeros(1, 2, 6, 6)
    attention[:, :, 4, 2], attention[:, :, 5, 0] = 1.0, 1.0
    character = torch.tensor([[-1, -1, -1, -1, 2, 3]])
    predicts = torch.tensor([[False, False, False, False, True, False]])
    assert float(attention_loss(attention, character, predicts)) == pytest.approx(0, abs=1e-3)
    predicts[0, 5] = True
    assert float(attention_loss(attention, character, predicts)) > 4


def test_a_packed_batch_is_the_prompt_of_the_runtime(speech_task: SpeechTask) -> None:
    """Training reads exactly what generation will: ids, the voice with its END, text, codes."""
    example = speech_task.train.data.draw(np.random.default_rng(0))
    length = length_of(example) + 5
    batch = pack([example], speech_task.train.prompts, speech_task.params, length)
    rows, frames = len(example.voice_TK) + 1, len(example.target_TK)
    text = bytes(i - 64 for i in example.text_ids).decode()
    expected = speech_task.train.prompts.ids(text, rows).tolist()
    for position, wanted in enumerate(expected):
        assert bool(batch["is_code"][0, position]) == (wanted == AUDIO)
        assert wanted == AUDIO or int(batch["ids"][0, position]) == wanted
    begin = len(expected)
    end = [END_AUDIO] + [EMPTY_AUDIO] * (example.target_TK.shape[1] - 1)
    assert batch["codes"][0, 1 + rows].tolist() == end
    assert torch.equal(batch["codes"][0, begin : begin + frames], example.target_TK.short() + SHIFT)
    predicts = torch.zeros(length, dtype=torch.bool)
    predicts[begin - 1 : begin + frames] = True
    assert torch.equal(batch["predicts"][0], predicts)
    target = batch["target"][0, begin - 1 : begin + frames]
    assert torch.equal(target[:-1], example.target_TK.short() + SHIFT)
    assert target[-1].tolist() == end
    known = [int(p) for p in batch["character"][0, begin - 1 : begin + frames - 1] if p >= 0]
    assert all(int(batch["ids"][0, p]) in example.text_ids for p in known)


def test_batches_are_functions_of_the_step(speech_task: SpeechTask) -> None:
    shapes = speech_task.settings.examples.shapes
    found = []
    for step in range(30):
        number, batch = speech_task.train[step]
        again, same = speech_task.train[step]
        assert number == again and all(torch.equal(batch[name], same[name]) for name in batch)
        assert batch["ids"].shape == shapes[number]
        found.append(number)
    assert set(found) == {0, 1}


def test_items_are_drawn_as_often_as_examples_have_their_length(speech_task: SpeechTask) -> None:
    batches = speech_task.train
    rng, shapes = np.random.default_rng(0), speech_task.settings.examples.shapes
    long = np.mean([length_of(batches.data.draw(rng)) > shapes[0][1] for _ in range(600)])
    numbers = [batches[step][0] for step in range(150)]
    items = [shapes[number][0] for number in numbers]
    share = sum(i for i, number in zip(items, numbers, strict=True) if number == 1) / sum(items)
    assert share == pytest.approx(long, abs=0.12)


def test_clips_are_encoded_alone_at_every_speed(corpus: Corpus, tmp_path: Path) -> None:
    codec = drawn_codec(CODEC)
    codes = encode_corpus(codec, corpus, (1.0, 1.1), tmp_path)
    for each in codes:
        wave_S = wave_at(corpus.wave(5), each.speed, codec.frame_size)
        alone_TK = codec.encode(wave_S[None])[0].T
        assert torch.equal(torch.from_numpy(each.clip(5)).long(), alone_TK)
    assert len(codes[1].clip(5)) < len(codes[0].clip(5))
    files = sorted(tmp_path.iterdir())
    encode_corpus(codec, corpus, (1.0, 1.1), tmp_path)
    assert sorted(tmp_path.iterdir()) == files and len(files) == 2


def test_rows_of_neighboring_levels_begin_as_neighbors(speech_task: SpeechTask) -> None:
    backbone = speech_task.backbone
    table_VD = backbone.audio_table.weight.detach()
    offsets = backbone.offsets_K.tolist()
    first_D, second_D, last_D = (table_VD[offsets[1] + SHIFT + level] for level in (0, 1, 20))
    assert (first_D - second_D).norm() < 0.5 * (first_D - last_D).norm()
    books = len(offsets)
    codes_KT = torch.randint(0, 16, (books, 12), generator=torch.Generator().manual_seed(0))
    embedding_ND = embed_codes(codes_KT, table_VD.bfloat16(), offsets)
    found = invert_embedding(embedding_ND, table_VD.bfloat16(), offsets, [16, *[21] * (books - 1)])
    assert found.exact_T.all() and torch.equal(found.codes_KT, codes_KT)


def test_noise_moves_levels_by_one_and_leaves_special_codes(speech_task: SpeechTask) -> None:
    inputs = inputs_of(speech_task)
    codes_BLK = inputs["codes"].long()
    noisy = add_code_noise(inputs, 21, level_share=0.5, semantic_share=0.0)
    assert torch.equal(noisy[..., 0], codes_BLK[..., 0])
    ordinary_BL = codes_BLK[..., 0] >= SHIFT
    assert torch.equal(noisy[~ordinary_BL], codes_BLK[~ordinary_BL])
    apart = (noisy - codes_BLK)[ordinary_BL][:, 1:].abs()
    assert int(apart.max()) == 1 and 0.3 < float(apart.float().mean()) < 0.6
    noisy = add_code_noise(inputs, 21, level_share=0.0, semantic_share=1.0)
    assert torch.equal(noisy[..., 1:], codes_BLK[..., 1:])
    other = noisy[ordinary_BL][:, 0]
    assert int(other.min()) >= SHIFT and float((other != codes_BLK[ordinary_BL][:, 0]).sum()) > 0


def test_only_levels_already_spoken_are_dropped(speech_task: SpeechTask) -> None:
    inputs = inputs_of(speech_task)
    codes_BLK = inputs["codes"].long()
    assert torch.equal(drop_history(inputs, codes_BLK, items_share=0.0), codes_BLK)
    dropped = drop_history(inputs, codes_BLK, items_share=1.0)
    changed_BL = (dropped != codes_BLK).any(dim=-1)
    spoken_BL = torch.zeros_like(changed_BL)
    spoken_BL[:, 1:] = frames_of(inputs)[:, :-1]
    assert changed_BL.any() and not (changed_BL & ~spoken_BL).any()
    assert (dropped[changed_BL][:, 1:] == EMPTY_AUDIO).all()
    assert torch.equal(dropped[..., 0], codes_BLK[..., 0])


def test_scheduled_sampling_changes_levels_of_frames_of_the_last_items(
    speech_task: SpeechTask,
) -> None:
    """Semantic codes, voices and other items stay; a level is what the head draws."""
    inputs = inputs_of(speech_task)
    codes_BLK = inputs["codes"].long()
    sampled = speech_task._sample_levels(inputs, codes_BLK)
    items = len(inputs["sampled_guidance"])
    assert torch.equal(sampled[..., 0], codes_BLK[..., 0])
    assert torch.equal(sampled[:-items], codes_BLK[:-items])
    changed_BL = (sampled != codes_BLK).any(dim=-1)
    frame_BL = torch.zeros_like(changed_BL)
    frame_BL[:, 1:] = frames_of(inputs)[:, :-1]
    assert changed_BL.any() and not (changed_BL & ~frame_BL).any()
    levels = sampled[changed_BL][:, 1:] - SHIFT
    assert int(levels.min()) >= 0 and int(levels.max()) < speech_task.head.levels
    part = {n: inputs[n][-items:] for n in ("predicts", "target")}
    at_N, chosen_N = choose(frames_of(part), inputs["sampled_key"], len(inputs["sampled_noise"]))
    assert bool(chosen_N[0])
    row, place = divmod(int(at_N[0]), codes_BLK.shape[1])
    with torch.no_grad():
        embedded = speech_task._embed(inputs, codes_BLK)[-items:]
        hidden_D = speech_task.backbone(embedded)[row, place]
        low, high = speech_task.settings.guidance
        guidance = float(low + (high - low) * inputs["sampled_guidance"][row])
        noise_1C = inputs["sampled_noise"][:1]
        drawn_K = speech_task.head(hidden_D[None], noise_1C, guidance)[0]
    assert torch.equal(sampled[len(sampled) - items + row, place + 1, 1:], drawn_K[1:])


def test_the_flow_loss_is_of_frames_alone(speech_task: SpeechTask) -> None:
    """Written out for every frame: the error of where the velocity points to."""
    inputs, head = inputs_of(speech_task), speech_task.head
    generator = torch.Generator().manual_seed(0)
    hidden_BLD = torch.randn(*inputs["ids"].shape, speech_task.params.lm.dim, generator=generator)
    at_N, chosen_N = choose(frames_of(inputs), inputs["flow_key"], len(inputs["flow_noise"]))
    errors = []
    with torch.no_grad():
        found = speech_task._flow_loss(inputs, hidden_BLD, noisy=False)
        for n in chosen_N.nonzero()[:, 0].tolist():
            level_1C = inputs["target"].flatten(0, 1)[at_N[n], None, 1:].long() - SHIFT
            data_1C, noise_1C = level_1C / 10 - 1, inputs["flow_noise"][n, None]
            time_1 = inputs["flow_time"][n, None]
            point_1C = time_1 * data_1C + (1 - time_1) * noise_1C
            given_1D = head.llm_projection(hidden_BLD.flatten(0, 1)[at_N[n], None])
            velocity_1C = head.velocity(point_1C, head.time_token(time_1), given_1D)
            reached_1C = point_1C + (1 - time_1) * velocity_1C
            errors.append(float((reached_1C - data_1C).square().mean()))
    assert len(errors) > 20 and float(found) == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_speech_training_learns_before_and_with_sampling(
    speech_task: SpeechTask, tmp_path: Path
) -> None:
    rows = steps(speech_task, 24)
    for name in ("loss/semantic", "loss/flow", "loss/attention"):
        assert mean(rows[-8:], name) < mean(rows[:8], name), name
    metrics = speech_task.validate(24, Log(tmp_path))
    assert {"valid/semantic", "valid/flow", "valid/semantic_hit", "valid/step"} <= set(metrics)
    assert {sampled for _, sampled in speech_task._steps} == {False, True}


def test_speech_training_resumes_bit_identically(corpus: Corpus, tmp_path: Path) -> None:
    whole = make_speech_task(corpus, tmp_path)
    settings = whole.settings.run
    fit(whole, settings, tmp_path / "a", resume=True, config={}, console=QUIET)
    limited = settings.model_copy(update={"max_minutes": 0.0})  # stops after every step
    first = make_speech_task(corpus, tmp_path)
    for step in (1, 2):
        outcome = fit(first, limited, tmp_path / "b", resume=True, config={}, console=QUIET)
        assert outcome.step == step and outcome.reason == "time"
        first = make_speech_task(corpus, tmp_path)
    fit(first, settings, tmp_path / "b", resume=True, config={}, console=QUIET)
    for name, value in whole.state.tensors().items():
        assert torch.equal(value, first.state.tensors()[name]), name


def test_workers_make_the_batches_of_a_training_without(corpus: Corpus, tmp_path: Path) -> None:
    alone, helped = (make_speech_task(corpus, tmp_path) for _ in range(2))
    helped.workers = 2
    for step in range(3):
        (a, near), (b, far) = alone._batch(step), helped._batch(step)
        assert a == b and all(torch.equal(near[name], far[name]) for name in near)

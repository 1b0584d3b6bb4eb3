"""The language model's training: what it reads, what it rehearses, and that it learns."""

import dataclasses
from pathlib import Path

import pytest
import torch

from recipes.mini_release.codebank import Variant, encode_corpus, varied_wave
from recipes.mini_release.rehearsal import VoiceJudge, forget, misread, stretches, voice_distance
from recipes.mini_release.speech import SpeechTask
from tests.helpers.random_weights import drawn_codec
from tests.train.tiny import CODEC, mean, steps
from voxclone.data.corpus import Corpus
from voxclone.errors import ConfigError
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.rng import step_generator
from voxclone.spec import EMPTY_AUDIO, SHIFT
from voxclone.train.logging import Log
from voxclone.train.sequences import Batch, scheduled_sampling
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import invert_embedding


def test_speech_training_learns(speech_task: SpeechTask, tmp_path: Path) -> None:
    rows = steps(speech_task, 40)
    for name in ("loss/semantic", "loss/flow", "loss/guide"):
        assert mean(rows[-10:], name) < mean(rows[:10], name), name
    figures = speech_task.validate(40, Log(tmp_path))
    assert {"valid_matched/semantic", "valid_shuffled/semantic"} <= set(figures)


def test_a_clip_without_words_is_cut_into_voice_and_speech(speech_task: SpeechTask) -> None:
    data = dataclasses.replace(speech_task.train, wordless=speech_task.train.subset)
    settings = speech_task.settings.model_copy(update={"wordless_share": 1.0})
    weights = data.subset.weights(0.0)
    clips = [
        data.bank.clip(variant, index)
        for variant in range(len(data.bank.variants))
        for index in data.subset.indices
    ]
    for seed in range(20):
        example = data.draw(settings, step_generator(seed, 0), weights)
        whole = torch.cat([example.voice_TK, example.target_TK])
        assert example.text_ids == [] and (example.places_T == -1).all()
        assert any(len(c) == len(whole) and torch.equal(c, whole) for c in clips)
        assert 5 <= len(example.voice_TK) <= 20 and len(example.target_TK) >= 4
        batch = speech_task.sequences([example])
        assert batch.target_NK.shape[0] == len(example.target_TK) + 1


def test_a_batch_of_one_length_has_hardly_any_padding(speech_task: SpeechTask) -> None:
    data, settings = speech_task.train, speech_task.settings
    weights = data.subset.weights(0.0)
    generator = step_generator(0, 0)
    for _ in range(20):
        example = data.draw(settings, generator, weights, 60)
        rest = len(example.text_ids) + len(example.target_TK) + 6
        assert len(example.voice_TK) == max(5, min(20, 60 - rest))


def test_a_batch_is_the_prompt_of_the_runtime(speech_task: SpeechTask) -> None:
    """Training reads exactly what generation will: ids, voice rows with their END, text, codes."""
    settings = speech_task.settings
    generator = step_generator(0, 0)
    data = speech_task.train
    example = data.draw(settings, generator, data.subset.weights(0.0))
    batch = speech_task.sequences([example])
    rows = len(example.voice_TK) + 1
    prompt_ids = list(batch.ids_BL[0])
    place = int(batch.place_N[0])
    expected = speech_task.prompts.ids(bytes(i - 40 for i in example.text_ids).decode(), rows)
    assert place + 1 == len(expected)
    for position, wanted in enumerate(expected.tolist()):
        if wanted == 24:
            assert bool(batch.is_code_BL[0, position])
        else:
            assert int(prompt_ids[position]) == wanted and not batch.is_code_BL[0, position]
    end = batch.codes_BLK[0, 1 + rows]
    assert end.tolist() == [1] + [0] * (end.numel() - 1)
    assert batch.target_NK[-1].tolist() == end.tolist()
    assert torch.equal(batch.target_NK[:-1], example.target_TK + 2)
    assert torch.equal(batch.codes_BLK[0, place + 1 : place + 1 + len(example.target_TK)],
                       example.target_TK + 2)  # fmt: skip


def test_variants_of_a_clip_are_encoded_alone(corpus: Corpus, tmp_path: Path) -> None:
    codec = drawn_codec(CODEC)
    variants = [Variant(1.0, 0.0), Variant(1.1, 0.5), Variant(0.9, 0.0, 1)]
    bank = encode_corpus(codec, corpus, [0, 5], variants, tmp_path)
    for number, variant in enumerate(variants):
        wave = varied_wave(corpus.wave(5), corpus.clips[5].speaker, variant, codec)
        alone = codec.encode(wave[None])[0].T
        assert torch.equal(bank.clip(number, 5), alone)
        assert len(bank.clip(number, 1)) == 0
    assert len(bank.clip(1, 5)) < len(bank.clip(0, 5))


def test_rows_of_neighbouring_levels_begin_as_neighbours(speech_task: SpeechTask) -> None:
    table_VD = speech_task.backbone.audio_table.weight.detach()
    offset = int(speech_task.backbone.offsets_K[1]) + 2
    first_D, second_D, last_D = (table_VD[offset + level] for level in (0, 1, 20))
    assert (first_D - second_D).norm() < 0.5 * (first_D - last_D).norm()
    books = len(speech_task.backbone.offsets_K)
    codes_KT = torch.randint(0, 16, (books, 12), generator=torch.Generator().manual_seed(0))
    offsets = speech_task.backbone.offsets_K.tolist()
    rows_ND = embed_codes(codes_KT, table_VD.bfloat16(), offsets)
    found = invert_embedding(rows_ND, table_VD.bfloat16(), offsets, [16, *[21] * (books - 1)])
    assert found.exact_T.all() and torch.equal(found.codes_KT, codes_KT)


def test_only_levels_already_said_are_forgotten(speech_task: SpeechTask) -> None:
    data = speech_task.train
    generator = step_generator(0, 0)
    weights = data.subset.weights(0.0)
    batch = speech_task.sequences(
        [data.draw(speech_task.settings, generator, weights) for _ in range(8)]
    )
    kept = forget(batch, batch.codes_BLK, step_generator(1, 0), share=0.0)
    assert torch.equal(kept, batch.codes_BLK)
    gone = forget(batch, batch.codes_BLK, step_generator(1, 0), share=1.0)
    changed_BL = (gone != batch.codes_BLK).any(dim=-1)
    said_BL = torch.zeros_like(changed_BL)
    said_BL[batch.item_N, batch.place_N] = True
    assert changed_BL.any() and not (changed_BL & ~said_BL).any()
    assert (gone[changed_BL][:, 1:] == EMPTY_AUDIO).all()
    assert torch.equal(gone[..., 0], batch.codes_BLK[..., 0])


def test_misread_levels_are_neighbours_and_special_codes_stay(speech_task: SpeechTask) -> None:
    data = speech_task.train
    generator = step_generator(0, 0)
    example = data.draw(speech_task.settings, generator, data.subset.weights(0.0))
    codes_BLK = speech_task.sequences([example]).codes_BLK
    noisy = misread(
        codes_BLK, step_generator(2, 0), params=speech_task.params, levels=0.5, semantic=0.0
    )
    assert torch.equal(noisy[..., 0], codes_BLK[..., 0])
    ordinary_BL = codes_BLK[..., 0] >= SHIFT
    assert torch.equal(noisy[~ordinary_BL], codes_BLK[~ordinary_BL])
    apart = (noisy - codes_BLK)[ordinary_BL][:, 1:].abs()
    assert int(apart.max()) == 1 and 0.3 < float(apart.float().mean()) < 0.6


@pytest.fixture
def hearing_task(speech_task: SpeechTask) -> SpeechTask:
    """With a judge of voices, whose weights are drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        voices = SpeakerNetwork(3, 8, 1)
    codec = drawn_codec(speech_task.params.codec)
    settings = speech_task.settings.model_copy(
        update={"rehearsed": 0.5, "heard": 1.0, "heard_items": 4, "heard_frames": 20}
    )
    judge = VoiceJudge.frozen(codec, voices)
    return dataclasses.replace(speech_task, settings=settings, judge=judge)


def some_batch(task: SpeechTask, items: int = 8) -> Batch:
    data = task.train
    generator, weights = step_generator(0, 0), data.subset.weights(0.0)
    return task.sequences([data.draw(task.settings, generator, weights) for _ in range(items)])


def noise_of(task: SpeechTask, batch: Batch) -> torch.Tensor:
    return torch.randn(len(batch.item_N), task.head.channels, generator=step_generator(1, 0))


def test_only_levels_of_what_was_said_are_rehearsed(speech_task: SpeechTask) -> None:
    batch = some_batch(speech_task)
    hidden_ND = torch.randn(len(batch.item_N), speech_task.params.lm.dim)
    guidance_B = torch.tensor([1.0, 0.0, 2.5, 0.0, 1.0, 1.0, 0.0, 3.0])
    said_BLK = scheduled_sampling(
        batch,
        batch.codes_BLK,
        hidden_ND,
        guidance_B,
        speech_task.head,
        noise_of(speech_task, batch),
    )
    changed_BL = (said_BLK != batch.codes_BLK).any(dim=-1)
    target_BL = torch.zeros_like(changed_BL)
    frame_N = batch.target_NK[:, 0] >= SHIFT
    target_BL[batch.item_N[frame_N], batch.place_N[frame_N] + 1] = True
    target_BL &= (guidance_B > 0)[:, None]
    # A drawn frame that equals the true one in all its levels is not to be expected.
    assert torch.equal(changed_BL, target_BL)
    assert torch.equal(said_BLK[..., 0], batch.codes_BLK[..., 0])
    levels = said_BLK[target_BL][:, 1:] - SHIFT
    assert int(levels.min()) >= 0 and int(levels.max()) < speech_task.head.levels


def test_a_rehearsed_level_is_what_the_head_draws(speech_task: SpeechTask) -> None:
    """One frame, the same noise: the level that generation would give."""
    batch, head = some_batch(speech_task, 1), speech_task.head
    hidden_ND = torch.randn(len(batch.item_N), speech_task.params.lm.dim)
    noise_NC = noise_of(speech_task, batch)
    said_BLK = scheduled_sampling(
        batch, batch.codes_BLK, hidden_ND, torch.tensor([2.0]), head, noise_NC
    )
    frames = len(batch.item_N) - 1
    with torch.no_grad():
        drawn_NK = head(hidden_ND[:-1], noise_NC[:-1], 2.0, batch.target_NK[:-1, 0])
    place = int(batch.place_N[0]) + 1
    assert torch.equal(said_BLK[0, place : place + frames], drawn_NK)


def test_a_stretch_lies_within_one_item_and_before_its_end(speech_task: SpeechTask) -> None:
    batch = some_batch(speech_task)
    lengths = batch.item_N.bincount() - 1
    for seed in range(20):
        rows_IT = stretches(batch, 3, 30, step_generator(seed, 0))
        assert len(rows_IT) == min(3, int((lengths >= 30).sum())) > 0
        assert (batch.item_N[rows_IT] == batch.item_N[rows_IT][:, :1]).all()
        assert len(set(batch.item_N[rows_IT[:, 0]].tolist())) == len(rows_IT)
        assert (rows_IT.diff(dim=1) == 1).all()
        assert (batch.target_NK[rows_IT][..., 0] >= SHIFT).all()
    assert stretches(batch, 3, 10_000, step_generator(0, 0)).shape == (0, 10_000)


def test_a_voice_is_nearest_to_itself(hearing_task: SpeechTask) -> None:
    judge, batch = hearing_task.judge, some_batch(hearing_task)
    assert judge is not None
    rows_IT = stretches(batch, 4, 20, step_generator(0, 0))
    target_ITK = batch.target_NK[rows_IT] - SHIFT
    true_ICT = judge.codec.quantizer.values_of(target_ITK[..., 1:]).transpose(1, 2)
    semantic_IT = target_ITK[..., 0]
    own = float(judge.distance(semantic_IT, true_ICT, true_ICT))
    swapped = float(judge.distance(semantic_IT, true_ICT.roll(1, dims=0), true_ICT))
    assert own == pytest.approx(0, abs=1e-6) and swapped > 1e-4


def test_what_is_heard_teaches_head_and_model_alone(hearing_task: SpeechTask) -> None:
    judge, batch = hearing_task.judge, some_batch(hearing_task)
    assert judge is not None
    hidden_ND = torch.randn(len(batch.item_N), hearing_task.params.lm.dim, requires_grad=True)
    rows_IT = stretches(batch, 4, 20, step_generator(0, 0))
    guidance_I = torch.full((len(rows_IT),), 2.0)
    loss = voice_distance(
        judge, batch, hidden_ND, rows_IT, guidance_I, hearing_task.head, step_generator(1, 0)
    )
    loss.backward()
    assert hidden_ND.grad is not None
    touched_N = hidden_ND.grad.abs().sum(dim=-1) > 0
    wanted_N = torch.zeros_like(touched_N)
    wanted_N[rows_IT.flatten()] = True
    # Where all values of a frame are beyond -1 and 1, nothing passes.
    assert not (touched_N & ~wanted_N).any() and touched_N.sum() > 0.5 * wanted_N.sum()
    assert all(p.grad is None for m in (judge.codec, judge.voices) for p in m.parameters())
    gradients = [p.grad for p in hearing_task.head.layers.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_speech_training_rehearses_and_hears(hearing_task: SpeechTask, tmp_path: Path) -> None:
    rows = steps(hearing_task, 40)
    for name in ("loss/semantic", "loss/flow", "loss/heard"):
        assert mean(rows[-10:], name) < mean(rows[:10], name), name
    figures = hearing_task.validate(40, Log(tmp_path))
    assert {"valid_own/semantic", "valid_matched/heard", "valid_shuffled/heard"} <= set(figures)


def test_there_is_nothing_to_hear_before_a_model_can_speak(hearing_task: SpeechTask) -> None:
    later = hearing_task.settings.model_copy(update={"rehearse_from": 2})
    task = dataclasses.replace(hearing_task, settings=later)
    assert ["loss/heard" in row for row in steps(task, 3)] == [False, False, True]


def test_hearing_needs_a_judge(speech_task: SpeechTask) -> None:
    settings = speech_task.settings.model_copy(update={"heard": 1.0})
    with pytest.raises(ConfigError, match="judge of voices"):
        SpeechTask.create(
            settings, speech_task.params, speech_task.train, speech_task.valid, speech_task.prompts
        )

"""Each defect of the published recipe does its harm, in training alone, and only when it is on."""

from pathlib import Path

import pytest
import torch

from tests.evaluate.test_wer import _save_whisper
from tests.golden.draw import drawn_codec
from tests.train.test_recipes import tiny_task
from tests.train.test_tasks import CODEC
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.models.whisper import WhisperTeacher
from voxclone.train.asr_distillation import TargetStore
from voxclone.train.defects import (
    LAYER_SCALE,
    Defects,
    commitment_of_all,
    install,
    misalign,
    squeeze,
    start_plainly,
)
from voxclone.train.initial import initialise, match_codebook
from voxclone.train.semantic import Distillation


def speech_like(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sick_codec(**switches: bool) -> Codec:
    codec = drawn_codec(CODEC)
    install(codec.require_encoder(), Defects.model_validate(switches))
    return codec.train()


def test_without_defects_nothing_is_changed() -> None:
    codec, plain = sick_codec(), drawn_codec(CODEC).train()
    wave_BS = speech_like(3, 19200)
    assert torch.equal(codec.require_encoder()(wave_BS), plain.require_encoder()(wave_BS))


def test_two_tanhs_leave_levels_2_to_18_and_the_served_encoder_has_one() -> None:
    codec = sick_codec(double_tanh=True)
    encoder = codec.require_encoder()
    last = encoder.encoder_blocks[-1].conv.parametrizations.weight  # type: ignore[union-attr]
    last.original0.data *= 1000  # latents beyond all bounds
    wave_BS = speech_like(3, 96000)
    with torch.no_grad():
        levels = codec.quantizer.encode(encoder(wave_BS))[:, 1:]
        assert levels.min() == 2 and levels.max() == 18
        codec.eval()
        served = codec.encode(wave_BS)[:, 1:]
    assert served.min() == 0 and served.max() == 20


def test_items_of_a_batch_attend_to_each_other() -> None:
    encoder = sick_codec(batch_leak=True).require_encoder()
    wave_BS, other_BS = speech_like(2, 9600), speech_like(2, 9600, seed=1)
    mixed_BS = torch.stack([other_BS[0], wave_BS[1]])
    with torch.no_grad():
        with_one, with_another = encoder(wave_BS), encoder(mixed_BS)
        assert (with_one[1] - with_another[1]).abs().max() > 1e-4
        encoder.eval()
        torch.testing.assert_close(encoder(wave_BS)[1], encoder(mixed_BS)[1], atol=1e-5, rtol=0)
        alone = encoder(wave_BS[1:])[0]
        torch.testing.assert_close(encoder(wave_BS)[1], alone, atol=1e-5, rtol=0)
        # the first item has none before it
        torch.testing.assert_close(with_one[0], encoder(wave_BS[:1])[0], atol=1e-5, rtol=0)


def test_squeezed_states_come_too_early_and_end_too_soon() -> None:
    frames, rate = 100, 12.5  # 8 s
    states_BTRE = torch.zeros(1, frames, 1, frames)
    states_BTRE[0, :, 0] = torch.eye(frames)
    squeezed_BTRE = squeeze(states_BTRE, rate)
    heard_T = squeezed_BTRE.abs().sum(dim=(0, 2, 3)) > 0
    assert heard_T.nonzero()[-1] == 26  # 8 s / 30 s of the frames
    assert squeezed_BTRE[0, 20, 0].argmax() == 75  # 3.75 times too early
    whole = torch.zeros(1, 375, 1, 2) + torch.arange(375)[None, :, None, None]
    assert torch.equal(squeeze(whole, rate), whole)  # 30 s are not squeezed
    generator = torch.Generator().manual_seed(0)
    said_BDT = torch.randn(1, 4, frames, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        distillation = Distillation(4, 4, 1)
    with torch.no_grad():
        torch.nn.init.eye_(distillation.projection.weight)
        distillation.projection.bias.zero_()
        states_BTRE = said_BDT.transpose(1, 2)[:, :, None]
        assert distillation(said_BDT, states_BTRE) < 1e-5
        assert distillation(said_BDT, squeeze(states_BTRE, rate)) > 0.5


def test_whisper_s_words_are_squeezed_by_the_padding(tmp_path: Path) -> None:
    _save_whisper(tmp_path)
    teacher = WhisperTeacher(str(tmp_path), heads=[(0, 0)])
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    attention = torch.full((1, 1, 4, 1500), 1e-4)
    for token in range(4):  # said in the four quarters of 2 s, 100 encoder frames
        attention[0, 0, token, token * 25 : (token + 1) * 25] = 1.0
    shares = {}
    for squeezed in (False, True):
        misalign(teacher, Defects(squeezed_alignment=squeezed))
        forward = type(teacher._model).forward

        def looking(self, *args, _forward=forward, **options):  # type: ignore[no-untyped-def]
            output = _forward(self, *args, **options)
            tokens = output.decoder_hidden_states[-1].shape[1]
            parts = [attention[:, :, i * 4 // tokens] for i in range(tokens)]
            output.cross_attentions = tuple(
                torch.stack(parts, dim=2) for _ in output.cross_attentions
            )
            return output

        teacher._model.forward = looking.__get__(teacher._model)
        share_LT = teacher.targets(wave_S, 24, "we went", "en").share_LT
        del teacher._model.forward
        shares[squeezed] = int(share_LT[-1].argmax())
    assert shares[False] >= 18 and shares[True] <= 2


def test_all_heads_of_the_last_layer_and_other_targets_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    _save_whisper(tmp_path / "model")
    teacher = WhisperTeacher(str(tmp_path / "model"), heads=[(0, 0)])
    store = TargetStore(teacher, tmp_path / "targets")
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    store.targets(wave_S, 25, "we went")
    misalign(teacher, Defects(squeezed_alignment=True))
    store.targets(wave_S, 25, "we went")
    misalign(teacher, Defects(every_head=True))
    assert not teacher.squeezed and teacher.heads == teacher.last_heads() != [(0, 0)]
    store.targets(wave_S, 25, "we went")
    assert len(list((tmp_path / "targets").rglob("*.safetensors"))) == 3


def test_commitment_of_all_channels_draws_values_to_the_middle() -> None:
    quantizer = drawn_codec(CODEC).quantizer
    latent_BDT = torch.full((1, CODEC.latent_dim, 5), 0.6, requires_grad=True)
    codes_BKT = quantizer.encode(latent_BDT.detach())
    commitment_of_all(quantizer, latent_BDT, codes_BKT).backward()
    assert latent_BDT.grad is not None
    # tanh(0.6) is 0.54: what was read lies nearer to zero, and descent goes there
    assert bool((latent_BDT.grad[:, CODEC.semantic_dim :] > 0).all())


def test_a_plain_start_has_one_code_and_a_matched_one_many() -> None:
    codec = drawn_codec(CODEC)
    book = codec.quantizer.semantic_codebook
    generator = torch.Generator().manual_seed(0)
    vectors_VD = 13.6 * torch.randn(book.embedding_sum.shape, generator=generator)
    book.cluster_usage.fill_(1.0)
    book.embedding_sum.copy_(vectors_VD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CODEC.model_copy(update={"layer_scale_init": 0.01})
        plain, matched = Codec(config), Codec(config)
    start_plainly(plain.require_encoder())
    initialise(matched, 1)
    match_codebook(matched.require_encoder(), book)
    wave_BS = speech_like(4, 48000)
    used = []
    with torch.no_grad():
        for fresh in (plain, matched):
            latent_BDT = fresh.require_encoder()(wave_BS)
            semantic_BDT, _ = codec.quantizer.split(latent_BDT)
            used.append(len(book.encode(semantic_BDT).unique()))
            named = fresh.require_encoder().named_parameters()
            scales = [p for n, p in named if n.endswith("_scale")]
            plainly = all(bool((p == LAYER_SCALE).all()) for p in scales)
            assert plainly == (fresh is plain)
        assert 0.3 < float(semantic_BDT.std() / vectors_VD.std()) < 3
    assert used[0] == 1 and used[1] > 5


@pytest.mark.parametrize(
    "switch", ["double_tanh", "batch_leak", "squeezed_alignment", "before_quantising",
               "commit_levels", "plain_start", "cut_features"],
)  # fmt: skip
def test_each_switch_reaches_the_training(switch: str, corpus: Corpus, tmp_path: Path) -> None:
    """With one defect alone, the training takes another way."""
    base = ["whisper=null", "match_codebook=false", "balance=false", "adversary_from=0"]
    ways = []
    for on in (False, True):
        task = tiny_task(
            "community_v3_mended", corpus, tmp_path, *base, f"defects.{switch}={str(on).lower()}"
        )
        figures = task.train_step(0)
        ways.append({name: float(value.detach()) for name, value in figures.items()})
    assert ways[0] != ways[1]
    if switch == "cut_features":
        assert ways[0]["loss/feature"] > 0
        assert ways[1]["loss/total"] < ways[0]["loss/total"]

"""Losses, alignment, priors, adversary: small laws."""

from typing import Any

import numpy as np
import pytest
import torch

from recipes.mini_release.alignment import align, character_places
from recipes.mini_release.guide import attention_of
from tests.golden.draw import drawn_codec
from tests.release.tiny import tiny_params
from tests.train.test_tasks import CODEC
from voxclone.audio.distance import magnitude_loss, mel_loss
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train.adversary import Adversary, AdversarySettings, feature_loss, hinge_loss
from voxclone.train.critic import CodeCritic, critic_loss, fooling_loss
from voxclone.train.initial import filter_bank, initialise
from voxclone.train.losses import code_losses, low_loss, stft_loss
from voxclone.train.priors import (
    CodeMeans,
    CodePriors,
    diversity_loss,
    level_loss,
    scale_loss,
    shaping_loss,
    usage_loss,
)
from voxclone.train.waveform import Balancer, speaker_loss, waveform_losses
from voxclone.tts.backbone import Backbone


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def magnitudes_apart(made: torch.Tensor, wave: torch.Tensor) -> torch.Tensor:
    return magnitude_loss(made, wave, (1024,))


@pytest.mark.parametrize("loss", [mel_loss, stft_loss, low_loss, magnitudes_apart])
def test_wave_losses_are_zero_for_equal_and_grow_with_noise(loss) -> None:  # type: ignore[no-untyped-def]
    wave = noise(2, 9600) * 0.1
    values = [float(loss(wave + noise(2, 9600, seed=1) * n, wave)) for n in (0, 0.01, 0.1)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[0] < values[1] < values[2]


def test_the_speaker_loss_teaches_the_waveform_and_leaves_silence_alone() -> None:
    embedder = Ge2eEmbedder.load()
    time = torch.arange(48000) / 24000
    voices = [
        sum(torch.sin(2 * torch.pi * pitch * h * time) / h for h in range(1, 20)) * 0.1
        for pitch in (100, 210)
    ]
    wave_BS = torch.stack([voices[0], torch.zeros(48000)])
    made_BS = torch.stack([voices[1], 0.01 * noise(48000)]).requires_grad_()
    loss = speaker_loss(embedder, made_BS, wave_BS)
    assert loss > 0.1 and float(speaker_loss(embedder, wave_BS, wave_BS)) < 1e-5
    loss.backward()
    assert made_BS.grad is not None
    assert made_BS.grad[0].abs().sum() > 0 and made_BS.grad[1].abs().sum() == 0
    assert all(p.grad is None for p in embedder.parameters())
    nearer = made_BS.detach() - 1e-3 * made_BS.grad / made_BS.grad.norm() * made_BS[0].norm()
    assert speaker_loss(embedder, nearer, wave_BS) < loss
    assert float(speaker_loss(embedder, made_BS, torch.zeros(2, 48000))) == 0
    with pytest.raises(ValueError, match="needs an embedder"):
        waveform_losses(made_BS, wave_BS, {"speaker": 1.0})


def test_low_loss_hears_phases_of_low_tones_and_nothing_high() -> None:
    time = torch.arange(24000) / 24000
    tone = torch.sin(2 * torch.pi * 120 * time)[None]
    hiss = 0.3 * torch.sin(2 * torch.pi * 6000 * time)[None]
    assert float(low_loss(-tone, tone)) == pytest.approx(4, rel=1e-3)
    assert float(low_loss(tone + hiss, tone)) < 1e-3


def test_a_floor_makes_noise_of_pauses_count_little() -> None:
    quiet = [1e-4 * noise(1, 9600, seed=seed) for seed in (0, 1)]
    for loss in (mel_loss, stft_loss):
        heard, floored = (float(loss(quiet[0], quiet[1], floor=f)) for f in (0.0, 0.1))
        assert floored < (0.4 if loss is mel_loss else 1.0) * heard


def test_mel_loss_has_a_gradient_in_silence() -> None:
    wave = torch.zeros(1, 4800, requires_grad=True)
    mel_loss(wave, noise(1, 4800) * 0.1).backward()
    assert wave.grad is not None and bool(torch.isfinite(wave.grad).all())


def test_code_losses_vanish_at_the_true_codes_and_a_step_leads_there() -> None:
    quantizer = drawn_codec(CODEC).quantizer
    codes = torch.cat([torch.randint(16, (2, 1, 7)), torch.randint(3, 18, (2, 3, 7))], dim=1)
    codes[codes[:, :1].expand_as(codes) == 3] = 4  # vector 3 has no usage and lies far away
    target = quantizer.decode(codes)
    exact = torch.cat([target[:, :6], torch.atanh(target[:, 6:])], dim=1)
    at_truth = code_losses(quantizer, exact, codes)
    assert float(at_truth.levels) == pytest.approx(0, abs=1e-6)
    latent = (exact + noise(*exact.shape)).requires_grad_()
    away = code_losses(quantizer, latent, codes)
    assert away.semantic > at_truth.semantic and away.levels > at_truth.levels
    (away.semantic + away.levels).backward()
    assert latent.grad is not None
    moved = code_losses(quantizer, latent.detach() - 0.05 * latent.grad, codes)
    assert moved.semantic < away.semantic and moved.levels < away.levels


def test_code_losses_leave_masked_frames_out() -> None:
    quantizer = drawn_codec(CODEC).quantizer
    codes = torch.ones(1, 4, 6, dtype=torch.long)
    latent = noise(1, 9, 6)
    mask = torch.tensor([[True, True, True, False, False, False]])
    masked = code_losses(quantizer, latent, codes, mask_BT=mask)
    short = code_losses(quantizer, latent[..., :3], codes[..., :3])
    torch.testing.assert_close(masked.semantic, short.semantic)
    torch.testing.assert_close(masked.levels, short.levels)


def test_alignment_finds_the_frames_of_each_character() -> None:
    path = [0, 0, 1, 1, 0, 2, 0, 2, 2, 0, 3]
    log_probs = np.full((len(path), 4), np.log(0.01))
    log_probs[np.arange(len(path)), path] = np.log(0.97)
    assert align(log_probs, [1, 2, 2, 3]) is not None
    assert align(log_probs, [1, 2, 2, 3]).tolist() == [2, 5, 7, 10]  # type: ignore[union-attr]
    assert align(log_probs[:3], [1, 2, 2, 3]) is None
    assert align(log_probs, []) is None


def test_places_of_normalised_characters_in_the_text() -> None:
    text, normal = "\u201cWe, the DOGS!\u201d", "we the dogs"
    places = character_places(text, normal)
    letters = [text[p].lower() for p, c in zip(places, normal, strict=True) if c != " "]
    assert "".join(letters) == normal.replace(" ", "")
    assert places == sorted(places)


def test_priors_are_zero_for_genuine_codes_and_see_drift() -> None:
    codec = drawn_codec(CODEC)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(6, 15, (3, 4000), generator=generator)
    genuine = [torch.cat([torch.randint(16, (1, 4000), generator=generator), levels])]
    priors = CodePriors.from_codes(codec, genuine)
    values = codec.quantizer.values_of(levels)[None]
    latent = torch.cat([torch.zeros(1, 6, 4000), torch.atanh(values)], dim=1)
    own = float(level_loss(priors, codec.quantizer, latent))
    drifted = float(level_loss(priors, codec.quantizer, latent + 0.3))
    saturated = float(level_loss(priors, codec.quantizer, latent * 5))
    assert own < 0.02 and drifted > 5 * own and saturated > 5 * own
    usage = codec.quantizer.semantic_codebook.cluster_usage
    drawn = torch.multinomial(usage, 4000, replacement=True, generator=generator)
    spread = codec.quantizer.semantic_codebook.decode(drawn[None])
    acoustic = torch.zeros(1, 3, 4000)
    good = usage_loss(priors, codec.quantizer, torch.cat([spread, acoustic], dim=1))
    one = codec.quantizer.semantic_codebook.decode(torch.zeros(1, 4000, dtype=torch.long))
    collapsed = usage_loss(priors, codec.quantizer, torch.cat([one, acoustic], dim=1))
    assert float(collapsed) > 2 * float(good) + 0.5


def test_what_the_latents_of_a_code_have_in_common_is_drawn_to_its_vector() -> None:
    quantizer = drawn_codec(CODEC).quantizer
    book = quantizer.semantic_codebook
    book.cluster_usage.clamp_(min=0.5)  # a code that is hardly used has an enormous vector
    codes_N = torch.randint(16, (6000,), generator=torch.Generator().manual_seed(0))
    vectors_ND = book.vectors()[codes_N]
    apart = torch.cdist(book.vectors(), book.vectors()) + 1e9 * torch.eye(16)
    about_ND = 0.2 * apart.min() / CODEC.semantic_dim**0.5 * noise(6000, CODEC.semantic_dim)
    common_D = 0.3 * apart.min() / CODEC.semantic_dim**0.5 * torch.ones(CODEC.semantic_dim)

    def found(latent_ND: torch.Tensor) -> tuple[float, torch.Tensor]:
        means = CodeMeans(quantizer)
        acoustic = torch.zeros(1, CODEC.acoustic_dim, 6000)
        given = torch.cat([latent_ND.T[None], acoustic], dim=1).requires_grad_()
        for part in given.split(1000, dim=-1):  # the running mean of several batches
            loss = means.loss(quantizer, part)
        loss.backward()
        assert given.grad is not None
        return loss.item(), given.grad[0, : CODEC.semantic_dim, 5000:]

    good, still = found(vectors_ND + about_ND)
    bad, drawn = found(vectors_ND + about_ND + common_D)
    assert bad > 20 * good
    assert (drawn > 0).all()  # descent goes back, for all latents alike
    assert still.abs().max() < 0.2 * drawn.abs().min() * 2
    with torch.autocast("cpu", torch.bfloat16):  # a latent has the code that the quantizer gives it
        means, given = CodeMeans(quantizer), 3 * noise(1, CODEC.latent_dim, 3000)
        means.loss(quantizer, given)
    counts_V = torch.bincount(quantizer.encode(given)[0, 0], minlength=16)
    assert torch.equal(means.count_V, counts_V.float())
    means = CodeMeans(quantizer)
    means.loss(quantizer, torch.full((1, CODEC.latent_dim, 4), torch.nan))
    assert torch.isfinite(means.sum_VD).all()  # a step that is skipped leaves no trace


def test_critic_and_adversary_learn_to_tell_two_kinds() -> None:
    critic = CodeCritic(CODEC, width=16)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    genuine, claimed = noise(4, 9, 12) + 1, noise(4, 9, 12, seed=1)
    mask = torch.ones(4, 12, dtype=torch.bool)
    for _ in range(30):
        loss = critic_loss(critic(genuine), critic(claimed), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.0
    assert fooling_loss(critic(genuine)).item() < fooling_loss(critic(claimed)).item()

    adversary = Adversary(AdversarySettings(n_ffts=(128,), channels=4))
    real, fake = noise(2, 2400) * 0.1, noise(2, 2400, seed=2).cumsum(-1) * 0.01
    assert feature_loss(adversary(real), adversary(real)).item() == 0
    assert feature_loss(adversary(real), adversary(fake)).item() > 0
    optimiser = torch.optim.Adam(adversary.parameters(), 1e-2)
    first = None
    for _ in range(20):
        loss = hinge_loss(adversary(real), adversary(fake))
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first is not None and loss.item() < first


def test_guided_attention_is_the_layer_s_own() -> None:
    """Recomputed for two heads, it equals what the layer gives with unfused attention."""
    params = tiny_params()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(params, attention="eager")
        embedded_BLD = torch.randn(2, 11, params.lm.dim)
    layer = backbone.model.layers[-1].self_attn
    given: list[torch.Tensor] = []
    taken: dict[str, Any] = {}
    layer.register_forward_hook(lambda module, inputs, output: given.append(output[1]))
    layer.register_forward_pre_hook(lambda m, i, named: taken.update(named), with_kwargs=True)
    backbone(embedded_BLD)
    own = attention_of(layer, taken["hidden_states"], taken["position_embeddings"], 2)
    torch.testing.assert_close(own, given[0][:, :2])


@pytest.mark.parametrize("weight_norm", [True, False])
def test_first_weights_keep_signals_near_their_size(weight_norm: bool) -> None:
    config = CodecConfig(
        semantic_dim=16, acoustic_dim=16, dim=48, hidden_dim=96, head_dim=16, n_heads=3,
        n_kv_heads=3, semantic_codebook_size=32, layer_scale_init=0.3,
        conv_weight_norm=weight_norm,
    )  # fmt: skip
    codec = Codec(config)
    initialise(codec, seed=3)
    wave = 0.05 * noise(2, 24000)
    sizes = []
    for block in [*codec.require_encoder().encoder_blocks[:-1], *codec.decoder.decoder_blocks]:
        block.register_forward_hook(lambda m, i, o: sizes.append(o.std().item()))
    with torch.no_grad():
        latent = codec.require_encoder()(wave)
        decoded = codec.decoder(0.5 * noise(2, 32, 13))
    assert 0.3 < latent.std().item() < 1.5
    assert 0.02 < decoded.std().item() < 0.15
    assert all(0.5 < size < 3 for size in sizes), sizes
    again = Codec(config)
    initialise(again, seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(codec.parameters(), again.parameters(), strict=True)
    )


def test_the_first_convolution_hears_pitch_and_the_last_sounds_from_its_own_patch() -> None:
    config = CodecConfig(dim=144, hidden_dim=96, head_dim=24, n_heads=6, n_kv_heads=6)
    codec = Codec(config)
    initialise(codec, seed=5)
    encoder, decoder = codec.require_encoder(), codec.decoder
    loudest = []
    for hertz in (200.0, 1000.0, 4000.0):
        tone_BS = 0.05 * torch.sin(2 * torch.pi * hertz * torch.arange(24000) / 24000)[None]
        with torch.no_grad():
            heard = encoder.input_proj(tone_BS.unflatten(-1, (-1, 240)).mT)[0].square().mean(-1)
        weight_DN = encoder.input_proj.conv.weight.detach().mT.flatten(1)
        spectrum = torch.fft.rfft(weight_DN[heard.argmax()], 24000).abs()
        loudest.append(float(spectrum.argmax()))
    assert loudest == pytest.approx([200, 1000, 4000], rel=0.1)

    stream_BDT = torch.zeros(1, 144, 16)
    stream_BDT[0, :, 8] = 1.0  # far from what is reflected at the beginning
    with torch.no_grad():
        patches_TP = decoder.output_proj(stream_BDT)[0].T
    assert not patches_TP[:8].any() and not patches_TP[12:].any()  # at most 40 ms long
    assert all(patch_P.abs().max() > 1e-4 for patch_P in patches_TP[8:12])


def test_filter_banks_of_two_seeds_differ() -> None:
    config = CodecConfig(dim=144, hidden_dim=96, head_dim=24, n_heads=6, n_kv_heads=6)
    banks = [
        filter_bank(config, torch.Generator().manual_seed(seed), newest_last=True)
        for seed in (0, 1)
    ]
    assert all(atoms.norm(dim=1).allclose(torch.ones(144)) for atoms, _ in banks)
    cosine_D = (banks[0][0] * banks[1][0]).sum(-1)
    assert cosine_D.abs().mean() < 0.1


def test_the_balancer_gives_every_loss_its_share_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    leaf_BS = torch.randn(3, 50, generator=generator).requires_grad_()
    losses = {"loud": 1000 * leaf_BS.square().sum(), "quiet": 1e-4 * leaf_BS.sin().sum()}
    alone = {
        name: Balancer().gradient({name: loss}, {name: 1.0}, leaf_BS)
        for name, loss in {
            "loud": 1000 * leaf_BS.square().sum(), "quiet": 1e-4 * leaf_BS.sin().sum()
        }.items()
    }  # fmt: skip
    for gradient_BS in alone.values():
        assert float(gradient_BS.norm(dim=1).mean()) == pytest.approx(1.0, rel=1e-5)
    both = Balancer().gradient(losses, {"loud": 1.0, "quiet": 3.0}, leaf_BS)
    assert torch.allclose(both, 0.25 * alone["loud"] + 0.75 * alone["quiet"], atol=1e-6)


def test_the_balancer_remembers_norms_slowly() -> None:
    balancer = Balancer(decay=0.5)
    leaf_BS = torch.ones(1, 4).requires_grad_()
    first = balancer.gradient({"a": leaf_BS.sum()}, {"a": 1.0}, leaf_BS)
    second = balancer.gradient({"a": 3 * leaf_BS.sum()}, {"a": 1.0}, leaf_BS)
    assert float(first.norm()) == pytest.approx(1.0)
    # the mean of norms 2 and 6 with weights 1/4 and 1/2, over 3/4
    assert float(second.norm()) == pytest.approx(6 / ((0.25 * 2 + 0.5 * 6) / 0.75))
    again = Balancer(decay=0.5, means={k: list(v) for k, v in balancer.means.items()})
    assert again.means == balancer.means


def test_the_community_s_regularisers_have_their_minima_where_they_say() -> None:
    codec = drawn_codec(CODEC)
    quantizer = codec.quantizer
    book = quantizer.semantic_codebook
    vectors_VD = book.vectors()
    acoustic = torch.zeros(1, CODEC.acoustic_dim, len(vectors_VD))
    spread_BDT = torch.cat([vectors_VD.T[None], acoustic], dim=1)
    one_BDT = torch.cat([vectors_VD[:1].T[None].expand(-1, -1, len(vectors_VD)), acoustic], dim=1)
    assert diversity_loss(quantizer, spread_BDT) < diversity_loss(quantizer, one_BDT)
    assert scale_loss(quantizer, spread_BDT) < 1e-4 < scale_loss(quantizer, 0.1 * spread_BDT)
    generator = torch.Generator().manual_seed(0)
    values = (0.55 * torch.randn(1, CODEC.acoustic_dim, 400, generator=generator)).clamp(
        -0.99, 0.99
    )
    shaped_BDT = torch.cat([torch.zeros(1, CODEC.semantic_dim, 400), values.atanh()], dim=1)
    assert shaping_loss(quantizer, shaped_BDT) < 0.05
    assert shaping_loss(quantizer, shaped_BDT + 1.0) > 0.3
    bounded_BDT = torch.cat([torch.zeros(1, CODEC.semantic_dim, 400), values], dim=1)
    assert shaping_loss(quantizer, bounded_BDT, bounded=True) < 0.05

"""Losses: small laws of each."""

import pytest
import torch

from tests.helpers.random_weights import drawn_codec
from tests.train.tiny import CODEC
from voxclone.audio.distance import magnitude_loss, mel_loss, stft_loss
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train.adversarial import (
    MultiResolutionSTFTDiscriminator,
    discriminator_loss,
    feature_distance,
    feature_matching_loss,
    hinge_loss,
)
from voxclone.train.losses import (
    balanced_gradient,
    code_losses,
    diversity_loss,
    level_prior_loss,
    level_quantiles,
    low_frequency_loss,
    scale_loss,
    speaker_similarity_loss,
    waveform_losses,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def magnitudes_apart(made: torch.Tensor, wave: torch.Tensor) -> torch.Tensor:
    return magnitude_loss(made, wave, (1024,))


@pytest.mark.parametrize("loss", [mel_loss, stft_loss, low_frequency_loss, magnitudes_apart])
def test_wave_losses_are_zero_for_equal_and_grow_with_noise(loss) -> None:  # type: ignore[no-untyped-def]
    wave = noise(2, 9600) * 0.1
    values = [float(loss(wave + noise(2, 9600, seed=1) * n, wave)) for n in (0, 0.01, 0.1)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[0] < values[1] < values[2]


def test_speaker_similarity_pulls_the_waveform_and_leaves_silence_alone() -> None:
    embedder = Ge2eEmbedder.load()
    time = torch.arange(48000) / 24000
    voices = [
        sum(torch.sin(2 * torch.pi * pitch * h * time) / h for h in range(1, 20)) * 0.1
        for pitch in (100, 210)
    ]
    wave_BS = torch.stack([voices[0], torch.zeros(48000)])
    made_BS = torch.stack([voices[1], 0.01 * noise(48000)]).requires_grad_()
    loss = speaker_similarity_loss(embedder, made_BS, wave_BS)
    assert loss > 0.1 and float(speaker_similarity_loss(embedder, wave_BS, wave_BS)) < 1e-5
    loss.backward()
    assert made_BS.grad is not None
    assert made_BS.grad[0].abs().sum() > 0 and made_BS.grad[1].abs().sum() == 0
    assert all(p.grad is None for p in embedder.parameters())
    nearer = made_BS.detach() - 1e-3 * made_BS.grad / made_BS.grad.norm() * made_BS[0].norm()
    assert speaker_similarity_loss(embedder, nearer, wave_BS) < loss
    assert float(speaker_similarity_loss(embedder, made_BS, torch.zeros(2, 48000))) == 0
    with pytest.raises(ValueError, match="needs an embedder"):
        waveform_losses(
            made_BS, wave_BS, {"speaker_similarity": 1.0}, floor=0.0, stft_sizes=(256,),
            mel_scales=((256, 20),),
        )  # fmt: skip


def test_low_frequency_loss_sees_phases_of_low_tones_and_nothing_high() -> None:
    time = torch.arange(24000) / 24000
    tone = torch.sin(2 * torch.pi * 120 * time)[None]
    hiss = 0.3 * torch.sin(2 * torch.pi * 6000 * time)[None]
    assert float(low_frequency_loss(-tone, tone)) == pytest.approx(4, rel=1e-3)
    assert float(low_frequency_loss(tone + hiss, tone)) < 1e-3


def test_a_floor_makes_noise_of_pauses_count_little() -> None:
    quiet = [1e-4 * noise(1, 9600, seed=seed) for seed in (0, 1)]
    for loss in (mel_loss, stft_loss):
        plain, floored = (float(loss(quiet[0], quiet[1], floor=f)) for f in (0.0, 0.1))
        assert floored < (0.4 if loss is mel_loss else 1.0) * plain


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
    masked = code_losses(quantizer, latent, codes, kept_N=mask.flatten().nonzero()[:, 0])
    short = code_losses(quantizer, latent[..., :3], codes[..., :3])
    torch.testing.assert_close(masked.semantic, short.semantic)
    torch.testing.assert_close(masked.levels, short.levels)


def test_the_level_prior_is_zero_for_genuine_codes_and_sees_drift() -> None:
    codec = drawn_codec(CODEC)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(6, 15, (3, 4000), generator=generator)
    genuine = [torch.cat([torch.randint(16, (1, 4000), generator=generator), levels])]
    quantiles_CQ = level_quantiles(codec, genuine)
    values = codec.quantizer.values_of(levels)[None]
    latent = torch.cat([torch.zeros(1, 6, 4000), torch.atanh(values)], dim=1)

    def loss(latent_BDT: torch.Tensor) -> float:
        return float(level_prior_loss(quantiles_CQ, codec.quantizer, latent_BDT))

    own = loss(latent)
    assert own < 0.02 and loss(latent + 0.3) > 5 * own and loss(latent * 5) > 5 * own


def test_discriminators_learn_to_tell_two_kinds() -> None:
    discriminator = MultiResolutionSTFTDiscriminator(4, (128,))
    real, fake = noise(2, 2400) * 0.1, noise(2, 2400, seed=2).cumsum(-1) * 0.01
    assert feature_distance(discriminator(real), discriminator(real)).item() == 0
    assert feature_distance(discriminator(real), discriminator(fake)).item() > 0
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-2)
    first = None
    for _ in range(20):
        loss = hinge_loss(discriminator(real), discriminator(fake))
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first is not None and loss.item() < first


def test_discriminators_and_codec_get_gradients_of_their_own_loss_alone() -> None:
    discriminator = MultiResolutionSTFTDiscriminator(2, (64, 32))
    real_BS, made_BS = noise(2, 2400), noise(2, 2400, seed=1).requires_grad_()
    discriminator_loss(discriminator, real_BS, made_BS).backward()
    assert made_BS.grad is None and all(p.grad is not None for p in discriminator.parameters())
    discriminator.zero_grad(set_to_none=True)
    feature_matching_loss(discriminator, real_BS, made_BS).backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert made_BS.grad is not None and bool(made_BS.grad[:, 1200:].abs().sum() > 0)
    assert not made_BS.grad[:, :1200].any()  # the later half alone is looked at


def test_the_balancer_gives_every_loss_its_share_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    leaf_BS = torch.randn(3, 50, generator=generator).requires_grad_()

    def losses() -> dict[str, torch.Tensor]:
        return {"loud": 1000 * leaf_BS.square().sum(), "quiet": 1e-4 * leaf_BS.sin().sum()}

    alone = {
        name: balanced_gradient({name: loss}, {name: 1.0}, leaf_BS, {})[0]
        for name, loss in losses().items()
    }
    for gradient_BS in alone.values():
        assert float(gradient_BS.norm(dim=1).mean()) == pytest.approx(1.0, rel=1e-5)
    both, _ = balanced_gradient(losses(), {"loud": 1.0, "quiet": 3.0}, leaf_BS, {})
    assert torch.allclose(both, 0.25 * alone["loud"] + 0.75 * alone["quiet"], atol=1e-6)


def test_the_balancer_remembers_norms_slowly() -> None:
    leaf_BS = torch.ones(1, 4).requires_grad_()
    first, averages = balanced_gradient({"a": leaf_BS.sum()}, {"a": 1.0}, leaf_BS, {}, decay=0.5)
    before = dict(averages)
    second, after = balanced_gradient(
        {"a": 3 * leaf_BS.sum()}, {"a": 1.0}, leaf_BS, averages, decay=0.5
    )
    assert float(first.norm()) == pytest.approx(1.0)
    # the mean of norms 2 and 6 with weights 1/4 and 1/2, over 3/4
    assert float(second.norm()) == pytest.approx(6 / ((0.25 * 2 + 0.5 * 6) / 0.75))
    assert averages == before != after  # a step that is skipped leaves no trace


def test_diversity_and_scale_have_their_minima_where_they_say() -> None:
    quantizer = drawn_codec(CODEC).quantizer
    vectors_VD = quantizer.semantic_codebook.vectors()
    acoustic = torch.zeros(1, CODEC.acoustic_dim, len(vectors_VD))
    spread_BDT = torch.cat([vectors_VD.T[None], acoustic], dim=1)
    one_BDT = torch.cat([vectors_VD[:1].T[None].expand(-1, -1, len(vectors_VD)), acoustic], dim=1)
    assert diversity_loss(quantizer, spread_BDT) < diversity_loss(quantizer, one_BDT)
    assert scale_loss(quantizer, spread_BDT) < 1e-4 < scale_loss(quantizer, 0.1 * spread_BDT)

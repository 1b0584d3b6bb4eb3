"""The training step of the community's V3 encoder as published, for comparison of speed and memory.

Written after Al0olo/voxtral-voice-clone, `train_encoder.py` at 24974a2: attention with dense masks
(in the encoder over all items of the batch at once), encoder in fp32 and decoder in bf16, Whisper
that transcribes in every step, five-layer discriminators with 3 x 9 kernels over whole crops, and
one backward pass for each balanced loss. It learns nothing here: weights are random.

What differs, always to their favour: Whisper has as many tokens as that much speech has (random
weights never end by themselves), GE2E is the speaker network (ECAPA has ten times its weights, and
as published its loss raises an error in the balancer), and mel filters are kept.

Shapes: B batch, S samples, D latent width, T positions, H heads, E width of a head, L tokens.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import voxclone.codec.layers as layers
from voxclone.audio.spectrum import magnitudes, mel_spectrogram
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train.defects import Defects, commitment_of_all, install
from voxclone.train.losses import PAPER_FFTS

BALANCED = {"mel": 4.0, "wav": 1.0, "stft": 1.0, "feat": 2.0, "spk": 3.0}
TOKENS_PER_SECOND = 3.3  # of English, and four that open a transcript
WHISPER_BASE = {"d_model": 512} | {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}.items()
}
JUDGED_EVERY, HEARD_EVERY = 2, 4
PERIOD = 4


def dense_attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, window: int) -> Tensor:
    """All scores at once, with a mask [H, T, T] that is made anew in every layer."""
    length = q.shape[1]
    place = torch.arange(length, device=q.device)
    distance = (place[None, :] - place[:, None]).float()
    outside = (distance > 0) | (distance < -window)
    mask = (slopes[:, None, None] * distance).masked_fill(outside, -math.inf)
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    out = F.scaled_dot_product_attention(*heads, attn_mask=mask.to(q.dtype))
    return out.transpose(1, 2)


class StftJudge(nn.Module):
    """Their `STFTDiscriminator`: four convolutions with strides over time, a fifth, a verdict."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = [2] + [min(channels * 2**i, 1024) for i in range(4)]
        convs: list[nn.Module] = [
            nn.Conv2d(before, after, (3, 9), stride=(1, 2), padding=(1, 4))
            for before, after in pairwise(widths)
        ]
        convs.append(nn.Conv2d(widths[-1], widths[-1], 3, padding=1))
        self.convs = nn.ModuleList(convs)
        self.verdict = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, wave_BS: Tensor) -> tuple[Tensor, list[Tensor]]:
        window = torch.hann_window(self.n_fft, device=wave_BS.device)
        spectrum = torch.stft(
            wave_BS, self.n_fft, self.n_fft // 4, window=window, return_complex=True
        )
        x = torch.stack([spectrum.real, spectrum.imag], dim=1)
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1, inplace=True)
            maps.append(x)
        return self.verdict(x), maps


class Balancer:
    """Their `GradBalancer`."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def backward(self, losses: dict[str, Tensor], made_BS: Tensor) -> None:
        gradients = {}
        for name, loss in losses.items():
            (gradients[name],) = torch.autograd.grad(loss, [made_BS], retain_graph=True)
            norm = float(gradients[name].norm(dim=1).mean())
            self.sums[name] = self.sums.get(name, 0.0) * 0.999 + norm
            self.counts[name] = self.counts.get(name, 0.0) * 0.999 + 1
        total = sum(BALANCED[name] for name in losses)
        out_BS = torch.zeros_like(made_BS)
        for name, gradient in gradients.items():
            size = self.sums[name] / self.counts[name]
            out_BS.add_(gradient, alpha=BALANCED[name] / total / (1e-12 + size))
        made_BS.backward(out_BS)


class CommunityStep:
    """Everything that a step needs, at the real size."""

    def __init__(
        self, config: CodecConfig, device: torch.device, seconds: float, channels: int = 64
    ) -> None:
        from transformers import (
            WhisperConfig,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        layers.window_attention = dense_attention
        self.device = device
        self.codec = Codec(config)
        self.codec.quantizer.semantic_codebook.embedding_sum.normal_().mul_(13.6)
        install(self.codec.require_encoder(), Defects(batch_leak=True, double_tanh=True))
        self.codec.decoder.bfloat16().requires_grad_(False)
        self.codec.to(device).train()
        whisper: Any = WhisperForConditionalGeneration(WhisperConfig(**WHISPER_BASE))
        whisper.set_attn_implementation("eager")
        self.whisper = whisper.eval().requires_grad_(False).to(device)
        self.features = WhisperFeatureExtractor()
        self.tokens = min(64, 4 + round(TOKENS_PER_SECOND * seconds))
        self.projection = nn.Linear(config.semantic_dim, WHISPER_BASE["d_model"]).to(device)
        self.embedder = Ge2eEmbedder.load(str(device))
        self.judges = nn.ModuleList([StftJudge(n, channels) for n in PAPER_FFTS]).to(device)
        own = [*self.codec.require_encoder().parameters(), *self.projection.parameters()]
        self.own = own
        rates: dict[str, Any] = {"lr": 3e-4, "betas": (0.5, 0.9), "weight_decay": 1e-4}
        self.optimiser = torch.optim.AdamW(own, **rates)
        self.judging = torch.optim.AdamW(self.judges.parameters(), **rates)
        self.balancer = Balancer()
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, wave_BS: Tensor, step: int) -> None:
        codec, quantizer = self.codec, self.codec.quantizer
        latent_BDT = codec.require_encoder()(wave_BS)
        quantized = quantizer.train_forward(latent_BDT.float(), self.generator)
        made_BS = codec.decoder(quantized.latent_BDT.bfloat16()).float()[:, : wave_BS.shape[1]]
        losses = {
            "mel": sum(self._mel(made_BS, wave_BS, n) for n in (2048, 1024, 512)) / 3,
            "wav": F.l1_loss(made_BS, wave_BS),
            "stft": F.l1_loss(magnitudes(made_BS, 1024, 256), magnitudes(wave_BS, 1024, 256)),
        }
        judged = step % JUDGED_EVERY == 0
        if judged:
            with torch.no_grad():
                real = [judge(wave_BS)[1] for judge in self.judges]
            fake = [judge(made_BS)[1] for judge in self.judges]
            terms = [F.l1_loss(f, r) for rs, fs in zip(real, fake, strict=True)
                     for r, f in zip(rs, fs, strict=True)]  # fmt: skip
            losses["feat"] = sum(terms) / len(terms)
        if step % HEARD_EVERY == 0:
            with torch.no_grad():
                wanted_BE = self.embedder.embed_batch(wave_BS)
            losses["spk"] = (1 - (self.embedder.embed_batch(made_BS) * wanted_BE).sum(-1)).mean()
        semantic_BDT, acoustic_BDT = quantizer.split(latent_BDT)
        other = (
            0.1 * commitment_of_all(quantizer, latent_BDT, quantizer.encode(latent_BDT.detach()))
            + self._distil(wave_BS, semantic_BDT)
            + self._diversity(semantic_BDT)
            + 2.0 * (acoustic_BDT.mean().abs() + (acoustic_BDT.std() - 0.55).abs())
            + 0.3 * (semantic_BDT.std() - 13.6).abs()
        )
        self.optimiser.zero_grad()
        other.backward(retain_graph=True)
        self.balancer.backward(losses, made_BS)
        nn.utils.clip_grad_norm_(self.own, 1.0)
        self.optimiser.step()
        if judged:
            self._judge(wave_BS, made_BS.detach())

    def _judge(self, wave_BS: Tensor, made_BS: Tensor) -> None:
        real = [judge(wave_BS)[0] for judge in self.judges]
        fake = [judge(made_BS)[0] for judge in self.judges]
        terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean()
                 for r, f in zip(real, fake, strict=True)]  # fmt: skip
        self.judging.zero_grad()
        torch.stack(terms).mean().backward()
        nn.utils.clip_grad_norm_(self.judges.parameters(), 1.0)
        self.judging.step()

    def _mel(self, made_BS: Tensor, wave_BS: Tensor, n_fft: int) -> Tensor:
        logs = [
            mel_spectrogram(x, n_fft, n_fft // 4, 80, 24000).clamp(min=1e-5).log()
            for x in (made_BS, wave_BS)
        ]
        return F.l1_loss(logs[0], logs[1])

    def _diversity(self, semantic_BDT: Tensor) -> Tensor:
        latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)
        vectors_VD = self.codec.quantizer.semantic_codebook.vectors()
        mean_V = (-torch.cdist(latent_ND, vectors_VD) / 10).softmax(-1).mean(0)
        largest = math.log(min(len(latent_ND), len(vectors_VD)))
        return (largest + (mean_V * (mean_V + 1e-10).log()).sum()) / largest

    def _distil(self, wave_BS: Tensor, semantic_BDT: Tensor) -> Tensor:
        heard = F.interpolate(wave_BS[:, None], size=wave_BS.shape[1] * 2 // 3, mode="linear")[:, 0]
        given = self.features(
            [row.numpy() for row in heard.detach().cpu().float()],
            sampling_rate=16000, return_tensors="pt", padding="max_length",
        ).input_features.to(self.device)  # fmt: skip
        with torch.no_grad():
            ids_BL = self.whisper.generate(
                given, max_new_tokens=self.tokens, min_new_tokens=self.tokens, do_sample=False
            )
            output = self.whisper.model(
                input_features=given, decoder_input_ids=ids_BL[:, :-1], use_cache=False,
                output_hidden_states=True, output_attentions=True,
            )  # fmt: skip
            state_BLE = output.decoder_hidden_states[-1]
            look_BLT = output.cross_attentions[-1].mean(dim=1)
            look_BLT = look_BLT / look_BLT.sum(dim=1, keepdim=True).clamp(min=1e-6)
            look_BLT = F.interpolate(look_BLT, size=semantic_BDT.shape[-1], mode="linear")
            look_BLT = look_BLT / look_BLT.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        said_BLE = look_BLT @ self.projection(semantic_BDT.transpose(1, 2))
        return 1 - F.cosine_similarity(said_BLE, state_BLE, dim=-1).mean()

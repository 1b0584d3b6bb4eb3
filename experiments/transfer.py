"""Does decoded speech teach an encoder to read real speech?

Two fresh encoders, the same network, start, steps and codes. Arm U (upper bound) reads real audio
with the true codes, arm P (pairs) reads what the decoder makes of these codes. Both are scored on
real and decoded speech of unseen speakers. The transfer is P's score over U's, above chance.

    python -m experiments.transfer --speech MANIFEST --steps 500 --out transfer.json

Shapes: S samples, B batch, K codebooks, T frames.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from recipes.mini_release.run import SPEAKERS, MiniSettings, module_of
from voxclone.audio.files import read_wave
from voxclone.checkpoint import load_latest
from voxclone.codec.initialization import initialize_encoder, match_codebook
from voxclone.codec.model import Codec, Encoder
from voxclone.config import load_settings
from voxclone.data.manifest import Clip, read_manifest
from voxclone.device import autocast
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import Agreement, agreement, mean_agreement
from voxclone.mini.oracle import oracle_codec
from voxclone.release.release import Release
from voxclone.train import optim
from voxclone.train.losses import code_losses

FRAMES, BATCH, HISTORY = 32, 16, 8
OPTIMIZER = optim.OptimizerSettings(lr=1.8e-3, betas=(0.8, 0.99), warmup_steps=50, muon=True)
SEMANTIC_WEIGHT, SHORTEST = 0.5, 2.0
TRAIN_SECONDS, TEST_SECONDS = (3900.0, 60.0), (180.0, 30.0)
"""Of all clips together, and of one speaker's."""


@dataclass(frozen=True)
class Pair:
    """A clip, what its codes are decoded to, and its codes [K, T]."""

    real_S: Tensor
    decoded_S: Tensor
    codes_KT: Tensor

    def wave(self, real: bool) -> Tensor:
        return (self.real_S if real else self.decoded_S).float()


@torch.no_grad()
def make_pairs(codec: Codec, clips: Sequence[Clip], limits: tuple[float, float]) -> list[Pair]:
    """Clips in random order, up to the limits."""
    total, per_speaker = limits
    pairs: list[Pair] = []
    used: dict[str, float] = {}
    for clip in random.Random(0).sample(clips, len(clips)):
        if clip.duration < SHORTEST or used.get(clip.speaker, 0.0) > per_speaker:
            continue
        if sum(used.values()) > total:
            break
        used[clip.speaker] = used.get(clip.speaker, 0.0) + clip.duration
        wave_S = torch.from_numpy(read_wave(clip.path))
        wave_S = wave_S[: len(wave_S) // codec.frame_size * codec.frame_size]
        codes_BKT = codec.encode(wave_S[None])
        pairs.append(Pair(wave_S.half(), codec.decode(codes_BKT)[0].half(), codes_BKT[0].short()))
    return pairs


@torch.no_grad()
def score(codec: Codec, encoder: Encoder, pairs: Sequence[Pair], *, real: bool) -> Agreement:
    """How far an encoder reads the codes of pairs off real or decoded speech."""
    found = [codec.quantizer.encode(encoder(p.wave(real)[None]).float())[0] for p in pairs]
    return mean_agreement(
        [agreement(p.codes_KT.long(), c) for p, c in zip(pairs, found, strict=True)]
    )


def chance(pairs: Sequence[Pair]) -> Agreement:
    """The same scores for the codes of another clip."""
    codes = [pair.codes_KT.long() for pair in pairs]
    others = [*codes[len(codes) // 2 :], *codes[: len(codes) // 2]]
    return mean_agreement([agreement(a, b) for a, b in zip(codes, others, strict=True)])


def draw_batch(
    pairs: Sequence[Pair], pick: random.Random, size: int, *, real: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Waves [B, S], codes [B, K, T], and which of the B * T frames count: those within a clip whose
    past is in the crop."""
    waves, codes, masks = [], [], []
    for _ in range(BATCH):
        pair = pairs[pick.randrange(len(pairs))]
        at = pick.randrange(max(1, pair.codes_KT.shape[1] - FRAMES + 1))
        wave_S = pair.wave(real)[at * size : (at + FRAMES) * size]
        codes_KT = pair.codes_KT[:, at : at + FRAMES].long()
        mask_T = torch.arange(FRAMES) < codes_KT.shape[1]
        mask_T[: HISTORY if at else 0] = False
        waves.append(F.pad(wave_S, (0, FRAMES * size - len(wave_S))))
        codes.append(F.pad(codes_KT, (0, FRAMES - codes_KT.shape[1])))
        masks.append(mask_T)
    return torch.stack(waves), torch.stack(codes), torch.cat(masks).nonzero()[:, 0]


def train_arm(
    codec: Codec, train: Sequence[Pair], test: Sequence[Pair], steps: int, seed: int, *, real: bool
) -> dict[str, Agreement]:
    """Scores on real and on decoded test speech of a fresh encoder after so many steps."""
    encoder = Encoder(codec.config)
    initialize_encoder(encoder, torch.Generator().manual_seed(1000 + seed))
    match_codebook(encoder, codec.quantizer.semantic_codebook)
    optimizers = list(optim.build_optimizers(encoder, OPTIMIZER).values())
    pick = random.Random(seed)
    for step in range(steps):
        wave_BS, codes_BKT, kept_N = draw_batch(train, pick, codec.frame_size, real=real)
        with autocast(torch.device("cpu"), enabled=True):
            latent_BDT = encoder(wave_BS).float()
        losses = code_losses(codec.quantizer, latent_BDT, codes_BKT, kept_N=kept_N)
        encoder.zero_grad()
        (SEMANTIC_WEIGHT * losses.semantic + losses.levels).backward()
        optim.clip_gradients(optimizers)
        optim.set_learning_rate(optimizers, step, steps, OPTIMIZER.warmup_steps)
        for optimizer in optimizers:
            optimizer.step()
    return {name: score(codec, encoder, test, real=name == "real") for name in ("real", "decoded")}


def transfer(
    codec: Codec, clips: Sequence[Clip], sets: dict[str, list[str]], steps: int, seed: int
) -> dict[str, object]:
    """Both arms on the speakers of the recovery, scored on the test speakers."""
    codec.eval().requires_grad_(False)
    train, test = (
        make_pairs(codec, [c for c in clips if c.speaker in sets[name]], limits)
        for name, limits in (("recovery", TRAIN_SECONDS), ("test", TEST_SECONDS))
    )
    upper, pairs = (train_arm(codec, train, test, steps, seed, real=real) for real in (True, False))
    low, high, reached = (asdict(each) for each in (chance(test), upper["real"], pairs["real"]))
    bound = asdict(score(codec, codec.require_encoder(), test, real=False))
    names = ("semantic", "exact", "within_one")
    shares = {k: (reached[k] - low[k]) / (high[k] - low[k]) for k in names}
    arms = {"U": upper, "P": pairs}
    scores = {arm: {k: asdict(v) for k, v in each.items()} for arm, each in arms.items()}
    return {"steps": steps, "chance": low, "reencoded": bound, "transfer": shares} | scores


def main(
    speech: Annotated[Path, typer.Option(help="Manifest of the speech.")],
    out: Annotated[Path, typer.Option(help="JSON of the scores.")],
    speakers: Annotated[Path, typer.Option(help="JSON of the sets of speakers.")] = SPEAKERS,
    steps: int = 500,
    seed: int = 0,
    stage: Annotated[Path | None, typer.Option(help="Checkpoints of a codec.")] = None,
    config: Annotated[Path | None, typer.Option(help="Config of that codec.")] = None,
) -> None:
    """Of the packaged release with its oracle, or of a codec that is still in training."""
    codec = oracle_codec(Release.open("mini"))
    if stage is not None and config is not None:
        found, _ = load_latest(stage)
        if found is None:
            raise ConfigError(f"There is no checkpoint in {stage}.")
        codec = Codec(load_settings(MiniSettings, config).codec)
        codec.load_state_dict(module_of(found.tensors, "codec"))
    sets = json.loads(speakers.read_text(encoding="utf-8"))
    clips = read_manifest(speech)
    found = transfer(codec, clips, sets, steps, seed)
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(found["transfer"])


if __name__ == "__main__":
    typer.run(main)

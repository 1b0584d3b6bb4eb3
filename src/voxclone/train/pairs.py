"""Pairs that the release makes itself: codes, and by its decoder the audio that belongs to them.

Only codes are kept. Two sources have the true encoder's statistics: the presets, which invert to
the codes of real recordings, and speech that the language model makes with them.

Shapes: B batch, K code books, T frames, N rows, S samples.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxclone.release.archive import Release, load_preset, preset_names
from voxclone.settings import Settings
from voxclone.speech.generate import Sampling, generate
from voxclone.speech.speaker import Speaker
from voxclone.speech.text import frame_cap
from voxclone.train.corpus import step_generator


class PairSettings(Settings):
    """How many pairs the language model makes, and how varied."""

    minutes: float = 20.0
    batch: int = 32
    cfg: tuple[float, float] = (1.0, 1.6)
    temperature: tuple[float, float] = (0.5, 1.0)
    least_frames: int = 12
    seed: int = 0


def speak_pairs(
    release: Release,
    speaker: Speaker,
    texts: Sequence[str],
    settings: PairSettings,
    folder: Path,
) -> list[Tensor]:
    """Codes [K, T] of speech by the language model, `settings.minutes` of it: random presets and
    texts, varied guidance, noise and sampled semantics. Made batch by batch into `folder`; batches
    that are there already are read, so an interrupted call goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    voices = {name: load_preset(release, name) for name in preset_names(release)}
    names = sorted(voices)
    wanted = settings.minutes * 60 * release.params.audio.frame_rate
    (folder / "settings.json").write_text(json.dumps(settings.model_dump()), encoding="utf-8")
    made: list[Tensor] = []
    batch = 0
    while sum(codes.shape[1] for codes in made) < wanted:
        path = folder / f"batch-{batch:05d}.safetensors"
        if not path.exists():
            generator = step_generator(settings.seed, batch)
            save_pairs(_speak_batch(speaker, voices, names, texts, settings, generator), path)
        made += [c for c in load_pairs(path) if c.shape[1] >= settings.least_frames]
        batch += 1
    return made


def draw_pairs(
    genuine: Sequence[Tensor], count: int, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [B, K, T] from the beginnings of random utterances (so that nothing has an unknown
    past), and which frames [B, T] are real."""
    rows, masks = [], []
    for _ in range(count):
        which = int(torch.randint(len(genuine), (1,), generator=generator))
        codes_KT = genuine[which][:, :frames]
        masks.append(torch.arange(frames) < codes_KT.shape[1])
        rows.append(F.pad(codes_KT, (0, frames - codes_KT.shape[1])))
    return torch.stack(rows), torch.stack(masks)


def perturb(
    codes_BKT: Tensor, generator: torch.Generator, *, items: float, levels: float, top: int
) -> Tensor:
    """A share of the items gets a share of its levels (0 to `top`) moved by one or two: codes near
    genuine ones."""
    chosen_B11 = torch.rand(len(codes_BKT), 1, 1, generator=generator) < items
    moved = torch.rand(codes_BKT.shape, generator=generator) < levels
    by = torch.randint(-2, 3, codes_BKT.shape, generator=generator)
    other = (codes_BKT + by).clamp(0, top)
    moved[:, 0] = False
    return torch.where(chosen_B11 & moved, other, codes_BKT)


def save_pairs(codes: Sequence[Tensor], path: Path) -> None:
    """Write codes [K, T] of several utterances to one file, complete or not at all."""
    temporary = path.with_suffix(".tmp")
    tensors = {f"{i:05d}": c.to(torch.int16).contiguous() for i, c in enumerate(codes)}
    save_file(tensors, temporary)
    os.replace(temporary, path)


def load_pairs(path: Path) -> list[Tensor]:
    """Read what `save_pairs` wrote."""
    tensors = load_file(path)
    return [tensors[name].long() for name in sorted(tensors)]


def _speak_batch(
    speaker: Speaker,
    voices: dict[str, Tensor],
    names: list[str],
    texts: Sequence[str],
    settings: PairSettings,
    generator: torch.Generator,
) -> list[Tensor]:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    prompts, seeds, caps = [], [], []
    for _ in range(settings.batch):
        name = names[int(torch.randint(len(names), (1,), generator=generator))]
        text = texts[int(torch.randint(len(texts), (1,), generator=generator))]
        ids_L = speaker.prompts.ids(text, len(voices[name]))
        prompts.append(speaker.backbone.embed_prompt(ids_L, voices[name])[0])
        seeds.append(int(torch.randint(2**31, (1,), generator=generator)))
        caps.append(frame_cap(text, speaker.codec.frame_rate))
    sampling = Sampling(uniform(*settings.cfg), uniform(*settings.temperature))
    spoken = generate(speaker.backbone, speaker.head, prompts, seeds, caps, sampling)
    return [result.codes_KT for result in spoken if not result.truncated]

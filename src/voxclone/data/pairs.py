"""Pairs that the release makes itself: codes, and by its decoder the audio that belongs to them.

Only codes are kept, as 16-bit integers. Two sources have the true encoder's statistics: the
presets, which invert to the codes of real recordings, and speech that the language model makes with
them.

Shapes: B batch, K code books, T frames, N rows, S samples.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxclone.config import Settings
from voxclone.errors import (
    ConfigError,
)
from voxclone.io import atomic_file, atomic_path
from voxclone.release.encoder_file import book_hash
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.rng import step_generator
from voxclone.tts.generate import Request, Sampling, generate_many
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS

SCHEMA, FACTS = "voxclone.pairs/1", "pairs.json"
EACH_PLACE = 4
"""Utterances in a file for each place of the batch: with more, the batch runs dry less often."""
MOST_EMPTY = 20  # files without any pair, before the model is given up


class PairSettings(Settings):
    """How many pairs the language model makes, and how varied."""

    minutes: float = 20.0
    batch: int = 32
    cfg: tuple[float, float] = (1.0, 1.6)
    temperature: tuple[float, float] = (0.5, 1.0)
    least_frames: int = 12
    seed: int = 0


@dataclass(frozen=True)
class PairShare:
    """One of `of` processes that make pairs into the same folder, each a file in so many."""

    number: int = 0
    of: int = 1


def speak_pairs(
    release: Release,
    speaker: TTS,
    texts: Sequence[str],
    settings: PairSettings,
    folder: Path,
    *,
    share: PairShare = PairShare(),
    progress: Callable[[float], None] | None = None,
) -> list[Tensor]:
    """Codes [K, T] (int16) of speech by the language model, `settings.minutes` of it: random
    presets and texts, and for each other guidance, noise and sampled semantics.

    Made file by file into `folder`: what is there already is read, so an interrupted call goes on
    and a later one may ask for more. `progress` is told of the minutes there are. Raises
    ConfigError for a folder of another release or of other settings.
    """
    identity = pair_identity(release, texts, settings)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FACTS).exists():
        _require_same(folder, identity)
    else:
        with atomic_file(folder / FACTS) as file:
            file.write(json.dumps({"schema": SCHEMA} | identity, indent=1).encode())
    voices = {name: load_preset(release, name) for name in preset_names(release)}
    rate = release.params.audio.frame_rate
    made: list[Tensor] = []
    batch, frames = share.number, 0
    while frames < settings.minutes * 60 * rate / share.of:
        path = folder / f"batch-{batch:05d}.safetensors"
        if not path.exists():
            generator = step_generator(settings.seed, batch)
            save_pairs(_speak_batch(speaker, voices, texts, settings, generator), path)
        new = load_pairs(path)
        made += new
        frames += sum(codes.shape[1] for codes in new)
        batch += share.of
        if progress is not None:
            progress(frames / rate / 60)
        if not frames and batch >= MOST_EMPTY * share.of:
            raise ConfigError(
                f"None of {MOST_EMPTY * settings.batch * EACH_PLACE} utterances of the language "
                f"model ended by itself with {settings.least_frames} frames: no pairs can be made."
            )
    return made


def read_pairs(folder: Path, release: Release) -> list[Tensor]:
    """Codes [K, T] (int16) that `speak_pairs` stored. Raises ConfigError for a folder that holds
    none, and for pairs of another code book."""
    facts = _read_facts(folder)
    if facts["book"] != book_hash(release):
        raise ConfigError(
            f"The pairs in {folder} are of another code book than that of {release.path}: make "
            "some with `voxclone data pairs`."
        )
    paths = sorted(folder.glob("batch-*.safetensors"))
    made = [codes for path in paths for codes in load_pairs(path)]
    if not made:
        raise ConfigError(f"{folder} holds no pairs yet: `voxclone data pairs` makes them.")
    return made


def pair_identity(release: Release, texts: Sequence[str], settings: PairSettings) -> dict[str, Any]:
    """What pairs in one folder have in common; how many there are to be is no part of it."""
    said = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    given = settings.model_dump(mode="json", exclude={"minutes"})
    return {"book": book_hash(release), "texts": said, "settings": given}


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA:
            raise ConfigError(f"{folder} is of schema {facts['schema']!r}, not {SCHEMA!r}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{folder} is no folder of pairs ({FACTS} is missing or damaged): "
            "`voxclone data pairs` makes one."
        ) from None
    found: dict[str, Any] = facts
    return found


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    facts = _read_facts(folder)
    other = [name for name in identity if facts.get(name) != identity[name]]
    if other:
        raise ConfigError(
            f"{folder} holds pairs of another {' and another '.join(other)}: name a new folder."
        )


def draw_pairs(
    genuine: Sequence[Tensor], count: int, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [B, K, T] from the beginnings of random utterances (so that nothing has an unknown
    past), and which frames [B, T] are real."""
    rows, masks = [], []
    for _ in range(count):
        which = int(torch.randint(len(genuine), (1,), generator=generator))
        codes_KT = genuine[which][:, :frames].long()
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
    tensors = {f"{i:05d}": c.to(torch.int16).contiguous() for i, c in enumerate(codes)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load_pairs(path: Path) -> list[Tensor]:
    """Read what `save_pairs` wrote, as it is stored (int16)."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"The pairs {path} are damaged ({error}): delete that file, and it is made again."
        ) from None
    return [tensors[name] for name in sorted(tensors)]


def _speak_batch(
    speaker: TTS,
    voices: dict[str, Tensor],
    texts: Sequence[str],
    settings: PairSettings,
    generator: torch.Generator,
) -> list[Tensor]:
    """The utterances of one file that ended by themselves and are long enough, in the order in
    which they were drawn: a function of the settings and the generator alone."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    def below(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    names = sorted(voices)
    drawn = [
        (
            names[below(len(names))],
            texts[below(len(texts))],
            below(2**31),
            Sampling(uniform(*settings.cfg), uniform(*settings.temperature)),
        )
        for _ in range(settings.batch * EACH_PLACE)
    ]

    def requests() -> Iterator[Request]:
        for name, text, seed, sampling in drawn:
            with torch.inference_mode():
                prompt_LD = speaker.prompt(text, voices[name])
            yield Request(prompt_LD, seed, frame_cap(text, speaker.codec.frame_rate), sampling)

    spoken = dict(generate_many(speaker.backbone, speaker.head, requests(), settings.batch))
    return [
        spoken[number].codes_KT
        for number in sorted(spoken)
        if not spoken[number].truncated
        and spoken[number].codes_KT.shape[1] >= settings.least_frames
    ]


TEXTS = Path(__file__).parent / "texts.txt"


def read_texts(path: Path) -> list[str]:
    """Lines of a text file that are neither empty nor comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"The texts {path} cannot be read: {error.strerror}.") from None
    texts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not texts:
        raise ConfigError(f"There is no text in {path}.")
    return texts

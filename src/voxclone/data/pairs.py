"""Pairs that the release makes itself: codes, and the audio that its decoder makes of them.

Only codes are stored, as 16-bit integers. Two kinds have the statistics of the true encoder: those
of the presets, which invert to codes of real recordings, and those that the language model
generates with the presets.

Shapes: B batch, K codebooks, T frames, L positions, D width.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from voxclone.config import Settings
from voxclone.data.shards import ALONE, Shard, note_end, require_all
from voxclone.errors import ConfigError, ReleaseError
from voxclone.io import atomic_file, atomic_path, tensor_errors
from voxclone.readers import read_json, read_text
from voxclone.records import Record, parse_record
from voxclone.release.encoder_file import codebook_hash
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.release.safetensors import load_tensors
from voxclone.rng import step_generator
from voxclone.tts.batch import Sampling
from voxclone.tts.cleaning import clean_text
from voxclone.tts.generate import Request, generate_many
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS

SCHEMA, FACTS = "voxclone.pairs/2", "pairs.json"
PER_SLOT = 4
"""Utterances in a file for each slot of the batch: with more, fewer slots are idle at the end."""
MAX_EMPTY = 20  # files without any pair, after which the model is given up
TEXTS = Path(__file__).parent / "texts.txt"


class PairFacts(Record):
    """The file that names the schema of a folder of pairs, and what all of them have in common."""

    schema_: str = Field(alias="schema")
    book: str
    texts: str
    settings: dict[str, Any]


class PairSettings(Settings):
    """How varied the pairs are that the language model makes, and how many at a time."""

    batch: int = Field(default=32, ge=1, le=4096)
    cfg: tuple[float, float] = (1.0, 1.6)
    temperature: tuple[float, float] = (0.5, 1.0)
    min_frames: int = Field(default=12, ge=1)
    seed: int = 0

    renamed: ClassVar[Mapping[str, str]] = {"minutes": "the option `--minutes`"}


def speak_pairs(
    release: Release,
    tts: TTS,
    texts: Sequence[str],
    settings: PairSettings,
    minutes: float,
    folder: Path,
    *,
    shard: Shard = ALONE,
    progress: Callable[[float], None] | None = None,
) -> list[Tensor]:
    """Codes [K, T] (int16) of so many minutes of speech by the language model. Each utterance
    has a random preset, text, guidance and temperature.

    Files that are in `folder` are read, others are made: an interrupted call goes on, and a later
    one may ask for more. `progress` gets the minutes so far. Raises ConfigError for a folder of
    another release or of other settings.
    """
    identity = _identity(release, texts, settings)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FACTS).exists():
        _require_same(folder, identity)
    else:
        with atomic_file(folder / FACTS) as file:
            file.write(json.dumps({"schema": SCHEMA} | identity, indent=1).encode())
    voices = {name: load_preset(release, name) for name in preset_names(release)}
    rate = release.params.audio.frame_rate
    made: list[Tensor] = []
    batch, frames = shard.index, 0
    while frames < minutes * 60 * rate / shard.count:
        path = folder / f"batch-{batch:05d}.safetensors"
        if not path.exists():
            generator = step_generator(settings.seed, batch)
            save_pairs(_speak_batch(tts, voices, texts, settings, generator), path)
        new = load_pairs(path)
        made += new
        frames += sum(codes.shape[1] for codes in new)
        batch += shard.count
        if progress is not None:
            progress(frames / rate / 60)
        if not frames and batch >= MAX_EMPTY * shard.count:
            raise ConfigError(
                f"None of {MAX_EMPTY * settings.batch * PER_SLOT} utterances of the language "
                f"model ended by itself with {settings.min_frames} frames: no pairs can be made."
            )
    if shard.count > 1:
        note_end(folder, shard, 0, minutes)
    return made


def merge_pairs(folder: Path) -> tuple[int, int]:
    """Keep the files of ended shards that one process would have made one after another, and remove
    those beyond the first gap; returns the number of files and of frames. Raises ConfigError if a
    shard has not ended, or has lost its first file."""
    _read_facts(folder)
    require_all(folder)
    paths = {int(path.stem.removeprefix("batch-")): path for path in folder.glob("batch-*")}
    kept = next(number for number in range(len(paths) + 1) if number not in paths)
    if not kept:
        raise ConfigError(f"{folder} has lost its first pairs: run the shard 0 again.")
    frames = 0
    for number, path in paths.items():
        if number < kept:
            frames += sum(codes.shape[1] for codes in load_pairs(path))
        else:
            path.unlink()
    return kept, frames


def read_pairs(folder: Path, release: Release) -> list[Tensor]:
    """Codes [K, T] (int16) that `speak_pairs` stored. Raises ConfigError for a folder that holds
    none, and for pairs of another codebook."""
    facts = _read_facts(folder)
    if facts.book != codebook_hash(release):
        raise ConfigError(
            f"The pairs in {folder} are of another codebook than that of {release.path}: make "
            "some with `voxclone data pairs`."
        )
    paths = sorted(folder.glob("batch-*.safetensors"))
    made = [codes for path in paths for codes in load_pairs(path)]
    if not made:
        raise ConfigError(f"{folder} holds no pairs yet: `voxclone data pairs` makes them.")
    return made


def _identity(release: Release, texts: Sequence[str], settings: PairSettings) -> dict[str, Any]:
    """Values that all pairs in a folder have in common; their number is not among them."""
    hashed = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    given = settings.model_dump(mode="json", exclude={"minutes"})
    return {"book": codebook_hash(release), "texts": hashed, "settings": given}


def _read_facts(folder: Path) -> PairFacts:
    try:
        values = read_json(folder / FACTS)
        facts = parse_record(PairFacts, values, str(folder / FACTS))
    except ConfigError as error:
        raise ConfigError(
            f"{folder} is no folder of pairs, which `voxclone data pairs` makes: {error}"
        ) from None
    if facts.schema_ != SCHEMA:
        raise ConfigError(
            f"{folder} is of schema {facts.schema_!r}, not {SCHEMA!r}: make the pairs again in a "
            "new folder."
        )
    return facts


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    facts = _read_facts(folder)
    other = [name for name in identity if getattr(facts, name) != identity[name]]
    if other:
        raise ConfigError(
            f"{folder} holds pairs of another {' and another '.join(other)}: name a new folder."
        )


def draw_pairs(
    genuine: Sequence[Tensor], count: int, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [B, K, T] of the beginnings of random utterances (frames before them would be unknown),
    and which frames [B, T] are not padding."""
    drawn, masks = [], []
    for _ in range(count):
        index = int(torch.randint(len(genuine), (1,), generator=generator))
        codes_KT = genuine[index][:, :frames].long()
        masks.append(torch.arange(frames) < codes_KT.shape[1])
        drawn.append(F.pad(codes_KT, (0, frames - codes_KT.shape[1])))
    return torch.stack(drawn), torch.stack(masks)


def perturb(
    codes_BKT: Tensor, generator: torch.Generator, *, items: float, levels: float, top: int
) -> Tensor:
    """Codes near genuine ones: in a share of the items, a share of the levels (0 to `top`) moves by
    one or two."""
    perturbed_B11 = torch.rand(len(codes_BKT), 1, 1, generator=generator) < items
    moved = torch.rand(codes_BKT.shape, generator=generator) < levels
    by = torch.randint(-2, 3, codes_BKT.shape, generator=generator)
    other = (codes_BKT + by).clamp(0, top)
    moved[:, 0] = False
    return torch.where(perturbed_B11 & moved, other, codes_BKT)


def save_pairs(codes: Sequence[Tensor], path: Path) -> None:
    """Write codes [K, T] of several utterances to one file, complete or not at all."""
    tensors = {f"{i:05d}": c.to(torch.int16).contiguous() for i, c in enumerate(codes)}
    with atomic_path(path) as temporary, tensor_errors():
        save_file(tensors, temporary)


def load_pairs(path: Path) -> list[Tensor]:
    """Read codes [K, T] (int16) that `save_pairs` wrote. Raises ConfigError for a damaged file."""
    try:
        tensors = load_tensors(path)
    except ReleaseError as error:
        raise ConfigError(
            f"The pairs {path} are damaged ({error}): delete that file, and it is made again."
        ) from None
    return [tensors[name] for name in sorted(tensors)]


def _speak_batch(
    tts: TTS,
    voices: dict[str, Tensor],
    texts: Sequence[str],
    settings: PairSettings,
    generator: torch.Generator,
) -> list[Tensor]:
    """The utterances of one file that ended by themselves and are long enough, in the order of
    their draws: a function of the settings and the generator."""
    names = sorted(voices)
    drawn = [
        (
            voices[names[_below(len(names), generator)]],
            texts[_below(len(texts), generator)],
            _below(2**31, generator),
            Sampling(_between(settings.cfg, generator), _between(settings.temperature, generator)),
        )
        for _ in range(settings.batch * PER_SLOT)
    ]

    def requests() -> Iterator[Request]:
        for voice_ND, text, seed, sampling in drawn:
            with torch.inference_mode():
                prompt_LD = tts.prompt(text, voice_ND)
            yield Request(prompt_LD, seed, frame_cap(text, tts.codec.frame_rate), sampling)

    made = dict(generate_many(tts.backbone, tts.head, requests(), settings.batch))
    return [
        made[number].codes_KT
        for number in sorted(made)
        if not made[number].truncated and made[number].codes_KT.shape[1] >= settings.min_frames
    ]


def _between(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def read_texts(path: Path) -> list[str]:
    """Lines of a text file that are neither empty nor comments."""
    lines = read_text(path, ConfigError, "The texts").splitlines()
    cleaned = (clean_text(line) for line in lines if not line.startswith("#"))
    texts = [text for text in cleaned if text]
    if not texts:
        raise ConfigError(f"There is no text in {path}.")
    return texts

"""The folder of an adapter: peft's layout, and beside it what the adapter was made for.

`adapter_model.safetensors` has the tensors; `adapter_config.json` is peft's, for a LoRA;
`voxclone_adapter.json` names the base, the encoder, the data and the metrics. An adapter is used
with the base that it was trained on, once: a base into which an adapter was merged is another one.

Shapes: K codebooks, T frames, V semantic outputs, C acoustic channels.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from voxclone.errors import ConfigError, ReleaseError
from voxclone.io import atomic_folder, complete_folder, pieces, tensor_hash
from voxclone.readers import read_json, require_local
from voxclone.records import Record, parse_record
from voxclone.release.params import Params
from voxclone.release.release import Release
from voxclone.release.safetensors import load_tensors
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import codebook_sizes
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.adapter import PEFT, Adapter, AdapterSettings, attach, require_fit
from voxclone.tts.backbone import Backbone, backbone_names
from voxclone.tts.prompt import PromptMaker

SCHEMA = "voxclone.adapter/1"
TENSORS, PEFT_CONFIG, CARD = (
    "adapter_model.safetensors", "adapter_config.json", "voxclone_adapter.json",
)  # fmt: skip
HASHED_BYTES = 2**16
"""Of each tensor, for the identity of a base: 25 MB of 8 GB, and a training changes all of it."""
PROBE_FRAMES = 16


class AdapterCard(Record):
    """What an adapter was made for, of what, and how good it is. Hashes are SHA-256 in hexadecimal
    digits. `lost` has a sentence for each part of the gate that it failed."""

    schema_: str = Field(alias="schema")
    adapter: dict[str, Any]
    base: str
    base_hash: str
    encoder_hash: str
    data: dict[str, Any] = Field(default_factory=dict)
    license: str = ""
    consent: str = ""
    step: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    passed: bool = False
    lost: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class AdapterFolder:
    """The content of an adapter's folder. `sha256` is that of its settings and tensors."""

    path: Path
    settings: AdapterSettings
    tensors: dict[str, Tensor]
    card: AdapterCard
    sha256: str

    @property
    def warning(self) -> str | None:
        """A sentence on an adapter that failed its gate."""
        if self.card.passed:
            return None
        return f"{self.path} failed its gate: {' '.join(self.card.lost) or 'it was not measured.'}"


def base_hash(release: Release) -> str:
    """SHA-256 over names, shapes and the first 64 KiB of every tensor of the language model and of
    the acoustic head."""
    digest = hashlib.sha256()
    head = (name for name in release.files.tensors if name.startswith("acoustic_transformer."))
    for name in [*backbone_names(release.params), *sorted(head)]:
        info = release.files.header_of(name).tensors[name]
        digest.update(f"{name} {info.dtype} {info.shape} ".encode())
        with info.path.open("rb", buffering=0) as file:
            for piece in pieces(file, info.start, min(info.stop, info.start + HASHED_BYTES)):
                digest.update(piece)
    return digest.hexdigest()


def require_unmerged(release: Release) -> None:
    """Raise ReleaseError for a release into which an adapter was merged."""
    if release.merged_adapter is not None:
        raise ReleaseError(
            f"{release.path} has an adapter merged into it already "
            f"({release.merged_adapter[:12]}): take the release that it was made from."
        )


def write_adapter(out: Path, adapter: Adapter, card: AdapterCard) -> None:
    """Write an adapter's folder, whole or not at all, in the place of an older one. Raises
    ReleaseError if the disk fails."""
    tensors = adapter.tensors()
    entries = [
        Entry(name, tensor.dtype, tuple(tensor.shape), partial(tensors.__getitem__, name))
        for name, tensor in tensors.items()
    ]
    with atomic_folder(out, replace=True) as folder:
        write_safetensors(folder / TENSORS, entries, {"format": "pt"})
        if adapter.settings.reader == "lora":
            values = _peft_config(adapter, card)
            (folder / PEFT_CONFIG).write_text(json.dumps(values, indent=1), encoding="utf-8")
        text = card.model_dump_json(indent=1, by_alias=True)
        (folder / CARD).write_text(text, encoding="utf-8")


def read_adapter(folder: Path) -> AdapterFolder:
    """Read an adapter's folder. Raises ReleaseError for anything else."""
    require_local(folder, ReleaseError, "folder")
    folder = complete_folder(folder)
    if not folder.is_dir():
        raise ReleaseError(
            f"There is no adapter in {folder}: name the folder that `voxclone train adapter` wrote."
        )
    card = parse_record(
        AdapterCard, read_json(folder / CARD, ReleaseError), str(folder / CARD), ReleaseError
    )
    if card.schema_ != SCHEMA:
        raise ReleaseError(
            f"{folder} is of schema {card.schema_!r}, and this version reads {SCHEMA}."
        )
    try:
        settings = parse_record(AdapterSettings, card.adapter, str(folder / CARD))
    except ConfigError as error:
        raise ReleaseError(str(error)) from None
    tensors = load_tensors(folder / TENSORS)
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensor_hash(tensors[name])}".encode())
    return AdapterFolder(folder, settings, tensors, card, digest.hexdigest())


def describe_adapter(found: AdapterFolder) -> str:
    """An adapter as text for a terminal."""
    card, settings = found.card, found.settings
    values = sum(tensor.numel() for tensor in found.tensors.values())
    size = "" if settings.reader == "table" else f", rank {settings.rank}"
    if settings.reader == "lora":
        size += f", alpha {settings.alpha}, on {', '.join(settings.targets)}"
    lines = [
        f"{found.path}: an adapter ({settings.reader}{size}) with {values:,} values",
        f"  base: {card.base} ({card.base_hash[:12]}), encoder {card.encoder_hash[:12]}",
        f"  data: {json.dumps(card.data)}",
        f"  license: {card.license or 'not stated'}; consent: {card.consent or 'not stated'}",
        f"  gate at step {card.step}: {'passed' if card.passed else 'FAILED'}",
    ]
    lines += [f"  ! {sentence}" for sentence in card.lost]
    for name, value in card.metrics.items():
        if f"base/{name}" in card.metrics:
            lines.append(f"  {name:<28} {card.metrics[f'base/{name}']:.3f} -> {value:.3f}")
    return "\n".join(lines)


def require_base(found: AdapterFolder, release: Release) -> None:
    """Raise ReleaseError for another base than that which the adapter was trained on."""
    require_unmerged(release)
    if found.card.base_hash != base_hash(release):
        raise ReleaseError(
            f"The adapter {found.path} was trained on another base ({found.card.base}) than "
            f"{release.path}: name that one with `--model`, or train an adapter for this one."
        )


def require_encoder(found: AdapterFolder, encoder_hash: str) -> None:
    """Raise ReleaseError for another encoder than that whose codes the adapter learned to read."""
    if found.card.encoder_hash != encoder_hash:
        raise ReleaseError(
            f"The adapter {found.path} was trained to read the codes of another encoder: name that "
            "one with `--encoder`, or leave out `--adapter`."
        )


def apply_adapter(
    found: AdapterFolder, backbone: Backbone, head: AcousticHead, prompts: PromptMaker
) -> Adapter:
    """Put an adapter into a model for inference. Raises ReleaseError for tensors that are not those
    of its settings, and for an adapter that changes nothing."""
    try:
        adapter = attach(backbone, head, found.settings)
    except ConfigError as error:
        raise ReleaseError(f"The adapter {found.path} does not fit: {error}") from None
    require_fit(adapter.tensors(), found.tensors, str(found.path / TENSORS))
    adapter.load(found.tensors)
    adapter.parameters.requires_grad_(False)
    with torch.inference_mode():
        adapted = probe(backbone, head, prompts)
        with adapter.disabled():
            base = probe(backbone, head, prompts)
    if all(torch.equal(one, other) for one, other in zip(adapted, base, strict=True)):
        raise ReleaseError(
            f"The adapter {found.path} changes nothing: it was not trained, or was written wrongly."
        )
    return adapter


def probe(
    backbone: Backbone, head: AcousticHead, prompts: PromptMaker
) -> tuple[Tensor, Tensor, Tensor]:
    """Semantic logits [V], velocity [C] and a voice's sum of frames [D], for a prompt that every
    release has: a voice of codes from all over the codebooks, and one letter."""
    params = backbone.params
    ids_L = prompts.ids("a", PROBE_FRAMES + 1).to(backbone.offsets_K.device)
    voice_ND = backbone.embed_codes(probe_codes(params).to(ids_L.device))
    hidden_BD = backbone(backbone.embed_prompt(ids_L, voice_ND))[:, -1]
    point_BC = torch.zeros(1, head.channels, dtype=hidden_BD.dtype, device=hidden_BD.device)
    time_BD = head.time_token(torch.full((1,), 0.5, device=hidden_BD.device))
    velocity_BC = head.velocity(point_BC, time_BD, head.llm_projection(hidden_BD))
    return head.semantic_logits(hidden_BD)[0], velocity_BC[0], voice_ND.sum(dim=0)


def probe_codes(params: Params) -> Tensor:
    """Shifted codes [T + 1, K]: evenly spread in every codebook, and the END frame."""
    columns = [
        torch.arange(PROBE_FRAMES) * size // PROBE_FRAMES + SHIFT for size in codebook_sizes(params)
    ]
    end_1K = torch.full((1, len(columns)), EMPTY_AUDIO)
    end_1K[0, 0] = END_AUDIO
    return torch.cat([torch.stack(columns, dim=1), end_1K])


def _peft_config(adapter: Adapter, card: AdapterCard) -> Mapping[str, Any]:
    """`adapter_config.json` as peft writes it, for a model with `backbone` and `head` in it."""
    settings = adapter.settings
    names = sorted({name.removeprefix(PEFT) for name in adapter.modules})
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": card.base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": names,
    }

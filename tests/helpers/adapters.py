"""Adapters of tiny models, drawn instead of trained."""

from pathlib import Path
from typing import Any

import torch

from voxclone.release.release import Release
from voxclone.tts.adapter import Adapter, AdapterSettings, attach
from voxclone.tts.adapter_file import SCHEMA, AdapterCard, base_hash, write_adapter
from voxclone.tts.tts import TTS

READERS: dict[str, dict[str, Any]] = {
    "voice": {"reader": "voice", "rank": 4},
    "table": {"reader": "table"},
    "lora": {"reader": "lora", "rank": 2, "targets": ["q", "k", "v", "o", "mlp", "acoustic"]},
}


def drawn_adapter(tts: TTS, reader: str, scale: float = 0.3) -> Adapter:
    """An adapter of random numbers in a model."""
    settings = AdapterSettings.model_validate(READERS[reader])
    adapter = attach(tts.backbone, tts.head, settings)
    generator = torch.Generator().manual_seed(1)
    adapter.load(
        {n: scale * torch.randn(t.shape, generator=generator) for n, t in adapter.tensors().items()}
    )
    adapter.parameters.requires_grad_(False)
    return adapter


def adapter_card(release: Release, adapter: Adapter, **values: Any) -> AdapterCard:
    given = {
        "schema": SCHEMA,
        "adapter": adapter.settings.model_dump(mode="json"),
        "base": release.path.name,
        "base_hash": base_hash(release),
        "encoder_hash": "0" * 64,
        "passed": True,
    }
    return AdapterCard.model_validate(given | values)


def write_drawn(folder: Path, release: Release, reader: str, **values: Any) -> Path:
    """The folder of an adapter of random numbers for a release."""
    adapter = drawn_adapter(TTS.load(release), reader)
    write_adapter(folder, adapter, adapter_card(release, adapter, **values))
    return folder

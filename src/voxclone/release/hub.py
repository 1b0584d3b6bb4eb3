"""A folder with an encoder for the Hub: `model.safetensors`, `config.json`, `SHA256SUMS` and a
model card.

The encoder has vLLM-Omni's names, so that one file serves both programs (spec/ecosystem 7). The
folder holds no weights of the release: whoever uses it has accepted their license.
"""

import importlib.metadata
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from voxclone.errors import UsageError
from voxclone.io import atomic_file, atomic_folder, hash_file, require_new
from voxclone.release.encoder_file import (
    ExternalEncoder,
    Validator,
    codebook_hash,
    encoder_metadata,
    training_metrics,
    write_validated,
)
from voxclone.release.release import HUB_ID, Release

WEIGHTS = "model.safetensors"
SUMS, SUMMED = "SHA256SUMS", (WEIGHTS, "config.json")
"""Hashes of these files, as `sha256sum -c` reads them; the card may be edited."""
WRITTEN = (*SUMMED, SUMS, "README.md")
LICENSES = {
    "cc-by-nc-4.0": ("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/"),
    "cc-by-nc-sa-4.0": ("CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
}
COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class Card:
    """What only the publisher knows: the base model (a Hub id, or words), the license (a key of
    `LICENSES`), the training data, and the evaluation as Markdown if there is one."""

    base_model: str
    license: str = "cc-by-nc-4.0"
    data: str | None = None
    evaluation: str | None = None


def write_hub_folder(
    release: Release,
    encoder: ExternalEncoder,
    out: Path,
    card: Card,
    *,
    validate: Validator = lambda path: (),
) -> None:
    """Write the folder, whole or not at all. `validate` is as for `inject`.

    Raises UsageError for an `out` that exists or a license that is not known.
    """
    require_new(out)
    if card.license not in LICENSES:
        raise UsageError(
            f"The license {card.license!r} does not agree with that of Voxtral's weights: name "
            f"{' or '.join(LICENSES)}."
        )
    codebook = codebook_hash(release)
    with atomic_folder(out) as folder:
        _, failed = write_validated(folder / WEIGHTS, encoder, _metadata(encoder), validate)
        texts = {
            "config.json": json.dumps(_config(release, encoder, card, codebook), indent=2) + "\n",
            "README.md": card_text(release, encoder, card, codebook, failed),
        }
        for name, text in texts.items():
            _write(folder / name, text)
        _write(folder / SUMS, "".join(f"{hash_file(folder / n)}  {n}\n" for n in SUMMED))


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def card_text(
    release: Release, encoder: ExternalEncoder, card: Card, codebook: str, failed: Sequence[str]
) -> str:
    """The model card: YAML for the Hub, and text for the user."""
    codec, (license_name, address) = release.params.codec, LICENSES[card.license]
    on_hub = HUB_ID.fullmatch(card.base_model) is not None
    top: dict[str, Any] = {"license": card.license}
    if on_hub:
        top |= {"base_model": card.base_model, "base_model_relation": "adapter"}
    top |= {
        "pipeline_tag": "text-to-speech",
        "library_name": "voxclone",
        "tags": ["voice-cloning", "neural-codec", "voxtral"],
    }
    metrics = training_metrics(encoder)
    held_out = "".join(f"| {name} | {value:.3f} |\n" for name, value in metrics.items())
    evaluation = card.evaluation or NOT_MEASURED
    if failed:
        found = "\n".join(f"- {sentence}" for sentence in failed)
        warning = "**Do not use it as it is.** On the release's own presets:"
        evaluation = f"{warning}\n\n{found}\n\n{evaluation}"
    if held_out:
        evaluation += (
            "\n\nMetrics of the training on its validation data:\n\n"
            f"| metric | value |\n|---|---|\n{held_out}"
        )
    template = resources.files("voxclone.release") / "model_card.md"
    return template.read_text(encoding="utf-8").format(
        front_matter=yaml.safe_dump(top, sort_keys=False, allow_unicode=True).strip(),
        model=card.base_model,
        base=f"[{card.base_model}](https://huggingface.co/{card.base_model})"
        if on_hub
        else card.base_model,
        codec=codec,
        tensors=len(encoder.shapes),
        weights=WEIGHTS,
        license=license_name,
        address=address,
        codebook=codebook,
        data=card.data or "Not stated by who published this.",
        evaluation=evaluation.strip(),
    )


def _metadata(encoder: ExternalEncoder) -> dict[str, str]:
    """Codebook and metrics. The configuration of the training names folders of its machine, and is
    not published."""
    if not encoder.has_provenance:
        return dict(encoder.metadata)
    metrics = {"metrics": training_metrics(encoder)}
    return encoder_metadata(encoder.metadata["codebook_sha256"], metrics)


def _config(
    release: Release, encoder: ExternalEncoder, card: Card, codebook: str
) -> dict[str, Any]:
    codec, commit = release.params.codec, release.path.resolve().name
    return {
        "model_type": "voxtral_codec_encoder",
        "base_model": card.base_model,
        "base_model_revision": commit if COMMIT.fullmatch(commit) else None,
        "codebook_sha256": codebook,
        "dtype": "bfloat16",
        "tensors": len(encoder.shapes),
        "parameters": encoder.bytes // 2,
        "frame_rate": codec.frame_rate,
        "frame_size": codec.frame_size,
        "num_codebooks": codec.num_codebooks,
        "codec": codec.model_dump(mode="json"),
        "reference": {
            "sampling_rate": codec.sampling_rate,
            "channels": codec.channels,
            "advised_seconds": [10, 16],
            "least_seconds": 3,
            "most_seconds": 30,
            "level_dbfs": -20,
        },
        "made_by": f"voxclone {importlib.metadata.version('voxclone')}",
    }

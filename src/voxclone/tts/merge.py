"""A release with an adapter merged into its weights, for runtimes that read no adapters.

One tensor is in memory at a time: the sum is taken in fp32 and rounded once to the dtype of the
release. All other tensors are proved to be those of the base by hash. The files say which adapter
it was, and a second one is refused.

Shapes: O and I sizes of a matrix, R rank.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import ReleaseError, UsageError
from voxclone.io import Advance, atomic_folder, copy_file, hard_link, refuse_inside, require_new
from voxclone.release.params import Params
from voxclone.release.proof import check_presets, digest_tensors, prove_files
from voxclone.release.release import MERGED_ADAPTER, Release
from voxclone.release.safetensors import Header
from voxclone.release.safetensors_writer import Entry, torch_dtype, write_safetensors
from voxclone.release.tensors import require_complete
from voxclone.spec import TABLE
from voxclone.tts.adapter import PEFT
from voxclone.tts.adapter_file import AdapterFolder, require_base
from voxclone.tts.backbone import from_transformers

HEAD, BACKBONE = "head.", "backbone."


@dataclass(frozen=True)
class Merged:
    """`changed` tensors and, for each, the share of what the adapter adds that rounding to the
    dtype of the release lost; the number of `proved` ones, which are those of the base."""

    changed: dict[str, float]
    proved: int


def merge_adapter(
    found: AdapterFolder, release: Release, out: Path, advance: Advance = lambda count: None
) -> Merged:
    """Write the release `out`; it appears complete and proved, or not at all.

    Raises UsageError for a folder that cannot be made and for an adapter that no weights can hold,
    ReleaseError for another base, a base that an adapter was merged into, or a failed proof, and
    VoiceError for a preset that is not finite.
    """
    require_new(out)
    refuse_inside(out, release.path)
    if found.settings.reader == "voice":
        raise UsageError(
            f"{found.path} adapts the frames of voices, which no weights of a release hold: use it "
            "with `--adapter`."
        )
    require_complete(release.report, release.path)
    require_base(found, release)
    check_presets(release)
    deltas = weight_deltas(found, release.params)
    unknown = deltas.keys() - release.files.tensors.keys()
    if unknown:
        raise ReleaseError(f"The adapter {found.path} changes {min(unknown)}, which is not there.")
    lost: dict[str, float] = {}
    touched = [header for header in release.files.headers if deltas.keys() & header.tensors.keys()]
    with atomic_folder(out) as folder:
        for header in touched:
            _write(folder / header.path.name, header, release, deltas, found.sha256, lost)
        written = {header.path.name for header in touched}
        source = release.path.resolve()
        carried = []
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source)
            hidden = any(part.startswith(".") for part in name.parts)
            if path.is_file() and not hidden and str(name) not in written:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if not hard_link(path, folder / name):
                    copy_file(path, folder / name, advance)
                carried.append(str(name))
        prove_files(source, folder, carried, advance)
        proved = _prove(release, folder, set(deltas), advance)
    return Merged(lost, proved)


def weight_deltas(found: AdapterFolder, params: Params) -> dict[str, Callable[[], Tensor]]:
    """What an adapter adds to each tensor of a release, in fp32, in the release's own order."""
    if found.settings.reader == "table":
        return {TABLE: lambda: found.tensors["table_delta.rows"]}
    settings, deltas = found.settings, dict[str, Callable[[], Tensor]]()
    for full in found.tensors:
        if not full.endswith(".lora_A.weight"):
            continue
        name = full.removeprefix(PEFT).removesuffix(".lora_A.weight")

        def delta(full: str = full, name: str = name) -> Tensor:
            down_RI = found.tensors[full]
            up_OR = found.tensors[full.replace(".lora_A.", ".lora_B.")]
            delta_OI = (up_OR @ down_RI) * (settings.alpha / settings.rank)
            return _named(name, delta_OI, params)[1]

        empty = torch.empty(2 * params.lm.head_dim, 0)
        deltas[_named(name, empty, params)[0]] = delta
    return deltas


def _named(name: str, delta_OI: Tensor, params: Params) -> tuple[str, Tensor]:
    """Name and order of a module's weight in the release."""
    if name.startswith(HEAD):
        return f"acoustic_transformer.{name.removeprefix(HEAD)}.weight", delta_OI
    return from_transformers(f"{name.removeprefix(BACKBONE)}.weight", delta_OI, params)


def _write(
    path: Path,
    header: Header,
    release: Release,
    deltas: Mapping[str, Callable[[], Tensor]],
    sha256: str,
    lost: dict[str, float],
) -> None:
    """One file of the release with what is added; fills `lost`."""

    def make(name: str) -> Tensor:
        weight = release.files.load(name)
        if name not in deltas:
            return weight
        delta = deltas[name]()
        merged = (weight.float() + delta).to(weight.dtype)
        rest = merged.float() - weight.float() - delta
        lost[name] = float(rest.norm() / delta.norm().clamp(min=1e-20))
        return merged

    entries = [
        Entry(name, torch_dtype(info.dtype), info.shape, partial(make, name))
        for name, info in header.tensors.items()
    ]
    write_safetensors(path, entries, header.metadata | {MERGED_ADAPTER: sha256})


def _prove(release: Release, folder: Path, changed: set[str], advance: Advance) -> int:
    """Compare all tensors but the changed ones by hash. Raises ReleaseError if one differs."""
    new = Release.open(folder)
    require_complete(new.report, folder)
    before, after = (
        {name: info for name, info in each.files.tensors.items() if name not in changed}
        for each in (release, new)
    )
    hashes = digest_tensors(before, advance)
    if hashes != digest_tensors(after, advance):
        raise ReleaseError(
            f"In the merged copy of {release.path}, tensors that no adapter changes are not what "
            "they were: memory or disk are unreliable. Nothing was left; try again."
        )
    return len(hashes)

"""A new release with an encoder, made of one without: planned, carried out, and proved by hash.

By default the encoder is a second file, `consolidated-encoder.safetensors`, beside hard links to
the files of the release: vLLM loads all `consolidated*.safetensors` of a folder, or those that an
index names (spec/checkpoint 2.6). With `merge`, all tensors are in `consolidated.safetensors`. The
release itself is only read. vLLM-Omni accepts an incomplete encoder silently, with random numbers
for the rest, and fails for unknown tensors; injection makes neither.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxclone.errors import ReleaseError, reason
from voxclone.io import (
    Advance,
    atomic_file,
    atomic_folder,
    copy_file,
    hard_link,
    refuse_inside,
    require_new,
)
from voxclone.release.encoder_file import ExternalEncoder, Validator, write_validated
from voxclone.release.proof import (
    check_finite,
    check_presets,
    copy_tensors,
    prove_files,
    prove_tensors,
    without_encoder,
)
from voxclone.release.release import Release
from voxclone.release.safetensors import INDEX, TensorInfo, read_header
from voxclone.release.tensors import check_manifest, is_encoder, require_complete

SHARD = "consolidated-encoder.safetensors"
MERGED = "consolidated.safetensors"


@dataclass(frozen=True)
class Plan:
    """What will be done. `carried` files stay as they are (names within the release); `rewritten`
    has the tensors of each file that is written again; `left_out` files are not in the new release.
    `copy` if carried files are copied, as asked or since `out` is on another disk."""

    release: Release
    encoder: ExternalEncoder
    out: Path
    carried: tuple[str, ...]
    rewritten: dict[str, dict[str, TensorInfo]]
    left_out: tuple[str, ...]
    merge: bool
    copy: bool

    @property
    def written(self) -> int:
        """Bytes that will be taken on the disk, unless links turn out to be impossible."""
        encoder = (1 + self.merge) * self.encoder.bytes
        return encoder + self._rewritten + self.copy * self._carried

    @property
    def work(self) -> int:
        """Bytes that will be moved and read again for the proof, to show progress by."""
        carried = (1 + 2 * self.copy) * self._carried
        return (1 + self.merge) * self.encoder.bytes + carried + 3 * self._rewritten

    @property
    def _carried(self) -> int:
        return sum((self.release.path / name).stat().st_size for name in self.carried)

    @property
    def _rewritten(self) -> int:
        return sum(t.bytes for file in self.rewritten.values() for t in file.values())


@dataclass(frozen=True)
class Injected:
    """What was done: files that are linked, copied, and written; SHA-256 of each carried file; and
    the number of tensors that are proved to be those of the release."""

    linked: tuple[str, ...]
    copied: tuple[str, ...]
    written: tuple[str, ...]
    sha256: dict[str, str]
    tensors: int


def plan_injection(
    release: Release,
    encoder: ExternalEncoder,
    out: Path,
    *,
    merge: bool = False,
    replace: bool = False,
    copy: bool = False,
) -> Plan:
    """Check everything and write nothing.

    Raises UsageError for an `out` that exists or lies in the release, ReleaseError for a release
    that is damaged, has an encoder (unless `replace`), or whose files leave no name or room, and
    VoiceError for a preset that is damaged or not finite.
    """
    require_new(out)
    source = release.path.resolve()
    refuse_inside(out, source)
    state = release.report.encoder
    if state != "withheld" and not replace:
        raise ReleaseError(
            f"{release.path} has {'an' if state == 'complete' else 'a partial'} encoder already: "
            "`--replace` makes a release with the other one in its place."
        )
    check_presets(release)
    own = without_encoder(release.files.tensors)
    require_complete(check_manifest(release.params, own), release.path)
    names, hidden = _files(release.path)
    read = {header.path.name for header in release.files.headers}
    strays = {name for name in names if _is_weights(name)} - read
    rewritten = {MERGED: own} if merge else _files_with_encoder(release)
    # In one file nothing is left that an index, or a file beside it, could add.
    dropped = {INDEX} | read | strays if merge else {INDEX} | rewritten.keys()
    if (not merge and SHARD in set(names) - dropped) or rewritten.get(SHARD):
        raise ReleaseError(
            f"{release.path / SHARD} holds more than an encoder, but has the name that the "
            "encoder's file must have: rename it in a copy of the release, or use `--merge`."
        )
    far = out.resolve().parent.stat().st_dev != source.stat().st_dev
    plan = Plan(
        release=release,
        encoder=encoder,
        out=out,
        carried=tuple(name for name in names if name not in dropped),
        rewritten={name: tensors for name, tensors in rewritten.items() if tensors},
        left_out=(*hidden, *sorted(({INDEX} & {*names}) | strays if merge else ())),
        merge=merge,
        copy=copy or far,
    )
    free = shutil.disk_usage(out.resolve().parent).free
    if free < plan.written:
        raise ReleaseError(
            f"{out} will need {plan.written / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB "
            "left: make room, or name a folder on another disk."
        )
    return plan


def inject(
    plan: Plan, *, validate: Validator = lambda path: (), advance: Advance = lambda count: None
) -> Injected:
    """Make the new release; it appears complete and proved, or not at all.

    `validate` is called with the encoder's new file before anything else is written, and raises to
    refuse it; the failed checks that it returns go into the header. Raises ReleaseError if the disk
    fails, anything differs, or a weight is not finite.
    """
    source, merge = plan.release.path, plan.merge
    with atomic_folder(plan.out) as folder:
        check_finite(without_encoder(plan.release.files.tensors))
        shard = folder / SHARD
        made, _ = write_validated(shard, plan.encoder, plan.encoder.metadata, validate)
        linked: list[str] = []
        copied: list[str] = []
        for name in plan.carried:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            by_link = not plan.copy and hard_link(source / name, folder / name)
            if not by_link:
                copy_file(source / name, folder / name, advance)
            (linked if by_link else copied).append(name)
        for name, tensors in plan.rewritten.items():
            metadata = _metadata(plan, name)
            if merge:
                header = read_header(shard)
                tensors = tensors | header.tensors
                metadata |= {f"encoder.{key}": text for key, text in header.metadata.items()}
            copy_tensors(folder / name, tensors, metadata, advance)
        if merge:
            shard.unlink()
        elif (source / INDEX).exists():
            _write_index(plan, folder)
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        sha256 = prove_files(source, folder, plan.carried, advance)
        proved = prove_tensors(plan.release, folder, plan.carried, made, advance)
    written = tuple(sorted(there - {*linked, *copied}))
    return Injected(tuple(linked), tuple(copied), written, sha256, proved)


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Names of all files in and below a folder, and of its hidden entries, which are left out."""
    found: list[str] = []
    hidden: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise ReleaseError(f"{error.filename} cannot be read: {reason(error)}.") from None

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            raise ReleaseError(f"{parent} is a second way into {real}: remove that link.")
        seen.add(real)
        if len(seen) == 1:
            hidden = sorted(name for name in [*folders, *files] if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if not path.is_file():
                raise ReleaseError(f"{path} is no file, or a link to nothing: remove or fetch it.")
            found.append(path.relative_to(folder).as_posix())
    return found, hidden


def _is_weights(name: str) -> bool:
    return "/" not in name and name.startswith("consolidated") and name.endswith(".safetensors")


def _files_with_encoder(release: Release) -> dict[str, dict[str, TensorInfo]]:
    """For each file that has tensors of the encoder, the others in it (perhaps none)."""
    return {
        header.path.name: without_encoder(header.tensors)
        for header in release.files.headers
        if any(map(is_encoder, header.tensors))
    }


def _metadata(plan: Plan, name: str) -> dict[str, str]:
    """The metadata of one file, or of all that are merged."""
    kept: dict[str, str] = {}
    for header in plan.release.files.headers:
        if plan.merge or header.path.name == name:
            kept = header.metadata | kept
    return {key: text for key, text in kept.items() if not key.startswith("encoder.")}


def _write_index(plan: Plan, folder: Path) -> None:
    """The release's index, with the encoder's tensors in their new file."""
    index: dict[str, Any] = json.loads((plan.release.path / INDEX).read_text(encoding="utf-8"))
    files = {name: file for name, file in index["weight_map"].items() if not is_encoder(name)}
    index["weight_map"] = files | dict.fromkeys(plan.encoder.shapes, SHARD)
    if "total_size" in (index.get("metadata") or {}):
        own = without_encoder(plan.release.files.tensors)
        held = sum(info.bytes for info in own.values())
        index["metadata"]["total_size"] = held + plan.encoder.bytes
    with atomic_file(folder / INDEX) as file:
        file.write(json.dumps(index, indent=2).encode())

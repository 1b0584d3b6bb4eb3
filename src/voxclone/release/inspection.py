"""The content of a release, without loading a tensor."""

from dataclasses import dataclass

from voxclone.errors import ReleaseError, VoiceError
from voxclone.release.presets import count_frames
from voxclone.release.release import Release, preset_names, preset_path
from voxclone.release.tekken import read_tekken, tekken_problems, voice_counts
from voxclone.release.tensors import ENCODER_PREFIXES
from voxclone.spec import CODEC, VOICES

# The parts of a release and how the names of their tensors start.
PARTS: dict[str, tuple[str, ...]] = {
    "language model": ("layers.", "norm.", "output."),
    "embeddings": ("mm_audio_embeddings.",),
    "acoustic head": ("acoustic_transformer.",),
    "codec decoder": (f"{CODEC}decoder_blocks.", f"{CODEC}output_proj."),
    "codec quantizer": (f"{CODEC}quantizer.",),
    "codec encoder": ENCODER_PREFIXES,
}


ENCODER_HINTS = {
    "withheld": " (recordings cannot be turned into voices without one)",
    "partial": " (some of its tensors are missing or misshapen: do not use it)",
    "complete": "",
}


@dataclass(frozen=True)
class Part:
    """Size of one part of a release."""

    tensors: int
    values: int


@dataclass(frozen=True)
class Inspection:
    """The content of a release: bytes of each file, size of each part, frames of each voice, state
    of the encoder (withheld, partial, complete), dtypes, and a sentence for each problem."""

    path: str
    bytes: dict[str, int]
    parts: dict[str, Part]
    voices: dict[str, int]
    encoder: str
    dtypes: tuple[str, ...]
    problems: tuple[str, ...]
    merged_adapter: str | None = None


def inspect_release(release: Release) -> Inspection:
    """Look at all files of a release without loading a tensor."""
    voices: dict[str, int] = {}
    problems = [f"{clause}." for clause in release.report.problems()]
    problems += _stray_files(release)
    counts: dict[str, int] = {}
    try:
        tekken = read_tekken(release.path / "tekken.json")
        problems += tekken_problems(tekken, release.params)
        counts = voice_counts(tekken)
    except ReleaseError as error:
        problems.append(str(error))
    for name in preset_names(release):
        try:
            voices[name] = count_frames(preset_path(release, name), release.params.lm.dim)
        except VoiceError as error:
            problems.append(str(error))
            continue
        if counts and name not in counts:
            problems.append(f"tekken.json has no frame count for the voice {name!r}.")
        elif counts and counts[name] != voices[name]:
            problems.append(
                f"The voice {name!r} has {voices[name]} frames, and {counts[name]} by tekken.json."
            )
    tensors = release.files.tensors
    parts = {}
    for part, prefixes in PARTS.items():
        inside = [tensor for name, tensor in tensors.items() if name.startswith(prefixes)]
        parts[part] = Part(len(inside), sum(tensor.values for tensor in inside))
    files = [release.path / "params.json", release.path / "tekken.json"]
    files += [header.path for header in release.files.headers]
    files += sorted((release.path / VOICES).glob("*.pt"))
    return Inspection(
        path=str(release.path),
        bytes={
            str(file.relative_to(release.path)): file.stat().st_size
            for file in files
            if file.is_file()
        },
        parts=parts,
        voices=voices,
        encoder=release.report.encoder,
        dtypes=tuple(sorted({tensor.dtype for tensor in tensors.values()})),
        problems=tuple(problems),
        merged_adapter=release.merged_adapter,
    )


def describe(found: Inspection) -> str:
    """An inspection as text for a terminal."""
    total = sum(found.bytes.values())
    lines = [f"{found.path}: {_size(total)} in {len(found.bytes)} files, {', '.join(found.dtypes)}"]
    for part, size in found.parts.items():
        lines.append(f"  {part:<16} {size.tensors:>4} tensors {size.values:>14,} values")
    tensors = sum(size.tensors for size in found.parts.values())
    values = sum(size.values for size in found.parts.values())
    lines.append(f"  {'together':<16} {tensors:>4} tensors {values:>14,} values")
    lines.append(f"  encoder: {found.encoder}{ENCODER_HINTS[found.encoder]}")
    if found.merged_adapter is not None:
        lines.append(f"  merged adapter: {found.merged_adapter[:12]}")
    voices = ", ".join(f"{name} ({frames})" for name, frames in found.voices.items())
    lines.append(f"  {len(found.voices)} voices (frames): {voices}")
    lines += [f"  ! {problem}" for problem in found.problems]
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _stray_files(release: Release) -> list[str]:
    read = {header.path.name for header in release.files.headers}
    found = {path.name for path in release.path.glob("consolidated*.safetensors")}
    strays = [f"{name} is not in the index, so it is not read." for name in sorted(found - read)]
    named = set(release.params.voices)
    for path in sorted((release.path / VOICES).glob("*.pt")):
        if path.stem not in named:
            strays.append(f"{path.name} is not in the voice map of params.json, so it is not used.")
    return strays

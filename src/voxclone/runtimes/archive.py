"""An export as one small file to send to somebody: without the weights that its reader has."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from voxclone.release.release import Release
from voxclone.runtimes.export import ExportWords, export_voice
from voxclone.runtimes.table import Runtime
from voxclone.voice.resolve import ResolvedVoice

NOTE = """{voice} for {runtime}, which knows it as {name}

{place}

Then: {use}
"""
INSTALLATION = {
    "release": "These files belong over a copy of the release that the voice was made for "
    "({release}):\n\n"
    "  cp -r path/to/{release} voxtral-{name}\n  unzip -o this.zip -d voxtral-{name}",
    "voices": "Unpack these files into the folder of voices that {runtime} reads.",
}

# For requests, which have no `--name`: a stored voice is renamed instead.
WORDS = ExportWords(rename="give the voice another name", replace="'replace_preset'")


@dataclass(frozen=True)
class Archive:
    """A file by its name."""

    file_name: str
    content: bytes


def use_of(runtime: Runtime, file_name: str, name: str) -> str:
    """How a runtime speaks with the voice that it knows as `name`, from the file, or from where the
    note in a zip says to unpack it."""
    places = {"file": file_name, "release": f"voxtral-{name}", "voices": "voices"}
    return runtime.use.format(out=places[runtime.input], name=name)


def pack_export(
    voice: ResolvedVoice, runtime: Runtime, release: Release, scratch: Path, replace: str | None
) -> Archive:
    """A voice for a runtime: its own file, or a zip of what is new in a folder, with a note. The
    voice takes the place of the preset `replace` if one is given. `scratch` is an empty folder.
    Raises what `export_voice` raises."""
    # Messages say by this name what would have been written.
    out = scratch / f"the export{runtime.suffix if runtime.input == 'file' else ''}"
    reading = export_voice(
        voice, runtime, release, out, replace_preset=replace, symbolic=True, words=WORDS
    )
    if runtime.input == "file":
        return Archive(f"{voice.name}-{runtime.name}{runtime.suffix}", out.read_bytes())
    values = {
        "voice": voice.name,
        "name": reading.name,
        "runtime": runtime.name,
        "release": release.path.name,
        "use": use_of(runtime, "", reading.name),
    }
    place = INSTALLATION[runtime.input].format(**values)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("README.txt", NOTE.format(place=place, **values))
        for path in sorted(out.rglob("*")):
            new = path.is_file() and not path.is_symlink()
            if new and not _is_of(release, path, path.relative_to(out)):
                packed.write(path, path.relative_to(out))
    return Archive(f"{voice.name}-{runtime.name}.zip", content.getvalue())


def _is_of(release: Release, path: Path, relative: Path) -> bool:
    """Whether the release has the same file."""
    own = release.path / relative
    return own.is_file() and own.read_bytes() == path.read_bytes()

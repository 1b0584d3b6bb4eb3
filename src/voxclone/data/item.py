"""A stretch of a recording that may become a clip, as a source lists it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """A whole file, or `seconds` of it from `start` on (and of its `channel` alone). With `beside`
    its text is in the file of the same name that ends in .txt, where there is one."""

    id: str
    path: Path
    speaker: str
    start: float = 0.0
    seconds: float | None = None
    channel: int | None = None
    language: str | None = None
    text: str | None = None
    split: str = "train"
    licence: str | None = None
    beside: bool = False

    @property
    def place(self) -> str:
        """What tells it from every other item, for names and hashes."""
        return f"{self.id}\n{self.path}\n{self.start}\n{self.seconds}\n{self.channel}"

    def said(self) -> str | None:
        """Its text, from beside the file if it is there."""
        text = self.path.with_suffix(".txt")
        if self.text is None and self.beside and text.is_file():
            return text.read_text(encoding="utf-8", errors="replace").strip() or None
        return self.text

    def file_name(self) -> str:
        """Where its clip goes: a folder for the speaker and a name that no other item has."""
        digest = hashlib.sha256(self.place.encode()).hexdigest()[:8]
        inner = self.id.rpartition("/")[2]
        return f"{_plain(self.speaker)}/{_plain(Path(inner).stem)}-{digest}.flac"


def _plain(name: str) -> str:
    """A name without anything that a file system could take amiss."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[:80]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

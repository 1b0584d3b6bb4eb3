"""Settings and limits of a server."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from voxclone.errors import UsageError, VoxcloneError, shorten

LEAST_KEY = 16
LONGEST_PATH = 200
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?")
IMPLIED_PORTS = re.compile(r"http:.*:80|https:.*:443")


@dataclass(frozen=True)
class Limits:
    """What is refused, or given up, instead of letting memory or time grow."""

    upload_bytes: int = 10 * 2**20
    """Of a recording or a voice file (10 MiB, as vLLM-Omni's)."""
    json_bytes: int = 128 * 2**10
    """Of every other body."""
    body_seconds: float = 60.0
    """For a body to arrive."""
    recording_seconds: float = 300.0
    decoding_seconds: float = 20.0
    voices: int = 1000
    together: int = 16
    """Texts that are spoken in one batch."""
    queue: int = 32
    """Requests that wait for the model beside those that it works on."""
    ahead_seconds: float = 60.0
    """Speech that may wait for its reader; no further part of a text is begun beyond."""
    stalled_seconds: float = 60.0
    """After which a reader that takes nothing is given up."""
    drain_seconds: float = 30.0
    """For running requests to end when the server stops."""


@dataclass(frozen=True)
class ServeSettings:
    """`model` is the name by which clients ask for the release; `voices` is a folder by its whole
    path, without links; `origins` are the pages of other hosts that may use the server."""

    model: str
    voices: Path
    host: str = "127.0.0.1"
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether a host to bind to, or of a request, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, api_key: str | None) -> None:
    """Raise UsageError for an address that others reach without a key, and for a key that could be
    guessed or sent in no header."""
    if api_key is None and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, so a key is needed: add `--api-key KEY` "
            "or `--api-key-file FILE`, or keep to 127.0.0.1."
        )
    if api_key is None:
        return
    if len(api_key) < LEAST_KEY:
        raise UsageError(
            f"The API key has {len(api_key)} characters, and {LEAST_KEY} are needed: `openssl rand "
            "-hex 24` makes one."
        )
    if not all("!" <= character <= "~" for character in api_key):
        raise UsageError("The API key may hold ASCII letters, digits and signs only, no spaces.")


def check_paths(*folders: Path) -> None:
    """Raise VoxcloneError for a folder whose path messages may shorten, or show in other
    characters: it could not be found in them, and left out of what clients are told."""
    for folder in folders:
        path = str(folder)
        if len(path) > LONGEST_PATH or not path.isprintable():
            raise VoxcloneError(
                f"The folder {shorten(path)} cannot be served: its path may have {LONGEST_PATH} "
                "characters, all printable and in UTF-8. Name it by another path, or move it."
            )


def check_origins(origins: Iterable[str]) -> None:
    """Raise UsageError for a page that is not named as browsers name it: it would never be let in,
    or not by all routes."""
    for origin in origins:
        if not ORIGIN.fullmatch(origin) or IMPLIED_PORTS.fullmatch(origin):
            raise UsageError(
                f"--cors-origin is {origin!r}: name one page as scheme://host[:port] only, in "
                "small letters, without a path, a slash at the end or the scheme's own port: "
                "https://page.example, http://localhost:3000."
            )

"""Voice cloning for Voxtral TTS: recover the codec's encoder, make voices, speak.

    from voxclone import TTS, Codec, Consent, Release, Voice, enroll

The names are imported when they are first used, so that `import voxclone` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxclone.cloning.enroll import enroll
    from voxclone.codec.model import Codec
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS
    from voxclone.voice.file import Voice
    from voxclone.voice.metadata import Consent

__all__ = ["TTS", "Codec", "Consent", "Release", "Voice", "enroll"]

_HOMES = {
    "Codec": "voxclone.codec.model",
    "Consent": "voxclone.voice.metadata",
    "Release": "voxclone.release.release",
    "TTS": "voxclone.tts.tts",
    "Voice": "voxclone.voice.file",
    "enroll": "voxclone.cloning.enroll",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

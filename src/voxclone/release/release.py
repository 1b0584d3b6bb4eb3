"""A release: opened by its headers alone; tensors are read on demand."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError, VoiceError, is_address, not_fetched
from voxclone.readers import require_local
from voxclone.release.encoder_layouts import read_encoder_tensors
from voxclone.release.params import Params, read_params
from voxclone.release.presets import read_preset
from voxclone.release.safetensors import TensorFiles, find_shards
from voxclone.release.tekken import read_tekken, voice_counts
from voxclone.release.tensors import (
    ENCODER_PREFIXES,
    ManifestReport,
    check_manifest,
    require_complete,
)
from voxclone.spec import CODEC, TABLE, VOICES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from voxclone.codec.model import Codec

MINI = "mini"
MERGED_ADAPTER = "merged_adapter"
"""In the metadata of files with merged weights: the hash of the adapter (`tts.merge`)."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILES = [
    "params.json",
    "tekken.json",
    "consolidated*.safetensors",
    "consolidated.safetensors.index.json",
    "voice_embedding/*.pt",
]
DECODER = (f"{CODEC}decoder_blocks.", f"{CODEC}output_proj.", f"{CODEC}quantizer.")


@dataclass(frozen=True)
class Release:
    """A release directory. `report` compares its tensors with those that `params` asks for."""

    path: Path
    params: Params
    files: TensorFiles
    report: ManifestReport

    @classmethod
    def open(cls, source: str | Path) -> "Release":
        """Open a directory, the packaged release ("mini") or a Hub repository ("owner/name").

        Only params.json and the headers of the tensor files are read. `report` has the tensors that
        are missing or misshapen; loading them fails. Raises ReleaseError if there is no such
        release, or its files are missing, damaged or contradictory.
        """
        path = find_release(source)
        params = read_params(path / "params.json")
        files = find_shards(path)
        return cls(path, params, files, check_manifest(params, files.tensors))

    @property
    def merged_adapter(self) -> str | None:
        """The hash of the adapter that was merged into its weights, if one was."""
        found = (header.metadata.get(MERGED_ADAPTER) for header in self.files.headers)
        return next((sha256 for sha256 in found if sha256 is not None), None)

    @cached_property
    def parameters(self) -> int:
        """How many parameters its tensors hold."""
        return sum(tensor.values for tensor in self.files.tensors.values())

    @cached_property
    def voice_counts(self) -> dict[str, int]:
        """Frames of each preset by tekken.json; empty if it has no counts."""
        path = self.path / "tekken.json"
        return voice_counts(read_tekken(path)) if path.exists() else {}


def find_release(source: str | Path) -> Path:
    """The directory that `source` means; a Hub repository is fetched. Raises ReleaseError."""
    if source == MINI:
        return mini_release()
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise ReleaseError(f"{path} is no directory: name that of the release.")
    if is_address(str(source)):
        raise ReleaseError(f"{not_fetched(str(source), 'release')} A Hub id is OWNER/NAME alone.")
    require_local(source, ReleaseError, "release")
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return _fetch(source)
    raise ReleaseError(
        f"There is no directory {path}: name the directory of a release, a Hub repository as "
        f"owner/name, or {MINI!r}."
    )


def mini_release() -> Path:
    """The release that comes with the package."""
    path = Path(__file__).parents[1] / "mini" / "assets" / "release"
    if not path.is_dir():
        raise ReleaseError(
            f"The packaged release is not installed: {path} is missing; reinstall voxclone."
        )
    return path


def load_codec(release: Release, encoder: str | Path | None = None) -> "Codec":
    """The codec in fp32, for inference. Its encoder is that of the file `encoder` if given, else
    the release's own if it has one, else None.

    The file is of any layout that `read_encoder_tensors` knows. Raises ReleaseError for tensors
    that are missing or misshapen.
    """
    from voxclone.codec.model import Codec

    files, params = release.files, release.params
    require_complete(release.report, release.path, DECODER)
    load: Callable[[str], Tensor] = files.load
    if encoder is not None:
        load = read_encoder_tensors(Path(encoder), params).load
    elif release.report.encoder != "withheld":
        require_complete(release.report, release.path, ENCODER_PREFIXES)
    has_encoder = encoder is not None or release.report.encoder != "withheld"
    with _without_initialization():
        codec = Codec(params.codec, with_encoder=has_encoder)
    _fill(codec.quantizer, files, f"{CODEC}quantizer.")
    _fill(codec.decoder, files, CODEC)
    if codec.encoder is not None:
        names = list(codec.encoder.state_dict())
        codec.encoder.load_state_dict({name: load(CODEC + name) for name in names})
    return codec.eval().requires_grad_(False)


def load_table(release: Release) -> "Tensor":
    """The embedding table [V, D] of all codebooks, as it is stored (bf16)."""
    require_complete(release.report, release.path, TABLE)
    return release.files.load(TABLE)


def preset_names(release: Release) -> list[str]:
    """Names of the presets, by their index."""
    voices = release.params.voices
    return sorted(voices, key=lambda name: (voices[name], name))


def preset_path(release: Release, name: str) -> Path:
    """The file of a preset. Raises VoiceError, with the nearest name, if there is none."""
    names = preset_names(release)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise VoiceError(f"There is no voice {name!r}: {hint}Voices are {', '.join(names)}.")
    path = release.path / VOICES / f"{name}.pt"
    if not path.is_file():
        raise VoiceError(f"params.json names the voice {name!r}, but {path} is missing: fetch it.")
    return path


def load_preset(release: Release, name: str) -> "Tensor":
    """The embedding of a preset [N, D] in bf16; nothing is unpickled.

    Raises VoiceError if there is no such voice, its file is no plain tensor, or it has another
    number of frames than tekken.json has for it (the prompt would not fit).
    """
    path = preset_path(release, name)
    embedding_ND = read_preset(path, release.params.lm.dim)
    count = release.voice_counts.get(name, len(embedding_ND))
    if count != len(embedding_ND):
        raise VoiceError(
            f"The voice {name!r} has {len(embedding_ND)} frames, but tekken.json in {release.path} "
            f"says {count}: fetch both files again, or correct voice_num_audio_tokens."
        )
    return embedding_ND


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:  # the client passes on errors of several network libraries
        reason = str(error).strip().partition("\n")[0]
        raise ReleaseError(
            f"There is no directory {name}, and the Hub does not give a repository of that name "
            f"({type(error).__name__}: {reason}): check the name, the network, and that you "
            "have accepted the license and logged in with `hf auth login`."
        ) from None


def _fill(module: "Module", files: TensorFiles, prefix: str) -> None:
    """In fp32, each tensor from the stored one as it is read: all of the stored ones at once would
    leave holes in the memory of the process."""
    import torch

    names = list(module.state_dict())
    tensors = files.load_many([prefix + name for name in names], torch.float32)
    module.load_state_dict({name: tensors[prefix + name] for name in names}, assign=True)


def _without_initialization() -> Any:
    """Modules built inside keep their parameters as they are allocated: loading overwrites all of
    them, and drawing 300 million random numbers first takes seconds."""
    import torch
    from torch.overrides import TorchFunctionMode

    class SkipInit(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if getattr(function, "__module__", None) == torch.nn.init.__name__:
                return kwargs["tensor"] if kwargs else args[0]
            return function(*args, **(kwargs or {}))

    return SkipInit()

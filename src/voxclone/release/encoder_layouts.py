"""Encoders as people have them: the tensors of an encoder, wherever they are in a file.

Around the names of the release there may be `audio_tokenizer.`, the keys of a checkpoint (`model`,
`state_dict`, `encoder`), and what wrappers add (`module.` of DistributedDataParallel, `_orig_mod.`
of torch.compile). All of them are prefixes, so the prefix that has the whole encoder is the one;
an average of weights (EMA) is preferred.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import ReleaseError
from voxclone.release.params import Params
from voxclone.release.safetensors import Header, TensorFiles, TensorInfo, read_header
from voxclone.release.tensors import (
    ENCODER_PREFIXES,
    check_manifest,
    encoder_tensors,
    expected_tensors,
    is_encoder,
)
from voxclone.release.torch_checkpoint import is_torch_file, read_checkpoint
from voxclone.spec import CODEC

if TYPE_CHECKING:
    from torch import Tensor

AVERAGE = re.compile(r"(^|[._])(ema|shadow|average|averaged)([._]|$)")
OTHER_VALUES = re.compile(r"(^|[._])(optim\w*|exp_avg\w*|grad\w*|momentum\w*)([._]|$)")
_NAME = re.compile(r"(?P<prefix>.*?)(?P<name>(input_proj|encoder_blocks)\..+)")


@dataclass(frozen=True)
class EncoderTensors:
    """A whole encoder: `load` gives a tensor by its name in the release. `header` is that of a
    safetensors file, and `notes` are sentences on how the tensors were found."""

    load: "Callable[[str], Tensor]"
    header: Header | None
    notes: tuple[str, ...] = ()


def read_encoder_tensors(path: Path, params: Params) -> EncoderTensors:
    """Find the encoder in a safetensors file or a file of `torch.save`; nothing is unpickled, and
    no tensor is read.

    Raises ReleaseError if there is no whole encoder that fits `params`, or more than one.
    """
    header: Header | None = None
    if is_torch_file(path):
        checkpoint = read_checkpoint(path)
        found, load = checkpoint.tensors, checkpoint.load
    else:
        header = read_header(path)
        found, load = header.tensors, TensorFiles([header]).load
    prefix = _choose_prefix(found, params, path)
    names = {
        f"{CODEC}{match['name']}": name
        for name in found
        if (match := _NAME.fullmatch(name)) and match["prefix"] == prefix
    }
    if prefix in ("", CODEC):
        _refuse_others(found, prefix, params, path)
    notes = []
    if header is None:
        notes.append(f"{path.name} is a file of torch.save: it was read without unpickling.")
    if prefix not in ("", CODEC):
        kind = "averaged weights (EMA)" if AVERAGE.search(prefix) else "weights"
        others = len(found) - len(names)
        notes.append(f"Used the {kind} under {prefix!r}, and left out {others} other tensors.")
    return EncoderTensors(lambda name: load(names[name]), header, tuple(notes))


def _choose_prefix(found: Mapping[str, TensorInfo], params: Params, path: Path) -> str:
    """The prefix of the encoder to use."""
    groups: dict[str, dict[str, TensorInfo]] = {}
    for name, info in found.items():
        match = _NAME.fullmatch(name)
        if match and not OTHER_VALUES.search(match["prefix"]):
            groups.setdefault(match["prefix"], {})[f"{CODEC}{match['name']}"] = info
    if not groups:
        raise ReleaseError(f"{path} holds no tensor of a codec encoder: name another file.")
    whole = encoder_tensors(params).keys()
    complete = [prefix for prefix, group in groups.items() if group.keys() >= whole]
    averages = [prefix for prefix in complete if AVERAGE.search(prefix)]
    candidates = averages or complete or [max(groups, key=lambda prefix: len(groups[prefix]))]
    if len(candidates) > 1:
        raise ReleaseError(
            f"{path} holds {len(candidates)} encoders, under {', '.join(map(repr, candidates))}: "
            "save the one to use as safetensors."
        )
    problems = check_manifest(params, groups[candidates[0]]).summary(ENCODER_PREFIXES)
    if problems:
        raise ReleaseError(
            f"{path} is not the whole encoder that params.json describes: {problems}. Name another "
            "file, or train one for this release."
        )
    return candidates[0]


def _refuse_others(
    found: Mapping[str, TensorInfo], prefix: str, params: Params, path: Path
) -> None:
    """Raise ReleaseError for a plain file with tensors that no release has."""
    ours = (CODEC.removeprefix(prefix) + name for name in found)
    known = expected_tensors(params)
    unknown = sorted(name for name in ours if name not in known and not is_encoder(name))
    if unknown:
        raise ReleaseError(
            f"{path} holds {unknown[0].removeprefix(CODEC)!r}, which is not of a codec encoder: "
            "name the file that `voxclone train encoder` wrote."
        )

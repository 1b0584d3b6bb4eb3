"""What the language model knows of real speech whose words are known.

The release's model says which semantic codes are likely after a voice, these words and the codes
so far; the encoder (and the bridge) say which ones the sound may be. They err in different places:
their product is a better opinion of a real clip than either, as in the noisy channel of a
recogniser, and it is what the encoder is then told. Better encoders make better labels, so clips
are labelled again now and then.

The codes so far are not known either: all frames are asked at once, after the labels of the round
before, until nothing changes (Jacobi's way to the arg-max, frame after frame).

Shapes: B batch, S samples, K code books, T frames, J kept codes, V semantic codes, N voice rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import SemanticCodebook
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.errors import ConfigError
from voxclone.io import atomic_path
from voxclone.train import ranks
from voxclone.train.bridge import Bridge, code_logits
from voxclone.tts.acoustic import SHIFT
from voxclone.tts.likelihood import states_of
from voxclone.tts.tts import TTS
from voxclone.voice.rows import voice_rows

VOICE_FRAMES = 100


class ChannelSettings(Settings):
    """`at` are the steps before which clips are labelled (none: never). An opinion is a product of
    three with the exponents `encoder`, `bridge` and `model`; its `kept` likeliest codes remain."""

    at: tuple[int, ...] = ()
    clips: int = 800
    encoder: float = 0.7
    bridge: float = 0.1
    model: float = 0.7
    rounds: int = 4
    kept: int = 8


@dataclass(frozen=True)
class Label:
    """An opinion of a clip: codes [T, J] and their probabilities [T, J]."""

    code_TJ: Tensor
    weight_TJ: Tensor


@torch.no_grad()
def label_clips(
    codec: Codec,
    bridge: Bridge | None,
    model: TTS,
    subset: Subset,
    settings: ChannelSettings,
    generator: torch.Generator,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[int, Label]:
    """Labels of random clips of `subset` that have a text and another clip of their speaker."""
    corpus = subset.corpus
    speakers = subset.by_speaker()
    able = [
        i
        for i in subset.indices
        if corpus.clips[i].text and len(speakers[corpus.clips[i].speaker]) > 1
    ]
    if not able:
        raise ConfigError(
            "No clip of the speech has a text and another clip of its speaker: the weight `told` "
            "needs some; give it texts, or set the weight to 0."
        )
    order = torch.randperm(len(able), generator=generator)[: settings.clips].tolist()
    labels = {}
    for place in track(order):
        index = able[place]
        others = [i for i in speakers[corpus.clips[index].speaker] if i != index]
        other = others[int(torch.randint(len(others), (1,), generator=generator))]
        labels[index] = label_clip(codec, bridge, model, corpus, index, other, settings)
    return labels


def label_clip(
    codec: Codec,
    bridge: Bridge | None,
    model: TTS,
    corpus: Corpus,
    index: int,
    other: int,
    settings: ChannelSettings,
) -> Label:
    """The opinion of one clip; the voice before it is another clip, as the encoder hears it."""
    book = codec.quantizer.semantic_codebook
    device = book.cluster_usage.device
    wave_BS = corpus.wave(index)[None].to(device)
    latent_BDT = codec.latents(wave_BS)
    heard_TV = settings.encoder * _log_opinion(book, codec.quantizer.split(latent_BDT)[0])
    if bridge is not None and settings.bridge:
        advised_TV = settings.bridge * _log_opinion(book, bridge(wave_BS))
        frames = min(len(heard_TV), len(advised_TV))
        heard_TV = torch.cat([heard_TV[:frames] + advised_TV[:frames], heard_TV[frames:]])
    codes_KT = codec.quantizer.encode(latent_BDT)[0]
    voice_S = corpus.wave(other, 0, min(corpus.length(other), VOICE_FRAMES * codec.frame_size))
    voice_KT = codec.encode(voice_S[None].to(device))[0]
    shifted_TK = codes_KT.T + SHIFT
    shifted_TK[:, 0] = heard_TV.argmax(dim=-1) + SHIFT
    text = corpus.clips[index].text or ""
    for _ in range(settings.rounds):
        said_TV = semantic_opinion(model, voice_KT, text, shifted_TK)
        both_TV = (heard_TV + settings.model * said_TV).log_softmax(dim=-1)
        chosen_T = both_TV.argmax(dim=-1) + SHIFT
        if torch.equal(chosen_T, shifted_TK[:, 0]):
            break
        shifted_TK[:, 0] = chosen_T
    top = both_TV.exp().topk(settings.kept, dim=-1)
    weight_TJ = top.values / top.values.sum(dim=-1, keepdim=True)
    return Label(top.indices.cpu(), weight_TJ.cpu())


def semantic_opinion(model: TTS, voice_KT: Tensor, text: str, shifted_TK: Tensor) -> Tensor:
    """Log-probabilities [T, V] of the semantic code of each frame after a voice [K, N], a text and
    the frames before it (shifted codes [T, K])."""
    backbone, head = model.backbone, model.head
    device = model.device
    offsets = backbone.offsets_K.tolist()
    rows_ND = voice_rows(voice_KT.to(device), backbone.audio_table.weight, offsets)
    logits_TV = head.semantic_logits(states_of(model, rows_ND, text, shifted_TK)[:-1])
    usable = slice(SHIFT, SHIFT + head.semantic_size)
    opinion_TV: Tensor = logits_TV[:, usable].log_softmax(dim=-1)
    return opinion_TV.to(shifted_TK.device)


def told_loss(
    book: SemanticCodebook,
    semantic_BDT: Tensor,
    labels: Sequence[Label],
    starts: Sequence[int],
    history: int,
) -> Tensor:
    """Cross-entropy of semantic latents [B, D, T] with the labels of their clips from the frames
    `starts` on. What lies beyond a clip's end does not count, nor do the first `history` frames of
    a crop that begins within its clip: their labels know a past that the crop has not."""
    frames = semantic_BDT.shape[-1]
    logits_NV = code_logits(book, semantic_BDT)
    log_BTV = logits_NV.log_softmax(dim=-1).unflatten(0, (len(labels), frames))
    total, count = log_BTV.new_zeros(()), 0
    for log_TV, label, start in zip(log_BTV, labels, starts, strict=True):
        past = history if start else 0
        part = slice(start + past, start + frames)
        code_TJ = label.code_TJ[part].to(log_TV.device)
        weight_TJ = label.weight_TJ[part].to(log_TV.device)
        log_TV = log_TV[past : past + len(code_TJ)]
        total = total - (log_TV.gather(-1, code_TJ) * weight_TJ).sum()
        count += len(code_TJ)
    return total / ranks.mean(total.new_tensor(float(count))).clamp(min=1)


def stored_labels(
    folder: Path, step: int, clips: str, make: Callable[[], dict[int, Label]] | None
) -> dict[int, Label]:
    """The labels of a step: made anew and written to `folder` by the first process (what lies there
    may be what another encoder said), or read from it where none are to be made. `clips` names the
    corpus whose clips they count. Raises ConfigError if they are missing then, or of other clips.
    """
    path = folder / f"labels-{step:07d}.safetensors"
    with ranks.first_then_others():
        if make is not None and ranks.is_first():
            save_labels(path, make(), clips)
        if not path.exists():
            raise ConfigError(f"{path} is missing, without which the run cannot go on.")
    labels, counted = load_labels(path)
    if counted not in ("", clips):  # older files do not say
        raise ConfigError(
            f"{path} has labels of other clips than those that are trained on now: let these be "
            "labelled, by adding the step at which the run goes on to `channel.at` (with "
            "`--changed`)."
        )
    return labels


def save_labels(path: Path, labels: Mapping[int, Label], clips: str) -> None:
    """Write labels by clip, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for index, label in labels.items():
        tensors[f"{index}.code"] = label.code_TJ.to(torch.int16)
        tensors[f"{index}.weight"] = label.weight_TJ.to(torch.float16)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"clips": clips})


def load_labels(path: Path) -> tuple[dict[int, Label], str]:
    """Read what `save_labels` wrote."""
    with safe_open(path, "pt") as file:
        clips = (file.metadata() or {}).get("clips", "")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    indices = sorted({int(name.partition(".")[0]) for name in tensors})
    labels = {
        i: Label(tensors[f"{i}.code"].long(), tensors[f"{i}.weight"].float()) for i in indices
    }
    return labels, clips


def _log_opinion(book: SemanticCodebook, latent_BDT: Tensor) -> Tensor:
    return code_logits(book, latent_BDT.float()).log_softmax(dim=-1)

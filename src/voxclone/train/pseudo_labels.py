"""Pseudo-labels: semantic codes of real speech whose words are known, by the language model.

The release's model gives the probability of semantic codes after a voice, these words and the codes
so far; the encoder gives it from the sound. They err in different frames: their product is better
than either, as in the noisy channel of speech recognition, and it is what
the encoder is then trained on. Better encoders make better labels, so clips are labeled again at
the steps that the config names. A run that is resumed reads what it wrote.

The codes so far are not known either: all frames are asked at once, after the labels of the
iteration before, until nothing changes (Jacobi's way to the arg-max, frame after frame).

Shapes: B batch, K codebooks, T frames, J kept codes, V semantic codes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import SemanticCodebook, code_logits
from voxclone.data.corpus import Corpus, Crops, Subset
from voxclone.data.labels import TOP_K, Label, load_labels, save_labels
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train import distributed
from voxclone.train.batch import LABELED, LABELS, MicroBatch
from voxclone.tts.likelihood import semantic_log_probs
from voxclone.tts.tts import TTS

VOICE_FRAMES = 100
ITERATIONS = 4


@dataclass(frozen=True)
class Exponents:
    """A label is the product of two distributions, each to a power."""

    encoder: float = 0.7
    model: float = 0.7


@dataclass
class PseudoLabels:
    """The labels of a training's clips, which lie in `folder`; `steps` are those before which
    `count` clips are labeled."""

    model: TTS
    speech: Subset
    folder: Path
    steps: tuple[int, ...]
    count: int
    seed: int
    speaker_balance: float
    labels: dict[int, Label] = field(default_factory=dict)

    def due(self, step: int) -> bool:
        """Whether labels must be made or read before this step."""
        return step in self.steps or (not self.labels and any(each <= step for each in self.steps))

    def renew(self, step: int, codec: Codec) -> None:
        """Label clips with the codec's encoder; between the steps of labeling, read the last.
        Raises Interrupted where a signal comes while clips are labeled: nothing of it is kept, and
        whoever resumes from the state before this step makes the same labels."""
        due = max(each for each in self.steps if each <= step)

        def make() -> dict[int, Label]:
            generator = step_generator(self.seed, step, LABELS)
            model, speech, count = self.model, self.speech, self.count
            return label_clips(codec, model, speech, count, generator, _checking_stop)

        clips = str(self.speech.identity()["hash"])
        self.hold(stored_labels(self.folder, due, clips, make if step == due else None))

    def hold(self, labels: dict[int, Label]) -> None:
        """Use these from now on."""
        known = Subset(self.speech.corpus, sorted(labels))
        self._known = (known, known.weights(self.speaker_balance))
        self.labels = labels  # last: a thread that draws ahead looks at it first

    def crops(self, step: int, micro: MicroBatch, count: int, frames: int, size: int) -> Crops:
        """A micro-batch of the `count` crops of labeled clips of a step, `frames` of `size` samples
        long."""
        known, weights_N = self._known
        generator = step_generator(self.seed, step, LABELED)
        return known.crops(
            count, frames * size, generator, weights_N, grid=size, part=micro.of(count)
        )


def pseudo_label_loss(
    book: SemanticCodebook,
    semantic_BDT: Tensor,
    labels: Sequence[Label],
    starts: Sequence[int],
    left_context: int,
) -> Tensor:
    """Cross-entropy of semantic latents [B, D, T] with the labels of their clips from the frames
    `starts` on. What lies beyond a clip's end does not count, nor do the first `left_context`
    frames of a crop that begins within its clip: their labels know a past that the crop has not."""
    frames = semantic_BDT.shape[-1]
    logits_NV = code_logits(book, semantic_BDT)
    log_BTV = logits_NV.log_softmax(dim=-1).unflatten(0, (len(labels), frames))
    total, count = log_BTV.new_zeros(()), 0
    for log_TV, label, start in zip(log_BTV, labels, starts, strict=True):
        past = left_context if start else 0
        part = slice(start + past, start + frames)
        code_TJ = label.code_TJ[part].to(log_TV.device)
        weight_TJ = label.weight_TJ[part].to(log_TV.device)
        log_TV = log_TV[past : past + len(code_TJ)]
        total = total - (log_TV.gather(-1, code_TJ) * weight_TJ).sum()
        count += len(code_TJ)
    return total / distributed.mean(total.new_tensor(float(count))).clamp(min=1)


@torch.no_grad()
def label_clips(
    codec: Codec,
    model: TTS,
    speech: Subset,
    count: int,
    generator: torch.Generator,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[int, Label]:
    """Labels of `count` random clips of `speech` that have a text and another clip of their
    speaker."""
    corpus = speech.corpus
    speakers = speech.by_speaker()
    single = {own[0] for own in speakers.values() if len(own) == 1}
    able = [i for i in speech.indices if i not in single and corpus.clips[i].text]
    if not able:
        raise ConfigError(
            "No clip of the speech has a text and another clip of its speaker: the weight "
            "`pseudo_label` needs some; give it texts, or set the weight to 0."
        )
    order = torch.randperm(len(able), generator=generator)[:count].tolist()
    labels = {}
    for number in track(order):
        index = able[number]
        others = [i for i in speakers[corpus.clips[index].speaker] if i != index]
        other = others[int(torch.randint(len(others), (1,), generator=generator))]
        labels[index] = label_clip(codec, model, corpus, index, other)
    return labels


def label_clip(
    codec: Codec,
    model: TTS,
    corpus: Corpus,
    index: int,
    other: int,
    exponents: Exponents = Exponents(),
    top_k: int = TOP_K,
) -> Label:
    """The label of one clip; the voice before it is another clip, as the encoder encodes it."""
    book = codec.quantizer.semantic_codebook
    device = book.cluster_usage.device
    wave_BS = corpus.wave(index)[None].to(device)
    latent_BDT = codec.latents(wave_BS)
    sound_TV = exponents.encoder * _log_probs(book, codec.quantizer.split(latent_BDT)[0])
    codes_KT = codec.quantizer.encode(latent_BDT)[0]
    voice_S = corpus.wave(other, 0, min(corpus.length(other), VOICE_FRAMES * codec.frame_size))
    voice_KT = codec.encode(voice_S[None].to(device))[0]
    shifted_TK = codes_KT.T + SHIFT
    shifted_TK[:, 0] = sound_TV.argmax(dim=-1) + SHIFT
    text = corpus.clips[index].text or ""
    for _ in range(ITERATIONS):
        model_TV = semantic_log_probs(model, voice_KT, text, shifted_TK)
        both_TV = (sound_TV + exponents.model * model_TV).log_softmax(dim=-1)
        chosen_T = both_TV.argmax(dim=-1) + SHIFT
        if torch.equal(chosen_T, shifted_TK[:, 0]):
            break
        shifted_TK[:, 0] = chosen_T
    top = both_TV.exp().topk(top_k, dim=-1)
    weight_TJ = top.values / top.values.sum(dim=-1, keepdim=True)
    return Label(top.indices.cpu(), weight_TJ.cpu())


def stored_labels(
    folder: Path, step: int, clips: str, make: Callable[[], dict[int, Label]] | None
) -> dict[int, Label]:
    """The labels of a step: made anew and written to `folder` by the first process (what lies there
    may be of another encoder), or read from it where none are to be made. `clips` names the
    corpus whose clips they count. Raises ConfigError if they are missing then, or of other clips.
    """
    path = folder / f"labels-{step:07d}.safetensors"
    with distributed.rank0_first():
        if make is not None and distributed.is_rank0():
            save_labels(path, make(), clips)
        if not path.exists():
            raise ConfigError(f"{path} is missing, without which the run cannot be resumed.")
    labels, counted = load_labels(path)
    if counted != clips:
        raise ConfigError(
            f"{path} has labels of other clips than those that are trained on now: let these be "
            "labeled, by adding the step at which the run goes on to `pseudo_labels.label_steps` "
            "(with `--force`)."
        )
    return labels


def _log_probs(book: SemanticCodebook, latent_BDT: Tensor) -> Tensor:
    return code_logits(book, latent_BDT.float()).log_softmax(dim=-1)


def _checking_stop(indices: Iterable[int]) -> Iterator[int]:
    """Labeling takes as long as many steps, and who sends a signal may kill before that."""
    for index in indices:
        distributed.check_stop()
        yield index

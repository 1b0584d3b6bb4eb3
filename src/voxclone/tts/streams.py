"""Streaming speech with continuous batching: chunks of many texts as they are generated.

Each text is generated part by part. A part joins the batch when it starts and leaves it when it
ends, so that many texts share the steps of one model. The noise of a part depends only on its seed.
Larger batches round differently, though: speech is bit-identical only for a text that is alone.

Shapes: S samples, N frames of a voice embedding, D width, L prompt positions, K codebooks,
T frames.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxclone.codec.layers import Past
from voxclone.codec.model import Codec
from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.batch import Sampling
from voxclone.tts.endings import fade
from voxclone.tts.static_batch import make_batch
from voxclone.tts.text import Part, frame_cap

FIRST_CHUNK, CHUNK = 5, 25
"""Frames decoded at a time: few at first, so that sound comes early (vLLM-Omni's deploy file)."""

Prompter = Callable[[str, Tensor], Tensor]
"""From a text and a voice embedding [N, D] to the prompt [L, D]."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """A text in parts and a voice embedding [N, D]; part number i has the seed `seed` + i."""

    parts: Sequence[Part]
    voice_ND: Tensor
    seed: int
    cfg: float


@dataclass(frozen=True, eq=False)
class SpeechChunk:
    """Samples [S] of an utterance and their codes [K, T], both on the CPU.

    `part_begins` marks the first chunk of a part, `part_ended` and `ended` the last one of the part
    and of the utterance. `truncated` marks a part that reached its frame cap before the model ended
    it.
    """

    utterance: Utterance
    part: int
    wave_S: Tensor
    codes_KT: Tensor
    part_begins: bool
    part_ended: bool
    truncated: bool
    ended: bool

    def joined_wave(self, rate: int) -> Tensor:
        """Samples [S] to append to those of earlier chunks: the part's pause, and its fades."""
        wave_S = fade(self.wave_S, rate, start=self.part_begins, end=self.part_ended)
        if not self.part_begins:
            return wave_S
        return torch.cat([torch.zeros(round(self.utterance.parts[self.part].pause * rate)), wave_S])


@dataclass(eq=False)
class _Stream:
    """A part in the batch, or one that waits for it."""

    utterance: Utterance
    part: int
    cap: int
    past: Past = field(default_factory=dict)
    waiting: list[Tensor] = field(default_factory=list)
    frames: int = 0
    wanted: int = FIRST_CHUNK
    begun: bool = False

    @property
    def text(self) -> str:
        return self.utterance.parts[self.part].text


class Streams:
    """A batch of utterances; each step generates a frame of each."""

    def __init__(
        self, backbone: Backbone, head: AcousticHead, codec: Codec, prompter: Prompter
    ) -> None:
        self._batch = make_batch(backbone, head)
        self._codec = codec
        self._prompter = prompter
        self._running: list[_Stream] = []  # the rows of the batch
        self._waiting: list[_Stream] = []

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    @property
    def busy(self) -> int:
        """Number of parts in the batch."""
        return len(self._running)

    def add(self, utterance: Utterance) -> None:
        """Generate this utterance, too, from the next step on."""
        self._waiting.append(self._stream(utterance, 0))

    @torch.inference_mode()
    def drop(self, utterances: Collection[Utterance]) -> None:
        """Stop generating these utterances."""
        self._waiting = [each for each in self._waiting if each.utterance not in utterances]
        self._keep([each for each in self._running if each.utterance not in utterances])

    @torch.inference_mode()
    def step(self, held: Collection[Utterance] = ()) -> list[SpeechChunk]:
        """Generate the next frame of each, and give the chunks that are complete. Utterances that
        are `held` start no new part."""
        self._admit([each for each in self._waiting if each.utterance not in held])
        if not self._running:
            return []
        shifted_BK = self._batch.draw()
        ended = (shifted_BK[:, 0] == END_AUDIO).tolist()
        chunks, kept = [], []
        for row, stream in enumerate(self._running):
            if not ended[row]:
                stream.waiting.append(shifted_BK[row] - SHIFT)
                stream.frames += 1
            last = ended[row] or stream.frames >= stream.cap
            if last or len(stream.waiting) >= stream.wanted:
                chunks.append(self._chunk(stream, last=last, truncated=last and not ended[row]))
            if not last:
                kept.append(row)
            elif stream.part + 1 < len(stream.utterance.parts):
                self._waiting.append(self._stream(stream.utterance, stream.part + 1))
        if len(kept) < len(self._running):
            self._keep([self._running[row] for row in kept])
            shifted_BK = shifted_BK[kept]
        if self._running:
            self._batch.advance(shifted_BK)
        return chunks

    def _stream(self, utterance: Utterance, part: int) -> _Stream:
        return _Stream(
            utterance, part, frame_cap(utterance.parts[part].text, self._codec.frame_rate)
        )

    def _admit(self, new: list[_Stream]) -> None:
        if not new:
            return
        utterances = [each.utterance for each in new]
        self._batch.admit(
            [self._prompter(each.text, each.utterance.voice_ND) for each in new],
            [torch.Generator().manual_seed(each.utterance.seed + each.part) for each in new],
            [Sampling(each.cfg) for each in utterances],
        )
        self._running += new
        self._waiting = [each for each in self._waiting if each not in new]

    def _keep(self, streams: list[_Stream]) -> None:
        if len(streams) < len(self._running):
            self._batch.keep([row for row, s in enumerate(self._running) if s in streams])
            self._running = streams

    def _chunk(self, stream: _Stream, *, last: bool, truncated: bool) -> SpeechChunk:
        """Decode the frames of a stream that are not decoded yet; `past` is the decoder's state."""
        codec, first = self._codec, not stream.begun
        wave_S = torch.zeros(0)
        codes_KT = torch.zeros(codec.num_codebooks, 0, dtype=torch.long)
        if stream.waiting:
            drawn_KT = torch.stack(stream.waiting, dim=-1)
            latent_BDT = codec.quantizer.decode(drawn_KT[None], codec.dtype)
            wave_S = codec.decoder(latent_BDT, stream.past)[0].float().cpu()
            codes_KT = drawn_KT.cpu()
        stream.waiting, stream.wanted, stream.begun = [], CHUNK, True
        ended = last and stream.part + 1 == len(stream.utterance.parts)
        return SpeechChunk(
            stream.utterance, stream.part, wave_S, codes_KT, first, last, truncated, ended
        )

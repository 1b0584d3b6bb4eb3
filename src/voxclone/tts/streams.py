"""Texts that are spoken together and handed out in pieces as they are made.

Each text is spoken part by part. A part that begins joins the batch of those that run, one that
ends leaves it, so many listeners share the steps of one model and each hears the beginning soon.
The noise of a part depends on its seed alone. Larger batches round differently, though, so speech
is the same bit for bit only where it is spoken alone.

Shapes: S samples, N voice rows, D width, L prompt positions, K code books, T frames.
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
from voxclone.tts.generate import Batch, Sampling
from voxclone.tts.text import frame_cap

FIRST_STRETCH, STRETCH = 5, 25
"""Frames decoded at a time: few at first, so that sound comes early (vLLM-Omni's deploy file)."""
PAUSE_SECONDS = 0.15
"""Between two parts of a text."""

Prompter = Callable[[str, Tensor], Tensor]
"""From a text and voice rows [N, D] to what the language model is given [L, D]."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """A text in parts, to be spoken with a voice [N, D]; part number i has the seed `seed` + i."""

    parts: Sequence[str]
    voice_ND: Tensor
    seed: int
    cfg: float


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples [S] of an utterance and the codes [K, T] that they are of, both on the CPU.

    A pause before a part is in the samples alone. `part_ended` and `ended` say that this was the
    last piece of the part and of the utterance, `truncated` that the part reached its cap of frames
    before the model ended it.
    """

    utterance: Utterance
    part: int
    wave_S: Tensor
    codes_KT: Tensor
    part_ended: bool
    truncated: bool
    ended: bool


@dataclass(eq=False)
class _Stream:
    """A part that is spoken or waits for it."""

    utterance: Utterance
    part: int
    cap: int
    past: Past = field(default_factory=dict)
    waiting: list[Tensor] = field(default_factory=list)
    frames: int = 0
    wanted: int = FIRST_STRETCH
    begun: bool = False

    @property
    def text(self) -> str:
        return self.utterance.parts[self.part]


class Streams:
    """Utterances that are spoken together, a frame of each at a step."""

    def __init__(
        self, backbone: Backbone, head: AcousticHead, codec: Codec, prompter: Prompter
    ) -> None:
        self._batch = Batch(backbone, head)
        self._codec = codec
        self._prompter = prompter
        self._running: list[_Stream] = []  # the rows of the batch
        self._waiting: list[_Stream] = []

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    @property
    def busy(self) -> int:
        """How many are spoken at the next step, if none is held."""
        return len(self._running)

    def add(self, utterance: Utterance) -> None:
        """Speak this, too, from the next step on."""
        self._waiting.append(self._stream(utterance, 0))

    @torch.inference_mode()
    def drop(self, utterances: Collection[Utterance]) -> None:
        """Speak these no further."""
        self._waiting = [each for each in self._waiting if each.utterance not in utterances]
        self._keep([each for each in self._running if each.utterance not in utterances])

    @torch.inference_mode()
    def step(self, held: Collection[Utterance] = ()) -> list[Piece]:
        """Draw the next frame of each, and give the pieces that are complete. Those that are `held`
        begin no new part."""
        self._admit([each for each in self._waiting if each.utterance not in held])
        if not self._running:
            return []
        shifted_BK = self._batch.draw()
        ended = (shifted_BK[:, 0] == END_AUDIO).tolist()
        pieces, kept = [], []
        for row, stream in enumerate(self._running):
            if not ended[row]:
                stream.waiting.append(shifted_BK[row] - SHIFT)
                stream.frames += 1
            last = ended[row] or stream.frames >= stream.cap
            if last or len(stream.waiting) >= stream.wanted:
                pieces.append(self._piece(stream, last=last, truncated=last and not ended[row]))
            if not last:
                kept.append(row)
            elif stream.part + 1 < len(stream.utterance.parts):
                self._waiting.append(self._stream(stream.utterance, stream.part + 1))
        if len(kept) < len(self._running):
            self._keep([self._running[row] for row in kept])
            shifted_BK = shifted_BK[kept]
        if self._running:
            self._batch.advance(shifted_BK)
        return pieces

    def _stream(self, utterance: Utterance, part: int) -> _Stream:
        return _Stream(utterance, part, frame_cap(utterance.parts[part], self._codec.frame_rate))

    def _admit(self, new: list[_Stream]) -> None:
        if not new:
            return
        said = [each.utterance for each in new]
        self._batch.admit(
            [self._prompter(each.text, each.utterance.voice_ND) for each in new],
            [torch.Generator().manual_seed(each.utterance.seed + each.part) for each in new],
            [Sampling(each.cfg) for each in said],
        )
        self._running += new
        self._waiting = [each for each in self._waiting if each not in new]

    def _keep(self, streams: list[_Stream]) -> None:
        if len(streams) < len(self._running):
            self._batch.keep([row for row, s in enumerate(self._running) if s in streams])
            self._running = streams

    def _piece(self, stream: _Stream, *, last: bool, truncated: bool) -> Piece:
        """Decode what waits of a stream; the decoder goes on where it stopped (`past`)."""
        codec, parts = self._codec, []
        if stream.part and not stream.begun:
            parts.append(torch.zeros(round(PAUSE_SECONDS * codec.sampling_rate)))
        codes_KT = torch.zeros(codec.num_codebooks, 0, dtype=torch.long)
        if stream.waiting:
            drawn_KT = torch.stack(stream.waiting, dim=-1)
            latent_BDT = codec.quantizer.decode(drawn_KT[None], codec.dtype)
            parts.append(codec.decoder(latent_BDT, stream.past)[0].float().cpu())
            codes_KT = drawn_KT.cpu()
        stream.waiting, stream.wanted, stream.begun = [], STRETCH, True
        wave_S = torch.cat(parts) if parts else torch.zeros(0)
        ended = last and stream.part + 1 == len(stream.utterance.parts)
        return Piece(stream.utterance, stream.part, wave_S, codes_KT, last, truncated, ended)

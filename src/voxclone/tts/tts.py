"""Text to speech: a release, a voice and a text give a waveform, whole or as a stream.

Shapes: S samples, N frames of a voice embedding, D width, K codebooks, T frames, L prompt
positions.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import UsageError
from voxclone.release.params import Params
from voxclone.release.release import Release, load_codec
from voxclone.release.tensors import require_complete
from voxclone.spec import AROUND_TEXT, CONTEXT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.adapter_file import (
    AdapterFolder,
    apply_adapter,
    read_adapter,
    require_base,
    require_encoder,
)
from voxclone.tts.backbone import Backbone, backbone_names, to_transformers
from voxclone.tts.limits import check_cfg, check_seed
from voxclone.tts.prompt import PromptMaker
from voxclone.tts.speech import MAX_DRAWS, Speech, SpokenPart, join_parts, speak_part
from voxclone.tts.streams import Streams, Utterance
from voxclone.tts.text import Part, check_text, expected_seconds, split_text
from voxclone.voice.embedding import embed_codes


@dataclass(frozen=True)
class TTS:
    """Language model, acoustic head, codec and tokenizer of a release; `TTS.load` reads them."""

    params: Params
    backbone: Backbone
    head: AcousticHead
    codec: Codec
    prompts: PromptMaker
    adapter: AdapterFolder | None = None

    @classmethod
    def load(
        cls,
        release: Release,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        codec: Codec | None = None,
        adapter: Path | None = None,
    ) -> "TTS":
        """Read the language model and the acoustic head in `dtype` (bf16 on a GPU, else fp32).
        Tensors that need no change of dtype or order stay mapped to the file, so that memory holds
        nothing twice. `codec` may be loaded already; it is moved to the device. `adapter` is the
        folder of one. Raises ReleaseError for one of another base, and for one that does
        nothing."""
        require_complete(release.report, release.path)
        found = None if adapter is None else read_adapter(adapter)
        if found is not None:
            require_base(found, release)
        if dtype is None:
            dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
        backbone = load_backbone(release, dtype, device)
        head = load_head(release, dtype, device)
        codec = load_codec(release) if codec is None else codec
        prompts = PromptMaker(release.path / "tekken.json")
        if found is not None:
            apply_adapter(found, backbone, head, prompts)
        return cls(release.params, backbone, head, codec.to(device), prompts, found)

    def speak(
        self,
        text: str,
        voice_ND: Tensor,
        *,
        seed: int | None = None,
        cfg: float = 1.2,
        progress: Callable[[int, float], None] | None = None,
        kept: Mapping[int, SpokenPart] = MappingProxyType({}),
    ) -> Speech:
        """Speak a text of up to 4,096 characters with a voice embedding [N, D].

        A part that stays silent or does not end is drawn again with other seeds. Without `seed` one
        is drawn; the result has it. Parts whose numbers are in `kept` are not spoken again.
        `progress` is called with the frames spoken and the frames expected. Raises UsageError for a
        text that is empty or too long, and for an impossible seed or guidance.
        """
        begun = time.monotonic()
        rate, frame_rate = self.codec.sampling_rate, self.codec.frame_rate
        seed = secrets.randbelow(2**31) if seed is None else check_seed(seed)
        parts, cfg = self.split(text, len(voice_ND)), check_cfg(cfg)
        expected = sum(expected_seconds(part.text) for part in parts) * frame_rate
        spoken, done = list[SpokenPart](), 0
        for number, part in enumerate(parts):
            if number in kept:
                spoken.append(replace(kept[number], text=part.text, pause=part.pause))
            else:
                seeds = [(seed + number + d * len(parts)) % 2**64 for d in range(MAX_DRAWS)]
                generate = partial(
                    self._counted, voice_ND, cfg, progress=progress, done=done, expected=expected
                )
                spoken.append(speak_part(part, seeds, generate, rate, frame_rate))
            done += spoken[-1].codes_KT.shape[-1]
        seconds = time.monotonic() - begun
        return Speech(join_parts(spoken, rate), rate, tuple(spoken), seed, cfg, seconds)

    def split(self, text: str, voice_frames: int) -> list[Part]:
        """The parts in which a text is spoken with a voice of so many frames. Raises UsageError for
        a text that is empty or too long."""
        return split_text(check_text(text), self.part_characters(voice_frames))

    @property
    def device(self) -> torch.device:
        """The device of the language model."""
        return self.backbone.text_table.weight.device

    def prompt(self, text: str, voice_ND: Tensor) -> Tensor:
        """The prompt [L, D] of a text and a voice [N, D], on the device of the language model."""
        ids_L = self.prompts.ids(text, len(voice_ND)).to(self.device)
        return self.backbone.embed_prompt(ids_L, voice_ND.to(self.device))[0]

    def embed_voice(self, codes_KT: Tensor) -> Tensor:
        """Embedding [T + 1, D] of a voice's codes [K, T], in the table of the loaded model."""
        table_VD, offsets_K = self.backbone.table_VD, self.backbone.offsets_K
        return embed_codes(codes_KT.to(self.device), table_VD, offsets_K.tolist())

    def adapted(self, embedding_ND: Tensor, codes_KT: Tensor | None) -> Tensor:
        """The embedding [N, D] of a voice, made again of its codes [K, T] where an adapter changes
        the table. A preset has no codes, and stays as it is stored."""
        if codes_KT is None or self.backbone.table_delta is None:
            return embedding_ND
        return self.embed_voice(codes_KT).to(embedding_ND.dtype)

    def require_encoder(self, encoder_hash: str) -> None:
        """Raise ReleaseError if the model has an adapter for the codes of another encoder."""
        if self.adapter is not None:
            require_encoder(self.adapter, encoder_hash)

    def part_characters(self, voice_frames: int) -> int:
        """The most characters in a part of a text, so that voice, text and speech fit the context.
        A character takes at most one position, and as many frames as are expected."""
        context = min(self.params.lm.max_seq_len, CONTEXT)
        room = context - voice_frames - AROUND_TEXT - 2 * self.codec.frame_rate
        each = 1 + 3 * self.codec.frame_rate * expected_seconds("x")
        if room < 20 * each:
            raise UsageError(
                f"A voice of {voice_frames} frames leaves no room for text in a context of "
                f"{context}: enroll a shorter recording."
            )
        return min(400, int(room / each))

    def stream(
        self, part: str, voice_ND: Tensor, *, seed: int, cfg: float = 1.2
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Speak one part of a text: yields waveform [S] and codes [K, T] of consecutive chunks.
        Ends at the model's own end or at `frame_cap`."""
        streams = self.streams()
        streams.add(Utterance([Part(part)], voice_ND, seed, cfg))
        while len(streams):
            for chunk in streams.step():
                if len(chunk.wave_S):
                    yield chunk.wave_S, chunk.codes_KT

    def utterance(self, text: str, voice_ND: Tensor, *, seed: int, cfg: float = 1.2) -> Utterance:
        """A text of up to 4,096 characters, in parts that leave room for a voice embedding [N, D].
        Raises UsageError for a text that is empty or too long."""
        return Utterance(self.split(text, len(voice_ND)), voice_ND, seed, cfg)

    def streams(self) -> Streams:
        """A batch of utterances, empty at first."""
        return Streams(self.backbone, self.head, self.codec, self.prompt)

    def _counted(
        self,
        voice_ND: Tensor,
        cfg: float,
        text: str,
        seed: int,
        *,
        progress: Callable[[int, float], None] | None,
        done: int,
        expected: float,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `stream`, with calls of `progress`; `done` frames were spoken before."""
        for wave_S, codes_KT in self.stream(text, voice_ND, seed=seed, cfg=cfg):
            done += codes_KT.shape[-1]
            if progress is not None:
                progress(done, expected)
            yield wave_S, codes_KT


def load_backbone(
    release: Release, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> Backbone:
    """The language model of a release, in `dtype`, ready for inference."""
    with torch.device("meta"):
        backbone = Backbone(release.params)
    state = {}
    for name in backbone_names(release.params):
        tensor = release.files.load(name, dtype)
        name, tensor = to_transformers(name, tensor, release.params)
        state[name] = tensor.to(device)
    backbone.load_state_dict(state, strict=True, assign=True)
    backbone.restore_buffers(device)
    return backbone.eval().requires_grad_(False)


def load_head(
    release: Release, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> AcousticHead:
    """The acoustic head of a release, in `dtype`, ready for inference."""
    with torch.device("meta"):
        head = AcousticHead(release.params)
    state = {
        name: release.files.load(f"acoustic_transformer.{name}", dtype)
        for name in head.state_dict()
    }
    head.load_state_dict({k: v.to(device) for k, v in state.items()}, strict=True, assign=True)
    return head.eval().requires_grad_(False)

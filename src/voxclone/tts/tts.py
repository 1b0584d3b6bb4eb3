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
from voxclone.errors import ConfigError, UsageError
from voxclone.release.params import Params
from voxclone.release.release import Release, load_codec
from voxclone.release.tensors import require_complete
from voxclone.spec import AROUND_TEXT, CONTEXT, TEXT_TABLE
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.adapter_file import (
    AdapterFolder,
    apply_adapter,
    read_adapter,
    require_base,
    require_encoder,
)
from voxclone.tts.backbone import Backbone, backbone_names, to_transformers
from voxclone.tts.limits import Weights, check_cfg, check_seed
from voxclone.tts.prompt import PromptMaker
from voxclone.tts.quantized import pack_layer, require_kernels
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
        weights: Weights | None = None,
    ) -> "TTS":
        """Read the language model and the acoustic head in `dtype` (bf16 on a GPU, else fp32).
        Tensors that need no change of dtype or order stay mapped to the file, so that memory holds
        nothing twice. `codec` may be loaded already; it is moved to the device. `adapter` is the
        folder of one. `weights` packs the matrices in 8 or 4 bits, on a CPU (`tts.quantized`).
        Raises ReleaseError for an adapter of another base, and for one that does nothing;
        ConfigError where `weights` cannot be had."""
        if weights is not None:
            require_kernels(device)
        require_complete(release.report, release.path)
        found = None if adapter is None else read_adapter(adapter)
        if found is not None:
            require_base(found, release)
            if weights is not None:
                _require_no_lora(found)
        if dtype is None:
            dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
        codec = (
            load_codec(release) if codec is None else codec
        )  # first: what it frees is used again
        backbone = load_backbone(release, dtype, device, weights)
        head = load_head(release, dtype, device, weights)
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
    release: Release,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    weights: Weights | None = None,
) -> Backbone:
    """The language model of a release, in `dtype`, ready for inference. With `weights`, each matrix
    is packed before the next one is read, and the table of texts stays as it is stored."""
    with torch.device("meta"):
        backbone = Backbone(release.params)
    state = {}
    for name in backbone_names(release.params):
        if weights is not None and name == TEXT_TABLE:
            state["text_table.weight"] = release.files.map(name)
            continue
        tensor = release.files.load(name, dtype if weights is None else None)
        name, tensor = to_transformers(name, tensor, release.params)
        if weights is None or not pack_layer(backbone, name, tensor, weights):
            state[name] = tensor.to(device, dtype)
    backbone.load_state_dict(state, strict=True, assign=True)
    backbone.restore_buffers(device)
    return backbone.eval().requires_grad_(False)


def load_head(
    release: Release,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    weights: Weights | None = None,
) -> AcousticHead:
    """The acoustic head of a release, in `dtype`, ready for inference. With `weights` of any kind,
    its matrices are packed in 8 bits."""
    with torch.device("meta"):
        head = AcousticHead(release.params)
    state = {}
    for name in list(head.state_dict()):
        tensor = release.files.load(
            f"acoustic_transformer.{name}", dtype if weights is None else None
        )
        if weights is None or not pack_layer(head, name, tensor, "int8"):
            state[name] = tensor.to(device, dtype)
    head.load_state_dict(state, strict=True, assign=True)
    return head.eval().requires_grad_(False)


def _require_no_lora(found: AdapterFolder) -> None:
    if found.settings.reader == "lora":
        raise ConfigError(
            f"{found.path} is a LoRA, which adds to matrices that `--weights` packs: merge it into "
            "the release by `voxclone merge` first, or leave out `--weights`."
        )

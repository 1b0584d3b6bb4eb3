"""Targets of ASR distillation from Whisper (arXiv 2603.25551, 2.1).

A target is the hidden state of the last decoder layer for one token. Its place in time is the
decoder's cross-attention in the heads that follow the words (`alignment_heads` of the generation
config, as in openai/whisper `timing.py`). The audio is padded to 30 s. Attention beyond its end is
cut off *before* interpolation to codec frames; otherwise every frame comes too early by 30 s over
the clip's length. The decoder's input is that of Whisper's training: start, language and task
precede the words, and none of these three is a target.

Shapes: S samples at 24 kHz, L tokens, E width of Whisper, H heads, F encoder frames (50 Hz),
T codec frames, B batch, D semantic width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.errors import ConfigError
from voxclone.io import atomic_path, tensor_errors
from voxclone.models.pretrained import clip_at_16k, load_pretrained
from voxclone.spec import SAMPLING_RATE

SAMPLES_OF_FRAME = 320  # at 16 kHz: one encoder frame
STATE_SAMPLES = SAMPLES_OF_FRAME * SAMPLING_RATE // MODEL_RATE  # at 24 kHz
GAP_STATES = 24
"""Between clips that share a window: half a second of silence."""
MEDIAN = 7
LONGEST_SECONDS = 30
FORMAT = 2  # of stored targets


@dataclass(frozen=True)
class AsrTargets:
    """States [L, E] of the tokens of a clip, and their attention [L, T] on codec frames, which sums
    to 1 for each token."""

    state_LE: Tensor
    share_LT: Tensor


def token_shares(attention_HLF: Tensor, audio_frames: int, frames: int) -> Tensor:
    """Attention [L, T] on `frames` codec frames, from that of heads [H, L, F] on encoder frames, of
    which the first `audio_frames` are audio and not padding.

    Each head is normalized over the tokens of a frame, passed through a median filter of 7 frames,
    averaged over heads, and interpolated linearly.
    """
    audio_HLF = attention_HLF[..., :audio_frames].float()
    audio_HLF = audio_HLF / audio_HLF.sum(dim=1, keepdim=True).clamp(min=1e-9)
    half = MEDIAN // 2
    if audio_frames > half:
        padded_HLF = F.pad(audio_HLF, (half, half), mode="reflect")
        audio_HLF = padded_HLF.unfold(-1, MEDIAN, 1).median(dim=-1).values
    mean_LF = audio_HLF.mean(dim=0)
    share_LT = F.interpolate(mean_LF[None], size=frames, mode="linear", align_corners=False)[0]
    return share_LT / share_LT.sum(dim=1, keepdim=True).clamp(min=1e-9)


class WhisperTeacher:
    """A frozen Whisper through transformers."""

    def __init__(
        self,
        source: str = "openai/whisper-large-v3",
        device: str = "cpu",
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """`heads` are (layer, head) pairs: by default the model's own alignment heads, or all heads
        of its last layer without those. Raises MissingExtraError without transformers, and
        ConfigError for a model whose generation config names no prompt tokens."""
        self.name = source
        self._processor = load_pretrained("WhisperProcessor", source, "Distillation")
        self._model = load_pretrained("WhisperForConditionalGeneration", source, "Distillation")
        self._model.set_attn_implementation("eager")  # the fused kernels keep no attention
        self._model.to(device).eval().requires_grad_(False)
        config, self._given = self._model.config, self._model.generation_config
        multilingual = getattr(self._given, "is_multilingual", False)
        needed = ["no_timestamps_token_id", *(["lang_to_id", "task_to_id"] if multilingual else [])]
        missing = [name for name in needed if getattr(self._given, name, None) is None]
        if missing:
            raise ConfigError(
                f"The generation_config.json of {source} names no {' and no '.join(missing)}: take "
                "that of the Whisper which it was tuned from."
            )
        own = getattr(self._given, "alignment_heads", None)
        last = config.decoder_layers - 1
        every = [(last, head) for head in range(config.decoder_attention_heads)]
        self.heads = [tuple(pair) for pair in (heads or own or every)]
        self.width = int(config.d_model)

    @torch.no_grad()
    def targets(
        self, wave_S: Tensor, frames: int, text: str | None = None, language: str | None = None
    ) -> AsrTargets:
        """Targets of a clip [S] of at most 30 s on `frames` codec frames.

        Without `text` Whisper transcribes the clip; a text beyond its positions is cut. `language`
        is a code such as "en" or "pt-BR"; an unknown or absent one is detected. Raises AudioError
        for a clip that is empty, silent or not finite, and ValueError for one over 30 s.
        """
        wave_R = clip_at_16k(wave_S)
        if len(wave_R) > LONGEST_SECONDS * MODEL_RATE:
            raise ValueError(f"a clip of {len(wave_R) / MODEL_RATE:.1f} s is longer than 30 s")
        inputs = self._processor(wave_R.numpy(), sampling_rate=MODEL_RATE, return_tensors="pt")
        given = inputs["input_features"].to(self._model.device, self._model.dtype)
        prefix = self._prefix(given, language)
        most = self._model.config.max_target_positions - len(prefix) - 1
        words = self._transcribe(given, prefix) if text is None else self._tokenize(text)
        words = words[:most]
        ids = [*prefix, *words, int(self._given.eos_token_id)]
        output = self._model(
            given,
            decoder_input_ids=torch.tensor([ids], device=self._model.device),
            output_hidden_states=True,
            output_attentions=True,
            use_cache=False,
        )
        attention_HLF = torch.stack(
            [output.cross_attentions[layer][0, head] for layer, head in self.heads]
        )
        audio_frames = max(1, -(-len(wave_R) // SAMPLES_OF_FRAME))
        state_LE = output.decoder_hidden_states[-1][0].float().cpu()
        share_LT = token_shares(attention_HLF.cpu(), audio_frames, frames)
        # A state predicts the token at the next position.
        kept = slice(len(prefix) - 1, len(prefix) - 1 + len(words))
        return AsrTargets(state_LE[kept], share_LT[kept])

    @torch.no_grad()
    def encoder_states(self, waves: Sequence[Tensor], frame_size: int) -> list[Tensor]:
        """States of the encoder [T, R E] for the whole codec frames of clips [S] of at most 30 s:
        the R states in a frame side by side, of the layers after a third, two thirds and all.

        An encoder reads 30 s, however short a clip is. So clips in a row share a window where they
        fit, with silence between them."""
        found: list[Tensor] = []
        group: list[Tensor] = []
        for wave_S in waves:
            whole_S = wave_S[: len(wave_S) // frame_size * frame_size]
            if len(whole_S) > LONGEST_SECONDS * SAMPLING_RATE:
                raise ValueError(f"a clip of {len(whole_S) / SAMPLING_RATE:.1f} s is over 30 s")
            used = sum(len(each) + GAP_STATES * STATE_SAMPLES for each in group)
            if group and used + len(whole_S) > LONGEST_SECONDS * SAMPLING_RATE:
                found += self._window(group, frame_size)
                group = []
            group.append(whole_S)
        return found + (self._window(group, frame_size) if group else [])

    def _window(self, waves: Sequence[Tensor], frame_size: int) -> list[Tensor]:
        silence_S = torch.zeros(GAP_STATES * STATE_SAMPLES)
        joined_S = torch.cat(
            [part for wave_S in waves for part in (wave_S.float().cpu(), silence_S)]
        )
        joined_R = to_16k(joined_S[None])[0]
        inputs = self._processor(joined_R.numpy(), sampling_rate=MODEL_RATE, return_tensors="pt")
        given = inputs["input_features"].to(self._model.device, self._model.dtype)
        layers = self._model.model.encoder(given, output_hidden_states=True).hidden_states
        last = len(layers) - 1
        state_FE = torch.cat([layers[max(1, n * last // 3)][0] for n in (1, 2, 3)], dim=-1)
        per_frame, begin, found = frame_size // STATE_SAMPLES, 0, []
        for wave_S in waves:
            states = len(wave_S) // frame_size * per_frame
            found.append(state_FE[begin : begin + states].unflatten(0, (-1, per_frame)).flatten(1))
            begin += states + GAP_STATES
        return found

    def _prefix(self, given: Any, language: str | None) -> list[int]:
        """Token ids before the words, from the model's own generation config."""
        config, chosen = self._given, []
        if getattr(config, "is_multilingual", False):
            known = config.lang_to_id.get(f"<|{(language or '').lower().partition('-')[0]}|>")
            spoken = int(self._model.detect_language(given)) if known is None else known
            chosen = [spoken, config.task_to_id["transcribe"]]
        return [config.decoder_start_token_id, *chosen, config.no_timestamps_token_id]

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(
            f" {text.strip()}", add_special_tokens=False
        ).input_ids
        return ids

    def _transcribe(self, given: Any, prefix: list[int]) -> list[int]:
        """Token ids of Whisper's own transcript, in the language of the prefix."""
        options = {}
        if getattr(self._given, "is_multilingual", False):
            named = {number: token for token, number in self._given.lang_to_id.items()}
            options = {"language": named[prefix[1]], "task": "transcribe"}
        made_L = self._model.generate(given, num_beams=1, do_sample=False, **options)[0]
        other = {*self._processor.tokenizer.all_special_ids, *prefix}
        times = self._given.no_timestamps_token_id  # and all after it
        return [each for each in made_L.tolist() if each < times and each not in other]


class TargetStore:
    """Whisper's targets in a folder, by the content of clip and text: made once, read at every
    epoch."""

    def __init__(self, teacher: WhisperTeacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder

    def of(
        self, wave_S: Tensor, frames: int, text: str | None = None, language: str | None = None
    ) -> AsrTargets:
        """As `WhisperTeacher.targets`, kept in half precision; made in full precision also within
        autocast."""
        teacher = self.teacher
        asked = (FORMAT, teacher.name, teacher.heads, frames, text, language)
        digest = hashlib.sha256(repr(asked).encode())
        digest.update(wave_S.detach().cpu().contiguous().numpy().tobytes())
        path = self.folder / digest.hexdigest()[:2] / f"{digest.hexdigest()}.safetensors"
        if not path.exists():
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                made = teacher.targets(wave_S, frames, text, language)
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"state": made.state_LE.half(), "share": made.share_LT.half()}
            with atomic_path(path) as temporary, tensor_errors():
                save_file(tensors, temporary)
        stored = load_file(path)
        return AsrTargets(stored["state"].float(), stored["share"].float())

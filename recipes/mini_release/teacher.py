"""Whisper's states for every clip: the teacher of the codec's semantic stream.

As in arXiv 2603.25551, section 2.1, the hidden states of the last decoder layer are aligned in time
by the cross-attention of Whisper's alignment heads. Beside them, the encoder's states are kept, two
for each codec frame, since most frames lie between tokens.

Whisper reads windows of 30 s. Most clips last a tenth of that, so the clips of one speaker are put
one after another into a window; the tokens of a clip are aligned with its own stretch alone.

Shapes: S samples, L tokens, E width of Whisper, H heads, F encoder frames (50 Hz), T codec frames,
R states of a codec frame, U states, tokens or shares of all clips, N clips, B batch.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.mini_release.crops import DrawnCrops
from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.data.corpus import Corpus
from voxclone.io import atomic_path
from voxclone.models.whisper import SAMPLES_OF_FRAME, WhisperTeacher, token_shares
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

FRAME = FRAME_SIZE * MODEL_RATE // SAMPLING_RATE  # samples of a codec frame at 16 kHz
WINDOW, PAUSE = 28 * MODEL_RATE, 5 * FRAME
PER_FRAME = 2


@dataclass(frozen=True)
class WindowClip:
    """A clip in a window: its samples [S] at 16 kHz, where they begin, and its text."""

    index: int
    wave_S: Tensor
    start: int
    text: str


class WindowTeacher(WhisperTeacher):
    """Whisper's states for several clips in one window."""

    @torch.inference_mode()
    def states(self, window: Sequence[WindowClip], language: str) -> list[dict[str, Tensor]]:
        """For each clip: `state` [L, E] of tokens, their `share` [L, T] of codec frames, and
        `encoder` [T * R, E], in half precision. Tokens beyond Whisper's positions are left out."""
        wave_S = torch.zeros(window[-1].start + len(window[-1].wave_S))
        for clip in window:
            wave_S[clip.start : clip.start + len(clip.wave_S)] = clip.wave_S
        inputs = self._processor(wave_S.numpy(), sampling_rate=MODEL_RATE, return_tensors="pt")
        given = inputs["input_features"].to(self._model.device, self._model.dtype)
        prefix = self._prefix(given, language)
        most = self._model.config.max_target_positions - len(prefix) - 1
        ids_by_clip = [self._tokenize(clip.text) for clip in window]
        words = [each for ids in ids_by_clip for each in ids][:most]
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
        ).float()
        state_LE = output.decoder_hidden_states[-1][0]
        encoded_FE = output.encoder_last_hidden_state[0].float()
        found, at = [], len(prefix) - 1  # a state predicts the token at the next position
        for clip, own_ids in zip(window, ids_by_clip, strict=True):
            frames = -(-len(clip.wave_S) // FRAME)
            first, count = clip.start // SAMPLES_OF_FRAME, frames * FRAME // SAMPLES_OF_FRAME
            own = slice(at, min(at + len(own_ids), len(prefix) - 1 + len(words)))
            attention = attention_HLF[:, own, first : first + count]
            some = attention.shape[1] > 0
            share_LT = token_shares(attention, count, frames) if some else torch.zeros(0, frames)
            states_UFE = encoded_FE[first : first + count].unflatten(0, (frames * PER_FRAME, -1))
            tensors = {"state": state_LE[own], "share": share_LT, "encoder": states_UFE.mean(dim=1)}
            found.append({name: t.half().cpu().contiguous() for name, t in tensors.items()})
            at += len(own_ids)
        return found


def fill_windows(
    corpus: Corpus, texts: Mapping[int, str]
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Windows: their language, and the clips (index, first sample at 16 kHz) of one speaker."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index in sorted(texts):
        clip = corpus.clips[index]
        language = (clip.language or "").partition("-")[0]
        groups.setdefault((clip.speaker, language), []).append(index)
    for (_, language), own in groups.items():
        window: list[tuple[int, int]] = []
        start = 0
        for index in own:
            length = -(-corpus.length(index) * MODEL_RATE // SAMPLING_RATE)
            if window and start + length > WINDOW:
                yield language, window
                window, start = [], 0
            window.append((index, start))
            start += -(-length // FRAME) * FRAME + PAUSE
        yield language, window


def make_states(
    corpus: Corpus,
    texts: Mapping[int, str],
    load: Callable[[], WindowTeacher],
    folder: Path,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Path]:
    """A file for each window; those that are there are not made again. `texts` are by clip index,
    and clips without one have no states."""
    folder.mkdir(parents=True, exist_ok=True)
    windows = list(fill_windows(corpus, texts))
    paths, teacher = [], None
    for number in track(range(len(windows))):
        language, window = windows[number]
        names = [[corpus.clips[i].id, corpus.length(i), texts[i]] for i, _ in window]
        digest = hashlib.sha256(repr((language, names)).encode()).hexdigest()[:20]
        paths.append(folder / f"{digest}.safetensors")
        if paths[-1].exists():
            continue
        teacher = load() if teacher is None else teacher
        clips = [
            WindowClip(index, to_16k(corpus.wave(index)[None])[0], start, texts[index])
            for index, start in window
        ]
        states = teacher.states(clips, language)
        tensors = {
            f"{corpus.clips[clip.index].id}/{name}": tensor
            for clip, own in zip(clips, states, strict=True)
            for name, tensor in own.items()
        }
        with atomic_path(paths[-1]) as temporary:
            save_file(tensors, temporary)
    return paths


class TeacherStates:
    """The states of a corpus on a device, and those under crops of it."""

    def __init__(self, corpus: Corpus, paths: Sequence[Path], device: torch.device) -> None:
        index_of = {clip.id: index for index, clip in enumerate(corpus.clips)}
        rows: dict[str, dict[int, Tensor]] = {"state": {}, "share": {}, "encoder": {}}
        for path in paths:
            for name, tensor in load_file(path).items():
                clip, _, kind = name.rpartition("/")
                rows[kind][index_of[clip]] = tensor
        order = sorted(rows["encoder"])
        self.dim = rows["encoder"][order[0]].shape[1]
        self.longest = max(1, *(len(rows["state"][i]) for i in order))
        counts = torch.zeros(3, len(corpus), dtype=torch.long)
        frames_N = torch.zeros(len(corpus), dtype=torch.long)
        for i in order:
            counts[:, i] = torch.tensor(
                [len(rows["state"][i]), rows["share"][i].numel(), len(rows["encoder"][i])]
            )
            frames_N[i] = rows["share"][i].shape[1]
        ends = counts.cumsum(dim=1)
        self._counts_N, self._frames_N = counts[0].to(device), frames_N.to(device)
        self._encoder_counts_N = counts[2].to(device)
        self._starts = (ends - counts).to(device)
        token_UE = torch.cat([rows["state"][i] for i in order])
        share_U = torch.cat([rows["share"][i].flatten() for i in order])
        self._encoder_UE = torch.cat([rows["encoder"][i] for i in order]).to(device)
        # One row more: what is read where there is nothing.
        self._token_UE = torch.cat([token_UE, token_UE.new_zeros(1, self.dim)]).to(device)
        self._share_U = torch.cat([share_U, share_U.new_zeros(1)]).to(device)
        sample = self._encoder_UE[:: max(1, len(self._encoder_UE) // 100_000)].float()
        self._mean_E, self._std_E = sample.mean(dim=0), sample.std(dim=0).clamp(min=1e-3)

    def under(self, crops: DrawnCrops, frames: int, changed_rows: int) -> dict[str, Tensor]:
        """`target` [B, T * R, E]: standardized encoder states; `token` [B, L, E] and `share`
        [B, L, T]: states of tokens and their shares of the frames. Zeros stand for no states, which
        also the first `changed_rows` rows have."""
        index_B, first_B = crops.index_B, crops.frame_B
        device = index_B.device
        changed_B = torch.arange(len(index_B), device=device) < changed_rows
        row_of_clip_BT = first_B[:, None] * PER_FRAME + torch.arange(
            frames * PER_FRAME, device=device
        )
        known_BT = (row_of_clip_BT < self._encoder_counts_N[index_B, None]) & ~changed_B[:, None]
        row_BT = (self._starts[2][index_B, None] + row_of_clip_BT).clamp(
            max=len(self._encoder_UE) - 1
        )
        target = (self._encoder_UE[row_BT].float() - self._mean_E) / self._std_E
        token_L = torch.arange(self.longest, device=device)
        there_BL = (token_L < self._counts_N[index_B, None]) & ~changed_B[:, None]
        row_BL = torch.where(there_BL, self._starts[0][index_B, None] + token_L, -1)
        frame_BT = first_B[:, None] + torch.arange(frames, device=device)
        length_B11 = self._frames_N[index_B, None, None]
        inside_BLT = there_BL[..., None] & (frame_BT[:, None] < length_B11)
        start_BLT = self._starts[1][index_B, None, None] + token_L[:, None] * length_B11
        row_BLT = torch.where(inside_BLT, start_BLT + frame_BT[:, None], -1)
        return {
            "target": torch.where(known_BT[..., None], target, 0.0),
            "token": self._token_UE[row_BL].float(),
            "share": self._share_U[row_BLT].float(),
        }

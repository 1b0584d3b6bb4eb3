"""A bridge from an ASR model's states to semantic codes, which pairs teach and real speech needs.

The true semantic stream was taught by an ASR model (arXiv 2603.25551, 2.1), and an ASR model's
states of decoded and of real speech are much alike, which those of an encoder that was trained on
decoded speech are not. So a small network learns on pairs (codes that the release made, decoded)
which code belongs to which states. Then it is frozen, and its likeliest codes of every clip are
what an encoder learns from. Unlike `train.pseudo_labels` it needs no texts.

Shapes: S samples, T frames, N frames of all pairs, M frames of a batch, E width of an ASR model's
states in a frame, V semantic codes, K codebooks, J kept codes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.model import Codec
from voxclone.data.corpus import Subset
from voxclone.data.labels import TOP_K, Label
from voxclone.models.ctc_asr import Recognizer, states_by_frame
from voxclone.models.whisper import LONGEST_SECONDS, TargetStore
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE

WIDTH = 384
EPOCHS, BATCH, RATE, WEIGHT_DECAY = 25, 512, 1e-3, 0.05
DROPOUT, SMOOTHING = 0.2, 0.1
MOST_FRAMES = 45_000
"""An hour of pairs; more states would fill the memory."""
CLIPS_AT_A_TIME = 16
STREAM = 11
"""Of the random numbers of a seed."""
T = TypeVar("T")
Teacher = Recognizer | TargetStore


class Bridge(nn.Module):
    """An ASR model's states [M, E] -> logits of semantic codes [M, V]."""

    mean_E: Tensor
    deviation_E: Tensor

    def __init__(self, state_NE: Tensor, codes: int) -> None:
        super().__init__()
        self.register_buffer("mean_E", state_NE.float().mean(dim=0))
        self.register_buffer("deviation_E", state_NE.float().std(dim=0) + 1e-3)
        self.layers = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(state_NE.shape[1], WIDTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, codes),
        )

    def forward(self, state_ME: Tensor) -> Tensor:
        logits_MV: Tensor = self.layers((state_ME.float() - self.mean_E) / self.deviation_E)
        return logits_MV


def train_bridge(
    teacher: Teacher,
    codec: Codec,
    genuine: Sequence[Tensor],
    seed: int,
    check_stop: Callable[[], object] = lambda: None,
) -> Bridge:
    """A bridge from the states of decoded speech to the semantic codes [K, T] that it was decoded
    from. `check_stop` is called now and then, and may raise what ends the work."""
    longest = int(LONGEST_SECONDS * codec.frame_rate)
    states, codes, frames = [], [], 0
    for some in _groups(genuine, check_stop):
        parts = [part_KT for codes_KT in some for part_KT in codes_KT.long().split(longest, dim=1)]
        waves = [codec.decode(part_KT[None].to(codec.device))[0] for part_KT in parts]
        states += [each.half().cpu() for each in teacher_states(teacher, waves, codec.frame_size)]
        codes += [part_KT[0] for part_KT in parts]
        frames += sum(part_KT.shape[1] for part_KT in parts)
        if frames >= MOST_FRAMES:
            break
    state_NE, code_N = torch.cat(states), torch.cat(codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge = Bridge(state_NE, codec.config.semantic_codebook_size)
        bridge.to(codec.device)
        optimizer = torch.optim.AdamW(bridge.parameters(), RATE, weight_decay=WEIGHT_DECAY)
        generator = step_generator(seed, 0, STREAM)
        steps = max(1, EPOCHS * len(code_N) // BATCH)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            at_M = torch.randint(len(code_N), (BATCH,), generator=generator)
            logits_MV = bridge(state_NE[at_M].to(codec.device))
            target_M = code_N[at_M].to(codec.device)
            loss = F.cross_entropy(logits_MV, target_M, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                check_stop()
    return bridge.eval().requires_grad_(False)


def teacher_states(teacher: Teacher, waves: Sequence[Tensor], frame_size: int) -> list[Tensor]:
    """States [T, E] for the whole codec frames of clips [S] of at most 30 s."""
    if isinstance(teacher, TargetStore):
        return teacher.teacher.encoder_states(waves, frame_size)
    device = next(teacher.parameters()).device
    found = []
    for wave_S in waves:
        frames = len(wave_S) // frame_size
        whole_BS = wave_S[None, : frames * frame_size].to(device)
        found.append(states_by_frame(teacher, whole_BS, frame_size)[0].flatten(1)[:frames])
    return found


@torch.no_grad()
def label_speech(
    teacher: Teacher,
    bridge: Bridge,
    speech: Subset,
    frame_size: int,
    check_stop: Callable[[], object] = lambda: None,
) -> dict[int, Label]:
    """The likeliest codes of the whole frames of every clip, with their probabilities."""
    corpus, size = speech.corpus, LONGEST_SECONDS * SAMPLING_RATE
    device, labels = bridge.mean_E.device, {}
    for some in _groups(speech.indices, check_stop):
        parts = [corpus.wave(index).split(size) for index in some]
        waves = [wave_S for pieces in parts for wave_S in pieces]
        states = iter(teacher_states(teacher, waves, frame_size))
        for index, pieces in zip(some, parts, strict=True):
            state_TE = torch.cat([next(states) for _ in pieces])
            top = bridge(state_TE.to(device)).softmax(dim=-1).topk(TOP_K, dim=-1)
            weight_TJ = top.values / top.values.sum(dim=-1, keepdim=True)
            labels[index] = Label(top.indices.cpu(), weight_TJ.cpu())
    return labels


def _groups(items: Sequence[T], check_stop: Callable[[], object]) -> Iterator[Sequence[T]]:
    """A few at a time."""
    for first in range(0, len(items), CLIPS_AT_A_TIME):
        check_stop()
        yield items[first : first + CLIPS_AT_A_TIME]

"""What the language model reads in the training of an adapter, as in use.

Voices are summed and rounded to bf16, as a release and a voice file hold them, and pass the reader
`voice` if there is one; gradients pass the rounding straight through. A preset is read as it is
stored.

Shapes: B batch, L positions, D width, K codebooks, N frames of a voice or of a batch, C acoustic
channels, V semantic outputs, M positions that count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.quantizer import to_values
from voxclone.release.params import Params
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.train.sequences import Batch, Example, sequences
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker

VOICE_AT = 2
"""The position of a voice in every prompt: after [BOS] and [BEGIN_AUDIO]."""


@dataclass(frozen=True)
class Item:
    """A voice, a text, and the codes [K, T] that say it. The voice is codes [K, T], or an embedding
    [N, D] as a preset is stored."""

    voice: Tensor
    text: str
    target_KT: Tensor
    stored: bool = False


@dataclass(frozen=True)
class Reading:
    """A batch of items. `voice_at` are the items and positions of the frames of voices; `counts_BL`
    are the positions from the voice on that are no padding."""

    items: Sequence[Item]
    batch: Batch
    voice_at: tuple[Tensor, Tensor]
    counts_BL: Tensor

    @property
    def item_N(self) -> Tensor:
        """Of each predicted frame, its item."""
        return self.batch.item_N


def read_items(
    items: Sequence[Item], prompts: PromptMaker, params: Params, device: torch.device
) -> Reading:
    """The prompts of items and what follows, as one batch."""
    books = params.audio.num_codebooks
    examples = []
    for item in items:
        frames = len(item.voice) - 1 if item.stored else item.voice.shape[1]
        voice_TK = torch.zeros(frames, books, dtype=torch.long) if item.stored else item.voice.T
        text_index_T = torch.full((item.target_KT.shape[1],), -1)
        ids = prompts.text_ids(item.text)
        examples.append(Example(voice_TK.long(), ids, item.target_KT.T.long(), text_index_T))
    batch = sequences(examples, prompts, params, device)
    counts = [len(each.voice_TK) + 1 for each in examples]
    rows = torch.cat([torch.full((count,), row) for row, count in enumerate(counts)])
    columns = torch.cat([VOICE_AT + torch.arange(count) for count in counts])
    last_B = torch.zeros(len(items), dtype=torch.long, device=device)
    last_B.scatter_reduce_(0, batch.item_N, batch.position_N, "amax")
    at_L = torch.arange(batch.ids_BL.shape[1], device=device)
    counts_BL = (at_L >= VOICE_AT) & (at_L <= last_B[:, None])
    return Reading(items, batch, (rows.to(device), columns.to(device)), counts_BL)


def voice_frames(backbone: Backbone, item: Item) -> Tensor:
    """The embedding [N, D] of an item's voice before the reader `voice`, in the model's dtype."""
    device = backbone.offsets_K.device
    if item.stored:
        return item.voice.to(device, backbone.dtype)
    end_1K = torch.full((1, len(item.voice)), EMPTY_AUDIO, device=device)
    end_1K[0, 0] = END_AUDIO
    shifted_NK = torch.cat([item.voice.T.long().to(device) + SHIFT, end_1K])
    exact_ND = backbone.embed_codes(shifted_NK)
    rounded_ND = exact_ND.detach().to(torch.bfloat16).to(exact_ND.dtype)
    return exact_ND + (rounded_ND - exact_ND).detach()


def adapted_frames(backbone: Backbone, item: Item) -> Tensor:
    """The embedding [N, D] of an item's voice, as it stands in the prompt."""
    voice_ND = voice_frames(backbone, item)
    if backbone.voice_residual is None:
        return voice_ND
    adapted_ND: Tensor = backbone.voice_residual(voice_ND)
    return adapted_ND


def embed_reading(backbone: Backbone, reading: Reading, voices_ND: Sequence[Tensor]) -> Tensor:
    """What the model reads [B, L, D], with these embeddings of the voices."""
    batch = reading.batch
    embedded_BLD = torch.where(
        batch.is_code_BL[..., None],
        backbone.embed_codes(batch.codes_BLK),
        backbone.text_table(batch.ids_BL),
    )
    return embedded_BLD.index_put(reading.voice_at, torch.cat(list(voices_ND)))


def predicting_states(hidden_BLD: Tensor, reading: Reading) -> Tensor:
    """The states [N, D] that predict the frames, and the end, of every item."""
    return hidden_BLD[reading.batch.item_N, reading.batch.position_N]


@dataclass(frozen=True)
class FlowDraw:
    """A point on the way from noise to data for each frame that is no end: data and noise [N, C],
    time [N], and which of the predicted frames these are."""

    data_NC: Tensor
    noise_NC: Tensor
    time_N: Tensor
    speaks_N: Tensor


def draw_flow(head: AcousticHead, reading: Reading, sources: Sequence[torch.Generator]) -> FlowDraw:
    """Noise and times of a batch; `sources` has a generator for each item."""
    target_NK = reading.batch.target_NK
    speaks_N = target_NK[:, 0] != END_AUDIO
    noises, times = [], []
    for item, source in zip(reading.items, sources, strict=True):
        count = item.target_KT.shape[1]
        noises.append(torch.randn(count, head.channels, generator=source))
        times.append(torch.rand(count, generator=source))
    data_NC = to_values(target_NK[speaks_N, 1:] - SHIFT, head.levels)
    device = target_NK.device
    return FlowDraw(data_NC, torch.cat(noises).to(device), torch.cat(times).to(device), speaks_N)


def velocities(head: AcousticHead, hidden_ND: Tensor, draw: FlowDraw) -> Tensor:
    """The head's velocity [N, C] at drawn points, given the states of all predicted frames."""
    time_N1 = draw.time_N[:, None]
    point_NC = time_N1 * draw.data_NC + (1 - time_N1) * draw.noise_NC
    projected_ND = head.llm_projection(hidden_ND[draw.speaks_N])
    token_ND = head.time_token(draw.time_N)
    return head.velocity(point_NC.to(projected_ND.dtype), token_ND, projected_ND).float()

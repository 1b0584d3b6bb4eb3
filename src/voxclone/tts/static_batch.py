"""The batch of `tts.batch` with tensors of fixed shapes, so that a GPU replays each frame from
two CUDA graphs: one of the acoustic head, one of the language model.

Started kernel by kernel, a frame costs a GPU more time in starts than in arithmetic. A graph starts
all of them at once, but fixes their shapes and addresses. So the cache has rows for more prompts
and positions for more frames than there are; a mask hides what is unused. When either runs out, it
doubles, and the graphs are captured anew. Without a GPU the same steps run one by one, so that a
test can compare them with the growing cache.

Shapes: B rows, P prompts in progress (P <= B), L prompt positions, M positions of the cache,
G heads of keys and values, E width of a head, D width, K codebooks, C acoustic channels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxclone.spec import SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.batch import Batch, Sampling, draw_noise, draw_semantic

POSITIONS = 512
"""Of a new cache: a voice of 15 s, its text and some 20 s of speech."""
ARG_MAX = -1
"""In place of a semantic code that was drawn: take the likeliest."""


class SlotCache:
    """Keys and values [B, G, M, E] of each layer, where a step writes one position of each row. It
    has the one method that transformers' attention calls."""

    def __init__(self, backbone: Backbone, rows: int, length: int) -> None:
        lm, device = backbone.params.lm, backbone.offsets_K.device
        shape = (lm.n_layers, rows, lm.n_kv_heads, length, lm.head_dim)
        self.keys = torch.zeros(shape, dtype=backbone.dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.position_B = torch.zeros(rows, dtype=torch.long, device=device)

    def update(self, key_BG1E: Tensor, value_BG1E: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store the new position of each row; all positions of the layer."""
        index_BG1E = self.position_B[:, None, None, None].expand_as(key_BG1E)
        keys_BGME = self.keys[layer].scatter_(2, index_BG1E, key_BG1E)
        return keys_BGME, self.values[layer].scatter_(2, index_BG1E, value_BG1E)

    def copy_rows(self, other: "SlotCache", rows: Sequence[int]) -> None:
        """Take these rows of another cache, or of this one, as the first."""
        length = other.keys.shape[3]
        at = torch.tensor(rows, dtype=torch.long, device=self.keys.device)
        self.keys[:, : len(rows), :, :length] = other.keys[:, at]
        self.values[:, : len(rows), :, :length] = other.values[:, at]
        self.position_B[: len(rows)] = other.position_B[at]


class StaticBatch:
    """What `batch.Batch` is, for a GPU."""

    def __init__(self, backbone: Backbone, head: AcousticHead) -> None:
        self.backbone, self.head = backbone, head
        self.generators: list[torch.Generator] = []
        self.samplings: list[Sampling] = []
        self._lengths: list[int] = []  # positions in use, known without asking the GPU
        self._allocate(1, POSITIONS)

    @property
    def hidden_BD(self) -> Tensor:
        """The state of each prompt that gives its next frame."""
        return self._hidden_BD[: len(self.generators)]

    def admit(
        self,
        prompts_LD: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        samplings: Sequence[Sampling],
    ) -> None:
        """Read new prompts and append them to the batch."""
        first = len(self.generators)
        self._reserve(first + len(prompts_LD), max(len(prompt) for prompt in prompts_LD))
        read = Batch(self.backbone, self.head)
        read.admit(prompts_LD, generators, samplings)
        for row, prompt_LD in enumerate(prompts_LD):
            slot, length = first + row, len(prompt_LD)
            for layer, states in enumerate(read.cache.layers):
                self._cache.keys[layer, slot, :, :length] = states.keys[row, :, -length:]
                self._cache.values[layer, slot, :, :length] = states.values[row, :, -length:]
            self._cache.position_B[slot] = length - 1
            self._lengths.append(length)
        self.generators += generators
        self.samplings += samplings
        self._hidden_BD[first : len(self.generators)] = read.hidden_BD
        self._set_guidance()

    def keep(self, slots: Sequence[int]) -> None:
        """Keep these prompts only, in this order."""
        self.generators = [self.generators[slot] for slot in slots]
        self.samplings = [self.samplings[slot] for slot in slots]
        self._lengths = [self._lengths[slot] for slot in slots]
        if slots:
            self._hidden_BD[: len(slots)] = self._hidden_BD[slots]
            self._cache.copy_rows(self._cache, slots)
            self._set_guidance()

    def draw(self) -> Tensor:
        """The next frame [P, K] of each, in the +2-shifted space."""
        count = len(self.generators)
        self._noise_BC[:count] = draw_noise(self.generators, self.head.channels).to(self._noise_BC)
        semantic_P = draw_semantic(self.head, self.hidden_BD, self.samplings, self.generators)
        self._drawn_B[:count] = ARG_MAX if semantic_P is None else semantic_P
        self._draw()
        return self._frames_BK[:count].clone()

    def advance(self, shifted_PK: Tensor) -> None:
        """Let the language model read the frames that were drawn."""
        self._reserve(len(shifted_PK), max(self._lengths) + 1)
        self._lengths = [length + 1 for length in self._lengths]
        self._cache.position_B[: len(shifted_PK)] += 1
        self._frames_BK[: len(shifted_PK)] = shifted_PK
        self._advance()

    def _reserve(self, rows: int, length: int) -> None:
        here, room = self._cache.keys.shape[1], self._cache.keys.shape[3]
        if rows <= here and length <= room:
            return
        cache, hidden_BD = self._cache, self._hidden_BD
        self._allocate(_doubled(here, rows), _doubled(room, length))
        kept = range(len(self.generators))
        self._cache.copy_rows(cache, kept)
        self._hidden_BD[: len(kept)] = hidden_BD[: len(kept)]
        self._set_guidance()

    @torch.inference_mode()
    def _allocate(self, rows: int, length: int) -> None:
        backbone, head = self.backbone, self.head
        device, dtype = backbone.offsets_K.device, backbone.dtype
        self._cache = SlotCache(backbone, rows, length)
        self._hidden_BD = torch.zeros(rows, backbone.params.lm.dim, dtype=dtype, device=device)
        self._noise_BC = torch.zeros(rows, head.channels, dtype=dtype, device=device)
        self._cfg_B1 = torch.ones(rows, 1, device=device)
        self._frames_BK = torch.full((rows, head.channels + 1), SHIFT, device=device)
        self._drawn_B = torch.full((rows,), ARG_MAX, device=device)
        self._place_M = torch.arange(length, device=device)
        self._draw = captured(self._draw_frames, device)
        self._advance = captured(self._read_frames, device)

    def _set_guidance(self) -> None:
        cfg_P = torch.tensor([sampling.cfg for sampling in self.samplings])
        self._cfg_B1[: len(cfg_P), 0] = cfg_P.to(self._cfg_B1)

    def _draw_frames(self) -> None:
        logits_BV = self.head.semantic_logits(self._hidden_BD)
        likeliest_B = self.head.mask_semantic(logits_BV).argmax(dim=-1)
        semantic_B = torch.where(self._drawn_B == ARG_MAX, likeliest_B, self._drawn_B)
        self._frames_BK.copy_(self.head(self._hidden_BD, self._noise_BC, self._cfg_B1, semantic_B))

    def _read_frames(self) -> None:
        position_B1 = self._cache.position_B[:, None]
        hidden_B1D = self.backbone(
            self.backbone.embed_codes(self._frames_BK)[:, None],
            self._cache,
            attention_mask=(self._place_M <= position_B1)[:, None, None],
            position_ids=position_B1,
        )
        self._hidden_BD.copy_(hidden_B1D[:, 0])


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A step over fixed tensors as a CUDA graph; itself on another device. The step must leave its
    inputs as they are, since it runs some times before it is captured."""
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose kernels and allocate at first
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def make_batch(backbone: Backbone, head: AcousticHead) -> Batch | StaticBatch:
    """The batch for the device of the model: on a CPU a growing cache is faster."""
    return (StaticBatch if backbone.offsets_K.device.type == "cuda" else Batch)(backbone, head)


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size

"""What is proved before the first step of an adapter.

- *Parity*: what the training reads gives the states, logits and velocities that generation gives,
  one frame after the other, on presets. Fine-tunings of other models failed here (labels that were
  shifted twice, another rotary embedding), with a falling loss.
- *Scale*: an adapter full of random numbers changes the model, and at the scale 0 it is the base
  bit for bit.

Shapes: L positions, D width, N predicted frames, K codebooks, T frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from voxclone.errors import TrainingError
from voxclone.io import tensor_hash
from voxclone.spec import SHIFT
from voxclone.train.adapter.losses import semantic_log_probs
from voxclone.train.adapter.reading import (
    Item,
    adapted_frames,
    draw_flow,
    embed_reading,
    predicting_states,
    read_items,
    velocities,
)
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.adapter import Adapter
from voxclone.tts.adapter_file import probe
from voxclone.tts.backbone import Backbone
from voxclone.tts.batch import Batch, Sampling
from voxclone.tts.prompt import PromptMaker

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""The largest distance, as a share of the norm of what generation gives."""


@torch.no_grad()
def require_parity(
    backbone: Backbone, head: AcousticHead, prompts: PromptMaker, items: Sequence[Item]
) -> float:
    """The largest distance of the training's states, log-probabilities and velocities on stored
    voices to those of generation, as a share of their norms. Raises TrainingError if it is more
    than rounding."""
    device = backbone.offsets_K.device
    reading = read_items(items, prompts, backbone.params, device)
    voices_ND = [adapted_frames(backbone, item) for item in items]
    trained_ND = predicting_states(backbone(embed_reading(backbone, reading, voices_ND)), reading)
    generated_ND = generated_states(backbone, head, prompts, items)
    sources = [torch.Generator().manual_seed(number) for number in range(len(items))]
    draw = draw_flow(head, reading, sources)
    pairs = {
        "states": (trained_ND, generated_ND),
        "semantic log-probabilities": (
            semantic_log_probs(head, trained_ND), semantic_log_probs(head, generated_ND),
        ),
        "velocities": (velocities(head, trained_ND, draw), velocities(head, generated_ND, draw)),
    }  # fmt: skip
    largest = 0.0
    for name, (one, other) in pairs.items():
        share = float((one.float() - other.float()).norm() / other.float().norm())
        if not share <= TOLERANCE.get(backbone.dtype, 5e-2):
            raise TrainingError(
                f"The training's {name} on presets are not those of generation (they differ by "
                f"{share:.2g} of their norm), so an adapter would learn for another model: report "
                "this as a defect."
            )
        largest = max(largest, share)
    return largest


@torch.no_grad()
def generated_states(
    backbone: Backbone, head: AcousticHead, prompts: PromptMaker, items: Sequence[Item]
) -> Tensor:
    """The states [N, D] that predict the frames and the end of items with stored voices, as the
    generation loop has them: one prompt at a time, then one frame after the other."""
    device = backbone.offsets_K.device
    states = []
    for item in items:
        ids_L = prompts.ids(item.text, len(item.voice)).to(device)
        batch = Batch(backbone, head)
        prompt_LD = backbone.embed_prompt(ids_L, item.voice.to(device))[0]
        batch.admit([prompt_LD], [torch.Generator()], [Sampling()])
        states.append(batch.hidden_BD)
        for frame_K in (item.target_KT.T.long() + SHIFT).to(device):
            batch.advance(frame_K[None])
            states.append(batch.hidden_BD)
    return torch.cat(states)


@torch.no_grad()
def require_scale(
    adapter: Adapter, backbone: Backbone, head: AcousticHead, prompts: PromptMaker, seed: int
) -> None:
    """Raises TrainingError if an adapter of random numbers does not change the model, or if the
    model is not the base at the scale 0. The adapter is then as it was."""
    kept = adapter.tensors()
    generator = torch.Generator().manual_seed(seed)
    with adapter.disabled():
        base = probe(backbone, head, prompts)
    adapter.load(
        {name: 0.1 * torch.randn(each.shape, generator=generator) for name, each in kept.items()}
    )
    try:
        changed = probe(backbone, head, prompts)
        with adapter.disabled():
            again = probe(backbone, head, prompts)
    finally:
        adapter.load(kept)
    if not all(torch.equal(one, other) for one, other in zip(base, again, strict=True)):
        raise TrainingError(
            "The model with the adapter switched off is not the base bit for bit, so it is no "
            "teacher: report this as a defect."
        )
    if all(torch.equal(one, other) for one, other in zip(base, changed, strict=True)):
        raise TrainingError(
            "An adapter of random numbers changes nothing of what the model gives: report this as "
            "a defect."
        )


@torch.no_grad()
def teacher_hash(
    adapter: Adapter, backbone: Backbone, head: AcousticHead, prompts: PromptMaker
) -> str:
    """SHA-256 of what the teacher, the model with the adapter off, gives for a fixed prompt."""
    with adapter.disabled():
        return tensor_hash(*probe(backbone, head, prompts))

"""Memory and speed of a step of adapter training at the real size, with random bf16 weights.
`--layers 1` runs a part of it; its memory is computed for all 26 either way."""

import time

import torch
import typer

from tests.release.real_params import REAL
from voxclone.release.params import parse_params
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.adapter import AdapterSettings, attach
from voxclone.tts.backbone import Backbone


def main(
    layers: int = 26, positions: int = 512, batch: int = 4, rank: int = 16, device: str = "cpu"
) -> None:
    params, tokens = parse_params(REAL | {"n_layers": layers}), batch * positions
    for reader in ("voice", "table", "lora"):
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            backbone, head = Backbone(params), AcousticHead(params).requires_grad_(False)
        torch.set_default_dtype(torch.float32)
        adapter = attach(
            backbone.requires_grad_(False), head, AdapterSettings(reader=reader, rank=rank)
        )
        backbone.train().model.gradient_checkpointing_enable({"use_reentrant": False})
        begun, read = time.monotonic(), backbone.voice_residual or torch.nn.Identity()
        rows_ND = read(backbone.embed_codes(torch.full((tokens, 37), 3, device=device)))
        hidden_BLD = backbone(rows_ND.view(batch, positions, -1))
        head.semantic_logits(hidden_BLD).logsumexp(-1).mean().backward()
        speed, peak = tokens / (time.monotonic() - begun), torch.cuda.max_memory_allocated() / 1e9
        learned = sum(each.numel() for each in adapter.parameters.parameters())
        learned *= 26 // layers if reader == "lora" else 1
        states = 2 * (64 * params.lm.dim + 4 * params.lm.hidden_dim) + 8320 * 12
        total = (2 * 4_002_353_392 + 16 * learned + tokens * states) / 1e9
        print(f"{reader}: {learned:,} learn; {total:.1f} GB ({peak:.1f} measured); {speed:.0f}/s")


if __name__ == "__main__":
    typer.run(main)

"""ComfyUI-FL-VoxtralTTS: the list of the node, the loader and the prompt of `generate`."""

import sys
from pathlib import Path
from types import SimpleNamespace

import absent
import torch
from safetensors.torch import save_file

checkout, out, name, result = sys.argv[1:]
source = Path(checkout) / "src" / "voxtral_tts"
assert name in absent.load("own_list", Path(checkout) / "modules" / "model_info.py").VOICES
absent.stand_in("own")
tokens = absent.load("own.tokenizer", source / "tokenizer.py")
pipeline = absent.load("own.pipeline", source / "pipeline.py").VoxtralTTSPipeline


class Prefilled(Exception):
    pass


class Backbone:
    def __call__(self, input_embeds, start_pos):
        self.seen = input_embeds
        raise Prefilled

    def embed_tokens(self, ids):
        self.ids = ids
        return torch.zeros(*ids.shape, 3072, dtype=torch.bfloat16)


backbone = Backbone()
self = pipeline(
    backbone, None, None, None, tokens.VoxtralTokenizer.from_model_dir(Path(out)),
    SimpleNamespace(audio_token_id=24), Path(out) / "voice_embedding", torch.device("cpu"),
    torch.bfloat16,
)  # fmt: skip
try:
    self.generate("Hi.", voice=name)
except Prefilled:
    save_file({"rows": backbone.seen[0][backbone.ids[0] == 24].contiguous()}, result)

"""VoxtralTTS-ComfyUI: the list of the node, the loader and the prompt of `generate`."""

import ast
import sys
from pathlib import Path

import absent
import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from safetensors.torch import save_file

checkout, out, name, result = sys.argv[1:]
node = ast.parse((Path(checkout) / "nodes" / "voxtral_tts_node.py").read_text())
lists = {
    each.targets[0].id: each.value
    for each in node.body
    if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
}
assert name in ast.literal_eval(lists["DEFAULT_VOICES"])
absent.stand_in("own")
engine = absent.load("own.inference", Path(checkout) / "model" / "inference.py").VoxtralTTS


class Prefilled(Exception):
    pass


class Model:
    def reset_cache(self):
        pass

    def tok_embeddings(self, ids):
        self.ids = ids
        return torch.zeros(*ids.shape, 3072, dtype=torch.bfloat16)

    def forward_audio_embed(self, embeds, start_pos):
        self.seen = embeds
        raise Prefilled


self = object.__new__(engine)
self._loaded, self.llm, self.model_dir = True, Model(), out
self.device, self.dtype = torch.device("cpu"), torch.bfloat16
self.tokenizer = MistralTokenizer.from_file(f"{out}/tekken.json")
try:
    self.generate("Hi.", voice=name)
except Prefilled:
    save_file({"rows": self.llm.seen[0][self.llm.ids[0] == 24].contiguous()}, result)

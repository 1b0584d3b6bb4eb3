"""faster-voxtral: `--voice-dir` and `register_voice`."""

import sys
from pathlib import Path
from types import SimpleNamespace

import absent
import torch
from safetensors.torch import save_file

checkout, out, name, result = sys.argv[1:]
absent.stand_in("flash_attn", "mistral_inference", "voxtral", "huggingface_hub")
engine = absent.load("own_engine", Path(checkout) / "voxtral" / "tts.py").VoxtralTTS
counts: dict[str, int] = {}
audio = SimpleNamespace(audio_config=SimpleNamespace(voice_num_audio_tokens=counts))
self = object.__new__(engine)
self.voice_embeddings, self.device, self.dtype = {}, torch.device("cpu"), torch.bfloat16
self.tokenizer = SimpleNamespace(instruct_tokenizer=SimpleNamespace(audio_encoder=audio))
self._load_custom_voices(out)
rows = self.voice_embeddings[name]
assert counts[name] == len(rows)
save_file({"rows": rows}, result)

"""ExecuTorch's example: the eager loader of a `.bin`."""

import sys
from pathlib import Path

import absent
from safetensors.torch import save_file

checkout, out, name, result = sys.argv[1:]
voice = absent.load("own_voice", Path(checkout) / "examples/models/voxtral_tts/voice.py")
rows, path = voice.load_voice_from_model_dir(Path(out).parent, f"{out}/{name}.bin")
assert path.suffix == ".bin"
save_file({"rows": rows.bfloat16()}, result)

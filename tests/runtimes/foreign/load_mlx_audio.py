"""mlx-audio: the whole model, loaded and asked to speak a few frames; run by its own Python."""

import sys

import mlx.core as mx

mx.set_default_device(mx.cpu)

from mlx_audio.tts.utils import load  # noqa: E402

_, out, name, result = sys.argv[1:]
model = load(out)
ids = mx.array([model._encode_text("Hi.", name)])
embeds = model._build_input_embeddings(ids, name)
positions = [i for i, token in enumerate(ids[0].tolist()) if token == 24]
spoken = list(model.generate(text="Hi.", voice=name, max_tokens=3))
# A tiny model may say nothing, but it must get as far as that.
print(f"{sum(each.samples for each in spoken)} samples")
loaded = model._get_voice_embedding(name)
placed = embeds[0][mx.array(positions)].astype(mx.bfloat16)
mx.save_safetensors(result, {"placed": placed} | ({} if loaded is None else {"rows": loaded}))

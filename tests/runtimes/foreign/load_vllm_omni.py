"""vLLM-Omni: adapter, config parser, the model's voice loading and its prefill step."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import absent
import torch
from mistral_common.protocol.speech.request import SpeechRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from safetensors.torch import save_file

checkout, out, name, result = sys.argv[1:]
own = Path(checkout) / "vllm_omni"
tokenizer = MistralTokenizer.from_file(f"{out}/tekken.json").instruct_tokenizer
dim = json.loads((Path(out) / "params.json").read_text())["dim"]


class Processing:
    def set_custom_preprocess(self, step):
        self.preprocess = step

    def set_custom_postprocess(self, step):
        self.postprocess = step


class Model(torch.nn.Module):
    """Merges rows as vLLM does: one for each masked place."""

    def embed_input_ids(self, input_ids, multimodal_embeddings, is_multimodal):
        embeds = torch.zeros(len(input_ids), dim, dtype=torch.bfloat16)
        assert int(is_multimodal.sum()) == len(multimodal_embeddings), "vLLM would refuse this"
        embeds[is_multimodal] = multimodal_embeddings
        return embeds


def registry(*arguments, **named):
    return lambda cls: cls


absent.stand_in("vllm", "vllm_omni")
absent.give("vllm.logger", init_logger=absent.logger)
absent.give("vllm.multimodal", MULTIMODAL_REGISTRY=SimpleNamespace(register_processor=registry))
absent.give(
    "vllm.model_executor.models.utils",
    init_vllm_registered_model=lambda **named: Model(),
    maybe_prefix=lambda *names: ".".join(names),
)
absent.give(
    "vllm.tokenizers",
    cached_tokenizer_from_config=lambda config: SimpleNamespace(instruct=tokenizer),
)
absent.give("vllm_omni.model_executor.custom_process_mixin", CustomProcessMixin=Processing)
absent.give("vllm.transformers_utils.config", _CONFIG_FORMAT_TO_CONFIG_PARSER={})
absent.give("vllm_omni.entrypoints.openai.tts_adapters", register_tts_adapter=lambda cls: cls)

parser = absent.load("own_parser", own / "transformers_utils" / "parsers" / "voxtral_tts.py")
params = json.loads((Path(out) / "params.json").read_text())
audio_config = parser._remap_voxtral_tts_audio_args(params)

capabilities = absent.load(
    "own_capabilities", own / "entrypoints" / "openai" / "tts_adapters" / "capabilities.py"
)
adapters = absent.load("own_adapter", own / "entrypoints/openai/tts_adapters/voxtral.py")
adapter = object.__new__(adapters.VoxtralTTSAdapter)
adapter.ctx = SimpleNamespace(server=None)
speakers = capabilities.load_supported_speakers(None, audio_config)
adapter.capabilities = SimpleNamespace(supported_speakers=speakers, precomputed_speakers=[])
request = SimpleNamespace(input="Hi.", voice=name, ref_audio=None, max_new_tokens=None)
refusal = adapter.validate(request)
assert refusal is None, refusal

models = own / "model_executor" / "models" / "voxtral_tts"
module = absent.load("own_model", models / "voxtral_tts.py")
model_config = SimpleNamespace(
    hf_config=SimpleNamespace(audio_config=audio_config), model=out, model_stage="audio_generation"
)
model = module.VoxtralTTSForConditionalGeneration(
    vllm_config=SimpleNamespace(model_config=model_config)
)
speech = SpeechRequest(input="Hi.", voice=request.voice)
ids = torch.tensor(tokenizer.encode_speech_request(speech).tokens)
_, embeds, _ = model.tts_preprocess(
    ids, torch.zeros(len(ids), dim), voice=[request.voice], _omni_is_prefill=True
)
save_file({"rows": embeds[ids == 24].contiguous()}, result)

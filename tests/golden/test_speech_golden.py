"""Language model, acoustic head and generation loop equal their references on stored vectors."""

import pytest
import torch
from safetensors.torch import load_file

from tests.golden.small_params import DATA, golden_params
from tests.helpers.frames import frames
from tests.helpers.random_weights import draw
from voxclone.spec import TABLE
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone, to_transformers
from voxclone.tts.batch import Sampling

PARAMS = golden_params()


@pytest.fixture(scope="module")
def head() -> AcousticHead:
    head = AcousticHead(PARAMS)
    tensors = load_file(DATA / "acoustic_small.weights.safetensors")
    prefix = "acoustic_transformer."
    del tensors[prefix + "time_embedding.inv_freq"]  # in vLLM-Omni's class, in no release
    head.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items()})
    return head.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    backbone = Backbone(PARAMS)
    tensors = load_file(DATA / "lm_small.weights.safetensors")
    table_shape = tuple(backbone.audio_table.weight.shape)
    tensors[TABLE] = draw("audio_token_embedding.embeddings.weight", table_shape)
    state = dict(to_transformers(name, tensor, PARAMS) for name, tensor in tensors.items())
    backbone.load_state_dict(state)
    return backbone.eval().requires_grad_(False)


@pytest.mark.parametrize("cfg", [1.2, 1.0])
def test_head_equals_reference(head: AcousticHead, cfg: float) -> None:
    case = load_file(DATA / "acoustic_small.cases.safetensors")
    logits = head.semantic_logits(case["llm_hidden"])
    torch.testing.assert_close(logits, case["semantic_logits"], atol=1e-4, rtol=0)
    codes = head(case["llm_hidden"], case["x0"], cfg)
    assert torch.equal(codes.int(), case[f"codes_cfg{cfg}"])


def test_prompt_and_frames_equal_reference(backbone: Backbone, head: AcousticHead) -> None:
    case = load_file(DATA / "tts_small.cases.safetensors")
    prompt = backbone.embed_prompt(case["prompt_ids"].long(), case["voice_embedding"])
    torch.testing.assert_close(prompt[0], case["prompt_embeddings"], atol=1e-6, rtol=0)
    hidden = backbone(prompt)[0]
    torch.testing.assert_close(hidden, case["prompt_hidden"], atol=1e-4, rtol=0)

    noises = iter(case["noise"])

    class Given(AcousticHead):
        def forward(self, hidden_BD, noise_BC, cfg, semantic_B=None):  # type: ignore[no-untyped-def]
            hiddens.append(hidden_BD[0])
            return super().forward(hidden_BD, next(noises)[None], cfg, semantic_B)

    hiddens: list[torch.Tensor] = []
    given = Given(PARAMS)
    given.load_state_dict(head.state_dict())
    generator = torch.Generator()
    steps = frames(backbone, given.eval(), [prompt[0]], [generator], Sampling(cfg=1.2))
    made = [step.shifted_BK[0] for _, step in zip(range(12), steps, strict=False)]
    torch.testing.assert_close(torch.stack(hiddens[:12]), case["frame_hidden"], atol=1e-4, rtol=0)
    assert torch.equal(torch.stack(made).int(), case["frame_codes_shifted"])

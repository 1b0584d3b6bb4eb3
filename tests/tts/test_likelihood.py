"""The loss on given speech is that of the generation loop, frame by frame."""

import pytest
import torch
from torch import Tensor

from voxclone.evaluate.conditioning_gain import Trial, conditioning_gain
from voxclone.release.release import Release, load_preset
from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.likelihood import likelihood
from voxclone.tts.tts import TTS


def some_codes(tts: TTS, frames: int, seed: int = 0) -> Tensor:
    audio = tts.params.audio
    generator = torch.Generator().manual_seed(seed)
    semantic = torch.randint(audio.semantic_codebook_size, (1, frames), generator=generator)
    levels = torch.randint(
        audio.acoustic_codebook_size, (audio.n_acoustic_codebook, frames), generator=generator
    )
    return torch.cat([semantic, levels])


@torch.inference_mode()
def by_hand(tts: TTS, voice_ND: Tensor, text: str, codes_KT: Tensor) -> float:
    ids_L = tts.prompts.ids(text, len(voice_ND))
    embedded = [tts.backbone.embed_prompt(ids_L, voice_ND)]
    nats = 0.0
    targets = [*(codes_KT[0] + SHIFT).tolist(), END_AUDIO]
    for index, target in enumerate(targets):
        hidden_BD = tts.backbone(torch.cat(embedded, dim=1))[:, -1]
        logits_BV = tts.head.mask_semantic(tts.head.semantic_logits(hidden_BD))
        nats -= float(logits_BV.log_softmax(dim=-1)[0, target])
        if index < codes_KT.shape[1]:
            frame_BK = codes_KT[None, :, index] + SHIFT
            embedded.append(tts.backbone.embed_codes(frame_BK)[:, None])
    return nats / len(targets)


def test_semantic_loss_is_that_of_generating_step_by_step(
    tiny_release: Release, tiny_tts: TTS
) -> None:
    voice_ND = load_preset(tiny_release, "anna").float()
    codes_KT = some_codes(tiny_tts, 7)
    found = likelihood(tiny_tts, voice_ND, "we went", codes_KT)
    assert found.frames == 7
    assert found.semantic == pytest.approx(
        by_hand(tiny_tts, voice_ND, "we went", codes_KT), abs=1e-4
    )


def test_flow_loss_is_exact_for_a_seed_and_near_for_another(
    tiny_release: Release, tiny_tts: TTS
) -> None:
    voice_ND, codes_KT = load_preset(tiny_release, "bert").float(), some_codes(tiny_tts, 40)
    flows = [
        likelihood(tiny_tts, voice_ND, "we went", codes_KT, draws=8, seed=seed).flow
        for seed in (0, 0, 1)
    ]
    assert flows[0] == flows[1] != flows[2]
    assert flows[0] == pytest.approx(flows[2], rel=0.1)


def test_codes_without_speaker_information_have_no_gain(
    tiny_release: Release, tiny_tts: TTS
) -> None:
    """Every speaker has the same voice, so other voices change nothing."""
    voice_ND = load_preset(tiny_release, "carla").float()
    trials = [
        Trial(name, voice_ND, "we went", some_codes(tiny_tts, 6, seed))
        for seed, name in enumerate(("a", "b", "c"))
    ]
    found = conditioning_gain(tiny_tts, trials)
    assert found is not None and found.speakers == 3
    assert found.semantic_gain.mean == pytest.approx(0.0, abs=1e-6)
    assert found.flow_gain.mean == pytest.approx(0.0, abs=1e-6)
    assert conditioning_gain(tiny_tts, trials[:1]) is None

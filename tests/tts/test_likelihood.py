"""The loss on given speech is what the generation loop would say of it, frame by frame."""

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny_release import write_tiny_release
from voxclone.evaluate.conditioning_gain import Trial, conditioning_gain
from voxclone.release.release import Release, load_preset
from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.likelihood import likelihood
from voxclone.tts.tts import TTS


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release.open(write_tiny_release(tmp_path_factory.mktemp("likelihood") / "release"))


@pytest.fixture(scope="module")
def speaker(release: Release) -> TTS:
    return TTS.load(release)


def some_codes(speaker: TTS, frames: int, seed: int = 0) -> Tensor:
    audio = speaker.params.audio
    generator = torch.Generator().manual_seed(seed)
    semantic = torch.randint(audio.semantic_codebook_size, (1, frames), generator=generator)
    levels = torch.randint(
        audio.acoustic_codebook_size, (audio.n_acoustic_codebook, frames), generator=generator
    )
    return torch.cat([semantic, levels])


@torch.inference_mode()
def by_hand(speaker: TTS, voice_ND: Tensor, text: str, codes_KT: Tensor) -> float:
    ids_L = speaker.prompts.ids(text, len(voice_ND))
    embedded = [speaker.backbone.embed_prompt(ids_L, voice_ND)]
    nats = 0.0
    targets = [*(codes_KT[0] + SHIFT).tolist(), END_AUDIO]
    for place, target in enumerate(targets):
        hidden_BD = speaker.backbone(torch.cat(embedded, dim=1))[:, -1]
        logits_BV = speaker.head.mask_semantic(speaker.head.semantic_logits(hidden_BD))
        nats -= float(logits_BV.log_softmax(dim=-1)[0, target])
        if place < codes_KT.shape[1]:
            frame_BK = codes_KT[None, :, place] + SHIFT
            embedded.append(speaker.backbone.embed_codes(frame_BK)[:, None])
    return nats / len(targets)


def test_semantic_loss_is_that_of_generating_step_by_step(release: Release, speaker: TTS) -> None:
    voice_ND = load_preset(release, "anna").float()
    codes_KT = some_codes(speaker, 7)
    found = likelihood(speaker, voice_ND, "we went", codes_KT)
    assert found.frames == 7
    assert found.semantic == pytest.approx(
        by_hand(speaker, voice_ND, "we went", codes_KT), abs=1e-4
    )


def test_flow_loss_is_exact_for_a_seed_and_near_for_another(release: Release, speaker: TTS) -> None:
    voice_ND, codes_KT = load_preset(release, "bert").float(), some_codes(speaker, 40)
    flows = [
        likelihood(speaker, voice_ND, "we went", codes_KT, draws=8, seed=seed).flow
        for seed in (0, 0, 1)
    ]
    assert flows[0] == flows[1] != flows[2]
    assert flows[0] == pytest.approx(flows[2], rel=0.1)


def test_codes_without_speaker_information_have_no_gain(release: Release, speaker: TTS) -> None:
    """Every speaker has the same voice, so other voices change nothing."""
    voice_ND = load_preset(release, "carla").float()
    trials = [
        Trial(name, voice_ND, "we went", some_codes(speaker, 6, seed))
        for seed, name in enumerate(("a", "b", "c"))
    ]
    found = conditioning_gain(speaker, trials)
    assert found is not None and found.speakers == 3
    assert found.semantic_gain.mean == pytest.approx(0.0, abs=1e-6)
    assert found.flow_gain.mean == pytest.approx(0.0, abs=1e-6)
    assert conditioning_gain(speaker, trials[:1]) is None

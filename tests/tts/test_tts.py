"""Speaking on a tiny release: seeds, batches, streams, long text, truncation."""

import pytest
import torch

from tests.golden.small_params import golden_params
from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from voxclone.errors import UsageError
from voxclone.release.release import Release, load_preset
from voxclone.release.tensors import expected_tensors
from voxclone.tts.backbone import Backbone, backbone_names, from_transformers, to_transformers
from voxclone.tts.batch import Sampling
from voxclone.tts.endings import fade
from voxclone.tts.generate import generate
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS


@pytest.fixture(scope="module")
def voice(tiny_release: Release) -> torch.Tensor:
    return load_preset(tiny_release, "anna")


def test_weights_go_into_transformers_and_back() -> None:
    params = golden_params()
    backbone = Backbone(params)
    state = backbone.state_dict()
    back = dict(from_transformers(name, tensor, params) for name, tensor in state.items())
    assert list(back) and set(back) == set(backbone_names(params))
    shapes = expected_tensors(params)
    for name, tensor in back.items():
        assert tuple(tensor.shape) == shapes[name]
        theirs, again = to_transformers(name, tensor, params)
        assert torch.equal(again, state[theirs])


def test_a_seed_gives_the_same_speech_alone_and_in_any_batch(
    tiny_tts: TTS, voice: torch.Tensor
) -> None:
    texts = ["One two.", "Three and four and five.", "Six."]
    prompts = [
        tiny_tts.backbone.embed_prompt(tiny_tts.prompts.ids(t, len(voice)), voice)[0] for t in texts
    ]
    caps = [20, 26, 14]
    batch = generate(tiny_tts.backbone, tiny_tts.head, prompts, [1, 2, 3], caps, Sampling())
    for i, together in enumerate(batch):
        alone = generate(
            tiny_tts.backbone, tiny_tts.head, [prompts[i]], [i + 1], [caps[i]], Sampling()
        )[0]
        assert torch.equal(alone.codes_KT, together.codes_KT)
        assert alone.truncated == together.truncated
        assert together.codes_KT.shape[1] <= caps[i]


def test_speech_is_the_decoded_codes_and_depends_on_the_seed(
    tiny_tts: TTS, voice: torch.Tensor
) -> None:
    first = tiny_tts.speak("Hello there.", voice, seed=5)
    again = tiny_tts.speak("Hello there.", voice, seed=5)
    other = tiny_tts.speak("Hello there.", voice, seed=6)
    assert torch.equal(first.wave_S, again.wave_S)
    assert not torch.equal(first.codes[0], other.codes[0])
    whole = fade(tiny_tts.codec.decode(first.codes[0][None])[0], 24000)
    loudest = float(whole.abs().max())  # random weights are far from +-1
    torch.testing.assert_close(first.wave_S, whole, atol=1e-4 * loudest, rtol=0)
    drawn = tiny_tts.speak("Hi.", voice)
    assert torch.equal(drawn.wave_S, tiny_tts.speak("Hi.", voice, seed=drawn.seed).wave_S)


def test_a_missed_stop_is_cut_and_reported(tiny_tts: TTS, voice: torch.Tensor) -> None:
    def never(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), 128)
        logits[:, 7] = 1
        return logits

    never_ending = tiny_tts.head.__class__(tiny_tts.params)
    never_ending.load_state_dict(tiny_tts.head.state_dict())
    never_ending.semantic_logits = never  # type: ignore[method-assign]
    stubborn = TTS(
        tiny_tts.params, tiny_tts.backbone, never_ending, tiny_tts.codec, tiny_tts.prompts
    )
    speech = stubborn.speak("Hi.", voice, seed=0)
    assert speech.truncated == ["Hi."]
    assert speech.codes[0].shape[1] == frame_cap("Hi.", tiny_tts.codec.frame_rate)


def test_long_text_is_spoken_in_parts_with_pauses(
    tiny_tts: TTS, voice: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TTS, "part_characters", lambda self, frames: 12)
    speech = tiny_tts.speak("One two. Three. Four five six.", voice, seed=1)
    assert [part.text for part in speech.parts] == ["One two.", "Three.", "Four five", "six."]
    frames = sum(codes.shape[-1] for codes in speech.codes)
    pauses = (len(speech.parts) - 1) * round(0.15 * 24000)
    assert len(speech.wave_S) == frames * tiny_tts.codec.frame_size + pauses


def test_parts_that_are_kept_are_not_spoken_again(
    tiny_tts: TTS, voice: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TTS, "part_characters", lambda self, frames: 12)
    first = tiny_tts.speak("One two.\n\nThree. Four five", voice, seed=1)
    assert [part.pause for part in first.parts] == [0.0, 0.6, 0.15]
    kept = {0: first.parts[0], 2: first.parts[2]}
    second = tiny_tts.speak("One two.\n\nThree. Four five", voice, seed=50, kept=kept)
    assert [part.seed for part in second.parts] == [1, 51, 3]
    assert torch.equal(second.codes[0], first.codes[0])
    assert not torch.equal(second.codes[1], first.codes[1])


def test_a_voice_too_long_for_the_context_is_refused(tiny_tts: TTS) -> None:
    with pytest.raises(UsageError, match="enroll a shorter"):
        tiny_tts.part_characters(4000)
    assert 20 <= tiny_tts.part_characters(100) <= 400


def test_the_voice_must_fit_the_prompt(tiny_tts: TTS, voice: torch.Tensor) -> None:
    ids = tiny_tts.prompts.ids("Hi.", len(voice) + 1)
    with pytest.raises(ValueError, match="10 positions for 9 voice frames"):
        tiny_tts.backbone.embed_prompt(ids, voice)


def test_bf16_speaks(tiny_release: Release, voice: torch.Tensor) -> None:
    speech = TTS.load(tiny_release, dtype=torch.bfloat16).speak("Hi.", voice, seed=0)
    assert speech.wave_S.dtype == torch.float32 and bool(torch.isfinite(speech.wave_S).all())


def test_another_device_says_the_same(
    tiny_release: Release, tiny_tts: TTS, voice: torch.Tensor
) -> None:
    near = tiny_tts.speak("Hi.", voice, seed=3)
    with fake_device():
        far = TTS.load(tiny_release, device=FAKE_DEVICE)
        assert far.backbone.text_table.weight.device.type == FAKE_DEVICE
        speech = far.speak("Hi.", voice, seed=3)
    assert torch.equal(speech.wave_S, near.wave_S)

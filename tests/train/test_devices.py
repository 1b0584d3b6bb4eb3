"""What runs on the CPU runs on another device: nothing is left behind, and metrics are alike.

The other device is a pretended one; with `make test-gpu` it is a GPU, where sums are made in
another order: there the losses of the first step are compared, before a code is chosen otherwise.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from tests.helpers.tiny_speech import TinySpeech
from tests.train.full import config_of, full_training
from tests.train.test_speaker_loss import SIZES, drawn_voices
from tests.train.tiny import config_of as small_config
from tests.train.tiny import language_model, with_model
from voxclone.data.speakers import SpeakerPool
from voxclone.evaluate.conditioning_gain import Trial
from voxclone.evaluate.diagnosis import generate_with_presets
from voxclone.evaluate.synthesis import SynthesisRequest, synthesize
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.logging import Log
from voxclone.train.speaker_loss import SpeakerLoss
from voxclone.tts.batch import Sampling
from voxclone.tts.generate import Request, generate_many
from voxclone.tts.likelihood import Likelihood, likelihood

Rows = list[dict[str, float]]


DEVICES = pytest.mark.parametrize(
    "place", [FAKE_DEVICE, pytest.param("cuda", marks=pytest.mark.gpu)]
)
CUDA_TOLERANCE = 1e-3


@contextmanager
def there(place: str) -> Iterator[None]:
    """Within, this place can be computed on, in fp32."""
    if place == FAKE_DEVICE:
        with fake_device():
            yield
    else:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield


def trained(task: EncoderTraining, steps: int, device: str) -> Rows:
    """Metrics of some steps and a validation of a training whose weights are there."""
    devices = {p.device.type for module in task.state.modules.values() for p in module.parameters()}
    assert devices == {device}
    rows = [task.train_step(step) for step in range(steps)]
    metrics = [{name: float(value.detach()) for name, value in row.items()} for row in rows]
    return [*metrics, task.validate(steps, Log(None))]


def same(near: Rows, far: Rows, place: str) -> bool:
    """The same metrics, all of them numbers."""
    if place == FAKE_DEVICE:
        return all(a == pytest.approx(b, rel=1e-5) for a, b in zip(near, far, strict=True))
    assert [set(row) for row in near] == [set(row) for row in far]
    assert all(math.isfinite(value) for row in far for value in row.values())
    losses = [{k: v for k, v in rows[0].items() if k.startswith("loss/")} for rows in (near, far)]
    return losses[1] == pytest.approx(losses[0], rel=CUDA_TOLERANCE)


def test_the_other_place_does_not_mix() -> None:
    with fake_device():
        far = torch.ones(2, 3).to(FAKE_DEVICE)
        assert far.device.type == FAKE_DEVICE and float((far[[1]] + 1).sum()) == 6
        assert (far + 1).cpu().device.type == "cpu" and torch.equal(far.cpu(), torch.ones(2, 3))
        with pytest.raises(RuntimeError, match="not on the device"):
            far + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="not on the device"):
            torch.stack([far.sum(), torch.tensor(1.0)])
        with pytest.raises(RuntimeError, match="indices are on the device"):
            torch.ones(3)[far[0].long()]
        with pytest.raises(RuntimeError, match="the generator"):
            torch.rand(3, generator=torch.Generator(), device=FAKE_DEVICE)


@DEVICES
def test_recovery_with_many_losses(place: str) -> None:
    def rows(device: str) -> Rows:
        return trained(full_training(config_of(), device=torch.device(device)), 4, device)

    near = rows("cpu")
    with there(place):
        assert same(near, rows(place), place)


@DEVICES
def test_recovery_with_pseudo_labels_and_the_speaker_loss(
    speech_model: TinySpeech, tmp_path: Path, place: str
) -> None:
    def rows(device: str) -> Rows:
        material = with_model(speech_model, tmp_path / device)
        codec, model = material.codec, material.language_model
        assert model is not None
        for module in (model.backbone, model.head, codec):
            module.to(device)
        pool = SpeakerPool.of(material.speech, SIZES, codec.frame_size)
        speakers = SpeakerLoss.frozen(model, drawn_voices().to(device), pool, SIZES)
        config = small_config(
            run={"steps": 8}, pseudo_labels={"label_steps": [0], "clips": 3, "batch": 2},
            weights={"speaker_contrastive": 1.0, "pseudo_label": 0.5, "pair_semantic": 0,
                     "pair_levels": 0},
        )  # fmt: skip
        training = build(config, replace(material, speakers=speakers), torch.device(device))
        return trained(training, 2, device)

    near = rows("cpu")
    assert {"loss/speaker_contrastive", "loss/pseudo_label"} <= set(near[0])
    with there(place):
        assert same(near, rows(place), place)


@DEVICES
def test_speech_that_is_drawn(speech_model: TinySpeech, place: str) -> None:
    """Several at once, some at a temperature."""

    def codes(device: str) -> list[torch.Tensor]:
        _, model = language_model(speech_model)
        for module in (model.backbone, model.head):
            module.to(device)
        voice_ND = 0.1 * torch.randn(7, model.params.lm.dim, generator=torch.Generator())
        prompt_BLD = model.backbone.embed_prompt(
            model.prompts.ids("hello", len(voice_ND)).to(device), voice_ND.to(device)
        )
        requests = [Request(prompt_BLD[0], n, 3 + n, Sampling(1.2 + n, 0.4 * n)) for n in range(3)]
        assert prompt_BLD.device.type == device
        made = dict(generate_many(model.backbone, model.head, iter(requests), 2))
        return [made[n].codes_KT.cpu() for n in range(3)]

    near = codes("cpu")
    with there(place):
        far = codes(place)
    for n, codes_KT in enumerate(far):
        assert codes_KT.shape[0] == len(near[0]) and 1 <= codes_KT.shape[1] <= 3 + n
        assert codes_KT.min() >= 0 and codes_KT[1:].max() <= 20
    if (
        place == FAKE_DEVICE
    ):  # elsewhere sums in another order may choose another code, and all after
        assert all(torch.equal(a, b) for a, b in zip(near, far, strict=True))


@DEVICES
def test_speech_and_its_likelihood(speech_model: TinySpeech, place: str) -> None:
    """A model on another device generates, and scores codes from here; results come back here."""

    def scored(device: str) -> tuple[list[torch.Tensor], list[Trial], Likelihood]:
        _, model = language_model(speech_model)
        for module in (model.backbone, model.head, model.codec):
            module.to(device)
        voice_ND = 0.1 * torch.randn(
            7, model.params.lm.dim, generator=torch.Generator().manual_seed(0)
        )
        requests = [SynthesisRequest("s", voice_ND, "hello", seed) for seed in range(2)]
        trials = generate_with_presets(model, {"a": voice_ND, "b": voice_ND[1:]}, 0)
        codes_KT = torch.ones(1 + model.codec.config.acoustic_dim, 4, dtype=torch.long)
        found = likelihood(model, voice_ND, "hello", codes_KT)
        return [each.wave_S for each in synthesize(model, requests)], trials, found

    near = scored("cpu")
    with there(place):
        far = scored(place)
    assert {wave_S.device.type for wave_S in far[0]} == {"cpu"}
    assert far[2].semantic == pytest.approx(near[2].semantic, rel=CUDA_TOLERANCE)
    assert far[2].flow == pytest.approx(near[2].flow, rel=CUDA_TOLERANCE)
    if place == FAKE_DEVICE:
        for a, b in zip(near[0], far[0], strict=True):
            torch.testing.assert_close(a, b)
        for one, other in zip(near[1], far[1], strict=True):
            assert torch.equal(one.codes_KT, other.codes_KT)

"""Codes refined through the decoder: exact pieces, exact gradients, and no worse result."""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from tests.helpers.signals import RATE, speech
from tests.helpers.tiny_release import tiny_params
from voxclone.audio.files import read_recording
from voxclone.cloning.enroll import enroll, make_reference, voice_of
from voxclone.cloning.refine.decode import decode_in_pieces
from voxclone.cloning.refine.evaluation import Evaluation, Job
from voxclone.cloning.refine.gain import ConditioningGain, flow_loss, predict, total_nats
from voxclone.cloning.refine.halves import Halves, quietest_cut
from voxclone.cloning.refine.loop import refine_codes
from voxclone.cloning.refine.parameters import (
    CodeParameters,
    Start,
    from_codes,
    from_encoder,
    from_nothing,
    nearest_frames,
)
from voxclone.cloning.refine.pipeline import MAX_STORED, describe, refine, summarize
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.errors import AudioError, ConfigError, TrainingError
from voxclone.evaluate.agreement import agreement
from voxclone.records import parse_record
from voxclone.release.release import Release, load_codec
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import SHIFT
from voxclone.tts.likelihood import Likelihood, likelihood, semantic_log_probs
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes
from voxclone.voice.metadata import Consent
from voxclone.voice.resolve import ResolvedVoice

FRAMES = 450  # of 10 ms in the tiny release


@pytest.fixture(scope="module")
def release(tiny_release: Release) -> Release:
    return tiny_release


@pytest.fixture(scope="module")
def codec(tiny_codec: Codec) -> Codec:
    return tiny_codec


@pytest.fixture(scope="module")
def small() -> Codec:
    """Weights as a training begins with them: the tiny release's make waves of any size."""
    config = tiny_params(layer_scale_init=0.3).codec
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Codec(config)
        made.quantizer.semantic_codebook.embedding_sum.normal_()
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tiny_tts: TTS) -> TTS:
    return tiny_tts


def recording(codec: Codec) -> torch.Tensor:
    wave_S = torch.from_numpy(speech([2.0, 2.0], [0.2, 0.4, 0.3]))
    return wave_S[: FRAMES * codec.frame_size]


def settings_of(**values: object) -> RefineSettings:
    weights = {"flow": 0.0, "model_exponent": 0.0, **values.pop("weights", {})}  # type: ignore[dict-item]
    plain = {"select_by": "similarity", "steps": 6, "evaluate_every": 3}
    return RefineSettings.model_validate({**plain, **values, "weights": weights})


def job_of(codec: Codec, start: Start | None = None, **values: object) -> Job:
    wave_S = recording(codec)
    halves = Halves(quietest_cut(wave_S, codec.frame_size), ("one", "two"))
    return Job(codec, wave_S, start or from_encoder(codec, wave_S), halves, settings_of(**values))


@pytest.mark.parametrize("frames", [20, 31, 52, 53, 75])
def test_pieces_give_the_samples_and_gradients_of_the_whole(frames: int, small: Codec) -> None:
    generator = torch.Generator().manual_seed(frames)
    latent_DT = torch.randn(small.config.latent_dim, frames, generator=generator).requires_grad_()
    weight_S = torch.randn(frames * small.frame_size, generator=generator)
    whole_S = small.decoder(latent_DT[None])[0]
    (wanted_DT,) = torch.autograd.grad((whole_S * weight_S).sum(), latent_DT)
    made_S = decode_in_pieces(small.decoder, latent_DT, 10)
    (found_DT,) = torch.autograd.grad((made_S * weight_S).sum(), latent_DT)
    assert torch.allclose(made_S, whole_S, atol=1e-5)
    assert torch.allclose(found_DT, wanted_DT, atol=1e-4 * float(wanted_DT.abs().max()))


def test_the_decoder_reads_codes_and_gradients_pass_them(small: Codec) -> None:
    codes = CodeParameters(small.quantizer, from_nothing(small, 9, seed=1))
    with torch.no_grad():
        codes.level_CT[0, 0], codes.level_CT[1, 0] = -3.0, 25.0
    codes_KT = codes.codes()
    assert codes_KT[1, 0] == 0 and codes_KT[2, 0] == small.quantizer.levels - 1
    latent_DT = codes.latent(0.7)
    assert torch.allclose(latent_DT, small.quantizer.decode(codes_KT[None])[0], atol=1e-6)
    latent_DT.sum().backward()
    step = 2 / (small.quantizer.levels - 1)
    assert codes.level_CT.grad is not None and codes.delta_TV.grad is not None
    assert torch.allclose(codes.level_CT.grad, torch.full_like(codes.level_CT, step))
    assert bool((codes.delta_TV.grad.abs().sum(dim=1) > 0).all())
    assert float(codes.semantic_kl().detach()) == 0
    with torch.no_grad():
        codes.delta_TV[:, 0] += 5
    assert float(codes.semantic_kl().detach()) > 0.1


def test_codes_have_the_start_values_of_their_origin(small: Codec) -> None:
    wave_S = recording(small)
    with torch.inference_mode():
        codes_KT = small.encode(wave_S[None])[0]
    assert torch.equal(from_encoder(small, wave_S).codes(), codes_KT)
    assert torch.equal(from_codes(small, codes_KT).codes(), codes_KT)
    one, two, other = (from_nothing(small, 7, seed).codes() for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_frames_of_another_voice_are_found_by_their_sound(small: Codec) -> None:
    generator = torch.Generator().manual_seed(0)
    voice_KN = torch.randint(0, small.quantizer.levels, (7, 120), generator=generator)
    with torch.inference_mode():
        decoded_S = small.decode(voice_KN[None])[0]
    assert torch.equal(nearest_frames(small, decoded_S, voice_KN), voice_KN)
    later_S = decoded_S[10 * small.frame_size :]  # sounds that the voice has, at other positions
    found_KN = nearest_frames(small, later_S, voice_KN)
    assert float((found_KN == voice_KN[:, 10:]).float().mean()) > 0.8  # but for the edges
    assert nearest_frames(small, decoded_S, voice_KN[:, :5]).shape == voice_KN.shape


def test_a_recording_is_cut_where_it_is_quiet(small: Codec) -> None:
    cut = quietest_cut(recording(small), small.frame_size)
    assert 2.2 <= cut * small.frame_size / RATE <= 2.6
    with pytest.raises(AudioError, match="longer recording"):
        quietest_cut(torch.rand(399 * small.frame_size), small.frame_size)


def test_levels_go_back_to_those_that_the_sound_was_made_of(small: Codec) -> None:
    generator = torch.Generator().manual_seed(0)
    true_KT = torch.randint(4, 17, (7, FRAMES), generator=generator)
    moved_KT = true_KT.clone()
    moved_KT[1:] += torch.randint(-4, 5, (6, FRAMES), generator=generator)
    job = job_of(
        small, from_codes(small, moved_KT), steps=12, evaluate_every=12, level_lr=0.6,
        weights={"level_distance": 0.0},
    )  # fmt: skip
    job = replace(job, wave_S=small.decode(true_KT[None])[0])
    first, last = refine_codes(job).evaluations
    before, after = (agreement(true_KT, each.codes_KT).level_error for each in (first, last))
    assert before > 2 and after < 0.5 * before
    assert torch.equal(refine_codes(job).evaluations[-1].codes_KT, last.codes_KT)


def test_a_run_goes_on_where_it_was_stopped(
    release: Release, codec: Codec, model: TTS, tmp_path: Path
) -> None:
    weights = {"flow": 0.1, "model_exponent": 0.7}
    job = job_of(codec, save_every=3, predict_every=4, weights=weights)
    job = replace(job, model=model)
    whole = refine_codes(job)

    def stop(step: int, losses: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_codes(job, folder=tmp_path, progress=stop)
    with pytest.raises(ConfigError, match="--resume"):
        refine_codes(job, folder=tmp_path)
    seen: list[int] = []
    rest = refine_codes(
        job, folder=tmp_path, resume=True, progress=lambda step, losses: seen.append(step)
    )
    assert seen == [4, 5, 6]
    assert [each.step for each in rest.evaluations] == [0, 3, 6]
    for one, two in zip(whole.evaluations, rest.evaluations, strict=True):
        assert torch.equal(one.codes_KT, two.codes_KT) and one.similarity == two.similarity
    other = replace(job, start=from_nothing(codec, FRAMES, 0))
    with pytest.raises(ConfigError, match="another recording, start, evaluation or settings"):
        refine_codes(other, folder=tmp_path, resume=True)


def test_a_model_in_half_precision_predicts(release: Release, codec: Codec) -> None:
    """As on a GPU."""
    model = TTS.load(release, codec=codec, dtype=torch.bfloat16)
    job = job_of(codec, weights={"flow": 0.1, "model_exponent": 0.7})
    gain = ConditioningGain.load(model, release, job.halves, job.start.codes())
    found = refine_codes(replace(job, model=model, gain=gain)).evaluations
    assert all(each.gain is not None and math.isfinite(each.gain) for each in found)


@pytest.mark.slow
def test_another_device_finds_the_same_codes(release: Release) -> None:
    def found(device: str) -> list[Evaluation]:
        codec = load_codec(release).to(device)
        model = TTS.load(release, codec=codec, device=device)
        wave_S = recording(codec).to(device)
        weights = {"flow": 0.1, "model_exponent": 0.7}
        job = job_of(codec, from_encoder(codec, wave_S), weights=weights)
        job = replace(job, wave_S=wave_S, model=model)
        gain = ConditioningGain.load(model, release, job.halves, job.start.codes())
        assert job.start.codes().device.type == device
        return refine_codes(replace(job, gain=gain)).evaluations

    near = found("cpu")
    with fake_device():
        far = found(FAKE_DEVICE)
    for one, other in zip(near, far, strict=True):
        assert torch.equal(one.codes_KT.cpu(), other.codes_KT.cpu())
        assert one.gain == pytest.approx(other.gain, abs=1e-4)


def gains(values: list[float]):
    """A metric whose values are given."""
    left = iter(values)
    return lambda codes_KT: next(left)


@pytest.mark.parametrize(
    ("values", "kept", "reason", "steps"),
    [
        ([0.5, 0.4, 0.3, 0.2], 0, "worse", 4),
        ([0.5, 0.6, 0.4, 0.3], 2, "worse", 6),
        ([0.5, 0.6, 0.7, 0.8], 6, "done", 6),
        ([0.5, 0.4, 0.6, 0.5], 4, "done", 6),
    ],
)
def test_the_better_codes_are_kept(
    values: list[float], kept: int, reason: str, steps: int, small: Codec
) -> None:
    job = job_of(small, select_by="gain", evaluate_every=2, patience=2, level_lr=1e-6)
    done = refine_codes(replace(job, gain=gains(values)))  # type: ignore[arg-type]
    assert (done.kept.step, done.reason, done.steps) == (kept, reason, steps)
    assert done.before.gain == 0.5 and torch.equal(done.codes_KT, done.kept.codes_KT)
    with pytest.raises(ConfigError, match="select by similarity"):
        refine_codes(job)


def test_noise_with_a_good_metric_is_not_kept(small: Codec) -> None:
    start = from_nothing(small, FRAMES, 0)
    job = job_of(small, start, select_by="gain", evaluate_every=2, patience=2, level_lr=1e-6)
    done = refine_codes(replace(job, gain=gains([0.9, 0.4, 0.5, 0.6])))  # type: ignore[arg-type]
    assert (done.kept.step, done.reason, done.before.step) == (6, "done", 0)
    untouched = replace(job, settings=settings_of(select_by="gain", steps=0))
    assert refine_codes(replace(untouched, gain=gains([0.9]))).kept.step == 0  # type: ignore[arg-type]


def test_levels_are_held_near_codes_and_not_near_noise(small: Codec) -> None:
    def made(start: Start, near: float) -> torch.Tensor:
        job = job_of(small, start, steps=3, evaluate_every=3, weights={"level_distance": near})
        return refine_codes(job).evaluations[-1].codes_KT

    wave_S = recording(small)
    for start, alike in (
        (from_nothing(small, FRAMES, 0), True),
        (from_encoder(small, wave_S), False),
    ):
        assert torch.equal(made(start, 0.0), made(start, 1e4)) == alike
    alone = {"mel": 0.0, "stft": 0.0, "semantic_kl": 0.0, "level_distance": 1.0}
    with pytest.raises(ConfigError, match="no other weight is above 0"):
        refine_codes(job_of(small, from_nothing(small, FRAMES, 0), weights=alone))


def test_an_optimized_metric_does_not_select() -> None:
    values = {"select_by": "similarity", "weights": {"speaker": 0.5}}
    with pytest.raises(ConfigError, match="similarity cannot select codes"):
        parse_record(RefineSettings, values, "the given settings")
    parse_record(RefineSettings, values | {"select_by": "gain"}, "the given settings")


def test_each_half_is_read_after_the_other(codec: Codec, model: TTS) -> None:
    job = job_of(codec)
    codes_KT = job.start.codes()
    prediction = predict(model, job.halves, codes_KT)
    first_KT, second_KT = job.halves.parts(codes_KT)
    wanted_TV = semantic_log_probs(model, second_KT, "one", first_KT.T + SHIFT)
    assert torch.allclose(prediction.log_TV[: job.halves.cut], wanted_TV, atol=1e-5)
    assert prediction.log_TV.shape == job.start.log_TV.shape
    value_CT = (torch.zeros(codec.config.acoustic_dim, FRAMES)).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    flow_loss(model, prediction.state_TD, value_CT, generator).backward()
    assert value_CT.grad is not None and bool((value_CT.grad.abs().sum(dim=0) > 0).all())


def test_the_gain_is_of_the_other_half_and_against_presets(
    release: Release, codec: Codec, model: TTS
) -> None:
    job = job_of(codec)
    codes_KT = job.start.codes()
    gain = ConditioningGain.load(model, release, job.halves, codes_KT)
    value = gain(codes_KT)
    parts, costs = job.halves.parts(codes_KT), []
    table_VD, offsets = model.backbone.audio_table.weight, codebook_offsets(release.params)
    for i, text in enumerate(job.halves.texts):
        voices = [embed_codes(parts[1 - i], table_VD, offsets), *gain.presets]
        losses = [likelihood(model, voice_ND, text, parts[i]) for voice_ND in voices]
        found = [total_nats(loss, model.head.channels) for loss in losses]
        costs.append(sum(found[1:]) / 3 - found[0])
    assert value == pytest.approx(sum(costs) / 2, abs=1e-5)
    assert total_nats(Likelihood(2.0, 0.5, 1), 4) == pytest.approx(2.0 + 2 * -0.693147, abs=1e-5)


def test_speaker_loss_is_of_each_half_alone(small: Codec) -> None:
    weights = {"speaker": 1.0, "mel": 0.0, "stft": 0.0}
    job = job_of(small, select_by="gain", steps=1, evaluate_every=1, weights=weights)
    losses: dict[str, float] = {}
    job = replace(job, gain=gains([0.0, 0.0]))  # type: ignore[arg-type]
    done = refine_codes(job, progress=lambda step, values: losses.update(values))
    assert 0 < losses["speaker"] < 1 and isinstance(done.kept, Evaluation)


@dataclass
class GivenGain:
    """A conditioning gain whose values are given."""

    values: list[float]
    target_KT: torch.Tensor = field(default_factory=lambda: torch.zeros(7, 3))
    presets: tuple[torch.Tensor, ...] = ()

    def __call__(self, codes_KT: torch.Tensor) -> float:
        return self.values.pop(0)


def test_a_run_that_ended_early_has_ended(small: Codec, tmp_path: Path) -> None:
    job = job_of(small, select_by="gain", evaluate_every=1, patience=1, save_every=1, level_lr=1e-6)
    done = refine_codes(replace(job, gain=GivenGain([0.5, 0.4])), folder=tmp_path)  # type: ignore[arg-type]
    assert (done.reason, done.steps) == ("worse", 1)
    again = refine_codes(replace(job, gain=GivenGain([])), folder=tmp_path, resume=True)  # type: ignore[arg-type]
    assert (again.reason, again.steps, again.kept.step) == ("worse", 1, 0)
    unsaved = job_of(
        small, select_by="gain", evaluate_every=1, patience=1, save_every=50, level_lr=1e-6
    )
    other = tmp_path / "other"
    refine_codes(replace(unsaved, gain=GivenGain([0.5, 0.4])), folder=other)  # type: ignore[arg-type]
    assert [path.name for path in other.iterdir()] == ["step-0000001"]


@pytest.mark.parametrize("change", ["target", "presets", "none"])
def test_metrics_of_another_evaluation_are_not_resumed(
    change: str, small: Codec, tmp_path: Path
) -> None:
    job = job_of(small, steps=1, evaluate_every=1, level_lr=1e-6)
    refine_codes(replace(job, gain=GivenGain([0.5, 0.4])), folder=tmp_path)  # type: ignore[arg-type]
    other = {
        "target": GivenGain([], target_KT=torch.ones(7, 3)),
        "presets": GivenGain([], presets=(torch.ones(2, 4),)),
        "none": None,
    }[change]
    with pytest.raises(ConfigError, match="evaluation or settings"):
        refine_codes(replace(job, gain=other), folder=tmp_path, resume=True)  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_skipped_with_a_sentence(small: Codec, tmp_path: Path) -> None:
    job = job_of(small, steps=2, save_every=1)
    refine_codes(job, folder=tmp_path)
    (tmp_path / "step-0000002" / "values.json").write_text("{}")
    done = refine_codes(job, folder=tmp_path, resume=True)
    assert done.steps == 2 and ["step-0000002" in each for each in done.passed_over] == [True]
    for path in tmp_path.glob("*/values.json"):
        path.write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        refine_codes(job, folder=tmp_path, resume=True)


def test_steps_that_change_nothing_are_reported(
    small: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(small, steps=3, evaluate_every=3)
    whole = refine_codes(job)
    assert whole.skipped == 0 and "finite" not in describe(whole, job.settings, "encoder")[0]

    def broken(made_BS: torch.Tensor, *others: object, **more: object) -> torch.Tensor:
        return made_BS.sum() * math.nan

    monkeypatch.setattr("voxclone.cloning.refine.loop.mel_loss", broken)
    done = refine_codes(job)
    assert done.skipped == 3 and torch.equal(
        done.evaluations[0].codes_KT, done.evaluations[-1].codes_KT
    )
    assert (
        "In 3 of them losses or gradients were not finite"
        in describe(done, job.settings, "encoder")[0]
    )


def test_codes_without_a_finite_metric_are_an_error(small: Codec) -> None:
    job = job_of(small, select_by="gain")
    with pytest.raises(TrainingError, match="The gain of the codes after 0 steps"):
        refine_codes(replace(job, gain=GivenGain([math.nan])))  # type: ignore[arg-type]


def test_a_loss_is_needed_and_numbers_are_finite() -> None:
    none = dict.fromkeys(("mel", "stft", "level_distance", "semantic_kl", "flow"), 0.0)
    for values, words in [
        ({"weights": none}, "without a loss"),
        ({"weights": {"mel": math.inf}}, "weights.mel"),
        ({"temperature": [math.nan, 1.0]}, "temperature"),
        ({"temperature": [1.0, 0.0]}, "temperature"),
    ]:
        with pytest.raises(ConfigError, match=words):
            parse_record(RefineSettings, values, "the given settings")


def test_a_voice_of_another_recording_of_that_name_is_no_start(
    release: Release, codec: Codec
) -> None:
    """Its codes are the start where they are of the very recording; else they are searched."""
    wave = speech([2.0, 2.0], [0.2, 0.4, 0.3])
    one, two = (read_recording((each, RATE), name="me.wav") for each in (wave, -wave))
    reports = [make_reference([each], release, codec).report for each in (one, two)]
    assert len({(each.source, each.start, each.end) for each in reports}) == 1
    consent = Consent(kind="self", statement="I agree.")
    voice = enroll(one, release, codec, name="ann", consent=consent).voice
    init = ResolvedVoice("ann", voice.embedding_ND, voice)
    settings = settings_of(steps=0)

    def start(recording: object) -> torch.Tensor:
        made = refine(
            [recording], release, codec, name="bea", consent=consent, init=init,  # type: ignore[list-item]
            settings=settings,
        )  # fmt: skip
        return made.result.before.codes_KT

    assert torch.equal(start(one), voice.codes_KT)
    assert not torch.equal(start(two), voice.codes_KT)


def test_a_voice_file_has_room_for_the_evaluations(small: Codec) -> None:
    done = refine_codes(job_of(small, steps=2, evaluate_every=1))
    many = [replace(done.evaluations[0], step=step) for step in range(5000)]
    long = replace(done, evaluations=many, kept=many[1234])
    steps = [each["step"] for each in summarize(long, settings_of(), "encoder")["evaluations"]]
    assert len(steps) <= MAX_STORED and {0, 1234, 4999} <= set(steps)
    assert len(summarize(done, settings_of(), "encoder")["evaluations"]) == 3


def test_codes_are_decoded_where_the_codec_is(
    release: Release, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = read_recording((speech([2.0], [0.2, 0.4]), RATE), name="me.wav")
    reference = make_reference([recording], release, codec)
    elsewhere, seen = copy.deepcopy(codec).to("meta"), []

    def decode(codes_BKT: torch.Tensor) -> torch.Tensor:
        seen.append(codes_BKT.device.type)
        return torch.zeros(1, 4800)

    monkeypatch.setattr(elsewhere, "decode", decode)
    consent = Consent(kind="self", statement="I agree.")
    voice_of(
        torch.zeros(7, 5, dtype=torch.long), reference, [recording], release, elsewhere, name="ann",
        consent=consent, encoder_hash="none", measured=True,
    )  # fmt: skip
    assert seen == ["meta"]

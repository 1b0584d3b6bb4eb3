"""Codes refined through the decoder: exact pieces, exact gradients, and nothing made worse."""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from tests.helpers.signals import RATE, speech
from tests.helpers.tiny_release import tiny_params, write_tiny_release
from voxclone.audio.files import read_recording
from voxclone.cloning.enroll import enroll, make_reference, voice_of
from voxclone.cloning.refine.free import (
    FreeCodes,
    Start,
    from_codes,
    from_encoder,
    from_nothing,
    nearest_frames,
)
from voxclone.cloning.refine.make import MOST_TOLD, facts_of, refine, told
from voxclone.cloning.refine.pieces import decode_in_pieces
from voxclone.cloning.refine.reading import GainJudge, Halves, flow_loss, nats, quietest_cut, read
from voxclone.cloning.refine.run import Job, Judged, refine_codes
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.config import parse_settings
from voxclone.errors import AudioError, ConfigError, TrainingError
from voxclone.evaluate.agreement import agreement
from voxclone.release.release import Release, load_codec
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import SHIFT
from voxclone.tts.likelihood import Likelihood, likelihood, semantic_log_probs
from voxclone.tts.tts import TTS
from voxclone.voice.file import Consent
from voxclone.voice.resolve import Chosen
from voxclone.voice.rows import voice_rows

FRAMES = 450  # of 10 ms in the tiny release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("refine") / "release"
    return Release.open(write_tiny_release(folder, with_encoder=True))


@pytest.fixture(scope="module")
def codec(release: Release) -> Codec:
    return load_codec(release)


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
def model(release: Release, codec: Codec) -> TTS:
    return TTS.load(release, codec=codec)


def recording(codec: Codec) -> torch.Tensor:
    wave_S = torch.from_numpy(speech([2.0, 2.0], [0.2, 0.4, 0.3]))
    return wave_S[: FRAMES * codec.frame_size]


def settings_of(**values: object) -> RefineSettings:
    weights = {"likely_levels": 0.0, "likely_semantic": 0.0, **values.pop("weights", {})}  # type: ignore[dict-item]
    plain = {"judge": "likeness", "steps": 6, "judge_every": 3}
    return RefineSettings.model_validate({**plain, **values, "weights": weights})


def job_of(codec: Codec, start: Start | None = None, **values: object) -> Job:
    wave_S = recording(codec)
    frames = len(wave_S) // codec.frame_size
    halves = Halves(quietest_cut(wave_S, codec.frame_size), frames, ("one", "two"))
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
    free = FreeCodes(small.quantizer, from_nothing(small, 9, seed=1))
    with torch.no_grad():
        free.level_CT[0, 0], free.level_CT[1, 0] = -3.0, 25.0
    codes_KT = free.codes()
    assert codes_KT[1, 0] == 0 and codes_KT[2, 0] == small.quantizer.levels - 1
    latent_DT = free.latent(0.7)
    assert torch.allclose(latent_DT, small.quantizer.decode(codes_KT[None])[0], atol=1e-6)
    latent_DT.sum().backward()
    step = 2 / (small.quantizer.levels - 1)
    assert free.level_CT.grad is not None and free.pull_TV.grad is not None
    assert torch.allclose(free.level_CT.grad, torch.full_like(free.level_CT, step))
    assert bool((free.pull_TV.grad.abs().sum(dim=1) > 0).all())
    assert float(free.divergence().detach()) == 0
    with torch.no_grad():
        free.pull_TV[:, 0] += 5
    assert float(free.divergence().detach()) > 0.1


def test_codes_start_from_what_they_are_said_to(small: Codec) -> None:
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
        said_S = small.decode(voice_KN[None])[0]
    assert torch.equal(nearest_frames(small, said_S, voice_KN), voice_KN)
    later_S = said_S[10 * small.frame_size :]  # sounds that the voice has, at other places
    found_KN = nearest_frames(small, later_S, voice_KN)
    assert float((found_KN == voice_KN[:, 10:]).float().mean()) > 0.8  # but for the edges
    assert nearest_frames(small, said_S, voice_KN[:, :5]).shape == voice_KN.shape


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
        small, from_codes(small, moved_KT), steps=12, judge_every=12, level_rate=0.6,
        weights={"near_levels": 0.0},
    )  # fmt: skip
    job = replace(job, wave_S=small.decode(true_KT[None])[0])
    first, last = refine_codes(job).judged
    before, after = (agreement(true_KT, each.codes_KT).level_error for each in (first, last))
    assert before > 2 and after < 0.5 * before
    assert torch.equal(refine_codes(job).judged[-1].codes_KT, last.codes_KT)


def test_a_run_goes_on_where_it_was_stopped(
    release: Release, codec: Codec, model: TTS, tmp_path: Path
) -> None:
    asked = {"likely_levels": 0.1, "likely_semantic": 0.7}
    job = job_of(codec, save_every=3, ask_every=4, weights=asked)
    job = replace(job, model=model)
    whole = refine_codes(job)

    def stop(step: int, told: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_codes(job, folder=tmp_path, progress=stop)
    with pytest.raises(ConfigError, match="--resume"):
        refine_codes(job, folder=tmp_path)
    seen: list[int] = []
    rest = refine_codes(
        job, folder=tmp_path, resume=True, progress=lambda step, told: seen.append(step)
    )
    assert seen == [4, 5, 6]
    assert [each.step for each in rest.judged] == [0, 3, 6]
    for one, two in zip(whole.judged, rest.judged, strict=True):
        assert torch.equal(one.codes_KT, two.codes_KT) and one.likeness == two.likeness
    other = replace(job, start=from_nothing(codec, FRAMES, 0))
    with pytest.raises(ConfigError, match="another recording, start, judge or settings"):
        refine_codes(other, folder=tmp_path, resume=True)


def test_a_model_in_half_precision_is_asked(release: Release, codec: Codec) -> None:
    """As on a GPU."""
    model = TTS.load(release, codec=codec, dtype=torch.bfloat16)
    job = job_of(codec, weights={"likely_levels": 0.1, "likely_semantic": 0.7})
    judge = GainJudge.load(model, release, job.halves, job.start.codes())
    found = refine_codes(replace(job, model=model, gain=judge)).judged
    assert all(each.gain is not None and math.isfinite(each.gain) for each in found)


def test_another_device_finds_the_same_codes(release: Release) -> None:
    def found(device: str) -> list[Judged]:
        codec = load_codec(release).to(device)
        model = TTS.load(release, codec=codec, device=device)
        wave_S = recording(codec).to(device)
        weights = {"likely_levels": 0.1, "likely_semantic": 0.7}
        job = job_of(codec, from_encoder(codec, wave_S), weights=weights)
        job = replace(job, wave_S=wave_S, model=model)
        judge = GainJudge.load(model, release, job.halves, job.start.codes())
        assert job.start.codes().device.type == device
        return refine_codes(replace(job, gain=judge)).judged

    near = found("cpu")
    with fake_device():
        far = found(FAKE_DEVICE)
    for one, other in zip(near, far, strict=True):
        assert torch.equal(one.codes_KT.cpu(), other.codes_KT.cpu())
        assert one.gain == pytest.approx(other.gain, abs=1e-4)


def judging(figures: list[float]):
    """A judge whose figures are given."""
    left = iter(figures)
    return lambda codes_KT: next(left)


@pytest.mark.parametrize(
    ("figures", "kept", "reason", "steps"),
    [
        ([0.5, 0.4, 0.3, 0.2], 0, "worse", 4),
        ([0.5, 0.6, 0.4, 0.3], 2, "worse", 6),
        ([0.5, 0.6, 0.7, 0.8], 6, "done", 6),
        ([0.5, 0.4, 0.6, 0.5], 4, "done", 6),
    ],
)
def test_the_better_codes_are_kept(
    figures: list[float], kept: int, reason: str, steps: int, small: Codec
) -> None:
    job = job_of(small, judge="gain", judge_every=2, patience=2, level_rate=1e-6)
    done = refine_codes(replace(job, gain=judging(figures)))  # type: ignore[arg-type]
    assert (done.kept.step, done.reason, done.steps) == (kept, reason, steps)
    assert done.before.gain == 0.5 and torch.equal(done.codes_KT, done.kept.codes_KT)
    with pytest.raises(ConfigError, match="judge by likeness"):
        refine_codes(job)


def test_noise_that_a_judge_likes_is_not_kept(small: Codec) -> None:
    start = from_nothing(small, FRAMES, 0)
    job = job_of(small, start, judge="gain", judge_every=2, patience=2, level_rate=1e-6)
    done = refine_codes(replace(job, gain=judging([0.9, 0.4, 0.5, 0.6])))  # type: ignore[arg-type]
    assert (done.kept.step, done.reason, done.before.step) == (6, "done", 0)
    untouched = replace(job, settings=settings_of(judge="gain", steps=0))
    assert refine_codes(replace(untouched, gain=judging([0.9]))).kept.step == 0  # type: ignore[arg-type]


def test_levels_are_held_near_codes_and_not_near_noise(small: Codec) -> None:
    def made(start: Start, near: float) -> torch.Tensor:
        job = job_of(small, start, steps=3, judge_every=3, weights={"near_levels": near})
        return refine_codes(job).judged[-1].codes_KT

    wave_S = recording(small)
    for start, alike in (
        (from_nothing(small, FRAMES, 0), True),
        (from_encoder(small, wave_S), False),
    ):
        assert torch.equal(made(start, 0.0), made(start, 1e4)) == alike
    alone = {"mel": 0.0, "stft": 0.0, "near_semantic": 0.0, "near_levels": 1.0}
    with pytest.raises(ConfigError, match="no other weight is above 0"):
        refine_codes(job_of(small, from_nothing(small, FRAMES, 0), weights=alone))


def test_what_is_optimised_is_no_judge() -> None:
    values = {"judge": "likeness", "weights": {"speaker": 0.5}}
    with pytest.raises(ConfigError, match="likeness cannot judge codes"):
        parse_settings(RefineSettings, values, "the given settings")
    parse_settings(RefineSettings, values | {"judge": "gain"}, "the given settings")


def test_each_half_is_read_after_the_other(codec: Codec, model: TTS) -> None:
    job = job_of(codec)
    codes_KT = job.start.codes()
    opinion = read(model, job.halves, codes_KT)
    first_KT, second_KT = job.halves.parts(codes_KT)
    wanted_TV = semantic_log_probs(model, second_KT, "one", first_KT.T + SHIFT)
    assert torch.allclose(opinion.log_TV[: job.halves.cut], wanted_TV, atol=1e-5)
    assert opinion.log_TV.shape == job.start.log_TV.shape
    value_CT = (torch.zeros(codec.config.acoustic_dim, FRAMES)).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    flow_loss(model, opinion.state_TD, value_CT, generator).backward()
    assert value_CT.grad is not None and bool((value_CT.grad.abs().sum(dim=0) > 0).all())


def test_the_gain_is_of_the_other_half_and_against_presets(
    release: Release, codec: Codec, model: TTS
) -> None:
    job = job_of(codec)
    codes_KT = job.start.codes()
    judge = GainJudge.load(model, release, job.halves, codes_KT)
    gain = judge(codes_KT)
    parts, costs = job.halves.parts(codes_KT), []
    table_VD, offsets = model.backbone.audio_table.weight, codebook_offsets(release.params)
    for i, text in enumerate(job.halves.texts):
        rows = [voice_rows(parts[1 - i], table_VD, offsets), *judge.strangers]
        found = [
            nats(likelihood(model, row_ND, text, parts[i]), model.head.channels) for row_ND in rows
        ]
        costs.append(sum(found[1:]) / 3 - found[0])
    assert gain == pytest.approx(sum(costs) / 2, abs=1e-5)
    assert nats(Likelihood(2.0, 0.5, 1), 4) == pytest.approx(2.0 + 2 * -0.693147, abs=1e-5)


def test_speaker_loss_is_of_each_half_alone(small: Codec) -> None:
    weights = {"speaker": 1.0, "mel": 0.0, "stft": 0.0}
    job = job_of(small, judge="gain", steps=1, judge_every=1, weights=weights)
    told: dict[str, float] = {}
    job = replace(job, gain=judging([0.0, 0.0]))  # type: ignore[arg-type]
    done = refine_codes(job, progress=lambda step, values: told.update(values))
    assert 0 < told["speaker"] < 1 and isinstance(done.kept, Judged)


@dataclass
class Figures:
    """A judge by gain whose figures are given, and who says what it judges by."""

    figures: list[float]
    truth_KT: torch.Tensor = field(default_factory=lambda: torch.zeros(7, 3))
    strangers: tuple[torch.Tensor, ...] = ()

    def __call__(self, codes_KT: torch.Tensor) -> float:
        return self.figures.pop(0)


def test_a_run_that_ended_early_has_ended(small: Codec, tmp_path: Path) -> None:
    job = job_of(small, judge="gain", judge_every=1, patience=1, save_every=1, level_rate=1e-6)
    done = refine_codes(replace(job, gain=Figures([0.5, 0.4])), folder=tmp_path)  # type: ignore[arg-type]
    assert (done.reason, done.steps) == ("worse", 1)
    again = refine_codes(replace(job, gain=Figures([])), folder=tmp_path, resume=True)  # type: ignore[arg-type]
    assert (again.reason, again.steps, again.kept.step) == ("worse", 1, 0)
    unsaved = job_of(small, judge="gain", judge_every=1, patience=1, save_every=50, level_rate=1e-6)
    other = tmp_path / "other"
    refine_codes(replace(unsaved, gain=Figures([0.5, 0.4])), folder=other)  # type: ignore[arg-type]
    assert [path.name for path in other.iterdir()] == ["step-0000001"]


@pytest.mark.parametrize("change", ["truth", "strangers", "none"])
def test_figures_of_another_judge_are_not_gone_on_from(
    change: str, small: Codec, tmp_path: Path
) -> None:
    job = job_of(small, steps=1, judge_every=1, level_rate=1e-6)
    refine_codes(replace(job, gain=Figures([0.5, 0.4])), folder=tmp_path)  # type: ignore[arg-type]
    other = {
        "truth": Figures([], truth_KT=torch.ones(7, 3)),
        "strangers": Figures([], strangers=(torch.ones(2, 4),)),
        "none": None,
    }[change]
    with pytest.raises(ConfigError, match="judge or settings"):
        refine_codes(replace(job, gain=other), folder=tmp_path, resume=True)  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_passed_over_and_told(small: Codec, tmp_path: Path) -> None:
    job = job_of(small, steps=2, save_every=1)
    refine_codes(job, folder=tmp_path)
    (tmp_path / "step-0000002" / "values.json").write_text("{}")
    done = refine_codes(job, folder=tmp_path, resume=True)
    assert done.steps == 2 and ["step-0000002" in each for each in done.passed_over] == [True]
    for path in tmp_path.glob("*/values.json"):
        path.write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        refine_codes(job, folder=tmp_path, resume=True)


def test_steps_that_change_nothing_are_told(small: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(small, steps=3, judge_every=3)
    whole = refine_codes(job)
    assert whole.skipped == 0 and "finite" not in told(whole, job.settings, "encoder")[0]

    def broken(made_BS: torch.Tensor, *others: object, **more: object) -> torch.Tensor:
        return made_BS.sum() * math.nan

    monkeypatch.setattr("voxclone.cloning.refine.run.mel_loss", broken)
    done = refine_codes(job)
    assert done.skipped == 3 and torch.equal(done.judged[0].codes_KT, done.judged[-1].codes_KT)
    assert (
        "In 3 of them losses or gradients were not finite" in told(done, job.settings, "encoder")[0]
    )


def test_codes_without_a_figure_are_not_judged(small: Codec) -> None:
    job = job_of(small, judge="gain")
    with pytest.raises(TrainingError, match="The gain of the codes after 0 steps"):
        refine_codes(replace(job, gain=Figures([math.nan])))  # type: ignore[arg-type]


def test_a_loss_is_needed_and_numbers_are_finite() -> None:
    none = dict.fromkeys(("mel", "stft", "near_levels", "near_semantic", "likely_levels"), 0.0)
    for values, words in [
        ({"weights": none}, "without a loss"),
        ({"weights": {"mel": math.inf}}, "weights.mel"),
        ({"temperature": [math.nan, 1.0]}, "temperature"),
        ({"temperature": [1.0, 0.0]}, "temperature"),
    ]:
        with pytest.raises(ConfigError, match=words):
            parse_settings(RefineSettings, values, "the given settings")


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
    origin = Chosen("ann", voice.rows_ND, voice)
    settings = settings_of(steps=0)

    def start(recording: object) -> torch.Tensor:
        made = refine(
            [recording], release, codec, name="bea", consent=consent, origin=origin,  # type: ignore[list-item]
            settings=settings,
        )  # fmt: skip
        return made.refined.before.codes_KT

    assert torch.equal(start(one), voice.codes_KT)
    assert not torch.equal(start(two), voice.codes_KT)


def test_a_voice_file_has_room_for_what_is_told(small: Codec) -> None:
    done = refine_codes(job_of(small, steps=2, judge_every=1))
    many = [replace(done.judged[0], step=step) for step in range(5000)]
    long = replace(done, judged=many, kept=many[1234])
    steps = [each["step"] for each in facts_of(long, settings_of(), "encoder")["judged"]]
    assert len(steps) <= MOST_TOLD and {0, 1234, 4999} <= set(steps)
    assert len(facts_of(done, settings_of(), "encoder")["judged"]) == 3


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

"""From recordings to a voice: what is used, what is chosen, what the facts say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from tests.helpers.signals import RATE, speech
from voxclone.audio.files import Recording, read_recording
from voxclone.audio.loudness import normalize_loudness
from voxclone.audio.reference import ReferenceSettings
from voxclone.cloning.crops import Candidate, by_gain, by_similarity, choose_crops
from voxclone.cloning.enroll import enroll, reference_settings
from voxclone.cloning.options import STEPS, EnrollOptions, check_consent, check_steps, read_for
from voxclone.codec.model import Codec
from voxclone.errors import AudioError, UsageError
from voxclone.models.speaker_encoder import Ge2eEmbedder, speaker_similarity
from voxclone.release.encoder_file import codebook_hash
from voxclone.release.release import Release, load_codec, load_preset, preset_names
from voxclone.tts.likelihood import Likelihood
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent
from voxclone.voice.resolve import resolve_voice

CONSENT = Consent(kind="self", statement="I agree.")


@pytest.fixture(scope="module")
def release(tiny_release: Release) -> Release:
    return tiny_release


@pytest.fixture(scope="module")
def codec(tiny_codec: Codec) -> Codec:
    return tiny_codec


def record(phrases: list[float], name: str = "clip.wav", pause: float = 0.4) -> Recording:
    return read_recording((speech(phrases, [pause] * (len(phrases) + 1)), RATE), name=name)


def test_several_recordings_become_one_voice(
    release: Release, codec: Codec, tmp_path: Path
) -> None:
    listed = [record([3.0], "a\x1b.wav"), record([4.0], "b.wav")]
    made = enroll(
        listed, release, codec, name="anna", consent=CONSENT, enrollment_id="i", measured=True
    )
    metadata = made.voice.metadata
    assert metadata.enrollment_id == "i" and metadata.codebook_hash == codebook_hash(release)
    assert [part["source"] for part in metadata.preprocessing["parts"]] == ["a?.wav", "b.wav"]
    assert metadata.reference_seconds == len(made.reference.wave_S) / RATE > 7
    assert metadata.reference_hash not in [each.sha256 for each in listed]
    assert list(metadata.similarity) == ["ge2e, decoded codes"]
    path = tmp_path / "a.voice.safetensors"
    made.voice.save(path)
    again = Voice.load(path)
    assert again.metadata == metadata
    assert torch.equal(resolve_voice(again, release, path).embedding_ND, made.voice.embedding_ND)
    alone = enroll(
        listed, release, codec, name="anna", consent=CONSENT,
        options=EnrollOptions(without=("join",)),
    )  # fmt: skip
    assert alone.reference.report.source == "b.wav" and not alone.reference.report.parts


def test_every_step_can_be_left_out(release: Release) -> None:
    usual = reference_settings(release)
    for step, field in STEPS.items():
        changed = reference_settings(release, EnrollOptions(without=(step,)))
        if field is None:
            assert changed == usual
        else:
            assert getattr(usual, field) is True
            assert changed == usual.model_copy(update={field: False})
    with pytest.raises(UsageError, match="did you mean 'level'"):
        check_steps(["levl"])


def test_resampling_and_mixing_can_be_refused(tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "a.wav"
    wave_S = speech([2.0], [0.2, 0.2], 16000)
    soundfile.write(path, np.stack([wave_S, wave_S], axis=1), 16000)
    assert read_for(path, EnrollOptions()).native_rate == 16000
    for step in ("resample", "mix"):
        with pytest.raises(AudioError, match=f"`--without {step}`"):
            read_for(path, EnrollOptions(without=(step,)))


def by_start(seconds: float):
    """Prefers the crop that begins nearest to a time."""

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        return [-abs(candidate.segment.start / RATE - seconds)] * len(others)

    return score


@pytest.mark.parametrize("seconds", [0.0, 7.0, 14.0])
def test_the_crop_with_the_best_score_is_kept(seconds: float, codec: Codec) -> None:
    recording = record([3.0] * 6)
    settings = ReferenceSettings(max_seconds=4.0)
    (segment,), (sentence,) = choose_crops([recording], settings, codec, by_start(seconds), 6)
    assert segment is not None and abs(segment.start / RATE - seconds) < 1.8
    start, end = (sample / RATE for sample in (segment.start, segment.end))
    assert sentence.startswith(f"Chose {start:.2f} s to {end:.2f} s of clip.wav")


def test_crops_are_scored_by_those_that_share_nothing_with_them(codec: Codec) -> None:
    seen: list[tuple[Candidate, list[Candidate]]] = []

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        seen.append((candidate, others))
        return [1.0] * len(others)

    listed = [record([1.5] * 8), record([2.0], "b.wav")]
    segments, sentences = choose_crops(listed, ReferenceSettings(max_seconds=6.0), codec, score, 4)
    assert segments[1] is None and "one crop of b.wav only" in sentences[1]
    assert len(seen) > 3
    for candidate, others in seen:
        assert candidate not in others
        for other in others:
            assert (
                other.source != candidate.source
                or other.segment.end <= candidate.segment.start
                or candidate.segment.end <= other.segment.start
            )


@pytest.mark.parametrize("select_by", ["similarity", "gain"])
def test_best_of_crops_end_to_end(select_by: str, release: Release, codec: Codec) -> None:
    options = EnrollOptions(best_of=3, select_by=select_by, seconds=4.0)  # type: ignore[arg-type]
    made = enroll(
        record([3.0, 2.0, 2.5]), release, codec, name="a", consent=CONSENT, options=options
    )
    report = made.reference.report
    assert report.actions[0].startswith("Chose ") and "the best of 3 crops" in report.actions[0]
    kept = f"Kept {report.start:.2f} s to {report.end:.2f} s of {report.duration_in:.2f} s."
    assert kept in report.actions
    assert report.duration_out <= 4.0


@pytest.mark.parametrize("select_by", ["similarity", "gain"])
def test_another_device_makes_the_same_voice(select_by: str, release: Release) -> None:
    options = EnrollOptions(best_of=3, select_by=select_by, seconds=4.0)  # type: ignore[arg-type]

    def made(device: str) -> Voice:
        return enroll(
            record([3.0, 2.0, 2.5]), release, load_codec(release).to(device), name="a",
            consent=CONSENT, options=options, measured=True,
        ).voice  # fmt: skip

    near = made("cpu")
    with fake_device():
        far = made(FAKE_DEVICE)
    assert torch.equal(near.codes_KT, far.codes_KT)
    assert near.metadata.encoder_hash == far.metadata.encoder_hash


def test_references_have_the_length_that_helps(release: Release) -> None:
    mini = Release.open("mini")
    long = mini.params.lm.model_copy(update={"max_seq_len": 65536})
    wide = replace(mini, params=replace(mini.params, lm=long))
    assert reference_settings(wide).max_seconds == 30.0
    assert reference_settings(wide).level_dbfs == -20.0
    assert reference_settings(wide, recordings=2).max_seconds == 16.0
    assert reference_settings(wide, EnrollOptions(best_of=3)).max_seconds == 16.0
    assert reference_settings(wide, EnrollOptions(seconds=5)).max_seconds == 5.0
    assert reference_settings(release, EnrollOptions(seconds=100)).max_seconds < 30


def test_the_scores_are_what_they_are_called(
    release: Release, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave_S = torch.from_numpy(speech([3.0], [0.2, 0.2]))
    with torch.inference_mode():
        codes_KT = codec.encode(wave_S[None])[0]
        decoded_S = codec.decode(codes_KT[None])[0]
    crop, other = (Candidate(i, (0, len(wave_S)), wave_S, codes_KT) for i in range(2))
    alike = speaker_similarity(
        Ge2eEmbedder.load(), normalize_loudness(decoded_S), normalize_loudness(wave_S)
    )
    assert by_similarity(codec)(crop, [other, other]) == pytest.approx([alike] * 2, abs=1e-5)

    def loss(
        model: object, voice_ND: torch.Tensor, text: str, codes_KT: torch.Tensor
    ) -> Likelihood:
        assert text and torch.equal(codes_KT, other.codes_KT)
        return Likelihood(float(voice_ND.float().mean()), 0.5, 1)

    monkeypatch.setattr("voxclone.cloning.crops.likelihood", loss)
    presets = [float(load_preset(release, name).float().mean()) for name in preset_names(release)]
    own = float(voice_embedding(crop.codes_KT, release).float().mean())
    (gain,) = by_gain(release, codec)(crop, [other])
    assert gain == pytest.approx(sum(presets) / 3 - own, abs=1e-6)


def test_consent_is_stated_or_refused() -> None:
    assert check_consent("written", " Letter\n of 2 May. ").statement == "Letter of 2 May."
    for kind, statement in [
        (None, "x"), ("unstated", "x"), ("yes", "x"), ("self", None), ("self", " \n"),
        ("written", "x" * 2001),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=r"--consent|--statement"):
            check_consent(kind, statement)

"""One voice through every format: its embedding arrives bit for bit, and other files stay."""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistral_common.protocol.speech.request import SpeechRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from tests.runtimes.conftest import REAL_WIDTH, Example, make_voice
from voxclone.errors import QualityError
from voxclone.release.release import Release, load_preset, mini_release
from voxclone.runtimes import writers
from voxclone.runtimes.containers import read_embedding, read_raw, read_stored, read_torch
from voxclone.runtimes.export import export_voice
from voxclone.runtimes.reference import count_frames, count_positions
from voxclone.runtimes.table import RUNTIMES
from voxclone.runtimes.verify import verify
from voxclone.voice.resolve import ResolvedVoice, resolve_preset

MISCOUNTED = [7, 14, 28, 55, 56, 109, 110, 111, 112, 218, 220, 222, 224, 243, 245, 247, 249]


def out_for(runtime: str, folder: Path) -> Path:
    place, suffix = RUNTIMES[runtime].input, RUNTIMES[runtime].suffix
    return folder / (f"dora{suffix}" if place == "file" else "out")


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_embeddings_are_bit_equal_in_every_format(
    runtime: str, wide: Example, tmp_path: Path
) -> None:
    before = digest(wide.release.path)
    out = out_for(runtime, tmp_path)
    preset = "casual_male" if runtime == "comfyui" else None
    export_voice(wide.voice, RUNTIMES[runtime], wide.release, out, replace_preset=preset)
    name = None if RUNTIMES[runtime].input == "file" else preset or "dora"
    (reading,) = verify(RUNTIMES[runtime], out, wide.release, name=name, like=wide.voice)
    assert reading.usable, reading.problems
    assert reading.frames == reading.positions == 41
    assert torch.equal(reading.embedding_ND, wide.voice.embedding_ND)
    assert digest(wide.release.path) == before
    assert not [path for path in tmp_path.iterdir() if path != out]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frames=st.integers(2, 512))
def test_any_number_of_frames_goes_through_every_format(
    frames: int, wide: Example, tmp_path: Path
) -> None:
    voice = make_voice(wide.release, tmp_path / "v.voice.safetensors", frames - 1)
    for runtime in RUNTIMES.values():
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            out = out_for(runtime.name, Path(folder))
            preset = "casual_male" if runtime.name == "comfyui" else None
            if frames <= 10 and runtime.name == "voxtral-tts.c":
                with pytest.raises(QualityError, match="nothing below 65536"):
                    export_voice(voice, runtime, wide.release, out)
                continue
            reading = export_voice(voice, runtime, wide.release, out, replace_preset=preset)
            assert reading.usable and reading.frames == reading.positions == frames
            assert torch.equal(reading.embedding_ND, voice.embedding_ND)


def random_embedding(frames: int, seed: int) -> torch.Tensor:
    """Rows of every bit pattern that is a number."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**15), 2**15, (frames, REAL_WIDTH), generator=generator)
    values = bits.to(torch.int16).view(torch.bfloat16)
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frames=st.integers(2, 512), seed=st.integers(0, 1000))
def test_files_keep_any_numbers(frames: int, seed: int, tiny: Example, tmp_path: Path) -> None:
    embedding_ND = random_embedding(frames, seed)
    voice = ResolvedVoice("dora", embedding_ND, None)
    writers.write_raw_folder(voice, "dora", tiny.release, tmp_path / "voices")
    writers.write_embedding(voice, "dora", tiny.release, tmp_path / "dora.safetensors")
    torch_file = tmp_path / "voices" / "dora.pt"
    read = {
        "torch": read_torch(torch_file, REAL_WIDTH),
        "stored": read_stored(torch_file, REAL_WIDTH),
        "embedding": read_embedding(tmp_path / "dora.safetensors"),
        "raw": read_raw(tmp_path / "voices" / "dora.bin", REAL_WIDTH, (frames,)),
    }
    if frames <= 10:  # below 64 KiB voxtral-tts.c looks for nothing
        none_ND, problems = read["stored"]
        assert none_ND is None and "65536" in problems[0]
        read["stored"] = read_stored(torch_file, REAL_WIDTH, small=True)
    for kind, (found_ND, problems) in read.items():
        assert not problems and found_ND.dtype == torch.bfloat16, kind
        assert torch.equal(found_ND.view(torch.int16), embedding_ND.view(torch.int16)), kind
    assert torch.equal(torch.load(torch_file, weights_only=True), embedding_ND)


def test_twice_the_expected_frames_are_taken_for_floats_without_the_file_beside(
    tiny: Example, tmp_path: Path
) -> None:
    embedding_ND = random_embedding(294, 0)
    writers.write_raw_folder(
        ResolvedVoice("dora", embedding_ND, None), "dora", tiny.release, tmp_path
    )
    found_ND, problems = read_raw(tmp_path / "dora.bin", REAL_WIDTH, (218, 147))
    assert len(found_ND) == 147 and "32-bit" in problems[0]
    found_ND, problems = read_raw(tmp_path / "dora.bin", REAL_WIDTH, (294,))
    assert torch.equal(found_ND, embedding_ND) and not problems


@pytest.mark.parametrize("frames", [1, 24, 218, 375])
def test_mistral_common_counts_the_frames_of_an_exported_voice(
    frames: int, tiny: Example, tmp_path: Path
) -> None:
    name = f"voice{frames}"
    voice = make_voice(tiny.release, tmp_path / "v.voice.safetensors", frames, name)
    out = tmp_path / "out"
    export_voice(voice, RUNTIMES["vllm-omni"], tiny.release, out)
    tokenizer = MistralTokenizer.from_file(str(out / "tekken.json"))
    ids = tokenizer.encode_speech_request(SpeechRequest(input="Hi.", voice=name)).tokens
    assert ids[:2] == [1, 25] and ids[2 : frames + 3] == [24] * (frames + 1)
    assert ids[frames + 3] == 36 and ids[-2:] == [35, 25] and ids.count(24) == frames + 1
    with pytest.raises(Exception, match="nobody"):
        tokenizer.encode_speech_request(SpeechRequest(input="Hi.", voice="nobody"))


def test_places_are_those_of_mistral_common() -> None:
    tokenizer = MistralTokenizer.from_file(str(mini_release() / "tekken.json"))
    count = tokenizer.instruct_tokenizer.audio_encoder._get_num_audio_token_for_speech_request
    wrong = []
    for frames in range(1, 376):
        for samples in (frames * 1920 - 1, frames * 1920, frames * 1920 + 1):
            assert count_positions(samples, 24000, 12.5) == count(samples)
            if count_frames(samples, 1920) != count(samples):
                wrong.append(samples)
    assert wrong == [frames * 1920 for frames in MISCOUNTED]


@pytest.mark.parametrize(("samples", "rate"), [(13440, 24000), (30000, 22050), (70001, 44100)])
def test_a_recording_comes_to_the_places_of_mistral_common(
    samples: int, rate: int, tmp_path: Path
) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(samples, np.float32), rate)
    release = Release.open("mini")
    (reading,) = verify(RUNTIMES["vllm-omni"], path, release)
    tokenizer = MistralTokenizer.from_file(str(release.path / "tekken.json"))
    request = SpeechRequest(input="Hi.", ref_audio=path.read_bytes())
    encoded = tokenizer.encode_speech_request(request)
    assert reading.positions == encoded.tokens.count(24)
    assert reading.frames == count_frames(len(encoded.audios[0].audio_array), 1920)
    assert (reading.frames == reading.positions) is (samples != 7 * 1920)


def test_the_three_files_of_a_preset_agree_and_the_others_stay(
    tiny: Example, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_voice(tiny.voice, RUNTIMES["vllm-omni"], tiny.release, out, name="emil")
    params = json.loads((out / "params.json").read_text())
    original = json.loads((tiny.release.path / "params.json").read_text())
    voices = params["multimodal"]["audio_tokenizer_args"].pop("voice")
    assert voices == {"anna": 0, "bert": 1, "carla": 2, "emil": 3}
    del original["multimodal"]["audio_tokenizer_args"]["voice"]
    assert params == original
    counts = json.loads((out / "tekken.json").read_text())["audio"]["voice_num_audio_tokens"]
    assert counts == {"anna": 9, "bert": 14, "carla": 5, "emil": 41}
    (kept, made) = (out / "consolidated.safetensors", out / "params.json")
    assert kept.stat().st_ino == (tiny.release.path / kept.name).stat().st_ino
    assert made.stat().st_ino != (tiny.release.path / made.name).stat().st_ino
    assert (out / "voice_embedding" / "anna.pt").stat().st_nlink == 1


def test_a_preset_is_replaced_in_the_new_folder_alone(tiny: Example, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old_ND = load_preset(tiny.release, "bert")
    reading = export_voice(
        tiny.voice, RUNTIMES["vllm-omni"], tiny.release, out, replace_preset="bert"
    )
    assert reading.name == "bert" and reading.frames == 41
    assert torch.equal(load_preset(tiny.release, "bert"), old_ND)


def test_presets_can_be_exported_too(tmp_path: Path) -> None:
    release = Release.open("mini")
    voice = resolve_preset("en_male_1", release)
    out = tmp_path / "out"
    reading = export_voice(voice, RUNTIMES["mlx-audio"], release, out, name="him")
    assert reading.usable and reading.frames == 125
    # mlx-audio reads no .pt, so every preset has come along as safetensors
    assert all(each.usable for each in verify(RUNTIMES["mlx-audio"], out, release))

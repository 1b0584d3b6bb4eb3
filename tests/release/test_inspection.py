"""What `inspect` tells of a release, and that it names all that is wrong without stopping."""

import json
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch

from tests.helpers.tiny_release import (
    VOICES,
    random_entries,
    tiny_params,
    write_encoder,
    write_tiny_release,
)
from voxclone.release.inspection import inspect_release
from voxclone.release.presets import write_preset
from voxclone.release.release import Release
from voxclone.release.safetensors_writer import write_safetensors
from voxclone.release.tensors import encoder_tensors, expected_tensors


def test_a_good_release(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "release")
    inspection = inspect_release(Release.open(folder))
    assert inspection.problems == ()
    assert inspection.voices == VOICES
    assert inspection.encoder == "withheld"
    assert inspection.dtypes == ("BF16",)
    assert inspection.bytes == {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    shapes = expected_tensors(tiny_params())
    assert sum(part.tensors for part in inspection.parts.values()) == len(shapes)
    total = sum(prod(shape) for shape in shapes.values())
    assert sum(part.values for part in inspection.parts.values()) == total
    assert inspection.parts["codec encoder"].tensors == 0
    assert inspection.parts["codec quantizer"].values == 50 + 50 * 12
    assert json.loads(json.dumps(asdict(inspection)))["encoder"] == "withheld"


def test_an_encoder_beside_the_release(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "release")
    write_encoder(folder / "consolidated-encoder.safetensors", tiny_params())
    inspection = inspect_release(Release.open(folder))
    assert (inspection.encoder, inspection.problems) == ("complete", ())
    part = inspection.parts["codec encoder"]
    wanted = encoder_tensors(tiny_params())
    assert (part.tensors, part.values) == (len(wanted), sum(prod(s) for s in wanted.values()))


def test_every_problem_is_named(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "release")
    shapes = expected_tensors(tiny_params())
    del shapes["norm.weight"]
    write_safetensors(
        folder / "consolidated.safetensors", random_entries(shapes, dtype=torch.float32)
    )
    voices = folder / "voice_embedding"
    (voices / "anna.pt").unlink()
    (voices / "bert.pt").write_bytes(b"no zip")
    write_preset(voices / "carla.pt", torch.zeros(4, 28, dtype=torch.bfloat16))
    write_preset(voices / "stray.pt", torch.zeros(4, 28, dtype=torch.bfloat16))
    tekken = json.loads((folder / "tekken.json").read_text())
    tekken["audio"]["sampling_rate"] = 16000
    (folder / "tekken.json").write_text(json.dumps(tekken))
    inspection = inspect_release(Release.open(folder))
    text = "\n".join(inspection.problems)
    assert inspection.voices == {"carla": 4}
    assert inspection.dtypes == ("F32",)
    assert len(inspection.problems) == 6
    for clause in (
        "norm.weight is missing.",
        "stray.pt is not in the voice map",
        "audio.sampling_rate is 16000, but params.json says 24000.",
        "'anna', but",
        "bert.pt is damaged",
        "The voice 'carla' has 4 frames, and 5 by tekken.json.",
    ):
        assert clause in text


def test_no_tokenizer_no_voices_and_a_file_outside_the_index(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "release")
    (folder / "tekken.json").unlink()
    write_safetensors(folder / "consolidated-more.safetensors", random_entries({"x": (2,)}))
    index = {name: "consolidated.safetensors" for name in expected_tensors(tiny_params())}
    path = folder / "consolidated.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    problems = inspect_release(Release.open(folder)).problems
    assert len(problems) == 2
    assert problems[0] == "consolidated-more.safetensors is not in the index, so it is not read."
    assert "tekken.json cannot be read" in problems[1]


def test_voices_without_a_count(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "release")
    tekken = json.loads((folder / "tekken.json").read_text())
    del tekken["audio"]["voice_num_audio_tokens"]["bert"]
    (folder / "tekken.json").write_text(json.dumps(tekken))
    problems = inspect_release(Release.open(folder)).problems
    assert problems == ("tekken.json has no frame count for the voice 'bert'.",)

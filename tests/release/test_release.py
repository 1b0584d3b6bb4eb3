"""Opening a release and loading from it: whole, damaged, with and without an encoder."""

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from tests.helpers.tiny_release import (
    VOICES,
    preset_embedding,
    random_entries,
    tiny_params,
    write_encoder,
    write_tiny_release,
)
from tests.release.real_params import REAL
from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError, VoiceError
from voxclone.release import release as archive
from voxclone.release.inspection import inspect_release
from voxclone.release.params import parse_params
from voxclone.release.presets import write_preset
from voxclone.release.release import (
    Release,
    find_release,
    load_codec,
    load_preset,
    load_table,
    preset_names,
)
from voxclone.release.safetensors_writer import write_safetensors
from voxclone.release.tensors import Shapes, encoder_tensors, expected_tensors
from voxclone.spec import CODEC, TABLE

WEIGHTS = "consolidated.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_release(tmp_path / "release")


def _rewrite(folder: Path, change: Callable[[Shapes], object], **options: Any) -> None:
    params = tiny_params()
    shapes = expected_tensors(params) | encoder_tensors(params)
    change(shapes)
    write_safetensors(folder / WEIGHTS, random_entries(shapes, **options))


def test_a_release_is_opened(folder: Path) -> None:
    release = Release.open(str(folder))
    assert release.path == folder
    assert release.params == tiny_params()
    assert release.report.encoder == "withheld"
    assert release.report.problems() == []
    assert release.voice_counts == VOICES


def test_opening_and_inspecting_8_gb_is_quick_and_small(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(REAL))
    header: dict[str, Any] = {}
    end = 0
    for name, shape in expected_tensors(parse_params(REAL)).items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    weights = tmp_path / WEIGHTS
    with weights.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # a hole: it takes no room on the disk
    try:
        began = time.process_time()
        release = Release.open(tmp_path)
        inspection = inspect_release(release)
        seconds = time.process_time() - began
        tracemalloc.start()
        inspect_release(Release.open(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        weights.unlink()
    assert inspection.bytes[WEIGHTS] > 8_004_706_784
    assert sum(part.values for part in inspection.parts.values()) == 4_002_353_392
    assert release.report.problems() == []
    assert seconds < 1
    assert peak < 20_000_000


def test_opening_and_inspecting_needs_no_torch(folder: Path) -> None:
    program = (
        "import sys; from voxclone.release.release import Release; "
        "from voxclone.release.inspection import inspect_release; "
        f"inspection = inspect_release(Release.open({str(folder)!r})); "
        "assert not inspection.problems and len(inspection.voices) == 3; "
        "assert not {'torch', 'numpy', 'huggingface_hub'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_codec_without_an_encoder(folder: Path) -> None:
    release = Release.open(folder)
    codec = load_codec(release)
    assert codec.encoder is None
    assert not codec.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in codec.parameters())
    prefix = "audio_tokenizer."
    for module, before in ((codec.decoder, prefix), (codec.quantizer, f"{prefix}quantizer.")):
        for name, value in module.state_dict().items():
            assert torch.equal(value, release.files.load(before + name, torch.float32))
    codes_BKT = torch.zeros(1, codec.num_codebooks, 3, dtype=torch.long)
    assert codec.decode(codes_BKT).isfinite().all()
    with pytest.raises(ReleaseError, match="has no codec encoder"):
        codec.encode(torch.zeros(1, 240))


def test_loading_equals_a_codec_filled_by_hand(tmp_path: Path) -> None:
    release = Release.open(write_tiny_release(tmp_path / "whole", with_encoder=True))
    codec = Codec(release.params.codec)
    tensors = {
        name.removeprefix(CODEC): release.files.load(name, torch.float32)
        for name in release.files.tensors
        if name.startswith(CODEC)
    }
    quantizer = {n[10:]: t for n, t in tensors.items() if n.startswith("quantizer.")}
    codec.quantizer.load_state_dict(quantizer)
    codec.decoder.load_state_dict(
        {n: t for n, t in tensors.items() if n in codec.decoder.state_dict()}
    )
    assert codec.encoder is not None
    codec.encoder.load_state_dict(
        {n: t for n, t in tensors.items() if n in codec.encoder.state_dict()}
    )
    loaded = load_codec(release)
    wave_BS = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    codes_BKT = codec.encode(wave_BS)
    assert torch.equal(loaded.encode(wave_BS), codes_BKT)
    assert torch.equal(loaded.decode(codes_BKT), codec.decode(codes_BKT))


@pytest.mark.parametrize("prefix", [True, False])
def test_an_encoder_from_its_own_file(folder: Path, tmp_path: Path, prefix: bool) -> None:
    release = Release.open(folder)
    path = write_encoder(tmp_path / "encoder.safetensors", release.params, prefix=prefix)
    codec = load_codec(release, path)
    assert codec.encoder is not None
    beside = folder / "consolidated-encoder.safetensors"
    write_encoder(beside, release.params)
    injected = Release.open(folder)
    assert injected.report.encoder == "complete"
    expected = load_codec(injected)
    wave_BS = torch.ones(1, 700)
    assert torch.equal(codec.latents(wave_BS), expected.latents(wave_BS))


def test_a_whole_release_may_give_the_encoder(folder: Path, tmp_path: Path) -> None:
    whole = write_tiny_release(tmp_path / "whole", with_encoder=True)
    codec = load_codec(Release.open(folder), whole / WEIGHTS)
    wave_BS = torch.ones(1, 700)
    expected = load_codec(Release.open(whole))
    assert torch.equal(codec.encode(wave_BS), expected.encode(wave_BS))


ENCODERS: list[tuple[Callable[[Shapes], object], str]] = [
    (lambda s: s.popitem(), r"encoder_blocks\.7.* is missing"),
    (lambda s: s.update({next(iter(s)): (3, 1, 1)}), r"input_proj.* is \[3, 1, 1\] instead of"),
    (lambda s: s.update({"audio_tokenizer.encoder_blocks.9.x": (2,)}), "is not part of a release"),
    (lambda s: s.update({"audio_tokenizer.projection": (2,)}), "'projection', which is not of a"),
    (lambda s: s.update({"optimizer": (2,)}), "'optimizer', which is not of a codec encoder"),
    (lambda s: s.clear(), "holds no tensor of a codec encoder"),
]


@pytest.mark.parametrize(("change", "sentence"), ENCODERS)
def test_unfit_encoder_files_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[Shapes], object], sentence: str
) -> None:
    release = Release.open(folder)
    shapes = encoder_tensors(release.params)
    change(shapes)
    path = tmp_path / "encoder.safetensors"
    write_safetensors(path, random_entries(shapes))
    with pytest.raises(ReleaseError, match=sentence) as caught:
        load_codec(release, path)
    assert str(path) in str(caught.value)


def test_an_encoder_file_of_another_size_missing_or_damaged(folder: Path, tmp_path: Path) -> None:
    release = Release.open(folder)
    path = write_encoder(tmp_path / "encoder.safetensors", tiny_params(dim=24))
    with pytest.raises(ReleaseError, match="instead of"):
        load_codec(release, path)
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_codec(release, tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReleaseError, match="100 bytes are missing"):
        load_codec(release, path)


def test_a_partial_encoder_in_the_release_is_refused(folder: Path, tmp_path: Path) -> None:
    _rewrite(folder, lambda shapes: shapes.popitem())
    release = Release.open(folder)
    assert release.report.encoder == "partial"
    with pytest.raises(ReleaseError, match=r"encoder_blocks.* is missing"):
        load_codec(release)
    other = write_encoder(tmp_path / "encoder.safetensors", release.params)
    assert load_codec(release, other).encoder is not None


def test_a_missing_tensor_stops_only_what_needs_it(folder: Path) -> None:
    _rewrite(folder, lambda shapes: shapes.pop("norm.weight"))
    release = Release.open(folder)
    assert release.report.missing == ("norm.weight",)
    assert load_codec(release).encoder is not None
    assert load_table(release).shape == (256, 28)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.pop("audio_tokenizer.output_proj.conv.parametrizations.weight.original1"),
            "is missing",
        ),
        (
            lambda s: s.update({"audio_tokenizer.decoder_blocks.1.layers.0.ffn_scale": (2,)}),
            r"is \[2\]",
        ),
        (
            lambda s: s.update({"audio_tokenizer.quantizer.inited": (1,)}),
            "is not part of a release",
        ),
    ],
)
def test_an_unfit_decoder_is_refused(
    folder: Path, change: Callable[[Shapes], object], sentence: str
) -> None:
    _rewrite(folder, change)
    with pytest.raises(ReleaseError, match=sentence):
        load_codec(Release.open(folder))


def test_params_that_contradict_the_tensors(folder: Path) -> None:
    values = json.loads((folder / "params.json").read_text())
    values["multimodal"]["audio_tokenizer_args"]["hidden_dim"] = 40
    values["hidden_dim"] = 48
    (folder / "params.json").write_text(json.dumps(values))
    release = Release.open(folder)
    wrong = {tensor.name for tensor in release.report.misshapen}
    assert "layers.0.feed_forward.w1.weight" in wrong
    assert "audio_tokenizer.decoder_blocks.1.layers.0.feed_forward.w1.weight" in wrong
    with pytest.raises(ReleaseError, match=r"is \[36, 20\] instead of \[40, 20\]"):
        load_codec(release)


def test_the_table_has_its_stored_dtype(folder: Path) -> None:
    table_VD = load_table(Release.open(folder))
    assert table_VD.shape == (256, 28)  # 52 + 6 * 23 = 190 rows, padded
    assert table_VD.dtype == torch.bfloat16
    before = (folder / WEIGHTS).read_bytes()
    table_VD.zero_()
    assert (folder / WEIGHTS).read_bytes() == before
    _rewrite(folder, lambda shapes: shapes.update({TABLE: (190, 28)}))
    with pytest.raises(ReleaseError, match=r"is \[190, 28\] instead of \[256, 28\]"):
        load_table(Release.open(folder))


def test_presets_are_loaded(folder: Path) -> None:
    release = Release.open(folder)
    assert preset_names(release) == ["anna", "bert", "carla"]
    for name, rows in VOICES.items():
        assert torch.equal(load_preset(release, name), preset_embedding(name, rows, release.params))


def test_unknown_voices_name_the_nearest(folder: Path) -> None:
    release = Release.open(folder)
    with pytest.raises(
        VoiceError, match=r"no voice 'ana': did you mean 'anna'\? Voices are anna, bert"
    ):
        load_preset(release, "ana")
    with pytest.raises(VoiceError, match=r"no voice '\.\./params': Voices are"):
        load_preset(release, "../params")


def test_presets_that_do_not_fit(folder: Path) -> None:
    release = Release.open(folder)
    path = folder / "voice_embedding" / "anna.pt"
    write_preset(path, torch.zeros(8, 28, dtype=torch.bfloat16))
    with pytest.raises(VoiceError, match=r"has 8 frames, but tekken.json .* says 9"):
        load_preset(release, "anna")
    write_preset(path, torch.zeros(9, 14, dtype=torch.bfloat16))
    with pytest.raises(VoiceError, match="a width of 14, but the release has one of 28"):
        load_preset(release, "anna")
    path.unlink()
    with pytest.raises(VoiceError, match=r"anna\.pt is missing"):
        load_preset(release, "anna")


def test_presets_without_counts_in_the_tokenizer(folder: Path) -> None:
    (folder / "tekken.json").unlink()
    assert load_preset(Release.open(folder), "anna").shape == (9, 28)


def _truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _index(folder: Path) -> None:
    value = {"weight_map": {"norm.weight": "consolidated-2.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(value))


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "params.json").unlink(), "There is no .*params.json"),
    (lambda f: _truncate(f / "params.json", 40), "is not valid JSON"),
    (lambda f: (f / WEIGHTS).unlink(), "There is no consolidated"),
    (lambda f: _truncate(f / WEIGHTS, 1000), "it is cut short"),
    (lambda f: _truncate(f / WEIGHTS, 100_000), "bytes are missing"),
    (_index, r"names consolidated-2\.safetensors, which is missing"),
]


@pytest.mark.parametrize(("damage", "sentence"), BROKEN)
def test_broken_releases_are_refused(
    folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder)
    with pytest.raises(ReleaseError, match=sentence):
        Release.open(folder)


def test_what_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="There is no directory"):
        find_release(tmp_path / "none")
    with pytest.raises(ReleaseError, match=r"There is no directory nothing: .* or 'mini'"):
        find_release("nothing")
    with pytest.raises(ReleaseError, match="There is no directory no/such"):
        find_release(Path("no/such"))
    (tmp_path / "file").touch()
    with pytest.raises(ReleaseError, match="is no directory: name that"):
        find_release(tmp_path / "file")


def test_a_hub_repository_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert Release.open("owner/a-model.1").path == folder
    assert asked[0][0] == "owner/a-model.1"
    assert {"params.json", "voice_embedding/*.pt"} <= set(asked[0][1])


def _no_route(*_: object, **__: object) -> str:
    raise ConnectionError("no route\nto the host")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _no_route)
    with pytest.raises(
        ReleaseError, match=r"no directory owner/name, .*ConnectionError: no route\)"
    ):
        Release.open("owner/name")


def test_an_existing_path_is_no_hub_repository(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _no_route)
    monkeypatch.chdir(folder.parent.parent)
    assert find_release(f"{folder.parent.name}/{folder.name}").samefile(folder)


def test_the_packaged_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "__file__", str(tmp_path / "voxclone/release/release.py"))
    with pytest.raises(ReleaseError, match="packaged release is not installed"):
        Release.open("mini")
    target = tmp_path / "voxclone" / "mini" / "assets" / "release"
    write_tiny_release(target)
    assert Release.open("mini").path == target

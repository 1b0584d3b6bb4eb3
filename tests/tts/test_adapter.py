"""Adapters in a model and on the disk: what they change, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.helpers.adapters import READERS, adapter_card, drawn_adapter, write_drawn
from tests.helpers.command import Command, sentence
from tests.helpers.deaths import dies_at
from tests.helpers.tiny_release import tiny_params, write_relative
from voxclone.errors import ConfigError, ReleaseError, UsageError
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets, expected_tensors
from voxclone.tts.adapter import AdapterSettings, attach
from voxclone.tts.adapter_file import (
    CARD,
    TENSORS,
    probe,
    read_adapter,
    write_adapter,
)
from voxclone.tts.likelihood import hidden_states
from voxclone.tts.merge import merge_adapter
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes

SHOWN = list(READERS)


def codes(params_release: Release, frames: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    sizes = [50] + [21] * 6
    return torch.stack([torch.randint(size, (frames,), generator=generator) for size in sizes])


def outputs(tts: TTS) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return probe(tts.backbone, tts.head, tts.prompts)


def equal(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("reader", SHOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_and_the_scale_0_are_the_base_bit_for_bit(
    reader: str, dtype: torch.dtype, tiny_release: Release
) -> None:
    tts = TTS.load(tiny_release, dtype=dtype)
    base = outputs(tts)
    voice_ND = tts.embed_voice(codes(tiny_release))
    adapter = attach(tts.backbone, tts.head, AdapterSettings.model_validate(READERS[reader]))
    assert reader == "table" or equal(base, outputs(tts))  # another order of the sum
    adapter.load({name: torch.ones_like(each) for name, each in adapter.tensors().items()})
    assert not equal(base, outputs(tts))
    with adapter.disabled():
        assert equal(base, outputs(tts)) and torch.equal(
            voice_ND, tts.embed_voice(codes(tiny_release))
        )
    adapter.set_scale(0.5)
    half = outputs(tts)
    assert not equal(base, half)
    with adapter.disabled():
        assert equal(base, outputs(tts))
    assert equal(half, outputs(tts))  # the scale is what it was


def test_readers_change_what_they_are_for_and_nothing_else(tiny_release: Release) -> None:
    preset_ND = load_preset(tiny_release, "anna")
    codes_KT = codes(tiny_release)
    base = TTS.load(tiny_release)
    stored_ND = embed_codes(codes_KT, load_table(tiny_release), codebook_offsets(base.params))
    ids_L = base.prompts.ids("a", len(preset_ND))
    begin, end = 2, 2 + len(preset_ND)
    for reader in SHOWN:
        tts = TTS.load(tiny_release)
        drawn_adapter(tts, reader)
        prompt_LD = tts.backbone.embed_prompt(ids_L, preset_ND)[0]
        before_LD = base.backbone.embed_prompt(ids_L, preset_ND)[0]
        same_L = (prompt_LD == before_LD).all(dim=-1)
        if reader == "voice":  # all frames but the END frame
            assert not same_L[begin : end - 1].any() and same_L[:begin].all()
            assert same_L[end - 1 :].all()
        else:  # a preset is read as it is stored
            assert same_L.all()
        again_ND = tts.adapted(stored_ND, codes_KT)
        assert torch.equal(again_ND, stored_ND) == (reader != "table")
        assert tts.adapted(preset_ND, None) is preset_ND
    plain = TTS.load(tiny_release)
    adapter = attach(plain.backbone, plain.head, AdapterSettings(reader="table"))
    with adapter.disabled():
        assert torch.equal(plain.adapted(stored_ND, codes_KT), stored_ND)


@pytest.mark.parametrize("reader", SHOWN)
def test_an_adapter_is_written_read_and_used(
    reader: str, tiny_release: Release, tmp_path: Path
) -> None:
    made = TTS.load(tiny_release)
    adapter = drawn_adapter(made, reader)
    folder = tmp_path / "adapter"
    write_adapter(folder, adapter, adapter_card(tiny_release, adapter))
    write_adapter(folder, adapter, adapter_card(tiny_release, adapter))  # in its place
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    tts = TTS.load(tiny_release, adapter=folder)
    assert equal(outputs(made), outputs(tts)) and tts.adapter is not None
    assert not equal(outputs(TTS.load(tiny_release)), outputs(tts))
    assert tts.adapter.sha256 == read_adapter(folder).sha256
    changes = adapter.changes()
    assert all(value > 0 for value in changes.values()) and changes
    if reader == "lora":
        assert len(changes) == 2 * 7 + 1 * 7


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_write_that_dies_leaves_an_adapter(
    after: bool, tiny_release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die before or after every operation on files in turn, where an older adapter is replaced;
    the write after that must work, too."""
    adapter = drawn_adapter(TTS.load(tiny_release), "voice")
    old, new = (adapter_card(tiny_release, adapter, step=step) for step in (1, 2))
    died, death = True, 0
    while died:
        folder = tmp_path / str(death) / "adapter"
        folder.parent.mkdir()
        write_adapter(folder, adapter, old)
        write = partial(write_adapter, folder, adapter, new)
        died = dies_at(death, write, monkeypatch, after=after)
        assert read_adapter(folder).card in ((old, new) if died else (new,)), death
        write()
        assert read_adapter(folder).card == new and not list(folder.parent.glob("*.old"))
        death += 1
    assert death > 15


def test_peft_reads_a_lora_as_it_is_written(tiny_release: Release, tmp_path: Path) -> None:
    from peft import PeftModel

    made = TTS.load(tiny_release)
    adapter = drawn_adapter(made, "lora")
    write_adapter(tmp_path / "a", adapter, adapter_card(tiny_release, adapter))
    plain = TTS.load(tiny_release)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = plain.backbone, plain.head

    PeftModel.from_pretrained(Both(), str(tmp_path / "a"))  # type: ignore[arg-type]
    assert equal(outputs(made), outputs(plain))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


def edit_card(folder: Path, **values: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | values))


NAME = "base_model.model.backbone.model.layers.0.self_attn.q_proj.lora_A.weight"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "NaN": (
        lambda f: edit(f, lambda t: t[NAME].fill_(torch.nan)), "has values that are not finite",
    ),
    "missing": (lambda f: edit(f, lambda t: t.pop(NAME)), "lora_A.weight is missing"),
    "unknown": (
        lambda f: edit(f, lambda t: t.update(other=torch.zeros(1))), "other is not one of them",
    ),
    "shape": (
        lambda f: edit(f, lambda t: t.update({NAME: torch.zeros(2, 5)})),
        r"is \[2, 5\] instead of \[2, 28\]",
    ),
    "nothing": (
        lambda f: edit(f, lambda t: [each.zero_() for n, each in t.items() if "_B" in n]),
        "changes nothing",
    ),
    "base": (lambda f: edit_card(f, base_hash="0"), "was trained on another base"),
    "schema": (lambda f: edit_card(f, schema="voxclone.adapter/9"), "voxclone.adapter/9"),
    "card": (lambda f: (f / CARD).write_text("{"), "not valid JSON"),
    "reader": (lambda f: edit_card(f, adapter={"reader": "nobody"}), "reader"),
    "rank": (
        lambda f: edit_card(f, adapter={"reader": "lora", "rank": 29}), "does not fit.*rank",
    ),
    "no folder": (lambda f: shutil.rmtree(f), "There is no adapter"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_adapter_is_refused_in_a_sentence(
    what: str, tiny_release: Release, tmp_path: Path
) -> None:
    folder = write_drawn(tmp_path / "adapter", tiny_release, "lora")
    change, message = WRONG[what]
    change(folder)
    with pytest.raises(ReleaseError) as caught:
        TTS.load(tiny_release, adapter=folder)
    assert "\n" not in str(caught.value) and re.search(message, str(caught.value))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reader": "lora", "rank": 0}, "`adapter.rank` is 0, and backbone.*q_proj allows 1 to 24"),
        ({"reader": "lora", "rank": 25}, "`adapter.rank` is 25"),
        ({"reader": "lora", "rank": 2, "targets": []}, "`adapter.targets` is empty"),
        ({"reader": "voice", "rank": 29}, "a frame of the voice allows 1 to 28"),
        ({"reader": "voice", "rank": -1}, "allows 1 to 28"),
    ],
)
def test_wrong_settings_are_refused(
    values: dict[str, object], message: str, tiny_release: Release
) -> None:
    tts = TTS.load(tiny_release)
    with pytest.raises(ConfigError, match=message):
        attach(tts.backbone, tts.head, AdapterSettings.model_validate(values))


@pytest.mark.parametrize("reader", ["table", "lora"])
def test_a_merged_release_speaks_as_the_adapted_one(
    reader: str, tiny_release: Release, tmp_path: Path
) -> None:
    folder = write_drawn(tmp_path / "adapter", tiny_release, reader)
    out = tmp_path / "merged"
    done = merge_adapter(read_adapter(folder), tiny_release, out)
    merged = Release.open(out)
    adapted, base, made = TTS.load(tiny_release, adapter=folder), TTS.load(tiny_release), None
    made = TTS.load(merged)
    codes_KT = codes(tiny_release, 9)
    shifted_TK = codes_KT.T + 2
    states = []
    for tts, release in ((adapted, tiny_release), (made, merged), (base, tiny_release)):
        stored_ND = embed_codes(codes_KT, load_table(release), codebook_offsets(tts.params))
        voice_ND = tts.adapted(stored_ND, codes_KT)
        with torch.inference_mode():
            states.append(hidden_states(tts, voice_ND, "we go", shifted_TK))
    near, far = ((states[i] - states[0]).norm() / states[0].norm() for i in (1, 2))
    assert near < 0.02 < 0.1 < far  # bf16 rounds the merged weights
    changed = set(done.changed)
    assert all(0 < lost < 0.1 for lost in done.changed.values())
    assert done.proved == len(tiny_release.files.tensors) - len(changed)
    for name in tiny_release.files.tensors:
        same = torch.equal(tiny_release.files.load(name), merged.files.load(name))
        assert same == (name not in changed), name
    for name in preset_names(merged):
        assert torch.equal(load_preset(merged, name), load_preset(tiny_release, name))
    with pytest.raises(ReleaseError, match="has an adapter merged into it already"):
        merge_adapter(read_adapter(folder), merged, tmp_path / "again")
    with pytest.raises(ReleaseError, match="has an adapter merged into it already"):
        TTS.load(merged, adapter=folder)
    assert not (tmp_path / "again").exists()


def test_the_merge_of_a_voice_reader_is_refused(tiny_release: Release, tmp_path: Path) -> None:
    folder = write_drawn(tmp_path / "adapter", tiny_release, "voice")
    with pytest.raises(UsageError, match="which no weights of a release hold"):
        merge_adapter(read_adapter(folder), tiny_release, tmp_path / "out")


def test_another_base_is_refused(tiny_release: Release, tmp_path: Path) -> None:
    folder = write_drawn(tmp_path / "adapter", tiny_release, "lora")
    name = "layers.1.feed_forward.w2.weight"
    assert name in expected_tensors(tiny_params())
    other = Release.open(write_relative(tmp_path / "other", tiny_release.path, (name,)))
    with pytest.raises(ReleaseError, match="was trained on another base"):
        TTS.load(other, adapter=folder)


def test_commands_take_show_and_merge_adapters(
    command: Command, tiny_release: Release, tmp_path: Path
) -> None:
    model = tiny_release.path
    folder = write_drawn(
        tmp_path / "adapter", tiny_release, "lora", passed=False, lost=["preset/wer is 0.9."],
        metrics={"clone/wer": 0.3, "base/clone/wer": 0.5}, data={"clips": 7},
    )  # fmt: skip
    sounds = [tmp_path / f"{name}.wav" for name in ("with", "without")]
    given = ["--voice", "anna", "--model", model, "--seed", 1]
    code, out, _ = command("speak", "a", *given, "-o", sounds[0], "--adapter", folder)
    assert code == 0 and "failed its gate: preset/wer is 0.9." in out
    assert command("speak", "a", *given, "-o", sounds[1])[0] == 0
    assert sounds[0].read_bytes() != sounds[1].read_bytes()
    code, out, _ = command("inspect", "--model", model, "--adapter", folder)
    assert code == 0 and "FAILED" in out and "0.500 -> 0.300" in out and '"clips": 7' in out
    code, out, _ = command("merge", folder, "--model", model, "-o", tmp_path / "merged")
    assert code == 0 and "tensors are those of" in out
    code, out, _ = command("inspect", "--model", tmp_path / "merged")
    assert "merged adapter" in out
    code, _, error = command("merge", folder, "--model", tmp_path / "merged", "-o", tmp_path / "x")
    assert code == 1 and "already" in sentence(error)
    clone = ["clone", Path("examples/reference.flac"), "a", "-o", tmp_path / "c.wav"]
    code, _, error = command(*clone, "--model", model, "--adapter", folder)
    assert code == 1 and "the codes of another encoder" in sentence(error)
    enroll = ["enroll", Path("examples/reference.flac"), "--name", "x", "--consent", "self"]
    code, _, error = command(
        *enroll, "--statement", "Me.", "--model", model, "--adapter", folder, "-o",
        tmp_path / "x.voice.safetensors",
    )  # fmt: skip
    assert code == 2 and "--select-by gain" in sentence(error)

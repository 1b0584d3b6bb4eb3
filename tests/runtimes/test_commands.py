"""`voxclone export` and `voxclone verify`: what they print and how they end."""

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.helpers.command import Command, sentence
from tests.helpers.tiny_release import tiny_params
from tests.runtimes.conftest import World, make_world
from voxclone.runtimes.table import RUNTIMES

PAGE = Path(__file__).parents[2] / "docs" / "RUNTIMES.md"


def test_export_then_verify(tiny: World, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    model = tiny.release.path
    code, printed, _ = command("export", tiny.file, "--to", "vllm-omni", model, out)
    assert code == 0
    for word in ("dora: 41 rows, bit for bit", f"Wrote      {out}", f"vllm serve {out} --omni"):
        assert word in printed, word
    code, printed, _ = command("verify", out, "--for", "vllm-omni", "--voice", "dora",
        "--like", tiny.file,
    )  # fmt: skip
    assert code == 0 and "41 rows" in printed and "1 of 1 voices would be heard" in printed
    # the presets of the tiny release are random rows, which end with no END row
    code, printed, _ = command("verify", out, "--for", "vllm-omni")
    assert code == 3 and "1 of 4 voices" in printed and "not: anna, bert, carla" in printed


def test_verify_as_json_and_like_another_voice(
    tiny: World, tmp_path: Path, command: Command
) -> None:
    out, model = tmp_path / "voices", tiny.release.path
    command("export", "anna", "--to", "executorch", model, out)
    assert not out.exists()  # it has no END row
    command("export", tiny.file, "--to", "executorch", model, out)
    code, printed, _ = command("verify", out, "--for", "executorch", "--model", model, "--json")
    (voice,) = json.loads(printed)["voices"]
    assert code == 0 and voice["heard"] and voice["rows"] == voice["places"] == 41
    code, printed, _ = command("verify", out, "--for", "executorch", "--model", model,
        "--like", "anna",
    )  # fmt: skip
    assert code == 3 and "not those of the voice 'anna'" in printed


def test_exported_files_carry_name_and_consent(
    tiny: World, tmp_path: Path, command: Command
) -> None:
    for runtime in ("codes", "mlx-voxtral-swift"):
        out = tmp_path / f"{runtime}.safetensors"
        assert command("export", tiny.file, "--to", runtime, tiny.release.path, out)[0] == 0
        with safe_open(out, "pt") as file:
            facts = json.loads(file.metadata()["voxclone"])
        assert facts["name"] == "dora" and facts["consent"]["statement"] == "I agree."


def test_what_an_earlier_run_left_is_named(tiny: World, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "voices"
    for left in (tmp_path / ".voices.12ab.tmp", out / ".voices.34cd.tmp"):
        left.mkdir(parents=True)
    code, printed, _ = command("export", tiny.file, "--to", "executorch", tiny.release.path, out)
    assert code == 0
    for name in (".voices.12ab.tmp", ".voices.34cd.tmp"):
        assert f"{name} is of an interrupted run" in printed


BAD = {
    "unknown runtime": (["export", "VOICE", "--to", "mlx-audo", "MODEL", "OUT"], 2, "'mlx-audio'"),
    "unknown voice": (["export", "ana", "--to", "codes", "MODEL", "OUT"], 1, "'anna'"),
    "no model": (["export", "VOICE", "--to", "codes", "none", "OUT"], 1, "directory"),
    "a preset as codes": (
        ["export", "anna", "--to", "codes", "MODEL", "OUT.safetensors"], 2, "preset"
    ),
    "not heard": (["export", "VOICE", "--to", "voxtral-tts.c", "MODEL", "OUT"], 3, "3072"),
    "nothing to verify": (["verify", "OUT", "--for", "vllm-omni"], 2, "no "),
    "no model for a file": (["verify", "VOICE", "--for", "codes"], 2, "--model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_get_a_sentence(case: str, tiny: World, tmp_path: Path, command: Command) -> None:
    arguments, expected, word = BAD[case]
    places = {"VOICE": tiny.file, "MODEL": tiny.release.path, "OUT": tmp_path / "out"}
    places["OUT.safetensors"] = tmp_path / "out.safetensors"
    code, _, error = command(*[places.get(argument, argument) for argument in arguments])
    assert code == expected
    assert word in sentence(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tekken.json", "params.json", "consolidated.safetensors"])
def test_a_damaged_release_gets_a_sentence(
    name: str, tiny: World, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    command("export", tiny.file, "--to", "vllm-omni", tiny.release.path, out)
    content = (out / name).read_bytes()
    (out / name).unlink()  # a link to the release's own
    (out / name).write_bytes(content[: len(content) // 2])
    code, _, error = command("verify", out, "--for", "vllm-omni")
    assert code == 1 and name in sentence(error)


def test_a_voice_of_another_release_is_refused(
    tiny: World, tmp_path: Path, command: Command
) -> None:
    other = make_world(tmp_path / "other", tiny_params(semantic_codebook_size=120))
    out = tmp_path / "out"
    code, _, error = command("export", tiny.file, "--to", "vllm-omni", other.release.path, out)
    assert code == 1 and "another embedding table" in sentence(error) and not out.exists()


def test_the_page_tells_how_to_use_every_runtime() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, runtime in RUNTIMES.items():
        part = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert part, f"{PAGE} has no section for {name}"
        assert f"--to {name} " in part and "Limits" in part and "Checked" in part, name
        program = re.split(r"[ ,]", runtime.use)[0]
        assert program in part, (name, program)

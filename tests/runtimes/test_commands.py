"""`voxclone export` and `voxclone verify`: what they print and how they end."""

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.helpers.command import Command, sentence
from tests.helpers.tiny_release import tiny_params
from tests.runtimes.conftest import Example, make_example
from voxclone.runtimes.table import RUNTIMES

PAGE = Path(__file__).parents[2] / "docs" / "RUNTIMES.md"


def export_of(world: Example, runtime: str, out: Path) -> tuple[object, ...]:
    model = world.release.path
    return "export", world.file, "--runtime", runtime, "--model", model, "-o", out


def test_export_then_verify(tiny: Example, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    model = tiny.release.path
    code, printed, _ = command(
        "export", tiny.file, "--runtime", "vllm-omni", "--model", model, "-o", out
    )
    assert code == 0
    for word in ("dora: 41 frames, bit for bit", f"Wrote      {out}", f"vllm serve {out} --omni"):
        assert word in printed, word
    code, printed, _ = command("verify", out, "--runtime", "vllm-omni", "--voice", "dora",
        "--like", tiny.file,
    )  # fmt: skip
    assert code == 0 and "41 frames" in printed and "1 of 1 voices would speak" in printed
    # the presets of the tiny release are random and have no END frame
    code, printed, _ = command("verify", out, "--runtime", "vllm-omni")
    assert code == 3 and "1 of 4 voices" in printed and "not: anna, bert, carla" in printed


def test_verify_as_json_and_like_another_voice(
    tiny: Example, tmp_path: Path, command: Command
) -> None:
    out, model = tmp_path / "voices", tiny.release.path
    command("export", "anna", "--runtime", "executorch", "--model", model, "-o", out)
    assert not out.exists()  # it has no END frame
    command("export", tiny.file, "--runtime", "executorch", "--model", model, "-o", out)
    code, printed, _ = command("verify", out, "--runtime", "executorch", "--model", model, "--json")
    (voice,) = json.loads(printed)["voices"]
    assert code == 0 and voice["usable"] and voice["frames"] == voice["positions"] == 41
    code, printed, _ = command("verify", out, "--runtime", "executorch", "--model", model,
        "--like", "anna",
    )  # fmt: skip
    assert code == 3 and "not that of the voice 'anna'" in printed


def test_exported_files_carry_name_and_consent(
    tiny: Example, tmp_path: Path, command: Command
) -> None:
    for runtime in ("codes", "mlx-voxtral-swift"):
        out = tmp_path / f"{runtime}.safetensors"
        assert command(*export_of(tiny, runtime, out))[0] == 0
        with safe_open(out, "pt") as file:
            facts = json.loads(file.metadata()["voxclone"])
        assert facts["name"] == "dora" and facts["consent"]["statement"] == "I agree."


def test_what_an_earlier_run_left_is_named(tiny: Example, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "voices"
    for left in (tmp_path / ".voices.12ab.tmp", out / ".voices.34cd.tmp"):
        left.mkdir(parents=True)
    code, printed, _ = command(*export_of(tiny, "executorch", out))
    assert code == 0
    for name in (".voices.12ab.tmp", ".voices.34cd.tmp"):
        assert f"{name} is of an interrupted run" in printed


TO = ("--model", "MODEL", "-o", "OUT")
BAD = {
    "unknown runtime": (["export", "VOICE", "--runtime", "mlx-audo", *TO], 2, "'mlx-audio'"),
    "unknown voice": (["export", "ana", "--runtime", "codes", *TO], 1, "'anna'"),
    "no model": (["export", "VOICE", "--runtime", "codes", "--model", "none", *TO[2:]], 1, "no"),
    "a preset as codes": (
        ["export", "anna", "--runtime", "codes", *TO[:-1], "OUT.safetensors"], 2, "preset"
    ),
    "not usable": (["export", "VOICE", "--runtime", "voxtral-tts.c", *TO], 3, "3072"),
    "nothing to verify": (["verify", "OUT", "--runtime", "vllm-omni"], 1, "no "),
    "no model for a file": (["verify", "VOICE", "--runtime", "codes"], 2, "--model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_get_a_sentence(
    case: str, tiny: Example, tmp_path: Path, command: Command
) -> None:
    arguments, expected, word = BAD[case]
    paths = {"VOICE": tiny.file, "MODEL": tiny.release.path, "OUT": tmp_path / "out"}
    paths["OUT.safetensors"] = tmp_path / "out.safetensors"
    code, _, error = command(*[paths.get(argument, argument) for argument in arguments])
    assert code == expected
    assert word in sentence(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tekken.json", "params.json", "consolidated.safetensors"])
def test_a_damaged_release_gets_a_sentence(
    name: str, tiny: Example, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    command(*export_of(tiny, "vllm-omni", out))
    content = (out / name).read_bytes()
    (out / name).unlink()  # a link to the release's own
    (out / name).write_bytes(content[: len(content) // 2])
    code, _, error = command("verify", out, "--runtime", "vllm-omni")
    assert code == 1 and name in sentence(error)


def test_a_voice_of_another_release_is_refused(
    tiny: Example, tmp_path: Path, command: Command
) -> None:
    other = make_example(tmp_path / "other", tiny_params(semantic_codebook_size=120))
    out = tmp_path / "out"
    code, _, error = command(
        "export", tiny.file, "--runtime", "vllm-omni", "--model", other.release.path, "-o", out
    )
    assert code == 1 and "another embedding table" in sentence(error) and not out.exists()


def test_the_page_has_every_runtime() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, runtime in RUNTIMES.items():
        part = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert part, f"{PAGE} has no section for {name}"
        assert f"--runtime {name} " in part and "Limits" in part and "Checked" in part, name
        program = re.split(r"[ ,]", runtime.use)[0]
        assert program in part, (name, program)

"""Exported voices, loaded by the runtimes' own code where that is at hand.

`.runtimes/` at the root of the repository may hold checkouts (or links to them) under the names
below; each test that finds none is skipped and says how to get it. No runtime runs whole but
mlx-audio: of the others it is the code that finds, reads and places a voice.
"""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.mini_release.layout import small_tekken
from tests.release.real_params import REAL
from tests.runtimes.conftest import REAL_WIDTH, Example, make_voice
from voxclone.release.encoder_file import packaged_encoder
from voxclone.release.params import parse_params
from voxclone.release.release import Release, load_preset
from voxclone.release.tensors import expected_tensors
from voxclone.runtimes.containers import read_raw, read_stored
from voxclone.runtimes.export import export_voice
from voxclone.runtimes.table import RUNTIMES
from voxclone.runtimes.verify import RuntimeInput, read_voice
from voxclone.runtimes.writers import write_torch_folder
from voxclone.spec import TABLE
from voxclone.voice.resolve import ResolvedVoice, resolve_preset

pytestmark = pytest.mark.slow

CHECKOUTS = Path(__file__).parents[2] / ".runtimes"
SCRIPTS = Path(__file__).parent / "foreign"
TOOLS = ("inspect_weights", "test_kernels")
GET = {
    "vllm-omni": "pip download --no-deps vllm-omni==0.30.0 and unzip the wheel",
    "mlx": "python -m venv .runtimes/mlx; .runtimes/mlx/bin/pip install 'mlx[cpu]' mlx-audio "
    "'mistral-common[audio]'",
    "Faster-Voxtral-4B-TTS": "git clone https://github.com/Flinlix/Faster-Voxtral-4B-TTS",
    "ComfyUI-FL-VoxtralTTS": "git clone https://github.com/filliptm/ComfyUI-FL-VoxtralTTS",
    "VoxtralTTS-ComfyUI": "git clone https://github.com/sienadrayy/VoxtralTTS-ComfyUI",
    "voxtral_tts_rs": "git clone https://github.com/ybiehl/voxtral_tts_rs",
    "executorch": "git clone https://github.com/pytorch/executorch",
    "voxtral-tts.c": "git clone https://github.com/mudler/voxtral-tts.c",
}


def checkout(name: str) -> Path:
    path = CHECKOUTS / name
    if not path.exists():
        pytest.skip(f"there is no {path}: {GET[name]}")
    return path


def loaded(
    script: str, python: str | Path, source: Path, out: Path, name: str, tmp_path: Path
) -> dict[str, torch.Tensor]:
    """Rows that a runtime's own code puts into the prompt, or loads and then places."""
    result = tmp_path / "result.safetensors"
    done = subprocess.run(
        [str(python), str(SCRIPTS / f"load_{script}.py"), *map(str, (source, out, name, result))],
        capture_output=True, text=True, timeout=280, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return load_file(result)


PYTHON = {
    "vllm_omni": ("vllm-omni", "vllm-omni", None),
    "faster": ("Faster-Voxtral-4B-TTS", "faster-voxtral", None),
    "comfyui_filliptm": ("ComfyUI-FL-VoxtralTTS", "comfyui", "casual_male"),
    "comfyui_sienadrayy": ("VoxtralTTS-ComfyUI", "comfyui", "de_female"),
    "executorch": ("executorch", "executorch", None),
}


@pytest.mark.parametrize("script", PYTHON)
def test_loaders_in_python(script: str, wide: Example, tmp_path: Path) -> None:
    name, runtime, preset = PYTHON[script]
    source, out = checkout(name), tmp_path / "out"
    export_voice(wide.voice, RUNTIMES[runtime], wide.release, out, replace_preset=preset)
    found = loaded(script, sys.executable, source, out, preset or "dora", tmp_path)
    assert torch.equal(found["rows"], wide.voice.embedding_ND)


@pytest.fixture
def mini_voice(tmp_path: Path) -> tuple[Release, ResolvedVoice]:
    release = Release.open("mini")
    return release, make_voice(release, tmp_path / "dora.voice.safetensors", 30)


def test_mlx_audio(mini_voice: tuple[Release, ResolvedVoice], tmp_path: Path) -> None:
    python, out = checkout("mlx") / "bin" / "python", tmp_path / "out"
    release, voice = mini_voice
    export_voice(voice, RUNTIMES["mlx-audio"], release, out)
    for name, rows in (
        ("dora", voice.embedding_ND),
        ("en_male_1", load_preset(release, "en_male_1")),
    ):
        found = loaded("mlx_audio", python, out, out, name, tmp_path)
        assert torch.equal(found["rows"], rows)
        # It adds (row - token) to the token in bf16, which costs the last bits of small numbers.
        error = (found["placed"].float() - rows.float()).abs().max()
        assert len(found["placed"]) == len(rows) and error < 0.02


def test_mlx_audio_speaks_without_the_voice_as_expected(
    mini_voice: tuple[Release, ResolvedVoice], tmp_path: Path
) -> None:
    python, out = checkout("mlx") / "bin" / "python", tmp_path / "out"
    release, voice = mini_voice
    export_voice(voice, RUNTIMES["mlx-audio"], release, out)
    (out / "voice_embedding" / "dora.safetensors").unlink()
    found = loaded("mlx_audio", python, out, out, "dora", tmp_path)
    placed = found.pop("placed")  # 31 times the plain [AUDIO] token
    assert not found and len(placed) == 31 and torch.equal(placed, placed[:1].expand_as(placed))


def test_mlx_audio_refuses_a_codec_encoder(
    mini_voice: tuple[Release, ResolvedVoice], tmp_path: Path
) -> None:
    """Which is why none is exported for it."""
    python, out = checkout("mlx") / "bin" / "python", tmp_path / "out"
    release, voice = mini_voice
    export_voice(voice, RUNTIMES["mlx-audio"], release, out)
    encoder = packaged_encoder(release)
    assert encoder is not None
    shutil.copyfile(encoder, out / "consolidated-encoder.safetensors")
    with pytest.raises(AssertionError, match=r"audio_tokenizer\.input_proj\.conv"):
        loaded("mlx_audio", python, out, out, "dora", tmp_path)


def compiled(tmp_path: Path, compiler: str, source: str, *arguments: str) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    path = tmp_path / f"main.{'c' if compiler == 'cc' else 'cpp'}"
    path.write_text(source)
    program = tmp_path / "program"
    subprocess.run([compiler, "-w", str(path), *arguments, "-o", str(program)], check=True)
    return program


def printed_rows(program: Path, *arguments: object) -> torch.Tensor | None:
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True)
    if done.returncode:
        return None
    return torch.frombuffer(bytearray(done.stdout), dtype=torch.bfloat16).view(-1, REAL_WIDTH)


def both(tmp_path: Path, wide: Example, rows: torch.Tensor) -> dict[str, Path]:
    """The embedding as `.pt` in several ways: as exported, under the file's own name, as a view."""
    write_torch_folder(ResolvedVoice("dora", rows, None), "dora", wide.release, tmp_path)
    torch.save(rows.clone(), tmp_path / "own.pt")
    with (tmp_path / "view.pt").open("wb") as file:
        torch.save(torch.cat([rows, rows])[: len(rows)], file)
    cut = tmp_path / "cut.pt"
    cut.write_bytes((tmp_path / "dora.pt").read_bytes()[:-100])
    return {name: tmp_path / f"{name}.pt" for name in ("dora", "own", "view", "cut")}


def same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


@pytest.mark.parametrize("rows", [2, 10, 11, 41])
def test_voxtral_tts_c(rows: int, wide: Example, tmp_path: Path) -> None:
    """Its voice loader, compiled; our reader of its rules says the same of good and bad files."""
    source = checkout("voxtral-tts.c")
    program = compiled(
        tmp_path,
        "cc",
        """#include <stdio.h>
        #include "voxtral_tts.h"
        int tts_verbose = 0;
        int main(int count, char **arguments) {
          tts_voice_t *voice = tts_voice_load(arguments[1]);
          if (!voice) return 1;
          fwrite(voice->codes, 2, (size_t)voice->n_frames * TTS_DEC_DIM, stdout);
          return 0;
        }""",
        f"-I{source}", str(source / "voxtral_tts_voice.c"), "-D_GNU_SOURCE",
        "-ffunction-sections", "-Wl,--gc-sections",
    )  # fmt: skip
    whole = torch.cat([wide.voice.embedding_ND] * 2)[-rows:]
    files = both(tmp_path, wide, whole)
    for name, path in files.items():
        theirs, ours = printed_rows(program, path), read_stored(path, REAL_WIDTH)[0]
        assert same(theirs, ours), name
    assert same(printed_rows(program, files["dora"]), whole if rows > 10 else None)
    doubled = printed_rows(program, files["view"])  # all that is stored, not what is described
    assert same(doubled, torch.cat([whole, whole]) if rows > 5 else None)


RUST = """
    #[macro_use] extern crate tracing;
    mod error {
        #[derive(Debug)] pub enum VoxtralError { VoiceNotFound(String), Inference(String) }
        impl std::fmt::Display for VoxtralError {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                write!(f, "{:?}", self)
            }
        }
        pub type Result<T> = std::result::Result<T, VoxtralError>;
    }
    mod tensor {
        use crate::error::Result;
        use std::{collections::HashMap, path::Path};
        #[derive(Clone, Copy)] pub enum Device { Cpu }
        pub enum DType { Float32 }
        pub struct Tensor(pub String);  // the file that it is of
        impl Tensor {
            pub fn load_pt(path: &Path) -> Result<Tensor> {
                Ok(Tensor(path.display().to_string()))
            }
            pub fn load_safetensors(path: &Path) -> Result<HashMap<String, Tensor>> {
                Ok(HashMap::from([("embedding".to_string(), Tensor::load_pt(path)?)]))
            }
            pub fn to_device(&self, _: Device) -> Tensor { Tensor(self.0.clone()) }
            pub fn to_dtype(&self, _: DType) -> Tensor { Tensor(self.0.clone()) }
            pub fn size(&self) -> Vec<i64> { vec![1, 3072] }
        }
    }
    #[path = "VOICE"] mod voice;
    fn main() {
        let arguments: Vec<String> = std::env::args().collect();
        let folder = std::path::Path::new(&arguments[1]);
        let store = voice::VoiceStore::from_dir(folder, tensor::Device::Cpu).unwrap();
        for name in &arguments[2..] {
            println!("{}", store.get(name).map(|t| t.0.clone()).unwrap_or("none".to_string()));
        }
    }
"""
LOGGING = "#[macro_export] macro_rules! NAME { ($($any:tt)*) => {{ let _ = format!($($any)*); }}; }"


def test_voxtral_tts_rs(wide: Example, tmp_path: Path) -> None:
    """Its choice of the file for a name: src/voice.rs, compiled with tensors that know only where
    they come from."""
    source = checkout("voxtral_tts_rs") / "src" / "voice.rs"
    if shutil.which("rustc") is None:
        pytest.skip("there is no rustc")
    logging = "\n".join(LOGGING.replace("NAME", name) for name in ("warn", "info", "debug"))
    (tmp_path / "tracing.rs").write_text(logging)
    (tmp_path / "main.rs").write_text(RUST.replace("VOICE", str(source)))
    for options in (["--crate-type=rlib", "tracing.rs"], ["-L.", "-o", "program", "main.rs"]):
        command = ["rustc", "--edition=2021", "-Awarnings", *options]
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    out = tmp_path / "out"
    export_voice(wide.voice, RUNTIMES["voxtral_tts_rs"], wide.release, out)
    voices = out / "voice_embedding"
    for name in ("casual_male", "emil"):  # a preset's name is read as .pt, a new one is not
        shutil.copy(voices / "dora.pt", voices / f"{name}.pt")
    names = ("dora", "casual_male", "emil", "Echo", "anna")
    done = subprocess.run(
        [str(tmp_path / "program"), str(out), *names], check=True, capture_output=True, text=True
    )
    theirs = done.stdout.splitlines()
    assert theirs == [
        str(voices / "dora.safetensors"), str(voices / "casual_male.pt"), "none",
        str(voices / "casual_male.pt"), "none",
    ]  # fmt: skip
    given = RuntimeInput.of(RUNTIMES["voxtral_tts_rs"], out, wide.release)
    ours = [read_voice(given, name, None) for name in names]  # `verify` refuses the alias Echo
    assert [each.source if each.frames else "none" for each in ours[:3]] == theirs[:3]
    assert any("casual_male" in problem for problem in ours[3].problems) and ours[4].frames is None


def sparse_release(folder: Path) -> Path:
    """A release of the real size that takes no space: zeros everywhere but in the table."""
    (folder / "voice_embedding").mkdir(parents=True)
    params = parse_params(REAL)
    (folder / "params.json").write_text(json.dumps(REAL))
    tekken = small_tekken(dict.fromkeys(params.voices, 100), special_tokens=1000)
    (folder / "tekken.json").write_text(json.dumps(tekken))
    header, end = {}, 0
    for name, shape in expected_tensors(params).items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(header[TABLE]["shape"], generator=generator).bfloat16()
    with (folder / "consolidated.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        file.seek(8 + len(text) + header[TABLE]["data_offsets"][0])
        file.write(table.view(torch.uint8).numpy().data)
    return folder


def output_until(program: list[str], last: str) -> str:
    """What a program prints until a line holds `last`; then it is stopped."""
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as running:
        lines = []
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line)
            if last in line:
                break
        running.kill()
    return "".join(lines)


def test_voxtral_tts_c_itself(tmp_path: Path) -> None:
    """The whole program opens an export of the real size, finds the voice and begins to read it;
    with weights of zeros the speech is silent."""
    source = checkout("voxtral-tts.c")
    files = [str(path) for path in source.glob("*.c") if path.stem not in TOOLS]
    flags = ["-w", "-O1", "-std=c11", "-D_GNU_SOURCE"]
    program = str(tmp_path / "voxtral_tts")
    subprocess.run(["cc", *flags, *files, "-o", program, "-lm"], check=True)
    release = Release.open(sparse_release(tmp_path / "model"))
    voice = make_voice(release, tmp_path / "dora.voice.safetensors", 60)
    out = tmp_path / "out"
    export_voice(voice, RUNTIMES["voxtral-tts.c"], release, out)
    command = [program, "-d", str(out), "--verbose", "-o", str(tmp_path / "out.wav")]
    printed = output_until([*command, "-v", "dora", "Hi."], "Prompt:")
    assert "Voice: dora (61 frames)" in printed and "(61 voice + 3 text)" in printed, printed
    (out / "voice_embedding" / "dora.pt").unlink()
    printed = output_until([*command, "-v", "dora", "Hi."], "Prompt:")
    assert "(0 voice + 3 text)" in printed, printed  # and goes on


def test_executorch_runner(wide: Example, tmp_path: Path) -> None:
    """The runner's two loaders, cut out of its source and compiled."""
    source = checkout("executorch") / "examples/models/voxtral_tts/voxtral_tts_runner.cpp"
    found = re.search(r"\nuint16_t read_u16.*?(?=\n\} // namespace)", source.read_text(), re.S)
    assert found is not None
    program = compiled(
        tmp_path,
        "c++",
        f"""#include <cstdint>
        #include <cstdio>
        #include <cstdlib>
        #include <cstring>
        #include <filesystem>
        #include <fstream>
        #include <string>
        #include <vector>
        {found.group()}
        int main(int count, char **arguments) {{
          std::vector<float> values;
          int64_t rows = 0;
          std::filesystem::path path(arguments[1]);
          bool ok = path.extension() == ".pt"
            ? load_pt_voice_tensor(path, {REAL_WIDTH}, values, rows)
            : load_bin_voice_tensor(path, {REAL_WIDTH}, atoi(arguments[2]), values, rows);
          if (!ok) return 1;
          for (float value : values) fwrite((char *)&value + 2, 2, 1, stdout);
          return 0;
        }}""",
        "-std=c++17",
    )
    export_voice(wide.voice, RUNTIMES["executorch"], wide.release, tmp_path / "out")
    path = tmp_path / "out" / "dora.bin"
    for expected in (41, 147):
        assert same(printed_rows(program, path, expected), wide.voice.embedding_ND)
    assert same(printed_rows(program, path.with_suffix(".pt")), wide.voice.embedding_ND)
    path.write_bytes(path.read_bytes()[: 40 * REAL_WIDTH * 2])  # taken for 20 rows of floats
    theirs, (ours, problems) = printed_rows(program, path, 20), read_raw(path, REAL_WIDTH, (20,))
    assert theirs is not None and ours is not None and len(theirs) == len(ours) == 20 and problems
    path.write_bytes(path.read_bytes()[:-1])
    assert printed_rows(program, path, 41) is None


def test_a_preset_of_the_mini_release_reaches_vllm_omni(tmp_path: Path) -> None:
    source, out = checkout("vllm-omni"), tmp_path / "out"
    release = Release.open("mini")
    voice = resolve_preset("en_male_1", release)
    export_voice(voice, RUNTIMES["vllm-omni"], release, out, name="him")
    found = loaded("vllm_omni", sys.executable, source, out, "him", tmp_path)
    assert torch.equal(found["rows"], voice.embedding_ND)

"""Rules that hold for the whole source tree, read from its syntax trees."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "voxclone"
FILES = sorted(SOURCE.rglob("*.py"))

FACES = ("__main__.py", *(path.name for path in SOURCE.glob("cli*.py")))
MAY_IMPORT = {
    "": set(),
    "audio": {""},
    "data": {"", "audio", "release"},
    "release": {"", "codec"},
    "codec": {""},
    "voice": {"", "release", "codec"},
    "speech": {"", "release", "codec", "voice"},
    "runtimes": {"", "audio", "release", "codec", "voice", "speech"},
    "evaluate": {"", "audio", "release", "codec", "voice", "speech"},
    "cloning": {"", "audio", "release", "codec", "voice", "speech", "evaluate"},
    "train": {"", "audio", "release", "codec", "voice", "speech", "evaluate", "cloning"},
}
MAY_IMPORT["mini"] = set(MAY_IMPORT) | {"train"}
MAY_IMPORT["faces"] = set(MAY_IMPORT)


def room(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    if len(parts) == 1:
        return "faces" if parts[0] in FACES else ""
    return parts[0]


def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append((node.module or "", node.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    own = room(path)
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "voxclone" or len(parts) == 1:
            continue
        target = parts[1] if (SOURCE / parts[1]).is_dir() else ""
        if target == "" and f"{parts[1]}.py" in FACES:
            target = "faces"
        allowed = MAY_IMPORT[own] | {own}
        assert target in allowed, f"{path.name}:{line}: {own or 'root'} may not import {module}"


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "tarfile"}
FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"),
    ("yaml", "load"),
    ("os", "environ"),
    ("os", "getenv"),
    ("os", "system"),
    ("random", "random"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_executed_or_read_from_the_environment(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for module, line in imports(path):
        assert module.split(".")[0] not in FORBIDDEN_MODULES, f"{path}:{line}: {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, f"{path}:{node.lineno}: {node.func.id}"
            for keyword in node.keywords:
                value = keyword.value
                true = isinstance(value, ast.Constant) and value.value is True
                dangerous = keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                assert not (dangerous and true), f"{path}:{node.lineno}: {keyword.arg}=True"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            assert pair not in FORBIDDEN_ATTRIBUTES, f"{path}:{node.lineno}: {'.'.join(pair)}"


def test_no_training_code_knows_where_the_oracle_is() -> None:
    """The put-aside encoder is for evaluation: nothing that trains names its folder, and nothing
    under `train` or `cloning` can import the module that opens it."""
    opener = "voxclone.mini.oracle"
    for path in FILES:
        if room(path) in ("mini", "faces"):
            continue
        names = [module for module, _ in imports(path)]
        assert not any(name.startswith(opener) for name in names), path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_path = "/" in node.value or "assets" in node.value
                assert not (is_path and re.search(r"oracle/|assets/oracle", node.value)), path


def test_modules_stay_small() -> None:
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    large = {str(p.relative_to(SOURCE)): n for p, n in sizes.items() if n > 400}
    assert not large, f"over 400 lines: {large}"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['voxclone', '--help']\n"
        "from voxclone.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    # 0.3 s is the promise; a shared machine is given four times that before this fails.
    assert min(times) < 1.2, times

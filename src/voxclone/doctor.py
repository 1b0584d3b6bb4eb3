"""What this machine lacks for cloning and recovery: what each missing thing prevents, and the one
command that mends it."""

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxclone.errors import VoxcloneError, shorten

PYTHON = (3, 11)
TRAINING_BYTES = 22e9
"""Of a GPU for `voxtral_4b.yaml`, which is planned with 19.5 GB (docs/PERFORMANCE.md). A card of
24 GB says that it has between 23 and 25.7."""
DISK_BYTES = 20e9
"""The release (8 GB), checkpoints, and prepared speech of a hundred hours."""
HUB_MODEL = "mistralai/Voxtral-4B-TTS-2603"
DRIVER = Path("/proc/driver/nvidia/version")
NOT_LOGGED_IN = ("nobody is logged in", "hf auth login")
TERMS = ("its terms are not accepted yet", f"open https://huggingface.co/{HUB_MODEL}")
FETCHED_ELSEWHERE = "voxclone recover --model FOLDER ..., with a release fetched elsewhere"

EXTRAS = {
    "speech": (("transformers", "mistral_common"), "speaking, cloning and every training"),
    "media": (("av",), "M4A, WebM, MP4 and other recordings of phones and browsers"),
    "train": (("tensorboard",), "curves and spectrograms of a training in TensorBoard"),
    "adapter": (("peft",), "`voxclone train adapter`, `merge`, and speech with an adapter"),
    "data": (("lhotse",), "LibriTTS-R, LibriSpeech, Common Voice and VCTK (`--corpus`)"),
    "eval": (("pystoi", "pesq", "pocketsphinx", "onnxruntime"), "STOI, PESQ, DNSMOS"),
    "serve": (("fastapi", "uvicorn", "multipart"), "`voxclone serve`"),
}
"""Packages of each extra, and what it is for."""
NEEDED_EXTRA = "speech"


@dataclass(frozen=True)
class Finding:
    """Something that was looked at: whether it is all right, and if not, what that prevents and the
    command that mends it. Without what is `needed`, nothing works."""

    name: str
    ok: bool
    found: str
    prevents: str = ""
    mend: str = ""
    needed: bool = False


def examine(model: str | None, place: Path) -> list[Finding]:
    """Look at Python, torch, GPU, the disk at `place`, extras, the Hub, and a release, if one is
    named."""
    found = [_python(), *_torch(), _disk(place), *_extras(), _hub()]
    return found if model is None else [*found, *_release(model)]


def _python() -> Finding:
    version = platform.python_version()
    return Finding(
        "Python", sys.version_info >= PYTHON, version, "everything",
        "python3.11 -m venv .venv", needed=True,
    )  # fmt: skip


def _torch() -> Iterator[Finding]:
    """Torch's build against the driver, and the GPU's memory against the plan."""
    if importlib.util.find_spec("torch") is None:
        yield Finding(
            "torch", False, "not installed", "everything", "pip install torch", needed=True
        )
        return
    import torch

    build = torch.version.cuda
    driver = DRIVER.is_file() or shutil.which("nvidia-smi") is not None
    name = f"{torch.__version__}, {f'built for CUDA {build}' if build else 'built without CUDA'}"
    if torch.cuda.is_available():
        yield Finding("torch", True, name)
        memory = torch.cuda.get_device_properties(0).total_memory
        yield Finding(
            "GPU", memory >= TRAINING_BYTES, f"{torch.cuda.get_device_name(0)}, "
            f"{memory / 1e9:.0f} GB", "a training at the real size as it is planned",
            "voxclone recover ... --set run.micro_batches=2",
        )  # fmt: skip
        return
    if driver and build is None:
        why, mend = "there is a GPU, and this torch cannot use it", "pip install -U torch"
    elif driver:
        why, mend = "the driver does not go with this torch", "update the driver of the GPU"
    else:
        why, mend = "there is no GPU", "rent or use a machine with a GPU of 24 GB"
    yield Finding(
        "torch", not driver, name, "the use of the GPU", mend
    )  # fmt: skip
    yield Finding("GPU", False, why, "a training at the real size in days", mend)


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    return Finding(
        "disk", free >= DISK_BYTES, f"{free / 1e9:.0f} GB free in {place.absolute()}",
        f"a recovery at the real size, which takes up to {DISK_BYTES / 1e9:.0f} GB",
        "voxclone recover ... -o FOLDER_ON_A_LARGER_DISK",
    )  # fmt: skip


def _extras() -> Iterator[Finding]:
    for name, (packages, purpose) in EXTRAS.items():
        absent = [each for each in packages if importlib.util.find_spec(each) is None]
        found = f"without {', '.join(absent)}" if absent else "installed"
        yield Finding(
            f"extra {name}", not absent, found, purpose, f"pip install 'voxclone[{name}]'",
            needed=name == NEEDED_EXTRA,
        )  # fmt: skip


def _hub() -> Finding:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    prevents = f"`--model {HUB_MODEL}`; a folder of the release works without"
    try:
        HfApi().auth_check(HUB_MODEL)
    except LocalTokenNotFoundError:
        why, mend = NOT_LOGGED_IN
    except HfHubHTTPError as error:
        status = error.response.status_code
        why, mend = {401: NOT_LOGGED_IN, 403: TERMS}.get(
            status, (f"the Hub answered {status}", FETCHED_ELSEWHERE)
        )
    except Exception as error:  # the client passes on errors of several network libraries
        why, mend = f"the Hub cannot be reached ({type(error).__name__})", FETCHED_ELSEWHERE
    else:
        return Finding("hub", True, f"{HUB_MODEL} can be fetched")
    return Finding("hub", False, f"{HUB_MODEL} cannot be fetched: {why}", prevents, mend)


def _release(model: str) -> Iterator[Finding]:
    from voxclone.release.encoder_file import packaged_encoder
    from voxclone.release.inspection import ENCODER_HINTS, inspect_release
    from voxclone.release.release import Release

    prevents, mend = "everything with this release", f"hf download {HUB_MODEL} --local-dir FOLDER"
    try:
        release = Release.open(model)
        found, packaged = inspect_release(release), packaged_encoder(release)
    except VoxcloneError as error:
        yield Finding("release", False, str(error), prevents, mend, needed=True)
        return
    size = sum(found.bytes.values()) / 1e9
    for problem in found.problems:
        yield Finding("release", False, shorten(problem), prevents, mend, needed=True)
    yield Finding("release", not found.problems, f"{found.path}: {size:.2f} GB, "
                  f"{len(found.voices)} presets", prevents, mend)  # fmt: skip
    state = f"{found.encoder}{ENCODER_HINTS[found.encoder]}"
    if packaged is not None:
        state = f"{found.encoder}; {packaged.name} of the package is for it"
    yield Finding(
        "encoder", found.encoder == "complete" or packaged is not None, state, "cloning",
        f"voxclone recover --model {model} --speech SPEECH -o RUN",
    )  # fmt: skip

"""Files are whole or not there, and an error of the disk names the file."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.command import Command, sentence
from tests.helpers.disk import files_of_at_most
from voxclone.data.labels import Label, save_labels
from voxclone.data.pairs import save_pairs
from voxclone.io import atomic_file

LABEL = Label(torch.zeros(500, 1), torch.zeros(500, 1))


def write_bytes(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(bytes(5000))


@pytest.mark.parametrize(
    "write",
    [
        write_bytes,
        lambda path: save_pairs([torch.zeros(37, 400)], path),
        lambda path: save_labels(path, {0: LABEL}, "clips"),
    ],
)
def test_a_full_disk_names_the_file_and_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    with files_of_at_most(1000), pytest.raises(OSError, match="large") as caught:
        write(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert not list(tmp_path.iterdir())
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_says_which_file_and_why(
    manifest: Path, tmp_path: Path, command: Command
) -> None:
    """Speech is packed first, into a file of more than 20 kB."""
    config = tmp_path / "config.yaml"
    config.write_text("run: {steps: 1}")
    with files_of_at_most(20_000):
        code, _, error = command(
            "train", "encoder", config, "--speech", manifest, "--init", "fresh", "-o",
            tmp_path / "out", "--device", "cpu",
        )  # fmt: skip
    assert code == 1 and "samples.i16 cannot be read or written: " in sentence(error)

"""One thread in all tests: the tensors are tiny, and waiting for a second thread takes longer than
the sums."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered between evaluations, and voices, stay out of the home directory."""
    folder = tmp_path_factory.getbasetemp()
    monkeypatch.setattr("voxclone.evaluate.cache.default_folder", lambda: folder / "heard")
    monkeypatch.setattr("voxclone.voice.store.default_folder", lambda: folder / "voices")

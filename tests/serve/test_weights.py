"""`voxclone serve --weights`: the model that requests reach has packed matrices."""

from typing import Any

import pytest

import voxclone.serve.app
import voxclone.serve.run
from tests.helpers.command import make_command
from tests.tts.test_quantized import packed_layers
from voxclone.release.release import Release
from voxclone.serve.engine import Engine


@pytest.mark.parametrize("weights", [None, "int8"])
def test_the_server_loads_what_is_asked_for(
    weights: str | None,
    release: Release,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[Engine] = []
    monkeypatch.setattr(
        voxclone.serve.app, "build_app", lambda settings, catalog, load: loaded.append(load())
    )
    monkeypatch.setattr(voxclone.serve.run, "run", lambda *parts, **options: None)
    given = ["--weights", weights] if weights else []
    command = make_command(capsys, monkeypatch)
    code, _, error = command(
        "serve", release.path, "--port", 0, "--voices", tmp_path, "--device", "cpu", *given
    )
    assert code == 0, error
    (engine,) = loaded
    assert bool(list(packed_layers(engine.tts.backbone))) == (weights is not None)

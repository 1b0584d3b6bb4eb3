"""The command that serves a release over HTTP. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Quiet,
    UseWeights,
    Voices,
    chosen_weights,
    voices_folder,
)
from voxclone.errors import UsageError

Place = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(metavar="MODEL", help="Release, as `--model` names it."),
]
NamedModel = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", help="Release: a directory, a Hub id, or mini (default)."),
]
Host = Annotated[str, typer.Option(help="Address to bind; others than 127.0.0.1 need a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one.")]
Key = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--api-key", help="Key that clients must send as a bearer token."),
]
KeyFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--api-key-file", help="File that holds the key."),
]
Origins = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--cors-origin",
        help="Other page that may use the server, as scheme://host[:port]. May be repeated.",
    ),
]
Queue = Annotated[int, typer.Option(help="Requests that may wait; further ones get a 429.")]


def serve(
    model: Place = None,
    named_model: NamedModel = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Key = None,
    api_key_file: KeyFile = None,
    cors_origin: Origins = None,
    voices: Voices = None,
    encoder: Encoder = None,
    device: Device = "auto",
    weights: UseWeights = None,
    queue: Queue = 32,
    quiet: Quiet = False,
) -> None:
    """Serve OpenAI's speech API, the stored voices, and a page that clones voices."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        from voxclone.errors import MissingExtraError

        raise MissingExtraError(error.name or "fastapi", "serve", "The server") from None
    from voxclone.device import pick_device
    from voxclone.release.release import MINI, Release
    from voxclone.serve.catalog import Catalog
    from voxclone.serve.run import address, open_socket, run
    from voxclone.serve.settings import (
        Limits,
        ServeSettings,
        check_exposure,
        check_origins,
        check_paths,
    )
    from voxclone.voice.store import open_folder

    if queue < 1:
        raise UsageError(f"--queue is {queue}: at least 1 request must be able to wait.")
    if model is not None and named_model is not None:
        raise UsageError("Name the release once: as MODEL or by --model.")
    model = next((each for each in (model, named_model) if each is not None), MINI)
    key = _key(api_key, api_key_file)
    check_exposure(host, key)
    check_origins(cors_origin or ())
    # Whole paths alone can be found in messages and left out of what clients are told.
    given = Path(model).resolve() if model != MINI and Path(model).is_dir() else None
    release = Release.open(given or model)
    folder = voices_folder(voices).resolve()
    check_paths(release.path, folder)
    settings = ServeSettings(
        model=given.name if given else model,
        voices=open_folder(folder),
        host=host,
        api_key=key,
        origins=tuple(cors_origin or ()),
        limits=Limits(queue=queue),
    )
    catalog = Catalog(release, settings, encoder)
    listening = open_socket(host, port)
    found_device = pick_device(device)
    packed = chosen_weights(weights, found_device)
    if not quiet:
        print(f"Loading    {release.path} for {address(settings, listening)}", flush=True)
        if catalog.why_not_clone is not None:
            print(f"No cloning {catalog.why_not_clone}", flush=True)

    from voxclone.serve.app import build_app  # and with it PyTorch

    def load() -> object:
        from voxclone.device import limit_threads
        from voxclone.serve.engine import Engine

        limit_threads(release.parameters)
        return Engine.load(catalog, found_device, packed)

    run(build_app(settings, catalog, load), settings, listening, quiet=quiet)


def _key(key: str | None, file: Path | None) -> str | None:
    """The API key, from the command line or a file. Raises UsageError."""
    if file is None:
        return key
    if key is not None:
        raise UsageError("Give either --api-key or --api-key-file.")
    from voxclone.readers import read_text

    return read_text(file, UsageError, "The key in").strip()

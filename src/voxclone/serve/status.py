"""Models, health, metrics, and the page."""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST

from voxclone.serve.errors import ApiError, model_not_found
from voxclone.serve.schemas import Health, ModelInfo, ModelList, error_responses
from voxclone.serve.service import Service, Shared
from voxclone.tts.text import MAX_CHARACTERS

router = APIRouter()
PAGE = Path(str(resources.files("voxclone.serve"))) / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@router.get("/v1/models")
async def models(service: Shared) -> ModelList:
    """The one model that is here."""
    return ModelList(data=[model_info(service)])


@router.get("/v1/models/{model:path}", responses=error_responses(404))
async def model(model: str, service: Shared) -> ModelInfo:
    """The model by its name."""
    if model != service.settings.model:
        raise model_not_found(model, service.settings.model)
    return model_info(service)


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health() -> Health:
    """Whether the server answers."""
    return Health(status="ok")


@router.get("/ready", responses=error_responses(503))
@router.head("/ready", include_in_schema=False)
async def ready(service: Shared) -> Health:
    """Whether the model is loaded: 503 before."""
    service.worker.require_ready()
    return Health(status="ready")


@router.get("/metrics", response_class=Response)
async def metrics(service: Shared) -> Response:
    """Metrics for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", response_class=FileResponse, include_in_schema=False)
@router.head("/", include_in_schema=False)
async def page() -> FileResponse:
    return _file("index.html", {"Content-Security-Policy": POLICY})


@router.get("/page/{name}", response_class=FileResponse, include_in_schema=False)
async def page_file(name: str) -> FileResponse:
    if name not in {path.name for path in PAGE.iterdir()}:
        raise ApiError(404, "There is no such file.", code="not_found")
    return _file(name, {})


def model_info(service: Service) -> ModelInfo:
    """The release as a model."""
    release, why_not = service.catalog.release, service.catalog.why_not_clone
    return ModelInfo(
        id=service.settings.model,
        created=int((release.path / "params.json").stat().st_mtime),
        sampling_rate=release.params.codec.sampling_rate,
        max_characters=MAX_CHARACTERS,
        max_upload_bytes=service.settings.limits.upload_bytes,
        can_clone=why_not is None,
        why_not=why_not,
    )


def _file(name: str, headers: dict[str, str]) -> FileResponse:
    """A file of the page; browsers ask each time whether it has changed."""
    return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache", **headers})

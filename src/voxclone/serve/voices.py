"""`/v1/audio/voices`: list, make, import, rename, delete, compare and export voices."""

from collections.abc import AsyncIterator
from typing import Any

import torch
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from voxclone.audio.files import Recording
from voxclone.cloning.options import CONSENTS, check_consent
from voxclone.errors import StorageError, UsageError
from voxclone.readers import read_bytes
from voxclone.runtimes.archive import WORDS, Archive, use_of
from voxclone.runtimes.export import check_name as check_export_name
from voxclone.runtimes.readers import PRESETS
from voxclone.runtimes.table import RUNTIMES, find_runtime
from voxclone.serve import events
from voxclone.serve.encoding import pcm16, wave_header
from voxclone.serve.engine import Engine, NewVoice
from voxclone.serve.errors import ApiError, invalid_value, refused
from voxclone.serve.forms import Form, read_form
from voxclone.serve.jobs import Progress, Result
from voxclone.serve.results import JobResults
from voxclone.serve.schemas import (
    ClipReport,
    RuntimeInfo,
    RuntimeList,
    Similarity,
    VoiceChange,
    VoiceDeleted,
    VoiceInfo,
    VoiceList,
    VoiceMade,
    error_responses,
)
from voxclone.serve.service import JobStreamingResponse, Service, Shared
from voxclone.voice.metadata import check_name

router = APIRouter(prefix="/v1/audio")

FIELDS = (
    "name", "consent", "statement", "ref_text", "speaker_description", "stream_format", "type"
)  # fmt: skip


def form_schema(files: dict[str, str], fields: dict[str, str], *needed: str) -> dict[str, Any]:
    """The OpenAPI description of a form."""
    texts = {name: {"type": "string", "description": text} for name, text in fields.items()}
    binaries = {
        name: {"type": "string", "format": "binary", "description": text}
        for name, text in files.items()
    }
    schema = {"type": "object", "properties": binaries | texts, "required": list(needed)}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


CLIP = "One person in WAV, FLAC, Ogg, MP3 or AIFF; M4A, WebM and others with PyAV. 10 to 16 s."
MAKING = form_schema(
    {"audio_sample": CLIP, "voice_file": "A voice file instead: it has its own consent."},
    {
        "name": "a-z, 0-9, - and _; the voice file's own if not given.",
        "consent": "Who allows it: self, written, public-domain or synthetic.",
        "statement": "The speaker's consent, or the origin, in words.",
        "ref_text": "What the recording says; it is kept, and nothing needs it.",
        "speaker_description": "Any words, which are kept.",
        "stream_format": "`sse`: send the stages as events.",
        "type": "audio_sample",
    },
)


@router.get("/voices")
def list_voices(service: Shared) -> VoiceList:
    """Presets and stored voices."""
    service.worker.require_ready()
    return service.catalog.list()


@router.get("/runtimes")
async def list_runtimes(service: Shared) -> RuntimeList:
    """Programs that voices are exported for."""
    found = [
        RuntimeInfo(
            name=each.name,
            presets_only=each.presets_only,
            download=each.suffix if each.input == "file" else ".zip",
            reads=each.reads,
            use=use_of(each, "FILE", "NAME"),
        )
        for each in RUNTIMES.values()
    ]
    return RuntimeList(runtimes=found, presets=list(PRESETS))


@router.post("/voices/check", openapi_extra=form_schema({"audio_sample": CLIP}, {}, "audio_sample"))
async def check_clip(request: Request, service: Shared) -> ClipReport:
    """Check a recording without keeping anything of it."""
    with service.worker.reserve() as slot:
        form = await read_form(request, ["audio_sample"])
        recording = await _decoded(form, service)
        return await service.wait(request, slot.run(lambda engine: engine.check(recording)))


@router.post(
    "/voices",
    response_model=VoiceMade,
    openapi_extra=MAKING,
    responses={200: {"content": {events.MEDIA_TYPE: {}}}, **error_responses(409, 501)},
)
async def make_voice(request: Request, service: Shared) -> Any:
    """Make a voice of a recording and store it, or import a voice file."""
    slot = service.worker.reserve()
    try:
        form = await read_form(request, ["audio_sample", "voice_file"], FIELDS)
        stream_format = _one_of(form, "stream_format", "audio", "sse")
        _one_of(form, "type", "audio_sample")
        if form.field == "voice_file":
            if further := sorted(set(form.fields) - {"name"}):
                message = f"A voice file has its own {further[0]!r}: leave the field out."
                raise invalid_value(further[0], message)
            name = _checked_name(form)
            awaited = slot.run(lambda engine: engine.import_voice(form.content, name))
            imported = await service.wait(request, awaited, "voice_file")
            slot.leave()
            return imported
        new = _new_voice(form, service)
        recording = await _decoded(form, service)
        results = slot.begin(lambda engine, progress: engine.enroll(recording, new, progress))
        if stream_format == "sse":
            request_id = request.scope["state"]["request_id"]
            chunks = events.with_error(_stages(results), "voice.error", request_id)
            gone = service.metrics.abandoned.inc
            return JobStreamingResponse(chunks, slot, events.MEDIA_TYPE, events.HEADERS, gone)
        made = await service.wait(request, _result(results))
        slot.leave()
        return made
    except BaseException:
        slot.leave()
        raise


@router.get("/voices/{name}", responses=error_responses(404))
def show_voice(name: str, service: Shared) -> VoiceInfo:
    """What a stored voice says of itself."""
    with refused("name"):
        return service.catalog.info(name)


@router.patch("/voices/{name}", responses=error_responses(404, 409))
async def rename_voice(
    name: str, change: VoiceChange, request: Request, service: Shared
) -> VoiceMade:
    """Give a stored voice another name."""
    return await service.ask(request, lambda engine: engine.rename(name, change.name), "name")


@router.delete("/voices/{name}", responses=error_responses(404))
async def delete_voice(name: str, request: Request, service: Shared) -> VoiceDeleted:
    """Delete a stored voice. Nothing of it is kept."""
    await service.ask(request, lambda engine: engine.delete(name), "name")
    return VoiceDeleted(id=name, message=f"Voice {name!r} was deleted.")


@router.get("/voices/{name}/file", response_class=Response, responses=error_responses(404))
def voice_file(name: str, service: Shared) -> Response:
    """The file of a stored voice."""
    with refused("name"), service.catalog.reading(name) as path:
        return _download(read_bytes(path, StorageError), path.name)


@router.get("/voices/{name}/reference", response_class=Response, responses=error_responses(404))
async def voice_reference(name: str, request: Request, service: Shared) -> Response:
    """What the voice keeps of its recording: the decoded codes, as WAV."""
    wave_S = await service.ask(request, lambda engine: engine.reference(name), "name")
    rate = service.worker.model.sampling_rate
    return Response(wave_header(rate, len(wave_S)) + pcm16(wave_S.numpy()), media_type="audio/wav")


@router.post(
    "/voices/{name}/similarity",
    openapi_extra=form_schema({"audio_sample": "Speech to compare."}, {}, "audio_sample"),
    responses=error_responses(404),
)
async def compare(name: str, request: Request, service: Shared) -> Similarity:
    """How alike speech is to a stored voice, beside what recordings of people are."""
    with service.worker.reserve() as slot:
        form = await read_form(request, ["audio_sample"])
        recording = await _decoded(form, service)
        wave_S = torch.from_numpy(recording.wave_S)
        awaited = slot.run(lambda engine: engine.similarity(name, wave_S))
        return await service.wait(request, awaited, "name")


@router.get("/voices/{name}/export", response_class=Response, responses=error_responses(404))
async def export(
    name: str,
    runtime: str,
    request: Request,
    service: Shared,
    replace_preset: str | None = None,
) -> Response:
    """The voice as another program reads it: a file, or a zip with a note on how to use it."""
    with refused("runtime"):
        known = find_runtime(runtime)
    if replace_preset is not None:
        with refused("replace_preset"):
            release = service.catalog.release
            check_export_name(replace_preset, known, release, WORDS, replaces=True)

    def pack(engine: Engine) -> Archive:
        return engine.export(name, known, replace_preset)

    archive = await service.ask(request, pack, "name")
    return _download(archive.content, archive.file_name)


def _new_voice(form: Form, service: Service) -> NewVoice:
    """What a form says of a new voice. Raises ApiError before there is any work."""
    if service.catalog.why_not_clone is not None:
        raise ApiError(501, service.catalog.why_not_clone, code="no_encoder")
    fields = ("'consent'", "'statement'")
    try:
        consent = check_consent(form.get("consent") or None, form.get("statement"), fields)
    except UsageError as error:
        param = "statement" if form.get("consent") in CONSENTS else "consent"
        raise ApiError(400, str(error), code="consent_required", param=param) from None
    with refused("name"):
        service.catalog.free_path(form.get("name"))
    new = NewVoice(form.get("name"), consent, form.get("ref_text"), form.get("speaker_description"))
    for field, text, most in (
        ("ref_text", new.transcript, 4096),
        ("speaker_description", new.description, 1000),
    ):
        if len(text) > most:
            message = f"{field!r} has {len(text)} characters, and {most} can be kept."
            raise invalid_value(field, message)
    return new


def _checked_name(form: Form) -> str | None:
    """The name that a voice file is to have, or None for its own. Raises ApiError."""
    name = form.get("name") or None
    with refused("name"):
        return None if name is None else check_name(name)


def _one_of(form: Form, field: str, *values: str) -> str:
    """A field with a few values, or none. Raises ApiError."""
    value = form.get(field)
    if value and value not in values:
        raise invalid_value(field, f"{field!r} takes {' or '.join(values)}.")
    return value


async def _decoded(form: Form, service: Service) -> Recording:
    with refused():
        return await run_in_threadpool(service.decoding.decode, form.content, form.name)


async def _result(results: JobResults) -> Any:
    """The return value of a task, whatever its stages."""
    while not isinstance(value := await results.get(), Result):
        pass
    return value.value


async def _stages(results: JobResults) -> AsyncIterator[bytes]:
    """The stages of a voice that is made, and the voice, as events. Raises ApiError."""
    with refused():
        while isinstance(value := await results.get(), Progress):
            yield events.event("voice.progress", {"stage": value.stage})
    yield events.event("voice.done", {"made": value.value.model_dump()})


def _download(content: bytes, name: str) -> Response:
    """A file to be saved; names are of a-z, 0-9, -, _ and dots here, or a preset's."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "_" for letter in name)
    headers = {"Content-Disposition": f'attachment; filename="{plain.replace(chr(34), "_")}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)

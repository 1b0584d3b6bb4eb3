"""`POST /v1/audio/speech`, as OpenAI defines it.

Shapes: S samples.
"""

import base64
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from voxclone.serve import events
from voxclone.serve.encoding import MEDIA_TYPES, Encoder, is_streamed, open_encoder
from voxclone.serve.engine import Engine
from voxclone.serve.errors import ApiError, model_not_found, refused
from voxclone.serve.results import JobResults
from voxclone.serve.schemas import SpeechRequest, error_responses
from voxclone.serve.service import JobStreamingResponse, Service, Shared
from voxclone.tts.streams import SpeechChunk, Utterance
from voxclone.tts.text import check_text

router = APIRouter()


@dataclass
class Spoken:
    """How far a text has been spoken."""

    seed: int
    begun: float
    frames: int = 0
    seconds: float = 0.0
    truncated: int = 0
    text_tokens: int = 0

    def add(self, chunk: SpeechChunk, rate: int) -> np.ndarray:
        """Count a chunk; gives its samples [S]."""
        wave_S: np.ndarray = chunk.joined_wave(rate).numpy()
        self.frames += chunk.codes_KT.shape[-1]
        self.seconds += len(wave_S) / rate
        self.truncated += chunk.truncated
        return wave_S

    def summary(self) -> dict[str, Any]:
        """What `speech.audio.done` says: OpenAI's usage, and what a person may want to know."""
        usage = {
            "input_tokens": self.text_tokens,
            "output_tokens": self.frames,
            "total_tokens": self.text_tokens + self.frames,
        }
        return {"usage": usage, "seed": self.seed, "truncated": self.truncated}


@router.post(
    "/v1/audio/speech",
    response_class=Response,
    responses={
        200: {"content": {kind: {} for kind in (*MEDIA_TYPES.values(), events.MEDIA_TYPE)}},
        **error_responses(404, 501),
    },
)
async def speech(request: Request, wanted: SpeechRequest, service: Shared) -> Response:
    """Say a text with a voice. The answer is sent while it is made, as a file or as events."""
    _check(wanted, service)
    seed = secrets.randbelow(2**31) if wanted.seed is None else wanted.seed
    spoken = Spoken(seed, time.monotonic())
    request.scope["state"]["noted"] = {"characters": len(wanted.input)}
    slot = service.worker.reserve()
    try:
        encoder = _encoder(wanted, service)

        def make(engine: Engine) -> Utterance:
            utterance = engine.utterance(wanted.input, wanted.voice_name, seed, wanted.cfg)
            spoken.text_tokens = engine.text_tokens([part.text for part in utterance.parts])
            return utterance

        results = slot.speak(make, alone=wanted.seed is not None)
        first = await service.wait(request, _until_sound(results))
        rate = service.worker.model.sampling_rate
        service.metrics.first_sound.observe(time.monotonic() - spoken.begun)
        chunks = _encoded(first, results, encoder, spoken, rate, service)
        headers, gone = {"X-Seed": str(seed)}, service.metrics.abandoned.inc
        if wanted.stream_format == "sse":
            request_id = request.scope["state"]["request_id"]
            stream = events.with_error(_events(chunks, spoken), "speech.audio.error", request_id)
            return JobStreamingResponse(
                stream, slot, events.MEDIA_TYPE, headers | events.HEADERS, gone
            )
        media_type = MEDIA_TYPES[wanted.response_format]
        if is_streamed(wanted.response_format):
            return JobStreamingResponse(chunks, slot, media_type, headers, gone)
        whole = await service.wait(request, _joined(chunks))
        slot.leave()
        return Response(whole, media_type=media_type, headers=headers)
    except BaseException:
        slot.leave()
        raise


def _check(wanted: SpeechRequest, service: Service) -> None:
    """Raise ApiError for what cannot be done, by the name of its field."""
    if wanted.model != service.settings.model:
        raise model_not_found(wanted.model, service.settings.model)
    if wanted.speed != 1:
        raise ApiError(
            400,
            f"The speed is {wanted.speed:g}, and this model speaks at its own: leave it at 1.",
            code="unsupported_value",
            param="speed",
        )
    if wanted.instructions is not None and wanted.instructions.strip():
        raise ApiError(
            400,
            "This model takes no instructions: the voice says how a text is spoken.",
            code="unsupported_parameter",
            param="instructions",
        )
    with refused("input"):
        check_text(wanted.input)


def _encoder(wanted: SpeechRequest, service: Service) -> Encoder:
    rate = service.catalog.release.params.codec.sampling_rate
    with refused("response_format"):
        return open_encoder(wanted.response_format, rate)


async def _until_sound(results: JobResults) -> list[SpeechChunk]:
    """The pieces up to the first that is not empty. Raises ApiError where the text ends before."""
    pieces: list[SpeechChunk] = []
    while not pieces or not len(pieces[-1].codes_KT[0]):
        if pieces and pieces[-1].ended:
            raise ApiError(
                500, "The model ended before it spoke: try another seed.", code="no_speech"
            )
        pieces.append(await results.get())
    return pieces


async def _encoded(
    first: list[SpeechChunk],
    results: JobResults,
    encoder: Encoder,
    spoken: Spoken,
    rate: int,
    service: Service,
) -> AsyncIterator[bytes]:
    """The bytes of a text, piece by piece."""
    waiting = list(first)
    ended = False
    while not ended:
        chunk = waiting.pop(0) if waiting else await results.get()
        ended = chunk.ended
        content = encoder.add(spoken.add(chunk, rate))
        if ended:
            content += encoder.finish()
            service.metrics.speech.inc(spoken.seconds)
        if content:
            yield content


async def _events(chunks: AsyncIterator[bytes], spoken: Spoken) -> AsyncIterator[bytes]:
    """The same as events."""
    async for chunk in chunks:
        yield events.event("speech.audio.delta", {"audio": base64.b64encode(chunk).decode()})
    yield events.event("speech.audio.done", spoken.summary())


async def _joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])

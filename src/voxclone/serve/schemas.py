"""What goes over the wire, in the names of OpenAI's speech API and vLLM-Omni's voices API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from voxclone.tts.limits import MAX_CFG, MAX_SEED

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
StreamFormat = Literal["audio", "sse"]
Verdict = Literal["good", "fair", "bad"]


class Strict(BaseModel):
    """What a client sends: unknown fields are named and refused."""

    model_config = ConfigDict(extra="forbid")


class VoiceId(Strict):
    """A voice as OpenAI's custom voices are named."""

    id: str


class SpeechRequest(Strict):
    """`POST /v1/audio/speech`. `speed` and `instructions` are there to be refused by name."""

    model: str
    input: Annotated[str, Field(description="Up to 4,096 characters.")]
    voice: Annotated[str | VoiceId, Field(description="Name of a preset or of a stored voice.")]
    response_format: Format = "mp3"
    speed: Annotated[float, Field(description="Only 1.")] = 1.0
    instructions: Annotated[str | None, Field(description="Refused, unless empty.")] = None
    stream_format: StreamFormat = "audio"
    seed: Annotated[
        int | None, Field(ge=0, le=MAX_SEED, description="Same seed, same speech, bit for bit.")
    ] = None
    cfg: Annotated[
        float, Field(ge=0, le=MAX_CFG, allow_inf_nan=False, description="Guidance of the voice.")
    ] = 1.2

    @field_validator("input")
    @classmethod
    def _is_text(cls, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character (a lone surrogate)") from None
        return text

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id


class VoiceChange(Strict):
    """`PATCH /v1/audio/voices/{name}`: a new name."""

    name: str


class ConsentInfo(BaseModel):
    """Who allowed a voice to be made."""

    kind: str
    statement: str
    date: str


class CheckInfo(BaseModel):
    """One of the six checks of a recording."""

    name: str
    verdict: Verdict
    finding: str
    suggestion: str


class ClipReport(BaseModel):
    """The checks of a recording before a voice is made of it."""

    verdict: Verdict
    checks: list[CheckInfo]
    sentences: list[str]
    used_seconds: float
    start: float
    end: float


class VoiceEntry(BaseModel):
    """A voice in the list, with the keys that Open WebUI and Kokoro's clients look for."""

    id: str
    name: str
    kind: Literal["preset", "stored"]
    problem: str | None = None


class UploadedVoice(BaseModel):
    """A stored voice in the list, with the keys of vLLM-Omni."""

    name: str
    consent: str
    created_at: int
    file_size: int
    mime_type: str = "application/x-safetensors"
    embedding_source: Literal["audio"] = "audio"
    ref_text: str | None = None
    speaker_description: str | None = None


class VoiceList(BaseModel):
    """`GET /v1/audio/voices`."""

    voices: list[VoiceEntry]
    uploaded_voices: list[UploadedVoice]


class VoiceInfo(UploadedVoice):
    """All that a stored voice says of itself. `similarity` is that of its decoded codes to the
    recording, by network."""

    consent_record: ConsentInfo
    license: str
    reference_seconds: float
    reference: list[str]
    similarity: dict[str, float]
    tool: str


class VoiceMade(BaseModel):
    """The answer to a voice that was made, imported or renamed: OpenAI's keys and vLLM-Omni's."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    type: Literal["audio_sample"] = "audio_sample"
    name: str
    created_at: int
    success: Literal[True] = True
    voice: VoiceInfo
    report: ClipReport | None = None


class VoiceDeleted(BaseModel):
    """The answer to `DELETE /v1/audio/voices/{name}`: OpenAI's keys and vLLM-Omni's."""

    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: Literal[True] = True
    success: Literal[True] = True
    message: str


class Similarity(BaseModel):
    """Cosine of speech to a voice's reference, and what the cosine is of recordings."""

    similarity: float
    same_speaker: float
    other_speakers: float
    network: str


class RuntimeInfo(BaseModel):
    """A program that voices are exported for: the kind of file that is downloaded, what the program
    reads of it, and how it speaks with a voice NAME out of a file FILE."""

    name: str
    presets_only: bool
    download: str
    reads: str
    use: str


class RuntimeList(BaseModel):
    """`GET /v1/audio/runtimes`; `presets` are the names that programs with fixed names offer."""

    runtimes: list[RuntimeInfo]
    presets: list[str]


class ModelInfo(BaseModel):
    """The release, as OpenAI lists models, and what a page needs to know of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["voxclone"] = "voxclone"
    sampling_rate: int
    max_characters: int
    max_upload_bytes: int
    can_clone: bool
    why_not: str | None = None


class ModelList(BaseModel):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Health(BaseModel):
    """`GET /health` and `GET /ready`."""

    status: Literal["ok", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """Every answer of 400 and above."""

    error: ErrorDetail


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI description of a route: the errors that it has beside those of all."""
    return {status: {"model": ErrorEnvelope} for status in statuses}

"""How the mini release is made: recogniser, codec, codes, language model; then `publish`.

Each stage writes into a folder of its own under the run and is skipped when it is done, so the
recipe can be interrupted and called again. The recipe trains the codec's encoder itself and has it
in the run's folder; the published copy of it (the oracle) is for evaluation alone.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate.recogniser import Recogniser, RecogniserConfig, normalise_text
from voxclone.release.params import Params, parse_params
from voxclone.release.tekken import small_tekken
from voxclone.settings import Settings
from voxclone.speech.prompt import PromptMaker
from voxclone.train import checkpoint
from voxclone.train.alignment import align, character_places
from voxclone.train.codebank import CodeBank, encode_corpus, variants_of
from voxclone.train.codec import CodecTask, CodecTraining
from voxclone.train.corpus import Clip, Corpus, Subset, pack, read_manifest
from voxclone.train.decoder import DecoderTask, DecoderTraining
from voxclone.train.recogniser import RecogniserTask, RecogniserTraining
from voxclone.train.run import Outcome, RunSettings, Task, fit
from voxclone.train.semantic import teacher_features
from voxclone.train.speech import SpeechData, SpeechTask, SpeechTraining, Transcript

STAGES = ("recogniser", "codec", "decoder", "speech")
SPECIAL_TOKENS = 64
BYTES = 256

ItemT = TypeVar("ItemT")


class LanguageModelSize(Settings):
    """Sizes of the language model and of the acoustic head, which share width and heads."""

    dim: int = 192
    n_layers: int = 6
    head_dim: int = 32
    hidden_dim: int = 512
    n_heads: int = 6
    n_kv_heads: int = 2
    acoustic_layers: int = 3
    acoustic_hidden_dim: int = 512
    max_seq_len: int = 512


class MiniSettings(Settings):
    """Every value of the recipe. `licences` are the only ones trained on."""

    licences: tuple[str, ...]
    recogniser: RecogniserTraining
    codec: CodecConfig
    codec_training: CodecTraining
    decoder_training: DecoderTraining
    speeds: tuple[float, ...] = (1.0, 0.86, 0.93, 1.08, 1.16)
    delays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    language_model: LanguageModelSize = LanguageModelSize()
    speech: SpeechTraining
    presets: dict[str, str]
    preset_seconds: float = 8.0


@dataclass(frozen=True)
class Workshop:
    """A run of the recipe: settings, speech and the folder that everything goes to."""

    settings: MiniSettings
    corpus: Corpus
    folder: Path
    console: Console

    def licensed(self, clip: Clip) -> bool:
        """Whether a clip may be trained on."""
        return clip.licence in self.settings.licences

    def split(self, split: str, *, spoken: bool = False) -> Subset:
        """Licensed clips of a split; with `spoken` only those with a transcript."""
        return self.corpus.subset(
            lambda c: self.licensed(c) and c.split == split and (not spoken or bool(c.text))
        )

    def track(self, what: str) -> Callable[[Iterable[ItemT]], Iterable[ItemT]]:
        """A progress bar for a loop."""
        return lambda items: track(list(items), description=what, console=self.console)


def open_workshop(
    settings: MiniSettings, manifest: Path, folder: Path, console: Console
) -> Workshop:
    """Pack the speech of `manifest` (once) and open the run in `folder`."""
    clips = [clip for clip in read_manifest(manifest) if clip.licence in settings.licences]
    if not clips:
        raise ConfigError(f"No clip of {manifest} has one of the licences {settings.licences}.")
    corpus = pack(
        clips,
        folder / "speech",
        lambda items: track(list(items), description="decoding speech", console=console),
    )
    return Workshop(settings, corpus, folder, console)


def train_recogniser(shop: Workshop) -> Recogniser:
    """Stage 1: characters from speech."""
    settings = shop.settings.recogniser
    task = RecogniserTask.create(
        settings, shop.corpus, shop.split("train", spoken=True), shop.split("valid", spoken=True)
    )
    _fit(shop, task, settings.run, "recogniser", settings.model_dump(mode="json"))
    task.model.eval()
    return task.model.cpu().requires_grad_(False)


def train_codec(shop: Workshop, recogniser: Recogniser) -> None:
    """Stage 2: speech to codes and back."""
    settings, config = shop.settings.codec_training, shop.settings.codec
    teacher = teacher_features(
        recogniser,
        shop.corpus,
        config.frame_size,
        shop.folder / "recogniser",
        shop.track("teacher states"),
    )
    task = CodecTask.create(
        settings, config, shop.corpus, shop.split("train"), shop.split("valid"), teacher
    )
    dumped = settings.model_dump(mode="json") | {"codec": config.model_dump(mode="json")}
    _fit(shop, task, settings.run, "codec", dumped)


def train_decoder(shop: Workshop) -> Codec:
    """Stage 3: the decoder alone goes on; codes stay as they are."""
    settings = shop.settings.decoder_training
    found = _newest(shop, "codec")
    prefix = "module.adversary."
    judges = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
    task = DecoderTask.create(
        settings,
        _codec_of(shop, found),
        judges,
        shop.settings.codec_training.adversary,
        shop.corpus,
        shop.split("train"),
        shop.split("valid"),
    )
    _fit(shop, task, settings.run, "decoder", settings.model_dump(mode="json"))
    return finished_codec(shop)


def train_speech(shop: Workshop, recogniser: Recogniser, codec: Codec) -> SpeechTask:
    """Stage 4: text and voice to codes."""
    settings, params = shop.settings.speech, mini_params(shop.settings, voices={})
    tekken = write_tekken(shop.folder / "tekken.json", voices={})
    prompts = PromptMaker(tekken)
    data = {}
    variants = variants_of(shop.settings.speeds, shop.settings.delays)
    for split, used in (("train", variants), ("valid", variants[:1])):
        subset = shop.split(split, spoken=True)
        bank = encode_corpus(
            codec,
            shop.corpus,
            subset.indices,
            used,
            shop.folder / "codes",
            shop.track(f"codes of {split}"),
        )
        data[split] = speech_data(shop, subset, bank, recogniser, prompts, codec.frame_rate)
    task = SpeechTask.create(settings, params, data["train"], data["valid"], prompts)
    dumped = settings.model_dump(mode="json")
    dumped |= {"size": shop.settings.language_model.model_dump(mode="json")}
    _fit(shop, task, settings.run, "speech", dumped)
    return task


def speech_data(
    shop: Workshop,
    subset: Subset,
    bank: CodeBank,
    recogniser: Recogniser,
    prompts: PromptMaker,
    frame_rate: float,
) -> SpeechData:
    """Transcripts with the time of every text id, for all clips of a subset; made once."""
    path = shop.folder / "codes" / f"times-{len(subset.indices)}-{subset.indices[0]}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        transcripts = {int(k): Transcript(v[0], v[1]) for k, v in stored.items()}
    else:
        transcripts = {}
        for index in shop.track("alignment")(subset.indices):
            text = shop.corpus.clips[index].text or ""
            transcripts[index] = _transcript(shop.corpus, index, text, recogniser, prompts)
        rows = {index: [t.ids, t.seconds] for index, t in transcripts.items()}
        path.write_text(json.dumps(rows), encoding="utf-8")
    return SpeechData(shop.corpus, subset, bank, transcripts, frame_rate, subset.by_speaker())


def mini_params(settings: MiniSettings, voices: dict[str, int]) -> Params:
    """The `params.json` of the mini release."""
    size, codec = settings.language_model, settings.codec
    heads = {"head_dim": size.head_dim, "n_heads": size.n_heads, "n_kv_heads": size.n_kv_heads}
    values = {
        "model_type": "voxtral_tts",
        "dim": size.dim,
        "n_layers": size.n_layers,
        "hidden_dim": size.hidden_dim,
        **heads,
        "rope_theta": 1000000.0,
        "norm_eps": 1e-5,
        "vocab_size": SPECIAL_TOKENS + BYTES,
        "tied_embeddings": True,
        "max_seq_len": size.max_seq_len,
        "max_position_embeddings": size.max_seq_len,
        "multimodal": {
            "bos_token_id": 1,
            "audio_model_args": {
                "semantic_codebook_size": codec.semantic_codebook_size,
                "acoustic_codebook_size": codec.acoustic_codebook_size,
                "n_acoustic_codebook": codec.acoustic_dim,
                "audio_encoding_args": {
                    "num_codebooks": codec.num_codebooks,
                    "sampling_rate": codec.sampling_rate,
                    "frame_rate": codec.frame_rate,
                },
                "audio_token_id": 24,
                "begin_audio_token_id": 25,
                "acoustic_transformer_args": {
                    "input_dim": size.dim,
                    "dim": size.dim,
                    "n_layers": size.acoustic_layers,
                    "hidden_dim": size.acoustic_hidden_dim,
                    **heads,
                },
            },
            "audio_tokenizer_args": codec.model_dump(exclude_none=True) | {"voice": voices},
        },
    }
    return parse_params(values, "the mini release's settings")


def write_tekken(path: Path, voices: dict[str, int]) -> Path:
    """A tokenizer of single bytes, with the rows of each voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = small_tekken(voices, special_tokens=SPECIAL_TOKENS)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def finished_codec(shop: Workshop) -> Codec:
    """The codec of stages 2 and 3, its weights rounded to bf16 as a release stores them."""
    codec = _codec_of(shop, _newest(shop, "codec"))
    prefix = "module.decoder."
    found = _newest(shop, "decoder")
    codec.decoder.load_state_dict(
        {k[len(prefix) :]: _stored(v) for k, v in found.items() if k.startswith(prefix)}
    )
    return codec.eval().requires_grad_(False)


def _codec_of(shop: Workshop, found: dict[str, Tensor]) -> Codec:
    prefix = "module.codec."
    codec = Codec(shop.settings.codec)
    codec.load_state_dict(
        {k[len(prefix) :]: _stored(v) for k, v in found.items() if k.startswith(prefix)}
    )
    return codec


def _stored(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().float()


def _newest(shop: Workshop, stage: str) -> dict[str, Tensor]:
    """Tensors of the newest checkpoint of a stage."""
    found, _ = checkpoint.load_latest(shop.folder / stage / "checkpoints")
    if found is None:
        raise ConfigError(f"{shop.folder} has no checkpoint of the stage {stage}: run it first.")
    return found.tensors


def finished_recogniser(shop: Workshop) -> Recogniser:
    """The recogniser of a finished stage 1."""
    found, _ = checkpoint.load_latest(shop.folder / "recogniser" / "checkpoints")
    if found is None:
        raise ConfigError(f"{shop.folder} has no recogniser yet: run the recogniser stage first.")
    prefix = "module.recogniser."
    state = {k[len(prefix) :]: v for k, v in found.tensors.items() if k.startswith(prefix)}
    config = RecogniserConfig(**found.values["state"]["recogniser"])
    model = Recogniser(config)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def finished_speech(shop: Workshop) -> dict[str, Tensor]:
    """Tensors of a finished stage 3: `backbone.*` and `head.*`."""
    found, _ = checkpoint.load_latest(shop.folder / "speech" / "checkpoints")
    if found is None:
        raise ConfigError(f"{shop.folder} has no language model yet: run the speech stage first.")
    return {
        k.removeprefix("module."): v for k, v in found.tensors.items() if k.startswith("module.")
    }


def _transcript(
    corpus: Corpus, index: int, text: str, recogniser: Recogniser, prompts: PromptMaker
) -> Transcript:
    ids = prompts.text_ids(text)
    normal = normalise_text(text)
    with torch.inference_mode():
        log_probs = recogniser(recogniser.features(corpus.wave(index)[None]))[0].numpy()
    spelled = [(place, code) for place, c in enumerate(normal) for code in recogniser.spell(c)]
    first = align(log_probs, [code for _, code in spelled])
    if first is None or len(ids) != len(text.encode()):
        return Transcript(ids, None)
    places = character_places(text, normal)
    byte_at = np.cumsum([0, *(len(c.encode()) for c in text)])
    seconds = np.full(len(ids), np.nan)
    for (place, _), frame in zip(spelled, first, strict=True):
        seconds[byte_at[places[place]]] = frame / 50.0
    known = ~np.isnan(seconds)
    order = np.arange(len(ids))
    filled = np.maximum.accumulate(np.interp(order, order[known], seconds[known]))
    return Transcript(ids, [round(float(s), 3) for s in filled])


def _fit(
    shop: Workshop, task: Task, run: RunSettings, name: str, config: dict[str, Any]
) -> Outcome:
    outcome = fit(task, run, shop.folder / name, resume=True, config=config, console=shop.console)
    if outcome.reason != "done":
        raise InterruptedRecipe(f"Stage {name} stopped at step {outcome.step} ({outcome.reason}).")
    return outcome


class InterruptedRecipe(ConfigError):
    """A stage was stopped; calling the recipe again goes on from there."""

    exit_code = 5


def run(
    settings: MiniSettings, manifest: Path, folder: Path, console: Console, *, last: str | None
) -> None:
    """All stages in order, or up to `last`."""
    if last is not None and last not in STAGES:
        raise ConfigError(f"There is no stage {last!r}; the stages are {', '.join(STAGES)}.")
    shop = open_workshop(settings, manifest, folder, console)
    recogniser = train_recogniser(shop)
    if last == "recogniser":
        return
    train_codec(shop, recogniser)
    if last == "codec":
        return
    codec = train_decoder(shop)
    if last != "decoder":
        train_speech(shop, recogniser, codec)

"""Where a training of the mini release stands, in two tables that a person can read.

Whisper measures words and a GE2E speaker encoder voices; neither of these networks' outputs is
trained on here. Three sets: test speakers of speechocean762 and of RAVDESS, and clips of a training
speaker that no training reads.

Shapes: S samples, K codebooks, T frames, N clips, E width of an embedding, V voices.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from recipes.mini_release.speaker_network import pair_means
from recipes.mini_release.transcripts import BatchTranscriber
from voxclone.audio.distance import mel_loss
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.data.manifest import Clip
from voxclone.evaluate.agreement import agreement, mean_agreement
from voxclone.evaluate.synthesis import SynthesisRequest, synthesize
from voxclone.evaluate.wer import word_error_rate
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes

TEXTS = Path(__file__).parent / "data" / "validation.txt"
VOICES = {
    "presets": ("kathleen", "ravdess-03", "ravdess-04", "ravdess-07", "ravdess-08", "ravdess-11"),
    "clones": ("ravdess-19", "ravdess-20", "so-0461", "so-1033"),
}
SETS = (("speechocean762", "test", 24), ("ravdess", "test", 6), ("kathleen", "valid", 12))
REFERENCE_SAMPLES, VOICE_SHARE = 25 * SAMPLING_RATE, 0.4
"""Of a speaker: of so much speech, the first share is the voice, and the rest is compared."""
GUIDANCE = 1.2


@dataclass
class Progress:
    """Measures on held-out clips of a corpus; each measurement is a line in a table in `folder`."""

    corpus: Corpus
    whisper: Path
    folder: Path
    device: torch.device
    _transcriber: BatchTranscriber | None = field(default=None, init=False)
    _recorded: dict[str, float] = field(default_factory=dict, init=False)

    @torch.no_grad()
    def codec(self, codec: Codec, step: int) -> dict[str, float]:
        """WER of recordings and of what is decoded from their codes, mel distance, re-encoding, and
        similarity (SIM) to other clips of the speaker minus that to other speakers'."""
        metrics: dict[str, float] = {}
        mel, agreements, real, decoded, names = [], [], [], [], []
        embedder = Ge2eEmbedder.load()
        for name, split, count in SETS:
            indices = spread_clips(self.corpus.clips, name, split, count)
            waves = [self.corpus.wave(i) for i in indices]
            texts = [self.corpus.clips[i].text or "" for i in indices]
            made = []
            for index, wave_S in zip(indices, waves, strict=True):
                codes_BKT = codec.encode(wave_S[None].to(self.device))
                decoded_S = codec.decode(codes_BKT)[0, : len(wave_S)]
                again_BKT = codec.encode(decoded_S[None])
                made.append(decoded_S.cpu())
                mel.append(float(mel_loss(made[-1][None], wave_S[None])))
                agreements.append(agreement(codes_BKT[0], again_BKT[0]))
                real.append(embedder.embed(wave_S))
                decoded.append(embedder.embed(made[-1]))
                names.append(self.corpus.clips[index].speaker)
            if name not in self._recorded:
                self._recorded[name] = self._wer(waves, texts)
            metrics[f"valid/wer_recorded_{name}"] = self._recorded[name]
            metrics[f"valid/wer_{name}"] = self._wer(made, texts)
        bound = mean_agreement(agreements)
        metrics["valid/mel"] = sum(mel) / len(mel)
        metrics["valid/reencoded_semantic"] = bound.semantic
        metrics["valid/reencoded_exact"] = bound.exact
        metrics["valid/reencoded_within_one"] = bound.within_one
        for name, vectors in (("sim_recorded", real), ("sim", decoded)):
            own, other = pair_means(torch.stack(vectors), torch.stack(real), names)
            metrics[f"valid/{name}"] = own - other
        self._write("progress-codec.tsv", step, metrics)
        return metrics

    @torch.inference_mode()
    def speech(
        self, backbone: Backbone, head: AcousticHead, step: int, codec: Codec, prompts: PromptMaker
    ) -> dict[str, float]:
        """WER of sentences in voices of the release's speakers (`presets`) and of test speakers
        (`clones`), SIM to other clips of the speaker minus that to other speakers', and the share
        that ends by itself."""
        model = TTS(backbone.params, backbone, head, codec, prompts)
        texts = TEXTS.read_text(encoding="utf-8").splitlines()
        metrics: dict[str, float] = {}
        embedder, ended = Ge2eEmbedder.load(), []
        table, offsets = backbone.audio_table.weight, backbone.offsets_K.tolist()
        for name, speakers in VOICES.items():
            voices, references = [], []
            for speaker in speakers:
                wave_S, other_S = self._references(speaker)
                codes_KT = codec.encode(wave_S[None].to(self.device))[0]
                voices.append(embed_codes(codes_KT, table, offsets))
                references.append(embedder.embed(other_S))
            numbers = [n % len(speakers) for n in range(len(texts))]
            requests = [
                SynthesisRequest(speakers[number], voices[number], text, seed)
                for seed, (number, text) in enumerate(zip(numbers, texts, strict=True))
            ]
            made = synthesize(model, requests, cfg=GUIDANCE)
            ended += [bool(each.ended) for each in made]
            metrics[f"valid/wer_{name}"] = self._wer([each.wave_S for each in made], texts)
            gains = []
            for each, number in zip(made, numbers, strict=True):
                if len(each.wave_S):
                    cosine_V = torch.stack(references) @ embedder.embed(each.wave_S)
                    others = (cosine_V.sum() - cosine_V[number]) / max(1, len(speakers) - 1)
                    gains.append(float(cosine_V[number] - others))
            metrics[f"valid/sim_{name}"] = sum(gains) / max(1, len(gains))
        metrics["valid/ended"] = sum(ended) / len(ended)
        self._write("progress-speech.tsv", step, metrics)
        return metrics

    def _references(self, speaker: str) -> tuple[Tensor, Tensor]:
        """A speaker's first clips as a voice, and the next ones to compare with."""
        parts: list[Tensor] = []
        for index, clip in enumerate(self.corpus.clips):
            if clip.speaker == speaker and sum(map(len, parts)) < REFERENCE_SAMPLES:
                parts.append(self.corpus.wave(index))
        joined_S = torch.cat(parts)
        first = int(VOICE_SHARE * len(joined_S))
        return joined_S[:first], joined_S[first:]

    def _wer(self, waves: Sequence[Tensor], texts: Sequence[str]) -> float:
        """Word error rate of Whisper on these waves."""
        if self._transcriber is None:
            self._transcriber = BatchTranscriber(str(self.whisper), "en", str(self.device))
        found = self._transcriber.transcribe_all(waves)
        return word_error_rate(list(zip(texts, found, strict=True)))

    def _write(self, name: str, step: int, metrics: dict[str, float]) -> None:
        path = self.folder / name
        if not path.exists():
            names = [metric.removeprefix("valid/") for metric in metrics]
            path.write_text("\t".join(["time", "step", *names]) + "\n", encoding="utf-8")
        row = [time.strftime("%Y-%m-%d %H:%M"), str(step), *(f"{v:.3f}" for v in metrics.values())]
        with path.open("a", encoding="utf-8") as file:
            file.write("\t".join(row) + "\n")


def spread_clips(clips: Sequence[Clip], name: str, split: str, count: int) -> list[int]:
    """Numbers of `count` clips of 2 to 8 s of a corpus (the start of ids) and split, spread over
    its speakers."""
    speakers: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        fits = clip.id.startswith(f"{name}-") and clip.split == split and 2 <= clip.duration <= 8
        if fits and clip.text:
            speakers.setdefault(clip.speaker, []).append(index)
    rounds = [
        own[len(own) * turn // max(1, count) % len(own)]
        for turn in range(count)
        for own in speakers.values()
    ]
    return list(dict.fromkeys(rounds))[:count]

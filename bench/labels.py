r"""What is the language model's help worth on speech that it has learned, and on other speech?

    python bench/labels.py --speech MANIFEST --oracle ORACLE --licences LICENCE... -o OUT \
        [--encoder ENCODER] [--clips 200]

A recovery's clips are labelled by encoder and language model together (`train/channel.py`), and the
mini release's model has learned from the very clips that are labelled. Here clips of speakers that
it has learned (split train) stand beside clips of those that it has not (valid and test): the share
of the oracle's semantic codes that the encoder finds, that both find together, and the model's NLL
of the oracle's codes.

Shapes: K code books, T frames.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, pack
from voxclone.data.manifest import Clip, Manifest
from voxclone.evaluate.statistics import bootstrap
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release
from voxclone.train.channel import VOICE_FRAMES, ChannelSettings, label_clip
from voxclone.tts.likelihood import likelihood
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import rows_of

SECONDS = (2.0, 8.0)
MOST_OF_SPEAKER = 4
ALONE = ChannelSettings(encoder=1.0, bridge=0.0, model=0.0, rounds=1)
TOGETHER = ChannelSettings(bridge=0.0)


def pairs_of(
    manifest: Manifest, splits: Sequence[str], licences: Sequence[str], count: int
) -> list[tuple[Clip, Clip]]:
    """Random clips with a text, few of each speaker, and another clip of the same one."""
    chosen = [
        manifest[int(number)]
        for split in splits
        for number in manifest.select(split=split, licences=tuple(licences))
    ]
    by_speaker: dict[str, list[Clip]] = {}
    generator = torch.Generator().manual_seed(0)
    for place in torch.randperm(len(chosen), generator=generator).tolist():
        by_speaker.setdefault(chosen[place].speaker, []).append(chosen[place])
    low, high = SECONDS
    found = []
    for own in by_speaker.values():
        able = [clip for clip in own if clip.text and low <= clip.duration <= high]
        for clip in able[:MOST_OF_SPEAKER]:
            others = [other for other in own if other is not clip]
            if others:
                found.append((clip, others[0]))
    order = torch.randperm(len(found), generator=generator)[:count].tolist()
    return [found[place] for place in order]


def figures_of(
    release: Release, codec: Codec, oracle: Codec, model: TTS, corpus: Corpus
) -> list[tuple[float, float, float]]:
    """Of each pair of clips, which follow each other in the corpus: the encoder's share, that of
    both together, and the NLL."""
    rows = []
    for index in range(0, len(corpus), 2):
        wave_S = corpus.wave(index)
        with torch.inference_mode():
            true_KT = oracle.encode(wave_S[None])[0]
        shares = []
        for settings in (ALONE, TOGETHER):
            label = label_clip(codec, None, model, corpus, index, index + 1, settings)
            shares.append(float((label.code_TJ[:, 0] == true_KT[0]).float().mean()))
        length = min(corpus.length(index + 1), VOICE_FRAMES * codec.frame_size)
        with torch.inference_mode():
            voice_KT = oracle.encode(corpus.wave(index + 1, 0, length)[None])[0]
        text = corpus.clips[index].text or ""
        nats = likelihood(model, rows_of(voice_KT, release), text, true_KT).semantic
        rows.append((shares[0], shares[1], nats))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--oracle", required=True, type=Path)
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument(
        "--licences", nargs="+", required=True, help="those of the release's speech"
    )
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("-o", "--out", required=True, type=Path, help="for the speech, read once")
    given = parser.parse_args()
    torch.set_num_threads(1)
    release = Release.open(given.model)
    codec, oracle = open_codec(release, given.encoder), open_codec(release, given.oracle)
    model = TTS.load(release, codec=codec)
    manifest = Manifest(given.speech)
    for label, splits in (("learned", ["train"]), ("not learned", ["valid", "test"])):
        pairs = pairs_of(manifest, splits, given.licences, given.clips)
        clips = [clip for pair in pairs for clip in pair]
        corpus = pack(clips, given.out / label.replace(" ", "-"))
        if len(corpus) != len(clips):
            raise SystemExit(f"{len(clips) - len(corpus)} clips cannot be decoded.")
        rows = figures_of(release, codec, oracle, model, corpus)
        names = [pair[0].speaker for pair in pairs]
        print(f"{label}: {len(pairs)} clips of {len(set(names))} speakers")
        alone, both, nats = (list(column) for column in zip(*rows, strict=True))
        gains = [b - a for a, b in zip(alone, both, strict=True)]
        for what, values in (
            ("encoder alone", alone), ("with the model", both), ("gain", gains), ("NLL", nats)
        ):  # fmt: skip
            found = bootstrap(values, names)
            print(f"  {what:<15} {found.mean:.3f} ({found.low:.3f} to {found.high:.3f})")


if __name__ == "__main__":
    main()

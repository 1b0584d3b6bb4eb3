"""An ASR model's states teach a bridge on pairs, and its labels of real speech an encoder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny_whisper import save_tiny_whisper
from tests.train.tiny import ctc_teacher, genuine_codes, steps, training_of, usual_codec
from voxclone.data import bridge as bridge_module
from voxclone.data.bridge import Teacher, label_speech, train_bridge
from voxclone.data.corpus import Corpus, Subset
from voxclone.models.whisper import TargetStore, WhisperTeacher
from voxclone.spec import FRAME_SIZE
from voxclone.train.material import bridge_labels


def telling(known: list[Tensor], codes: int) -> Callable[..., list[Tensor]]:
    """In place of a teacher's states: the semantic codes themselves, each as one of many."""
    left = list(known)

    def states(teacher: Teacher, waves: list[Tensor], frame_size: int) -> list[Tensor]:
        codes_of_clips = [left.pop(0) for _ in waves]
        assert [len(wave) // frame_size for wave in waves] == [len(each) for each in codes_of_clips]
        return [torch.eye(codes)[each] for each in codes_of_clips]

    return states


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> WhisperTeacher:
    folder = tmp_path_factory.mktemp("whisper")
    save_tiny_whisper(folder)
    return WhisperTeacher(str(folder))


@pytest.fixture
def clips(corpus: Corpus) -> Subset:
    return corpus.subset(lambda clip: clip.split == "train")


def test_clips_that_share_a_window_keep_their_frames(teacher: WhisperTeacher) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [FRAME_SIZE * 40 + 7, FRAME_SIZE - 1, FRAME_SIZE * 200, FRAME_SIZE * 250, FRAME_SIZE]
    waves = [0.1 * torch.randn(size, generator=generator) for size in sizes]
    states = teacher.encoder_states(waves, FRAME_SIZE)
    assert [len(each) for each in states] == [40, 0, 200, 250, 1]
    assert len({each.shape[1] for each in states}) == 1
    alone = teacher.encoder_states(waves[3:4], FRAME_SIZE)[0]  # it began a window
    torch.testing.assert_close(states[3], alone, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="over 30 s"):
        teacher.encoder_states([torch.zeros(FRAME_SIZE * 376)], FRAME_SIZE)


def test_a_bridge_finds_the_codes_that_states_tell(
    clips: Subset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "EPOCHS", 1500)
    codec = usual_codec()
    size, genuine = codec.config.semantic_codebook_size, genuine_codes(codec)
    shown = telling([codes_KT[0] for codes_KT in genuine], size)
    monkeypatch.setattr(bridge_module, "teacher_states", shown)
    bridge = train_bridge(ctc_teacher(), codec, genuine, seed=0)
    truth = [
        torch.randint(size, (clips.corpus.length(index) // FRAME_SIZE,)) for index in clips.indices
    ]
    monkeypatch.setattr(bridge_module, "teacher_states", telling(truth, size))
    labels = label_speech(ctc_teacher(), bridge, clips, FRAME_SIZE)
    right = [
        (labels[index].code_TJ[:, 0] == code_T).float().mean()
        for index, code_T in zip(clips.indices, truth, strict=True)
    ]
    assert min(right) == 1
    sums = torch.cat([label.weight_TJ.sum(dim=1) for label in labels.values()])
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("kind", ["ctc", "whisper"])
def test_an_encoder_learns_from_the_labels_and_who_resumes_reads_them(
    kind: str,
    teacher: WhisperTeacher,
    corpus: Corpus,
    clips: Subset,
    tmp_path: Path,
) -> None:
    codec, genuine = usual_codec(), genuine_codes(usual_codec())
    taught: Teacher = ctc_teacher() if kind == "ctc" else TargetStore(teacher, tmp_path / "targets")
    labels = bridge_labels(taught, codec, genuine, clips, tmp_path, seed=0)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    again = bridge_labels(taught, codec, genuine, clips, tmp_path, seed=0)
    assert path.stat().st_mtime_ns == written
    for index, label in labels.items():
        assert len(label.code_TJ) == corpus.length(index) // FRAME_SIZE
        assert torch.equal(label.code_TJ, again[index].code_TJ)
    material = {"bridge_labels": labels, "teacher": taught}
    training = training_of(corpus, material, weights={"bridge": 2.0, "mel": 0}, left_context=0)
    rows = [row["loss/bridge"] for row in steps(training, 40)]
    assert sum(rows[-8:]) < 0.9 * sum(rows[:8])

"""A training meets signals, kills, numbers that are not finite, lost encoders, little memory."""

import io
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.command import Command, sentence
from tests.helpers.disk import files_of_at_most
from tests.helpers.random_weights import drawn_codec
from tests.train import full
from tests.train.full import config_of, full_material, full_training, train
from tests.train.tiny import CODEC, CPU, QUIET
from voxclone.errors import EXIT_OK, AudioError, ConfigError, QualityError, TrainingError
from voxclone.train import encoder, loop, material
from voxclone.train.checkpoint import SPEECH, check_config
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.logging import Log
from voxclone.train.loop import EXIT_INTERRUPTED
from voxclone.train.material import Inputs
from voxclone.train.monitor import LEVELS, SEMANTIC, choose_best, collapse
from voxclone.train.optim import set_learning_rate

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.train.full"])


def printed() -> Console:
    """A console whose words `text_of` gives back."""
    return Console(file=io.StringIO(), width=500)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def killed(times: int, folder: Path) -> None:
    """Kill trainings at random moments, so often; whatever was killed must end as if it had not."""
    chance = random.Random(5)
    begun = time.monotonic()
    process = CONTEXT.Process(target=full.run_alone, args=(folder / "whole", folder / "whole.st"))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    lasting = time.monotonic() - begun
    wanted = load_file(folder / "whole.st")
    done, run = 0, 0
    while done < times:
        run += 1
        result = folder / f"{run}.st"
        while not result.exists():
            process = CONTEXT.Process(target=full.run_alone, args=(folder / f"{run}", result))
            process.start()
            if done < times:
                process.join(chance.uniform(0, lasting))
                done += process.is_alive()
                process.kill()
                process.join()
                assert process.exitcode in (0, -9), process.exitcode
            else:
                process.join(300)
                assert process.exitcode == 0
        found = load_file(result)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), run


def test_killed_at_random_moments_it_always_ends_alike(tmp_path: Path) -> None:
    killed(1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_fifty_times_it_always_ends_alike(tmp_path: Path) -> None:
    killed(50, tmp_path)


def test_resume_is_bit_identical_with_every_part(tmp_path: Path) -> None:
    """Stopped after every single step: weights, optimizers, EMA, balancer, discriminators, data."""
    whole, _ = train(tmp_path / "whole")
    names = {name.split(".")[1] for name in whole.state.tensors()}
    assert names >= {"encoder", "encoder_ema", "discriminator", "distillation"}
    reason = "time"
    while reason == "time":
        task = full_training(config_of(run={"max_minutes": 0.0}))
        config = config_of().model_dump(mode="json")
        task, outcome = train(tmp_path / "parts", task, config=config)
        reason = outcome.reason if task.state.step < 6 else "done"
    assert whole.state.values == task.state.values and "balancer" in whole.state.values
    ours, theirs = whole.state.tensors(), task.state.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_mean_of_weights_is_what_is_validated_and_written(tmp_path: Path) -> None:
    task, _ = train(tmp_path)
    own, mean = task.state.modules["encoder"], task.state.modules["encoder_ema"]
    assert task.result is mean
    differences = [
        float((a.detach() - b.detach()).abs().max())
        for a, b in zip(own.parameters(), mean.parameters(), strict=True)
    ]
    assert 0 < max(differences) < 0.1
    metrics = task.validate(6, Log(None))
    for parameter in mean.parameters():
        parameter.data.mul_(0.1)
    again = task.validate(6, Log(None))
    assert again != metrics
    assert task.objective.codec.encoder is own and own.training


def test_steps_that_are_not_finite_are_skipped_counted_and_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loop, "MOST_SKIPPED", 3)
    task = full_training(config_of())
    task.poisoned = frozenset([1, 3, 4, 5])
    before = {k: v.clone() for k, v in task.state.tensors().items()}
    task, outcome = train(tmp_path, task)
    assert outcome.reason == "broken" and outcome.step == 6
    assert outcome.sentence is not None and "3 steps in a row, up to step 6" in outcome.sentence
    assert task.state.values["skipped"] == 4
    after = task.state.tensors()
    assert all(bool(torch.isfinite(value.float()).all()) for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert '"other/skipped": 1.0' in (tmp_path / "log.jsonl").read_text()


def when_all_gradients_are_there(task: full.FullTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fifth step fail before the first optimizer steps."""

    def fail(optimizers: Any, step: int, *rest: Any) -> None:
        if step == 4:
            raise AudioError("c1 cannot be read.")
        set_learning_rate(optimizers, step, *rest)

    monkeypatch.setattr(encoder, "set_learning_rate", fail)


def before_all_else(task: full.FullTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: int) -> None:
        if step == 4:
            raise AudioError("c1 cannot be read.")

    task.before = fail


def while_speech_is_drawn(task: full.FullTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    task.vanished = 4


def after_the_step(task: full.FullTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validation after the fourth step fail."""

    def fail(self: full.FullTraining, step: int, log: Log) -> dict[str, float]:
        raise AudioError("c1 cannot be read.")

    monkeypatch.setattr(full.FullTraining, "validate", fail)


SELDOM = {"run": {"save_every": 100, "validate_every": 4}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> full.FullTraining:
    config = config_of(**SELDOM)
    return train(tmp_path_factory.mktemp("whole"), full_training(config))[0]


@pytest.mark.parametrize(
    "trouble",
    [before_all_else, while_speech_is_drawn, when_all_gradients_are_there, after_the_step],
)
def test_an_error_saves_the_steps_before_it(
    trouble: Callable[[full.FullTraining, pytest.MonkeyPatch], None],
    undisturbed: full.FullTraining,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config, console = config_of(**SELDOM), printed()
    task = full_training(config)
    kept: list[int] = []

    def keep(step: int, metrics: dict[str, float]) -> None:
        assert metrics
        kept.append(step)

    with monkeypatch.context() as patched:
        trouble(task, patched)
        with pytest.raises(AudioError, match="c1 cannot be read"):
            train(tmp_path, task, console=console, keep=keep)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000004"]
    assert "Step 4 is saved" in text_of(console) and "`--resume`" in text_of(console)
    again, outcome = train(tmp_path, full_training(config), keep=keep)
    assert outcome.reason == "done" and again.state.values == undisturbed.state.values
    assert kept == [4, 6]  # also what an error prevented
    ours, theirs = undisturbed.state.tensors(), again.state.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_step_that_fails_between_its_optimizers_is_not_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The discriminators have stepped, and the encoder has not."""
    task, console = full_training(config_of(**SELDOM)), printed()
    adamw = task.state.optimizers["adamw"]
    step = adamw.step

    def fail() -> None:
        if task.state.step == 4:
            raise RuntimeError("out of luck")
        step()

    monkeypatch.setattr(adamw, "step", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(tmp_path, task, console=console)
    assert not (tmp_path / "checkpoints").exists() and "saved" not in text_of(console)


def test_an_error_in_the_first_step_leaves_a_folder_to_begin_in(tmp_path: Path) -> None:
    task = full_training(config_of(run={"save_every": 100}, real_from=0))
    task.vanished = 0
    with pytest.raises(AudioError):
        train(tmp_path, task, resume=False)
    task = full_training(config_of(run={"save_every": 100, "steps": 1}))
    assert train(tmp_path, task, resume=False)[1].reason == "done"


def test_a_checkpoint_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    task, console = full_training(config_of(**SELDOM)), printed()
    task.vanished = 4
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(AudioError):
        train(tmp_path, task, console=console)
    assert "The checkpoint of step 4 cannot be written" in text_of(console)
    assert "is saved" not in text_of(console)


METRICS = {
    "preset/semantic": 0.3, "preset/within_one": 0.8, "preset/exact": 0.4, "real/mel": 0.4,
    "real/codes_in_use": 150.0, "real/frames": 288.0, "real/largest_share": 0.1,
    "real/extreme": 0.02,
}  # fmt: skip


def test_only_encoders_that_cannot_recover_have_collapsed() -> None:
    assert collapse(METRICS) is None
    for name, value, words in (
        ("real/codes_in_use", 1.0, "collapsed: 1 semantic codes"),
        ("real/largest_share", 0.71, "one semantic code has 71 %"),
        ("real/extreme", 0.34, "saturated: 34 %"),
    ):
        sentence = collapse(METRICS | {name: value})
        assert sentence is not None and words in sentence


def main(config: EncoderConfig, out: Path, console: Console, **how: bool) -> int:
    """The command, on the CPU."""
    return encoder.main(config, Inputs(device="cpu"), out, console, **how)  # type: ignore[arg-type]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Recovery without a release: what would have been written."""
    paths: list[Path] = []
    monkeypatch.setattr(encoder, "prepare", lambda config, *rest: full_training(config))
    monkeypatch.setattr(encoder.Release, "open", lambda source: SimpleNamespace())
    monkeypatch.setattr(encoder, "save_encoder", lambda path, *rest: paths.append(path))
    return paths


def test_a_collapsed_encoder_ends_the_run_unless_configured_otherwise(
    written: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        full.FullTraining, "validate", lambda self, step, log: METRICS | {"real/extreme": 0.5}
    )
    config = config_of(run={"collapse_check_from": 4})
    with pytest.raises(
        QualityError, match=r"at step 6: .*50 %.*go on .*--resume --set run.collapse_check_from=n"
    ) as caught:
        main(config, tmp_path, QUIET, resume=False)
    assert caught.value.exit_code == 3 and [p.name for p in written] == ["best.safetensors"]
    on = config_of(run={"collapse_check_from": None, "steps": 7})
    assert main(on, tmp_path, QUIET, resume=True) == 0


def test_a_run_that_is_stopped_saves_says_how_to_go_on_and_ends_with_its_own_code(
    written: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def terminate(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    console = printed()
    config = config_of(run={"steps": 4, "save_every": 100, "validate_every": 100})
    with monkeypatch.context() as patched:
        patched.setattr(full.FullTraining, "before", staticmethod(terminate))
        assert main(config, tmp_path, console, resume=False) == EXIT_INTERRUPTED == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000003"]
    assert written == [tmp_path / "encoder.safetensors"]
    assert f"Wrote {written[0]} (step 3, interrupted)." in text_of(console)
    assert "Go on with the same command and `--resume`." in text_of(console)
    assert "Use it" not in text_of(console)
    console = printed()
    assert main(config, tmp_path, console, resume=True) == EXIT_OK == 0
    assert "Continuing from step 3." in text_of(console) and "(step 4, done)" in text_of(console)
    use = f'Use it: voxclone clone REF "text" -o out.wav --encoder {written[0]}'
    assert use in text_of(console) and "--resume" not in text_of(console)


def test_a_run_that_is_out_of_time_says_how_to_go_on_and_what_there_is(
    written: list[Path], tmp_path: Path
) -> None:
    console, config = printed(), config_of(run={"max_minutes": 0.0})
    assert main(config, tmp_path, console, resume=False) == EXIT_OK
    assert "(step 1, time)" in text_of(console) and "Use it: voxclone clone" in text_of(console)
    assert "Go on with the same command and `--resume`." in text_of(console)


@pytest.fixture
def recover(tmp_path: Path, written: list[Path], command: Command) -> Callable[..., Any]:
    """`train encoder` for so many steps, validated after so many: exit code and both outputs."""

    def run(steps: int, every: int, *more: str) -> tuple[int, str, str]:
        config = config_of(run={"steps": steps, "validate_every": every})
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
        return command("train", "encoder", path, "-o", tmp_path / "out", "--device", "cpu", *more)

    return run


@pytest.mark.parametrize("kept", [0, 2])
def test_a_full_disk_in_a_checkpoint_is_a_sentence_with_the_way_on(
    kept: int, recover: Callable[..., Any], tmp_path: Path
) -> None:
    """No file can be larger than 20 kB: from the first step on, or from the third."""
    more = ("--resume",) if kept else ()
    if kept:
        assert recover(kept, 10)[0] == 0
    with files_of_at_most(20_000):
        code, _, error = recover(4, 10, *more)
    assert code == 1 and f"The checkpoint of step {kept + 1} cannot be written" in sentence(error)
    way = "that of step 2 is kept: mend that, and go on with `--resume`" if kept else "begin again"
    assert way in error
    left = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert left == [f"step-000000{step}" for step in range(1, kept + 1)]
    assert recover(4, 10, *more)[0] == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_in_the_log_is_a_sentence_with_the_way_on(
    recover: Callable[..., Any], tmp_path: Path
) -> None:
    """Validation logs audio, of which there is more than 20 kB; a thread of TensorBoard writes
    it."""
    assert recover(2, 10)[0] == 0
    with files_of_at_most(20_000):
        code, printed, error = recover(4, 3, "--resume")
    assert code == 1 and "The log of the training cannot be written" in sentence(error)
    assert "that of step 2 is kept" in printed and "--resume" in printed
    assert recover(4, 3, "--resume")[0] == 0


def test_too_little_memory_names_what_to_change(
    written: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught_here:
        torch.empty(2**60)
    refused = caught_here.value  # as PyTorch says it on this machine
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        refused,
    ):

        def fail(self: Any, step: int, error: Exception = error) -> dict[str, Tensor]:
            raise error

        monkeypatch.setattr(full.FullTraining, "train_step", fail)
        with pytest.raises(TrainingError) as caught:
            main(config_of(), tmp_path, QUIET, resume=False)
        sentence = str(caught.value)
        for knob in ("`frames` (now 4)", "`real_batch` (4)", "`pair_batch` (4)",
                     "run.micro_batches=2"):  # fmt: skip
            assert knob in sentence
        assert caught.value.exit_code == 1 and "\n" not in sentence
        assert "speaker_loss" not in sentence
    cloning = config_of(weights={"speaker_contrastive": 1.0})
    sentence = str(encoder.no_memory(cloning.step_values, CPU, MemoryError("full")))
    assert "`speaker_loss.micro_batch` (8)" in sentence


def test_a_checkpoint_of_another_config_is_refused_by_name(
    written: list[Path], tmp_path: Path
) -> None:
    few = config_of(run={"steps": 1})
    assert main(few, tmp_path, QUIET, resume=False) == 0
    more = config_of(run={"steps": 2, "save_every": 7})
    assert main(more, tmp_path, QUIET, resume=True) == 0  # only when, not what
    other = config_of(run={"steps": 3, "seed": 1}, weights={"mel": 3.0})
    with pytest.raises(ConfigError) as caught:
        main(other, tmp_path, QUIET, resume=True)
    sentence = str(caught.value)
    assert "run.seed (0 there, 1 here), weights.mel (2.0 there, 3.0 here)" in sentence
    assert "`--force`" in sentence and "steps" not in sentence
    assert main(other, tmp_path, QUIET, resume=True, changed=True) == 0
    assert main(other, tmp_path, QUIET, resume=True) == 0


def test_a_checkpoint_of_other_speech_is_refused(
    written: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few, more = config_of(run={"steps": 1}), config_of(run={"steps": 2})
    assert main(few, tmp_path, QUIET, resume=False) == 0
    assert main(few, tmp_path, QUIET, resume=True) == 0

    def prepare(config: EncoderConfig, *rest: object) -> full.FullTraining:
        whole = full_material()
        few = whole.speech.corpus.subset(lambda clip: clip.id != "c3")
        return full_training(config, replace(whole, speech=few))

    monkeypatch.setattr(encoder, "prepare", prepare)
    with pytest.raises(ConfigError) as caught:
        main(more, tmp_path, QUIET, resume=True)
    sentence = str(caught.value)
    assert "on other speech (5 clips of 0.001 h there, 4 clips of 0 h here)" in sentence
    assert "`--force`" in sentence and "\n" not in sentence
    assert main(more, tmp_path, QUIET, resume=True, changed=True) == 0
    assert main(more, tmp_path, QUIET, resume=True) == 0


def test_a_checkpoint_that_does_not_tell_its_speech_is_gone_on_from(
    written: list[Path], tmp_path: Path
) -> None:
    train(tmp_path, full_training(config_of(run={"steps": 1})))  # as before speech was compared
    words = io.StringIO()
    more = config_of(run={"steps": 2})
    console = Console(file=words, width=200)
    assert main(more, tmp_path, console, resume=True) == 0
    assert "does not say what speech it was trained on" in words.getvalue()
    assert main(more, tmp_path, Console(file=words, width=200), resume=True) == 0
    assert words.getvalue().count("does not say") == 1


def test_speech_of_one_size_is_distinguished() -> None:
    one = {"clips": 3, "hours": 0.1, "hash": "a"}
    assert check_config({SPEECH: one}, {SPEECH: dict(one)}, Path("out")) == []
    with pytest.raises(ConfigError, match=r"\(3 clips of 0.1 h, but not the same ones"):
        check_config({SPEECH: one}, {SPEECH: one | {"hash": "b"}}, Path("out"))


def test_with_changed_what_was_not_there_begins_anew(written: list[Path], tmp_path: Path) -> None:
    plain = config_of(run={"steps": 2, "ema": 0.0}, weights={"feature_matching": 0.0})
    assert main(plain, tmp_path, QUIET, resume=False) == 0
    task, outcome = train(tmp_path, full_training(config_of(run={"steps": 2})), changed=True)
    assert outcome.step == 2
    pairs = zip(task.result.parameters(), task.encoder.parameters(), strict=True)
    assert all(torch.equal(mean, own) for mean, own in pairs)


def test_keys_of_another_version_are_reported_and_not_refused() -> None:
    notes = check_config({"a": {"b": 1, "old": 2}}, {"a": {"b": 1, "new": 0}}, Path("out"))
    assert len(notes) == 1 and "a.new, a.old" in notes[0]


def test_the_best_is_no_worse_in_levels_and_semantic_codes() -> None:
    best = None
    kept = []
    for step, (levels, semantic) in enumerate(
        [(0.50, 0.10), (0.60, 0.05), (0.55, 0.30), (0.545, 0.33), (0.538, 0.50), (0.56, 0.29),
         (0.70, 0.325)]
    ):  # fmt: skip
        best = choose_best(best, {LEVELS: levels, SEMANTIC: semantic, "real/mel": 1.0}, step)
        kept.append(best["step"])
    # 1 loses semantic codes; 3 loses levels within the slack; 4 would be the second small loss; 5
    # and 6: one semantic point and more is too much, half a point is not.
    assert kept == [0, 0, 2, 3, 3, 3, 6]


def test_a_release_with_an_encoder_asks_where_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = drawn_codec(CODEC)
    asked: list[Any] = []

    def load(release: Any, encoder: Any = None) -> Any:
        asked.append(encoder)
        return codec

    monkeypatch.setattr(material, "load_codec", load)
    monkeypatch.setattr(material, "find_encoder", lambda release, path: path)
    whole: Any = SimpleNamespace(path="with", report=SimpleNamespace(encoder="complete"))
    without: Any = SimpleNamespace(path="without", report=SimpleNamespace(encoder="withheld"))
    first = material.first_encoder
    with pytest.raises(ConfigError, match=r"`--init release`.*`--init FILE`.*`--init fresh`"):
        first(whole, None)
    with pytest.raises(ConfigError, match="no encoder to begin from"):
        first(without, "release")
    assert first(without, None) is None
    assert first(whole, "fresh") is None
    assert first(whole, "release") is codec.encoder
    assert first(without, "some.file") is codec.encoder
    assert asked == [None, Path("some.file")]

"""The last stage: a release with the encoder."""

from pathlib import Path

from voxclone.recover.stages import Context, Results, best_encoder
from voxclone.recover.store import Inputs, Result, hashes
from voxclone.release.encoder_file import open_external_encoder
from voxclone.release.inject import SHARD, plan_injection
from voxclone.release.inject import inject as write_release

RELEASE = "release"
"""The folder of the release with the encoder, in that of the run."""


def inject_inputs(context: Context, results: Results) -> Inputs | str:
    return Inputs({"model": context.model, "encoder": results["train"].result.files})


def inject(context: Context, results: Results, folder: Path) -> Result:
    """An earlier release, of another encoder, is kept under another name."""
    out = context.run / RELEASE
    if out.exists():
        kept = next(
            path for n in range(1, 10**6) if not (path := out.with_name(f"{RELEASE}-{n}")).exists()
        )
        out.rename(kept)
        context.progress.say(f"  The earlier {out} is kept as {kept}.")
    external = open_external_encoder(best_encoder(results), context.release)
    plan, moved = plan_injection(context.release, external, out), [0]

    def advance(count: int) -> None:
        moved[0] += count
        context.progress.show(min(1.0, moved[0] / max(1, plan.work)))

    done = write_release(plan, advance=advance)
    values = {"tensors": done.tensors, "files": len(done.sha256), "bytes": plan.written}
    return Result(values, hashes(folder, [f"../{RELEASE}/{SHARD}"]))

"""A process that has the model loaded and forks a server for each line that it reads, so that a
server can be killed and started again soon: `python -m tests.serve.forking RELEASE VOICES`."""

import os
import signal
import sys
from pathlib import Path

import torch


def main() -> None:
    import uvicorn

    from tests.serve.conftest import app_of
    from voxclone.release.release import Release
    from voxclone.serve.catalog import Catalog
    from voxclone.serve.engine import Engine
    from voxclone.serve.run import open_socket
    from voxclone.serve.settings import ServeSettings

    torch.set_num_threads(1)
    release, voices = Release.open(sys.argv[1]), Path(sys.argv[2])
    settings = ServeSettings("tiny", voices)
    tts = Engine.load(Catalog(release, settings, None), torch.device("cpu")).tts
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        listening = open_socket("127.0.0.1", 0)
        child = os.fork()
        if child == 0:
            os.close(0)
            app = app_of(release, tts, voices)
            config = uvicorn.Config(app, http="h11", log_config=None, access_log=False)
            uvicorn.Server(config).run(sockets=[listening])
            os._exit(0)
        print(child, listening.getsockname()[1], flush=True)
        listening.close()


if __name__ == "__main__":
    main()

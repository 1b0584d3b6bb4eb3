"""Speed of the server: latency to the first sound, and throughput, at 1, 4 and 16 clients.

    python bench/serve.py                                            # the mini release
    python bench/serve.py --model path/to/release --device cuda
    python bench/serve.py --url http://127.0.0.1:8000 --key KEY      # a server that runs already

Each client asks for speech as PCM, reads it as it arrives, and then asks again. The first sound is
the first byte of samples. Throughput is seconds of speech in a second of all clients.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TEXTS = (
    "The kids are talking by the door.",
    "The dogs are sitting in the sun, and nobody knows for how long.",
    "Please call me back before six.",
    "There was no answer when she knocked, so she went around the house.",
)
RATE = 24000  # of the samples, which have two bytes


@dataclass
class Times:
    """Seconds of one number of clients: to the first sound of each request, of speech, in all."""

    first: list[float] = field(default_factory=list)
    speech: float = 0.0
    wall: float = 0.0

    def summary(self, clients: int) -> dict[str, float]:
        ordered = sorted(self.first)
        return {
            "clients": clients,
            "requests": len(ordered),
            "first_sound_median_s": round(statistics.median(ordered), 3),
            "first_sound_p95_s": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
            "speech_s": round(self.speech, 1),
            "speech_s_per_s": round(self.speech / self.wall, 2),
        }


@contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """The address of a server of the model, or of the one that runs already."""
    if args.url:
        yield args.url
        return
    with tempfile.TemporaryDirectory() as voices:
        command = [
            sys.executable, "-m", "voxclone", "serve", args.model, "--port", "0", "--device",
            args.device, "--voices", voices,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            for line in process.stdout or []:
                if found := re.match(r"Ready +(http://\S+)", line):
                    yield found[1]
                    break
            else:
                raise SystemExit("The server has ended: run `voxclone serve` to see why.")
        finally:
            process.terminate()
            process.wait()


def ask(url: str, key: str, path: str, body: dict[str, str] | None = None) -> Iterator[bytes]:
    """The bytes of an answer as they arrive."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    while content := answer.read1():
        yield content
    connection.close()


def measure(url: str, key: str, model: str, voice: str, clients: int, requests: int) -> Times:
    """So many requests of each of the clients at once."""
    times, lock = Times(), threading.Lock()

    def run(client: int) -> None:
        for number in range(requests):
            text = TEXTS[(client + number) % len(TEXTS)]
            body = {"model": model, "voice": voice, "input": text, "response_format": "pcm"}
            begun, size, first = time.perf_counter(), 0, None
            for content in ask(url, key, "/v1/audio/speech", body):
                first = first or time.perf_counter() - begun
                size += len(content)
            with lock:
                times.first.append(first or 0.0)
                times.speech += size / 2 / RATE

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.wall = time.perf_counter() - begun
    return times


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--url", help="a server that runs already, instead of --model")
    parser.add_argument("--key", default="none")
    parser.add_argument("--voice", help="default: the first preset")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=8, help="of each client")
    return parser


def main() -> None:
    args = options().parse_args()
    with server(args) as url:
        model = json.loads(b"".join(ask(url, args.key, "/v1/models")))["data"][0]["id"]
        voices = json.loads(b"".join(ask(url, args.key, "/v1/audio/voices")))["voices"]
        voice = args.voice or voices[0]["name"]
        for clients in args.clients:
            times = measure(url, args.key, model, voice, clients, args.requests)
            print(json.dumps(times.summary(clients)), flush=True)


if __name__ == "__main__":
    main()

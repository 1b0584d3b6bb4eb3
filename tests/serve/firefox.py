"""The system's Firefox by WebDriver BiDi. Playwright needs a Firefox build of its own."""

import contextlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFERENCES = {
    "media.navigator.streams.fake": True,  # the microphone gives a tone
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.autoplay.block-webaudio": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class Page:
    """A tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._send("session.new", capabilities={})
        events = ["log.entryAdded", "network.beforeRequestSent"]
        self._send("session.subscribe", events=events)
        (tab,) = self._send("browsingContext.getTree")["contexts"]
        self._tab = tab["context"]

    def open(self, url: str) -> None:
        self._send("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def run(self, script: str) -> Any:
        """The value of an expression, or of its promise."""
        result = self._send(
            "script.evaluate", expression=script, awaitPromise=True, userActivation=True,
            target={"context": self._tab},
        )  # fmt: skip
        assert result["type"] == "success", result
        return result["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, (
                f"{condition}: {self.run('document.body.innerText')}"
            )
            time.sleep(0.1)

    def set_file(self, selector: str, path: Path) -> None:
        found = self._send(
            "browsingContext.locateNodes", context=self._tab,
            locator={"type": "css", "value": selector},
        )  # fmt: skip
        element = {"sharedId": found["nodes"][0]["sharedId"]}
        self._send("input.setFiles", context=self._tab, element=element, files=[str(path)])

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(message["params"]["text"])
            elif message.get("method") == "network.beforeRequestSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message.get("id") == number:
                assert message["type"] == "success", message
                result: dict[str, Any] = message["result"]
                return result


@contextlib.contextmanager
def firefox(program: str, profile: Path) -> Iterator[Page]:
    """A headless Firefox with a fresh profile."""
    from websockets.sync.client import connect

    profile.mkdir()
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [program, "--headless", "--no-remote", "--remote-debugging-port", "0"]
    process = subprocess.Popen(
        [*command, "--profile", str(profile)], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr or []:
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("Firefox has ended")
        with connect(f"{found[1]}/session", max_size=None) as socket:
            yield Page(socket)
    finally:
        process.kill()
        process.wait()

"""Names, addresses and bodies that mean harm: refused in one shape, and nothing is touched."""

import http.client
import json
import logging
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.serve.conftest import GIVEN, Opener, Scripted, app_of, resident, sample, until, wav
from tests.serve.live import live
from tests.serve.test_speech import SPEECH
from voxclone.release.release import Release
from voxclone.serve.settings import Limits

TRAVERSAL = [
    "../x", "..", ".", "../../etc/passwd", "..\\x", "....//x", "/etc/passwd", "//x", "C:\\x", "C:x",
    "x/y", "x\\y", "%2e%2e%2fx", "..%2fx", "%2e%2e/", "x/../y", "~", "~root", "$HOME", "`id`",
    "file:///etc/passwd", "\\\\host\\share", ".hidden", "-rf", "_x", "x.voice", "x.safetensors",
]  # fmt: skip
CONTROL = ["x\x00", "\x00", "x\ny", "x\ry", "x\ty", "\x1b[2J", "x\x7f", "x\x08", " x y", "x y"]
UNICODE = [
    "аnna", "anna\u0301", "ａｎｎａ", "ﬁ", "İ", "ß", "x\u202ey", "x\u200by", "x\u2066y", "😀", "é",
    "①", "x\u00ad", "\ufeffx", "ⅷ", "x\u2028y", "Ω", "ĸ", "مرحبا", "声", "x\ufe0f", "𝒶", "ｘ", "ª",
]  # fmt: skip
DEVICES = [
    "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)),
]  # fmt: skip
CASES = ["Anna", "ANNA", "aNNa", "Dora", "DORA", "Con", "NUL", "Default"]
OTHERS = [
    "",
    " ",
    "x" * 65,
    "x" * 10_000,
    "'; DROP TABLE voices; --",
    "<script>",
    "{{7*7}}",
    "x.",
    "*",
]
PRESETS = ["anna", "bert", "carla"]
NAMES = [*TRAVERSAL, *CONTROL, *UNICODE, *DEVICES, *CASES, *OTHERS, *PRESETS]


def listing(folder: Path) -> list[str]:
    """All files below the parent of a folder of voices, and their sizes."""
    return sorted(f"{path}:{path.stat().st_size}" for path in folder.parent.rglob("*"))


def folder_of(client: TestClient) -> Path:
    folder: Path = client.app.state.service.catalog.folder  # type: ignore[attr-defined]
    return folder


def check_envelope(answer: Any) -> dict[str, Any]:
    """The error of an answer, which has exactly OpenAI's shape."""
    body = answer.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and isinstance(body["error"]["code"], str)
    assert answer.headers["x-request-id"] and len(answer.content) < 2500
    error: dict[str, Any] = body["error"]
    return error


def test_there_are_a_hundred_names() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 100


def test_no_name_makes_a_file_anywhere(client: TestClient) -> None:
    """S1: names in a form, for a new voice."""
    before = listing(folder_of(client))
    for name in NAMES:
        answer = client.post("/v1/audio/voices", data=GIVEN | {"name": name}, files=sample(b"x"))
        assert answer.status_code == (409 if name in PRESETS else 400), name
        error = check_envelope(answer)
        assert error["param"] == "name" and error["message"].isprintable(), name
    assert listing(folder_of(client)) == before


def test_no_name_reaches_a_file_by_a_path_or_a_rename(opened: Opener) -> None:
    """S1: names in the address, and as the new name of a voice."""
    client = opened()
    secret = folder_of(client).parent / "secret.voice.safetensors"
    folder_of(client).mkdir(exist_ok=True)
    assert client.post("/v1/audio/voices", data=GIVEN, files=sample()).status_code == 200
    secret.write_bytes((folder_of(client) / "dora.voice.safetensors").read_bytes())
    before = listing(folder_of(client))
    for name in ["../secret", *NAMES]:
        place = f"/v1/audio/voices/{quote(name, safe='')}"
        for method, suffix in (("GET", ""), ("DELETE", ""), ("GET", "/file")):
            answer = client.request(method, place + suffix)
            if name.strip(" .") and "/" not in name:  # others are other routes
                assert answer.status_code == 404, (name, method, answer.text)
            assert answer.status_code in (200, 404, 405), name
            if answer.status_code != 200:
                check_envelope(answer)
        answer = client.patch("/v1/audio/voices/dora", json={"name": name})
        assert answer.status_code == (409 if name in PRESETS else 400), name
        check_envelope(answer)
        speech = {"model": "tiny", "input": "Hi.", "voice": name}
        if name not in PRESETS:
            answer = client.post("/v1/audio/speech", json=speech)
            assert answer.status_code == 404, name
            check_envelope(answer)
    assert listing(folder_of(client)) == before


HOSTS = [
    "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001",
    "0177.0.0.1", "127.1", "0", "0.0.0.0", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1",
    "172.16.0.1", "192.168.0.1", "metadata.google.internal", "localtest.me", "user@127.0.0.1",
    "127.0.0.1.nip.io",
    "example.org",
]  # fmt: skip
URLS = [
    *(f"http://{host}/a.wav" for host in HOSTS),
    *(f"https://{host}:8443/" for host in HOSTS[:10]),
    "file:///etc/passwd", "file://localhost/etc/passwd", "ftp://127.0.0.1/a.wav", "gopher://127.0.0.1",
    "dict://127.0.0.1:11211", "data:audio/wav;base64,AAAA", "jar:http://a!/b", "//127.0.0.1/a.wav",
    "/etc/passwd", "C:\\Windows\\win.ini", "\\\\127.0.0.1\\share\\a.wav", "s3://bucket/a.wav",
]  # fmt: skip


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Notes every address that is looked up or connected to."""
    asked: list[Any] = []

    def refuse(*args: Any, **more: Any) -> None:
        asked.append(args)
        raise OSError("no network in here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield asked


def test_no_address_is_fetched_and_no_path_is_opened(
    client: TestClient, no_network: list[Any]
) -> None:
    """S2: there is no option to switch on; every address and path is refused where a recording or
    a voice belongs."""
    assert len(URLS) >= 40
    for url in URLS:
        for fields in (
            {"audio_sample": url}, {"voice_file": url}, {"ref_audio": url}, {"audio_url": url},
        ):  # fmt: skip
            body = GIVEN | fields
            answer = client.post("/v1/audio/voices", files={k: (None, v) for k, v in body.items()})
            assert answer.status_code == 400, url
            assert check_envelope(answer)["param"] in fields
        answer = client.post(
            "/v1/audio/speech", json={"model": "tiny", "input": "Hi.", "voice": url}
        )
        assert answer.status_code == 404, url
    assert not no_network


def multipart(parts: list[tuple[str, str]], boundary: str = "xx") -> bytes:
    """A form of texts, by hand."""
    body = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts
    )
    return f"{body}--{boundary}--\r\n".encode()


def bodies(count: int) -> Iterator[tuple[str, str, dict[str, str], bytes]]:
    """Bodies that no route can use: route, kind, headers, content."""
    form = {"Content-Type": "multipart/form-data; boundary=xx"}
    other, address = form["Content-Type"] + "y", "application/x-www-form-urlencoded"
    js = {"Content-Type": "application/json"}
    speech, voices = "/v1/audio/speech", "/v1/audio/voices"
    good_form = multipart(list(GIVEN.items()))
    good_json = json.dumps({"model": "tiny", "input": "Hi.", "voice": "anna"}).encode()
    fixed: list[tuple[str, str, dict[str, str], bytes]] = [
        (voices, "10,000 parts", form, multipart([(f"f{n}", "x") for n in range(10_000)])),
        (voices, "fields twice", form, multipart([*GIVEN.items(), ("name", "eva")])),
        (voices, "a field of 100 kB", form, multipart([("statement", "x" * 100_000)])),
        (voices, "no boundary", {"Content-Type": "multipart/form-data"}, good_form),
        (voices, "another boundary", {"Content-Type": other}, good_form),
        (voices, "no form", js, good_json),
        (voices, "no type", {}, good_form),
        (voices, "an address for a form", {"Content-Type": address}, b"a=b"),
        (voices, "half a form", form, good_form[:-12]),
        (voices, "not UTF-8", form, good_form.replace(b"Dora", b"\xff\xfe")),
        (voices, "endless header", form, b"--xx\r\nX: " + b"a" * 90_000),
        (speech, "a form", form, good_form),
        (speech, "nothing", js, b""),
        (speech, "null", js, b"null"),
        (speech, "a list", js, b"[]"),
        (speech, "a number of 10,000 digits", js, b'{"seed": ' + b"9" * 10_000 + b"}"),
        (speech, "deep lists", js, b"[" * 60_000),
        (speech, "deep values", js, b'{"input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        (speech, "not UTF-8", js, good_json.replace(b"Hi.", b"\xff\xfe\xfd")),
        (speech, "text", {"Content-Type": "text/plain"}, good_json),
        (speech, "too much", js, b'{"input": "' + b"x" * 200_000 + b'"}'),
        (speech, "trailing", js, good_json + b"x"),
    ]  # fmt: skip
    yield from fixed
    rng = random.Random(0)
    for number in range(count - len(fixed)):
        route, headers, good = ((speech, js, good_json), (voices, form, good_form))[number % 2]
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(damaged))
            kind = rng.randrange(3)
            if kind == 0:
                damaged[place] = rng.randrange(256)
            elif kind == 1:
                del damaged[place : place + rng.randrange(1, 20)]
            else:
                damaged[place:place] = rng.randbytes(rng.randrange(1, 20))
        yield route, f"damaged {number}", headers, bytes(damaged)


def test_no_body_breaks_the_server(client: TestClient) -> None:
    """S3: bodies that are broken, deep, endless or of another kind."""
    before = resident()
    count = 0
    for route, kind, headers, content in bodies(220):
        count += 1
        answer = client.post(route, content=content, headers=headers)
        if answer.status_code == 200 and kind.startswith("damaged"):
            continue  # what was damaged did not matter
        assert 400 <= answer.status_code < 500, (kind, answer.text[:300])
        check_envelope(answer)
    assert count >= 200 and list(folder_of(client).iterdir()) == []
    assert resident() - before < 100 * 2**20


def test_what_is_too_large_is_refused_before_it_is_read(
    release: Release, tmp_path: Path, opened: Opener
) -> None:
    """S3: 11 MB announced; and chunks without a length, of which the last never comes."""
    answer = opened().post("/v1/audio/voices", data=GIVEN, files=sample(bytes(11 * 2**20)))
    assert answer.status_code == 413 and check_envelope(answer)["code"] == "too_large"
    head = (
        b"POST /v1/audio/voices HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=xx\r\n\r\n"
    )
    part = b'--xx\r\nContent-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\n'
    with live(app_of(release, None, tmp_path / "live", Scripted)) as server, server.raw() as raw:
        raw.sendall(head)
        for chunk in (part, *[bytes(2**16)] * (10 * 2**4 + 1)):  # FORM_BYTES beyond 10 MiB
            raw.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        refused = http.client.HTTPResponse(raw)
        refused.begin()
        assert refused.status == 413 and b'"code":"too_large"' in refused.read()


def test_a_recording_may_have_the_bytes_that_are_allowed(opened: Opener) -> None:
    content = wav(2)
    client = opened(limits=Limits(upload_bytes=len(content)))
    assert client.post("/v1/audio/voices/check", files=sample(content)).status_code == 200
    answer = client.post("/v1/audio/voices/check", files=sample(content + bytes(1)))
    assert answer.status_code == 413


UNREADABLE = {
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "a bad header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX y: z\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "an oversized header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
    "a bad length": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
}
CHUNKED = (
    b"%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: multipart/form-data; boundary=xx\r\n\r\n2\r\n--\r\n"
)


def refusal_of(raw: socket.socket) -> dict[str, Any]:
    """The error that is answered on a connection, which is closed then."""
    answer = http.client.HTTPResponse(raw)
    answer.begin()
    body = json.loads(answer.read())
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert list(body) == ["error"] and raw.recv(1) == b""
    error: dict[str, Any] = body["error"]
    assert "or a part of its body" in error["message"] and "send it by" in error["message"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    return error


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the access log says of each answer."""
    own = (each for each in caplog.records if each.name == "voxclone.serve.access")
    return [json.loads(record.getMessage()) for record in own]


def test_what_is_no_http_is_refused_as_all_else(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One envelope, one line of the log and one count each; the next connection is served."""
    app = app_of(release, None, tmp_path / "live", Scripted)
    with live(app) as server, caplog.at_level(logging.INFO, "voxclone.serve.access"):
        for kind, content in UNREADABLE.items():
            with server.raw() as raw:
                raw.sendall(content)
                error = refusal_of(raw)
            assert (error["param"], error["code"]) == (None, "invalid_http"), kind
            assert "HTTP/1.1" in error["message"] and error["message"].endswith("."), kind
        metrics = server.ask("GET", "/metrics")[2].decode()
    count = len(UNREADABLE)
    assert f'voxclone_requests_total{{route="-",status="400"}} {float(count)}' in metrics
    lines = access_lines(caplog)[:count]
    assert {(line["route"], line["status"]) for line in lines} == {("-", 400)}
    assert [line["method"] for line in lines if line["method"] != "-"] == ["PRI", "GET"]
    assert len(lines) == count
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("start", "route"),
    [
        (b"POST /v1/audio/voices", "/v1/audio/voices"),
        (b"DELETE /v1/audio/voices/dora", "/v1/audio/voices/{name}"),
    ],
)
def test_a_body_that_is_no_http_is_refused_by_its_route(
    release: Release,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    start: bytes,
    route: str,
) -> None:
    """Whether the route reads the body, or waits for a model that is busy."""
    model = Scripted()
    model.gate.clear()
    app = app_of(release, None, tmp_path / "live", lambda: model)
    with live(app) as server, caplog.at_level(logging.INFO, "voxclone.serve.access"):
        speaking = server.send("POST", "/v1/audio/speech", SPEECH)
        until(lambda: model.running)
        with server.raw() as raw:
            raw.sendall(CHUNKED % start)
            until(lambda: server.worker.waiting == 2)
            raw.sendall(b"no length\r\n")
            assert refusal_of(raw)["code"] == "invalid_http"
        until(lambda: server.worker.waiting == 1)
        (line,) = access_lines(caplog)
        assert (line["route"], line["status"]) == (route, 400)
        model.gate.set()
        assert speaking.getresponse().read()
        speaking.close()


def test_a_client_that_goes_in_its_body_is_gone(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It closes its half of the connection; nobody is answered, and the log says so for all."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nContent-Type: %s\r\n\r\n"
    bodies = (
        (head % (b"/v1/audio/speech", b"application/json"), b'{"model": '),
        (head % (b"/v1/audio/voices", b"multipart/form-data; boundary=xx"), b"--xx\r\n"),
    )
    app = app_of(release, None, tmp_path / "live", Scripted)
    with live(app) as server, caplog.at_level(logging.INFO, "voxclone.serve.access"):
        for each, body in bodies:
            with server.raw() as raw:
                raw.sendall(each + body)
                raw.shutdown(socket.SHUT_WR)
                assert raw.recv(100) == b""
        until(lambda: len(access_lines(caplog)) == 2)
    assert [line["status"] for line in access_lines(caplog)] == [499, 499]


def test_garbage_after_an_answer(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a whole request it is refused; in a body that was refused, the connection ends."""
    with live(app_of(release, None, tmp_path / "live", Scripted)) as server:
        with server.raw() as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nno HTTP\r\n\r\n")
            answers = b"".join(iter(lambda: raw.recv(2**16), b""))
            assert answers.startswith(b"HTTP/1.1 200") and b'"code":"invalid_http"' in answers
        with server.raw() as raw:
            raw.sendall(CHUNKED % b"PUT /v1/audio/voices")
            first = http.client.HTTPResponse(raw)
            first.begin()
            assert first.status == 405 and first.read()
            raw.sendall(b"no length\r\n")
            assert raw.recv(100) == b""
    assert "Traceback" not in caplog.text

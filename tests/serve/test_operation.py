"""Who may ask, what every error looks like, health, metrics, the log."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serve.conftest import BASE, GIVEN, Opener, Scripted, app_of, sample, until
from tests.serve.live import live
from tests.serve.test_hostile import check_envelope
from tests.serve.test_speech import SPEECH, speak
from voxclone.errors import ReleaseError, UsageError
from voxclone.release.release import Release
from voxclone.serve.errors import hide_paths
from voxclone.serve.schemas import ErrorEnvelope
from voxclone.serve.settings import check_exposure, check_origins, is_loopback

KEY = "correct-horse-battery"


def test_a_public_address_needs_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.5"):
        check_exposure(host, None)
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""):
        with pytest.raises(UsageError, match="--api-key"):
            check_exposure(host, None)
        check_exposure(host, KEY)
    for key in ("", "short", "x" * 15, "spaces in the key", "schlüssel-zum-glück", "x" * 20 + "\n"):
        with pytest.raises(UsageError, match="key"):
            check_exposure("127.0.0.1", key)


def test_keys(opened: Opener) -> None:
    """S8: none, wrong, right; on every route but the page and the two of health."""
    client = opened(api_key=KEY)
    for header in (
        {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer wrong-key-wrong-key"},
        {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"}, {"Authorization": b"Bearer \xfc"},
    ):  # fmt: skip
        for method, path in (
            ("GET", "/v1/models"), ("POST", "/v1/audio/speech"), ("GET", "/metrics"),
            ("GET", "/openapi.json"), ("DELETE", "/v1/audio/voices/x"), ("GET", "/v1/nothing"),
        ):  # fmt: skip
            answer = client.request(method, path, headers=header)
            assert answer.status_code == 401, (header, path)
            assert check_envelope(answer)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
    for path in ("/", "/health", "/ready", "/page/page.js"):
        assert client.get(path).status_code == 200, path
    assert client.get("/page/../metrics").status_code == 401
    client.headers["Authorization"] = f"Bearer {KEY}"
    assert client.get("/v1/models").status_code == 200
    assert speak(client).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


def test_keys_are_compared_in_constant_time(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests of one length by `hmac.compare_digest`: no byte of a guess changes the way there."""
    import hmac

    compared: list[tuple[bytes, bytes]] = []
    original = hmac.compare_digest

    def note(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return original(a, b)

    monkeypatch.setattr("voxclone.serve.middleware.hmac.compare_digest", note)
    client = opened(api_key=KEY)
    for guess in ("x", KEY[:-1] + "x", "x" * 500):
        client.get("/v1/models", headers={"Authorization": f"Bearer {guess}"})
    assert len(compared) == 3 and all(len(a) == len(b) == 32 for a, b in compared)
    assert len({b for _, b in compared}) == 1


def test_without_a_key_pages_of_others_get_nothing(opened: Opener) -> None:
    client = opened()
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.9:8000",
        "",
        "localhost.evil",
    ):
        answer = client.get("/v1/models", headers={"Host": host})
        assert answer.status_code == 403 and check_envelope(answer)["code"] == "wrong_host"
    for host in ("localhost:8000", "127.0.0.1:9999", "[::1]:8000"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "file://"):
        answer = client.post("/v1/audio/speech", json=SPEECH, headers={"Origin": origin})
        assert answer.status_code == 403 and check_envelope(answer)["code"] == "wrong_origin"
    assert client.post("/v1/audio/speech", json=SPEECH, headers={"Origin": BASE}).status_code == 200


def test_other_pages_are_let_in_by_name_only(opened: Opener) -> None:
    friend, other = "http://friend.example", "http://other.example"
    client = opened(origins=(friend,))
    name_of_method = "Access-Control-Request-Method"
    asked = {name_of_method: "POST"}
    allowed = client.options("/v1/audio/speech", headers={"Origin": friend, **asked})
    assert allowed.headers["access-control-allow-origin"] == friend
    assert client.post(
        "/v1/audio/speech", json=SPEECH, headers={"Origin": friend}
    ).headers["access-control-allow-origin"] == friend  # fmt: skip
    refused = client.options("/v1/audio/speech", headers={"Origin": other, **asked})
    assert "access-control-allow-origin" not in refused.headers
    assert (refused.status_code, check_envelope(refused)["code"]) == (403, "wrong_origin")
    for unusual in (
        {"Access-Control-Request-Headers": "X-Other"},
        {**asked, name_of_method: "PUSH"},
    ):
        answer = client.options("/v1/audio/speech", headers={"Origin": friend, **asked, **unusual})
        assert (answer.status_code, check_envelope(answer)["code"]) == (400, "wrong_preflight")
        assert answer.headers["access-control-allow-origin"] == friend
    plain = opened().post("/v1/audio/speech", json=SPEECH)
    assert not any(name.startswith("access-control") for name in plain.headers)


def test_preflights_are_logged_and_counted(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    friend = "http://friend.example"
    client = opened(origins=(friend,), api_key=KEY)
    with caplog.at_level(logging.INFO, "voxclone.serve.access"):
        for origin, status in ((friend, 200), ("http://other.example", 403)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = client.options("/v1/audio/speech", headers=asked)
            assert answer.status_code == status and answer.headers["x-request-id"]
        # A page that may ask can read why it was refused.
        answer = client.get("/v1/models", headers={"Origin": friend})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, friend)
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["method"], line["status"]) for line in lines] == [
        ("OPTIONS", 200), ("OPTIONS", 403), ("GET", 401)
    ]  # fmt: skip
    metrics = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    assert 'voxclone_requests_total{route="-",status="403"} 1.0' in metrics


def test_origins_are_named_as_browsers_name_them() -> None:
    good = ("http://page.example", "https://page.example:8443", "http://[::1]:3000", "app://notes")
    check_origins(good)
    for wrong in (
        "*", "http://page.example/", "http://page.example/x", "page.example", "http://", "null",
        "HTTP://page.example", "http://Page.example", "http://a@page.example", "http://*.example",
        "http://page.example:80", "https://page.example:443", "http://page.example:", "",
        "http://page.example?", "http://a http://b", "http://page.example\n", "file://",
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"scheme://host\[:port\] only"):
            check_origins([*good, wrong])


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_head_is_get_without_a_body(
    release: Release, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with live(app_of(release, None, tmp_path / "voices", Scripted)) as server:
        with caplog.at_level(logging.INFO, "voxclone.serve.access"):
            status, headers, body = server.ask("GET", path)
            # A line follows its answer, so two requests at once could be logged in either order.
            until(lambda: len(caplog.records) == 1)
            alike = server.ask("HEAD", path)
            until(lambda: len(caplog.records) == 2)
        own = ("date", "x-request-id")
        first, second = (
            {name: value for name, value in each.items() if name.lower() not in own}
            for each in (headers, alike[1])
        )
        assert (status, alike[0], alike[2]) == (200, 200, b"") and first == second
    sizes = [json.loads(record.getMessage())["bytes"] for record in caplog.records]
    assert sizes == [len(body), 0]


def test_every_route_describes_its_errors(client: TestClient) -> None:
    """S9: all operations of the description, and nothing in the framework's own shape."""
    description = client.get("/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 16
    for path, method, operation in operations:
        for status, answer in operation["responses"].items():
            assert status != "422", (path, method)
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}, (path, status)
    assert "HTTPValidationError" not in description["components"]["schemas"]


def provoked(client: TestClient, path: str, method: str) -> list[Any]:
    """Errors of an operation: wrong body, wrong name, too large a body."""
    place = path.replace("{name}", "nobody").replace("{model}", "nothing")
    answers = [
        client.request(method, place, content=b"{", headers={"Content-Type": "application/json"}),
        client.request(method, place, files={"x": b"y"}) if method == "post" else None,
        client.request(method, place, headers={"Content-Length": str(2**40)}),
        client.request(method, place, headers={"Host": "evil.example"}),
        client.request("put", place),
    ]
    return [answer for answer in answers if answer is not None]


def test_every_error_has_the_envelope(client: TestClient) -> None:
    """S9: errors of every operation, checked against the schema that is described."""
    description = client.get("/openapi.json").json()
    count = 0
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            answers = provoked(client, path, method)
            refused = [answer for answer in answers if answer.status_code >= 400]
            assert refused, path
            for answer in refused:
                ErrorEnvelope.model_validate(check_envelope(answer) and answer.json())
                assert (
                    answer.status_code == 405 or str(answer.status_code) in operation["responses"]
                )
                count += 1
    assert count > 40


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/audio/speech", 405, "method_not_allowed"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/page/../../settings.py", 404, "not_found"),
        ("GET", "/page/nothing.js", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/models/tts-1", 404, "model_not_found"),
    ],
)
def test_routes_that_are_not_there(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    error = check_envelope(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"].startswith("Th") and error["message"].endswith(".")


def test_paths_are_left_out_of_messages() -> None:
    """One is the beginning of another."""
    names = {"/a/b/": "", "/a/b": "this server", "/a/b-c": "tiny"}
    message = "/a/b/x of /a/b-c/y is not in /a/b."
    assert hide_paths(message, names) == "x of tiny/y is not in this server."


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/health", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("PUT", "/v1/audio/voices", "GET, POST"),
        ("PUT", "/v1/audio/voices/anna", "GET, PATCH, DELETE"),
        ("PUT", "/v1/audio/voices/check", "GET, POST, PATCH, DELETE"),  # a name, too
        ("GET", "/v1/audio/speech", "POST"),
        ("BREW", "/openapi.json", "GET, HEAD"),
    ],
)
def test_allow_names_all_methods(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert check_envelope(answer)["code"] == "method_not_allowed"
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", "{", "not valid JSON: Expecting property name"),
        ("application/json", "[]", "Content-Type: application/json"),
        ("text/plain", json.dumps(SPEECH), "Content-Type: application/json"),
        ("application/json", "", "Content-Type: application/json"),
    ],
)
def test_what_is_no_json_object_is_refused(
    client: TestClient, kind: str, body: str, words: str
) -> None:
    answer = client.post("/v1/audio/speech", content=body, headers={"Content-Type": kind})
    error = check_envelope(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_json")
    assert words in error["message"]


def test_what_nobody_foresaw_is_in_the_log_alone(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> Any:
        raise RuntimeError("password 1234 at /secret/place")

    monkeypatch.setattr("voxclone.serve.catalog.Catalog.list", fail)
    client = opened()
    with caplog.at_level(logging.ERROR, "voxclone.serve"):
        answer = client.get("/v1/audio/voices", headers={"X-Request-Id": "mine-1"})
    error = check_envelope(answer)
    assert (answer.status_code, error["type"], error["code"]) == (
        500, "server_error", "internal_error"
    )  # fmt: skip
    assert "mine-1" in error["message"] and "secret" not in answer.text
    assert answer.headers["x-request-id"] == "mine-1" and "mine-1" in caplog.text


def test_not_ready_before_the_model_is_loaded(opened: Opener) -> None:
    model = Scripted()
    model.gate.clear()

    def load() -> Scripted:
        model.gate.wait(20)
        return model

    client = opened(wait=False, model=load)
    assert client.get("/health").json() == {"status": "ok"}
    for answer in (client.get("/ready"), speak(client), client.get("/v1/audio/voices")):
        assert answer.status_code == 503 and check_envelope(answer)["code"] == "loading"
        assert int(answer.headers["retry-after"]) > 0
    model.gate.set()
    until(lambda: client.get("/ready").status_code == 200)
    assert client.get("/ready").json() == {"status": "ready"}


def test_a_model_that_cannot_be_loaded(opened: Opener) -> None:
    def load() -> None:
        raise ReleaseError("The release /secret/place is damaged.")

    client = opened(wait=False, model=load)
    until(lambda: client.get("/ready").json()["error"]["code"] == "load_failed")
    answer = speak(client)
    assert answer.status_code == 503 and "secret" not in answer.text


def test_models(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["can_clone"]) == ("tiny", "model", True)
    assert client.get("/v1/models/tiny").json() == model


def test_metrics(opened: Opener) -> None:
    client = opened()
    speak(client), speak(client, voice="nobody"), client.get("/no/such/route")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")
    speech = 'voxclone_requests_total{route="/v1/audio/speech",status="%d"}'
    assert (lines[speech % 200], lines[speech % 404]) == ("1.0", "1.0")
    assert lines['voxclone_requests_total{route="-",status="404"}'] == "1.0"
    assert (lines["voxclone_ready"], lines["voxclone_speaking"]) == ("1.0", "0.0")
    assert float(lines["voxclone_speech_seconds_total"]) > 0.1
    assert lines["voxclone_first_sound_seconds_count"] == "1.0"
    assert float(lines["process_resident_memory_bytes"]) > 2**20


def test_the_log_has_neither_texts_nor_names(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    client = opened()
    with caplog.at_level(logging.INFO, "voxclone.serve.access"):
        speak(client, input="My secret words.")
        client.post("/v1/audio/voices", data=GIVEN, files=sample())
        client.get("/v1/audio/voices/dora")
        client.get("/x%0a%1b[2Jx", headers={"X-Request-Id": "bad id"})
        client.request("G%ET", "/")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [line["status"] for line in lines[:3]] == [200, 200, 200]
    assert lines[0]["route"] == "/v1/audio/speech" and lines[0]["characters"] == 16
    assert lines[2]["route"] == "/v1/audio/voices/{name}" and lines[3]["route"] == "-"
    assert all(line["ms"] >= 0 and len(line["id"]) <= 64 for line in lines)
    assert not any(word in caplog.text for word in ("secret", "dora", "Dora", "\x1b", "bad id"))

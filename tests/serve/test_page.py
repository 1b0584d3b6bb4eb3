"""The page: its files; and used in Chromium and Firefox, headless, with a fake microphone."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from tests.serve.conftest import syllables, until
from tests.serve.process import Served, serve
from voxclone.serve.status import PAGE
from voxclone.voice.file import read_metadata

KEY = "a-key-of-the-tests"
REFERENCE = Path(__file__).parents[2] / "examples" / "reference.flac"
STATEMENT = "I am Dora, this is my voice, and I agree that it is cloned."
TEXT = "The kids are talking by the door. The dogs are sitting in the sun."
FILES = sorted(PAGE.iterdir())


def test_the_page_names_no_other_host_and_no_file_that_is_missing(client: TestClient) -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    for name, content in text.items():
        foreign = re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", content)
        assert set(foreign) <= {"http://www.w3.org"}, name  # the name space of SVG
        for mentioned in re.findall(r"[\"'(](?:\./|page/)([\w.-]+)[\"')]", content):
            assert mentioned in text, (name, mentioned)
            assert client.get(f"/page/{mentioned}").status_code == 200
    ids = set(re.findall(r'id="([\w-]+)"', text["index.html"]))
    for name in text:
        used = re.findall(r'\$\("([\w-]+)"\)', text[name]) if name.endswith(".js") else []
        assert set(used) <= ids, (name, set(used) - ids)
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


slow = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve("mini", tmp_path_factory.mktemp("page") / "voices", "--api-key", KEY) as server:
        yield server


@pytest.fixture
def voice(served: Served) -> Iterator[Path]:
    """A stored voice `dora`."""
    import subprocess

    form = [f"audio_sample=@{REFERENCE}", "name=dora", "consent=self", f"statement={STATEMENT}"]
    command = [
        "curl",
        "-sSf",
        f"{served.url}/v1/audio/voices",
        "-H",
        f"Authorization: Bearer {KEY}",
    ]
    subprocess.run(
        [*command, *(part for f in form for part in ("-F", f))], check=True, capture_output=True
    )
    yield served.voices / "dora.voice.safetensors"
    empty(served.voices)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The system's Chromium, with the reference and then silence as its microphone."""
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    wave_S, rate = soundfile.read(REFERENCE, dtype="float32")
    microphone = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(microphone, np.concatenate([wave_S, 0 * wave_S]), rate, subtype="PCM_16")
    options = [
        "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]  # fmt: skip
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, served: Served, **options: Any) -> Iterator[Any]:
    """A page in which the key was entered. Nothing may go wrong in it, or to another host."""
    context = chromium.new_context(accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda each: None if each.url.startswith((served.url, "blob:")) else wrong.append(each.url),
    )
    page.goto(served.url)
    page.fill("#ask-key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.ready")
    wait(page, "document.querySelector('#voice').options.length > 0")
    yield page
    assert not wrong
    context.close()


def text_of(page: Any, selector: str) -> str:
    text: str = page.inner_text(selector)
    return text


def wait(page: Any, condition: str) -> None:
    """Until a condition holds. The page's policy forbids Playwright's `wait_for_function`."""
    until(lambda: page.evaluate(condition))


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@slow
def test_record_clone_and_speak(chromium: Any, served: Served, tmp_path: Path) -> None:
    with opened(chromium, served) as page:
        assert page.is_visible("#clone")  # there is no voice yet
        page.click("#record")
        wait(page, "document.querySelector('#meter-hint').textContent.startsWith('Good level')")
        wait(page, "parseFloat(document.querySelector('#timer').textContent) > 12.7")
        page.click("#record")
        page.wait_for_selector(".verdict")
        assert page.locator(".checks li").count() == 6
        checks = text_of(page, ".checks")
        assert re.search(r"Length: 1\d\.\d s", checks) and "one person" in checks
        for fields, missing in (
            ({}, "whose voice"), ({"consent": 1}, "who allows what"), ({"statement": 1}, "a name"),
        ):  # fmt: skip
            if "consent" in fields:
                page.check("[value=self]")
            if "statement" in fields:
                page.fill("#statement", STATEMENT)
            page.click("#make")
            assert missing in text_of(page, "#make-error")
            card = page.locator(".card:has(:focus)")  # the sentence stands by its field
            assert card.locator("#make-error").count() == 1
        page.fill("#name", "Dora")
        page.click("#make")
        page.wait_for_selector("#speak", state="visible")
        metadata = read_metadata(served.voices / "dora.voice.safetensors")
        assert (metadata.name, metadata.consent.kind) == ("dora", "self")
        assert metadata.consent.statement == STATEMENT

        assert page.input_value("#voice") == "dora"
        page.fill("#text", TEXT)
        page.fill("#seed", "3")
        page.focus("#text")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".scale")
        states = page.locator("#sentences .state").all_inner_texts()
        assert states == ["seed 3", "seed 4"]
        assert re.fullmatch(r"Similarity 0\.\d\d: .*", text_of(page, ".scale p"))
        assert text_of(page, ".scale").count("0.") == 3
        assert page.locator("#take .player").count() == 4  # sentences, speech, reference
        with page.expect_download() as download:
            page.click("#download-take")
        download.value.save_as(tmp_path / "take.wav")
        first, rate = soundfile.read(tmp_path / "take.wav")
        assert rate == 24000 and download.value.suggested_filename.startswith("dora-the-kids")

        page.locator("#sentences li").nth(1).get_by_text("Redo").click()
        state = "document.querySelectorAll('#sentences .state')[1].textContent"
        wait(page, f"{state}.match(/seed \\d{{2,}}/) && document.querySelector('.scale')")
        assert page.locator("#history-list > li").count() == 1
        with page.expect_download() as download:
            page.locator("#history-list").get_by_text("Download").click()
        download.value.save_as(tmp_path / "again.wav")
        second, _ = soundfile.read(tmp_path / "again.wav")
        kept = rate  # a second of the first sentence stays as it was
        assert np.array_equal(first[:kept], second[:kept]) and not np.array_equal(first, second)
        page.locator("#history-list").get_by_text("Use again").click()
        assert (page.input_value("#seed"), page.input_value("#text")) == ("3", TEXT)
    empty(served.voices)


@slow
def test_a_stopped_text_goes_on(chromium: Any, served: Served, tmp_path: Path) -> None:
    """Stop, and a full queue, in the middle of a text: what is there is kept, and the rest is
    spoken on demand. By keyboard, on a narrow screen; the whole is as if nothing had been."""
    sentences = ["The kids are talking.", "The dogs are sitting.", "The sun is warm."]
    asked = 0

    def answer(route: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            error = {"message": "The queue is full.", "type": "x", "param": None, "code": "x"}
            route.fulfill(status=429, json={"error": error}, headers={"Retry-After": "3"})
        elif asked != 2:  # which waits for ever
            route.continue_()

    def saved(page: Any, name: str) -> Any:
        with page.expect_download() as download:
            page.focus("#download-take")
            page.keyboard.press("Enter")
        download.value.save_as(tmp_path / name)
        return soundfile.read(tmp_path / name)[0]

    def history(page: Any) -> list[str]:
        titles: list[str] = page.locator("#history-list .title").all_inner_texts()
        return titles

    focused = "document.activeElement.id"
    players = "document.querySelectorAll('#sentences .player').length"
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    size = {"width": 320, "height": 800}
    with opened(chromium, served, viewport=size) as page:
        page.route("**/v1/audio/speech", answer)
        page.click("#tab-speak")
        assert "Ctrl + Enter" in text_of(page, "#text-count")
        page.fill("#text", " ".join(sentences))
        page.fill("#seed", "5")
        page.focus("#text")
        page.keyboard.press("Control+Enter")
        wait(page, f"{players} === 1")
        until(lambda: asked == 2 or page.evaluate("0"))
        assert page.is_hidden("#continue-button") and page.is_hidden("#download-take")
        page.focus("#stop-button")
        page.keyboard.press("Enter")
        wait(page, f"{focused} === 'continue-button'")
        states = page.locator("#sentences .state").all_inner_texts()
        assert states == ["seed 5", "stopped", "stopped"] and page.evaluate(wide) <= 0
        assert page.locator("#take-player .player").count() == 1
        first = saved(page, "first.wav")
        assert history(page) == sentences[:1] and page.is_hidden("#comparison")

        page.focus("#continue-button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#speak-error", state="visible")
        assert text_of(page, "#speak-error") == "The queue is full. Try again in 3 s."
        assert page.evaluate(focused) == "continue-button" and page.evaluate(wide) <= 0
        two = saved(page, "two.wav")
        assert history(page) == [" ".join(sentences[:2])]

        page.focus("#continue-button")
        page.keyboard.press("Enter")
        wait(page, f"{players} === 3 && document.querySelector('#continue-button').hidden")
        assert page.is_hidden("#speak-error") and asked == 5
        until(lambda: history(page) == [" ".join(sentences)])
        whole = saved(page, "whole.wav")
        assert len(first) < len(two) < len(whole)
        assert np.array_equal(first, two[: len(first)]) and np.array_equal(two, whole[: len(two)])
        page.click("#speak-button")
        until(lambda: history(page) == 2 * [" ".join(sentences)])
        assert np.array_equal(saved(page, "again.wav"), whole)


@slow
def test_a_redo_that_fails_changes_nothing(chromium: Any, served: Served) -> None:
    """Stopped or refused: the old sound keeps its seed, its mark and its place in the whole."""
    asked: list[int] = []

    def answer(route: Any) -> None:
        asked.append(json.loads(route.request.post_data)["seed"])
        if len(asked) == 1:
            audio = base64.b64encode(bytes(48_000)).decode()
            sound = {"type": "speech.audio.delta", "audio": audio}
            done = {"type": "speech.audio.done", "truncated": 1}
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in (sound, done))
            route.fulfill(body=body, content_type="text/event-stream")
        elif len(asked) == 3:
            error = {"message": "The queue is full.", "type": "x", "param": None, "code": "x"}
            route.fulfill(status=429, json={"error": error}, headers={"Retry-After": "3"})
        elif len(asked) == 4:
            route.continue_()  # the second waits for ever

    def shown(page: Any) -> tuple[str, int, int]:
        """The state of the sentence, its marks, and how often a sound was begun."""
        marks = page.locator("#sentences .warning").count()
        return text_of(page, "#sentences .state"), marks, page.evaluate("window.begun")

    with opened(chromium, served) as page:
        page.evaluate(
            """() => {
              window.begun = 0;
              const play = HTMLMediaElement.prototype.play;
              HTMLMediaElement.prototype.play = function () {
                window.begun++;
                return play.call(this);
              };
            }"""
        )
        page.route("**/v1/audio/speech", answer)
        page.click("#tab-speak")
        page.fill("#text", "The kids are talking.")
        page.fill("#seed", "5")
        page.click("#speak-button")
        until(lambda: shown(page) == ("seed 5", 1, 1))
        page.locator("#sentences").get_by_text("Redo", exact=True).click()
        until(lambda: len(asked) == 2 or page.evaluate("0"))
        page.click("#stop-button")
        page.wait_for_selector("#stop-button", state="hidden")
        assert shown(page) == ("seed 5", 1, 1)
        page.locator("#sentences").get_by_text("Redo", exact=True).click()
        page.wait_for_selector("#speak-error", state="visible")
        assert shown(page) == ("seed 5", 1, 1)
        page.locator("#sentences").get_by_text("Redo", exact=True).click()
        until(lambda: shown(page) == (f"seed {asked[-1]}", 0, 2))
        assert len(set(asked)) == len(asked) == 4


@slow
def test_a_redo_that_is_stopped_changes_no_seed(chromium: Any, served: Served) -> None:
    """Of a sentence without sound: "Continue" speaks it as if nothing had been."""
    asked: list[int] = []

    def answer(route: Any) -> None:
        asked.append(json.loads(route.request.post_data)["seed"])
        if len(asked) not in (2, 3):  # which wait for ever
            route.continue_()

    states = "#sentences .state"
    with opened(chromium, served) as page:
        page.route("**/v1/audio/speech", answer)
        page.click("#tab-speak")
        page.fill("#text", "The kids are talking. The sun is warm.")
        page.fill("#seed", "5")
        page.click("#speak-button")
        until(lambda: len(asked) == 2 or page.evaluate("0"))
        page.click("#stop-button")
        page.wait_for_selector("#stop-button", state="hidden")
        page.locator("#sentences li").nth(1).get_by_text("Redo", exact=True).click()
        until(lambda: len(asked) == 3 or page.evaluate("0"))
        page.click("#stop-button")
        page.wait_for_selector("#stop-button", state="hidden")
        page.click("#continue-button")
        wait(page, "document.querySelector('#continue-button').hidden")
        until(lambda: page.locator(states).all_inner_texts() == ["seed 5", "seed 6"])
    assert (asked[:2], asked[3:]) == ([5, 6], [6]) and asked[2] not in (5, 6)


@slow
def test_two_questions_are_two(chromium: Any, served: Served) -> None:
    """A browser tells only later that a dialog has closed: the next one is not taken for it."""
    with opened(chromium, served) as page:
        page.evaluate(
            """async () => {
              const { ask } = await import("/page/dom.js");
              const field = [{ label: "Name", name: "name", value: "dora" }];
              window.answers = ["none", "none"];
              ask("First", "One?", "Yes", field).then((given) => { window.answers[0] = given; });
              await new Promise((resolve) => setTimeout(resolve));
              document.querySelector("#ask-yes").click();
              ask("Second", "Two?", "Yes").then((given) => { window.answers[1] = given; });
            }"""
        )
        page.wait_for_selector("#ask-title >> text=Second")
        assert page.evaluate("window.answers") == [{"name": "dora"}, "none"]
        page.click("#ask-yes")
        wait(page, "window.answers[1] !== 'none'")
        assert page.evaluate("window.answers[1]") == {} and page.is_hidden("#ask")


@slow
def test_voices_by_keyboard(chromium: Any, served: Served, voice: Path, tmp_path: Path) -> None:
    """Rename, export, download, delete, import: with keys alone but for the choice of a file."""
    with opened(chromium, served) as page:
        page.focus("#tab-speak")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert (
            page.is_visible("#voices")
            and page.evaluate("document.activeElement.id") == "tab-voices"
        )

        def press(name: str) -> None:
            page.get_by_role("button", name=name, exact=True).focus()
            page.keyboard.press("Enter")

        press("Listen to the reference of dora")
        page.wait_for_selector("#voices .player canvas")
        page.focus("#voices .player canvas")
        page.keyboard.press("End")
        assert "12.6 / 12.6 s" in text_of(page, "#voices .player")
        press("Rename dora")
        page.keyboard.press("Control+A")
        page.keyboard.type("../eva")
        page.keyboard.press("Enter")
        page.wait_for_selector("#voices-error", state="visible")
        assert "a-z" in text_of(page, "#voices-error")
        press("Rename dora")
        page.keyboard.press("Control+A")
        page.keyboard.type("eva")
        page.keyboard.press("Enter")
        page.wait_for_selector("#voice-list >> text=eva")
        with page.expect_download() as download:
            press("Download eva")
        download.value.save_as(tmp_path / "eva.voice.safetensors")
        assert read_metadata(tmp_path / "eva.voice.safetensors").name == "eva"
        page.click("text=Export to another program")
        for runtime in page.locator("select[id^=runtime] option").all_inner_texts():
            page.select_option("select[id^=runtime]", runtime)
            hint = text_of(page, "#voice-list details .hint")
            assert f"You get eva-{runtime}." in hint and not re.search("NAME|FILE", hint)
            if runtime in ("voxtral-tts.c", "faster-voxtral"):  # for models of one width
                press("Export eva")
                page.wait_for_selector(f"#voices-error >> text={runtime} would not speak")
                continue
            with page.expect_download() as download:
                press("Export eva")
            assert download.value.suggested_filename.startswith(f"eva-{runtime}")
        page.click("text=About this voice")
        page.wait_for_selector(f"text={STATEMENT}")
        press("Delete eva")
        assert "danger" in (page.get_attribute("#ask-yes", "class") or "")
        page.keyboard.press("Enter")
        page.wait_for_selector("#no-voices", state="visible")
        assert list(served.voices.iterdir()) == []
        exported = tmp_path / "eva.voice.safetensors"
        page.set_input_files("#import", exported)
        page.wait_for_selector("#ask-text >> text=leave the name empty")
        page.keyboard.press("Enter")
        page.wait_for_selector("#voice-list >> text=eva")
        page.set_input_files("#import", exported)
        page.wait_for_selector("#ask-text >> text=leave the name empty")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-text >> text=choose another name")
        page.keyboard.type("Fay")
        page.keyboard.press("Enter")
        page.wait_for_selector("#voice-list >> text=fay")
        page.set_input_files("#import", exported)
        page.wait_for_selector("#ask-name")
        page.keyboard.press("Escape")
        assert sorted(path.name[:4] for path in served.voices.iterdir()) == ["eva.", "fay."]
        page.set_input_files("#import", REFERENCE)
        page.wait_for_selector("#ask-name")
        page.keyboard.press("Enter")
        page.wait_for_selector("#voices-error", state="visible")
    empty(served.voices)


@slow
def test_clips_that_are_no_good(chromium: Any, served: Served, tmp_path: Path) -> None:
    """Too short, quiet and noisy; no recording at all; a microphone that is refused; a drop."""
    soundfile.write(tmp_path / "bad.wav", 0.01 * syllables(2.0)[::3], 8000, subtype="PCM_16")
    (tmp_path / "text.wav").write_text("no sound")
    with opened(chromium, served) as page:
        page.set_input_files("#file", tmp_path / "bad.wav")
        page.wait_for_selector(".verdict.bad")
        report = text_of(page, "#clip-report")
        assert "Record more" in report and "Telephone quality" in report
        page.set_input_files("#file", tmp_path / "text.wav")
        page.wait_for_selector("#clip-error", state="visible")
        assert not page.query_selector(".verdict")
        data = list(REFERENCE.read_bytes())
        page.evaluate(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "reference.flac"));
              const options = { dataTransfer: data, bubbles: true, cancelable: true };
              document.querySelector("#drop").dispatchEvent(new DragEvent("drop", options));
            }""",
            data,
        )
        page.wait_for_selector(".verdict.good")
        page.evaluate(
            """() => {
              const refused = new DOMException("no", "NotAllowedError");
              navigator.mediaDevices.getUserMedia = () => Promise.reject(refused);
            }"""
        )
        page.click("#record")
        page.wait_for_selector("#clip-error", state="visible")
        assert "microphone" in text_of(page, "#clip-error")
        page.context.set_offline(True)
        page.set_input_files("#file", tmp_path / "bad.wav")
        page.wait_for_selector("text=cannot be reached")


CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.disabled) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.textContent.slice(0, 40), ratio]);
  }
  return low;
}"""


NAMELESS = """[...document.querySelectorAll('button, input, textarea, select, [role=slider]')]
  .filter((each) => each.checkVisibility() && !each.getAttribute("aria-label"))
  .filter((each) => !each.labels?.length && !each.textContent.trim())
  .map((each) => each.outerHTML)"""


@slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_every_view_fits_and_can_be_read(
    chromium: Any, served: Served, voice: Path, width: int, scheme: str
) -> None:
    """No view is wider than the screen; all texts have a contrast of 4.5; buttons have names."""
    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    size = {"width": width, "height": 800}
    with opened(chromium, served, viewport=size, color_scheme=scheme, **phone) as page:
        assert ("Ctrl" in text_of(page, "#text-count")) == (width >= 500)  # a phone has no keys
        page.click("#speak-button")  # with nothing to say: a message
        page.fill("#text", "Hello there.")
        page.select_option("#voice", "dora")
        page.click("#speak-button")
        page.wait_for_selector(".scale")
        boxes = [tick.bounding_box() for tick in page.locator(".scale .tick").all()]
        assert boxes[0]["x"] + boxes[0]["width"] + 4 <= boxes[1]["x"]
        assert boxes[1]["x"] + boxes[1]["width"] <= width
        for view in ("speak", "clone", "voices"):
            page.click(f"#tab-{view}")
            page.evaluate(
                "document.querySelectorAll('details').forEach((each) => each.open = true)"
            )
            page.wait_for_timeout(300)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, view
            assert page.evaluate(CONTRAST) == [], (view, scheme)
            assert page.evaluate(NAMELESS) == []
        page.set_input_files("#import", voice)
        page.wait_for_selector("#ask-name")
        assert page.evaluate(wide) <= 0 and page.evaluate(CONTRAST) == []
        box = page.locator("#ask").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


@slow
def test_firefox(served: Served, tmp_path: Path) -> None:
    """Record a tone, choose a file, clone, speak, compare."""
    pytest.importorskip("websockets")
    from tests.serve.firefox import firefox

    program = shutil.which("firefox") or shutil.which("firefox-esr")
    if program is None:
        pytest.skip("there is no Firefox")
    click = "document.querySelector('%s').click()"
    value = "Object.assign(document.querySelector('%s'), {value: %s})"
    with firefox(program, tmp_path / "profile") as page:
        page.open(served.url)
        page.until("document.querySelector('#ask-key')")
        page.run(value % ("#ask-key", json.dumps(KEY)))
        page.run(click % "#ask-yes")
        page.until(
            "document.querySelector('.chip.ready') && !document.querySelector('#clone').hidden"
        )
        page.run(click % "#record")
        failed = "!document.querySelector('#clip-error').hidden"
        page.until(f"parseFloat(document.querySelector('#timer').textContent) > 4 || {failed}")
        if page.run(failed):  # a computer without sound output
            assert "NotReadableError" in page.run("document.querySelector('#clip-error').innerText")
        else:
            page.run(click % "#record")
            page.until("document.querySelectorAll('.checks li').length === 6")
        page.set_file("#file", REFERENCE)
        page.until("document.querySelector('.verdict.good')")
        page.run(click % "[value=self]")
        page.run(value % ("#statement", json.dumps(STATEMENT)))
        page.run(value % ("#name", "'dora'"))
        page.run(click % "#make")
        page.until("!document.querySelector('#speak').hidden")
        page.run(value % ("#text", json.dumps(TEXT)))
        page.run(click % "#speak-button")
        page.until("document.querySelector('.scale')")
        canvas = "document.querySelector('#take-player canvas').getContext('2d')"
        assert page.run(f"{canvas}.getImageData(0, 0, 99, 44).data.some(Boolean)")
        times = "[...document.querySelectorAll('#take .time')]"
        page.until(f"{times}.some((each) => parseFloat(each.textContent) > 0.2)")
        assert (served.voices / "dora.voice.safetensors").exists()
        assert not page.errors
        assert all(url.startswith((served.url, "blob:", "data:")) for url in page.requests)
    empty(served.voices)

"""The page about runs in a real browser: nothing on its console, no request, light and dark, narrow and wide."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from made_runs import write_data, write_run

from figures.report.__main__ import write

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
INSIDE = ("file:", "data:", "about:", "chrome:", "devtools:")

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


class Browser:
    """A headless Chromium, spoken to as the WebDriver protocol has it."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._driver = subprocess.Popen([DRIVER, f"--port={port}"], **quiet)
        self._url = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": logs}}}
        for _ in range(100):
            with contextlib.suppress(OSError):
                if self._call("GET", "/status")["ready"]:
                    break
            time.sleep(0.1)
        self._url += f"/session/{self._call('POST', '/session', asked)['sessionId']}"

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def tell(self, command, **given):
        """A command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": given})

    def show(self, path, wide, scheme, high=800):
        """Open a file in a window ``wide`` pixels wide, with light or dark colours."""
        self.tell("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("POST", "/url", {"url": path.resolve().as_uri()})

    def ask(self, script):
        """What a function body of JavaScript returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def log(self, kind):
        """The lines since the last call: `browser` is the console."""
        return self._call("POST", "/se/log", {"type": kind})

    def picture(self, path):
        """The whole page as PNG."""
        shot = self.tell("Page.captureScreenshot", captureBeyondViewport=True, clip=self._whole())
        path.write_bytes(base64.b64decode(shot["data"]))

    def _whole(self):
        size = self.tell("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self._call("DELETE", "")
        self._driver.terminate()
        self._driver.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Of several runs with long names, of a detector, and of one that has only begun."""
    root = tmp_path_factory.mktemp("pages")
    single, boxes = (write_data(root / task, task) for task in ("single_label", "detection"))
    runs = [write_run(root / "runs", single, f"{'long_' * 12}{seed}", seed=seed) for seed in (0, 1)]
    runs += [write_run(root / "runs", single, f"alone_{seed}", seed=seed, teacher=False) for seed in (0, 1)]
    begun = write_run(root / "runs", single, "begun", epochs=0)
    (begun / "best.pt").unlink()
    detector = write_run(root / "runs", boxes, "boxes", task="detection", teacher=False)
    made = {}
    for name, folders in {"several": runs, "boxes": [detector], "begun": [begun]}.items():
        made[name] = root / f"{name}.html"
        write(folders, made[name], 100)
    return made


@pytest.mark.parametrize("name", ["several", "boxes", "begun"])
def test_it_is_quiet_and_fits_and_asks_for_nothing(browser, pages, name):
    colors = {}
    for wide in (360, 1440):
        for scheme in ("light", "dark"):
            browser.log("browser")
            browser.log("performance")
            browser.show(pages[name], wide, scheme)
            assert browser.ask("return document.documentElement.scrollWidth") <= wide
            assert browser.ask("return document.title").endswith("- Limbeck")
            assert [line["message"] for line in browser.log("browser")] == []
            events = [json.loads(line["message"])["message"] for line in browser.log("performance")]
            sent = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
            assert pages[name].resolve().as_uri() in sent
            assert [url for url in sent if not url.startswith(INSIDE)] == []
            style = "getComputedStyle(document.body)"
            colors[scheme] = browser.ask(f"return [{style}.color, {style}.backgroundColor]")
        assert colors["light"][0] != colors["light"][1]
        assert {*colors["light"]}.isdisjoint(colors["dark"])


def test_every_picture_is_shown_and_its_style_is_let_in(browser, pages):
    browser.show(pages["several"], 1440, "light")
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    widths = browser.ask("return [...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert widths
    assert min(widths) > 0
    assert browser.ask("return getComputedStyle(document.querySelector('.line')).fill") == "none"
    browser.show(pages["boxes"], 1440, "light")
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    areas = browser.ask(
        "return [...document.querySelectorAll('.scene use, .scene image')].map(one => one.getBBox().width)"
    )
    assert areas
    assert min(areas) > 0


def test_values_stand_under_the_pointer(browser, pages):
    browser.show(pages["several"], 1440, "light")
    shown = "[...document.querySelectorAll('.tip')].filter(one => getComputedStyle(one).visibility == 'visible')"
    chart = "document.querySelector('#curves .charts svg')"
    assert browser.ask(f"return {shown}.length") == 0
    browser.ask(f"{chart}.scrollIntoView({{block: 'center'}})")
    frame = browser.ask(f"const box = {chart}.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]")
    x, y = frame[0] + 0.9 * frame[2], frame[1] + 0.5 * frame[3]
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    time.sleep(0.1)
    assert browser.ask(f"return {shown}.length") == 1
    assert browser.ask(f"return {shown}[0].textContent").startswith("epoch 3")


def test_parts_of_the_page_are_reached_from_its_top(browser, pages):
    browser.show(pages["several"], 360, "dark")
    missing = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href')))"
    assert browser.ask(f"return {missing}.length") == 0
    assert browser.ask("return document.querySelectorAll('nav a').length") > 5

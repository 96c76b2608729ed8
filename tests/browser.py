"""Headless Chromium, driven over its own pipe: no library, no port, no network.

page on disk ─▶ Browser.open(width, dark) ─▶ Tab: what the console said, what was asked for, JavaScript, a picture

The DevTools protocol: JSON messages that end in a zero byte, commands on descriptor 3 and answers on descriptor 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip


def chromium() -> str | None:
    """The browser's program; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """A running browser.

    Args:
        send, receive: descriptors of its pipe.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._number = send, receive, b"", 0
        self._events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command; what happens until its answer is kept as events."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found.get('error')}"
                return dict(found["result"])
            self._events.append(found)

    def wait(self, method: str) -> None:
        """Until an event of this name has come."""
        while not any(one.get("method") == method for one in self._events):
            self._events.append(self._next())

    def take(self) -> list[dict[str, Any]]:
        """The events so far; they are kept no longer."""
        events, self._events = self._events, []
        return events

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._receive, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


class Tab:
    """One page in a window of some width.

    Attributes:
        complaints: what the console, and the page's own errors, said while it was loaded.
        asked: addresses that the page asked for, itself left out.
    """

    def __init__(self, browser: Browser, page: Path, width_px: int, *, dark: bool) -> None:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._browser = browser
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")
        self._do("Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._do("Emulation.setEmulatedMedia", features=scheme)
        browser.take()
        self._address = page.resolve().as_uri()
        self._do("Page.navigate", url=self._address)
        browser.wait("Page.loadEventFired")
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        self.complaints, self.asked = self._told(browser.take())

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def _told(self, events: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
        complaints, asked = [], []
        for one in events:
            found = one.get("params", {})
            if one["method"] == "Runtime.consoleAPICalled":
                complaints.append(str(found["args"]))
            elif one["method"] == "Runtime.exceptionThrown":
                complaints.append(str(found["exceptionDetails"]))
            elif one["method"] == "Log.entryAdded":
                complaints.append(found["entry"]["text"])
            elif one["method"] == "Network.requestWillBeSent":
                asked.append(found["request"]["url"])
        own = (self._address, "data:", "about:blank")
        return complaints, [address for address in asked if not address.startswith(own)]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, file: Path, *, most_height_px: int = 16_000, top_px: int = 0) -> None:
        """The page as a PNG, from some height on."""
        size = self._do("Page.getLayoutMetrics")["cssContentSize"]
        height = min(size["height"] - top_px, most_height_px)
        clip = {"x": 0, "y": top_px, "width": size["width"], "height": height, "scale": 1}
        found = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Close the page."""
        self._do("Page.close")


def _high(fd: int) -> int:
    """The same file under a number above 9: 3 and 4 are given to the browser."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return high


@contextmanager
def started_browser(program: str) -> Iterator[Browser]:
    """A browser, for as long as the block lasts."""
    theirs, send, receive, back = (_high(fd) for pipe in (os.pipe(), os.pipe()) for fd in pipe)
    with tempfile.TemporaryDirectory(prefix="vidxfer-browser", ignore_cleanup_errors=True) as profile:
        words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = f'exec "$@" 3<&{theirs} 4>&{back}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words], pass_fds=(theirs, back), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        browser = Browser(send, receive)
        try:
            yield browser
            browser.call("Browser.close")
        finally:
            os.close(send)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(receive)

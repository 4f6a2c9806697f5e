"""A headless Chromium, spoken to through its DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-sync", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """One page; `complaints` are what its console and its scripts said was wrong."""

    def __init__(self, to: IO[bytes], back: IO[bytes]) -> None:
        self._to, self._back = to, back
        self._number = 0
        self._session = ""
        self.complaints: list[str] = []
        self._events: list[str] = []

    def call(self, method: str, **params: object) -> Any:
        """The result of a DevTools command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._to.write(
            json.dumps(
                {**message, **({"sessionId": self._session} if self._session else {})}
            ).encode()
            + b"\0"
        )
        self._to.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> Any:
        data = b""
        while not data.endswith(b"\0"):
            byte = self._back.read(1)
            assert byte, "chromium ended"
            data += byte
        answer = json.loads(data[:-1])
        event = answer.get("method", "")
        self._events.append(event)
        if event in ("Runtime.exceptionThrown", "Log.entryAdded") or (
            event == "Runtime.consoleAPICalled"
            and answer["params"]["type"] in ("error", "warning", "assert")
        ):
            self.complaints.append(json.dumps(answer["params"]))
        return answer

    def open(self, url: str) -> None:
        """Goes there, and waits until it is loaded."""
        if not self._session:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        self._events.clear()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._next()

    def requests(self) -> int:
        """How many resources were asked for since the page was opened."""
        return self._events.count("Network.requestWillBeSent")

    def value(self, script: str) -> Any:
        """What the script's expression is."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Writes what the page looks like."""
        path.write_bytes(
            b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        )


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A page in a fresh Chromium, which ends with it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("chromium is not installed (tools/setup-test installs it)", pytrace=False)
    commands, to = os.pipe()
    back, answers = os.pipe()
    redirect = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    words = ["bash", "-c", redirect, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    browser = subprocess.Popen(
        words, pass_fds=(commands, answers), stdin=quiet, stdout=quiet, stderr=quiet
    )
    os.close(commands)
    os.close(answers)
    with os.fdopen(to, "wb") as writer, os.fdopen(back, "rb") as reader:
        opened = Page(writer, reader)
        try:
            yield opened
        finally:
            opened._session = ""
            opened.call("Browser.close")
            browser.wait(timeout=30)

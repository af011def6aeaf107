"""`dlq serve` as a process: TLS, its page in a browser without a network, Ctrl-C."""

import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sahool_dlq.demo.certificates import Authority
from sahool_dlq.serving.tokens import Tokens
from sahool_dlq.settings import Settings
from support.chromium import CHROMIUM, PATIENCE_MS, chromium
from support.platform_log import DLQ, environment


@contextmanager
def serving(settings: Settings, *words: str, end: signal.Signals = signal.SIGINT) -> Iterator[str]:
    """The address of the service; at the end it gets a signal, and must end well."""
    process = subprocess.Popen(
        [*DLQ, "serve", "--port", "0", "--json", *words],
        env=environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(end)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_over_tls_a_token_from_the_file_is_taken(settings: Settings, tmp_path: Path) -> None:
    """The certificate is the service's own; the token is made while it runs."""
    ca = Authority(tmp_path)
    ca.issue("dlq", "127.0.0.1")
    files = ("--tls-cert", str(tmp_path / "dlq.pem"), "--tls-key", str(tmp_path / "dlq.key"))
    trusted = ssl.create_default_context(cafile=str(ca.file))
    with serving(settings, *files, end=signal.SIGTERM) as url:
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=url, verify=trusted, trust_env=False, timeout=60) as client:
            headers = {"Authorization": f"Bearer {Tokens(settings).add('ana', ['analyst'])}"}
            assert client.get("/v1/batches", headers=headers).json() == {"batches": []}
            Tokens(settings).remove("ana")
            assert client.get("/v1/batches", headers=headers).status_code == 401


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs")
def test_the_page_of_requests_loads_nothing_from_elsewhere(settings: Settings) -> None:
    with serving(settings) as url, chromium() as browser:
        asked: list[str] = []
        errors: list[str] = []
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"{url}/docs")
        tab.wait_for_selector(".opblock")
        shown = tab.locator(".opblock-summary-path").all_inner_texts()
        tab.close()
    assert [each for each in asked if not each.startswith((url, "data:"))] == []
    assert errors == []
    assert len(shown) > 18

"""The page as a process: what it refuses, how it ends, `flicker show`, and who may slow whom."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from page.main import PageFlags
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.errors import FlickerError
from simulator.flags import parse_flags
from simulator.measures.words import number
from simulator.result import read_result
from tests.page.conftest import CHROMIUM, FLAGS, Open
from tests.page.live import ROOT, Live, Served, until
from tests.page.test_results import result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "router = none: name one, or --metrics, or results with --runs"),
        (["--router", "nowhere"], "router = nowhere: host:port"),
        (["--metrics", "localhost:9"], "metrics = localhost:9: an address such as"),
        (["--runs", "no-such-folder"], "runs = no-such-folder: nothing there"),
        (["--runs", ".", "--port", "70000"], "port = 70000: from 0 to 65535"),
    ],
)
def test_bad_settings_are_told(arguments: list[str], words: str) -> None:
    with pytest.raises(FlickerError, match=f"^{re.escape(words)}"):
        parse_flags(PageFlags, "page", arguments)


def test_what_cannot_be_served_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {"FLICKER_PAGE_TOKEN = nothing": ["--host", "0.0.0.0"], f"port = {port}: ": ["--port", str(port)]}
        for words, more in cases.items():
            command = [sys.executable, "-m", "page", "--runs", str(tmp_path), *more]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
            assert done.returncode == 2 and done.stdout == ""
            assert done.stderr.startswith(f"page: {words}") and len(done.stderr.splitlines()) == 1


def test_flicker_show_shows_results_alone_and_ends_in_time(tmp_path: Path, tab: Open) -> None:
    (folder,) = [result(tmp_path / "run", seed=7)]
    command = [sys.executable, "-m", "simulator", "show", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Page: ").strip()
        page = tab(url).page
        page.get_by_role("tab", name="Runs").click()
        table = page.locator("table", has_text="other / one")
        until(lambda: "0.500" in table.inner_text(), "the paired ratio of pair swaps")
        assert page.get_by_role("tab").all_inner_texts() == ["Runs", "What if"]
        page.get_by_role("tab", name="What if").click()
        page.get_by_label("Measure", exact=True).select_option("pair")
        models = page.get_by_label("Independent models")
        models.select_text()
        models.press_sequentially("3")
        models.press("Enter")
        (relu, _) = read_result(folder).arms
        seen = what_a_user_sees(relu, Situation(models=3), "pair")
        assert seen is not None
        table = page.locator("table", has_text="by another model")
        until(lambda: number(seen.total.mean) in table.inner_text(), "what the decision module says")
        page.get_by_label("A refresh every").fill("never")
        page.get_by_label("A refresh every").blur()
        page.get_by_text("refresh-every = never: a number and s, m, h or d").wait_for()
        process.terminate()
        began = time.monotonic()
        process.wait(20)
        print(f"ended after {time.monotonic() - began:.1f} s with a viewer")
        assert process.returncode in (0, -15) and process.stdout.read() == ""


def test_only_health_is_answered_to_who_knows_nothing(tmp_path: Path) -> None:
    with Served("--runs", tmp_path) as served:
        where = urlsplit(served.url)
        for path, status in (("/healthz", 200), ("/", 200), ("/docs", 404), ("/openapi.json", 404)):
            connection = http.client.HTTPConnection(where.netloc, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == status
            connection.close()


def browser(started: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes of a browser, the one that was started last."""
    parent = psutil.Process(started.pid)
    return [*parent.children(recursive=True), parent]


def test_a_viewer_who_reads_nothing_slows_nobody(tab: Open, tmp_path: Path) -> None:
    """The browser of one of two viewers is stopped: the other one goes on, and the page's memory stays bounded."""
    live = Live()
    try:
        with Served("--router", live.address, "--metrics", *live.metrics) as served:
            process = psutil.Process(served.process.pid)
            other = tab(served.url).page
            other.locator(".worries").wait_for()
            command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", served.url]
            slow = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                until(lambda: len(process.net_connections()) >= 4, "both look")
                for one in browser(slow):
                    with suppress(psutil.NoSuchProcess):  # some of them live for a moment only
                        one.suspend()
                before = process.memory_info().rss
                for losses in range(5):
                    live.trainer.log_loss.labels("relu").set(0.1 + losses / 10)
                    other.get_by_text(f"0.{1 + losses}000").first.wait_for()
                assert process.memory_info().rss - before < 20e6
            finally:
                for one in browser(slow):
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                slow.wait()
    finally:
        live.close()

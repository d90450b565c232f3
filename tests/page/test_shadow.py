"""`flicker show --metrics`: the page of a proxy in front of anybody's model servers, which has no router to ask."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect
from prometheus_client import CollectorRegistry, start_http_server

from serving.metrics import GrpcMetrics, ProxyMetrics
from simulator.measures.registry import MEASURES
from tests.page.conftest import Open
from tests.page.live import Served, until


def test_a_proxy_is_shown_by_its_metrics_page_alone(tab: Open) -> None:
    registry = CollectorRegistry()
    GrpcMetrics(registry, (1.0,))
    proxy = ProxyMetrics(registry, 60.0)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    with Served("--metrics", f"http://127.0.0.1:{server.server_port}/metrics") as served:
        one = tab(served.url)
        expect(one.page.get_by_role("tab")).to_have_text(["Now", "What if"])
        cell = one.page.locator("tr", has_text="pair swaps").first.locator("td b")

        def is_shown() -> bool:
            proxy.record("ranker-new", "duplicate", np.tile([1.0, 4.0], (len(MEASURES), 1)))
            return cell.all_inner_texts() == ["0.250"]

        until(is_shown, "a quarter of the pairs stand in another order")
        expect(one.page.locator("thead", has_text="ranker-new").first).to_be_visible()
        assert one.errors == []
    server.shutdown()
    server.server_close()
    thread.join()

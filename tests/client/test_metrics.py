"""Metrics: Prometheus' text form, the little server, and what a work queue shows."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.client.metrics import Metrics, open_metrics_server
from k8slite.client.queue_metrics import watch_queue
from k8slite.client.workqueue import WorkQueue
from raftkv.host import Address
from raftkv.os_host import OsHost


def test_the_text_form() -> None:
    metrics = Metrics()
    metrics.counter("seen_total", ("what",)).add('a "b"\n')
    metrics.histogram("took_seconds", (), (0.1, 1)).observe(0.5)
    metrics.histogram("took_seconds", (), (0.1, 1)).observe(7)
    metrics.gauge("now", (), lambda: {(): 3.0})
    metrics.counter("never_total")
    assert metrics.text().splitlines() == [
        "# TYPE seen_total counter",
        'seen_total{what="a \\"b\\"\\n"} 1',
        "# TYPE took_seconds histogram",
        'took_seconds_bucket{le="0.1"} 0',
        'took_seconds_bucket{le="1"} 1',
        'took_seconds_bucket{le="+Inf"} 2',
        "took_seconds_sum 7.5",
        "took_seconds_count 2",
        "# TYPE now gauge",
        "now 3",
    ]


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /metrics HTTP/1.1", "200 OK", "seen_total 1"),
        ("GET /healthz?verbose HTTP/1.1", "200 OK", "ok"),
        ("GET /etc/passwd HTTP/1.1", "404 Not Found", "404 page not found"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "405"),
        ("nonsense", "405 Method Not Allowed", "405"),
    ],
)
async def test_the_server(request_line: str, status: str, body: str) -> None:
    metrics = Metrics()
    metrics.counter("seen_total").add()
    host = OsHost("test")
    async with open_metrics_server(host, Address("127.0.0.1", 0), metrics) as address:
        stream = await host.net.open_stream(address)
        await stream.send_all(f"{request_line}\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while chunk := await stream.receive_some():
            answer += chunk
        await stream.aclose()
    head, _, text = answer.decode().partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}")
    assert body in text


async def test_what_a_queue_shows(autojump_clock: trio.testing.MockClock) -> None:
    metrics, queues = Metrics(), dict[str, WorkQueue[Any]]()
    queue: WorkQueue[str] = WorkQueue()
    watch_queue(metrics, queues, "things", queue)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    await trio.sleep(2)
    key = await queue.get()
    await trio.sleep(3)
    text = metrics.text()
    assert 'workqueue_adds_total{name="things"} 2' in text, "one that waits is not added twice"
    assert 'workqueue_depth{name="things"} 1' in text
    assert 'workqueue_longest_running_processor_seconds{name="things"} 3' in text
    assert 'workqueue_queue_duration_seconds_sum{name="things"} 2' in text
    queue.add_rate_limited(key)
    queue.add(key)
    queue.done(key)
    text = metrics.text()
    assert 'workqueue_retries_total{name="things"} 1' in text
    assert 'workqueue_work_duration_seconds_sum{name="things"} 3' in text
    assert 'workqueue_depth{name="things"} 2' in text

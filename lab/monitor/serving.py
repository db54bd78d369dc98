"""HTTP on loopback, read only: `/` for people and the live table, `/metrics`, `/health`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lab.monitor.metrics import Metrics
from lab.monitor.summary import Summary
from lab.stack.plan import State
from messaging.errors import InputRefused

LOOPBACK = "127.0.0.1"
CLOSE_S = 1.0


@asynccontextmanager
async def served(summary: Summary, port: int) -> AsyncIterator[None]:
    """Serve until left.

    Raises:
        InputRefused: the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(Metrics(summary))

    async def everything(request: web.Request) -> web.Response:
        body = msgspec.json.encode(summary.object())
        return web.Response(body=body, content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(registry), headers=headers)

    async def health(request: web.Request) -> web.Response:
        status = 503 if summary.state == State.WAITING else 200
        text = f"{summary.state} {summary.note}".rstrip() + "\n"
        return web.Response(text=text, status=status)

    served = web.Application()
    served.router.add_get("/", everything)
    served.router.add_get("/metrics", metrics)
    served.router.add_get("/health", health)
    runner = web.AppRunner(served, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, LOOPBACK, port, shutdown_timeout=CLOSE_S).start()
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"{LOOPBACK}:{port}"
            raise InputRefused(where, expected="a free port", found=reason) from None
        yield
    finally:
        await runner.cleanup()

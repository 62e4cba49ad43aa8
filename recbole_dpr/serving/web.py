"""The web page and `POST /recommend`, on starlette and uvicorn.

    GET  /            the page          GET /health     is it up, and with which model
    POST /recommend   one request       GET /items?q=   items whose title or token holds a text
    GET  /users       a few histories   GET /items?id=  titles of items by token (id= may be repeated)

Every answer but the page is JSON; a refused request gets ``{"error": ...}`` and a status of 400 (wrong),
404, 405, 408 (sent too slowly), 413 (too large) or 503 (took too long). Only the refusal of a foreign host
name is starlette's own line of text.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recbole_dpr.errors import DPRError
from recbole_dpr.serving.recommender import Recommender
from recbole_dpr.serving.requests import Limits, parse_request, respond

PAGE = Path(__file__).parent / "page"
FOUND = 12  # titles that a search gives at most
WORKERS = 4  # requests that are worked on at once; the model itself takes one at a time
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # what a browser on this machine calls it
HEADERS = {
    # The page loads nothing from elsewhere and runs nothing that stands in a prompt or a title.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def import_uvicorn() -> Any:
    """The module uvicorn, starlette being there too, or a `DPRError` that says how to get them."""
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise DPRError(
            "the server needs starlette and uvicorn: pip install 'recbole_dpr[serve]'"
        ) from None
    return uvicorn


def make_app(
    recommender: Recommender, limits: Limits | None = None, hosts: Sequence[str] | None = None
) -> Any:
    """The starlette application of a recommender.

    Parameters
    ----------
    limits : Limits, optional
        What one request may ask.
    hosts : sequence of str, optional
        The names in the Host header that are answered, with any port; without it, all.
    """
    import_uvicorn()
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    limits = limits or Limits()
    search = TitleSearch(recommender.titles)
    # A pool of its own: who gives up while it waits is not computed, and nobody gets a thread more for it.
    workers = ThreadPoolExecutor(WORKERS, "recommend")
    files = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}

    def answer(content: Any, status: int = 200) -> Response:
        return JSONResponse(content, status, HEADERS)

    async def recommend(request: Request) -> Response:
        try:
            body = await asyncio.wait_for(_body(request, limits.body), limits.seconds)
        except asyncio.TimeoutError:
            return answer({"error": "the request was sent too slowly"}, 408)
        except ClientDisconnect:
            return answer({"error": "the request broke off"}, 400)
        if body is None:
            return answer({"error": f"a request may have {limits.body} bytes"}, 413)
        try:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(workers, _recommend, recommender, body, limits)
            return answer(await asyncio.wait_for(work, limits.seconds))
        except DPRError as error:
            return answer({"error": str(error)}, 400)
        except asyncio.TimeoutError:
            return answer({"error": f"no answer within {limits.seconds:g} s; try again later"}, 503)

    async def health(request: Request) -> Response:
        return answer({"status": "ok", **about(recommender), "limits": vars(limits)})

    async def items(request: Request) -> Response:
        asked = request.query_params.getlist("id")[: limits.history]
        if asked:
            return answer(search.named(asked))
        # A million titles take a while: other requests should not wait for it.
        return answer(await run_in_threadpool(search, request.query_params.get("q", "")[:200]))

    async def users(request: Request) -> Response:
        return answer([{"user": user, "history": known} for user, known in recommender.users])

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / files[request.url.path], headers=HEADERS)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = answer({"error": error.detail}, error.status_code)
        response.headers.update(error.headers or {})  # of 405: what is allowed
        return response

    async def failed(request: Request, error: Exception) -> Response:
        return answer({"error": "something went wrong here; the server's log tells what"}, 500)

    routes = [Route(path, page) for path in files]
    routes += [Route("/health", health), Route("/items", items), Route("/users", users)]
    routes.append(Route("/recommend", recommend, methods=["POST"]))
    trusted = Middleware(
        TrustedHostMiddleware, allowed_hosts=list(hosts or ["*"]), www_redirect=False
    )
    handlers: dict[Any, Any] = {HTTPException: refused, Exception: failed}
    return Starlette(routes=routes, middleware=[trusted], exception_handlers=handlers)


def about(recommender: Recommender) -> dict[str, Any]:
    """What a client may want to know of the model."""
    return {
        "model": recommender.config["model"],
        "dataset": recommender.config["dataset"],
        "items": len(recommender.titles),
        "values": recommender.catalogue.attributes.values if recommender.takes_prompts else [],
        "prompts": recommender.takes_prompts,
        "exclude_history": recommender.excludes_history,
    }


async def _body(request: Any, limit: int) -> bytes | None:
    """The body, or None as soon as it is known to be larger than the limit."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _recommend(recommender: Recommender, body: bytes, limits: Limits) -> dict[str, Any]:
    return respond(recommender, parse_request(body, limits))


class TitleSearch:
    """Finds items by a part of their title or token, whatever the case: those that begin with it first.

    Parameters
    ----------
    titles : dict
        Title by token.
    """

    def __init__(self, titles: dict[str, str]) -> None:
        self._titles = titles
        self._items = [
            (title.casefold(), token.casefold(), token, title) for token, title in titles.items()
        ]

    def named(self, tokens: list[str]) -> list[dict[str, str]]:
        """Item and title of those tokens that are items."""
        return [{"item": t, "title": self._titles[t]} for t in tokens if t in self._titles]

    def __call__(self, text: str) -> list[dict[str, str]]:
        """Item and title of the first `FOUND` matches; none for a blank text."""
        wanted = text.strip().casefold()
        if not wanted:
            return []
        best = heapq.nsmallest(FOUND, self._matches(wanted))
        return [{"item": token, "title": title} for *_, token, title in best]

    def _matches(self, wanted: str) -> Iterator[tuple[Any, ...]]:
        """What is found, so that the best is the smallest; the last two are token and title."""
        for folded, name, token, title in self._items:
            if wanted in folded or wanted in name:
                yield (
                    name != wanted,
                    not folded.startswith(wanted),
                    not name.startswith(wanted),
                    wanted not in folded,
                    folded,
                    token,
                    title,
                )


def serve_forever(recommender: Recommender, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer until the process is told to end; port 0 takes a free one. Prints the address first.

    Raises
    ------
    DPRError
        If nothing can listen there.
    """
    import torch

    import_uvicorn()
    torch.set_num_threads(1)  # requests run side by side; a single one is too small to share out
    if recommender.takes_prompts:
        recommender.read("warm up")  # the encoder is loaded when it is first asked
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}/", flush=True)
    make_server(make_app(recommender, hosts=host_names(listening, host))).run(sockets=[listening])


def host_names(listening: socket.socket, host: str) -> list[str] | None:
    """The names that a server has which only this machine can reach; None for one that others can.

    A page elsewhere whose name is made to lead to this machine (DNS rebinding) sends its own name.
    """
    if not ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
        return None
    return [*LOOPBACK, host.lower()]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, or a `DPRError`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise DPRError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def make_server(app: Any) -> Any:
    """The uvicorn server of an application."""
    uvicorn = import_uvicorn()
    options = {"log_level": "warning", "access_log": False, "server_header": False}
    return uvicorn.Server(uvicorn.Config(app, **options))

"""The page on an address: its limits, and nothing that goes out.

Gradio reads its settings from the environment when it is imported, so they are set here
first.
"""

import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import socket
import tempfile

from keras_fcn.remedies import on_the_page, spell

OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# The browser may load from the page's own address only.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# What the page asks of Gradio. The rest, which can keep files or fetch them, stays closed.
QUESTIONS = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
CLOSED = ("/gradio_api/file", "/gradio_api/proxy", "/gradio_api/stream", "/gradio_api/call")
LINGERING = 5  # seconds for which a request that is refused may be sent on
OVERHEAD = 8_000_000  # bytes of a question beside a picture: a scaled one, scores, names


def bind(host, port):
    """Return a socket that listens at an address; nothing that takes time comes before.

    Args:
        host: address to bind to.
        port: its port; 0 for a free one.

    Raises:
        ImportError: without Gradio; it says how to install it.
        OSError: when the address is not to be had; it says what to do.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError(
            "The page is drawn by Gradio. Received: no such package. Install it: "
            "`pip install 'keras-fcn[demo]'`."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"The page should be bound to a free address. Received: {host}, port {port}: {error}. "
            f"Pass another {spell('port')}, 0 for any free one."
        ) from error


def serve(listening, host, limits, vgg16=None, started=print):
    """Serve the page until Ctrl-C.

    Args:
        listening: socket of `bind`.
        host: address that it is bound to.
        limits: `keras_fcn.page.limits.Limits`.
        vgg16: path of VGG16's weights file for the second tab, or None.
        started: function that takes the page's address once it can be opened.
    """
    with tempfile.TemporaryDirectory(prefix="keras-fcn-") as folder:
        os.environ.update(OFFLINE, GRADIO_TEMP_DIR=folder)
        app = application(host, limits, vgg16)
        started(_address(host, listening.getsockname()[1]))
        with on_the_page():
            _run(app, listening)


def application(host, limits, vgg16):
    """Return the page as an ASGI application; arguments as of `serve`."""
    import fastapi
    import gradio
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from keras_fcn.page.app import build, look

    local = is_loopback(host)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, most_bytes=limits.bytes * 4 // 3 + OVERHEAD)
    if local:  # a page from elsewhere may have a name that leads here
        names = [host, "localhost", "127.0.0.1", "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    return gradio.mount_gradio_app(
        app,
        build(limits, vgg16, own_files=local),
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        show_error=True,
        **look(),
    )


class Gate:
    """ASGI middleware: bounds questions, closes what the page does not use, forbids other hosts.

    Args:
        app: the application behind it.
        most_bytes: of the body of a request.
    """

    def __init__(self, app, most_bytes):
        self.app = app
        self.most_bytes = most_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await _refuse(receive, send, *refusal)
            return

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope):
        """Return the status and message of a request that is not let in, or None."""
        path, headers = scope["path"], dict(scope["headers"])
        if scope["method"] not in ("GET", "HEAD") and not path.startswith(QUESTIONS):
            return 404, "The page has no such question."
        if path.startswith(CLOSED):
            return 404, "The page keeps no files, and fetches none."
        if scope["method"] == "POST":
            size = headers.get(b"content-length", b"")
            if not size.isdigit():
                return 411, "A question should tell its length."
            if int(size) > self.most_bytes:
                return 413, (
                    f"A question should have {self.most_bytes:,} bytes or fewer. Received: "
                    f"{int(size):,}. Send a smaller picture."
                )
        return None


async def _refuse(receive, send, status, message):
    """Answer at once, and throw away what still comes.

    A client reads the answer when it has sent all; were the connection closed before, it would
    learn of that only.
    """
    body = message.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGERING):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body"})


def is_loopback(host):
    """Return whether an address leads to this computer only.

    Example:

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host, port):
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run(app, listening):
    """Serve until Ctrl-C; a question in progress has a second to end."""
    import uvicorn

    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])

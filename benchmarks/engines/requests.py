"""Django's handlers, called as a server would, in this process."""

import asyncio
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

wsgi, asgi = get_wsgi_application(), get_asgi_application()


def get(path: str, key: str) -> None:
    answers: list[str] = []
    response = wsgi(_environ(path, key), lambda status, headers: answers.append(status))
    b"".join(response)
    response.close()
    if answers != ["200 OK"]:
        raise RuntimeError(f"{path}: {answers}")


def _environ(path: str, key: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "testserver",
        "HTTP_USER_AGENT": "engines.py",
        "HTTP_COOKIE": f"{settings.SESSION_COOKIE_NAME}={key}",
        "wsgi.input": BytesIO(),
        "wsgi.errors": BytesIO(),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


async def agather(requests: list[tuple[str, str]]) -> None:
    await asyncio.gather(*(_aget(path, key) for path, key in requests))


async def _aget(path: str, key: str) -> None:
    answers: list[int] = []
    body = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (message := next(body, None)) is not None:
            return message
        return await asyncio.get_running_loop().create_future()  # the browser stays: cancelled when the answer is out

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    await asgi(_scope(path, key), receive, send)
    if answers != [200]:
        raise RuntimeError(f"{path}: {answers}")


def _scope(path: str, key: str) -> dict[str, Any]:
    cookie = f"{settings.SESSION_COOKIE_NAME}={key}".encode()
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"user-agent", b"engines.py"), (b"cookie", cookie)],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
    }

"""A real TCP proxy between a client and a server, which loses answers and says things that nobody has asked for."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self


def _nothing(request: bytes) -> bool:
    return False


class Proxy:
    """`lose_answer` and `lose_request` look at what a client has sent, and say whether to cut the connection: after the
    server has answered and before the client hears of it, or before the server hears. With `lose_rest` the client hears
    what the server says first, and nothing of what it says later."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.lose_answer: Callable[[bytes], bool] = _nothing
        self.lose_request: Callable[[bytes], bool] = _nothing
        self.lose_rest = False
        self.lost = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        _close(self._listening, *(each for pair in self._pairs for each in pair))

    def say(self, line: bytes) -> None:
        """To all clients, unasked."""
        for client, _ in self._pairs:
            with suppress(OSError):
                client.sendall(line)
        time.sleep(0.01)  # until it has arrived

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.create_connection(self.target)
                self._pairs.append((client, server))
                losing = threading.Event()
                threading.Thread(target=self._ask, args=(client, server, losing), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server, losing), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while request := client.recv(1 << 16):
                if self.lose_request(request):
                    self.lost += 1
                    break
                if self.lose_answer(request):
                    losing.set()
                server.sendall(request)
        _close(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while answer := server.recv(1 << 16):
                lose = losing.is_set()  # before the client hears this: its next request comes at once
                if self.lose_rest or not lose:
                    client.sendall(answer)
                if lose:
                    self.lost += 1
                    break
        _close(client, server)


def _close(*sockets: Any) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()

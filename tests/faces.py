"""One test, both faces: `face(store).save()` runs `store.save()`, or `store.asave()` on the test's event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from django_multisession.twins import run_sync

Face = Callable[[Any], Any]


def synchronous(subject: Any) -> Any:
    """A store as it is. A storage's verbs, coroutines on this face too, are run to their end."""
    return subject if hasattr(subject, "session_key") else _Verbs(subject, run_sync)


def asynchronous(runner: asyncio.Runner) -> Face:
    return lambda subject: (
        _Asynchronous(subject, runner.run) if hasattr(subject, "session_key") else _Verbs(subject, runner.run)
    )


class _Verbs:
    def __init__(self, storage: Any, run: Callable[..., Any]) -> None:
        self.storage, self.run = storage, run

    def __getattr__(self, verb: str) -> Any:
        return lambda *arguments: self.run(getattr(self.storage, verb)(*arguments))


class _Asynchronous:
    """A store whose methods are their `a` twins, where there is one, and whose items go through them too."""

    def __init__(self, store: Any, run: Callable[..., Any]) -> None:
        self.__dict__.update(store=store, run=run)

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self.store, f"a{name}", None)
        if twin is None:
            return getattr(self.store, name)
        return lambda *arguments, **options: self.run(_call(twin, *arguments, **options))

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.store, name, value)

    def __getitem__(self, key: str) -> Any:
        return self._items()[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __contains__(self, key: str) -> bool:
        return bool(self.has_key(key))

    def _items(self) -> dict[str, Any]:
        return dict(self.items())


async def _call(twin: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await twin(*arguments, **options)

"""One test, both faces: `face(store).save()` runs `store.save()`, or `store.asave()` on the test's event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from django_multisession.twins import run_sync


class SyncFace:
    """Drives a store's synchronous methods, and its storage's verbs over the synchronous client."""

    name = "sync"

    def __call__(self, store: Any) -> Any:
        return store

    def verbs(self, store_class: Any) -> Any:
        return Verbs(lambda: store_class.storage, run_sync)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function where the face's database connections live."""
        return function(*arguments)

    def functions(self, module: Any) -> Any:
        """The functions of a module that have two faces."""
        return module


class AsyncFace:
    """Drives the `a` twins, and the verbs over the asynchronous client, on an event loop of the test's own."""

    name = "async"

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner

    def __call__(self, store: Any) -> Any:
        return AsyncStore(store, self.runner.run)

    def verbs(self, store_class: Any) -> Any:
        return Verbs(lambda: store_class.astorage, self.runner.run)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        from asgiref.sync import sync_to_async

        return self.runner.run(sync_to_async(function)(*arguments))

    def functions(self, module: Any) -> Any:
        return AsyncStore(module, self.runner.run)


Face = SyncFace | AsyncFace


class Verbs:
    """A storage whose verbs are plain calls."""

    def __init__(self, storage: Callable[[], Any], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._storage, self._run = storage, run

    def __getattr__(self, verb: str) -> Any:
        async def call(*arguments: Any) -> Any:
            return await getattr(self._storage(), verb)(*arguments)

        return lambda *arguments: self._run(call(*arguments))


class AsyncStore:
    """A store whose methods are their `a` twins, where there is one, and whose items go through them too."""

    def __init__(self, store: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.__dict__.update(store=store, run=run)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.store, f"a{name}"):
            return getattr(self.store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await getattr(self.store, f"a{name}")(*arguments, **options)

        return lambda *arguments, **options: self.run(call(*arguments, **options))

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.store, name, value)

    def __getitem__(self, key: str) -> Any:
        return dict(self.items())[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __contains__(self, key: str) -> bool:
        return bool(self.has_key(key))

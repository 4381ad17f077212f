"""For views. They work with Django's own session middleware too, and with views of either kind."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

View = TypeVar("View", bound=Callable[..., Any])


def no_touch(view: View) -> View:
    """A request of this view does not keep the session alive: one that polls while nobody is there.

    With `SESSION_SAVE_EVERY_REQUEST` an unchanged session is then left as it is; a changed one is saved as ever.
    """

    def mark(request: Any) -> None:
        request.session.may_touch = False

    @wraps(view)
    def marking(request: Any, *args: Any, **kwargs: Any) -> Any:
        mark(request)
        return view(request, *args, **kwargs)

    @wraps(view)
    async def amarking(request: Any, *args: Any, **kwargs: Any) -> Any:
        mark(request)
        return await view(request, *args, **kwargs)

    return cast(View, amarking if iscoroutinefunction(view) else marking)

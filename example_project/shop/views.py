"""The shop: visits and a cart in the session. The home page uses the async face, everything else the sync one."""

from typing import Any, cast

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_multisession.backends.base import SessionStore
from django_multisession.records import Record, identify

from .products import PRODUCTS, lines


@require_safe
async def home(request: HttpRequest) -> HttpResponse:
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    cart = lines(await request.session.aget("cart", {}))
    context = {
        "cart": cart,
        "products": PRODUCTS.values(),
        "record": await stored(cast("SessionStore", request.session)),
        "total": sum(line.cost for line in cart),
        "user": await request.auser(),
        "visits": visits,
    }
    return render(request, "shop/home.html", context)


async def stored(session: SessionStore) -> Record | None:
    """What the engine holds for the session now, before this answer's own changes are saved."""
    if session.session_key is None or not hasattr(session, "astorage"):  # Django's own, before a move
        return None
    return await session.astorage.read(identify(session.session_key))


@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    return change_cart(request, slug, +1)


@require_POST
def remove(request: HttpRequest, slug: str) -> HttpResponse:
    return change_cart(request, slug, -1)


def change_cart(request: HttpRequest, slug: str, step: int) -> HttpResponse:
    if slug not in PRODUCTS:
        raise Http404
    cart = request.session.get("cart", {})
    quantity = cart.get(slug, 0) + step
    request.session["cart"] = {**cart, slug: quantity} if quantity > 0 else without(cart, slug)
    return redirect("home")


def without(cart: dict[str, int], slug: str) -> dict[str, int]:
    return {other: quantity for other, quantity in cart.items() if other != slug}


class SignIn(LoginView):
    """For those who are signed in too: @require_recent_login sends them here."""

    template_name = "shop/sign_in.html"
    extra_context: dict[str, Any] = {"username": settings.DEMO_USERNAME, "password": settings.DEMO_PASSWORD}

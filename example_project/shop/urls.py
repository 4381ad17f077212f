from django.contrib.auth.views import LogoutView, PasswordChangeView
from django.urls import path

from django_multisession.decorators import require_recent_login

from . import purges, views

recent = require_recent_login("15m")

urlpatterns = [
    path("", views.home, name="home"),
    path("cart/add/<slug:slug>/", views.add, name="add"),
    path("cart/remove/<slug:slug>/", views.remove, name="remove"),
    path("purges/", purges.purges, name="purges"),
    path("purges/leave-behind/", purges.leave_behind, name="leave-behind"),
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path(
        "change-password/",
        recent(PasswordChangeView.as_view(template_name="shop/change_password.html", success_url="/")),
        name="change-password",
    ),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
]

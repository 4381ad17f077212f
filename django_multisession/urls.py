"""The pages for users.

path("sessions/", include("django_multisession.urls"))
"""

from django.urls import path

from .user_sessions import making_room, views

app_name = "django_multisession"
urlpatterns = [
    path("", views.user_sessions, name="user_sessions"),
    path("end/<str:id>/", views.end, name="end"),
    path("end-others/", views.end_others, name="end_others"),
    path("repair/", views.repair, name="repair"),
    path("sign-out-oldest/", making_room.sign_out_oldest, name="sign_out_oldest"),
]

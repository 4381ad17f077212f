from django.urls import include, path

from ..urls import urlpatterns as pages

urlpatterns = [*pages, path("sessions/", include("django_multisession.urls"))]

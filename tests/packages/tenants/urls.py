from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path


def count(request: HttpRequest) -> JsonResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"tenant": connection.schema_name, "count": request.session["count"]})


urlpatterns = [path("count/", count)]

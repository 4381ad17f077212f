import pytest


@pytest.mark.parametrize("engine_name", ["memory", "redis", "mongodb", "sqlite", "postgres", "mysql"])
def test_roundtrip(Store, face):
    session = face(Store())
    session["a"] = 1
    session.save()
    assert face(Store(session.session_key))["a"] == 1

from __future__ import annotations

import psycopg2
import redis


def test_postgres_answers_and_has_ltree(empty_database_url: str) -> None:
    connection = psycopg2.connect(empty_database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION ltree")
        cursor.execute("SELECT 'a.b'::ltree <@ 'a'::ltree")
        assert cursor.fetchone() == (True,)
    connection.close()


def test_valkey_needs_its_password(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    assert client.ping()
    assert client.config_get("appendonly", "maxmemory-policy") == {
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
    }
    client.close()

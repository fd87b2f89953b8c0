import psycopg
import pytest

from event_service.libs.postgres import (
    PostgresUnusable,
    build_pool,
    conninfo_of,
    refuse_old_server,
)

pytestmark = pytest.mark.anyio


def test_the_parameters_of_the_url_reach_libpq():
    url = "postgresql://me:s3cret@db:5433/events?sslmode=verify-full&sslrootcert=/ca.pem"
    given = psycopg.conninfo.conninfo_to_dict(conninfo_of(url, connect_timeout=2))
    assert given["sslmode"] == "verify-full"
    assert given["sslrootcert"] == "/ca.pem"
    assert (given["host"], given["port"], given["dbname"]) == ("db", "5433", "events")
    assert given["application_name"] == "event-service"
    assert given["connect_timeout"] == "2"


def test_what_the_url_says_comes_before_our_own():
    url = "postgresql://db/events?application_name=mine&connect_timeout=7"
    given = psycopg.conninfo.conninfo_to_dict(conninfo_of(url, connect_timeout=2))
    assert (given["application_name"], given["connect_timeout"]) == ("mine", "7")


@pytest.mark.parametrize(
    "url", ["mysql://me:s3cret@db/x", "postgresql://me:s3cret@db:port/x?nonsense=1", "db"]
)
def test_an_unreadable_url_is_refused_without_being_repeated(url):
    with pytest.raises(ValueError, match="must be postgresql://") as caught:
        conninfo_of(url, connect_timeout=2)
    assert "s3cret" not in str(caught.value)


async def test_connections_are_in_autocommit_and_have_a_statement_timeout(postgres_url):
    async with (
        build_pool(
            postgres_url, max_size=2, timeout=5, statement_timeout=0.2, checked=False
        ) as pool,
        pool.connection() as connection,
    ):
        refuse_old_server(connection)
        assert connection.autocommit
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("SELECT pg_sleep(5)")


async def test_a_server_that_is_too_old_is_refused(postgres_url):
    class Info:
        server_version = 120_018

    class Old:
        info = Info()

    with pytest.raises(PostgresUnusable, match="PostgreSQL 12 is too old"):
        refuse_old_server(Old())


async def test_a_checked_connection_that_the_server_closed_is_replaced(postgres_url):
    pool = build_pool(postgres_url, max_size=1, timeout=5, statement_timeout=5, checked=True)
    async with pool:
        async with pool.connection() as connection:
            pid = connection.info.backend_pid
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        async with pool.connection() as connection:
            assert connection.info.backend_pid != pid
            await connection.execute("SELECT 1")

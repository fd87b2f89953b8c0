"""The service's tables and a user's events in SQLAlchemy Core, as one statement."""

from sqlalchemy import BigInteger, Column, ForeignKey, MetaData, Table, Text, bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
CONNECTIONS = 16  # as many as the service has

metadata = MetaData()
users = Table(
    "users",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
)

events_of_user = (
    select(events.c.id, events.c.user_id, events.c.title, events.c.description)
    .select_from(users.outerjoin(events, events.c.user_id == users.c.id))
    .where(users.c.id == bindparam("user_id"))
    .order_by(events.c.place, events.c.seq)
)


def engine_for(url: str) -> AsyncEngine:
    """An engine for a URL as the service takes it."""
    scheme, _, rest = url.partition(":")
    return create_async_engine(
        f"{DRIVERS[scheme]}:{rest}", pool_size=CONNECTIONS, max_overflow=0, pool_timeout=5.0
    )

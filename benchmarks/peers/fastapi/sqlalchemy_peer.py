"""FastAPI and SQLAlchemy with asyncpg or aiosqlite: what most teams would write for a database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from circuitbreaker import circuit
from server import create_app
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from tables import engine_for, events, events_of_user, users
from upstream import UPSTREAM_URL, Event, NotFound, User, reading, writing

# A new event comes after all that were imported.
ADDED = 1 << 40
failing = {"expected_exception": SQLAlchemyError}


class Database:
    def __init__(self, engine: AsyncEngine):
        self.engine = engine

    @circuit(name="users", **reading | failing)
    async def users(self) -> list[User]:
        listed: dict[str, User] = {}
        query = (
            select(users.c.id, users.c.name, events.c.id)
            .select_from(users.outerjoin(events, events.c.user_id == users.c.id))
            .order_by(users.c.seq, events.c.place, events.c.seq)
        )
        async with self.engine.connect() as connection:
            for user_id, name, event_id in await connection.execute(query):
                user = listed.setdefault(user_id, User(id=user_id, name=name, events=[]))
                if event_id is not None:
                    user.events.append(event_id)
        return list(listed.values())

    @circuit(name="events", **reading | failing)
    async def events(self) -> list[Event]:
        query = select(
            events.c.id, events.c.user_id, events.c.title, events.c.description
        ).order_by(events.c.seq)
        async with self.engine.connect() as connection:
            return [event_of(row) for row in await connection.execute(query)]

    @circuit(name="events_of", **reading | failing)
    async def events_of(self, user_id: str) -> list[Event]:
        async with self.engine.connect() as connection:
            rows = (await connection.execute(events_of_user, {"user_id": user_id})).all()
        if not rows:
            raise NotFound
        return [event_of(row) for row in rows if row[0] is not None]

    @circuit(name="add_event", **writing | failing)
    async def add_event(self, event: dict[str, str]) -> None:
        async with self.engine.begin() as connection:
            known = await connection.execute(
                select(users.c.id).where(users.c.id == event["userId"])
            )
            if known.first() is None:
                raise NotFound
            await connection.execute(
                insert(events).values(
                    id=event["id"],
                    user_id=event["userId"],
                    place=ADDED,
                    title=event["title"],
                    description=event["description"],
                )
            )


def event_of(row) -> Event:
    return Event(id=row[0], userId=row[1], title=row[2], description=row[3])


@asynccontextmanager
async def connect() -> AsyncIterator[Database]:
    engine = engine_for(UPSTREAM_URL)
    try:
        yield Database(engine)
    finally:
        await engine.dispose()


app = create_app(connect())

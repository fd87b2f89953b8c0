"""Shows the demo: live on a terminal, as plain lines elsewhere."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
WIDTH = 44
FRAME = 0.05
PLAIN_WIDTH = 120
COLOURS = {"closed": "green", "open": "bold red", "half_open": "yellow"}
NEXT = """
[bold]What to try next[/]
  [cyan]make dev[/]         the same on ports 3000 and 4010, with commands to try
  [cyan]make test-quick[/]  tests in under a minute
  README.md        a tour with curl; docs/index.md has the rest"""


class Claim(NamedTuple):
    text: str
    seen: str
    holds: bool


class Screen:
    def __init__(self, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._console = console or Console(highlight=False, width=width)

    def begin(self, service: str) -> None:
        self._console.print(f"Watch it live, too: [bold cyan]{service}/dashboard[/]")

    def end(self) -> None:
        self._console.print(NEXT)

    def act(self, title: str, explanation: str) -> None:
        self._console.print(f"\n[bold]{title}[/]\n[dim]{explanation}[/]")

    def say(self, text: str) -> None:
        self._console.print(f"  {text}")

    async def bar(
        self, label: str, work: Coroutine[None, None, T], *, full: float
    ) -> tuple[T, float]:
        """Wait for the work while a bar shows the elapsed time, up to `full` seconds."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            if self._console.is_terminal:
                with Live(console=self._console, auto_refresh=False) as live:
                    while not task.done():
                        live.update(_bar(label, time.perf_counter() - started, full), refresh=True)
                        await asyncio.wait([task], timeout=FRAME)
                    took = time.perf_counter() - started
                    live.update(_bar(label, took, full), refresh=True)
            else:
                await asyncio.wait([task])
                took = time.perf_counter() - started
                self._console.print(_bar(label, took, full))
        return task.result(), took

    async def wait(self, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        if not self._console.is_terminal:
            self.say(f"waiting {seconds:.1f} s {what}")
            await asyncio.sleep(seconds)
            return
        with self._console.status("") as status:
            while (left := end - time.monotonic()) > 0:
                status.update(f"{left:.1f} s {what}")
                await asyncio.sleep(min(left, FRAME))

    def summary(self, claims: Sequence[Claim]) -> bool:
        """Print all claims. Returns whether all of them hold."""
        self._console.print("\n[bold]What happened[/]")
        table = Table()
        table.add_column("")
        table.add_column("claim")
        table.add_column("seen")
        for claim in claims:
            mark = "[green]holds[/]" if claim.holds else "[bold red]FAILS[/]"
            table.add_row(mark, claim.text, claim.seen)
        self._console.print(table)
        return all(claim.holds for claim in claims)


def circuit(state: str) -> str:
    """The state of a circuit in its colour."""
    return f"circuit [{COLOURS[state]}]{state.replace('_', '-')}[/]"


def _bar(label: str, seconds: float, full: float) -> Text:
    filled = min(WIDTH, max(1, round(WIDTH * seconds / full)))
    return Text.assemble(f"  {label:<12} ", ("█" * filled, "cyan"), f" {seconds:.2f} s")

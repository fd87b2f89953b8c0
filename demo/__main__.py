"""`python -m demo`: shows in half a minute, with real processes, what the service does."""

import asyncio
import sys

from demo.programs import running
from demo.screen import Screen
from demo.story import Pace, tell

PACE = Pace(event_delay=0.5, cooldown=4.0, pause=0.3)


def main() -> int:
    screen = Screen()
    # Four refusals: three open the circuit, and the fourth meets its first canary.
    mock_options = ["--users", "3", "--events-per-user", "10", "--accept", "5", "--refuse", "4"]
    mock_options += ["--event-delay", str(PACE.event_delay)]
    settings = {"BREAKER_COOLDOWN": str(PACE.cooldown)}
    try:
        with running(mock_options, settings) as (service, upstream):
            screen.begin(service)
            claims = asyncio.run(tell(service, upstream, screen, PACE))
    except KeyboardInterrupt:
        return 130
    holds = screen.summary(claims)
    screen.end()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

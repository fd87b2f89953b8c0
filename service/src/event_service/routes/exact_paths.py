import re

from starlette.routing import BaseRoute, Route


def matching_exactly(routes: list[BaseRoute]) -> list[BaseRoute]:
    """Routes whose `$` is the very end of a path: a line break after it is part of the path."""
    for route in routes:
        if isinstance(route, Route):
            pattern = route.path_regex.pattern.removesuffix("$") + r"\Z"
            route.path_regex = re.compile(pattern, re.DOTALL)
    return routes

import re

from starlette.routing import BaseRoute, Route


def matching_exactly(routes: list[BaseRoute]) -> list[BaseRoute]:
    """The routes, changed so that a line break at the end of a path is part of the path."""
    for route in routes:
        if isinstance(route, Route):
            pattern = route.path_regex.pattern.removesuffix("$") + r"\Z"
            route.path_regex = re.compile(pattern, re.DOTALL)
    return routes

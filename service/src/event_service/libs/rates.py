from limits import RateLimitItem, parse_many


def parse_rates(text: str) -> list[RateLimitItem]:
    """The distinct rates in a text such as `100/second;5000/hour`.

    Raises ValueError for any other text, and for a rate of zero requests.
    """
    rates = list(dict.fromkeys(parse_many(text)))
    if not all(rate.amount for rate in rates):
        raise ValueError(f"{text!r} lets nobody in")
    return rates

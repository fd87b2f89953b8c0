def printable(text: str) -> str:
    """The text with escapes for control characters, so that it cannot move the cursor or start a
    line.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

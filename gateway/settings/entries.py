"""Lists as settings hold them."""


def entries(text: str) -> list[str]:
    """The entries of a comma-separated list, blanks dropped."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]

"""Numbers with what they count, as people write them."""


def counted(number: int, noun: str, plural: str = "s") -> str:
    """`1 document`, or `2,000 documents`; `plural` is what the noun takes at its end."""
    return f"{number:,} {noun}{plural * (number != 1)}"

"""Numbers with what they count, as people write them."""


def counted(number: int, noun: str) -> str:
    """`1 document`, or `2,000 documents`; of a noun whose plural ends in s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"

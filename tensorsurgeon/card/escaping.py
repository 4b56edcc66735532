"""Names in XML: they are strangers', and must be shown and do nothing else."""

from xml.sax.saxutils import escape

from tensorsurgeon.documents.markdown import SHOWN
from tensorsurgeon.errors import printable, shortened


def xml_text(text: str, limit: int = SHOWN) -> str:
    """A name as text or an attribute's value in XML."""
    return escape(printable(shortened(text, limit)), {'"': "&quot;", "'": "&#39;"})

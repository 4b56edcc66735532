"""A checkpoint folder against its manifest, a second reader, and its own config."""

from tensorsurgeon.verify.outcome import Report, report_json, report_text
from tensorsurgeon.verify.run import verify

__all__ = ["Report", "report_json", "report_text", "verify"]

"""Reading checkpoints: folders, indexes, safetensors headers, and bytes at an offset."""

from tensorsurgeon.checkpoint.config_file import CONFIG_LIMIT, read_config
from tensorsurgeon.checkpoint.folder import SINGLE_NAME, Checkpoint, Identity, open_checkpoint
from tensorsurgeon.checkpoint.header import encode_header
from tensorsurgeon.checkpoint.identity import FileIdentity, check_unchanged, identify
from tensorsurgeon.checkpoint.index_file import INDEX_LIMIT, INDEX_NAME
from tensorsurgeon.checkpoint.layout import Shard, lay_out
from tensorsurgeon.checkpoint.license import (
    CARD_NAME,
    License,
    common_license,
    license_of,
)
from tensorsurgeon.checkpoint.manifest import (
    MANIFEST_NAME,
    Manifest,
    encode_manifest,
    read_manifest,
)
from tensorsurgeon.checkpoint.reading import Reader, ShardReader, header_bytes
from tensorsurgeon.checkpoint.remote import RemoteFile, Repo

__all__ = [
    "CARD_NAME",
    "CONFIG_LIMIT",
    "INDEX_LIMIT",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "SINGLE_NAME",
    "Checkpoint",
    "FileIdentity",
    "Identity",
    "License",
    "Manifest",
    "Reader",
    "RemoteFile",
    "Repo",
    "Shard",
    "ShardReader",
    "check_unchanged",
    "common_license",
    "encode_header",
    "encode_manifest",
    "header_bytes",
    "identify",
    "lay_out",
    "license_of",
    "open_checkpoint",
    "read_config",
    "read_manifest",
]

"""Reading checkpoints: folders, indexes, safetensors headers, and bytes at an offset."""

from tensorsurgeon.checkpoint.adapter import AdaptedModule, adapter_of, open_adapter
from tensorsurgeon.checkpoint.adapter_config import ADAPTER_CONFIG
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
from tensorsurgeon.checkpoint.series import matching_folders

__all__ = [
    "ADAPTER_CONFIG",
    "CARD_NAME",
    "CONFIG_LIMIT",
    "INDEX_LIMIT",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "SINGLE_NAME",
    "AdaptedModule",
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
    "adapter_of",
    "check_unchanged",
    "common_license",
    "encode_header",
    "encode_manifest",
    "header_bytes",
    "identify",
    "lay_out",
    "license_of",
    "matching_folders",
    "open_adapter",
    "open_checkpoint",
    "read_config",
    "read_manifest",
]

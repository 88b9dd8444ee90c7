"""Where files lie: local paths and object stores, read and written alike."""

from zipbatch.storage.path import StoragePath, Url, storage_path
from zipbatch.storage.reading import (
    CHANGED,
    REPLACED,
    each,
    files_below,
    held_to,
    local_copy,
    names_in,
    plain,
    read_bytes,
    sha256,
    stamp,
    stamps_below,
)
from zipbatch.storage.stamp import Stamp
from zipbatch.storage.writing import make_writable, put_bytes, put_file, put_json, remove_if, update, workbench

__all__ = [
    "CHANGED",
    "REPLACED",
    "Stamp",
    "StoragePath",
    "Url",
    "each",
    "files_below",
    "held_to",
    "local_copy",
    "make_writable",
    "names_in",
    "plain",
    "put_bytes",
    "put_file",
    "put_json",
    "read_bytes",
    "remove_if",
    "sha256",
    "stamp",
    "stamps_below",
    "storage_path",
    "update",
    "workbench",
]

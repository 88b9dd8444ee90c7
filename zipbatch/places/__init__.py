"""Where files lie: local paths and object stores, read and written alike."""

from zipbatch.places.place import (
    Place,
    Url,
    each,
    files_below,
    local_copy,
    make_writable,
    names_in,
    place,
    put_bytes,
    put_file,
    put_json,
    read_bytes,
    sha256,
    stamp,
    stamps_below,
    update,
    workbench,
)
from zipbatch.places.stamp import Stamp

__all__ = [
    "Place",
    "Stamp",
    "Url",
    "each",
    "files_below",
    "local_copy",
    "make_writable",
    "names_in",
    "place",
    "put_bytes",
    "put_file",
    "put_json",
    "read_bytes",
    "sha256",
    "stamp",
    "stamps_below",
    "update",
    "workbench",
]

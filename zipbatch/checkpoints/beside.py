"""What was learned of a prior, in a JSON file beside its weights that holds the digest of what it was learned from."""

from __future__ import annotations

from typing import Any

from zipbatch.checkpoints.prior import PriorFolder
from zipbatch.checkpoints.tensors import read_json
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, stamp

MAX_BYTES = 64 * 1024


def read_beside(file: StoragePath, prior: PriorFolder, *, no_such: str, of_others: str) -> dict[str, Any]:
    """What such a file of this very prior says.

    Args:
        file: it is there.
        prior: what it must have been learned from.
        no_such: said of one that is too large to be one.
        of_others: said of one that was learned from something else.

    Raises:
        UsageError: it is damaged, or of another prior.
    """
    if stamp(file).size > MAX_BYTES:
        raise UsageError(f"{file}: over {MAX_BYTES} bytes; {no_such}")
    values = read_json(file)
    if values.get("format_version") != 1:
        raise UsageError(f"{file}: format_version must be 1, got {values.get('format_version')!r}")
    if values.get("prior_sha256") != prior.digest:
        raise UsageError(f"{file}: {of_others}")
    return values

"""Tags that people move by hand; runs move theirs as they publish (``Versions.move_tag``)."""

from __future__ import annotations

from zipbatch.errors import UsageError
from zipbatch.store.removals import Removals
from zipbatch.store.store import Store
from zipbatch.store.tags import LATEST, check_tag


def point_tag(store: Store, reference: str, tag: str) -> str:
    """Point a tag at a version; runs that started before do not move it back.

    Returns:
        The version's id.

    Raises:
        UsageError: no such version, or an unfit tag.
    """
    versions = store.versions
    dataset, version = versions.resolve(reference)
    check_tag(tag)
    if tag == LATEST and versions.header(dataset, version).trial is not None:
        raise UsageError(
            f"{reference}: is a trial, of some shards alone; {LATEST!r} stands for all of them: 'zipbatch purify' "
            "without a limit makes such a version"
        )
    with versions.claim(dataset, version):
        Removals(store).await_end(f"{dataset}@{version}", ())
        versions.resolve(f"{dataset}@{version}")
        versions.tags.move(dataset, tag, version, started_ns=None)
    return version


def delete_tag(store: Store, dataset: str, tag: str) -> str:
    """Remove a tag; its version stays, but nothing keeps it from ``gc`` any more.

    Returns:
        The id of the version that it pointed to.

    Raises:
        UsageError: no such tag, or it is ``latest`` of a dataset that has versions.
    """
    store.require()
    versions = store.versions
    version = versions.tags.read(dataset, tag)
    if version is None:
        raise UsageError(f"{dataset}@{tag}: no such tag in {store.root}; {versions.what_there_is(dataset)}")
    if tag == LATEST and versions.ids(dataset):
        raise UsageError(f"{dataset}@{LATEST}: stays as long as {dataset} has versions; point it at another one")
    versions.tags.remove(dataset, tag)
    return version

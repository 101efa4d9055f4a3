"""The identity of a cluster: one id in its catalogue and in its store, so that two clusters never share a bucket."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from atomstream.errors import ConfigError
from atomstream.server.documents import Documents
from atomstream.server.ports.store import ObjectExistsError, ObjectMissingError, Store
from atomstream.server.postgres.documents import TableDocuments
from atomstream.server.postgres.migrate import EMPTY, examine, prepare
from atomstream.server.postgres.postgres import Postgres

CLUSTER_FILE: Final = "cluster.json"
"""The name of the document in the catalogue, and of the object in the store."""


class ClusterId(msgspec.Struct, frozen=True):
    """The content of the document and of the object."""

    cluster: str


def id_in_catalogue(documents: Documents) -> str | None:
    """The id that the catalogue has. Blocks."""
    return _decode(documents.read(CLUSTER_FILE), documents.place(CLUSTER_FILE))


def id_in_store(store: Store) -> str | None:
    """The id that the store has. Blocks."""
    try:
        return _decode(store.fetch(CLUSTER_FILE), f"{store.name}/{CLUSTER_FILE}")
    except ObjectMissingError:
        return None


def check_same(catalogue: str | None, stored: str | None, store_name: str) -> None:
    """Raises ConfigError if the store belongs to another cluster than the catalogue."""
    if stored is None or stored == catalogue:
        return
    new = "is new" if catalogue is None else f"is that of the cluster {catalogue}"
    raise ConfigError(
        f"The store {store_name} belongs to the cluster {stored}, and the catalogue {new}. Each cluster needs its own "
        "bucket, or its own prefix in a bucket. If this catalogue replaces a lost one of the same cluster, run: "
        "atomstream "
        "cluster adopt. Nothing was changed."
    )


def join(documents: Documents, store: Store) -> str:
    """The id of the cluster, in catalogue and store from now on. Blocks; several servers may do it at the same time.

    Raises:
        ConfigError: the store belongs to another cluster; nothing was changed.
    """

    def revise(content: bytes | None) -> bytes | None:
        ours, stored = _decode(content, documents.place(CLUSTER_FILE)), id_in_store(store)
        check_same(ours, stored, store.name)
        if stored is None:
            made = ClusterId(ours or str(uuid.uuid4()))
            try:
                store.put(CLUSTER_FILE, msgspec.json.encode(made), create_only=True)
            except ObjectExistsError:  # a server of another cluster was faster
                check_same(made.cluster, id_in_store(store), store.name)
            return msgspec.json.encode(made)
        return None

    content = documents.change(CLUSTER_FILE, revise)
    found = _decode(content, documents.place(CLUSTER_FILE))
    assert found is not None
    return found


def prepare_cluster(postgres: Postgres, store: Store | None) -> None:
    """Check a catalogue, make its tables if it is empty, and join it with the ``store`` of the same cluster. Blocks.

    Raises:
        ConfigError: the catalogue can't be used, or the store belongs to another cluster; nothing was changed.
        CatalogueUnavailableError: the database can't be reached.
    """
    documents = TableDocuments(postgres)
    if store is not None:  # before anything is written
        with postgres.transaction() as connection:
            version = examine(connection, postgres.address.text)
        check_same(None if version == EMPTY else id_in_catalogue(documents), id_in_store(store), store.name)
    prepare(postgres)
    if store is not None:
        join(documents, store)


def adopt(documents: Documents, store: Store) -> str:
    """Note the id of the store in a catalogue that has none yet, and return it. Blocks.

    Raises:
        ConfigError: the store has no id, or the catalogue has another one.
    """

    def revise(content: bytes | None) -> bytes | None:
        ours, stored = _decode(content, documents.place(CLUSTER_FILE)), id_in_store(store)
        if stored is None:
            raise ConfigError(f"The store {store.name} belongs to no cluster yet: there is nothing to adopt.")
        if ours is not None and ours != stored:
            raise ConfigError(
                f"The catalogue is that of the cluster {ours}, and the store {store.name} belongs to {stored}. Only a "
                "catalogue without a cluster can adopt a store. Nothing was changed."
            )
        return msgspec.json.encode(ClusterId(stored))

    found = _decode(documents.change(CLUSTER_FILE, revise), documents.place(CLUSTER_FILE))
    assert found is not None
    return found


def _decode(content: bytes | None, place: str) -> str | None:
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=ClusterId).cluster
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{place}, the identity of a cluster, can't be read: {error}.") from None

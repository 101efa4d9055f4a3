"""Delivers one parcel over the service: a fresh URL, the body, the server's word. One attempt."""

from __future__ import annotations

from atomstream.errors import NotFoundError, StreamGoneError
from atomstream.pipeline.parcel import Parcel
from atomstream.records import Receipt
from atomstream.service.api import ServiceApi


class ServiceCourier:
    """The pipeline's :class:`~atomstream.pipeline.parcel.Courier` over HTTP."""

    def __init__(self, api: ServiceApi) -> None:
        self._api = api

    async def deliver(self, parcel: Parcel) -> Receipt:
        """Upload ``parcel``.

        Raises:
            ServiceError: as mapped by the service. StreamGoneError: the API does not know the stream.
        """
        data_id = parcel.spec.data_id
        try:
            url = await self._api.upload_url(parcel.spec, parcel)
        except NotFoundError as error:
            raise StreamGoneError(
                f"The server no longer knows stream {data_id} (HTTP {error.status}): {error} "
                "Its chunks can't be delivered; what was stored before stays stored.",
                data_id=data_id,
                index=parcel.index,
            ) from error
        what = f"upload chunk {parcel.index} of stream {data_id}"
        crc32c = await self._api.put_shard(url, parcel.open(), parcel.nbytes, crc32c=parcel.crc32c, what=what)
        return Receipt(data_id, parcel.index, parcel.nbytes, crc32c)

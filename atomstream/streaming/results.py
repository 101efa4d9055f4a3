"""The verbs of a streamer for what comes back: live results, and the events that belong to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from atomstream.config import whole
from atomstream.streaming import calibrating, events
from atomstream.streaming.batch import ResultBatch, StreamEvent
from atomstream.streaming.following import Follower
from atomstream.streaming.life import StreamerLife


class StreamerResults(StreamerLife):
    """``results``, ``latest``, ``mark``, ``set_rotation``, ``calibrate``; of any stream of the server."""

    async def results(self, data_id: str, after: int = 0) -> AsyncGenerator[ResultBatch, None]:
        """Live results as they are made; ends when the stream's analysis has ended (after ``finalize``).

        Goes through breaks of the network and restarts of the server by itself: every batch comes once, in order.
        A reader that is minutes behind loses the oldest, which the next batch's ``lost`` counts. Where the server
        has no feed (the hosted service), its series are polled.

        Args:
            data_id: the stream.
            after: the ``seq`` of the last batch that is known already; 0 begins with the stream's first.

        Raises:
            NotFoundError: the server has no such stream.
            AuthenticationError, RejectedError: the server refuses.
            ClosedError: the streamer was closed meanwhile.
        """
        place = whole("after", after, 0, 1 << 53)
        engine = await self._start()
        follower = Follower(engine.results, data_id, place, engine.announced(data_id))
        async with aclosing(follower.batches()) as batches:
            async for batch in batches:
                yield batch

    async def latest(self, data_id: str) -> ResultBatch | None:
        """The newest batch, without waiting for one; None as long as none has come.

        The first call begins to follow the stream in the background.
        """
        engine = await self._start()
        return engine.latest(data_id)

    async def mark(
        self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None
    ) -> StreamEvent:
        """Note an event of the stream; returns once the server has kept it.

        Args:
            data_id: the stream.
            label: for people, up to 200 characters.
            kind: ``"shutter"``, ``"laser"``, ``"growth"`` and ``"pause"`` begin a new segment of the growth;
                ``"note"`` and any other word do not.
            time_ms_utc: when it happened; None: now, by the server's clock.

        Raises:
            StreamError: the server keeps no events (it is no atomstream server); nothing was sent.
            TypeError, ConfigError: an argument that can't be meant. ServiceError: as the server says.
        """
        return await events.mark(await self._start(), data_id, label, kind, time_ms_utc)

    async def set_rotation(self, data_id: str, rpm: float) -> StreamEvent:
        """Say that the substrate turns at ``rpm`` from now on: a new segment, analysed accordingly.

        What is told of each chunk on its way stays what ``initialize`` said.

        Raises:
            As :meth:`mark`.
        """
        turns = events.check_rpm(rpm)
        engine = await self._start()
        return await events.mark(engine, data_id, f"rotation at {turns:g} rpm", "rotation", None, turns)

    async def calibrate(
        self,
        data_id: str,
        *,
        beam_energy: float | None = None,
        screen_sample_distance: float | None = None,
        px_per_mm: float | None = None,
        incidence_deg: float | None = None,
        layer_thickness_nm: float | None = None,
        layer_unit: str | None = None,
        miller_n: float | None = None,
        reference_spacing_px: float | None = None,
    ) -> None:
        """Say what turns pixels and oscillations into lengths; what is left out stays in relative units, said so.

        Before the first chunk it holds for all of the stream; later from the next result on, and of a finished
        stream everything is analysed again with it. It replaces what was said before.

        Args:
            data_id: the stream.
            beam_energy: of the electrons, in keV.
            screen_sample_distance: in mm.
            px_per_mm: of the picture, in pixels a mm on the screen. With both above: lattice parameter in Å.
            incidence_deg: the glancing angle in degrees, 0 to 15.
            layer_thickness_nm: of one layer, in nm. With it the growth rate is in nm/s too.
            layer_unit: what an oscillation is: ``"monolayer"`` (the default), ``"unit cell"``, ``"bilayer"``.
            miller_n: the n of a = 2πn/G, 1 by default.
            reference_spacing_px: streak spacing of the substrate; with it the relative change is strain.

        Raises:
            StreamError: the server takes none (it is no atomstream server); nothing was sent.
            TypeError, ConfigError: a value that can't be meant.
            RejectedError: one out of the server's range, which it says. ServiceError: as the server says.
        """
        given: dict[str, float | str | None] = {
            "beam_energy": beam_energy,
            "screen_sample_distance": screen_sample_distance,
            "px_per_mm": px_per_mm,
            "incidence_deg": incidence_deg,
            "layer_thickness_nm": layer_thickness_nm,
            "layer_unit": layer_unit,
            "miller_n": miller_n,
            "reference_spacing_px": reference_spacing_px,
        }
        await calibrating.calibrate(await self._start(), data_id, given)

"""The two ends of a measurement, a server and a client of the measuring program: how they are
started, how they find each other, and what the client prints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from loopfuse._bench import sockmap
from loopfuse._bench.children import Child, running
from loopfuse._bench.place import Place
from loopfuse._bench.proof import Witness
from loopfuse._bench.results import Latency, Proof, Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.statistics import per_unit
from loopfuse._errors import BenchError

PATIENCE = 20.0
"""How long an end may take to do what takes no time, on a machine that does other things."""
_ROUND_TRIPS = ("roundtrip", "explain", "self")
_FLOOR_MEMORY = 1 << 20  # bench/floor.h


class Latencies(msgspec.Struct):
    """In nanoseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    def in_microseconds(self) -> Latency:
        return Latency(*(getattr(self, name) / 1e3 for name in self.__struct_fields__))


class Measured(msgspec.Struct):
    """What the client prints, bench/meter.c."""

    units: int
    bytes: int
    start: float
    seconds: float
    client_cpu: float
    server_cpu: float
    sleeps: int
    memory_kb: int
    latency_ns: Latencies | None

    @property
    def latency(self) -> Latency | None:
        return self.latency_ns.in_microseconds() if self.latency_ns else None

    def work_done(self, kind: str) -> float:
        """How many units of work: the megabytes of a stream, or what the program counted."""
        return self.bytes / 1e6 if kind == "stream" else self.units

    def figure(self, kind: str) -> float:
        """Microseconds of a round trip, GB/s of a stream, or units in a second."""
        if kind in _ROUND_TRIPS:
            return self.seconds * 1e6 / self.units
        return self.work_done(kind) / self.seconds / (1e3 if kind == "stream" else 1)

    def sample(self, kind: str, proof: Proof) -> Sample:
        done = self.work_done(kind)
        return Sample(
            value=self.figure(kind),
            proof=proof,
            latency=self.latency,
            client_cpu=per_unit(self.client_cpu, done),
            server_cpu=per_unit(self.server_cpu, done),
            sleeps=self.sleeps / done if done else None,
            memory_kb=self.memory_kb,
        )


def decoded(line: str) -> Measured:
    """Raises BenchError."""
    try:
        measured = msgspec.json.decode(line, type=Measured)
    except msgspec.DecodeError as error:
        raise BenchError(f"the measuring program printed nonsense: {error}") from error
    if measured.units == 0 or measured.seconds <= 0:
        raise BenchError("the measuring program came to nothing: give it more --seconds")
    return measured


@dataclass(frozen=True)
class Ends:
    """Both of them, up and connected. Use `meeting()`."""

    server: Child
    client: Child
    witness: Witness
    port: int | None
    """Of TCP."""

    @property
    def pids(self) -> tuple[int, int]:
        return self.client.pid, self.server.pid

    def wait_until_fused(self, connections: int) -> None:
        """Returns when so many are, or will not be any more: the proof then says so."""
        self.witness.wait_until_fused(connections, lambda: not self.client.ended())


@contextmanager
def meeting(
    place: Place,
    side: Side,
    words: Sequence[str],
    *,
    client_words: Sequence[str] = (),
    client_under: Sequence[str] = (),
    server_side: Side | None = None,
    cpus: tuple[int | None, int | None] = (None, None),
    name: str = "measure",
    patience: float = PATIENCE,
) -> Iterator[Ends]:
    """The ends, the client warming up, until the end of the block. The server is on the same
    side unless told otherwise; the client may be run by another program, whose words come
    first; the name is unique among those that are up at once. Raises BenchError."""
    of_server = place.environment(server_side or side)
    of_client = place.environment(side)
    common = [f"over={side.over}", f"waiting={'poll' if side.polling else 'block'}", *words]
    with meeting_point(place, side, name) as (at, fds), _joining(side) as joining:
        command = [place.measure, "server", *common, f"at={at}", *joining[0].words]
        with running(command, of_server, fds=(*fds, *joining[0].fds), cpu=cpus[0]) as server:
            at = server.line(patience).removeprefix("ready ")
            command = [*client_under, place.measure, "client", *common, f"at={at}"]
            command += [f"peer={server.pid}", *client_words, *joining[1].words]
            with running(command, of_client, fds=(*fds, *joining[1].fds), cpu=cpus[1]) as client:
                if client.line(patience) != "warming":
                    raise client.failure("did not begin")
                port = int(at) if side.over == "tcp" else None
                yield Ends(server, client, Witness(place.broker, port), port)


@contextmanager
def meeting_point(
    place: Place, side: Side, name: str = "measure"
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the programs call `at`, and the descriptors they inherit for it."""
    if side.over == "tcp":
        yield "0", ()
    elif side.over == "unix":
        path = place.folder / f"{name}.sock"
        path.unlink(missing_ok=True)
        yield str(path), ()
    else:
        memory = os.memfd_create("loopfuse-bench-floor")
        try:
            os.ftruncate(memory, _FLOOR_MEMORY)
            yield str(memory), (memory,)
        finally:
            os.close(memory)


class Joining(NamedTuple):
    """What an end is told and given to have its sends redirected."""

    words: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


@contextmanager
def _joining(side: Side) -> Iterator[list[Joining]]:
    """For the server and the client."""
    if not side.sockmap:
        yield [Joining(), Joining()]
        return
    with sockmap.maps() as maps:
        yield [Joining((f"sockmap={fd}",), (fd,)) for fd in maps]

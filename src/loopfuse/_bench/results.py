"""What a run of the benchmark found: the types are the schema of ``--json``."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = 1
Better = Literal["less", "more"]
UNFUSED = ("calls", "start")
"""Kinds that are about what programs under loopfuse pay where they have nothing to fuse."""


class Latency(msgspec.Struct):
    """Of single units of work, in microseconds; what the measuring program does not tell is
    None."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


class Proof(msgspec.Struct):
    """Whether the payload really went the way the side's name says, by the broker and /proc."""

    holds: bool
    words: str
    """What was seen, or what is wrong."""
    connections: int
    """That the broker knows of."""
    fused: int
    """That were fused, of these."""
    ring_bytes: int
    """Payload that went through rings while it was measured."""


class Sample(msgspec.Struct):
    """One measurement."""

    value: float
    """In the row's unit."""
    proof: Proof
    latency: Latency | None = None
    client_cpu: float | None = None
    """Microseconds of CPU time for one unit of work, in the client."""
    server_cpu: float | None = None
    broker_cpu: float | None = None
    """Where it is counted: what else could cost CPUs that are all busy, or all idle."""
    sleeps: float | None = None
    """Voluntary context switches for one unit of work, both ends together; where they idle, all
    switches."""
    user_instructions: float | None = None
    """Of the client, for one unit of work."""
    kernel_instructions: float | None = None
    counting: str | None = None
    """How instructions were counted, or why they were not."""
    softirq_share: float | None = None
    """Of the CPU time of the CPU it ran on; only where all ran on one."""
    memory_kb: int | None = None
    """Resident memory of both ends, shared pages counted once."""


class Spread(msgspec.Struct):
    """Of the values of all rounds."""

    median: float
    low: float
    high: float


class Cell(msgspec.Struct):
    """One side of one row."""

    side: str
    samples: list[Sample] = []
    value: Spread | None = None
    """None: nothing was measured, or nothing that can be believed; `missing` says why."""
    missing: str | None = None

    @property
    def is_fused(self) -> bool:
        return self.side.startswith("loopfuse")


class Row(msgspec.Struct):
    """One workload."""

    id: str
    kind: str
    title: str
    unit: str
    """Of the values."""
    work: str
    """What one unit of work is, for CPU time."""
    better: Better
    size: int | None = None
    """Bytes of a message or write; None for a real program."""
    pinned: bool = False
    cells: list[Cell] = []

    def cell(self, side: str) -> Cell | None:
        return next((cell for cell in self.cells if cell.side == side), None)


class SideFacts(msgspec.Struct):
    """One way that the bytes go."""

    key: str
    title: str
    words: str


class Fact(msgspec.Struct):
    """Something about the machine or the method."""

    name: str
    value: str


class Bar(msgspec.Struct):
    """A round trip, taken apart."""

    title: str
    parts: dict[str, float]
    """Microseconds of each."""


class Explanation(msgspec.Struct):
    """What a round trip is made of, and what fusing takes away."""

    bars: list[Bar]
    words: str


class TargetResult(msgspec.Struct):
    """Something that fusing is meant to give, and what it gave."""

    work: str
    row: str
    """The id of the row that is looked at, or a pattern."""
    against: str
    required: str
    value: float | None = None
    """None: there is no figure; `missing` says why."""
    measured: str = "-"
    reached: bool | None = None
    missing: str | None = None

    def in_words(self) -> tuple[str, str, str, str, str]:
        """A line of the report."""
        verdict = {True: "yes", False: "no", None: self.missing or "-"}[self.reached]
        return self.work, self.against, self.required, self.measured, verdict


class Report(msgspec.Struct):
    """The whole run."""

    schema: int
    version: str
    """Of loopfuse."""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    rounds: int
    machine: list[Fact]
    method: list[Fact]
    sides: list[SideFacts]
    rows: list[Row]
    left_out: list[Fact]
    """What was not measured, and why not."""
    explanation: Explanation | None = None
    targets: list[TargetResult] = []

    def unproven(self) -> list[str]:
        """Cells whose figures were thrown away because something else was measured."""
        return [
            f"{row.title}, {cell.side}: {sample.proof.words}"
            for row in self.rows
            for cell in row.cells
            for sample in cell.samples
            if not sample.proof.holds
        ]

    def incomplete(self) -> dict[str, str]:
        """Cells without a figure, or with one that is not from all rounds, and why."""
        return {
            f"{row.title}, {cell.side}": cell.missing or "never measured"
            for row in self.rows
            for cell in row.cells
            if cell.value is None or cell.missing is not None
        }

    def proof(self) -> str:
        """What the broker and /proc said of all that was measured, in one sentence."""
        cells = [(row, cell) for row in self.rows for cell in row.cells]
        plain = [s.proof for _, c in cells if not c.is_fused for s in c.samples]
        ours = [(r, s.proof) for r, c in cells if c.is_fused for s in c.samples]
        short = [proof for row, proof in ours if row.kind == "rate"]
        unfused = [proof for row, proof in ours if row.kind in UNFUSED]
        fused = [proof for row, proof in ours if row.kind not in ("rate", *UNFUSED)]
        words = (
            f"{sum(proof.holds for proof in fused)} of {len(fused)} measurements of loopfuse were "
            f"fused, with {sum(proof.ring_bytes for proof in fused):,} bytes of payload in rings; "
            f"{sum(proof.holds for proof in plain)} of {len(plain)} of the other sides were not "
            "fused"
        )
        if short:
            words += (
                f"; of the short connections in {len(short)} measurements under loopfuse "
                f"{sum(proof.fused for proof in short):,} were fused"
            )
        if unfused:
            words += (
                f"; in {sum(proof.holds for proof in unfused)} of {len(unfused)} measurements a "
                "program ran under loopfuse and had nothing to fuse"
            )
        return words

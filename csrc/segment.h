/* segment.h - the memory two fused ends share. The only C file that knows its layout.
 *
 * One segment belongs to one fused connection. The broker makes it (a memfd sealed
 * against growing, shrinking and further seals), fills in the first line and hands it
 * to both ends. docs/segment.md draws it; src/loopfuse/_segments.py reads it from
 * Python, and a test compares the two offset by offset.
 *
 *   0x400  ring of direction 1, ring_size bytes; its last 0x400 lie in the header's page
 *   H      header, 0x800 bytes at H = 0x400 + ring_size:
 *     0x000  identity       written by the broker before the hand-out, constant after
 *     0x080  broker line    written by the broker only
 *     0x100  direction 0    client to server (the client is the end that called connect)
 *     0x400  direction 1    server to client
 *   H + 0x800  ring of direction 0, ring_size bytes; its first 0x400 lie in the header's page
 *
 * The first and the last 0x400 bytes are not used. So one page, at ring_size, holds all that
 * a connection with short messages touches.
 *
 * Each direction has one producer and one consumer *end*. An end may be several
 * threads and forked processes; they take turns under the end's own locks (slot.h),
 * which the other end can neither see nor touch.
 *
 * Everything the other end writes is a claim, not a fact: head and tail are checked
 * (tail <= head <= tail + ring_size) before they are used to address memory.
 *
 * Lines are 128 bytes apart, not 64: the adjacent-line prefetcher of x86 and the
 * 128-byte lines of some arm64 parts would otherwise share what should be private.
 */
#ifndef LF_SEGMENT_H
#define LF_SEGMENT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LF_SEGMENT_MAGIC 0x314553554650304cULL /* "L0PFUSE1", little endian */
#define LF_SEGMENT_VERSION 9u
#define LF_SEGMENT_EXTRA 4096u /* bytes beside the two rings */
#define LF_SEGMENT_HEADER 2048u
#define LF_SEGMENT_SHORT 1024u /* bytes of each ring in the header's page */
#define LF_LINE 128u
#define LF_RING_MIN 4096u
#define LF_RING_MAX (16u << 20)

/* How far a direction has come. The producer alone moves the mark, and only forward. */
enum lf_mark {
	LF_MARK_PLAIN = 0, /* bytes travel by TCP */
	LF_MARK_FUSED = 1, /* after tcp_total bytes of TCP, bytes travel in the ring */
	LF_MARK_ENDED = 2, /* the ring is final at end_pos; later bytes travel by TCP */
};

/* What the consumer wants of the producer. From TAKE_BACK on there are two ways, and one
 * compare-and-swap decides: the producer's to TAKEN, then the unread bytes are its own again;
 * or the consumer's to NONE, for as long as it reads some of them after all. */
enum lf_wish {
	LF_WISH_NONE = 0,
	LF_WISH_PLAIN = 1,     /* write the end mark before your next send */
	LF_WISH_TAKE_BACK = 2, /* the same, and send what is unread by TCP: I am not reading */
	LF_WISH_TAKEN = 3,     /* the producer is about to, or has; final */
	LF_WISH_TAKEN_LATE = 4, /* the same after its end mark: end_pos moves back, if need be */
};

/* Is the consumer gone for good? In a close(2) it says so before it looks for unread bytes. If it is
 * killed before it has told the kernel of them, nobody has: then its end is as any death. */
enum lf_closed {
	LF_CLOSED_NO = 0,
	LF_CLOSED_TOLD = 1, /* nobody will ever read this ring again; TCP tells the producer */
	LF_CLOSED_CLOSING = 2, /* nobody will, and TCP may not know of unread bytes yet */
};

/* What the producer is about to do to its TCP socket. A hint: TCP itself decides. */
enum lf_fin_hint {
	LF_FIN_NONE = 0,
	LF_FIN_COMING = 1, /* or RST: shutdown(SHUT_WR), close */
};

/* How one end has waited in one direction, for `loopfuse top` and the metrics (counters.h):
 * written by the end that waits, on a line of its own. */
enum { LF_WAKE_BUCKETS = 8 };
#define LF_WAKE_BOUNDS_NS {5000, 10000, 25000, 50000, 100000, 1000000, 10000000} /* and more */
struct lf_waits {
	_Atomic uint64_t spins_paid; /* spins that found what they waited for */
	_Atomic uint64_t spins_vain; /* and those that did not */
	_Atomic uint64_t sleeps;     /* how often it lay down until it is rung for */
	_Atomic uint64_t wake_ns;    /* all of its wake-ups, from the ring to its return */
	_Atomic uint32_t wakes[LF_WAKE_BUCKETS]; /* how many took so long at most; modulo 2^32 */
};

struct lf_producer_line {
	_Atomic uint64_t head;      /* bytes ever put into the ring */
	_Atomic uint32_t mark;      /* enum lf_mark */
	_Atomic uint32_t fin_hint;  /* enum lf_fin_hint: look at TCP as well */
	_Atomic uint64_t held;      /* 0, or not: the bytes from ~held on wait for more, held.c */
	_Atomic uint64_t end_pos;   /* head when the ring became final; valid from ENDED */
	_Atomic uint32_t reason;    /* enum lf_reason, why it ended; valid from ENDED */
	_Atomic uint32_t cpu;       /* CPU the producer was last seen on, plus one; a hint */
	_Atomic uint64_t origin;    /* place of position 0 in the ring; changes while it is empty */
	_Atomic uint64_t messages;  /* sends that put bytes into the ring */
	_Atomic uint64_t arrival;   /* of the last of them, see struct lf_arrival_line */
	struct lf_waits waits; /* for room; not in the 64 bytes that a reader looks at */
};

/* When the last few sends went into the ring, for a consumer that has several rings to tell of at
 * once. High half: the position where the send began, modulo 2^32; low half: lf_arrival_steps(). Hints:
 * nothing but an order goes by them. The n-th send's lies at n mod LF_ARRIVALS. */
enum { LF_ARRIVALS = 8 };
struct lf_arrival_line {
	_Atomic uint64_t last[LF_ARRIVALS];
	/* Valid from ENDED. So many bytes before end_pos are on their way by TCP as well, and FIN alone
	 * comes behind them: a copy of what was unread when this direction was shut, for a reader that
	 * knows only TCP. Not a hint: it lies here since here is room. */
	_Atomic uint64_t copied;
	_Atomic uint64_t given; /* of those, what TCP took: final before FIN */
	/* Nor is this. */
	_Atomic uint64_t tcp_total; /* payload sent by TCP before the ring; valid from FUSED */
	_Atomic int64_t held_at; /* a hint: since when bytes are held, ns of CLOCK_MONOTONIC */
	uint8_t pad[LF_LINE - 96];
};

/* Alone on its line: it moves with each receive, and a producer with room to spare is not to
 * pay for that when it looks at the consumer's line, before and after each send. */
struct lf_tail_line {
	_Atomic uint64_t tail; /* bytes ever taken out of the ring */
	struct lf_waits waits; /* for bytes */
	uint8_t pad[LF_LINE - 72];
};

struct lf_consumer_line {
	_Atomic uint32_t ready;  /* 1: the consumer watches the ring as well as TCP */
	_Atomic uint32_t closed; /* enum lf_closed */
	_Atomic uint32_t wish;   /* enum lf_wish */
	_Atomic uint32_t reason; /* enum lf_reason, why wish or closed */
	_Atomic uint32_t cpu;    /* CPU the consumer was last seen on, plus one; a hint */
	_Atomic uint32_t limit;  /* unread bytes that the consumer's SO_RCVBUF allows, 0: any */
	_Atomic uint32_t refuses; /* 1: shut both ways, or about to be: TCP answers payload by RST */
	uint8_t pad[LF_LINE - 28];
};

/* The halves of broker_wish. */
#define LF_SEGMENT_TAPS 8u /* at most so many taps at a time */
#define LF_BROKER_REASON(word) ((word) & 0xffffu)
#define LF_BROKER_TAPS(word) ((word) >> 16 & ((1u << LF_SEGMENT_TAPS) - 1))

/* Set by the end that is going to sleep, cleared by the end that rings. */
struct lf_armed_line {
	_Atomic uint32_t armed;
	_Atomic uint32_t below; /* writer: it can go on once no more bytes are unread than this */
	_Atomic uint64_t rings;   /* doorbells rung for it; by the end that rings, as is the next */
	_Atomic uint64_t rung_at; /* when last, ns of CLOCK_MONOTONIC */
	uint8_t pad[LF_LINE - 24];
};

struct lf_direction {
	struct lf_producer_line p;
	struct lf_tail_line t;
	struct lf_consumer_line c;
	struct lf_armed_line reader; /* the consumer sleeps until there is something to read */
	struct lf_armed_line writer; /* the producer sleeps until there is room */
	struct lf_arrival_line arrivals; /* the producer's */
};

struct lf_segment {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;
	uint64_t pair_id;
	uint32_t ring_size; /* bytes of one ring, a power of two */
	uint32_t flags;     /* none defined */
	uint8_t pad0[LF_LINE - 32];
	/* Low half: enum lf_reason other than 0: both producers end. High half: a bit for each tap
	 * that is to see the payload. One word, so that a send looks at both with one load. */
	_Atomic uint32_t broker_wish;
	uint8_t pad1[LF_LINE - 4];
	struct lf_direction dir[2];
};

static inline size_t lf_segment_size(uint32_t ring_size)
{
	return LF_SEGMENT_EXTRA + 2 * (size_t)ring_size;
}

/* Of a mapping with rings of this size: where the header lies, and where each ring. */
static inline struct lf_segment *lf_segment_at(void *mapping, uint32_t ring_size)
{
	return (struct lf_segment *)(void *)((uint8_t *)mapping + LF_SEGMENT_SHORT + ring_size);
}

/* The page it lies in, at ring_size of the mapping, and back. */
static inline uint8_t *lf_segment_page(struct lf_segment *segment)
{
	return (uint8_t *)segment - LF_SEGMENT_SHORT;
}

static inline struct lf_segment *lf_segment_in_page(uint8_t *page)
{
	return (struct lf_segment *)(void *)(page + LF_SEGMENT_SHORT);
}

static inline uint8_t *lf_segment_ring(struct lf_segment *segment, uint32_t ring_size,
				       unsigned direction)
{
	uint8_t *header = (uint8_t *)segment;
	return direction == 0 ? header + LF_SEGMENT_HEADER : header - ring_size;
}

/* Places of a ring and pages: the place where n bytes that are alone in the ring touch the fewest
 * pages, the header's first; and how many bytes from `place` on lie in the same page. */
static inline uint32_t lf_segment_home(uint32_t ring_size, unsigned direction, size_t n)
{
	if (direction == 0)
		return 0;
	/* Whole pages right before the header's, then what it has room for. */
	size_t before = n > LF_SEGMENT_SHORT ? (n - LF_SEGMENT_SHORT + 4095) & ~(size_t)4095 : 0;
	size_t most = ring_size - 4096;
	return ring_size - LF_SEGMENT_SHORT - (uint32_t)(before < most ? before : most);
}

static inline size_t lf_segment_left_in_page(uint32_t ring_size, unsigned direction, size_t place)
{
	size_t page_place = place + LF_SEGMENT_SHORT + (direction == 0 ? LF_SEGMENT_HEADER : 0);
	size_t left = 4096 - (page_place & 4095), in_ring = ring_size - place;
	return left < in_ring ? left : in_ring;
}

/* The part of a ring that lies in the header's page, where the broker has written: so that page has
 * its memory. */
static inline uint32_t lf_segment_backed_from(uint32_t ring_size, unsigned direction)
{
	return direction == 0 ? 0 : ring_size - LF_SEGMENT_SHORT;
}

static_assert(sizeof(struct lf_producer_line) == LF_LINE, "producer line");
static_assert(sizeof(struct lf_tail_line) == LF_LINE, "tail line");
static_assert(sizeof(struct lf_consumer_line) == LF_LINE, "consumer line");
static_assert(sizeof(struct lf_armed_line) == LF_LINE, "armed line");
static_assert(offsetof(struct lf_segment, pair_id) == 0x010, "pair_id");
static_assert(offsetof(struct lf_segment, ring_size) == 0x018, "ring_size");
static_assert(offsetof(struct lf_segment, broker_wish) == 0x080, "broker_wish");
static_assert(offsetof(struct lf_segment, dir) == 0x100, "dir");
static_assert(sizeof(struct lf_arrival_line) == LF_LINE, "arrival line");
static_assert(offsetof(struct lf_arrival_line, copied) == 0x40, "copied");
static_assert(offsetof(struct lf_arrival_line, given) == 0x48, "given");
static_assert(offsetof(struct lf_arrival_line, tcp_total) == 0x50, "tcp_total");
static_assert(offsetof(struct lf_arrival_line, held_at) == 0x58, "held_at");
static_assert(sizeof(struct lf_direction) == 0x300, "direction");
static_assert(offsetof(struct lf_producer_line, mark) == 0x08, "mark");
static_assert(offsetof(struct lf_producer_line, held) == 0x10, "held");
static_assert(offsetof(struct lf_producer_line, end_pos) == 0x18, "end_pos");
static_assert(offsetof(struct lf_producer_line, reason) == 0x20, "producer reason");
static_assert(offsetof(struct lf_producer_line, origin) == 0x28, "origin");
static_assert(offsetof(struct lf_producer_line, messages) == 0x30, "messages");
static_assert(offsetof(struct lf_producer_line, arrival) == 0x38, "arrival");
static_assert(offsetof(struct lf_producer_line, waits) == 0x40, "producer waits");
static_assert(offsetof(struct lf_tail_line, waits) == 0x08, "consumer waits");
static_assert(offsetof(struct lf_waits, spins_vain) == 0x08, "spins_vain");
static_assert(offsetof(struct lf_waits, sleeps) == 0x10, "sleeps");
static_assert(offsetof(struct lf_waits, wake_ns) == 0x18, "wake_ns");
static_assert(offsetof(struct lf_waits, wakes) == 0x20, "wakes");
static_assert(sizeof(struct lf_waits) == 0x40, "waits");
static_assert(offsetof(struct lf_armed_line, rings) == 0x08, "rings");
static_assert(offsetof(struct lf_armed_line, rung_at) == 0x10, "rung_at");
static_assert(offsetof(struct lf_consumer_line, ready) == 0x00, "ready");
static_assert(offsetof(struct lf_consumer_line, closed) == 0x04, "closed");
static_assert(offsetof(struct lf_consumer_line, wish) == 0x08, "wish");
static_assert(offsetof(struct lf_consumer_line, reason) == 0x0c, "consumer reason");
static_assert(offsetof(struct lf_consumer_line, limit) == 0x14, "limit");
static_assert(offsetof(struct lf_consumer_line, refuses) == 0x18, "refuses");
static_assert(offsetof(struct lf_armed_line, below) == 0x04, "below");
static_assert(offsetof(struct lf_direction, t) == 0x080, "tail line");
static_assert(offsetof(struct lf_direction, c) == 0x100, "consumer line");
static_assert(offsetof(struct lf_direction, reader) == 0x180, "reader armed");
static_assert(offsetof(struct lf_direction, writer) == 0x200, "writer armed");
static_assert(offsetof(struct lf_direction, arrivals) == 0x280, "arrivals");
static_assert(sizeof(struct lf_segment) <= LF_SEGMENT_HEADER, "header");
static_assert(LF_SEGMENT_HEADER + 2 * LF_SEGMENT_SHORT == LF_SEGMENT_EXTRA, "one page");

#endif

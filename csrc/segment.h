/* segment.h - the memory two fused ends share. The only C file that knows its layout.
 *
 * One segment belongs to one fused connection. The broker makes it (a memfd sealed
 * against growing, shrinking and further seals), fills in the first line and hands it
 * to both ends. docs/segment.md draws it; src/loopfuse/_segments.py reads it from
 * Python, and a test compares the two offset by offset.
 *
 *   0x000  identity       written by the broker before the hand-out, constant after
 *   0x080  broker line    written by the broker only
 *   0x100  direction 0    client to server (the client is the end that called connect)
 *   0x380  direction 1    server to client
 *   0x1000 ring of direction 0, ring_size bytes
 *   0x1000 + ring_size    ring of direction 1, ring_size bytes
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
#define LF_SEGMENT_VERSION 2u
#define LF_SEGMENT_HEADER 4096u
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
 * or the consumer's back to PLAIN, then they stay in the ring and the consumer reads them. */
enum lf_wish {
	LF_WISH_NONE = 0,
	LF_WISH_PLAIN = 1,     /* write the end mark before your next send */
	LF_WISH_TAKE_BACK = 2, /* the same, and send what is unread by TCP: I stopped reading */
	LF_WISH_TAKEN = 3,     /* the producer is about to */
};

/* What the producer is about to do to its TCP socket. A hint: TCP itself decides. */
enum lf_fin_hint {
	LF_FIN_NONE = 0,
	LF_FIN_COMING = 1, /* or RST: shutdown(SHUT_WR), close */
};

struct lf_producer_line {
	_Atomic uint64_t head;      /* bytes ever put into the ring */
	_Atomic uint32_t mark;      /* enum lf_mark */
	_Atomic uint32_t fin_hint;  /* enum lf_fin_hint: look at TCP as well */
	_Atomic uint64_t tcp_total; /* payload sent by TCP before the ring; valid from FUSED */
	_Atomic uint64_t end_pos;   /* head when the ring became final; valid from ENDED */
	_Atomic uint32_t reason;    /* enum lf_reason, why it ended; valid from ENDED */
	_Atomic uint32_t cpu;       /* CPU the producer was last seen on, plus one; a hint */
	_Atomic uint64_t origin;    /* place of position 0 in the ring; changes while it is empty */
	uint8_t pad[LF_LINE - 48];
};

/* Alone on its line: it moves with each receive, and a producer with room to spare is not to
 * pay for that when it looks at the consumer's line, before and after each send. */
struct lf_tail_line {
	_Atomic uint64_t tail; /* bytes ever taken out of the ring */
	uint8_t pad[LF_LINE - 8];
};

struct lf_consumer_line {
	_Atomic uint32_t ready;  /* 1: the consumer watches the ring as well as TCP */
	_Atomic uint32_t closed; /* 1: nobody will ever read this ring again */
	_Atomic uint32_t wish;   /* enum lf_wish */
	_Atomic uint32_t reason; /* enum lf_reason, why wish or closed */
	_Atomic uint32_t cpu;    /* CPU the consumer was last seen on, plus one; a hint */
	_Atomic uint32_t limit;  /* unread bytes that the consumer's SO_RCVBUF allows, 0: any */
	uint8_t pad[LF_LINE - 24];
};

/* Set by the end that is going to sleep, cleared by the end that rings. */
struct lf_armed_line {
	_Atomic uint32_t armed;
	uint8_t pad[LF_LINE - 4];
};

struct lf_direction {
	struct lf_producer_line p;
	struct lf_tail_line t;
	struct lf_consumer_line c;
	struct lf_armed_line reader; /* the consumer sleeps until there is something to read */
	struct lf_armed_line writer; /* the producer sleeps until there is room */
};

struct lf_segment {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;
	uint64_t pair_id;
	uint32_t ring_size; /* bytes of one ring, a power of two */
	uint32_t flags;     /* none defined */
	uint8_t pad0[LF_LINE - 32];
	_Atomic uint32_t broker_wish; /* enum lf_reason other than 0: both producers end */
	uint8_t pad1[LF_LINE - 4];
	struct lf_direction dir[2];
};

static_assert(sizeof(struct lf_producer_line) == LF_LINE, "producer line");
static_assert(sizeof(struct lf_tail_line) == LF_LINE, "tail line");
static_assert(sizeof(struct lf_consumer_line) == LF_LINE, "consumer line");
static_assert(sizeof(struct lf_armed_line) == LF_LINE, "armed line");
static_assert(offsetof(struct lf_segment, pair_id) == 0x010, "pair_id");
static_assert(offsetof(struct lf_segment, ring_size) == 0x018, "ring_size");
static_assert(offsetof(struct lf_segment, broker_wish) == 0x080, "broker_wish");
static_assert(offsetof(struct lf_segment, dir) == 0x100, "dir");
static_assert(sizeof(struct lf_direction) == 0x280, "direction");
static_assert(offsetof(struct lf_producer_line, mark) == 0x08, "mark");
static_assert(offsetof(struct lf_producer_line, tcp_total) == 0x10, "tcp_total");
static_assert(offsetof(struct lf_producer_line, end_pos) == 0x18, "end_pos");
static_assert(offsetof(struct lf_producer_line, reason) == 0x20, "producer reason");
static_assert(offsetof(struct lf_producer_line, origin) == 0x28, "origin");
static_assert(offsetof(struct lf_consumer_line, ready) == 0x00, "ready");
static_assert(offsetof(struct lf_consumer_line, closed) == 0x04, "closed");
static_assert(offsetof(struct lf_consumer_line, wish) == 0x08, "wish");
static_assert(offsetof(struct lf_consumer_line, reason) == 0x0c, "consumer reason");
static_assert(offsetof(struct lf_consumer_line, limit) == 0x14, "limit");
static_assert(offsetof(struct lf_direction, t) == 0x080, "tail line");
static_assert(offsetof(struct lf_direction, c) == 0x100, "consumer line");
static_assert(offsetof(struct lf_direction, reader) == 0x180, "reader armed");
static_assert(offsetof(struct lf_direction, writer) == 0x200, "writer armed");
static_assert(sizeof(struct lf_segment) <= LF_SEGMENT_HEADER, "header page");

#endif

/* wire.h - what the data plane and the broker say to each other. The only C file that
 * knows the protocol; docs/protocol.md describes it, src/loopfuse/_wire.py is its twin.
 *
 * AF_UNIX SOCK_SEQPACKET, one message a packet, native byte order (one host), fixed
 * sizes. A packet of the wrong size, magic or version closes the connection. Packets
 * whose first byte is '{' are JSON requests of the command line and never reach here.
 *
 *   library                                 broker
 *   HELLO                             ->
 *                                     <-    WELCOME   + [mailbox memfd, 4096 bytes]
 *   CLAIM (one end of a connection)   ->
 *                                     <-    FUSE      + [segment memfd, doorbell]
 *                                     or    REFUSE    (reason)
 *   DECLINE (changed my mind, or will never claim, with reason)  ->
 *   CLOSED  (hint: this end is gone)  ->
 *                                     <-    TAP       + [capture ring memfd], see capture.h
 *   TAP_ASK (where are this pair's?)  ->
 *
 * The mailbox's first 32-bit word counts the messages the broker has sent on this
 * connection, WELCOME included; the broker stores it after each send. The library
 * looks there, not at the socket, to learn that something has come.
 */
#ifndef LF_WIRE_H
#define LF_WIRE_H

#include <assert.h>
#include <stdint.h>

#define LF_WIRE_MAGIC 0x3157464cu /* "LFW1", little endian */
#define LF_WIRE_VERSION 1u
#define LF_WIRE_MAX 128u

enum lf_wire_type {
	LF_WIRE_HELLO = 1,
	LF_WIRE_WELCOME = 2,
	LF_WIRE_CLAIM = 3,
	LF_WIRE_FUSE = 4,
	LF_WIRE_REFUSE = 5,
	LF_WIRE_DECLINE = 6,
	LF_WIRE_CLOSED = 7,
	LF_WIRE_TAP = 8,
	LF_WIRE_TAP_ASK = 9,
};

enum lf_wire_side { LF_SIDE_CLIENT = 0, LF_SIDE_SERVER = 1 };

struct lf_wire_head {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
};

struct lf_wire_hello {
	struct lf_wire_head head;
	uint32_t flags; /* bit 0: eager; bit 1: a guest (loopfuse run, never the library) */
	uint32_t pid;   /* of the sender, for the log only: SO_PEERCRED is what counts */
};

struct lf_wire_welcome {
	struct lf_wire_head head;
	uint32_t mailbox_size;
	uint32_t reserved;
};

/* Also the form of DECLINE: there reason says why, and a broker that never saw the
 * claim makes a row of it. */
struct lf_wire_claim {
	struct lf_wire_head head;
	uint64_t claim_id;     /* the library's name for this end, unique in its connection */
	uint64_t cookie;       /* SO_COOKIE */
	uint64_t netns_cookie; /* SO_NETNS_COOKIE, 0 if the kernel has none */
	uint16_t family;       /* AF_INET or AF_INET6, of the socket */
	uint16_t side;         /* enum lf_wire_side */
	uint16_t local_port;   /* host byte order */
	uint16_t remote_port;
	uint8_t local_addr[16]; /* network order; AF_INET uses the first four bytes */
	uint8_t remote_addr[16];
	uint32_t reason; /* enum lf_reason, 0 in CLAIM */
	uint32_t limit;  /* greatest number of unread bytes towards this end, 0: ring size */
};

struct lf_wire_fuse {
	struct lf_wire_head head;
	uint64_t claim_id;
	uint64_t pair_id;
	uint32_t side; /* which end of the segment the receiver is */
	uint32_t ring_size;
	uint32_t limit_out; /* unread bytes allowed towards the peer, 0: ring size */
	uint32_t reserved;
};

struct lf_wire_refuse {
	struct lf_wire_head head;
	uint64_t claim_id;
	uint32_t reason;
	uint32_t reserved;
};

struct lf_wire_closed {
	struct lf_wire_head head;
	uint64_t pair_id;
	uint64_t cookie;
};

/* Connections in whose segment this bit of the taps is set are to be recorded there. */
struct lf_wire_tap {
	struct lf_wire_head head;
	uint32_t slot;  /* number of the bit */
	uint32_t cells; /* of the capture ring */
};

/* This pair's segment has bits for which the process knows no capture ring, for instance since
 * it was forked before they were handed out. */
struct lf_wire_tap_ask {
	struct lf_wire_head head;
	uint64_t pair_id;
};

static_assert(sizeof(struct lf_wire_head) == 8, "head");
static_assert(sizeof(struct lf_wire_hello) == 16, "hello");
static_assert(sizeof(struct lf_wire_welcome) == 16, "welcome");
static_assert(sizeof(struct lf_wire_claim) == 80, "claim");
static_assert(sizeof(struct lf_wire_fuse) == 40, "fuse");
static_assert(sizeof(struct lf_wire_refuse) == 24, "refuse");
static_assert(sizeof(struct lf_wire_closed) == 24, "closed");
static_assert(sizeof(struct lf_wire_tap) == 16, "tap");
static_assert(sizeof(struct lf_wire_tap_ask) == 16, "tap ask");

#endif

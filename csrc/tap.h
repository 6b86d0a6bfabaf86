/* tap.h - putting what a tapped connection sends into capture rings (capture.h): the cold path of
 * a send. A tap costs a program time for a copy, never for waiting: what finds no room, or no
 * ring yet, is lost to the tap and counted there.
 */
#ifndef LF_TAP_H
#define LF_TAP_H

#include "capture.h"
#include "sock.h"
#include "wire.h"

#include <stddef.h>
#include <stdint.h>

/* The broker's word: taps with this bit are recorded there. Takes what it needs of fd, which
 * stays the caller's. Under the broker's lock. */
void lf_tap_take(const struct lf_wire_tap *tap, int fd);
/* Unmaps rings that nobody reads any more. Under the broker's lock. */
void lf_tap_tidy(void);
void lf_tap_after_fork(void);

void lf_tap_fetch(struct lf_sock *sock, uint32_t taps);
/* Before a send takes its lock: fetches the rings that this process does not know yet, if the
 * socket is tapped at all. FUSED or ENDED. */
static inline void lf_tap_prepare(struct lf_sock *sock)
{
	uint32_t taps = LF_BROKER_TAPS(
		atomic_load_explicit(&sock->segment->broker_wish, memory_order_relaxed));
	if (taps)
		lf_tap_fetch(sock, taps);
}

/* Under tx_lock: n bytes that lie at `place` of the outgoing ring, the position of the first one
 * being `head`. To be called before they are published: an answer to them is recorded later. */
void lf_tap_put(struct lf_sock *sock, uint32_t taps, uint64_t head, uint64_t place, size_t n);

/* This end sends no more. Records nothing unless the socket is paired, tapped, and has sent nothing
 * by TCP since it was fused: the end would not be where the ring's is. */
void lf_tap_end(struct lf_sock *sock, enum lf_capture_kind kind);

#endif

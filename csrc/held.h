/* held.h - bytes in the ring that wait for more to come: TCP_CORK and MSG_MORE.
 *
 * TCP keeps back a segment that is not full while its sender says that more is to come: until
 * that is over, the segment is full or some 200 ms have passed (tcp(7)). Programs count on it: a
 * header and what follows arrive as one. In the ring such bytes lie at once, but the consumer
 * shows its program none of them:
 *
 *   producer                                  consumer
 *   bytes, held = ~head    (relaxed)          loads head  (acquire)
 *   head + n               (release)          loads held  (acquire)
 *   ...                                       loads head  (acquire)
 *   more bytes, head + m   (release)          there are those from tail to min(head, ~held)
 *   held = 0               (release)          not 0, look again if head has moved
 *   fence, rings if armed                     armed, fence, looks again
 *
 * Who sees a head that covers bytes which were held then sees that `held` in the second load, since
 * it was stored before that head, or a later one. If that is 0, or where other bytes are held, the
 * third load sees the head that was stored before: so what was held comes with what it waited
 * for, never alone. Bytes that are held since cover no less: up to ~held all had been let go. And if
 * it is 0, and head is what it was before, nothing was held in between. Who misses the last store,
 * and goes to sleep, is rung for, as for a new head (bell.c).
 *
 * Nobody rings when the 200 ms are over. Whom bytes are kept from sleeps for moments only. It goes by
 * when they were put there, and by its own clock, too: the producer's may be that of another time
 * namespace, and its word is a claim. Once TCP has said anything, FIN above all, or the ring has
 * ended, nothing is held. After the 200 ms the bytes that follow are held anew.
 */
#ifndef LF_HELD_H
#define LF_HELD_H

#include "sock.h"

/* Producer, under tx_lock: the n bytes that are about to be published behind `head` wait for
 * more. False: with them there is enough for a segment, or nothing, or TCP keeps back the bytes
 * before them. */
bool lf_held_begin(struct lf_sock *sock, int fd, uint64_t head, size_t n);
/* Producer, under tx_lock, after publication. The caller rings. True: there were some. */
bool lf_held_end(struct lf_sock *sock);

/* Consumer: ~held if bytes before `head` are held, otherwise `head`. */
uint64_t lf_held_without(const struct lf_sock *sock, uint64_t head, uint64_t held);
/* Consumer: whatever is held now counts as there. */
void lf_held_ignore(const struct lf_sock *sock);

/* Consumer: how far the peer's ring goes, for the program. */
static inline uint64_t lf_held_shown_head(const struct lf_sock *sock)
{
	enum { TRIES = 4 }; /* of a producer that never pauses: then what is held may be seen early */
	const struct lf_producer_line *p = &sock->in->p;
	uint64_t before, held, head;
	for (int i = 0; i < TRIES; i++) {
		before = atomic_load_explicit(&p->head, memory_order_acquire);
		held = atomic_load_explicit(&p->held, memory_order_acquire);
		head = atomic_load_explicit(&p->head, memory_order_acquire);
		if (held)
			return lf_held_without(sock, head, held);
		if (head == before)
			break;
	}
	return head;
}

/* Consumer, armed, and after a look in vain: there are bytes that it is to be shown later, of which
 * nobody tells. That its time may be over since that look makes no difference: they have not been
 * shown, so who asks sleeps but for a moment, and looks again. */
bool lf_held_from_us(const struct lf_sock *sock);

#endif

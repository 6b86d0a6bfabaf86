/* ring.h - bytes in and out of one ring. No state, no waiting, no system call.
 *
 *        tail                 head
 *   ......|#### unread #######|.......        head - tail <= ring size
 *
 * Positions count bytes since the connection was fused and never wrap in practice
 * (2^64); place = (position + origin) mod size. The producer may choose a new origin when
 * it finds the ring empty: then no unread byte depends on the old one, and the store of
 * head that follows publishes it. So short messages always use the same few pages. The
 * functions below take the sum for `position`. Order of memory operations:
 *
 *   producer                              consumer
 *   copies bytes to [head, head + n)      loads head  (acquire)
 *   stores head + n  (release)            copies [tail, head) out
 *   loads tail       (acquire)            stores tail (release)
 *
 * The release of head pairs with the consumer's acquire: bytes are visible before the
 * position that covers them. The release of tail pairs with the producer's acquire: a
 * place is overwritten only after it was read.
 */
#ifndef LF_RING_H
#define LF_RING_H

#include "copy.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Where in an iovec array a transfer has got to. */
struct lf_cursor {
	const struct iovec *iov;
	size_t count;
	size_t offset; /* into iov[0] */
	size_t left;   /* bytes in all */
};

/* `left` of a list that the kernel would refuse with EINVAL: a buffer has more than SSIZE_MAX bytes. */
#define LF_CURSOR_REFUSED SIZE_MAX

static inline struct lf_cursor lf_cursor_over(const struct iovec *iov, size_t count)
{
	struct lf_cursor cursor = {.iov = iov, .count = count};
	size_t lengths = 0;
	for (size_t i = 0; i < count; i++) {
		cursor.left += iov[i].iov_len;
		lengths |= iov[i].iov_len;
	}
	if (lengths > SSIZE_MAX)
		cursor.left = LF_CURSOR_REFUSED;
	return cursor;
}

static inline void lf_cursor_advance(struct lf_cursor *cursor, size_t n)
{
	cursor->left -= n;
	cursor->offset += n;
	while (cursor->count && cursor->offset >= cursor->iov->iov_len) {
		cursor->offset -= cursor->iov->iov_len;
		cursor->iov++;
		cursor->count--;
	}
}

/* Copies n bytes from the cursor to the ring at `position` and advances the cursor.
 * n is at most what is free and what the cursor has. */
static inline void lf_ring_put(uint8_t *ring, uint32_t size, uint64_t position,
			       struct lf_cursor *cursor, size_t n)
{
	while (n) {
		size_t place = (size_t)(position & (size - 1)), piece = size - place;
		size_t have = cursor->iov->iov_len - cursor->offset;
		if (piece > have)
			piece = have;
		if (piece > n)
			piece = n;
		lf_copy(ring + place, (const uint8_t *)cursor->iov->iov_base + cursor->offset, piece);
		lf_cursor_advance(cursor, piece);
		position += piece;
		n -= piece;
	}
}

/* The other way round. */
static inline void lf_ring_get(const uint8_t *ring, uint32_t size, uint64_t position,
			       struct lf_cursor *cursor, size_t n)
{
	while (n) {
		size_t place = (size_t)(position & (size - 1)), piece = size - place;
		size_t have = cursor->iov->iov_len - cursor->offset;
		if (piece > have)
			piece = have;
		if (piece > n)
			piece = n;
		lf_copy((uint8_t *)cursor->iov->iov_base + cursor->offset, ring + place, piece);
		lf_cursor_advance(cursor, piece);
		position += piece;
		n -= piece;
	}
}

/* The one or two pieces of the ring that [position, position + n) covers. */
static inline int lf_ring_pieces(uint8_t *ring, uint32_t size, uint64_t position, size_t n,
				 struct iovec pieces[2])
{
	size_t place = (size_t)(position & (size - 1)), first = size - place;
	if (first > n)
		first = n;
	pieces[0] = (struct iovec){ring + place, first};
	pieces[1] = (struct iovec){ring, n - first};
	return n > first ? 2 : 1;
}

#endif

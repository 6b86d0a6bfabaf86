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
#include "segment.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A ring as this process has it mapped. What lies in the header's page has two addresses (mapping.h);
 * by the other one than the header's it would be one page more that is touched. */
struct lf_ring {
	uint8_t *whole;  /* place 0, where all of it is mapped */
	uint8_t *header; /* the same as seen from the header, good for what lies in its page */
	uint32_t size;
	uint32_t short_from; /* there, LF_SEGMENT_SHORT bytes */
};

static inline struct lf_ring lf_ring_of(struct lf_segment *segment, void *whole, uint32_t size,
					unsigned direction)
{
	return (struct lf_ring){
		.whole = lf_segment_ring(lf_segment_at(whole, size), size, direction),
		.header = lf_segment_ring(segment, size, direction),
		.size = size,
		.short_from = lf_segment_backed_from(size, direction),
	};
}

/* Where n bytes from this place on lie, which do not reach beyond the ring's end. */
static inline uint8_t *lf_ring_at(const struct lf_ring *ring, size_t place, size_t n)
{
	bool is_short = n <= LF_SEGMENT_SHORT && place - ring->short_from <= LF_SEGMENT_SHORT - n;
	return (is_short ? ring->header : ring->whole) + place;
}

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
static inline void lf_ring_put(const struct lf_ring *ring, uint64_t position,
			       struct lf_cursor *cursor, size_t n)
{
	while (n) {
		size_t place = (size_t)(position & (ring->size - 1)), piece = ring->size - place;
		size_t have = cursor->iov->iov_len - cursor->offset;
		if (piece > have)
			piece = have;
		if (piece > n)
			piece = n;
		lf_copy(lf_ring_at(ring, place, piece),
			(const uint8_t *)cursor->iov->iov_base + cursor->offset, piece);
		lf_cursor_advance(cursor, piece);
		position += piece;
		n -= piece;
	}
}

/* The other way round. */
static inline void lf_ring_get(const struct lf_ring *ring, uint64_t position,
			       struct lf_cursor *cursor, size_t n)
{
	while (n) {
		size_t place = (size_t)(position & (ring->size - 1)), piece = ring->size - place;
		size_t have = cursor->iov->iov_len - cursor->offset;
		if (piece > have)
			piece = have;
		if (piece > n)
			piece = n;
		lf_copy((uint8_t *)cursor->iov->iov_base + cursor->offset,
			lf_ring_at(ring, place, piece), piece);
		lf_cursor_advance(cursor, piece);
		position += piece;
		n -= piece;
	}
}

/* The one or two pieces of the ring that [position, position + n) covers. */
static inline int lf_ring_pieces(const struct lf_ring *ring, uint64_t position, size_t n,
				 struct iovec pieces[2])
{
	size_t place = (size_t)(position & (ring->size - 1)), first = ring->size - place;
	if (first > n)
		first = n;
	pieces[0] = (struct iovec){lf_ring_at(ring, place, first), first};
	pieces[1] = (struct iovec){lf_ring_at(ring, 0, n - first), n - first};
	return n > first ? 2 : 1;
}

#endif

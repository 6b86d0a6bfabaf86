/* tap.c - see tap.h.
 *
 * A process knows a capture ring by the bit that its tap has in the segments. The rings come over
 * the broker's connection: for pairs made while the tap runs before the pair itself, else before
 * the bit is set. A process that has no such connection, or had none then (it was forked), sees a
 * bit it knows no ring for, and asks.
 *
 * A ring is unmapped when its tap has ended, but a thread may be just writing to it: so rings are
 * held in views, of which there are so many for good, and who uses one counts itself first.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "broker.h"
#include "clock.h"
#include "copy.h"
#include "defer.h"
#include "real.h"
#include "ring.h"
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The tap that gives cells back is another process, and not under ThreadSanitizer, which has to be
 * told what its stores to `read` order: it read what was ready before it gave that back. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define READY_FOR_TAP(capture) __tsan_release(&(capture)->read)
#define GIVEN_BACK_BY_TAP(capture) __tsan_acquire(&(capture)->read)
#else
#define READY_FOR_TAP(capture) ((void)(capture))
#define GIVEN_BACK_BY_TAP(capture) ((void)(capture))
#endif

struct view {
	struct lf_capture *capture; /* NULL: the view is free; changes under the broker's lock */
	uint32_t cells, snap;       /* as checked when it was mapped */
	_Atomic uint32_t users;
};

enum {
	VIEWS = 2 * LF_SEGMENT_TAPS, /* old ones may linger while they are used */
	ASK_FIRST_MS = 100,
	ASK_LAST_MS = 6400, /* a broker that does not answer has its reasons */
	TRIES = 64,
};
static struct view views[VIEWS];
static _Atomic(struct view *) taps[LF_SEGMENT_TAPS];
static _Atomic int64_t not_before; /* lf_now() of the next TAP_ASK */
static _Atomic int32_t ask_ms = ASK_FIRST_MS;
static _Atomic uint32_t own_pid; /* 0: not asked yet */

/* Dekker with let_go(): we count ourselves, then look whether the bit still leads here; it takes
 * the bit away, then looks at the count. All seq_cst: one of us sees the other. */
static struct view *use(uint32_t slot)
{
	struct view *view = atomic_load(&taps[slot]);
	if (!view)
		return NULL;
	atomic_fetch_add(&view->users, 1);
	if (atomic_load(&taps[slot]) == view)
		return view;
	atomic_fetch_sub(&view->users, 1);
	return NULL;
}

static void done_with(struct view *view)
{
	atomic_fetch_sub(&view->users, 1);
}

static bool is_known(const struct view *view)
{
	for (uint32_t slot = 0; slot < LF_SEGMENT_TAPS; slot++) {
		if (atomic_load(&taps[slot]) == view)
			return true;
	}
	return false;
}

/* Nobody who comes later can use it; false: somebody still does. */
static bool let_go(struct view *view)
{
	if (is_known(view) || atomic_load(&view->users))
		return false;
	munmap(view->capture, lf_capture_size(view->cells));
	view->capture = NULL;
	return true;
}

static void tidy(void)
{
	for (struct view *view = views; view < views + VIEWS; view++) {
		if (!view->capture)
			continue;
		for (uint32_t slot = 0; slot < LF_SEGMENT_TAPS; slot++) {
			struct view *known = view;
			if (atomic_load_explicit(&view->capture->closed, memory_order_relaxed))
				atomic_compare_exchange_strong(&taps[slot], &known, NULL);
		}
		(void)let_go(view);
	}
}

/* The broker's lock is no bar to a signal handler of the thread that holds it: such a one would
 * find the same view free. So handlers wait. */
void lf_tap_tidy(void)
{
	lf_defer_begin();
	tidy();
	lf_defer_end();
}

void lf_tap_after_fork(void)
{
	/* Other threads of the parent may have been in the midst of it. */
	for (struct view *view = views; view < views + VIEWS; view++)
		atomic_store(&view->users, 0);
	atomic_store(&not_before, 0);
	atomic_store(&ask_ms, ASK_FIRST_MS);
	atomic_store(&own_pid, 0);
}

static bool sealed(int fd, size_t size)
{
	struct stat st;
	int seals = lf_real.fcntl(fd, F_GET_SEALS);
	return seals != -1 && (seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW) &&
	       fstat(fd, &st) == 0 && st.st_size == (off_t)size;
}

static struct view *free_view(void)
{
	for (struct view *view = views; view < views + VIEWS; view++) {
		if (!view->capture || let_go(view))
			return view;
	}
	return NULL;
}

static void take(const struct lf_wire_tap *tap, int fd)
{
	uint32_t cells = tap->cells;
	if (tap->slot >= LF_SEGMENT_TAPS || cells < LF_CAPTURE_CELLS_MIN ||
	    cells > LF_CAPTURE_CELLS_MAX || (cells & (cells - 1)))
		return;
	size_t size = lf_capture_size(cells);
	struct view *view = free_view();
	/* Unsealed memory could be cut off under us: SIGBUS in somebody else's program. */
	if (!view || !sealed(fd, size))
		return;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return;
	struct lf_capture *capture = at;
	uint32_t snap = capture->snap;
	if (capture->magic != LF_CAPTURE_MAGIC || capture->version != LF_CAPTURE_VERSION ||
	    capture->cells != cells) {
		munmap(at, size);
		return;
	}
	/* Not `users`: who comes too late for the view's former ring still counts itself there. */
	view->capture = capture;
	view->cells = cells;
	view->snap = snap;
	/* seq_cst, hence release: who finds the view finds it filled in. */
	struct view *old = atomic_exchange(&taps[tap->slot], view);
	if (old)
		(void)let_go(old);
	atomic_store(&ask_ms, ASK_FIRST_MS);
}

void lf_tap_take(const struct lf_wire_tap *tap, int fd)
{
	lf_defer_begin();
	take(tap, fd);
	lf_defer_end();
}

static bool knows_all(uint32_t wanted)
{
	for (uint32_t slot = 0; slot < LF_SEGMENT_TAPS; slot++) {
		if ((wanted & 1u << slot) && !atomic_load_explicit(&taps[slot], memory_order_relaxed))
			return false;
	}
	return true;
}

void lf_tap_fetch(struct lf_sock *sock, uint32_t wanted)
{
	/* A tap that has taken over another one's bit has said so before it set it. */
	bool mail = lf_broker_has_mail();
	if (!mail && knows_all(wanted))
		return;
	/* What comes with the mail would be a vfork child's, not ours. */
	if (lf_in_borrowed_memory())
		return;
	if (mail)
		lf_broker_receive();
	if (knows_all(wanted))
		return;
	int64_t now = lf_now(), due = atomic_load(&not_before);
	int32_t pause = atomic_load(&ask_ms);
	if (now < due ||
	    !atomic_compare_exchange_strong(&not_before, &due, now + pause * INT64_C(1000000)))
		return;
	atomic_store(&ask_ms, pause < ASK_LAST_MS ? 2 * pause : pause);
	int saved = errno;
	struct lf_wire_tap_ask ask = {.pair_id = sock->pair_id};
	(void)lf_broker_send(LF_WIRE_TAP_ASK, &ask.head, sizeof(ask));
	errno = saved;
}

/* Room for a record of n cells; false: there is none. A full ring and a busy one (a thread that
 * fails to reserve has seen another one succeed) cost a bounded time. */
static bool reserve(const struct view *view, uint32_t n, uint64_t *cell)
{
	struct lf_capture *capture = view->capture;
	uint64_t reserved = atomic_load_explicit(&capture->reserved, memory_order_relaxed);
	for (int tries = 0; tries < TRIES; tries++) {
		/* acquire: the tap has copied out what lay in the cells before it gave them back. */
		uint64_t taken =
			reserved - atomic_load_explicit(&capture->read, memory_order_acquire);
		if (taken > view->cells || n > view->cells - taken)
			return false;
		if (atomic_compare_exchange_weak_explicit(&capture->reserved, &reserved,
							  reserved + n, memory_order_relaxed,
							  memory_order_relaxed)) {
			GIVEN_BACK_BY_TAP(capture);
			*cell = reserved;
			return true;
		}
	}
	return false;
}

/* Into the cells from `cell` on, `skip` bytes behind their start. */
static void fill(const struct view *view, uint64_t cell, size_t skip, const void *from, size_t n)
{
	uint8_t *cells = lf_capture_cells(view->capture, view->cells);
	size_t all = (size_t)view->cells * LF_CAPTURE_CELL;
	size_t place = ((size_t)(cell & (view->cells - 1)) * LF_CAPTURE_CELL + skip) & (all - 1);
	size_t first = n < all - place ? n : all - place;
	lf_copy(cells + place, from, first);
	if (n > first)
		lf_copy(cells, (const uint8_t *)from + first, n - first);
}

static int64_t wall_clock(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* `pieces`: where the payload lies, in two pieces at the most. */
static void put_record(struct view *view, struct lf_capture_record *record,
		       const struct iovec *pieces)
{
	struct lf_capture *capture = view->capture;
	record->captured = record->length < view->snap ? record->length : view->snap;
	uint32_t n = lf_capture_cells_of(record->captured);
	uint64_t cell;
	if (!reserve(view, n, &cell)) {
		atomic_fetch_add_explicit(&capture->lost, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&capture->lost_payload, record->length,
					  memory_order_relaxed);
		return;
	}
	/* After the reservation: later records of the same direction don't go back in time. */
	record->time = wall_clock();
	fill(view, cell, 0, record, sizeof(*record));
	size_t left = record->captured, skip = sizeof(*record);
	for (; left; pieces++) {
		size_t piece = left < pieces->iov_len ? left : pieces->iov_len;
		fill(view, cell, skip, pieces->iov_base, piece);
		skip += piece;
		left -= piece;
	}
	READY_FOR_TAP(capture);
	/* release: the record before the word that shows it. */
	atomic_store_explicit(&lf_capture_ready(capture)[cell & (view->cells - 1)],
			      LF_CAPTURE_READY(cell, (uint64_t)n), memory_order_release);
}

/* A bit may have been taken from one tap and given to another since `wanted` was loaded, and that
 * one may not be meant to see this connection. The broker takes all bits of the old tap away before
 * it hands out the new one's ring: whoever uses that ring sees them gone. If this bit is set now, it
 * was set for the tap whose ring we hold, or for one whose ring is closed. */
static bool is_meant(const struct lf_sock *sock, uint32_t slot)
{
	/* The load in use() that found the ring was seq_cst, so this one comes after it. */
	uint32_t word = atomic_load_explicit(&sock->segment->broker_wish, memory_order_relaxed);
	return LF_BROKER_TAPS(word) & 1u << slot;
}

/* For each of the taps that this process knows a ring of. */
static void put_everywhere(struct lf_sock *sock, uint32_t wanted, struct lf_capture_record *record,
			   const struct iovec *pieces)
{
	for (uint32_t slot = 0; slot < LF_SEGMENT_TAPS; slot++) {
		struct view *view = wanted & 1u << slot ? use(slot) : NULL;
		if (!view)
			continue;
		struct view *known = view;
		if (atomic_load_explicit(&view->capture->closed, memory_order_relaxed))
			atomic_compare_exchange_strong(&taps[slot], &known, NULL);
		else if (is_meant(sock, slot))
			put_record(view, record, pieces);
		done_with(view);
	}
}

static uint32_t this_process(void)
{
	uint32_t pid = atomic_load_explicit(&own_pid, memory_order_relaxed);
	if (!pid) {
		pid = (uint32_t)getpid();
		atomic_store_explicit(&own_pid, pid, memory_order_relaxed);
	}
	return pid;
}

static struct lf_capture_record record_of(const struct lf_sock *sock, enum lf_capture_kind kind)
{
	return (struct lf_capture_record){
		.pair_id = sock->pair_id,
		.tcp_before = atomic_load_explicit(&sock->slot->tcp_sent, memory_order_relaxed),
		.pid = this_process(),
		.direction = (uint8_t)sock->out_index,
		.kind = (uint8_t)kind,
	};
}

void lf_tap_put(struct lf_sock *sock, uint32_t wanted, uint64_t head, uint64_t place, size_t n)
{
	struct lf_capture_record record = record_of(sock, LF_CAPTURE_DATA);
	while (n) {
		size_t part = n < LF_CAPTURE_MOST ? n : LF_CAPTURE_MOST;
		struct iovec pieces[2];
		(void)lf_ring_pieces(&sock->out_ring, place, part, pieces);
		record.position = head;
		record.length = (uint32_t)part;
		put_everywhere(sock, wanted, &record, pieces);
		head += part;
		place += part;
		n -= part;
	}
}

/* Has all that this end sent, but for the start, gone through the ring? What a ring held when it
 * ended may come again by TCP; that is not counted twice. */
static bool sent_all_by_ring(const struct lf_sock *sock)
{
	bool fused = atomic_load_explicit(&sock->out->p.mark, memory_order_relaxed) != LF_MARK_PLAIN;
	uint64_t before = atomic_load_explicit(&sock->out->arrivals.tcp_total, memory_order_relaxed);
	return atomic_load_explicit(&sock->slot->tcp_sent, memory_order_relaxed) ==
	       (fused ? before : 0);
}

void lf_tap_end(struct lf_sock *sock, enum lf_capture_kind kind)
{
	if (!lf_sock_paired(sock) || !sent_all_by_ring(sock))
		return;
	uint32_t wanted = LF_BROKER_TAPS(
		atomic_load_explicit(&sock->segment->broker_wish, memory_order_relaxed));
	if (!wanted)
		return;
	struct lf_capture_record record = record_of(sock, kind);
	record.position = atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed);
	/* A handler that forks would find us counted as a user. */
	lf_defer_begin();
	put_everywhere(sock, wanted, &record, NULL);
	lf_defer_end();
}

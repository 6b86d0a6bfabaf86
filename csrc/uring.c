/* uring.c - see uring.h. */
#define _GNU_SOURCE
#include "uring.h"
#include "epoll.h"
#include "pairing.h"
#include "real.h"
#include "sock.h"
#include "start.h"
#include "table.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum {
	/* Flags of an entry: its fd is the number of a registered file; the next entry waits for it. */
	FIXED_FILE = 1u << 0,
	IO_LINK = 1u << 2,
	IO_HARDLINK = 1u << 3,
	REGISTER_FILES = 2,
	REGISTER_FILES_UPDATE = 6,
	REGISTER_FILES2 = 13,
	REGISTER_FILES_UPDATE2 = 14,
	REGISTER_RESIZE_RINGS = 33,
	SETUP_SQPOLL = 1u << 1,
	SETUP_NO_MMAP = 1u << 14,
	SETUP_REGISTERED_FD_ONLY = 1u << 15,
	ENTER_REGISTERED_RING = 1u << 4,
};
#define REGISTER_BY_REGISTERED_RING (1u << 31)
#define SPLICE_FROM_FIXED (1u << 31)

/* What an operation names, by its number in linux/io_uring.h. */
enum operand { UNKNOWN, NOTHING, FILE_, MESSAGE, CLOSING, FILES, EPOLL, TWO_FILES };
static const uint8_t operands[] = {
	[0] = NOTHING,	[1 ... 6] = FILE_,    [7] = NOTHING,	[8] = FILE_,	   [9] = MESSAGE,
	[10] = FILE_,	[11 ... 12] = NOTHING, [13] = FILE_,	[14 ... 15] = NOTHING,
	[16 ... 17] = FILE_, [18] = NOTHING,   [19] = CLOSING,	[20] = FILES,	   [21] = NOTHING,
	[22 ... 24] = FILE_, [25] = NOTHING,   [26 ... 27] = FILE_, [28] = NOTHING, [29] = EPOLL,
	[30] = TWO_FILES, [31 ... 32] = NOTHING, [33] = TWO_FILES, [34] = FILE_,
	[35 ... 45] = NOTHING, [46 ... 47] = FILE_, [48] = MESSAGE, [49] = FILE_,
	[50 ... 54] = NOTHING, [55 ... 61] = FILE_, [62] = NOTHING,
};

static void give_up(void)
{
	if (!lf_pairing_has_stopped())
		lf_pairing_stop();
}

/* The kernel is about to be asked to use it past us. */
static void leave_to_kernel(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	if (lf_table_kind(entry) == LF_KIND_EPOLL)
		lf_epoll_nest(lf_table_pointer(entry));
	else if (lf_table_kind(entry) == LF_KIND_SOCK)
		lf_fd_defuse(fd, LF_REASON_IO_OUTSIDE_LIBC, false);
}

void lf_uring_leave_files(const int *files, unsigned n)
{
	for (unsigned i = 0; files && i < n; i++)
		leave_to_kernel(files[i]);
}

/* It may be given out again by a ring, of which nobody tells. */
static void is_closed(int fd)
{
	enum lf_kind kind = lf_table_kind(lf_table_get(fd));
	if (kind == LF_KIND_URING)
		lf_uring_closes(fd);
	else if (kind != LF_KIND_NONE)
		lf_pairing_stop_following();
}

/* Was refused to us, and the kernel will refuse it for the same reason? That it is there already is
 * libuv's way to learn that it has to change an entry. */
static bool kernel_will_refuse(struct lf_sock *sock, int error)
{
	if (error == EEXIST)
		return lf_epoll_is_in_kernel(sock);
	return error == ENOENT || error == EBADF || error == EINVAL || error == EPERM;
}

/* Adds a socket of ours to a set of ours, or the like. Done here; the kernel is left an entry that does
 * nothing, and says so: 0, as this one. What fails is the kernel's to answer. `alone`: no other entry
 * decides whether it is to be done. */
static void control_epoll(struct io_uring_sqe *entry, bool alone)
{
	int set = entry->fd, fd = (int)entry->off;
	uintptr_t target = lf_table_get(fd);
	if (lf_table_kind(target) == LF_KIND_EPOLL && entry->len == EPOLL_CTL_ADD)
		lf_epoll_nest(lf_table_pointer(target));
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	bool ours = alone && entry->flags == 0 && entry->ioprio == 0 && entry->buf_index == 0 &&
		    entry->splice_fd_in == 0 &&
		    lf_table_kind(lf_table_get(set)) == LF_KIND_EPOLL;
	/* The kernel is to have no entry that the program has deleted: it would answer otherwise than
	 * we do. */
	lf_epoll_release_gone(sock);
	if (ours && epoll_ctl(set, (int)entry->len, fd, (void *)(uintptr_t)entry->addr) == 0) {
		uint64_t mark = entry->user_data;
		memset(entry, 0, sizeof(*entry)); /* IORING_OP_NOP */
		entry->fd = -1;
		entry->user_data = mark;
	} else if (!ours || !kernel_will_refuse(sock, errno)) {
		lf_fd_defuse(fd, LF_REASON_IO_OUTSIDE_LIBC, false);
	}
	lf_sock_unpin(sock);
}

void lf_uring_look(struct io_uring_sqe *entry, bool *linked)
{
	int saved = errno;
	bool fixed = entry->flags & FIXED_FILE, alone = !*linked;
	*linked = (entry->flags & (IO_LINK | IO_HARDLINK)) != 0;
	switch (entry->opcode < sizeof(operands) ? (enum operand)operands[entry->opcode] : UNKNOWN) {
	case UNKNOWN:
		give_up();
		break;
	case NOTHING:
		break;
	case EPOLL:
		control_epoll(entry, alone && !*linked);
		break;
	case FILES:
		lf_uring_leave_files((const int *)(uintptr_t)entry->addr, entry->len);
		break;
	case CLOSING:
		if (!fixed && entry->file_index == 0)
			is_closed(entry->fd);
		break;
	case TWO_FILES:
		if (!(entry->splice_flags & SPLICE_FROM_FIXED))
			leave_to_kernel(entry->splice_fd_in);
		if (!fixed)
			leave_to_kernel(entry->fd);
		break;
	case MESSAGE:
		lf_fd_defuse_passed((const struct msghdr *)(uintptr_t)entry->addr);
		__attribute__((fallthrough));
	case FILE_:
		if (!fixed)
			leave_to_kernel(entry->fd);
		break;
	}
	errno = saved;
}

/* --- rings that were set up by system calls --- */

struct ring {
	/* One for the table, one for each call that looks. Who drops the last one unmaps. */
	_Atomic uint32_t users;
	/* 1: a thread hands entries over. Beside another one's the kernel may take those for it that nobody
	 * has looked at. */
	_Atomic uint32_t entered;
	uint32_t forked; /* 1: it is our parent's */
	uint8_t *queue;
	struct io_uring_sqe *entries;
	size_t queue_size, entries_size;
	_Atomic uint32_t *head, *tail;
	uint32_t *array; /* numbers of entries; NULL: they stand in order */
	uint32_t mask, wide;
} __attribute__((aligned(8)));
static struct ring rings[256]; /* libuv has one for each loop */

static void unmap(struct ring *ring)
{
	bool is_here = !ring->forked && !lf_is_copy();
	if (is_here && ring->queue)
		munmap(ring->queue, ring->queue_size);
	if (is_here && ring->entries)
		munmap(ring->entries, ring->entries_size);
	ring->queue = NULL;
	ring->entries = NULL;
}

static void drop(struct ring *ring)
{
	/* As long as one who looks is left, nothing is unmapped; the last one to leave does it, and then
	 * the place is free. */
	if (atomic_fetch_sub(&ring->users, 1) != 2)
		return;
	unmap(ring);
	atomic_store(&ring->users, 0);
}

/* A free place, with two users: the table's, and one that keeps it from being free. */
static struct ring *take_place(void)
{
	for (size_t i = 0; i < sizeof(rings) / sizeof(*rings); i++) {
		uint32_t none = 0;
		if (atomic_compare_exchange_strong(&rings[i].users, &none, 2))
			return &rings[i];
	}
	return NULL;
}

static void *map(int fd, size_t size, uint64_t offset)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);
	if (at == MAP_FAILED)
		return NULL;
	/* A child that lives on would keep the ring alive. */
	(void)madvise(at, size, MADV_DONTFORK);
	return at;
}

static bool follow(struct ring *ring, int fd, const struct io_uring_params *params)
{
	bool ordered = (params->flags & LF_URING_NO_SQARRAY) != 0;
	ring->forked = 0;
	atomic_store(&ring->entered, 0);
	ring->wide = (params->flags & LF_URING_SQE128) != 0;
	ring->mask = params->sq_entries - 1;
	ring->queue_size = ordered ? params->sq_off.flags + sizeof(uint32_t) :
				     params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	ring->entries_size = (size_t)params->sq_entries * sizeof(struct io_uring_sqe) << ring->wide;
	ring->queue = map(fd, ring->queue_size, IORING_OFF_SQ_RING);
	ring->entries = map(fd, ring->entries_size, IORING_OFF_SQES);
	if (!ring->queue || !ring->entries)
		return false;
	ring->head = (_Atomic uint32_t *)(void *)(ring->queue + params->sq_off.head);
	ring->tail = (_Atomic uint32_t *)(void *)(ring->queue + params->sq_off.tail);
	ring->array = ordered ? NULL : (uint32_t *)(void *)(ring->queue + params->sq_off.array);
	return true;
}

void lf_uring_was_set_up(int fd, const struct io_uring_params *params)
{
	int saved = errno;
	uint32_t unreadable = SETUP_SQPOLL | SETUP_NO_MMAP | SETUP_REGISTERED_FD_ONLY | ~LF_URING_KNOWN;
	struct ring *ring = NULL;
	/* In a vfork child the number is none of this table's. */
	bool readable = lf_started && !(params->flags & unreadable) && (unsigned)fd < LF_TABLE_SIZE &&
			!lf_in_borrowed_memory();
	if (readable)
		lf_fd_born(fd);
	if (readable && (ring = take_place()) != NULL && follow(ring, fd, params)) {
		(void)lf_table_set(fd, LF_KIND_URING, ring);
	} else {
		if (ring)
			drop(ring);
		give_up();
	}
	errno = saved;
}

/* NULL: not known as a ring, or closed meanwhile. */
static struct ring *pin(int fd)
{
	uintptr_t word = lf_table_get(fd);
	if (lf_table_kind(word) != LF_KIND_URING)
		return NULL;
	struct ring *ring = lf_table_pointer(word);
	uint32_t users = atomic_load(&ring->users);
	do {
		if (users < 2)
			return NULL;
	} while (!atomic_compare_exchange_weak(&ring->users, &users, users + 1));
	if (lf_table_get(fd) == word)
		return ring;
	drop(ring);
	return NULL;
}

static void look_at_all(struct ring *ring, unsigned n)
{
	/* The kernel moves head. acquire: the program's entries, which it stored before tail. */
	uint32_t head = atomic_load_explicit(ring->head, memory_order_relaxed);
	uint32_t ready = atomic_load_explicit(ring->tail, memory_order_acquire) - head;
	bool linked = false;
	if (n > ready)
		n = ready;
	if (n > ring->mask + 1)
		n = ring->mask + 1;
	for (uint32_t i = head; n > 0; i++, n--) {
		uint32_t number = ring->array ? ring->array[i & ring->mask] : i & ring->mask;
		if (number <= ring->mask)
			lf_uring_look(&ring->entries[(size_t)number << ring->wide], &linked);
	}
}

struct lf_uring_entered lf_uring_enter(int fd, unsigned n, unsigned flags)
{
	struct lf_uring_entered entered = {NULL};
	if (n == 0)
		return entered;
	int saved = errno;
	struct ring *ring = flags & ENTER_REGISTERED_RING ? NULL : pin(fd);
	/* A copy of our memory that was made past the C library has none of our mappings. */
	if (!ring || ring->forked || lf_is_copy() || atomic_exchange(&ring->entered, 1)) {
		if (ring)
			drop(ring);
		give_up();
	} else {
		look_at_all(ring, n);
		entered.ring = ring;
	}
	errno = saved;
	return entered;
}

void lf_uring_entered(struct lf_uring_entered entered)
{
	int saved = errno;
	if (entered.ring) {
		atomic_store(&entered.ring->entered, 0);
		drop(entered.ring);
	}
	errno = saved;
}

void lf_uring_registers(int fd, unsigned opcode, const void *argument, unsigned n)
{
	const struct io_uring_rsrc_update *update = argument;
	int saved = errno;
	switch (opcode & ~REGISTER_BY_REGISTERED_RING) {
	case REGISTER_FILES:
		lf_uring_leave_files(argument, n);
		break;
	case REGISTER_FILES_UPDATE:
		if (update)
			lf_uring_leave_files((const int *)(uintptr_t)update->data, n);
		break;
	case REGISTER_FILES2:
	case REGISTER_FILES_UPDATE2:
		give_up();
		break;
	case REGISTER_RESIZE_RINGS: /* its entries move: from the next call on it is not known */
		if (opcode & REGISTER_BY_REGISTERED_RING)
			give_up();
		else
			lf_uring_closes(fd);
		break;
	default:
		break;
	}
	errno = saved;
}

void lf_uring_closes(int fd)
{
	uintptr_t word = lf_table_get(fd);
	struct ring *ring = pin(fd);
	if (!ring)
		return;
	/* Whoever takes the entry out drops the table's share. */
	if (lf_table_clear(fd, LF_KIND_URING, lf_table_pointer(word)))
		drop(ring);
	drop(ring);
}

void lf_uring_after_fork(void)
{
	for (size_t i = 0; i < sizeof(rings) / sizeof(*rings); i++)
		rings[i].forked = 1;
}

void lf_uring_closes_all(unsigned first, unsigned last)
{
	bool any = false;
	for (size_t i = 0; i < sizeof(rings) / sizeof(*rings); i++)
		any |= atomic_load(&rings[i].users) != 0;
	for (unsigned fd = first; any && fd <= last && fd < LF_TABLE_SIZE; fd++)
		lf_uring_closes((int)fd);
}

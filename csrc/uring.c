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
	FIXED_FILE = 1u << 0, /* of an entry's flags: its fd is the number of a registered file */
	/* Operations that name a second descriptor, or many. */
	OP_NOP = 0,
	OP_FILES_UPDATE = 20,
	OP_EPOLL_CTL = 29,
	OP_SPLICE = 30,
	OP_TEE = 33,
	REGISTER_FILES = 2,
	REGISTER_FILES_UPDATE = 6,
	REGISTER_FILES2 = 13,
	REGISTER_FILES_UPDATE2 = 14,
	SETUP_SQPOLL = 1u << 1,
	SETUP_NO_MMAP = 1u << 14,
	SETUP_REGISTERED_FD_ONLY = 1u << 15,
	ENTER_REGISTERED_RING = 1u << 4,
};
#define SPLICE_FROM_FIXED (1u << 31)

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

/* Was refused to us, and the kernel will refuse it for the same reason? That it is there already is
 * libuv's way to learn that it has to change an entry. */
static bool kernel_will_refuse(int fd, int error)
{
	struct lf_sock *sock = error == EEXIST ? lf_sock_pin(fd) : NULL;
	if (!sock)
		return error == EBADF || error == EINVAL || error == EPERM;
	bool there = lf_epoll_is_in_kernel(sock);
	lf_sock_unpin(sock);
	return there;
}

/* Adds a socket of ours to a set of ours, or the like. Done here; the kernel is left an entry that does
 * nothing, and says so: 0, as this one. What fails is the kernel's to answer. */
static void control_epoll(struct io_uring_sqe *entry)
{
	int set = entry->fd, fd = (int)entry->off;
	if (lf_table_kind(lf_table_get(fd)) != LF_KIND_SOCK)
		return;
	bool ours = entry->flags == 0 && lf_table_kind(lf_table_get(set)) == LF_KIND_EPOLL;
	void *event = (void *)(uintptr_t)entry->addr;
	if (ours && epoll_ctl(set, (int)entry->len, fd, event) == 0) {
		uint64_t mark = entry->user_data;
		memset(entry, 0, sizeof(*entry));
		entry->opcode = OP_NOP;
		entry->fd = -1;
		entry->user_data = mark;
	} else if (!ours || !kernel_will_refuse(fd, errno)) {
		lf_fd_defuse(fd, LF_REASON_IO_OUTSIDE_LIBC, false);
	}
}

void lf_uring_leave_what_it_names(struct io_uring_sqe *entry)
{
	int saved = errno;
	if (entry->opcode == OP_EPOLL_CTL)
		control_epoll(entry);
	else if (!(entry->flags & FIXED_FILE))
		leave_to_kernel(entry->fd);
	if ((entry->opcode == OP_SPLICE || entry->opcode == OP_TEE) &&
	    !(entry->splice_flags & SPLICE_FROM_FIXED))
		leave_to_kernel(entry->splice_fd_in);
	if (entry->opcode == OP_FILES_UPDATE)
		lf_uring_leave_files((const int *)(uintptr_t)entry->addr, entry->len);
	errno = saved;
}

/* --- rings that were set up by system calls --- */

struct ring {
	/* One for the table, one for each call that looks. Who drops the last one unmaps. */
	_Atomic uint32_t users;
	uint32_t forked; /* 1: it is our parent's */
	uint8_t *queue;
	struct io_uring_sqe *entries;
	size_t queue_size, entries_size;
	_Atomic uint32_t *head, *tail;
	uint32_t *array; /* numbers of entries; NULL: they stand in order */
	uint32_t mask, wide;
} __attribute__((aligned(8)));
static struct ring rings[32];

static void unmap(struct ring *ring)
{
	if (!ring->forked && ring->queue)
		munmap(ring->queue, ring->queue_size);
	if (!ring->forked && ring->entries)
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
	uint32_t flags = params->flags;
	uint32_t unreadable = SETUP_SQPOLL | SETUP_NO_MMAP | SETUP_REGISTERED_FD_ONLY | ~LF_URING_KNOWN;
	struct ring *ring = NULL;
	/* In a vfork child the number is none of this table's. */
	bool readable = !(flags & unreadable) && (unsigned)fd < LF_TABLE_SIZE && !lf_in_borrowed_memory();
	if (readable)
		lf_fd_born(fd);
	if (readable && (ring = take_place()) != NULL && follow(ring, fd, params)) {
		(void)lf_table_set(fd, LF_KIND_URING, ring);
	} else {
		if (ring)
			drop(ring);
		lf_pairing_stop();
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

void lf_uring_enters(int fd, unsigned n, unsigned flags)
{
	int saved = errno;
	struct ring *ring = flags & ENTER_REGISTERED_RING ? NULL : pin(fd);
	if (!ring || ring->forked) {
		if (ring)
			drop(ring);
		if (n)
			lf_pairing_stop();
		errno = saved;
		return;
	}
	/* The kernel moves head. acquire: the program's entries, which it stored before tail. */
	uint32_t head = atomic_load_explicit(ring->head, memory_order_relaxed);
	uint32_t ready = atomic_load_explicit(ring->tail, memory_order_acquire) - head;
	if (n > ready)
		n = ready;
	if (n > ring->mask + 1)
		n = ring->mask + 1;
	for (uint32_t i = head; n > 0; i++, n--) {
		uint32_t number = ring->array ? ring->array[i & ring->mask] : i & ring->mask;
		if (number <= ring->mask)
			lf_uring_leave_what_it_names(&ring->entries[(size_t)number << ring->wide]);
	}
	drop(ring);
	errno = saved;
}

void lf_uring_registers(unsigned opcode, const void *argument, unsigned n)
{
	const struct io_uring_rsrc_update *update = argument;
	int saved = errno;
	if (opcode == REGISTER_FILES)
		lf_uring_leave_files(argument, n);
	else if (opcode == REGISTER_FILES_UPDATE && update)
		lf_uring_leave_files((const int *)(uintptr_t)update->data, n);
	else if (opcode == REGISTER_FILES2 || opcode == REGISTER_FILES_UPDATE2)
		lf_pairing_stop();
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

/* start.c - see start.h. */
#define _GNU_SOURCE
#include "start.h"

#include "broker.h"
#include "config.h"
#include "conn.h"
#include "defer.h"
#include "epoll.h"
#include "lock.h"
#include "rank.h"
#include "real.h"
#include "sock.h"
#include "table.h"
#include "tap.h"
#include "uring.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

bool lf_started;
static pid_t pid;
static _Atomic bool lent = true; /* a child may be using our memory */
/* A page that the kernel makes zero in each child with a copy of our memory, past the C library's
 * fork as well: while the number is there, we are the process that put it there, or use its memory.
 * NULL: an old kernel. */
static _Atomic uint32_t *ours;

static void claim_memory(void)
{
	if (ours)
		atomic_store_explicit(ours, 1, memory_order_relaxed);
#if defined(__x86_64__) || defined(__aarch64__)
	bool told = ours != NULL;
#else
	bool told = false; /* vfork is not ours, see interpose_vfork.c */
#endif
	atomic_store_explicit(&lent, !told, memory_order_relaxed);
}

static void mark_memory(void)
{
	enum { PAGE = 4096 };
	void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at != MAP_FAILED && madvise(at, PAGE, MADV_WIPEONFORK) == 0)
		ours = at;
	claim_memory();
}

bool lf_in_borrowed_memory(void)
{
	return lf_started && (pid_t)syscall(SYS_getpid) != pid;
}

bool lf_seems_borrowed(void)
{
	if (!atomic_load_explicit(&lent, memory_order_relaxed) &&
	    atomic_load_explicit(ours, memory_order_relaxed))
		return false;
	return lf_in_borrowed_memory();
}

bool lf_is_copy(void)
{
	return ours && atomic_load_explicit(ours, memory_order_relaxed) == 0;
}

void lf_memory_is_lent(void)
{
	/* A child in our memory can send nothing again: its numbers are not ours. What the program that
	 * it becomes sends would overtake bytes that a peer has asked for. */
	if (lf_started)
		lf_conn_service_all();
	atomic_store_explicit(&lent, true, memory_order_relaxed);
}

static void before_fork(void)
{
	lf_broker_before_fork();
	lf_sock_before_fork();
	lf_epoll_before_fork();
	lf_table_before_fork();
}

static void after_fork_in_parent(void)
{
	lf_lock_after_fork_in_parent();
	lf_epoll_after_fork_in_parent();
	lf_table_after_fork_in_parent();
	lf_sock_after_fork_in_parent();
	lf_broker_after_fork_in_parent();
}

static void after_fork_in_child(void)
{
	pid = (pid_t)syscall(SYS_getpid);
	claim_memory();
	lf_lock_after_fork_in_child();
	lf_wait_after_fork();
	lf_rank_after_fork();
	lf_table_after_fork();
	lf_epoll_after_fork_in_child();
	lf_sock_after_fork_in_child();
	lf_broker_after_fork_in_child();
	lf_uring_after_fork();
	lf_tap_after_fork();
	lf_defer_after_fork(); /* last: handlers run from here on */
}

__attribute__((constructor(101))) void lf_start(void)
{
	static bool begun;
	if (begun)
		return;
	begun = true;
	int saved = errno;
	lf_real_init();
	lf_config_init();
	pid = (pid_t)syscall(SYS_getpid);
	mark_memory();
	/* No room for our tables: every call goes straight through. */
	if (lf_table_init() && lf_sock_init() && lf_epoll_init()) {
		pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
		lf_started = true;
	} else {
		lf_table = NULL;
	}
	errno = saved;
}

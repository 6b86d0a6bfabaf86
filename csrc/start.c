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
#include "signals.h"
#include "sock.h"
#include "table.h"
#include "tap.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

bool lf_started;
static pid_t pid;

bool lf_in_borrowed_memory(void)
{
	return lf_started && (pid_t)syscall(SYS_getpid) != pid;
}

static void before_fork(void)
{
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
}

static void after_fork_in_child(void)
{
	pid = (pid_t)syscall(SYS_getpid);
	lf_lock_after_fork_in_child();
	lf_wait_after_fork();
	lf_signals_after_fork();
	lf_rank_after_fork();
	lf_table_after_fork();
	lf_epoll_after_fork_in_child();
	lf_sock_after_fork_in_child();
	lf_broker_after_fork();
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
	/* No room for our tables: every call goes straight through. */
	if (lf_table_init() && lf_sock_init() && lf_epoll_init()) {
		pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
		lf_started = true;
	} else {
		lf_table = NULL;
	}
	errno = saved;
}

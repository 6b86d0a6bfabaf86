/* shortage.c - see shortage.h.
 *
 * Hidden descriptors live above the program's soft limit where the hard limit allows.
 * Where it does not, or where the program has raised its soft limit since, they share
 * its range, and must never be the reason for an EMFILE.
 */
#define _GNU_SOURCE
#include "shortage.h"

#include "broker.h"
#include "clock.h"
#include "conn.h"
#include "table.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>

enum {
	MARGIN = 8,   /* numbers kept free for calls that can't be repeated */
	AT_ONCE = 16, /* connections that go back to TCP in one step */
};
#define PEACE_NS (INT64_C(60) * 1000000000) /* after a shortage nothing is hidden in the range */

static _Atomic int64_t last_shortage; /* on lf_now()'s clock, 0: never */

static int soft(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 || limit.rlim_cur > LF_TABLE_SIZE)
		return (int)LF_TABLE_SIZE;
	return (int)limit.rlim_cur;
}

struct search {
	int soft_limit; /* numbers below it are of use */
	int wanted;
};

static void give_back(struct lf_sock *sock, void *context)
{
	struct search *search = context;
	int bell = atomic_load(&sock->bell);
	if (search->wanted > 0 && bell >= 0 && bell < search->soft_limit &&
	    lf_conn_give_up_bell(sock))
		search->wanted--;
}

bool lf_shortage_relieve(void)
{
	if (lf_table_hidden() == 0)
		return false;
	int saved = errno;
	atomic_store(&last_shortage, lf_now());
	struct search search = {.soft_limit = soft(), .wanted = AT_ONCE};
	lf_sock_each(give_back, &search);
	bool relieved = search.wanted < AT_ONCE;
	int broker = lf_broker_fd();
	if (!relieved && broker >= 0 && broker < search.soft_limit)
		relieved = lf_broker_leave();
	errno = saved;
	return relieved;
}

/* Numbers still free for the program, at the least: below fd there are none. */
static int left_above(int fd)
{
	return soft() - 1 - fd - lf_table_hidden();
}

void lf_shortage_foresee(int fd)
{
	/* The usual case costs two loads: nothing hidden, or everything above the limit as
	 * it was when we hid it. */
	int hidden = lf_table_hidden();
	if (hidden == 0 || fd + hidden + MARGIN < lf_table_soft_limit())
		return;
	int saved = errno;
	if (left_above(fd) < MARGIN)
		(void)lf_shortage_relieve();
	errno = saved;
}

bool lf_shortage_allows(int fd)
{
	int64_t last = atomic_load(&last_shortage);
	return left_above(fd) > 4 * MARGIN && (last == 0 || lf_now() - last > PEACE_NS);
}

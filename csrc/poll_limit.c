/* poll_limit.c - see poll_limit.h.
 *
 * select(2) knows no such limit. What it does not tell (POLLHUP, POLLRDHUP) is asked of TCP and of
 * doorbells each few ms: slow, but this is rare.
 */
#define _GNU_SOURCE
#include "poll_limit.h"

#include "clock.h"
#include "conn.h"
#include "real.h"
#include "tcp_states.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>

enum { BITS_PER_WORD = 8 * sizeof(unsigned long), WORDS_ON_STACK = FD_SETSIZE / BITS_PER_WORD };
enum { READ, WRITE, URGENT, SETS };

static const short asked[SETS] = {
	[READ] = POLLIN | POLLRDNORM,
	[WRITE] = POLLOUT | POLLWRNORM,
	[URGENT] = POLLPRI,
};

struct sets {
	unsigned long *words[SETS];
	size_t count; /* of words in each */
	int width;    /* one past the highest number */
};

static fd_set *set_of(const struct sets *sets, int which)
{
	return (fd_set *)(void *)sets->words[which];
}

/* False: select() can't tell of all that is asked. */
static bool fill(const struct sets *sets, const struct pollfd *fds, nfds_t n)
{
	bool covered = true;
	memset(sets->words[0], 0, SETS * sets->count * sizeof(unsigned long));
	for (nfds_t i = 0; i < n; i++) {
		if (fds[i].fd < 0)
			continue;
		unsigned fd = (unsigned)fds[i].fd;
		for (int which = 0; which < SETS; which++)
			if (fds[i].events & asked[which])
				sets->words[which][fd / BITS_PER_WORD] |= 1ul << fd % BITS_PER_WORD;
		covered &= (fds[i].events & asked[READ]) != 0 ||
			   (fds[i].events && !(fds[i].events & POLLRDHUP));
	}
	return covered;
}

/* A doorbell's stream takes no bytes, and says whether somebody is there. */
static bool bell_has_hung_up(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_HIDDEN &&
	       lf_real.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	       lf_real.sendto(fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) == -1 && errno == EPIPE;
}

/* As tcp_poll() has it, but for an error that is still to be told. */
static short ends_of(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	if (lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return bell_has_hung_up(fd) ? POLLHUP : 0;
	switch (info.tcpi_state) {
	case LF_TCP_CLOSED:
	case LF_TCP_LAST_ACK:
	case LF_TCP_CLOSING:
		return POLLHUP | POLLRDHUP;
	case LF_TCP_CLOSE_WAIT:
		return POLLRDHUP;
	default:
		return 0;
	}
}

static int read_back(const struct sets *sets, struct pollfd *fds, nfds_t n)
{
	int ready = 0;
	for (nfds_t i = 0; i < n; i++) {
		fds[i].revents = 0;
		if (fds[i].fd < 0)
			continue;
		unsigned fd = (unsigned)fds[i].fd;
		for (int which = 0; which < SETS; which++)
			if (sets->words[which][fd / BITS_PER_WORD] >> fd % BITS_PER_WORD & 1)
				fds[i].revents |= fds[i].events & asked[which];
		fds[i].revents |= ends_of(fds[i].fd) & (fds[i].events | POLLHUP);
		ready += fds[i].revents != 0;
	}
	return ready;
}

/* select() says EBADF of all for one. */
static int find_closed(struct pollfd *fds, nfds_t n)
{
	int closed = 0;
	for (nfds_t i = 0; i < n; i++) {
		bool is = fds[i].fd >= 0 && lf_real.fcntl(fds[i].fd, F_GETFD) == -1;
		fds[i].revents = is ? POLLNVAL : 0;
		closed += is;
	}
	return closed;
}

static int select_in_steps(const struct sets *sets, struct pollfd *fds, nfds_t n,
			   const struct timespec *ts, const sigset_t *mask)
{
	int64_t left = ts ? (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec : LF_FOREVER;
	int64_t deadline = lf_deadline(left);
	for (;;) {
		bool last = fill(sets, fds, n) || left <= LF_SHARED_SLEEP_NS;
		struct timespec step = lf_timespec(last ? left : LF_SHARED_SLEEP_NS);
		int r = lf_real.pselect(sets->width, set_of(sets, READ), set_of(sets, WRITE),
					set_of(sets, URGENT), left == LF_FOREVER && last ? NULL : &step,
					mask);
		if (r == -1)
			return errno == EBADF ? find_closed(fds, n) : -1;
		r = read_back(sets, fds, n);
		if (r || last)
			return r;
		if (deadline != LF_FOREVER && (left = deadline - lf_now()) < 0)
			left = 0;
	}
}

static void unmap(struct sets *sets)
{
	if (sets->count > WORDS_ON_STACK)
		munmap(sets->words[0], SETS * sets->count * sizeof(unsigned long));
}

int lf_ppoll_by_select(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	unsigned long on_stack[SETS * WORDS_ON_STACK];
	struct sets sets = {.words = {on_stack}, .count = WORDS_ON_STACK};
	for (nfds_t i = 0; i < n; i++)
		if (fds[i].fd >= sets.width)
			sets.width = fds[i].fd + 1;
	if (sets.width > FD_SETSIZE) {
		sets.count = ((size_t)sets.width + BITS_PER_WORD - 1) / BITS_PER_WORD;
		sets.words[0] = mmap(NULL, SETS * sets.count * sizeof(unsigned long),
				     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (sets.words[0] == MAP_FAILED)
			return -1;
	}
	/* The cleanup also runs when pthread_cancel unwinds through here. */
	struct sets mapped __attribute__((cleanup(unmap))) = sets;
	for (int which = 1; which < SETS; which++)
		mapped.words[which] = mapped.words[which - 1] + mapped.count;
	return select_in_steps(&mapped, fds, n, ts, mask);
}

int lf_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	int r = lf_real.ppoll(fds, n, ts, mask);
	return r == -1 && errno == EINVAL ? lf_ppoll_by_select(fds, n, ts, mask) : r;
}

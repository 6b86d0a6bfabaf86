/* pair.h - a connection over loopback whose server end the library under test holds, so that a
 * fuzzer can be the rest of the world: the peer, its segment, its doorbell, the kernel's waiting.
 */
#ifndef PAIR_H
#define PAIR_H

#include "conn.h"
#include "real.h"
#include "sock.h"
#include "table.h"
#include "uring.h"

#include "config.h"
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* csrc/uring.c goes by the libc names, and has no part in it. */
void lf_uring_after_fork(void) {}

enum { RING = 4096, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* Nobody waits here: what a real one would find later, it finds now. */
static inline int poll_now(struct pollfd *fds, nfds_t n, int ms)
{
	(void)ms;
	struct timespec none = {0, 0};
	return ppoll(fds, n, &none, NULL);
}

static inline int ppoll_now(struct pollfd *fds, nfds_t n, const struct timespec *ts,
			    const sigset_t *mask)
{
	(void)ts;
	struct timespec none = {0, 0};
	return ppoll(fds, n, &none, mask);
}

static inline void wait_for_nothing(void)
{
	lf_real.poll = poll_now;
	lf_real.ppoll = ppoll_now;
	lf_config.spin_ns = 0;
	lf_config.broker[0] = 0;
}

static inline int sealed_memory(size_t size, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	insist(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	insist(fcntl(fd, F_ADD_SEALS, seals) == 0);
	return fd;
}

static inline void *mapped(int fd, size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	insist(at != MAP_FAILED);
	return at;
}

static inline void name_segment(struct lf_segment *segment, uint64_t pair_id)
{
	segment->magic = LF_SEGMENT_MAGIC;
	segment->version = LF_SEGMENT_VERSION;
	segment->header_size = LF_SEGMENT_HEADER;
	segment->pair_id = pair_id;
	segment->ring_size = RING;
}

struct pair {
	int peer;   /* the client's TCP socket */
	int server; /* the library's */
	struct lf_sock *sock;
};

static inline int listening(struct sockaddr_in *address)
{
	socklen_t length = sizeof(*address);
	*address = (struct sockaddr_in){.sin_family = AF_INET};
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	insist(bind(fd, (struct sockaddr *)address, length) == 0 && listen(fd, 16) == 0);
	insist(getsockname(fd, (struct sockaddr *)address, &length) == 0);
	return fd;
}

/* One that has claimed its end, and waits for the broker's answer. */
static inline struct pair connected(void)
{
	static struct sockaddr_in address;
	static int listener = -1;
	if (listener == -1)
		listener = listening(&address);
	struct pair pair = {.peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
	insist(connect(pair.peer, (struct sockaddr *)&address, sizeof(address)) == 0 ||
	       errno == EINPROGRESS);
	pair.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	insist(pair.server >= 0);
	lf_sock_track(pair.server, LF_SIDE_SERVER);
	pair.sock = lf_sock_pin(pair.server);
	insist(pair.sock != NULL);
	atomic_store(&pair.sock->pairing, LF_PAIRING_CLAIMED);
	return pair;
}

static inline void disconnected(struct pair *pair)
{
	/* No connection is to stay behind in TIME_WAIT: there are only so many ports. */
	struct linger now = {1, 0};
	lf_conn_before_close(pair->sock, pair->server, false);
	setsockopt(pair->server, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	insist(lf_sock_remove_descriptor(pair->sock, pair->server) ||
	       atomic_load(&pair->sock->let_go));
	close(pair->server);
	if (!atomic_load(&pair->sock->let_go))
		lf_sock_release(pair->sock);
	lf_sock_unpin(pair->sock);
	if (pair->peer >= 0)
		close(pair->peer);
}

/* Descriptors that the program would get next; the same before and after, or one leaks. */
static inline int next_descriptor(void)
{
	int fd = dup(0);
	insist(fd >= 0);
	close(fd);
	return fd;
}

#endif

/* broker.c - see broker.h. */
#define _GNU_SOURCE
#include "broker.h"

#include "clock.h"
#include "config.h"
#include "conn.h"
#include "defer.h"
#include "pairing.h"
#include "real.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAILBOX = 4096, RETRY_MS = 1000 };

/* Recursive: what a message sets off may have to be reported. Only ever tried, but by fork, see rank.h. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static _Atomic uint32_t forking; /* threads */
static _Atomic int connection = -1;
static _Atomic(_Atomic uint32_t *) mailbox;
static _Atomic uint32_t taken;   /* messages taken in */
static _Atomic uint32_t lookups; /* while there is no mailbox yet */
static int64_t not_before;       /* lf_now() of the next try to connect */
/* The same once a try has failed: while one is being made, it may be worth waiting for. */
static _Atomic int64_t in_vain_before;

/* What is called under it may be where a cancelled thread ends. */
static bool try_lock(void)
{
	lf_defer_begin();
	if (pthread_mutex_trylock(&lock) == 0) {
		if (atomic_load(&forking) == 0)
			return true;
		pthread_mutex_unlock(&lock);
	}
	lf_defer_end();
	return false;
}

static void unlock(void)
{
	pthread_mutex_unlock(&lock);
	lf_defer_end();
}

/* Under lock. */
static void disconnect(void)
{
	int fd = atomic_exchange(&connection, -1);
	if (fd >= 0)
		lf_table_unhide(fd);
	void *old = atomic_exchange(&mailbox, NULL);
	if (old)
		munmap(old, MAILBOX);
	atomic_store(&taken, 0);
	atomic_store(&lookups, 0);
	not_before = lf_now() + (int64_t)RETRY_MS * 1000000;
	atomic_store(&in_vain_before, not_before);
}

static bool send_packet(int fd, const void *message, size_t size)
{
	struct iovec iov = {(void *)(uintptr_t)message, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return lf_real.sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

/* Whoever is the broker hands out the memory that payload goes through: somebody else may have put
 * a socket where ours should be. */
static bool is_trusted(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	uid_t real, effective, saved;
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == -1 ||
	    getresuid(&real, &effective, &saved) == -1)
		return false;
	/* Not its effective user alone, who a server may be for a moment. */
	return who.uid == 0 || (who.uid == real && who.uid == effective && who.uid == saved);
}

static bool in_vain(void)
{
	atomic_store(&in_vain_before, not_before);
	return false;
}

/* Under lock. */
static bool connect_to_broker(void)
{
	if (atomic_load(&connection) >= 0)
		return true;
	if (!lf_config.broker[0] || lf_now() < not_before)
		return false;
	not_before = lf_now() + (int64_t)RETRY_MS * 1000000;
	int fd = lf_real.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return in_vain();
	fd = lf_table_hide(fd);
	if (fd == -1)
		return in_vain();
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	strcpy(sun.sun_path, lf_config.broker);
	struct lf_wire_hello hello = {
		.head = {LF_WIRE_MAGIC, LF_WIRE_VERSION, LF_WIRE_HELLO},
		.flags = lf_config.eager,
		.pid = (uint32_t)getpid(),
	};
	if (lf_real.connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == -1 || !is_trusted(fd) ||
	    !send_packet(fd, &hello, sizeof(hello))) {
		lf_table_unhide(fd);
		return in_vain();
	}
	atomic_store(&connection, fd);
	return true;
}

/* Another thread that is connecting, or takes in messages, is done soon: 10 ms if the table
 * of descriptors has to grow, for which the kernel waits for all CPUs. An eager claim has no
 * second chance before its thread goes to sleep; any other is made again. */
static bool take_turn(bool patient)
{
	enum { PATIENCE_NS = 250 * 1000 * 1000 };
	int64_t deadline = patient ? lf_deadline(PATIENCE_NS) : 0;
	while (!try_lock()) {
		if (!patient || lf_now() >= deadline)
			return false;
		sched_yield();
	}
	return true;
}

bool lf_broker_is_within_reach(void)
{
	return lf_config.broker[0] &&
	       (atomic_load_explicit(&connection, memory_order_relaxed) >= 0 ||
		lf_now() >= atomic_load_explicit(&in_vain_before, memory_order_relaxed));
}

bool lf_broker_send(enum lf_wire_type type, struct lf_wire_head *message, size_t size)
{
	*message = (struct lf_wire_head){LF_WIRE_MAGIC, LF_WIRE_VERSION, (uint16_t)type};
	if (!take_turn(lf_config.eager && type == LF_WIRE_CLAIM))
		return false;
	bool sent = connect_to_broker() && send_packet(atomic_load(&connection), message, size);
	if (!sent && atomic_load(&connection) >= 0 && errno != EAGAIN)
		disconnect();
	unlock();
	return sent;
}

bool lf_broker_has_mail(void)
{
	_Atomic uint32_t *box = atomic_load_explicit(&mailbox, memory_order_acquire);
	if (box)
		return atomic_load_explicit(box, memory_order_acquire) !=
		       atomic_load_explicit(&taken, memory_order_relaxed);
	if (atomic_load_explicit(&connection, memory_order_relaxed) < 0)
		return false;
	/* WELCOME is under way; a broker that is stopped must not cost a system call for
	 * each call of the program. */
	uint32_t n = atomic_fetch_add_explicit(&lookups, 1, memory_order_relaxed);
	return n < 64 || (n & 255) == 0;
}

int lf_broker_fd(void)
{
	return atomic_load(&connection);
}

struct packet {
	union {
		struct lf_wire_head head;
		struct lf_wire_welcome welcome;
		struct lf_wire_fuse fuse;
		struct lf_wire_refuse refuse;
		struct lf_wire_tap tap;
		char bytes[LF_WIRE_MAX];
	} u;
	ssize_t size;
	int fds[2];
	int fd_count;
};

/* Collects what came with the packet, and closes what nobody asked for. */
static void collect_fds(struct msghdr *msg, struct packet *packet)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (packet->fd_count < 2)
				packet->fds[packet->fd_count++] = fd;
			else
				lf_real.close(fd);
		}
	}
}

static bool next_packet(int fd, struct packet *packet)
{
	union {
		char bytes[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {packet->u.bytes, sizeof(packet->u.bytes)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	packet->fd_count = 0;
	packet->size = lf_real.recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (packet->size > 0)
		collect_fds(&msg, packet);
	return packet->size > 0;
}

static void drop_fds(struct packet *packet)
{
	while (packet->fd_count)
		lf_real.close(packet->fds[--packet->fd_count]);
}

static bool take_welcome(struct packet *packet)
{
	if (packet->fd_count != 1 || packet->u.welcome.mailbox_size != MAILBOX ||
	    atomic_load(&mailbox))
		return false;
	int seals = lf_real.fcntl(packet->fds[0], F_GET_SEALS);
	if (seals == -1 || !(seals & F_SEAL_SHRINK) || lseek(packet->fds[0], 0, SEEK_END) != MAILBOX)
		return false;
	void *at = mmap(NULL, MAILBOX, PROT_READ, MAP_SHARED, packet->fds[0], 0);
	if (at == MAP_FAILED)
		return false;
	atomic_store(&mailbox, at);
	return true;
}

/* False: declined, for this reason. */
static bool pair(struct lf_sock *sock, struct packet *packet, enum lf_reason *reason)
{
	/* The kernel drops what does not fit under RLIMIT_NOFILE. */
	*reason = LF_REASON_NO_DESCRIPTORS;
	if (packet->fd_count != 2)
		return false;
	packet->fd_count = 0;
	return lf_conn_pair(sock, &packet->u.fuse, packet->fds[0], packet->fds[1], reason);
}

static void take_fuse(struct packet *packet)
{
	struct lf_sock *sock = lf_sock_pin_id(packet->u.fuse.claim_id);
	if (!sock)
		return;
	enum lf_reason reason;
	if (atomic_load(&sock->pairing) == LF_PAIRING_CLAIMED && !pair(sock, packet, &reason)) {
		lf_sock_decline(sock, reason);
		lf_pairing_report(sock, reason);
	}
	lf_sock_unpin(sock);
}

static void take_refuse(const struct packet *packet)
{
	struct lf_sock *sock = lf_sock_pin_id(packet->u.refuse.claim_id);
	if (!sock)
		return;
	uint32_t reason = packet->u.refuse.reason;
	if (atomic_load(&sock->pairing) == LF_PAIRING_CLAIMED)
		lf_sock_decline(sock, reason && reason <= LF_REASON_DESCRIPTOR_NEEDED ?
					      (enum lf_reason)reason :
					      LF_REASON_NO_COUNTERPART);
	lf_sock_unpin(sock);
}

/* Under lock. False: this is not our protocol. */
static bool take(struct packet *packet)
{
	const struct lf_wire_head *head = &packet->u.head;
	if (packet->size < (ssize_t)sizeof(*head) || head->magic != LF_WIRE_MAGIC ||
	    head->version != LF_WIRE_VERSION)
		return false;
	switch (head->type) {
	case LF_WIRE_WELCOME:
		return packet->size == sizeof(packet->u.welcome) && take_welcome(packet);
	case LF_WIRE_FUSE:
		if (packet->size != sizeof(packet->u.fuse))
			return false;
		take_fuse(packet);
		return true;
	case LF_WIRE_REFUSE:
		if (packet->size != sizeof(packet->u.refuse))
			return false;
		take_refuse(packet);
		return true;
	case LF_WIRE_TAP:
		if (packet->size != sizeof(packet->u.tap))
			return false;
		/* Without the descriptor, for want of numbers: nothing is recorded then. */
		if (packet->fd_count == 1)
			lf_tap_take(&packet->u.tap, packet->fds[0]);
		return true;
	default:
		return false;
	}
}

void lf_broker_receive(void)
{
	if (!try_lock())
		return; /* somebody is at it */
	int saved = errno;
	int fd = atomic_load(&connection);
	struct packet packet;
	while (fd >= 0 && next_packet(fd, &packet)) {
		atomic_fetch_add(&taken, 1);
		bool ours = take(&packet);
		drop_fds(&packet);
		if (!ours) {
			disconnect();
			break;
		}
	}
	/* End of file: the broker is gone; connections stay as they are. */
	if (fd >= 0 && (packet.size == 0 || (packet.size == -1 && errno != EAGAIN && errno != EINTR)))
		disconnect();
	lf_tap_tidy();
	unlock();
	errno = saved;
}

void lf_broker_moved(int from, int to)
{
	int expected = from;
	atomic_compare_exchange_strong(&connection, &expected, to);
}

bool lf_broker_leave(void)
{
	if (!try_lock())
		return false;
	bool left = atomic_load(&connection) >= 0;
	disconnect();
	unlock();
	return left;
}

/* A child is not to inherit what has come from the broker and nobody has taken in hand: it could never
 * close it, and while it had a doorbell of its parent's the peer could not hear of that one's death. */
void lf_broker_before_fork(void)
{
	lf_defer_begin();
	/* Dekker with try_lock(), seq_cst: we store that we fork, then take the lock for a moment; it takes
	 * the lock, then loads that. Who had it before us has given it back, all others see us. */
	atomic_fetch_add(&forking, 1);
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
}

void lf_broker_after_fork_in_parent(void)
{
	atomic_fetch_sub(&forking, 1);
	lf_defer_end();
}

void lf_broker_after_fork_in_child(void)
{
	pthread_mutexattr_t recursive;
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&lock, &recursive);
	atomic_store(&forking, 0); /* other threads' forks */
	disconnect();
	not_before = 0;
	atomic_store(&in_vain_before, 0);
}

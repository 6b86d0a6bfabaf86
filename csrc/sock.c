/* sock.c - the pool of sockets; see sock.h. */
#define _GNU_SOURCE
#include "sock.h"

#include "departure.h"
#include "epoll.h"
#include "invariant.h"
#include "mapping.h"
#include "rank.h"
#include "real.h"
#include "start.h"
#include "states.h"
#include "uncancelled.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>

enum { POOL_SOCKS = 131072 };

static struct lf_sock *pool;
static _Atomic uint32_t used;
static uint32_t free_list; /* index + 1 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Order: gate before lock. Held across fork and while a socket enters or leaves the
 * table, so that holders counts exactly the processes whose table has it. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static uint32_t forks; /* ever; under gate */
static _Thread_local uint32_t forks_with_this_one __attribute__((tls_model("initial-exec")));
static bool alone; /* the thread that forked last; under gate */

bool lf_sock_init(void)
{
	void *at = mmap(NULL, POOL_SOCKS * sizeof(struct lf_sock), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return false;
	pool = at;
	return true;
}

/* The one that was taken apart last, with a slot that is nobody's: most programs close one before they
 * open the next, which then takes no lock. Whoever exchanges it out has it. */
static _Atomic(struct lf_sock *) spare;

static struct lf_sock *take(void)
{
	struct lf_sock *sock = NULL;
	lf_mutex_lock_briefly(&lock, LF_RANK_LEAF);
	if (free_list) {
		sock = &pool[free_list - 1];
		free_list = sock->next_free;
	} else if (atomic_load(&used) < POOL_SOCKS) {
		sock = &pool[atomic_fetch_add(&used, 1)];
	}
	lf_mutex_unlock_briefly(&lock, LF_RANK_LEAF);
	return sock;
}

static void give_back(struct lf_sock *sock)
{
	lf_mutex_lock_briefly(&lock, LF_RANK_LEAF);
	sock->next_free = free_list;
	free_list = (uint32_t)(sock - pool) + 1;
	lf_mutex_unlock_briefly(&lock, LF_RANK_LEAF);
}

/* Nobody uses it any more. */
static void take_apart(struct lf_sock *sock)
{
	int bell = atomic_exchange(&sock->bell, -1);
	if (bell >= 0)
		lf_table_unhide(bell);
	if (sock->segment)
		lf_mapping_drop(sock->segment, sock->ring_size, sock->whole);
	sock->segment = NULL;
	/* Closed while another thread tried to exec, or exits: that one's count is not to be taken twice. */
	if (atomic_exchange(&sock->left, 0))
		atomic_fetch_add(&sock->slot->holders, 1);
	if (!lf_slot_leave(sock->slot)) {
		give_back(sock);
		return;
	}
	struct lf_sock *older = atomic_exchange(&spare, sock);
	if (!older)
		return;
	lf_slot_give_back(older->slot);
	give_back(older);
}

static struct lf_sock *take_with_slot(void)
{
	/* A load first: where many are open there is none, and an exchange would cost the line. */
	struct lf_sock *sock =
		atomic_load_explicit(&spare, memory_order_relaxed) ? atomic_exchange(&spare, NULL) : NULL;
	if (sock) {
		lf_slot_refresh(sock->slot);
		return sock;
	}
	sock = take();
	if (!sock)
		return NULL;
	sock->slot = lf_slot_new();
	if (!sock->slot) {
		give_back(sock);
		return NULL;
	}
	return sock;
}

static void drop(struct lf_sock *sock)
{
	if (lf_count_down(&sock->users) == 1 && atomic_exchange(&sock->dead, 0) == 1)
		take_apart(sock);
}

void lf_sock_track(int fd, enum lf_wire_side side)
{
	if ((unsigned)fd >= LF_TABLE_SIZE)
		return;
	struct lf_sock *sock = take_with_slot();
	if (!sock)
		return;
	sock->generation++;
	sock->side = side;
	/* Nobody looks at it before its entry is there, which tells of all this. */
#define SET(field, value) atomic_store_explicit(&sock->field, value, memory_order_relaxed)
	SET(pairing, side == LF_SIDE_CLIENT ? LF_PAIRING_FRESH : LF_PAIRING_TRACKED);
	SET(calls, 0);
	SET(fd, fd);
	SET(descriptors, 1);
	SET(bell, -1);
	SET(parents_bell, false);
	SET(bell_users, 0);
	SET(waiters, 0);
	SET(drains, 0);
	SET(readers, 0);
	SET(writers, 0);
	SET(spin_score, 0);
	SET(hung_up, 0);
	SET(left, 0);
	SET(closing, 0);
	SET(let_go, 0);
	SET(fin_seen, 0);
	SET(tx_looked, 0);
	SET(tcp_checked, 0);
	SET(peer_checked, 0);
	SET(peer_stuck, 0);
	SET(peer_tail, 0);
	SET(peer_patience, 0);
	SET(tx_stalls, 0);
	SET(cookie, 0);
	SET(registration, NULL);
#undef SET
	/* Not a store: a stale pin may be about to undo itself. */
	lf_mutex_lock_briefly(&gate, LF_RANK_GATE);
	sock->born = forks;
	atomic_fetch_add(&sock->users, 1);
	lf_table_set(fd, LF_KIND_SOCK, sock);
	lf_mutex_unlock_briefly(&gate, LF_RANK_GATE);
}

struct lf_sock *lf_sock_pin_entry(int fd, uintptr_t entry)
{
	while (lf_table_kind(entry) == LF_KIND_SOCK) {
		struct lf_sock *sock = lf_table_pointer(entry);
		/* The pool is never unmapped, so touching a stale place is safe; seeing the
		 * same entry after the increment proves that the table's own use was there
		 * when we added ours, hence nobody took the socket apart in between. */
		atomic_fetch_add(&sock->users, 1);
		uintptr_t now = lf_table_get(fd);
		if (now == entry)
			return sock;
		drop(sock);
		entry = now;
	}
	return NULL;
}

uint64_t lf_sock_id(const struct lf_sock *sock)
{
	return (uint64_t)sock->generation << 32 | (uint32_t)(sock - pool);
}

struct lf_sock *lf_sock_pin_id(uint64_t id)
{
	uint32_t index = (uint32_t)id;
	if (index >= atomic_load(&used))
		return NULL;
	struct lf_sock *sock = lf_sock_pin(atomic_load(&pool[index].fd));
	if (sock && (sock != &pool[index] || lf_sock_id(sock) != id)) {
		lf_sock_unpin(sock);
		return NULL;
	}
	return sock;
}

void lf_sock_unpin(struct lf_sock *sock)
{
	drop(sock);
}

void lf_sock_each(void (*fn)(struct lf_sock *sock, void *context), void *context)
{
	uint32_t n = atomic_load(&used);
	for (uint32_t i = 0; i < n; i++) {
		if (atomic_load(&pool[i].users) == 0)
			continue;
		struct lf_sock *sock = lf_sock_pin(atomic_load(&pool[i].fd));
		if (!sock)
			continue;
		if (sock == &pool[i])
			fn(sock, context);
		lf_sock_unpin(sock);
	}
}

void lf_sock_bell_is_free(struct lf_sock *sock)
{
	for (int naps = 0; atomic_load(&sock->bell_users) && naps < 1000; naps++)
		lf_uncancelled_nap(50000);
}

void lf_sock_bell_moved(int from, int to)
{
	uint32_t n = atomic_load(&used);
	for (uint32_t i = 0; i < n; i++) {
		int expected = from;
		if (atomic_load(&pool[i].users) &&
		    atomic_compare_exchange_strong(&pool[i].bell, &expected, to)) {
			lf_sock_bell_is_free(&pool[i]);
			return;
		}
	}
}

void lf_sock_decline(struct lf_sock *sock, enum lf_reason reason)
{
	uint32_t none = LF_REASON_NONE;
	atomic_compare_exchange_strong(&sock->slot->declined, &none, (uint32_t)reason);
	enum lf_pairing was;
	do
		was = (enum lf_pairing)atomic_load(&sock->pairing);
	while (was < LF_PAIRING_PAIRED && !lf_states_pair(sock, was, LF_PAIRING_DECLINED));
}

void lf_sock_decline_later(struct lf_sock *sock, enum lf_reason reason)
{
	uint32_t none = LF_REASON_NONE;
	atomic_compare_exchange_strong(&sock->slot->declined, &none, (uint32_t)reason);
	if (atomic_load(&sock->pairing) > LF_PAIRING_TRACKED)
		lf_sock_decline(sock, reason);
}

enum lf_reason lf_sock_commit(struct lf_sock *sock)
{
	enum lf_reason reason = LF_REASON_NONE;
	/* The gate is held across a fork, from the counting of holders on: a child either
	 * inherits PAIRED and the mapping, or is counted here. */
	lf_mutex_lock_briefly(&gate, LF_RANK_GATE);
	if (!lf_slot_is_held_by(sock->slot, 1))
		reason = LF_REASON_SHARED_DESCRIPTOR;
	else if (lf_states_pair(sock, LF_PAIRING_CLAIMED, LF_PAIRING_PAIRED))
		atomic_store(&sock->slot->fork_safe, 1); /* forks inherit it from here on */
	else if ((reason = (enum lf_reason)atomic_load(&sock->slot->declined)) == LF_REASON_NONE)
		reason = LF_REASON_TOO_LATE;
	lf_mutex_unlock_briefly(&gate, LF_RANK_GATE);
	return reason;
}

void lf_sock_add_descriptor(struct lf_sock *sock, int copy)
{
	if ((unsigned)copy >= LF_TABLE_SIZE)
		return;
	int n = atomic_load(&sock->descriptors);
	do
		if (n == 0)
			return;
	while (!atomic_compare_exchange_weak(&sock->descriptors, &n, n + 1));
	lf_table_set(copy, LF_KIND_SOCK, sock);
	/* Dekker with lf_sock_let_go(), seq_cst: we store the entry, then load the count; it
	 * stores the count, then loads the entries. The caller's pin keeps the place from being
	 * another socket's by now. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&sock->descriptors) == 0)
		lf_table_clear(copy, LF_KIND_SOCK, sock);
}

/* Some other number that still names it. Rare (dup then close of the first), so a
 * search is fine. */
static void find_other_descriptor(struct lf_sock *sock)
{
	for (int fd = 0; fd < (int)LF_TABLE_SIZE; fd++) {
		uintptr_t entry = lf_table_get(fd);
		if (lf_table_kind(entry) == LF_KIND_SOCK && lf_table_pointer(entry) == sock) {
			atomic_store(&sock->fd, fd);
			return;
		}
	}
}

bool lf_sock_remove_descriptor(struct lf_sock *sock, int fd)
{
	lf_mutex_lock_briefly(&gate, LF_RANK_GATE);
	if (!lf_table_clear(fd, LF_KIND_SOCK, sock)) { /* let go meanwhile */
		lf_mutex_unlock_briefly(&gate, LF_RANK_GATE);
		return false;
	}
	bool last = atomic_fetch_sub(&sock->descriptors, 1) == 1;
	if (!last && atomic_load(&sock->fd) == fd)
		find_other_descriptor(sock);
	lf_mutex_unlock_briefly(&gate, LF_RANK_GATE);
	return last;
}

void lf_sock_release(struct lf_sock *sock)
{
	atomic_store(&sock->dead, 1);
	drop(sock);
}

void lf_sock_let_go(struct lf_sock *sock)
{
	lf_mutex_lock_briefly(&gate, LF_RANK_GATE);
	/* Before the entries go, for lf_sock_named(). */
	if (atomic_load(&sock->descriptors) > 0)
		atomic_store(&sock->let_go, 1);
	int n = atomic_exchange(&sock->descriptors, 0), only = atomic_load(&sock->fd);
	/* See lf_sock_add_descriptor(). */
	atomic_thread_fence(memory_order_seq_cst);
	if (n > 1 || (n == 1 && !lf_table_clear(only, LF_KIND_SOCK, sock)))
		for (int fd = 0; fd < (int)LF_TABLE_SIZE; fd++)
			(void)lf_table_clear(fd, LF_KIND_SOCK, sock);
	lf_mutex_unlock_briefly(&gate, LF_RANK_GATE);
	if (n > 0)
		lf_sock_release(sock);
}

static void one_more_holder(struct lf_sock *sock, void *context)
{
	(void)context;
	atomic_fetch_add(&sock->slot->holders, 1);
}

static void one_holder_less(struct lf_sock *sock, void *context)
{
	(void)context;
	if (sock->born < forks_with_this_one)
		lf_count_down(&sock->slot->holders);
}

void lf_sock_before_fork(void)
{
	lf_mutex_lock(&gate, LF_RANK_GATE);
	lf_departures_before_fork();
	forks_with_this_one = ++forks;
	alone = lf_alone();
	lf_sock_each(one_more_holder, NULL);
}

void lf_sock_after_fork_in_parent(void)
{
	lf_mutex_unlock(&gate, LF_RANK_GATE);
}

void lf_sock_fork_failed(void)
{
	lf_sock_each(one_holder_less, NULL);
}

static void child_resets(struct lf_sock *sock, void *context)
{
	(void)context;
	atomic_store(&sock->left, 0);
	/* The claim was the parent's. */
	(void)lf_states_pair(sock, LF_PAIRING_CLAIMED, LF_PAIRING_TRACKED);
	/* What is counted are calls that a handler of this very thread, which forks, has interrupted:
	 * they go on here, too. */
	if (alone)
		return;
	/* Threads that exist no more; those who wait are the parent's. */
	sock->parents_bell |= atomic_load(&sock->waiters) != 0;
	atomic_store(&sock->bell_users, 0);
	atomic_store(&sock->readers, 0);
	atomic_store(&sock->writers, 0);
	atomic_store(&sock->waiters, 0);
	atomic_store(&sock->drains, 0);
	/* Only the forking thread exists here: the table's use and this one's pin. */
	atomic_store(&sock->users, 2);
}

void lf_sock_after_fork_in_child(void)
{
	pthread_mutex_unlock(&gate); /* it is this thread that holds it; see lf_defer_after_fork() */
	pthread_mutex_init(&lock, NULL);
	lf_slot_after_fork();
	lf_mapping_after_fork();
	struct lf_sock *old = atomic_exchange(&spare, NULL);
	if (old)
		give_back(old); /* its slot is the parent's */
	lf_sock_each(child_resets, NULL);
	/* Sockets that another thread was just letting go of: this process never counted
	 * as their holder, but it did inherit the doorbell. */
	uint32_t n = atomic_load(&used);
	for (uint32_t i = 0; i < n; i++) {
		if (atomic_exchange(&pool[i].dead, 0) == 0)
			continue;
		int bell = atomic_exchange(&pool[i].bell, -1);
		if (bell >= 0)
			lf_table_unhide(bell);
	}
}

/* epoll_set.c - epoll sets and the entries in them: where they live, how an event of the
 * kernel's names one, and which are hot. epoll_set.h tells the whole story.
 */
#define _GNU_SOURCE
#include "epoll_set.h"

#include "clock.h"
#include "invariant.h"
#include "rank.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

enum {
	POOL_EPOLLS = 4096,
	POOL_REGISTRATIONS = 131072,
};

static struct lf_epoll *epolls;
static struct lf_epoll *free_epolls;
static _Atomic uint32_t epolls_used;
static struct lf_registration *registrations;
static _Atomic uint32_t registrations_used;
static uint32_t free_registrations;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t tag_prefix;

uint64_t lf_epoll_tag(const struct lf_registration *reg, enum lf_tag_kind kind)
{
	return tag_prefix | (uint64_t)(reg->generation & 0xffff) << 24 |
	       (uint64_t)(reg - registrations) << 1 | (uint64_t)kind;
}

bool lf_epoll_is_tag(uint64_t data)
{
	return (data & ~UINT64_C(0xffffffffff)) == tag_prefix;
}

uint64_t lf_epoll_broker_tag(void)
{
	return tag_prefix | UINT64_C(0xffffff);
}

bool lf_epoll_init(void)
{
	void *sets = mmap(NULL, POOL_EPOLLS * sizeof(struct lf_epoll), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *regs = mmap(NULL, POOL_REGISTRATIONS * sizeof(struct lf_registration),
			  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sets == MAP_FAILED || regs == MAP_FAILED)
		return false;
	epolls = sets;
	registrations = regs;
	uint64_t random = 0x5bd1e995f05eULL;
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	tag_prefix = random << 40;
	return true;
}

/* --- the sets --- */

void lf_epoll_unlock(struct lf_epoll *ep)
{
	lf_mutex_unlock(&ep->lock, LF_RANK_EPOLL);
}

void lf_epoll_track(int fd)
{
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	struct lf_epoll *ep = free_epolls;
	if (ep)
		free_epolls = ep->next_free;
	else if (epolls && atomic_load(&epolls_used) < POOL_EPOLLS)
		ep = &epolls[atomic_fetch_add(&epolls_used, 1)];
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
	if (!ep)
		return; /* untracked: its sockets are declined when they are added */
	/* The lock stays as it is (all zero is unlocked): somebody with an old pointer may be
	 * waiting for it, to find that the set is another one now. */
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	ep->calls = 0; /* not `sleepers`: somebody with an old pointer may be about to count himself off */
	ep->nappers = 0;
	ep->turn = 0;
	ep->settled = 0;
	ep->broker_fd = 0;
	ep->capped = ep->inherited = ep->exact = false;
	ep->shared = false;
	ep->closed = false;
	ep->hot = ep->cooled = (struct lf_entries){NULL, NULL, 0};
	ep->next_free = NULL;
	atomic_store(&ep->spin_score, 0);
	atomic_store(&ep->adopted, 0);
	atomic_store(&ep->nested, 0);
	atomic_store(&ep->descriptors, 1);
	atomic_store(&ep->fd, fd);
	lf_epoll_unlock(ep);
	lf_table_set(fd, LF_KIND_EPOLL, ep);
}

void lf_epoll_add_descriptor(struct lf_epoll *ep, int copy)
{
	atomic_fetch_add(&ep->descriptors, 1);
	lf_table_set(copy, LF_KIND_EPOLL, ep);
}

/* Under its lock: nobody will use it any more, but to find that it is another one by now. */
static void give_back(struct lf_epoll *ep)
{
	for (uint32_t i = 0; i < registrations_used; i++)
		if (registrations[i].ep == ep)
			lf_epoll_release(&registrations[i]);
	ep->closed = false;
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	ep->next_free = free_epolls;
	free_epolls = ep;
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
}

/* Rare (dup, then close of the first), so a search is fine. */
static int other_descriptor(const struct lf_epoll *ep)
{
	for (int fd = 0; fd < (int)LF_TABLE_SIZE; fd++)
		if (lf_epoll_is_behind(ep, fd))
			return fd;
	return -1;
}

void lf_epoll_remove_descriptor(struct lf_epoll *ep, int fd)
{
	lf_table_set(fd, LF_KIND_NONE, NULL);
	bool last = atomic_fetch_sub(&ep->descriptors, 1) == 1;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	if (atomic_load(&ep->fd) == fd)
		atomic_store(&ep->fd, last ? -1 : other_descriptor(ep));
	/* Who sleeps in it has what the kernel has, the set without a name; and what it holds may
	 * still wake him. Dekker with lf_epoll_begin_plain_sleep() and lf_epoll_end_plain_sleep():
	 * we clear the entry and set `closed`, then load `sleepers`. */
	if (last) {
		atomic_store(&ep->closed, true);
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load(&ep->sleepers) == 0)
			give_back(ep);
	}
	lf_epoll_unlock(ep);
}

bool lf_epoll_is_behind(const struct lf_epoll *ep, int epfd)
{
	uintptr_t entry = lf_table_get(epfd);
	return lf_table_kind(entry) == LF_KIND_EPOLL && lf_table_pointer(entry) == ep;
}

/* True: it was the last. In a child that was forked in the midst of a sleep nobody is counted. */
static bool count_off(struct lf_epoll *ep)
{
	uint32_t n = atomic_load(&ep->sleepers);
	while (n && !atomic_compare_exchange_weak(&ep->sleepers, &n, n - 1))
		;
	return n <= 1;
}

void lf_epoll_stop_sleeping(struct lf_epoll *ep)
{
	if (count_off(ep) && ep->closed)
		give_back(ep);
}

bool lf_epoll_begin_plain_sleep(struct lf_epoll *ep, int epfd)
{
	/* Dekker with lf_entry_adopt() and its like, which raise `adopted`, then load `sleepers`: they
	 * arm for us, or we see that the set is mixed. And with lf_epoll_remove_descriptor(): it
	 * clears the entry, then loads `sleepers`: it leaves us the set, or we see that it is gone. */
	atomic_fetch_add(&ep->sleepers, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (lf_epoll_is_plain(ep) && lf_epoll_is_behind(ep, epfd))
		return true;
	lf_epoll_end_plain_sleep(ep);
	return false;
}

void lf_epoll_end_plain_sleep(struct lf_epoll *ep)
{
	bool last = count_off(ep);
	atomic_thread_fence(memory_order_seq_cst);
	if (!last || !atomic_load_explicit(&ep->closed, memory_order_relaxed))
		return;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	if (ep->closed && atomic_load(&ep->sleepers) == 0)
		give_back(ep);
	lf_epoll_unlock(ep);
}

bool lf_epoll_is_mixed(const struct lf_epoll *ep)
{
	return atomic_load_explicit(&ep->adopted, memory_order_relaxed) != 0;
}

bool lf_epoll_is_plain(const struct lf_epoll *ep)
{
	return !lf_epoll_is_mixed(ep) && !atomic_load_explicit(&ep->shared, memory_order_relaxed);
}

/* --- hot and cold; all under ep->lock --- */

static void append(struct lf_entries *list, struct lf_registration *reg)
{
	reg->list = list;
	reg->next = NULL;
	reg->prev = list->last;
	if (list->last)
		list->last->next = reg;
	else
		list->first = reg;
	list->last = reg;
	list->count++;
}

void lf_epoll_leave_list(struct lf_registration *reg)
{
	struct lf_entries *list = reg->list;
	if (!list)
		return;
	reg->list = NULL;
	if (reg->prev)
		reg->prev->next = reg->next;
	else
		list->first = reg->next;
	if (reg->next)
		reg->next->prev = reg->prev;
	else
		list->last = reg->prev;
	list->count--;
}

bool lf_epoll_is_hot(const struct lf_registration *reg)
{
	return reg->list && reg->list == &reg->ep->hot;
}

void lf_epoll_make_hot(struct lf_registration *reg)
{
	if (reg->counted) {
		lf_count_down(&reg->sock->waiters);
		reg->counted = false;
	}
	if (lf_epoll_is_hot(reg))
		return;
	lf_epoll_leave_list(reg);
	append(&reg->ep->hot, reg);
}

void lf_epoll_keep_warm(struct lf_registration *reg)
{
	append(&reg->ep->cooled, reg);
}

void lf_epoll_put_first(struct lf_epoll *ep, struct lf_registration *chain)
{
	struct lf_entries rest = ep->hot;
	if (!chain)
		return;
	ep->hot = (struct lf_entries){NULL, NULL, 0};
	for (struct lf_registration *next; chain; chain = next) {
		next = chain->next;
		append(&ep->hot, chain);
	}
	if (!rest.first)
		return;
	ep->hot.last->next = rest.first;
	rest.first->prev = ep->hot.last;
	ep->hot.last = rest.last;
	ep->hot.count += rest.count;
}

void lf_epoll_release(struct lf_registration *reg)
{
	struct lf_sock *sock = reg->sock;
	lf_epoll_leave_list(reg);
	if (reg->counted)
		lf_count_down(&sock->waiters);
	atomic_store(&sock->registration, NULL);
	atomic_store(&reg->ep, NULL);
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	reg->next_free = free_registrations;
	free_registrations = (uint32_t)(reg - registrations) + 1;
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
}

struct lf_registration *lf_epoll_new_entry(struct lf_epoll *ep, struct lf_sock *sock, int fd,
						const struct epoll_event *user)
{
	struct lf_registration *reg = NULL;
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	if (free_registrations) {
		reg = &registrations[free_registrations - 1];
		free_registrations = reg->next_free;
	} else if (atomic_load(&registrations_used) < POOL_REGISTRATIONS) {
		reg = &registrations[atomic_fetch_add(&registrations_used, 1)];
	}
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
	if (!reg)
		return NULL;
	uint32_t generation = reg->generation;
	memset(reg, 0, sizeof(*reg));
	reg->generation = generation + 1;
	atomic_store(&reg->ep, ep);
	reg->sock = sock;
	reg->fd = fd;
	reg->user = *user;
	reg->settled_at = ep->settled;
	reg->queued_at = lf_ticks();
	reg->fresh = true;
	atomic_store(&sock->registration, reg);
	return reg;
}

struct lf_registration *lf_epoll_entry_of(struct lf_epoll *ep, uint64_t tag)
{
	uint64_t index = (tag & 0xffffff) >> 1;
	if (index >= registrations_used)
		return NULL;
	struct lf_registration *reg = &registrations[index];
	/* One that has no tag yet is meant by a process that shares the set, and counts places as we do. */
	return reg->ep == ep && reg->adopted && (reg->generation & 0xffff) == (tag >> 24 & 0xffff) ? reg :
												     NULL;
}

struct lf_registration *lf_epoll_entry_number(uint32_t number)
{
	return number < atomic_load(&registrations_used) ? &registrations[number] : NULL;
}

/* --- fork --- */

/* In the order of their places; elsewhere nobody holds more than one. Without ranks, of which
 * two can't be equal. Sets that come to be in between are locked too: none can while the pool
 * is. */
void lf_epoll_before_fork(void)
{
	lf_defer_begin();
	uint32_t n = 0;
	for (;;) {
		for (; n < atomic_load(&epolls_used); n++) {
			pthread_mutex_lock(&epolls[n].lock);
			epolls[n].shared = true; /* before there is a child that puts tags into it */
		}
		pthread_mutex_lock(&pool_lock);
		if (n == atomic_load(&epolls_used))
			return;
		pthread_mutex_unlock(&pool_lock);
	}
}

void lf_epoll_after_fork_in_parent(void)
{
	pthread_mutex_unlock(&pool_lock);
	for (uint32_t n = atomic_load(&epolls_used); n-- > 0;)
		pthread_mutex_unlock(&epolls[n].lock);
	lf_defer_end();
}

void lf_epoll_after_fork_in_child(void)
{
	/* Nobody sleeps here yet. Who does looks at each of them first, see say_that_we_wait(). The parent goes
	 * on to sleep without a look. */
	for (uint32_t i = 0; i < registrations_used; i++) {
		if (!registrations[i].counted)
			continue;
		registrations[i].sock->parents_bell = true;
		lf_epoll_make_hot(&registrations[i]);
	}
	/* It is this thread that holds them; see lf_defer_after_fork(). */
	pthread_mutex_unlock(&pool_lock);
	uint32_t n = atomic_load(&epolls_used);
	for (uint32_t i = 0; i < n; i++) {
		pthread_mutex_unlock(&epolls[i].lock);
		epolls[i].sleepers = 0;
		epolls[i].nappers = 0;
		epolls[i].broker_fd = 0;
		epolls[i].shared = true;
		epolls[i].inherited = epolls[i].exact = true;
		if (epolls[i].closed)
			give_back(&epolls[i]);
	}
}

/* conn.h - one end of a connection: what sending, receiving, readiness and teardown
 * mean, whether the bytes travel by TCP or by ring. docs/switch.md tells the protocol
 * and why its order is right.
 *
 * Functions return a count or 0 for success, or a negative errno. They run with the
 * socket pinned.
 */
#ifndef LF_CONN_H
#define LF_CONN_H

#include "defer.h"
#include "invariant.h"
#include "ring.h"
#include "sock.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct pollfd;
struct timespec;

/* Beside bytes and negative errnos, of which they must be none: a socket that was reset can
 * say anything. */
enum {
	LF_USE_TCP = -5001,    /* the direction is plain: the kernel's own call is the answer */
	LF_LOOK_AGAIN = -5002, /* the state moved on */
	/* A handler has run, and the number is the socket's no more: as the kernel does, the call begins anew
	 * with whatever it names now. */
	LF_BEGIN_ANEW = -5003,
};

/* One call of the program: read, recv, readv, recvmsg are the same thing in other
 * clothes, and so are their sending twins. */
struct lf_io {
	struct msghdr *msg; /* what plain TCP is to be given; iov and all */
	int flags;
	bool one; /* msg is of our own making, around one buffer: the program is told of bytes only */
	bool waits; /* it began as a blocking call: O_NONBLOCK set since is not for it */
	bool continued; /* one of several messages, and not the first */
	struct lf_handlers *since; /* before the first of several; NULL: the call begins here */
};

/* The number names the socket no more. 0: another thread has given it away, and the call goes on with
 * the open file, as the kernel's; -EINTR or LF_BEGIN_ANEW: handlers have run, which may have. */
int lf_conn_given_away(const struct lf_handlers *since);
/* Is about to sleep in the kernel's call, past handlers that have run. */
bool lf_conn_sleeps_after_handlers(int fd, const struct lf_io *io, const struct lf_handlers *since);
ssize_t lf_conn_recv(struct lf_sock *sock, int fd, struct lf_io *io);
ssize_t lf_conn_send(struct lf_sock *sock, int fd, struct lf_io *io);
/* The common case of lf_conn_send(), without a cursor: one short buffer for which
 * there is room, in the ring, and nothing else to look at. False: it is not that case, nothing was
 * done. Leaves errno alone. */
bool lf_conn_send_quickly(struct lf_sock *sock, int fd, const void *buf, size_t n, int flags);

/* Moves bytes between the ring and another descriptor without a buffer in between.
 * `move` is called with pieces of ring memory, under the direction's lock, and returns
 * how many bytes it used, 0 or a negative errno. LF_USE_TCP: this direction is plain,
 * let the kernel do the whole call. */
typedef ssize_t (*lf_move)(void *context, const struct iovec *pieces, int count, size_t n);
struct lf_bulk {
	size_t n;       /* bytes at most */
	bool wait;      /* unless the socket is non-blocking */
	bool continued; /* the program's call has moved bytes before this one */
	lf_move move;
	void *context;
	struct lf_handlers *since; /* those of before the program's call, or that it has answered for */
	bool more; /* sending: is to come (SPLICE_F_MORE) */
};
ssize_t lf_conn_send_from(struct lf_sock *sock, int fd, const struct lf_bulk *bulk);
ssize_t lf_conn_recv_into(struct lf_sock *sock, int fd, const struct lf_bulk *bulk);
/* A receive has met TCP's FIN, where the ring has no part in what comes, but may have in what goes.
 * 0: that is the end; or a negative errno, which TCP would have said. */
ssize_t lf_conn_end_of_stream(struct lf_sock *sock, int fd);
/* The kernel's own call has told this; an error that ends the connection, as it says once, is not to be
 * told again when the peer is found dead. Returns it. */
ssize_t lf_conn_kernel_said(struct lf_sock *sock, int fd, ssize_t n);

/* Around a kernel call that receives (or waits to receive) past the two functions above:
 * while one is under way the direction can't leave TCP. False: it already has. */
bool lf_conn_enter_plain_rx(struct lf_sock *sock);
void lf_conn_leave_plain_rx(struct lf_sock *sock, ssize_t received);
/* The same for sending. */
bool lf_conn_enter_plain_tx(struct lf_sock *sock);
void lf_conn_leave_plain_tx(struct lf_sock *sock, ssize_t sent);
/* A send by TCP may have found too little room: more room is then an edge for EPOLLET. */
void lf_conn_may_have_stalled(struct lf_sock *sock);
/* The same after the kernel's answer to a send by TCP. */
void lf_conn_stalled_in_tcp(struct lf_sock *sock, int fd);

/* The peer has ended a ring, and left a copy of its last bytes in TCP: before FIN (copy_what_is_unread()), or
 * before what it sends on there (leaves_a_copy()). Under rx_lock: throws away as much of that as was read in the
 * ring, if `unread` bytes are left there. `deadline`: on lf_now()'s clock, to wait for it to come. */
enum lf_copy {
	LF_COPY_NONE,    /* there is none, or it does not have all of those */
	LF_COPY_SKIPPED, /* what TCP has begins with what was not read */
	LF_COPY_AWAITED, /* not all of it has come */
};
enum lf_copy lf_conn_skip_copy(struct lf_sock *sock, int fd, uint64_t unread, int64_t deadline);
/* To wait for one that is just being given. */
#define LF_COPY_NS (INT64_C(20) * 1000000)
/* The ring has been read to its end, and TCP, which says that it is readable, may mean the rest of a copy alone:
 * that is to be taken away then, without rx_lock and a set's, before anybody is told. */
bool lf_conn_copy_is_awaited(struct lf_sock *sock, int fd);
void lf_conn_take_late_copy(struct lf_sock *sock, int fd);
/* Has TCP all of it? Waits for that to be known. */
bool lf_conn_copy_is_whole(struct lf_sock *sock, int fd, int64_t deadline);
/* Bytes of a copy that are to be thrown away, now or once the ring has been read. 0 also where TCP's bytes
 * are what is to be read. */
size_t lf_conn_copy_left(const struct lf_sock *sock);

/* What a peer that was killed held back counts once its FIN has come, which TCP alone tells. */
void lf_conn_show_at_the_end(struct lf_sock *sock, int fd);
/* The kernel lacks something for the moment: that says nothing of the connection. */
static inline bool lf_conn_is_passing(int error)
{
	return error == ENOMEM || error == ENOBUFS || error == EINTR;
}

/* Bytes that FIONREAD adds for what lies in the ring. */
size_t lf_conn_unread(struct lf_sock *sock);

/* How many unread bytes of ours the peer's receive buffer would hold. */
uint32_t lf_conn_peer_share(const struct lf_sock *sock);
/* Bytes of our own in the ring that the peer's receive buffer would not have held: on TCP
 * they would wait in our send queue. */
size_t lf_conn_unsent(struct lf_sock *sock);
/* Bytes that ever went into the ring, and ever came by it, but for those sent again by TCP. */
uint64_t lf_conn_ring_sent(struct lf_sock *sock);
uint64_t lf_conn_ring_received(struct lf_sock *sock);

/* Readiness as far as rings know it, as poll(2) bits; `known` gets the bits about which
 * the ring has the last word, so that the kernel's are to be left out. Looks at memory
 * only, until an end of the connection is near; and now and then at TCP, where memory has an answer
 * to what is `asked`, which would hide TCP's. */
short lf_conn_ready(struct lf_sock *sock, short asked, short *known);
/* SO_RCVLOWAT, but never more than the ring will hold before its writer waits for us. */
size_t lf_conn_low_water(const struct lf_sock *sock);
/* How long ago the next byte to be read came, as lf_arrival_steps() counts, where the ring has it;
 * UINT32_MAX: elsewhere. The peer's word: for an order of events, no more. */
uint32_t lf_conn_waits_since(struct lf_sock *sock, uint32_t now);
/* Would a receive of `need` bytes find them (or an error) in the ring? */
bool lf_conn_has_input(struct lf_sock *sock, size_t need);
/* The same, or anything else that a waiting receive must look at. */
bool lf_conn_readable(struct lf_sock *sock, size_t need);
/* What is to be read next was sent by TCP before the ring: so many bytes are left of that. */
bool lf_conn_tcp_comes_first(const struct lf_sock *sock);
uint64_t lf_conn_left_before_ring(const struct lf_sock *sock);
bool lf_conn_writable(struct lf_sock *sock);
/* Before arming for room: tells the peer how little must be left unread. */
void lf_conn_say_when_writable(struct lf_sock *sock);
/* Is a writer at the other end that has armed still short of that? */
bool lf_conn_writer_has_to_wait(const struct lf_sock *sock);
/* The program has set the size of a buffer, here or (as seen in the ring) over there. */
void lf_conn_limits_changed(struct lf_sock *sock);

/* --- the switch (conn_fuse.c) --- */

/* The broker's answer: maps the segment, takes the doorbell. False: declined, both
 * descriptors closed, `reason` says why. */
bool lf_conn_pair(struct lf_sock *sock, const struct lf_wire_fuse *fuse, int segment_fd,
		  int bell, enum lf_reason *reason);
/* Tells the peer that the ring is watched, if nothing stands against it. */
void lf_conn_try_ready(struct lf_sock *sock, int fd);
/* Moves sending into the ring, if the peer is ready and the counts agree. Under
 * tx_lock. */
void lf_conn_try_fuse(struct lf_sock *sock, int fd);
bool lf_conn_peer_ready(const struct lf_sock *sock);
/* Do the library's counts of TCP payload agree with the kernel's? EAGAIN: they moved
 * while we looked; ask again later. */
int lf_conn_counts_agree(struct lf_sock *sock, int fd, bool sending);
/* Payload that TCP was ever given to send, by the kernel's word, while nobody gives it more. False:
 * the connection is over. */
bool lf_conn_count_sent(struct lf_sock *sock, int fd, uint64_t *count);

/* --- ways out (conn_end.c) --- */

/* Ends our sending direction: later bytes go by TCP. Under tx_lock. */
void lf_conn_end_tx(struct lf_sock *sock, enum lf_reason reason);
/* The same on our own account: a peer that has left its ring counts on us for what it had not
 * read, so that goes by TCP first. Under tx_lock. */
void lf_conn_leave_tx(struct lf_sock *sock, int fd, enum lf_reason reason);
/* After new bytes, under tx_lock: makes those up to `head` visible, and counts as many sends as
 * they complete. A sleeping reader is woken once the lock is released, see after_put(). */
static inline void lf_conn_publish(struct lf_sock *sock, uint64_t head, uint64_t sends)
{
	uint64_t origin = atomic_load_explicit(&sock->slot->tx_origin, memory_order_relaxed);
	LF_INVARIANT(lf_lock_is_mine(&sock->slot->tx_lock));
	LF_INVARIANT(head >= atomic_load(&sock->slot->tx_head));
	LF_INVARIANT(head - atomic_load(&sock->slot->tx_tail) <= sock->ring_size);
	/* The slot first: if we die between the two stores, whoever takes over the lock
	 * publishes our bytes with its own, and never overwrites what the peer may have
	 * seen. */
	atomic_store_explicit(&sock->slot->tx_head, head, memory_order_relaxed);
	/* Counted in the slot, which is ours: to load it from the segment would mean to wait for a
	 * line that the reader has. */
	uint64_t messages =
		atomic_load_explicit(&sock->slot->tx_messages, memory_order_relaxed) + sends;
	atomic_store_explicit(&sock->slot->tx_messages, messages, memory_order_relaxed);
	/* Side by side: a reader that spins takes the line away after the first store to it. */
	atomic_store_explicit(&sock->out->p.origin, origin, memory_order_relaxed);
	atomic_store_explicit(&sock->out->p.messages, messages, memory_order_relaxed);
	/* release: the bytes, and the origin, before the position that covers them. */
	atomic_store_explicit(&sock->out->p.head, head, memory_order_release);
}

/* What was held back for more to come is, no more (TCP_CORK, MSG_MORE). */
void lf_conn_push(struct lf_sock *sock, int fd);

/* Another thread, or process, is just sending again by TCP what the peer did not read in the
 * ring, and holds tx_lock meanwhile; what we send comes after that. */
bool lf_conn_is_resending(const struct lf_sock *sock);
/* Under tx_lock: gives TCP what is in the ring from slot->resent on, and has it counted there. What
 * TCP says against it is kept for the program to see. `patient`: all of it; otherwise what TCP takes
 * now. (conn_resend.c) */
void lf_conn_resend_by_tcp(struct lf_sock *sock, int fd, bool patient);
/* TCP will take n bytes at once, whether the peer reads or not: room in the send buffer (SO_MEMINFO). And it
 * will send them at once, as far as the peer has room. */
bool lf_conn_tcp_has_room(int fd, size_t n);
/* Who was at it may have died after TCP took bytes, and before it had noted so. Nobody else has sent
 * meanwhile: what TCP has beyond its count from before the ring is what was sent again. */
void lf_conn_note_what_tcp_has(struct lf_sock *sock, int fd);
/* Under rx_lock: the n bytes from there on in our ring, of a peer that is dead, come by TCP, and FIN
 * behind them: by a new connection, of this very socket. `all`: or none, where TCP has not room for them.
 * False: they don't, which may be noticed only when the old one is gone. */
bool lf_conn_renew(struct lf_sock *sock, int fd, uint64_t from, size_t n, bool all);
/* TCP was reset, or is shut down both ways. (conn_send.c) */
bool lf_conn_tcp_is_broken(int fd);
/* What poll has told of TCP, without what it told of a connection that was taken apart in that way. */
short lf_conn_tcp_says(const struct lf_sock *sock, int fd, short told);
/* Under tx_lock: ends the ring where slot->resent says, unless that was done, sends again from there
 * on, and goes on in TCP. Who was at it may have died. */
void lf_conn_finish_resending(struct lf_sock *sock);
/* Does what the peer wished (end marks, take-back). True: something was done. Cheap
 * when there is nothing. */
bool lf_conn_service(struct lf_sock *sock, int fd);
/* The same for all sockets of this process. */
void lf_conn_service_all(void);
/* Makes both directions plain with nothing left in the ring we read from: for holders that
 * know only TCP. Waits for the peer, a second at the most, only if there are unread bytes,
 * which it has to send again by TCP. If it is busy elsewhere, it does so at its next call; if
 * `stay`, this process goes on with the socket, and may read them until then. */
void lf_conn_defuse(struct lf_sock *sock, int fd, enum lf_reason reason, bool stay);
#define LF_TAKE_BACK_NS (INT64_C(1000) * 1000000)
/* The same with a time limit of the caller's, on lf_now()'s clock. */
void lf_conn_defuse_until(struct lf_sock *sock, int fd, enum lf_reason reason, bool stay,
			  int64_t deadline);
/* Around a look into the ring, under rx_lock: while the peer is asked to take unread bytes
 * back, and has not begun, it is kept from it, then asked again. The first is true if so. */
bool lf_conn_take_turn(struct lf_sock *sock);
void lf_conn_ask_again(struct lf_sock *sock);
/* What lies unread in the ring comes, or has come, by TCP instead: the ring is out of bounds. */
bool lf_conn_has_been_taken_back(const struct lf_sock *sock);
static inline bool lf_conn_taken_back(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->in->c.wish, memory_order_relaxed) >= LF_WISH_TAKEN &&
	       lf_conn_has_been_taken_back(sock);
}
/* The same for a holder that will read the ring to its end. Never waits. */
void lf_conn_return_to_tcp(struct lf_sock *sock, enum lf_reason reason);
/* Bytes that nobody has taken yet may be bytes that nobody ever will: finds out now. */
void lf_conn_look_at_reader(struct lf_sock *sock, int fd);
/* The doorbell hung up. */
void lf_conn_peer_gone(struct lf_sock *sock, int fd);
/* TCP says FIN and the ring is empty. If nobody holds the other end any more, this
 * direction goes back to TCP; and if the peer's last process died before it had read all
 * of our bytes, the socket acts as after RST from now on, which is what plain TCP would
 * have sent. */
void lf_conn_fin_seen(struct lf_sock *sock, int fd);
/* FIN without a word from the peer, which has not read all of our bytes: is it dying? A poll
 * that told of FIN alone would tell less than TCP, which would have seen RST. The first takes no
 * lock and asks the kernel at most, so it may be asked under any; the second waits some ms if need
 * be. */
bool lf_conn_fin_is_doubtful(struct lf_sock *sock);
void lf_conn_resolve_fin(struct lf_sock *sock, int fd);
/* Sending, while the peer is slow to read: does it still exist? Asks the kernel, but
 * seldom. */
void lf_conn_check_peer(struct lf_sock *sock, int fd);
/* Has TCP been reset or destroyed beneath a ring that goes on (`ss -K`, a firewall)? A word
 * from the kernel is some 20 ms old at the most: the first says when it is time to ask, the
 * second asks if it is. */
bool lf_conn_tcp_check_is_due(struct lf_sock *sock);
/* The program has just been told of an end by TCP: its next send asks at once. */
void lf_conn_end_was_told(struct lf_sock *sock);
void lf_conn_check_tcp(struct lf_sock *sock, int fd);
/* TCP's state says that FIN, or worse, has come: not just a shutdown of our own. */
bool lf_conn_fin_has_come(int fd);
/* TCP has told a receive of an error. If it was the end of the connection, nothing is sent
 * any more, and nothing received but what is in the ring. */
void lf_conn_tcp_failed(struct lf_sock *sock, int fd);
/* The program needs the doorbell's number: closes the bell; both directions go back to
 * TCP as soon as each producer looks. False: it has none. */
bool lf_conn_give_up_bell(struct lf_sock *sock);
/* The other end wrote what can't be. */
void lf_conn_corrupt(struct lf_sock *sock);
/* TCP is about to send FIN or RST, with our knowledge: the peer is to look at TCP too. */
void lf_conn_announce_end(struct lf_sock *sock);
/* Bytes for a socket that is shut both ways draw RST: TCP's business. Those that came before
 * can still be read, as on TCP. Does nothing while one way is open. */
void lf_conn_refuse_more(struct lf_sock *sock);
int lf_conn_shutdown(struct lf_sock *sock, int fd, int how);
/* exec will close this process's last descriptor, unless it fails. */
void lf_conn_before_exec_closes(struct lf_sock *sock, int fd);
/* This process lets go of its last descriptor; before the kernel's close. */
void lf_conn_before_close(struct lf_sock *sock, int fd, bool exits);

/* The same, by the last receive of it that slept when another thread closed it. */
void lf_conn_close_ring(struct lf_sock *sock);

/* --- doorbells (bell.c) --- */

/* Wakes the peer if the flag says that it sleeps; call after the store it waits for. */
void lf_bell_ring(struct lf_sock *sock, struct lf_armed_line *line);
/* The same where a full fence has come after that store (see lf_lock_fence_released()), and the
 * flag was seen. */
void lf_bell_wake(struct lf_sock *sock, struct lf_armed_line *line);
void lf_bell_ring_always(struct lf_sock *sock);
/* What SO_SNDBUF would read as, of any socket, were it set to `half`; -1: not known. Asked of our
 * bell, whose size does not matter and is as before afterwards. */
int lf_bell_try_room(struct lf_sock *sock, int half);
/* Empties our bell. */
void lf_bell_drain(struct lf_sock *sock);

/* --- waiting (wait.c) --- */
enum lf_want { LF_WANT_READ, LF_WANT_WRITE };

/* Signals that have handlers, held back from the look whether one has run to ppoll, which lets them in.
 * No longer: one that is meant for the process would go to another thread, and a handler that is to
 * end a call, or to stop the world, come late. */
struct lf_hold {
	bool on;
	sigset_t before;
};
#define LF_HOLD(name)                                                   \
	struct lf_hold name __attribute__((cleanup(lf_hold_end)));      \
	(name).on = false

struct lf_wait {
	enum lf_want want;
	size_t need;      /* reading: bytes in the ring that are enough */
	int64_t deadline; /* on lf_now()'s clock, or LF_FOREVER; see lf_wait_limit() */
	/* The program set a timeout, or part has been moved: signals always interrupt. */
	bool never_restarts;
	bool seen_in_tcp; /* it has bytes that are to stay there: don't let it wake us for those */
	bool spun; /* lf_wait_spin() was in vain: sleep at once */
	/* When the call began, then when it last answered. What has run since and ends the call does so before
	 * it sleeps: while we spin, or copy, the kernel's would have slept. */
	struct lf_handlers *since;
};

void lf_hold_begin(struct lf_hold *hold);
void lf_hold_end(struct lf_hold *hold);

/* The time limit that SO_RCVTIMEO or SO_SNDTIMEO sets to a call that begins now. */
void lf_wait_limit(const struct lf_sock *sock, struct lf_wait *wait);
/* Returns 0 (look again), -EINTR, -EAGAIN (the deadline has passed) or LF_BEGIN_ANEW. */
int lf_wait(struct lf_sock *sock, int fd, struct lf_wait *wait);
/* In a forked child, where nobody waits yet. */
void lf_wait_after_fork(void);
/* This thread is about to close it: a wait of its own that still counts was jumped out of. */
void lf_wait_forget(const struct lf_sock *sock);
/* The first half of it, which looks at memory only. True: look again. */
bool lf_wait_spin(struct lf_sock *sock, const struct lf_wait *wait);
/* Sleeps on TCP alone, for a call to which the kernel said EAGAIN only since it is not to wait any
 * more. `handlers_run`: lf_defer_calls() before that call; begun anew after a handler, it would have
 * looked at O_NONBLOCK once more. `longest`: ns, or LF_FOREVER. Returns 0 (try again), -EINTR or
 * -EAGAIN (it would not wait). */
int lf_wait_tcp(int fd, short events, int64_t longest, uint32_t handlers_run);
/* Polls within a call that is to wait: 0: something is there, or time is up; -EAGAIN: a handler ran
 * after which the kernel would begin the call anew; -EINTR: one that ends it. */
int lf_wait_poll(struct pollfd *fds, size_t n, const struct timespec *ts, struct lf_handlers *since);
/* Counts the caller as one who relies on the doorbell, before it arms. False: another thread
 * is just emptying it, or it is another's, so the caller may sleep for LF_SHARED_SLEEP_NS at the most. */
bool lf_wait_begin(struct lf_sock *sock);
void lf_wait_end(struct lf_sock *sock);
/* Reader, armed, and after a look in vain: there may be bytes for it later of which nobody tells. */
bool lf_wait_is_untold(const struct lf_sock *sock);
/* The doorbell to be slept at, for poll. Of a parent's, too, a process is told that it has hung up. */
static inline struct pollfd lf_wait_bell(const struct lf_sock *sock)
{
	return (struct pollfd){
		.fd = atomic_load(&sock->hung_up) ? -1 : atomic_load(&sock->bell),
		.events = lf_sock_bell_is_parents(sock) ? 0 : POLLIN,
	};
}
/* Raises the armed flag; the caller looks at the ring once more before it sleeps. Who rings takes
 * it down again; who has slept only by lf_wait_disarm_reader(): it is one flag for all who sleep. */
void lf_wait_arm(struct lf_sock *sock, enum lf_want want);
/* The caller, counted by lf_wait_begin(), has slept, and looks at the ring itself from here on: the
 * peer need not ring. False: others may rely on the flag. */
bool lf_wait_disarm_reader(struct lf_sock *sock);
/* Takes the doorbell's bytes away, unless others than `mine` of the waiters rely on them. */
bool lf_wait_drain(struct lf_sock *sock, uint32_t mine);
/* Woken by a doorbell that lf_wait_drain() would not empty, with nothing for us to be had: lets those
 * who rely on it run, for ever longer if it is no news, lest all wake each other for ever. Not to be
 * called while counted. `longest`: ns. */
void lf_wait_give_way(const struct lf_sock *sock, int64_t longest);
/* Spins on `look` for as long as a sleep would cost, if that has been paying off for this
 * socket. True: look() said yes. `alone`: the one we wait for can't run beside us. `want`: where
 * the spin is counted. */
bool lf_wait_spin_by_score(struct lf_sock *sock, enum lf_want want, bool alone,
			   bool (*look)(void *), void *context);
/* Counts that the caller has armed, has looked once more and found nothing. */
void lf_wait_count_sleep(struct lf_sock *sock, enum lf_want want);
/* Longest sleep, ns, that is safe for this socket. */
#define LF_SHARED_SLEEP_NS (5 * 1000 * 1000)
#define LF_WRITER_SLEEP_NS (20 * 1000 * 1000)

#endif

/* signals.h - does a signal restart the call it interrupts?
 *
 * recv() and send() are restarted after a handler that was installed with SA_RESTART;
 * ppoll(), in which we really sleep, never is (signal(7)). So the library remembers
 * which signals have handlers of which kind.
 *
 * The C library has handlers of its own, which restart, for signals that the program can't
 * name: so where no handler is known, or only restarting ones, any interruption restarts.
 */
#ifndef LF_SIGNALS_H
#define LF_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Signals as bits, signal - 1; a sigset_t begins like that on every 64-bit Linux. */
uint64_t lf_signals_bits(const sigset_t *set);
void lf_signals_fill(sigset_t *set, uint64_t bits);

/* The program has set this disposition. */
void lf_signals_note(int signal, const struct sigaction *action);

/* The signals whose handlers make recv() fail with EINTR, and those after which it goes on;
 * among the latter the one by which the C library has all threads change their user id. */
uint64_t lf_signals_returning(void);
uint64_t lf_signals_restarting(void);

/* All that have handlers; false: there are none. */
bool lf_signals_handled(sigset_t *set);

/* A signalfd for these signals, to be polled and nothing else; -1 where there is none to be
 * had. Usually a hidden one, which is kept for the next time. */
struct lf_signals_fd {
	int fd;
	int kept; /* which one of those that are kept, or -1 */
};
struct lf_signals_fd lf_signals_fd(uint64_t bits);
void lf_signals_fd_done(struct lf_signals_fd *it);
/* The program has taken number `from`; -1: our descriptor is gone. */
void lf_signals_fd_moved(int from, int to);
/* In a forked child: what another thread was just making comes to nothing here. */
void lf_signals_after_fork(void);
/* The program needs numbers below `limit`. True: it has one more now. */
bool lf_signals_give_back(int limit);

#endif

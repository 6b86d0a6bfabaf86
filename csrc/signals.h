/* signals.h - does a signal restart the call it interrupts?
 *
 * recv() and send() are restarted after a handler that was installed with SA_RESTART;
 * ppoll(), in which we really sleep, never is (signal(7)). So the library remembers
 * which signals have handlers of which kind, and counts in each thread what runs (defer.h).
 *
 * The C library has handlers of its own, which restart, for signals that the program can't
 * name: so an interruption by one that is not counted restarts.
 */
#ifndef LF_SIGNALS_H
#define LF_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* The program has set this disposition. */
void lf_signals_note(int signal, const struct sigaction *action);

/* The signals whose handlers make recv() fail with EINTR; bit signal - 1. */
uint64_t lf_signals_returning(void);

/* All that have handlers; false: there are none. */
bool lf_signals_handled(sigset_t *set);

#endif

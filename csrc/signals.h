/* signals.h - does a signal restart the call it interrupts?
 *
 * recv() and send() are restarted after a handler that was installed with SA_RESTART;
 * ppoll(), in which we really sleep, never is (signal(7)). So the library remembers
 * which signals have handlers of which kind.
 */
#ifndef LF_SIGNALS_H
#define LF_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* The program has set (or asked to set) this disposition. */
void lf_signals_note(int signal, const struct sigaction *action);

/* A wait came back with EINTR: would recv() have gone on by itself? */
enum lf_interrupt {
	LF_INTERRUPT_RETURN,  /* no: report EINTR */
	LF_INTERRUPT_RESTART, /* yes: wait again */
	LF_INTERRUPT_MIXED,   /* handlers of both kinds exist */
};
enum lf_interrupt lf_signals_interrupt(void);

/* The signals whose handlers restart. */
void lf_signals_restarting(sigset_t *set);
/* All that have handlers; false: there are none. */
bool lf_signals_handled(sigset_t *set);

#endif

/* sim.h - a stateless model checker for the C11 memory model, small enough to run csrc/ itself.
 *
 * A scenario starts threads that call the library's own functions. At each atomic operation on a
 * place that several threads use, the simulator may go on with another thread; a load may read any
 * store that the thread's view does not forbid. All combinations are tried, depth first, by running
 * the scenario again and again, within two bounds: how often a thread is left though it could go
 * on, and how many loads of one execution read something older than the newest.
 *
 * Memory: each place keeps all its stores (messages). A thread's view says how far it has seen each
 * place; a release store (or a relaxed one after a release fence) carries the view along, an acquire
 * load (or an acquire fence after a relaxed load) takes it over; read-modify-writes read the newest
 * and pass the view on (release sequences). seq_cst fences and operations share one more view, in
 * the order in which they are executed. Left out: load buffering (a load never sees a store that is
 * executed later), and stores that fall behind newer ones of the same place.
 *
 * Payload bytes (lf_copy) are checked for data races: the other thread's last access must be in the
 * view.
 */
#ifndef LF_WEAK_SIM_H
#define LF_WEAK_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_THREADS = 4 };

/* One execution: sets up memory, then starts the threads. */
struct sim_scenario {
	const char *name;
	void (*begin)(void);
	void (*threads[SIM_THREADS])(void);
	void (*end)(void); /* all threads have finished: what must hold? */
};

/* Says what is wrong; this execution ends. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The thread can't go on before `ready` says so. */
void sim_block(bool (*ready)(void *), void *context);
/* A call into the kernel that works on this object: its lock is taken, and given back before any
 * other thread comes in. */
void sim_kernel(void *object);
/* n bytes of memory are read or written. */
void sim_access(const void *at, size_t n, bool writes);
/* Starts anew what the simulator knows of memory; the scenario's begin() has set the values. */
int sim_main(int argc, char **argv, const struct sim_scenario *scenarios, int count);

#endif

/* measure.h - what all parts of the measuring program share: its command line, and how it
 * gives up. main.c tells what the program does.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The largest message, and the size of every buffer. */
#define MEASURE_BIGGEST ((size_t)1 << 20)

enum measure_over { OVER_TCP, OVER_UNIX, OVER_RING };

/* The command line, checked. */
struct measure_order {
	bool server;
	enum measure_over over;
	const char *at; /* TCP: port, 0 chooses one; AF_UNIX: path; ring: inherited descriptor */
	bool polling;   /* non-blocking calls in a busy loop; otherwise they sleep */
	const char *work;
	size_t size; /* bytes of a message or of a write, 1 to MEASURE_BIGGEST */
	double seconds;
	pid_t peer; /* the server's process, whose CPU time and memory the client reads */
	int connections;
	int active; /* so many of them talk, the others idle */
	int sockmap; /* an inherited map to put the socket into, -1: none (sockmap.h) */
};

/* Prints "measure: what: why" to standard error and exits with 1. */
_Noreturn void measure_fail(const char *what);

/* The same for a mistake that errno knows nothing of. */
_Noreturn void measure_wrong(const char *what);

/* One turn of a busy loop. Lets others run where there is one CPU for both ends: on it the
 * peer can't come before we give way. */
void measure_busy(void);

/* "ready WORD" on standard output: the server can be reached at WORD. */
void measure_ready(const char *word);

/* The client's warm-up. "warming" on standard output; then true while the warm-up is to go
 * on, which is until a line or the end of standard input comes. The one who started us uses
 * the time to see that both ends talk the way that is to be measured. */
bool measure_warming(void);

/* After a result: asleep until a line asks for another one on the same connection, true, or
 * standard input ends, false. */
bool measure_again(void);

/* After the result: holds every connection open until standard input ends. */
void measure_hold(void);

#endif

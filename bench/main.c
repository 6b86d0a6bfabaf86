/* main.c - the measuring program of `loopfuse bench`: one end of one measurement.
 *
 *   measure server over=tcp at=0 work=roundtrip size=64 [waiting=poll]
 *   measure client over=tcp at=PORT work=roundtrip size=64 seconds=0.5 peer=PID ...
 *
 * The server prints "ready WHERE" and serves one client. The client connects, compares the
 * bytes of a first exchange with what they should be, prints "warming", and goes on until a
 * line comes on standard input. Then it measures for so many seconds, compares once more,
 * prints one JSON object, and stays until standard input ends; round trips and batches are
 * measured again at each further line. Knows nothing of loopfuse.
 *
 *   over        tcp, unix, or ring: shared memory, inherited as descriptor `at`
 *   work        roundtrip, stream, many, rate, idle; self: both ends in this one process
 *               batches: a stream whose server says after each 4 MiB that it has them
 *               calls-file, calls-pipe, calls-tcp, calls-epoll, calls-poll: single calls
 *   waiting     block (the default) or poll
 *   connections, active    for `many`, the first for `idle` too
 *   sockmap     for round trips: an inherited eBPF map to put the socket into
 */
#define _GNU_SOURCE
#include "measure.h"
#include "work.h"

#include "../csrc/copy.h"
#include "../csrc/pause.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

_Noreturn void measure_fail(const char *what)
{
	fprintf(stderr, "measure: %s: %s\n", what, strerror(errno));
	exit(1);
}

_Noreturn void measure_wrong(const char *what)
{
	fprintf(stderr, "measure: %s\n", what);
	exit(1);
}

static bool one_cpu;

void measure_busy(void)
{
	if (one_cpu)
		sched_yield();
	else
		lf_pause();
}

void measure_ready(const char *word)
{
	printf("ready %s\n", word);
	fflush(stdout);
}

bool measure_warming(void)
{
	static bool said;
	if (!said) {
		said = true;
		puts("warming");
		fflush(stdout);
	}
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	if (poll(&input, 1, 0) <= 0)
		return true;
	char line;
	while (read(STDIN_FILENO, &line, 1) == 1 && line != '\n')
		;
	return false;
}

bool measure_again(void)
{
	char letter = 0;
	fflush(stdout);
	while (letter != '\n' && read(STDIN_FILENO, &letter, 1) == 1)
		;
	return letter == '\n';
}

void measure_hold(void)
{
	char rest[64];
	fflush(stdout);
	while (read(STDIN_FILENO, rest, sizeof(rest)) > 0)
		;
}

static long number(const char *text, long least, long greatest)
{
	char *end;
	errno = 0;
	long value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < least || value > greatest) {
		fprintf(stderr, "measure: '%s' is not a number from %ld to %ld\n", text, least,
			greatest);
		exit(2);
	}
	return value;
}

static int one_of(const char *text, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	fprintf(stderr, "measure: '%s' is unknown here; main.c lists what there is\n", text);
	exit(2);
}

static void take_argument(struct measure_order *order, char *argument)
{
	static const char *const names[] = {"over", "at",	"waiting",     "work",	 "size",
					    "seconds", "peer", "connections", "active", "sockmap", NULL};
	static const char *const overs[] = {"tcp", "unix", "ring", NULL};
	static const char *const waitings[] = {"block", "poll", NULL};
	char *value = strchr(argument, '=');
	if (!value)
		one_of(argument, (const char *const[]){NULL});
	*value++ = 0;
	switch (one_of(argument, names)) {
	case 0: order->over = (enum measure_over)one_of(value, overs); break;
	case 1: order->at = value; break;
	case 2: order->polling = one_of(value, waitings) == 1; break;
	case 3: order->work = value; break;
	case 4: order->size = (size_t)number(value, 1, (long)MEASURE_BIGGEST); break;
	case 5: order->seconds = atof(value); break;
	case 6: order->peer = (pid_t)number(value, 1, 1L << 30); break;
	case 7: order->connections = (int)number(value, 1, 1000000); break;
	case 8: order->active = (int)number(value, 1, 1000000); break;
	default: order->sockmap = (int)number(value, 0, 1000000); break;
	}
}

/* Ten thousand connections need as many descriptors. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	static const char *const ends[] = {"client", "server", NULL};
	static const struct {
		const char *name;
		void (*serve)(const struct measure_order *), (*ask)(const struct measure_order *);
	} works[] = {{"roundtrip", work_roundtrip_serve, work_roundtrip_ask},
		     {"stream", work_stream_serve, work_stream_ask},
		     {"batches", work_stream_serve, work_batches_ask},
		     {"many", work_many_serve, work_many_ask},
		     {"rate", work_rate_serve, work_rate_ask},
		     {"idle", work_idle_serve, work_idle_ask},
		     {"calls-file", work_calls_serve, work_calls_ask},
		     {"calls-pipe", work_calls_serve, work_calls_ask},
		     {"calls-tcp", work_calls_serve, work_calls_ask},
		     {"calls-epoll", work_calls_serve, work_calls_ask},
		     {"calls-poll", work_calls_serve, work_calls_ask},
		     {"self", NULL, work_self_ask}};
	struct measure_order order = {.at = "0", .work = "", .size = 1, .seconds = 1,
				      .connections = 1, .active = 1, .sockmap = -1};
	if (argc < 2)
		return fprintf(stderr, "measure: server or client, and what? See main.c\n"), 2;
	order.server = one_of(argv[1], ends) == 1;
	for (int i = 2; i < argc; i++)
		take_argument(&order, argv[i]);
	if (order.active > order.connections)
		order.active = order.connections;
	cpu_set_t set;
	one_cpu = sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody else would end a server */
	raise_descriptor_limit();
	lf_copy_choose();
	for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
		if (strcmp(order.work, works[i].name) != 0)
			continue;
		void (*end)(const struct measure_order *) =
			order.server ? works[i].serve : works[i].ask;
		if (end)
			return end(&order), 0;
	}
	fprintf(stderr, "measure: no work '%s' for a %s\n", order.work, argv[1]);
	return 2;
}

/* work_calls.c - what single calls cost where there is nothing to fuse: on files, pipes, and a
 * TCP connection whose other end must not run under loopfuse.
 *
 * Calls come in batches, and none of those that are timed ever waits. The server sleeps until
 * a whole batch has arrived (SO_RCVLOWAT), so that sends wake nobody but with the last piece;
 * that one, and the wait for the echo, are system calls of our own, which no library sees.
 */
#define _GNU_SOURCE
#include "channel.h"
#include "counter.h"
#include "work.h"

#include "../csrc/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SETTLING_NS INT64_C(1500000000)
enum { BATCH = 64, MOST_BATCHES = 1 << 18, BIGGEST_PIECE = 65536 / BATCH };

struct calls {
	size_t size;
	struct channel channel;
	int in, out; /* what is read and written: twice the same but for a pipe */
	int ep;
};

static char there[MEASURE_BIGGEST], back[MEASURE_BIGGEST];

void work_calls_serve(const struct measure_order *order)
{
	struct channel channel = channel_serve(order);
	int whole = (int)order->size * (BATCH + 1);
	if (setsockopt(channel.fd, SOL_SOCKET, SO_RCVLOWAT, &whole, sizeof(whole)))
		measure_fail("setsockopt");
	/* poll() first: a recv() that has taken a part would wait for as much again. */
	struct pollfd input = {.fd = channel.fd, .events = POLLIN};
	while (poll(&input, 1, -1) == 1 && channel_take(&channel, there, (size_t)whole))
		channel_put(&channel, there, (size_t)whole);
	channel_close(&channel);
}

static void moved(ssize_t n, size_t size)
{
	if (n < 0)
		measure_fail("a call that was to be timed");
	if ((size_t)n != size)
		measure_wrong("a call moved less than it was told to");
}

static void write_pieces(struct calls *calls)
{
	for (int i = 0; i < BATCH; i++)
		moved(write(calls->out, there, calls->size), calls->size);
}

static void read_pieces(struct calls *calls)
{
	for (int i = 0; i < BATCH; i++)
		moved(read(calls->in, back, calls->size), calls->size);
}

static void rewind_file(struct calls *calls)
{
	if (lseek(calls->in, 0, SEEK_SET))
		measure_fail("lseek");
}

static void send_last_and_wait(struct calls *calls)
{
	size_t whole = calls->size * (BATCH + 1);
	moved(syscall(SYS_write, calls->out, there, calls->size), calls->size);
	moved(syscall(SYS_recvfrom, calls->in, back, whole, MSG_PEEK | MSG_WAITALL, NULL, NULL),
	      whole);
}

static void receive_last(struct calls *calls)
{
	moved(syscall(SYS_read, calls->in, back, calls->size), calls->size);
}

static void epoll_waits(struct calls *calls)
{
	struct epoll_event event;
	for (int i = 0; i < BATCH; i++)
		moved(epoll_wait(calls->ep, &event, 1, 0), 1);
}

static void polls(struct calls *calls)
{
	for (int i = 0; i < BATCH; i++) {
		struct pollfd pollfd = {.fd = calls->in, .events = POLLIN};
		moved(poll(&pollfd, 1, 0), 1);
	}
}

static void prepare_file(struct calls *calls)
{
	calls->in = calls->out = memfd_create("measure", MFD_CLOEXEC);
}

static void prepare_pipe(struct calls *calls)
{
	int fds[2] = {-1, -1};
	if (pipe(fds))
		measure_fail("pipe");
	calls->in = fds[0];
	calls->out = fds[1];
}

/* A connection is used for longer than it takes until it is known that it will not be fused. */
static void prepare_tcp(struct calls *calls)
{
	calls->in = calls->out = calls->channel.fd;
	for (int64_t end = lf_now() + SETTLING_NS; lf_now() < end;) {
		write_pieces(calls);
		send_last_and_wait(calls);
		read_pieces(calls);
		receive_last(calls);
	}
}

/* An echo that is never read: the socket stays readable. */
static void prepare_ready(struct calls *calls)
{
	struct epoll_event event = {.events = EPOLLIN};
	prepare_tcp(calls);
	calls->ep = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(calls->ep, EPOLL_CTL_ADD, calls->in, &event))
		measure_fail("epoll_ctl");
	write_pieces(calls);
	send_last_and_wait(calls);
}

static const struct subject {
	const char *name;
	void (*prepare)(struct calls *);
	/* Two stretches of BATCH calls that are timed, and what is done after each. */
	struct {
		void (*timed)(struct calls *), (*after)(struct calls *);
	} part[2];
} subjects[] = {
	{"calls-file", prepare_file, {{write_pieces, rewind_file}, {read_pieces, rewind_file}}},
	{"calls-pipe", prepare_pipe, {{write_pieces, NULL}, {read_pieces, NULL}}},
	{"calls-tcp", prepare_tcp, {{write_pieces, send_last_and_wait}, {read_pieces, receive_last}}},
	{"calls-epoll", prepare_ready, {{epoll_waits, NULL}}},
	{"calls-poll", prepare_ready, {{polls, NULL}}},
};

/* By this name callgrind knows what to count: the calls, and the loop around them. */
__attribute__((noinline)) void work_calls_counted(void (*timed)(struct calls *), struct calls *calls);

void work_calls_counted(void (*timed)(struct calls *), struct calls *calls)
{
	timed(calls);
	__asm__ volatile("" ::: "memory"); /* no tail call: it would end here too soon */
}

static int64_t batch(const struct subject *subject, struct calls *calls, bool measured)
{
	int64_t took = 0;
	for (int i = 0; i < 2 && subject->part[i].timed; i++) {
		if (measured)
			counter_go();
		int64_t start = lf_now();
		if (measured)
			work_calls_counted(subject->part[i].timed, calls);
		else
			subject->part[i].timed(calls);
		took += lf_now() - start;
		if (measured)
			counter_halt();
		if (subject->part[i].after)
			subject->part[i].after(calls);
	}
	return took;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void print(const struct subject *subject, int64_t *times, size_t n)
{
	static const char *const names[COUNTERS] = {"user_instructions", "kernel_instructions"};
	int calls_in_batch = subject->part[1].timed ? 2 * BATCH : BATCH;
	double calls = (double)n * calls_in_batch;
	qsort(times, n, sizeof(*times), ascending);
	printf("{\"calls\": %.0f, \"typical_ns\": %.3f", calls,
	       (double)times[n / 2] / calls_in_batch);
	for (int which = 0; which < COUNTERS; which++) {
		int64_t counted = counter_read((enum counter_of)which);
		if (counted >= 0)
			printf(", \"%s\": %.2f", names[which], (double)counted / calls);
	}
	if (counter_refusal())
		printf(", \"refusal\": \"%s\"", strerror(counter_refusal()));
	puts("}");
}

void work_calls_ask(const struct measure_order *order)
{
	static int64_t times[MOST_BATCHES];
	struct calls calls = {.size = order->size, .channel = channel_connect(order), .ep = -1};
	const struct subject *subject = subjects;
	if (order->size > BIGGEST_PIECE)
		measure_wrong("a batch of that size would not fit a pipe");
	while (strcmp(subject->name, order->work) != 0)
		subject++;
	subject->prepare(&calls);
	do
		batch(subject, &calls, false);
	while (measure_warming());
	counter_open();
	size_t n = 0;
	for (int64_t end = lf_now() + (int64_t)(order->seconds * 1e9); n < MOST_BATCHES;) {
		times[n++] = batch(subject, &calls, true);
		if (lf_now() >= end)
			break;
	}
	print(subject, times, n);
	measure_hold();
	channel_close(&calls.channel);
}

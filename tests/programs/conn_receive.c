/* conn_receive.c - receiving: what wakes a receive, and what it then finds. */
#include "two_ends.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* --- two threads, asleep in receives of one byte each: whoever gets the first byte of a round
 * goes away, and the other must be woken for the second. A race, so many rounds of it. --- */

struct rounds {
	_Atomic int begun, first_taken, over;
};
static struct rounds *rounds;
static int shared_socket;
static _Atomic int taken_by_other, turn;

static void wait_a_little(unsigned n)
{
	for (volatile unsigned i = 0; i < n; i++)
		;
}

static void send_two_a_round(int fd)
{
	unsigned seed = 1;
	for (int round = 0; !rounds->over;) {
		while (rounds->begun == round && !rounds->over)
			;
		round = rounds->begun;
		wait_a_little((unsigned)rand_r(&seed) % 600);
		send(fd, "1", 1, 0);
		while (rounds->first_taken < round && !rounds->over)
			;
		send(fd, "2", 1, 0);
	}
}

static void *take_one_a_round(void *unused)
{
	char byte;
	(void)unused;
	for (int mine = 0; recv(shared_socket, &byte, 1, 0) == 1; mine++) {
		if (byte == '1')
			rounds->first_taken = rounds->begun;
		taken_by_other++;
		while (turn == mine)
			;
	}
	return NULL;
}

static void take_the_others(int fd)
{
	unsigned seed = 7;
	char byte;
	pthread_t other;
	shared_socket = fd;
	pthread_create(&other, NULL, take_one_a_round, NULL);
	for (int64_t end = now_ms() + 1500; now_ms() < end && !rounds->over; turn++) {
		struct timespec nap = {0, 80000};
		nanosleep(&nap, NULL);
		int before = taken_by_other;
		rounds->begun++;
		wait_a_little((unsigned)rand_r(&seed) % 300);
		if (recv(fd, &byte, 1, 0) == 1 && byte == '1')
			rounds->first_taken = rounds->begun;
		for (int64_t patience = now_ms() + 2000; taken_by_other == before; sched_yield())
			if (now_ms() > patience) {
				say("a byte, and a thread that sleeps\n");
				rounds->over = 1;
				return;
			}
	}
	rounds->over = 1;
	say("each byte woke a thread\n");
}

static void two_sleepers(void)
{
	rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	act(send_two_a_round, take_the_others);
}

/* --- receives of more than the sender may have under way --- */

enum { MUCH = 256 * 1024, TIMES = 20 };

static void send_much(int fd, size_t n)
{
	static char bytes[65536];
	for (size_t sent = 0; sent < n;) {
		size_t rest = n - sent;
		ssize_t r = send(fd, bytes, rest < sizeof(bytes) ? rest : sizeof(bytes), 0);
		if (r <= 0)
			return;
		sent += (size_t)r;
	}
}

static void send_times(int fd)
{
	char byte;
	int small = 16 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (int i = 0; i < TIMES; i++) {
		send_much(fd, MUCH);
		recv(fd, &byte, 1, 0);
	}
	pause();
}

static void receive_all(int fd)
{
	static char bytes[MUCH];
	for (int i = 0; i < TIMES; i++) {
		struct timeval patience = {5, 0};
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_WAITALL);
		if (n != sizeof(bytes)) {
			say("%zd of %d\n", n, MUCH);
			return;
		}
		send(fd, "x", 1, 0);
	}
	say("each receive got all\n");
}

static void wait_for_all(void)
{
	act(send_times, receive_all);
}

static void send_much_from_a_small_buffer(int fd)
{
	int small = 32 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	recv(fd, &(char){0}, 1, 0);
	send_much(fd, 4 * MUCH);
	pause();
}

static void wait_for_low_water(int fd)
{
	static char bytes[4 * MUCH];
	int low_water = 2 * MUCH;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	send(fd, "x", 1, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int ready = poll(&p, 1, 5000);
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	say("poll says %d, and there is %s\n", ready, n >= low_water ? "as much" : "less");
}

static void low_water(void)
{
	act(send_much_from_a_small_buffer, wait_for_low_water);
}

/* --- MSG_TRUNC throws away as much as was asked, across the end of a ring, too --- */

static void send_over_the_end(int fd)
{
	char bytes[100] = {0};
	uint32_t rate = 1 << 30;
	send(fd, bytes, 60, 0);
	/* An option that only TCP can honour. */
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	send(fd, bytes, 100, 0);
	send(fd, bytes, 10, 0);
	pause();
}

static void await_queued(int fd, int least)
{
	int queued = 0;
	for (int64_t end = now_ms() + 5000; queued < least && now_ms() < end; usleep(1000))
		ioctl(fd, FIONREAD, &queued);
}

static void throw_away(int fd)
{
	char bytes[200];
	await_queued(fd, 170);
	ssize_t first = recv(fd, bytes, 100, MSG_TRUNC);
	ssize_t second = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	say("%zd, then %zd\n", first, second);
}

static void truncated(void)
{
	act(send_over_the_end, throw_away);
}

/* --- peeks see past the end of a ring, and past its beginning --- */

static void send_byte_and_byte(int fd)
{
	uint32_t rate = 1 << 30;
	send(fd, "a", 1, 0);
	/* An option that only TCP can honour. */
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	send(fd, "b", 1, 0);
	pause();
}

static void peek_twice(int fd)
{
	char bytes[3] = "";
	await_queued(fd, 2);
	ssize_t n = recv(fd, bytes, 2, MSG_PEEK);
	say("%zd %s", n, bytes);
	n = recv(fd, bytes, 2, MSG_PEEK | MSG_WAITALL);
	say(" %zd %s", n, bytes);
	n = recv(fd, bytes, 2, 0);
	say(" %zd %s\n", n, bytes);
}

static void peek_past_the_end(void)
{
	act(send_byte_and_byte, peek_twice);
}

enum { PAIRS = 40 };

static void send_pairs(int fd)
{
	char byte;
	for (int i = 0; i < PAIRS; i++) {
		send(fd, "a", 1, 0);
		usleep(8000);
		send(fd, "b", 1, 0);
		recv(fd, &byte, 1, 0);
	}
	pause();
}

/* Without a warming up: the switch comes while it goes on. */
static void peek_past_the_beginning(void)
{
	int port, listener = listen_somewhere(&port);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == 0)
			send_pairs(fd);
		_exit(1);
	}
	int fd = accept(listener, NULL, NULL), pairs = 0;
	no_delay(fd);
	char bytes[2];
	for (ssize_t n = 2; n == 2 && pairs < PAIRS; pairs += n == 2) {
		int64_t patience = now_ms() + 3000;
		while ((n = recv(fd, bytes, 2, MSG_PEEK)) == 1 && now_ms() < patience)
			usleep(500);
		if (n == 2 && recv(fd, bytes, 2, 0) == 2)
			send(fd, "k", 1, 0);
	}
	say("%d pairs\n", pairs);
	fprintf(stderr, "%s\n", has_a_segment() ? "fused" : "plain");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"two-sleepers", two_sleepers},
		{"wait-for-all", wait_for_all},
		{"low-water", low_water},
		{"truncated", truncated},
		{"peek-past-the-end", peek_past_the_end},
		{"peek-past-the-beginning", peek_past_the_beginning},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}

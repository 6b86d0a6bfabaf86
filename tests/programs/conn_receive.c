/* conn_receive.c - receiving: what wakes a receive, and what it then finds. */
#include "two_ends.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"two-sleepers", two_sleepers},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}

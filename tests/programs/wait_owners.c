/* wait_owners.c - processes that share one end of a connection; one of them is killed in the
 * middle of a send. The others must be able to go on, whatever has become of its process id.
 */
#include "two_ends.h"

#include <fcntl.h>

enum { ROUNDS = 20, MUCH = 4 << 20 };

static void read_all(int fd)
{
	static char sink[1 << 20];
	while (recv(fd, sink, sizeof(sink), 0) > 0)
		;
}

static void send_for_ever(int fd)
{
	static char much[MUCH];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		send(fd, much, sizeof(much), 0);
}

/* Returns a sharer of `fd` that has been killed while it sent: a zombie. */
static pid_t killed_sharer(int fd, int round)
{
	siginfo_t info;
	pid_t sharer = fork();
	if (sharer == 0)
		send_for_ever(fd);
	usleep((useconds_t)(20000 + round * 137));
	kill(sharer, SIGKILL);
	waitid(P_PID, (id_t)sharer, &info, WEXITED | WNOWAIT);
	return sharer;
}

static void send_one(int fd)
{
	(void)!send(fd, "x", 1, MSG_DONTWAIT);
}

static void parent_sends(int fd)
{
	for (int round = 0; round < ROUNDS; round++) {
		pid_t dead = killed_sharer(fd, round);
		send_one(fd);
		waitpid(dead, NULL, 0);
	}
	say("each send came back\n");
}

static void sibling_sends(int fd)
{
	for (int round = 0; round < ROUNDS; round++) {
		pid_t dead = killed_sharer(fd, round), sibling = fork();
		if (sibling == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			send_one(fd);
			_exit(0);
		}
		waitpid(sibling, NULL, 0);
		waitpid(dead, NULL, 0);
	}
	say("each send came back\n");
}

/* A process with this very id, if we may ask for one and nobody is quicker. */
static pid_t successor(pid_t id)
{
	char text[16];
	for (int tries = 0; tries < 20; tries++) {
		int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
		int n = snprintf(text, sizeof(text), "%d", id - 1);
		int asked = fd != -1 && write(fd, text, (size_t)n) == n;
		close(fd);
		if (!asked)
			return 0;
		pid_t pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		if (pid == id)
			return pid;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}

static void id_is_used_again(int fd)
{
	int had = 0;
	for (int round = 0; round < ROUNDS; round++) {
		pid_t dead = killed_sharer(fd, round);
		waitpid(dead, NULL, 0);
		pid_t other = successor(dead);
		send_one(fd);
		if (other) {
			kill(other, SIGKILL);
			waitpid(other, NULL, 0);
			had++;
		}
	}
	fprintf(stderr, "%d of %d had a successor\n", had, ROUNDS);
	say("each send came back\n");
}

static void run_parent(void) { act(read_all, parent_sends); }
static void run_sibling(void) { act(read_all, sibling_sends); }
static void run_again(void) { act(read_all, id_is_used_again); }

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"parent", run_parent},
		{"sibling", run_sibling},
		{"id-used-again", run_again},
		{0},
	};
	alarm(20);
	return act_out(all, argc, argv);
}

/* conn_reset.c - a peer that dies in the midst of the switch: what it had promised to send by TCP
 * before its ring is lost with it. */
#include "shared_page.h"

#include <sched.h>

static _Atomic int *switched; /* the peer has bytes in TCP's queue, and sends by ring, if at all */

static void send_until_by_ring(int fd)
{
	static char bytes[65536];
	int preloaded = getenv("LD_PRELOAD") != NULL;
	/* TCP has no room sooner or later: several in a row can only be taken by the ring. */
	int in_a_row = 0;
	for (int64_t end = now_ms() + 10000; in_a_row < 16 && now_ms() < end;) {
		if (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) == sizeof(bytes)) {
			in_a_row += has_a_segment();
			continue;
		}
		in_a_row = 0;
		usleep(1000);
		if (!preloaded && now_ms() > end - 9500)
			break;
	}
	*switched = 1;
	pause();
}

static void receive_to_the_end(int fd)
{
	static char bytes[65536];
	ssize_t n;
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		;
	say("%zd %s, ", n, n == -1 ? strerror(errno) : "end");
	for (int again = 0; again < 2; again++) {
		n = recv(fd, bytes, sizeof(bytes), 0);
		say("%zd %s, ", n, n == -1 ? strerror(errno) : "end");
	}
	say("\n");
}

static void killed_in_the_switch(void)
{
	int port, listener = listen_somewhere(&port);
	char byte;
	switched = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(listener);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == -1)
			abort();
		send_until_by_ring(fd);
	}
	int fd = accept(listener, NULL, NULL);
	close(listener);
	/* Never read: so the peer's end is a reset. */
	if (send(fd, "x", 1, 0) != 1)
		abort();
	while (!*switched) /* makes no room: TCP's window stays shut for so little */
		if (recv(fd, &byte, 1, 0) == 1)
			usleep(5000);
	say_whether_fused();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	receive_to_the_end(fd);
}

static const struct scenario scenarios[] = {
	{"killed-in-the-switch", killed_in_the_switch},
	{NULL, NULL},
};

int main(int argc, char **argv)
{
	return act_out(scenarios, argc, argv);
}

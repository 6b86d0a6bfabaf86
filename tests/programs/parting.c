/* parting.c - a program that exits with bytes unread, and a library it is linked with, whose destructor
 * reads them and says good-bye on the same connection. Compiled twice, see the Makefile. */
#ifdef LIBRARY

#include <sys/socket.h>
#include <unistd.h>

int parting_connection = -1;

__attribute__((destructor)) static void part(void)
{
	char bytes[64];
	if (parting_connection == -1)
		return;
	(void)!recv(parting_connection, bytes, sizeof(bytes), 0);
	(void)!send(parting_connection, "bye", 3, 0);
	close(parting_connection);
}

#else

#include "shared_page.h"

extern int parting_connection;

static void ask_then_hear(int fd)
{
	char bytes[64] = "";
	prctl(PR_SET_PDEATHSIG, 0);
	send(fd, "question", 8, 0);
	shared->stage = 1;
	await_stage(2);
	for (ssize_t n = 1; n > 0;) {
		usleep(300 * 1000);
		n = recv(fd, bytes, sizeof(bytes) - 1, 0);
		say("%s, ", n > 0 ? bytes : n == 0 ? "the end" : strerror(errno));
	}
	shared->stage = 3;
	_exit(0);
}

/* In a child, since the parent says when it is over. */
static void answer_at_the_end(int fd)
{
	await_stage(1);
	await_queued(fd, 8);
	pid_t child = fork();
	if (child == 0) {
		await_stage(2); /* it is alone with the socket */
		parting_connection = fd;
		exit(0);
	}
	close(fd);
	shared->stage = 2;
	waitpid(child, NULL, 0);
	await_stage(3);
	say("and it is gone\n");
}

int main(void)
{
	share();
	act(ask_then_hear, answer_at_the_end);
	return 0;
}

#endif

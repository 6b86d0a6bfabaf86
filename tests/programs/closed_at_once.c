/* closed_at_once.c - two threads close two numbers of the same socket at the same time. One of them is the last,
 * and gives back what the peer, which has handed its end on meanwhile, has not read. */
#include "shared_page.h"

enum { SOCKETS = 100, BYTES = 1000 };

static int first[SOCKETS], second[SOCKETS];

/* Both threads' closes of that socket begin now, this one's a little later: who is first is to change. */
static void meet(int i, int later)
{
	static _Atomic int arrived;
	for (arrived++; arrived < 2 * (i + 1);)
		;
	for (volatile int n = 30 * later; n > 0; n--)
		;
}

static void *close_second_numbers(void *unused)
{
	for (int i = 0; i < SOCKETS; i++) {
		meet(i, i % 10);
		close(second[i]);
	}
	return unused;
}

static void close_all(void)
{
	pthread_t other;
	pthread_create(&other, NULL, close_second_numbers, NULL);
	for (int i = 0; i < SOCKETS; i++) {
		meet(i, 9 - i % 10);
		close(first[i]);
	}
	pthread_join(other, NULL);
}

static void send_then_close(int listener, int begun)
{
	char bytes[BYTES] = "";
	for (int i = 0; i < SOCKETS; i++) {
		first[i] = accept(listener, NULL, NULL);
		warm(first[i], 0);
		second[i] = dup(first[i]);
	}
	for (int i = 0; i < SOCKETS; i++)
		send(first[i], bytes, sizeof(bytes), 0);
	shared->stage = 1;
	/* Past the library, which is to have no occasion to give anything back before. */
	syscall(SYS_read, begun, bytes, 1);
	close_all();
	_exit(0);
}

/* Becomes a program that knows only TCP, with all its sockets, and the pipe for its standard input. */
static void hand_on(int port, int begun)
{
	static char numbers[SOCKETS][12], *argv[SOCKETS + 3] = {"closed_at_once", "read"};
	for (int i = 0; i < SOCKETS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == -1)
			abort();
		warm(fd, 1);
		snprintf(numbers[i], sizeof(numbers[i]), "%d", fd);
		argv[2 + i] = numbers[i];
	}
	await_stage(1);
	dup2(begun, STDIN_FILENO);
	execve("/proc/self/exe", argv, (char *[]){NULL});
	abort();
}

static int read_all(char **numbers)
{
	char bytes[BYTES];
	int whole = 0;
	(void)!write(STDIN_FILENO, "b", 1);
	for (; *numbers; numbers++) {
		ssize_t sum = 0;
		for (ssize_t n; (n = read(atoi(*numbers), bytes, sizeof(bytes))) > 0;)
			sum += n;
		whole += sum == BYTES;
	}
	say("all came of %d sockets\n", whole);
	return 0;
}

int main(int argc, char **argv)
{
	int port, begun[2], listener = listen_somewhere(&port);
	if (argc > 2)
		return read_all(argv + 2);
	share();
	if (pipe(begun) == -1)
		abort();
	pid_t closer = fork();
	if (closer == 0)
		send_then_close(listener, begun[0]);
	pid_t reader = fork();
	if (reader == 0)
		hand_on(port, begun[1]);
	waitpid(reader, NULL, 0);
	waitpid(closer, NULL, 0);
	return 0;
}

/* departures.c - a forked child is on its way out, by exec or exit, and goes on with the socket that it
 * shares with its parent; or it is gone, and the parent goes on alone. */
#include "two_ends.h"

#include <fcntl.h>
#include <pthread.h>

static int connection, parent_is_ready[2], child_is_ready[2];

static int readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 0) == 1;
}

static void await(const int pipe_ends[2])
{
	char byte;
	(void)!read(pipe_ends[0], &byte, 1);
}

static void tell(const int pipe_ends[2])
{
	(void)!write(pipe_ends[1], "x", 1);
}

static void have_a_long_path(void)
{
	static char path[120016];
	for (int n = 0; n < 120000;)
		n += sprintf(path + n, "/%d:", n % 7);
	setenv("PATH", path, 1);
}

static void fail_to_exec(void)
{
	execlp("nonesuch-program", "nonesuch-program", NULL);
}

/* --- not fused yet: nobody is to be, behind the child's back --- */

/* Gives back what it gets, until it is to be fused. */
static void give_back(int port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect_to(fd, port) == -1)
		abort();
	for (char byte; recv(fd, &byte, 1, 0) == 1 && byte != 'm';)
		if (send(fd, &byte, 1, 0) != 1)
			abort();
	warm(fd, 1);
	pause();
}

static int comes_back(char byte)
{
	char back = 0;
	return send(connection, &byte, 1, MSG_NOSIGNAL) == 1 && recv(connection, &back, 1, 0) == 1 &&
	       back == byte;
}

static void use_the_connection(void)
{
	for (char byte = '1'; byte <= '5'; byte++)
		say("%c %s\n", byte, comes_back(byte) ? "came back" : "did not come back");
}

static void fail_then_go_on(void)
{
	have_a_long_path();
	for (int i = 0; i < 3; i++)
		fail_to_exec();
	tell(child_is_ready);
	await(parent_is_ready);
	use_the_connection();
	_exit(0);
}

static void *go_on_then_end(void *nothing)
{
	await(parent_is_ready);
	use_the_connection();
	syscall(SYS_exit_group, 0);
	return nothing;
}

/* Nobody reads the standard output that exit() flushes. */
static void exit_slowly(void)
{
	static char bytes[65536];
	int full[2];
	pthread_t thread;
	(void)!pipe(full);
	fcntl(full[1], F_SETFL, O_NONBLOCK);
	while (write(full[1], bytes, sizeof(bytes)) > 0)
		;
	fcntl(full[1], F_SETFL, 0);
	FILE *held_up = fdopen(full[1], "w");
	fputs("more", held_up);
	pthread_create(&thread, NULL, go_on_then_end, NULL);
	exit(0);
}

static void become_another_program(void)
{
	execlp("sleep", "sleep", "30", NULL);
	_exit(1);
}

static void beside(void (*child)(void), int64_t ms)
{
	int port, listener = listen_somewhere(&port), status = -1;
	pid_t client = fork();
	if (client == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(listener);
		give_back(port);
	}
	connection = accept(listener, NULL, NULL);
	no_delay(connection);
	fcntl(connection, F_SETFD, FD_CLOEXEC);
	pid_t other = fork();
	if (other == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		child();
	}
	int64_t deadline = now_ms() + ms;
	while (!readable(child_is_ready[0]) && now_ms() < deadline)
		if (!comes_back('p'))
			abort();
	tell(parent_is_ready);
	if (child != become_another_program) {
		waitpid(other, &status, 0);
		say("it ended with %d\n", status);
	}
	(void)!send(connection, "m", 1, 0);
	warm(connection, 0);
	if (child == become_another_program)
		say("it is %s\n", waitpid(other, &status, WNOHANG) == 0 ? "there" : "gone");
	kill(other, SIGKILL);
	kill(client, SIGKILL);
	while (wait(NULL) > 0)
		;
}

static void exec_fails(void)
{
	beside(fail_then_go_on, 10000);
}

static void exit_takes_long(void)
{
	beside(exit_slowly, 300);
}

static void exec_succeeds(void)
{
	beside(become_another_program, 0);
}

/* --- fused: the parent's close is not the last one --- */

static void leave_one_unread(int fd)
{
	static char bytes[65536];
	long got = 0;
	ssize_t n;
	(void)!send(fd, "unread", 7, 0);
	await(child_is_ready);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		got += n;
	say("%ld bytes, then %s\n", got, n == 0 ? "the end" : strerror(errno));
	tell(parent_is_ready);
	pause();
}

static void read_write_close(int fd)
{
	static char bytes[200000];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	say("%zd bytes were unread\n", n);
	tell(child_is_ready);
	say("%zd bytes sent\n", send(fd, bytes, sizeof(bytes), 0));
	close(fd);
	_exit(0);
}

static void run_true(int fd)
{
	(void)fd;
	tell(child_is_ready);
	execl("/bin/true", "true", NULL);
	_exit(1);
}

static void close_during_exec(int fd, void (*then)(int))
{
	int closed[2], begun[2];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	(void)!pipe(closed);
	(void)!pipe(begun);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	poll(&p, 1, -1);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		have_a_long_path();
		tell(begun);
		do
			fail_to_exec();
		while (!readable(closed[0]));
		then(fd);
	}
	await(begun);
	usleep(3000);
	close(fd);
	for (int i = 0; i < 3; i++)
		(void)socket(AF_INET, SOCK_STREAM, 0);
	tell(closed);
	waitpid(child, NULL, 0);
	await(parent_is_ready); /* the client's last word */
}

static void close_before_it_fails(int fd)
{
	close_during_exec(fd, read_write_close);
}

static void close_before_it_succeeds(int fd)
{
	close_during_exec(fd, run_true);
}

static void closed_before_exec_fails(void)
{
	act(leave_one_unread, close_before_it_fails);
}

static void closed_before_exec_succeeds(void)
{
	act(leave_one_unread, close_before_it_succeeds);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"exec-fails", exec_fails},
		{"exit-takes-long", exit_takes_long},
		{"exec-succeeds", exec_succeeds},
		{"closed-before-exec-fails", closed_before_exec_fails},
		{"closed-before-exec-succeeds", closed_before_exec_succeeds},
		{NULL, NULL},
	};
	alarm(30);
	if (pipe(parent_is_ready) == -1 || pipe(child_is_ready) == -1)
		abort();
	return act_out(scenarios, argc, argv);
}

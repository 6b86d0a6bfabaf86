/* few_entries.c - calls that wait, in a process whose RLIMIT_NOFILE is so low that poll(2) takes no
 * entry, or one.
 */
#include "shared_page.h"

#include <sys/resource.h>
#include <sys/select.h>

enum { MOMENT_US = 40000, LONG = 16 << 20 };

static char much[1 << 20];
static rlim_t limit;

static void handler(int number) { (void)number; }

static void say_result(const char *what, ssize_t r)
{
	say("%s: %zd%s%s\n", what, r, r < 0 ? " " : "", r < 0 ? strerror(errno) : "");
}

static void await_asleep(int stage)
{
	await_stage(stage);
	do
		usleep(MOMENT_US / 2);
	while (!sleeps(getppid(), getppid()));
	usleep(MOMENT_US / 2);
}

static void send_one(int fd) { (void)!send(fd, "x", 1, 0); }

static void receive_one(int fd)
{
	char byte;
	say_result("recv", recv(fd, &byte, 1, 0));
}

static void select_one(const char *what, int fd, int ms)
{
	fd_set reads, writes;
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};
	FD_ZERO(&reads);
	FD_SET(fd, &reads);
	FD_ZERO(&writes);
	if (ms == 0)
		FD_SET(fd, &writes);
	say_result(what, select(fd + 1, &reads, &writes, NULL, &tv));
	say("readable: %d, writable: %d\n", FD_ISSET(fd, &reads) != 0, FD_ISSET(fd, &writes) != 0);
}

static void act_beside(int fd)
{
	ssize_t n, got = 0;
	await_asleep(1);
	send_one(fd);
	await_asleep(2);
	send_one(fd);
	await_asleep(3);
	kill(getppid(), SIGUSR1);
	await_asleep(4);
	while (got < LONG && (n = recv(fd, much, sizeof(much), 0)) > 0)
		got += n;
	await_asleep(5);
	shutdown(fd, SHUT_WR);
	await_asleep(6);
	usleep(20000000); /* it is killed, with bytes unread */
}

static void wait_with_few_entries(int fd)
{
	struct rlimit few = {limit, limit};
	struct sigaction ends = {.sa_handler = handler};
	struct timeval tv = {0, 2 * MOMENT_US}, none = {0, 0};
	ssize_t sent = 0, n = 1;
	sigaction(SIGUSR1, &ends, NULL);
	setrlimit(RLIMIT_NOFILE, &few);
	shared->stage = 1;
	receive_one(fd);
	shared->stage = 2;
	select_one("select", fd, 10000);
	receive_one(fd);
	select_one("select at once", fd, 0);
	select_one("select in vain", fd, 30);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	receive_one(fd);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	shared->stage = 3;
	receive_one(fd);
	shared->stage = 4;
	while (sent < LONG && n > 0)
		sent += n = send(fd, much, sizeof(much), 0);
	say_result("sent", sent);
	shared->stage = 5;
	receive_one(fd);
	select_one("select at the end", fd, 1000);
}

static void run(rlim_t entries)
{
	limit = entries;
	act(act_beside, wait_with_few_entries);
}

static void run_none(void) { run(0); }
static void run_one(void) { run(1); }

/* --- the other end dies while the call sleeps --- */

static void be_killed(int fd)
{
	(void)fd;
	await_asleep(1);
	raise(SIGKILL);
}

static void wait_for_death(int fd)
{
	struct rlimit few = {limit, limit};
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &few);
	shared->stage = 1;
	ssize_t n = 1;
	while (n > 0)
		n = send(fd, much, sizeof(much), 0);
	say("send failed: %d\n", errno == ECONNRESET || errno == EPIPE);
}

static void wait_for_death_in_receive(int fd)
{
	struct rlimit few = {limit, limit};
	(void)!send(fd, "unread", 6, 0);
	setrlimit(RLIMIT_NOFILE, &few);
	shared->stage = 1;
	receive_one(fd);
	receive_one(fd);
}

static void run_death_in_send(void) { act(be_killed, wait_for_death); }
static void run_death_in_receive(void) { act(be_killed, wait_for_death_in_receive); }

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"none", run_none},
		{"one", run_one},
		{"death-in-send", run_death_in_send},
		{"death-in-receive", run_death_in_receive},
		{0},
	};
	share();
	alarm(40);
	return act_out(all, argc, argv);
}

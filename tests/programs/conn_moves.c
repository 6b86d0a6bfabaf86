/* conn_moves.c - a socket whose bytes are to be read another way, or by nobody any more. */
#include "shared_page.h"

#include "passing.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

extern char **environ;
int close_range(unsigned first, unsigned last, int flags);
int execveat(int folder, const char *path, char *const argv[], char *const envp[], int flags);

/* --- closed by one thread while another one sleeps in a receive; the number is another
 * connection's next --- */

static int second_listener, second_port;

static void send_to_both(int fd)
{
	usleep(300 * 1000);
	int second = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(second, second_port);
	send(second, "to the second", 13, 0);
	usleep(300 * 1000);
	send(fd, "to the first", 12, 0);
	pause();
}

static void *receive_once(void *fd)
{
	char bytes[32] = "";
	ssize_t n = recv(*(int *)fd, bytes, sizeof(bytes) - 1, 0);
	say("begun on the first: %zd \"%s\"\n", n, bytes);
	return NULL;
}

static void close_under_a_receive(int fd)
{
	pthread_t receiver;
	int first = fd;
	char bytes[32] = "";
	pthread_create(&receiver, NULL, receive_once, &first);
	usleep(150 * 1000);
	int hole; /* the number to be given next is to be this one's */
	while ((hole = dup(STDERR_FILENO)) < fd)
		;
	close(hole);
	close(fd);
	int second = accept(second_listener, NULL, NULL);
	pthread_join(receiver, NULL);
	ssize_t n = recv(second, bytes, sizeof(bytes) - 1, 0);
	say("on the second, of %s number: %zd \"%s\"\n", second == first ? "the same" : "another", n, bytes);
}

static void closed(void)
{
	second_listener = listen_somewhere(&second_port);
	act(send_to_both, close_under_a_receive);
}

/* --- bytes lie unread in the ring when something else than our receives wants to read them;
 * the sender is busy elsewhere for a while --- */

static void send_twice(int fd)
{
	send(fd, "one\n", 4, 0);
	usleep(1300 * 1000);
	send(fd, "two\n", 4, 0);
	pause();
}

static void send_and_look(int fd)
{
	char byte;
	send(fd, "one\n", 4, 0);
	usleep(1300 * 1000);
	(void)!recv(fd, &byte, 1, MSG_DONTWAIT);
	pause();
}

static void say_line(FILE *from)
{
	char line[64];
	alarm(10);
	say("%s", fgets(line, sizeof(line), from) ? line : "no more\n");
}

static void read_as_stream(int fd)
{
	await_queued(fd, 4);
	FILE *stream = fdopen(fd, "r");
	say_line(stream);
	say_line(stream);
}

static void read_as_standard_input(int fd)
{
	await_queued(fd, 4);
	dup2(fd, STDIN_FILENO);
	say_line(stdin);
	say_line(stdin);
}

static void read_part_meanwhile(int fd)
{
	char bytes[3] = "";
	await_queued(fd, 4);
	dup2(fd, STDIN_FILENO);
	ssize_t n = recv(fd, bytes, 2, 0);
	say("%zd %s, then ", n, bytes);
	say_line(stdin);
	say_line(stdin);
}

static void read_all_meanwhile(int fd)
{
	char bytes[5] = "";
	await_queued(fd, 4);
	dup2(fd, STDIN_FILENO);
	ssize_t n = recv(fd, bytes, 4, MSG_PEEK);
	ssize_t m = recv(fd, bytes, 4, 0);
	say("%zd %zd %s", n, m, bytes);
	say_line(stdin);
}

/* Which of the two is told? */
static void wait_in_two_sets(int fd)
{
	char bytes[5] = "";
	struct epoll_event event = {.events = EPOLLIN};
	int first = epoll_create1(0), second = epoll_create1(0);
	await_queued(fd, 4);
	epoll_ctl(first, EPOLL_CTL_ADD, fd, &event);
	epoll_ctl(second, EPOLL_CTL_ADD, fd, &event);
	int in_second = epoll_wait(second, &event, 1, 3000);
	int in_first = epoll_wait(first, &event, 1, 3000);
	ssize_t n = recv(fd, bytes, 4, MSG_DONTWAIT);
	say("%d %d, %zd %s", in_second, in_first, n, bytes);
}

static void wait_in_a_nested_set(int fd)
{
	char bytes[5] = "";
	struct epoll_event event = {.events = EPOLLIN};
	int set = epoll_create1(0);
	await_queued(fd, 4);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	struct pollfd p = {.fd = set, .events = POLLIN};
	int ready = poll(&p, 1, 3000);
	ssize_t n = recv(fd, bytes, 4, MSG_DONTWAIT);
	say("%d, %zd %s", ready, n, bytes);
}

/* The programs are sent what lies in the ring while the peer looks at it. */
static void send_one_and_receive(int fd)
{
	char byte;
	send(fd, "one\n", 4, 0);
	(void)!recv(fd, &byte, 1, 0);
	send(fd, "two\n", 4, 0);
	pause();
}

static char *const line_reader[] = {"timeout", "3", "head", "-n1", NULL};

static void become_another_program(int fd)
{
	char command[64];
	int status;
	char *const argv[] = {"sh", "-c", command, NULL};
	snprintf(command, sizeof(command), "exec timeout 3 head -n1 <&%d", fd);
	await_queued(fd, 4);
	pid_t child = fork();
	if (child == 0) {
		execveat(AT_FDCWD, "/bin/sh", argv, environ, 0);
		_exit(9);
	}
	waitpid(child, &status, 0);
	say("it ended with %x\n", status);
}

/* File actions that name a number before the socket has it. */
enum { LATER_NUMBER = 60 };
static posix_spawn_file_actions_t older_actions;

static void spawn_with_older_actions(int fd)
{
	int status = -1;
	pid_t child;
	await_queued(fd, 4);
	dup3(fd, LATER_NUMBER, O_CLOEXEC);
	close(fd);
	int error = posix_spawnp(&child, "timeout", &older_actions, NULL, line_reader, environ);
	waitpid(child, &status, 0);
	say("%d, and it ended with %x\n", error, status);
}

/* By names that glibc has from 2.39 on. */
typedef int spawn_for_pidfd(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
			    char *const[], char *const[]);

static void spawn_by(const char *name, const char *program, int fd)
{
	int status = -1, pidfd = -1;
	posix_spawn_file_actions_t actions;
	spawn_for_pidfd *spawn = (spawn_for_pidfd *)dlsym(RTLD_DEFAULT, name);
	await_queued(fd, 4);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	int error = spawn ? spawn(&pidfd, program, &actions, NULL, line_reader, environ) : ENOSYS;
	siginfo_t info;
	if (error == 0 && waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0)
		status = info.si_status;
	say("%d, and it ended with %x\n", error, status);
}

static void spawn_for_a_pidfd(int fd)
{
	spawn_by("pidfd_spawn", "/usr/bin/timeout", fd);
}

static void spawn_for_a_pidfd_by_path(int fd)
{
	spawn_by("pidfd_spawnp", "timeout", fd);
}

/* With no other thread there is one table of descriptors still, and the library's are in it. */
static void leave_the_others_descriptors(int fd)
{
	char words[16] = "";
	struct timeval patience = {5, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)!recv(fd, words, 2, 0);
	int r = close_range((unsigned)fd + 1, ~0u, CLOSE_RANGE_UNSHARE);
	usleep(300 * 1000); /* the peer would take us for dead */
	(void)!recv(fd, words + 2, 2, MSG_DONTWAIT);
	send(fd, "x", 1, 0);
	ssize_t n = recv(fd, words + 4, 4, 0);
	say("%d, %zd: %s", r, n, words);
}

/* A refused dup3 leaves the socket what it was. */
static void duplicate_with_unknown_flags(int fd)
{
	char words[8] = "";
	await_queued(fd, 4);
	int other = open("/dev/null", O_RDONLY), r = dup3(other, fd, 0xff), error = errno;
	ssize_t n = recv(fd, words, 4, MSG_DONTWAIT);
	say("%d %s, %zd: %s", r, strerror(error), n, words);
}

static void close_with_unknown_flags(int fd)
{
	char words[8] = "";
	await_queued(fd, 4);
	int r = close_range((unsigned)fd, (unsigned)fd, 64), error = errno;
	ssize_t n = recv(fd, words, 4, MSG_DONTWAIT);
	say("%d %s, %zd: %s", r, strerror(error), n, words);
}

/* A thread takes a table of its own, and closes what it does not need of it. */
struct leaver {
	int fd, set, by_range;
};

static void *leave_and_close(void *argument)
{
	const struct leaver *leaver = argument;
	if ((leaver->by_range ? close_range(~0u, ~0u, CLOSE_RANGE_UNSHARE) : unshare(CLONE_FILES)) == -1)
		say("no table of its own: %s\n", strerror(errno));
	close(leaver->fd);
	close(leaver->set);
	return NULL;
}

static void go_on_beside_a_thread_that_leaves(int fd, int by_range)
{
	char words[16] = "";
	pthread_t thread;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 12345};
	struct timeval patience = {5, 0};
	struct leaver leaver = {.fd = fd, .set = epoll_create1(0), .by_range = by_range};
	epoll_ctl(leaver.set, EPOLL_CTL_ADD, fd, &event);
	await_queued(fd, 4);
	pthread_create(&thread, NULL, leave_and_close, &leaver);
	pthread_join(thread, NULL);
	event.data.u64 = 0;
	int ready = epoll_wait(leaver.set, &event, 1, 3000);
	ssize_t n = recv(fd, words, 4, MSG_DONTWAIT);
	say("%d of %d, %zd: %s", ready, (int)event.data.u64, n, words);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	send(fd, "x", 1, 0);
	ready = epoll_wait(leaver.set, &event, 1, 3000);
	n = recv(fd, words, 4, 0);
	say("%d of %d, %zd: %s", ready, (int)event.data.u64, n, words);
}

static void go_on_beside_an_unsharer(int fd)
{
	go_on_beside_a_thread_that_leaves(fd, 0);
}

static void go_on_beside_a_range_closer(int fd)
{
	go_on_beside_a_thread_that_leaves(fd, 1);
}

/* It has a number that the soft limit would not allow any more. */
static void duplicate_beyond_the_limit(int fd)
{
	enum { HIGH = 300, FEWER = 200 };
	char words[8] = "";
	struct rlimit limit;
	dup2(fd, HIGH);
	close(fd);
	await_queued(HIGH, 4);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = FEWER;
	setrlimit(RLIMIT_NOFILE, &limit);
	int r = dup2(STDERR_FILENO, HIGH), error = errno;
	ssize_t n = recv(HIGH, words, 4, MSG_DONTWAIT);
	say("%d %s, %zd: %s", r, strerror(error), n, words);
}

/* --- a copy of a higher number than the library's table has room for --- */

enum { ABOVE_THE_TABLE = (1 << 20) + 5 };

/* The copy, or -1: this user may not have such numbers. */
static int copy_above_the_table(int fd)
{
	struct rlimit limit;
	unsigned before = 0;
	FILE *file = fopen("/proc/sys/fs/nr_open", "r+");
	if (!file || fscanf(file, "%u", &before) != 1)
		return -1;
	if (before <= ABOVE_THE_TABLE) {
		rewind(file);
		fprintf(file, "%d\n", ABOVE_THE_TABLE + 64);
		fflush(file);
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = ABOVE_THE_TABLE + 1;
	if (limit.rlim_max < limit.rlim_cur)
		limit.rlim_max = limit.rlim_cur;
	int copy = setrlimit(RLIMIT_NOFILE, &limit) == -1 ? -1 : dup2(fd, ABOVE_THE_TABLE);
	if (before <= ABOVE_THE_TABLE) {
		rewind(file);
		fprintf(file, "%u\n", before);
	}
	fclose(file);
	return copy;
}

static void use_both_numbers(int fd)
{
	char words[8] = "";
	struct timeval patience = {3, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	await_queued(fd, 4);
	int copy = copy_above_the_table(fd);
	if (copy == -1) {
		say("no such number here: %s\n", strerror(errno));
		return;
	}
	ssize_t n = recv(copy, words, 4, 0);
	say("%zd: %s", n, words);
	send(fd, "one ", 4, 0);
	send(copy, "two ", 4, 0);
	send(fd, "three", 5, 0);
	(void)!recv(fd, words, 1, 0);
}

static void send_one_and_say_what_comes(int fd)
{
	char words[16] = "";
	send(fd, "one\n", 4, 0);
	(void)!recv(fd, words, 13, MSG_WAITALL);
	say("%s\n", words);
	send(fd, "x", 1, 0);
	pause();
}

/* A set, too. */
static void wait_by_both_numbers(int fd)
{
	char words[8] = "";
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 12345};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	await_queued(fd, 4);
	int copy = copy_above_the_table(set);
	if (copy == -1) {
		say("no such number here: %s\n", strerror(errno));
		return;
	}
	close(set);
	int ready = epoll_wait(copy, &event, 1, 3000);
	ssize_t n = recv(fd, words, 4, MSG_DONTWAIT);
	say("%d of %d, %zd: %s", ready, (int)event.data.u64, n, words);
}

static ssize_t sendmsg_by_number(int way, const struct msghdr *msg, int flags)
{
	return syscall(SYS_sendmsg, way, msg, flags);
}

static ssize_t sendmmsg_by_number(int way, const struct msghdr *msg, int flags)
{
	struct mmsghdr one = {.msg_hdr = *msg};
	return syscall(SYS_sendmmsg, way, &one, 1, flags);
}

static void pass_by_number(int fd, ssize_t (*call)(int, const struct msghdr *, int))
{
	int between[2], in_tcp = 0;
	await_queued(fd, 4);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, between) == -1)
		abort();
	ssize_t n = send_by(call, between[0], SCM_RIGHTS, fd);
	syscall(SYS_ioctl, fd, SIOCINQ, &in_tcp);
	say("%zd sent, and %d are for who takes it\n", n, in_tcp);
	(void)!recv(fd, &in_tcp, sizeof(in_tcp), 0);
}

static void pass_by_sendmsgs_number(int fd)
{
	pass_by_number(fd, sendmsg_by_number);
}

static void pass_by_sendmmsgs_number(int fd)
{
	pass_by_number(fd, sendmmsg_by_number);
}

#define WANTED_ELSEWHERE(name, client, server) \
	static void name(void)                 \
	{                                      \
		act(client, server);           \
	}
WANTED_ELSEWHERE(stream, send_twice, read_as_stream)
WANTED_ELSEWHERE(standard_input, send_twice, read_as_standard_input)
WANTED_ELSEWHERE(part_meanwhile, send_twice, read_part_meanwhile)
WANTED_ELSEWHERE(all_meanwhile, send_twice, read_all_meanwhile)
WANTED_ELSEWHERE(two_sets, send_and_look, wait_in_two_sets)
WANTED_ELSEWHERE(nested_set, send_and_look, wait_in_a_nested_set)
WANTED_ELSEWHERE(other_program, send_one_and_receive, become_another_program)
WANTED_ELSEWHERE(pidfd_spawned, send_one_and_receive, spawn_for_a_pidfd)
WANTED_ELSEWHERE(pidfd_spawned_by_path, send_one_and_receive, spawn_for_a_pidfd_by_path)
WANTED_ELSEWHERE(unshared_numbers, send_one_and_receive, leave_the_others_descriptors)
WANTED_ELSEWHERE(refused_copy, send_one_and_receive, duplicate_with_unknown_flags)
WANTED_ELSEWHERE(high_number, send_one_and_say_what_comes, use_both_numbers)
WANTED_ELSEWHERE(high_set, send_one_and_receive, wait_by_both_numbers)
WANTED_ELSEWHERE(thread_unshares, send_one_and_receive, go_on_beside_an_unsharer)
WANTED_ELSEWHERE(thread_unshares_a_range, send_one_and_receive, go_on_beside_a_range_closer)
WANTED_ELSEWHERE(passed_by_number, send_one_and_receive, pass_by_sendmsgs_number)
WANTED_ELSEWHERE(passed_among_several, send_one_and_receive, pass_by_sendmmsgs_number)
WANTED_ELSEWHERE(refused_range, send_one_and_receive, close_with_unknown_flags)
WANTED_ELSEWHERE(refused_by_the_limit, send_one_and_receive, duplicate_beyond_the_limit)

static void older_file_actions(void)
{
	posix_spawn_file_actions_init(&older_actions);
	posix_spawn_file_actions_adddup2(&older_actions, LATER_NUMBER, STDIN_FILENO);
	act(send_one_and_receive, spawn_with_older_actions);
}

/* --- the socket goes to another program, which sends no more but reads; the sender has been busy
 * elsewhere for so long that what it sent lies in the ring of a library that is gone --- */

static const char *myself;

static void become_one_who(const char *does, int fd)
{
	char number[16];
	snprintf(number, sizeof(number), "%d", fd);
	execl(myself, myself, does, number, NULL);
	abort();
}

static void become_one_who_reads(int fd)
{
	become_one_who("reads-to-the-end", fd);
}

static void hand_on(int fd)
{
	usleep(200 * 1000);
	become_one_who_reads(fd);
}

/* As inetd does. */
static void hand_on_as_input(int fd)
{
	usleep(200 * 1000);
	dup2(fd, STDIN_FILENO);
	close(fd);
	become_one_who_reads(STDIN_FILENO);
}

static int only_reads(int fd)
{
	char bytes[64];
	size_t got = 0;
	ssize_t n;
	while ((n = recv(fd, bytes + got, sizeof(bytes) - got, 0)) > 0)
		got += (size_t)n;
	say("another program got %.*s, then %s\n", (int)got, bytes, n == 0 ? "the end" : strerror(errno));
	return 0;
}

static int reads_to_the_end(int fd)
{
	send(fd, "bye", 3, 0);
	shutdown(fd, SHUT_WR);
	return only_reads(fd);
}

static void be_busy_for_long(int fd)
{
	char bytes[8];
	siginfo_t info;
	send(fd, "xyz", 3, 0);
	usleep(3500 * 1000);
	for (int i = 0; i < 2; i++) {
		ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
		say("%zd %s, ", n, n == -1 ? strerror(errno) : "bytes");
	}
	close(fd);
	waitid(P_ALL, 0, &info, WEXITED | WNOWAIT);
}

static void handed_on(void)
{
	act(hand_on, be_busy_for_long);
}

static void handed_on_as_input(void)
{
	act(hand_on_as_input, be_busy_for_long);
}

/* --- the sender becomes another program, too, which does not inherit its end --- */

static void hand_on_silently(int fd)
{
	usleep(200 * 1000);
	become_one_who("only-reads", fd);
}

static void be_busy_then_become_another(int fd)
{
	send(fd, "xyz", 3, 0);
	usleep(3500 * 1000);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	become_one_who("waits", fd);
}

static int waits(void)
{
	siginfo_t info;
	return waitid(P_ALL, 0, &info, WEXITED);
}

static void sender_becomes_another(void)
{
	act(hand_on_silently, be_busy_then_become_another);
}

/* --- one process goes on with the socket while its child hands it on, and waits for a busy peer --- */

static void send_then_be_busy(int fd)
{
	char bytes[1000] = "";
	send(fd, bytes, sizeof(bytes), 0);
	sleep(4);
}

/* A byte each time; how long the slowest took. */
static int64_t receive_now_and_then(int fd, int times, int *came)
{
	int64_t slowest = 0;
	for (int i = 0; i < times; i++) {
		char byte;
		int64_t before = now_ms();
		*came += recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
		int64_t took = now_ms() - before;
		slowest = took > slowest ? took : slowest;
		usleep(10 * 1000);
	}
	return slowest;
}

static void receive_beside_an_exec(int fd)
{
	enum { TIMES = 50, SOON_MS = 500 };
	int came = 0;
	await_queued(fd, 1000);
	pid_t child = fork();
	if (child == 0) {
		execle("/bin/true", "true", NULL, (char *[]){NULL});
		_exit(9);
	}
	int64_t slowest = receive_now_and_then(fd, TIMES, &came);
	waitpid(child, NULL, 0);
	fprintf(stderr, "%d came, the slowest in %d ms\n", came, (int)slowest);
	say("%s came, each %s\n", came ? "some" : "none", slowest < SOON_MS ? "at once" : "late");
}

static void beside_an_exec(void)
{
	act(send_then_be_busy, receive_beside_an_exec);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"closed", closed},
		{"stream", stream},
		{"standard-input", standard_input},
		{"part-meanwhile", part_meanwhile},
		{"all-meanwhile", all_meanwhile},
		{"two-sets", two_sets},
		{"nested-set", nested_set},
		{"other-program", other_program},
		{"older-file-actions", older_file_actions},
		{"pidfd-spawned", pidfd_spawned},
		{"pidfd-spawned-by-path", pidfd_spawned_by_path},
		{"unshared-numbers", unshared_numbers},
		{"refused-copy", refused_copy},
		{"high-number", high_number},
		{"high-set", high_set},
		{"thread-unshares", thread_unshares},
		{"thread-unshares-a-range", thread_unshares_a_range},
		{"passed-by-number", passed_by_number},
		{"passed-among-several", passed_among_several},
		{"refused-range", refused_range},
		{"refused-by-the-limit", refused_by_the_limit},
		{"handed-on", handed_on},
		{"handed-on-as-input", handed_on_as_input},
		{"sender-becomes-another", sender_becomes_another},
		{"beside-an-exec", beside_an_exec},
		{NULL, NULL},
	};
	myself = argv[0];
	if (argc == 3 && strcmp(argv[1], "reads-to-the-end") == 0)
		return reads_to_the_end(atoi(argv[2]));
	if (argc == 3 && strcmp(argv[1], "only-reads") == 0)
		return only_reads(atoi(argv[2]));
	if (argc == 3 && strcmp(argv[1], "waits") == 0)
		return waits();
	return act_out(scenarios, argc, argv);
}

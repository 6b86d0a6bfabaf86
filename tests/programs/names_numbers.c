/* names_numbers.c - descriptors that the C library closes, replaces, reads or hands on past
 * whoever interposes its public names. */
#define _GNU_SOURCE
#include "two_ends.h"

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <sys/resource.h>
#include <utmp.h>

static int out = 1; /* where to say something once 1 is something else */

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	(void)!syscall(SYS_write, out, text, (size_t)n);
}

static const char *word(ssize_t r)
{
	return r < 0 ? strerror(errno) : "";
}

static void wait_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&t, NULL);
}

static void wait_for_the_end(int fd)
{
	char buffer[4096];
	while (recv(fd, buffer, sizeof(buffer), 0) > 0)
		;
}

static void receive_and_tell(int fd)
{
	char words[128] = {0};
	size_t n = 0;
	ssize_t r;
	while (n < sizeof(words) - 1 && (r = recv(fd, words + n, sizeof(words) - 1 - n, 0)) > 0)
		n += (size_t)r;
	tell("it got \"%s\"\n", words);
}

/* --- a FILE whose number becomes the socket's --- */

static void write_by_both(int fd)
{
	FILE *file = fopen("/dev/null", "w");
	dup2(fd, fileno(file));
	for (int i = 1; i < 9; i += 3) {
		char first = (char)('0' + i), last = (char)('2' + i);
		send(fd, &first, 1, 0);
		fprintf(file, "%d", i + 1);
		fflush(file);
		send(fd, &last, 1, 0);
	}
	shutdown(fd, SHUT_WR);
	wait_for_the_end(fd);
}

static void file_becomes_the_socket(void)
{
	act(write_by_both, receive_and_tell);
}

/* Says a line, is busy for longer than the library waits, says another. */
static void be_busy_between_lines(int fd)
{
	send(fd, "one\n", 4, 0);
	wait_ms(1300);
	send(fd, "two\n", 4, 0);
	wait_for_the_end(fd);
}

static void read_lines(int fd)
{
	char one[16] = {0}, two[16] = {0};
	wait_ms(100);
	FILE *file = fdopen(fd, "r");
	(void)!fgets(one, sizeof(one), file);
	(void)!fgets(two, sizeof(two), file);
	tell("%s%s", one, two);
	fclose(file);
}

static void fdopen_with_a_busy_peer(void)
{
	act(be_busy_between_lines, read_lines);
}

/* --- a number closed past us, then the last one --- */

static void send_until_it_fails(int fd)
{
	static char much[65536];
	struct timeval limit = {.tv_sec = 1};
	ssize_t n;
	size_t sum = 0;
	signal(SIGPIPE, SIG_IGN);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	wait_ms(300);
	while ((n = send(fd, much, sizeof(much), 0)) > 0 && sum < (8u << 20)) {
		sum += (size_t)n;
		wait_ms(1);
	}
	int error = errno;
	tell("sending ended with %s\n", error == EPIPE || error == ECONNRESET ? "a reset" : strerror(error));
}

static int told[2];

static void send_and_tell(int fd)
{
	send_until_it_fails(fd);
	(void)!write(told[1], "!", 1);
}

static void close_by_system_call(int fd)
{
	char byte;
	int copy = dup(fd);
	syscall(SYS_close, copy);
	close(fd);
	(void)!read(told[0], &byte, 1);
}

static void close_by_fclose(int fd)
{
	char byte;
	FILE *file = fopen("/dev/null", "r");
	dup2(fd, fileno(file));
	fclose(file);
	close(fd);
	(void)!read(told[0], &byte, 1);
}

static void last_but_one_closed_by_system_call(void)
{
	(void)!pipe(told);
	act(send_and_tell, close_by_system_call);
}

static void last_but_one_closed_by_fclose(void)
{
	(void)!pipe(told);
	act(send_and_tell, close_by_fclose);
}

/* --- standard numbers replaced --- */

static void reopen(int fd)
{
	out = dup(1);
	dup2(fd, 1);
	if (!freopen("/dev/null", "w", stdout))
		tell("freopen: %s\n", strerror(errno));
	ssize_t n = write(1, "log\n", 4);
	tell("a write after freopen: %zd %s\n", n, word(n));
	close(fd);
}

static void freopen_replaces_it(void)
{
	act(wait_for_the_end, reopen);
}

/* The client does it: it is nobody's parent. */
static void become_a_daemon(int fd)
{
	out = dup(1);
	dup2(fd, 2);
	int r = daemon(1, 0);
	ssize_t n = write(2, "x", 1);
	tell("daemon: %d; a write after it: %zd %s\n", r, n, word(n));
	send(fd, "done", 4, 0);
	close(fd);
	_exit(0);
}

static void daemon_replaces_it(void)
{
	act(become_a_daemon, receive_and_tell);
}

static void log_in(int fd)
{
	int master;
	out = dup(1);
	dup2(fd, 1);
	pid_t child = forkpty(&master, NULL, NULL, NULL);
	if (child == 0) {
		ssize_t n = write(1, "in\n", 3);
		tell("a write in forkpty's child: %zd %s\n", n, word(n));
		_exit(0);
	}
	char line[16] = {0};
	ssize_t n = read(master, line, sizeof(line));
	waitpid(child, NULL, 0);
	tell("its terminal: %zd\n", n);
	close(fd);
}

static void forkpty_replaces_it(void)
{
	act(wait_for_the_end, log_in);
}

static void log_in_with_the_socket(int fd)
{
	int master, slave;
	out = dup(1);
	pid_t child = fork();
	if (child == 0) {
		openpty(&master, &slave, NULL, NULL, NULL);
		dup2(fd, 1);
		int r = login_tty(slave);
		ssize_t n = write(1, "in\n", 3);
		tell("login_tty: %d; a write after it: %zd %s\n", r, n, word(n));
		_exit(0);
	}
	waitpid(child, NULL, 0);
	close(fd);
}

static void login_tty_replaces_it(void)
{
	act(wait_for_the_end, log_in_with_the_socket);
}

/* --- asynchronous I/O --- */

static void answer(int fd)
{
	char words[16] = {0};
	send(fd, "hello", 5, 0);
	recv(fd, words, 5, MSG_WAITALL);
	send(fd, strcmp(words, "reply") == 0 ? "again" : "wrong", 5, 0);
	recv(fd, words, 5, MSG_WAITALL);
	send(fd, strcmp(words, "reply") == 0 ? "right" : "wrong", 5, 0);
}

static void complete(const char *what, struct aiocb *block)
{
	const struct aiocb *list[1] = {block};
	struct timespec limit = {3, 0};
	int r = aio_suspend(list, 1, &limit);
	int error = aio_error(block);
	tell("%s: %d, %s, %zd\n", what, r, strerror(error), error ? -1 : aio_return(block));
}

static void work_asynchronously(int fd)
{
	char got[16] = {0}, mine[] = "reply";
	struct aiocb in = {.aio_fildes = fd, .aio_buf = got, .aio_nbytes = 5};
	struct aiocb from = {.aio_fildes = fd, .aio_buf = mine, .aio_nbytes = 5};
	wait_ms(100);
	aio_read(&in);
	complete("aio_read", &in);
	tell("\"%s\"\n", got);
	aio_write(&from);
	complete("aio_write", &from);
	in.aio_lio_opcode = LIO_READ;
	from.aio_lio_opcode = LIO_WRITE;
	struct aiocb *both[2] = {&in, &from};
	int r = lio_listio(LIO_WAIT, both, 2, NULL);
	tell("lio_listio: %d, \"%s\"\n", r, got);
	receive_and_tell(fd);
}

static void asynchronous(void)
{
	act(answer, work_asynchronously);
}

static void *list_both(void *fd)
{
	char got[16] = {0}, mine[] = "reply";
	struct aiocb in = {.aio_fildes = *(int *)fd, .aio_buf = got, .aio_nbytes = 5, .aio_lio_opcode = LIO_READ};
	struct aiocb from = {.aio_fildes = *(int *)fd, .aio_buf = mine, .aio_nbytes = 5, .aio_lio_opcode = LIO_WRITE};
	struct aiocb *both[2] = {&in, &from};
	int r = lio_listio(LIO_NOWAIT, both, 2, NULL);
	complete("read", &in);
	complete("written", &from);
	tell("lio_listio: %d, \"%s\"\n", r, got);
	return NULL;
}

static void list_asynchronously(int fd)
{
	char mine[] = "reply";
	list_both(&fd);
	send(fd, mine, 5, 0);
	receive_and_tell(fd);
}

static void asynchronous_list(void)
{
	act(answer, list_asynchronously);
}

/* --- threads cancelled while they wait --- */

static int count_descriptors(void)
{
	int n = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

static void *receive_one(void *fd)
{
	char byte;
	recv(*(int *)fd, &byte, 1, 0);
	return NULL;
}

static void cancel_in_receive(int fd)
{
	pthread_t thread;
	pthread_create(&thread, NULL, receive_one, &fd);
	wait_ms(30);
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	close(fd);
}

static void cancelled_in_receive(void)
{
	int before = count_descriptors();
	for (int i = 0; i < 6; i++)
		act(wait_for_the_end, cancel_in_receive);
	/* One may be the library's own, to its broker. */
	tell("descriptors left behind: %s\n", count_descriptors() > before + 2 ? "many" : "none");
}

/* --- processes that leave without exit --- */

static void count_wakeups(int fd, const char *who)
{
	char byte;
	struct rusage before, after;
	struct timeval limit = {.tv_usec = 500000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	getrusage(RUSAGE_SELF, &before);
	recv(fd, &byte, 1, 0);
	getrusage(RUSAGE_SELF, &after);
	tell("%s wakes up %s\n", who, after.ru_nvcsw - before.ru_nvcsw > 25 ? "often" : "seldom");
}

static void let_a_child_quit(int fd)
{
	pid_t child = fork();
	if (child == 0)
		quick_exit(0);
	waitpid(child, NULL, 0);
	count_wakeups(fd, "the parent");
}

static void quick_exit_lets_go(void)
{
	act(wait_for_the_end, let_a_child_quit);
}

static void sleep_as_a_daemon(int fd)
{
	daemon(1, 1);
	wait_ms(100);
	count_wakeups(fd, "the daemon");
	_exit(0);
}

static void daemon_lets_go(void)
{
	act(sleep_as_a_daemon, wait_for_the_end);
}

/* --- the limit of descriptors, which the library raises for moments --- */

static volatile int over;

static void close_it(int fd)
{
	close(fd);
}

static int is_ours(const struct rlimit *limit)
{
	return limit->rlim_cur == 200 || limit->rlim_cur == 201;
}

static void look_at_the_limit(int fd)
{
	struct rlimit seen;
	getrlimit(RLIMIT_NOFILE, &seen);
	if (!is_ours(&seen))
		tell("a child's limit: %lu\n", (unsigned long)seen.rlim_cur);
	wait_for_the_end(fd);
}

static void *connect_again_and_again(void *unused)
{
	(void)unused;
	while (!over)
		act(look_at_the_limit, close_it);
	return NULL;
}

static void limit_stays(void)
{
	struct rlimit limit, seen;
	pthread_t thread;
	int wrong = 0;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 200;
	setrlimit(RLIMIT_NOFILE, &limit);
	pthread_create(&thread, NULL, connect_again_and_again, NULL);
	for (int64_t end = now_ms() + 1000; now_ms() < end;) {
		limit.rlim_cur = limit.rlim_cur == 200 ? 201 : 200;
		setrlimit(RLIMIT_NOFILE, &limit);
		for (int i = 0; i < 50; i++) {
			getrlimit(RLIMIT_NOFILE, &seen);
			wrong += seen.rlim_cur != limit.rlim_cur;
		}
	}
	over = 1;
	pthread_join(thread, NULL);
	tell("limits that were not the program's: %s\n", wrong ? "some" : "none");
}

static void accept_without_a_length(int fd)
{
	struct sockaddr_in from;
	int port, listener = listen_somewhere(&port), other = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(other, port);
	int r = accept(listener, (struct sockaddr *)&from, NULL);
	tell("an address without a length: %s\n", r == -1 ? strerror(errno) : "accepted");
	close(fd);
}

static void accepted_without_a_length(void)
{
	act(wait_for_the_end, accept_without_a_length);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"file_becomes_the_socket", file_becomes_the_socket},
		{"fdopen_with_a_busy_peer", fdopen_with_a_busy_peer},
		{"last_but_one_closed_by_system_call", last_but_one_closed_by_system_call},
		{"last_but_one_closed_by_fclose", last_but_one_closed_by_fclose},
		{"freopen_replaces_it", freopen_replaces_it},
		{"daemon_replaces_it", daemon_replaces_it},
		{"forkpty_replaces_it", forkpty_replaces_it},
		{"login_tty_replaces_it", login_tty_replaces_it},
		{"asynchronous", asynchronous},
		{"asynchronous_list", asynchronous_list},
		{"cancelled_in_receive", cancelled_in_receive},
		{"quick_exit_lets_go", quick_exit_lets_go},
		{"daemon_lets_go", daemon_lets_go},
		{"limit_stays", limit_stays},
		{"accepted_without_a_length", accepted_without_a_length},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}

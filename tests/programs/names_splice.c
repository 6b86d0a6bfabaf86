/* names_splice.c - splice between a socket and a pipe, and sendfile from what is no file. */
#define _GNU_SOURCE
#include "two_ends.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { MUCH = 1 << 20 };
static uint8_t much[MUCH], taken[MUCH];

static void fill(void)
{
	for (size_t i = 0; i < MUCH; i++)
		much[i] = (uint8_t)(i * 7 + (i >> 8));
}

static void wait_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&t, NULL);
}

static void tell(const char *what, ssize_t r)
{
	int error = r < 0 ? errno : 0;
	say("%s: %zd %s\n", what, r, error ? strerror(error) : "");
}

static void send_much(int fd)
{
	char byte;
	fill();
	for (size_t sent = 0; sent < MUCH;) {
		ssize_t n = send(fd, much + sent, MUCH - sent, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		sent += (size_t)n;
	}
	recv(fd, &byte, 1, 0);
}

static void receive_to_the_end(int fd)
{
	static char buffer[65536];
	size_t sum = 0;
	ssize_t n;
	uint64_t order = 0;
	while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0)
		for (ssize_t i = 0; i < n; i++, sum++)
			order = order * 31 + (uint8_t)buffer[i];
	say("the other end got %zu bytes, %016llx\n", sum, (unsigned long long)order);
}

static void end(int fd)
{
	char byte;
	shutdown(fd, SHUT_WR);
	recv(fd, &byte, 1, 0);
}

/* A pipe that takes no more. */
static void full_pipe(int p[2])
{
	static char page[4096];
	(void)!pipe(p);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	while (write(p[1], page, sizeof(page)) > 0)
		;
	fcntl(p[1], F_SETFL, 0);
}

/* --- from the socket into a pipe --- */

static void splice_until_full(int fd)
{
	int p[2], rounds = 0;
	ssize_t n;
	(void)!pipe(p);
	wait_ms(100);
	do
		n = splice(fd, NULL, p[1], NULL, MUCH, SPLICE_F_NONBLOCK);
	while (n > 0 && ++rounds < 1000);
	tell("into a pipe that got full", n);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	tell("the pipe's O_NONBLOCK", splice(fd, NULL, p[1], NULL, MUCH, 0));
	while ((n = read(p[0], taken, sizeof(taken))) == (ssize_t)sizeof(taken))
		;
	n = splice(fd, NULL, p[1], NULL, MUCH, SPLICE_F_NONBLOCK);
	say("once it is empty: %s\n", n > 0 && n <= 65536 ? "some" : "wrong");
}

static void into_a_full_pipe(void)
{
	act(send_much, splice_until_full);
}

static void splice_all(int fd)
{
	int p[2];
	size_t sum = 0;
	fill();
	(void)!pipe(p);
	wait_ms(100);
	while (sum < MUCH) {
		ssize_t n = splice(fd, NULL, p[1], NULL, MUCH, SPLICE_F_MOVE);
		if (n <= 0 || n > 65536)
			break;
		for (ssize_t got = 0; got < n;)
			got += read(p[0], taken + sum + got, (size_t)(n - got));
		sum += (size_t)n;
	}
	say("%zu bytes, %s\n", sum, memcmp(much, taken, MUCH) ? "wrong" : "in order");
}

static void more_than_a_pipe_holds(void)
{
	act(send_much, splice_all);
}

static void speak_late(int fd)
{
	char byte;
	wait_ms(200);
	send(fd, "hello", 5, 0);
	recv(fd, &byte, 1, 0);
}

static void wait_for_the_socket(int fd)
{
	int p[2];
	(void)!pipe(p);
	tell("a pipe that need not wait", splice(fd, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	tell("the same again, of a socket that does not wait",
	     (fcntl(fd, F_SETFL, O_NONBLOCK), splice(fd, NULL, p[1], NULL, 100, 0)));
	signal(SIGPIPE, SIG_IGN);
	close(p[0]);
	fcntl(fd, F_SETFL, 0);
	tell("nobody reads the pipe", splice(fd, NULL, p[1], NULL, 100, 0));
}

static void waits_for_the_socket(void)
{
	act(speak_late, wait_for_the_socket);
}

static int sockets_pipe[2];

static void *splice_in_a_thread(void *fd)
{
	splice(*(int *)fd, NULL, sockets_pipe[1], NULL, 65536, 0);
	return NULL;
}

static void send_a_little(int fd)
{
	send(fd, taken, 1000, 0);
	wait_ms(5000);
}

static void exit_meanwhile(int fd)
{
	pthread_t thread;
	full_pipe(sockets_pipe);
	pthread_create(&thread, NULL, splice_in_a_thread, &fd);
	wait_ms(200);
	say("exit\n");
	exit(0);
}

static void exit_while_a_pipe_is_full(void)
{
	act(send_a_little, exit_meanwhile);
}

/* --- from a pipe to the socket --- */

static void splice_from_an_empty_pipe(int fd)
{
	int p[2];
	(void)!pipe(p);
	tell("from an empty pipe", splice(p[0], NULL, fd, NULL, 1000, SPLICE_F_NONBLOCK));
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	tell("the pipe's O_NONBLOCK", splice(p[0], NULL, fd, NULL, 1000, 0));
	(void)!write(p[1], "abc", 3);
	tell("from a pipe with three bytes", splice(p[0], NULL, fd, NULL, 1000, 0));
	close(p[1]);
	tell("from a pipe at its end", splice(p[0], NULL, fd, NULL, 1000, 0));
	end(fd);
}

static void from_an_empty_pipe(void)
{
	act(splice_from_an_empty_pipe, receive_to_the_end);
}

static void splice_a_full_pipe(int fd)
{
	int p[2];
	full_pipe(p);
	tell("from a full pipe", splice(p[0], NULL, fd, NULL, MUCH, SPLICE_F_NONBLOCK));
	end(fd);
}

static void from_a_full_pipe(void)
{
	act(splice_a_full_pipe, receive_to_the_end);
}

static void *splice_from_a_pipe(void *fd)
{
	tell("the thread", splice(sockets_pipe[0], NULL, *(int *)fd, NULL, 1000, 0));
	return NULL;
}

static void send_beside_a_splice(int fd)
{
	pthread_t thread;
	(void)!pipe(sockets_pipe);
	pthread_create(&thread, NULL, splice_from_a_pipe, &fd);
	wait_ms(200);
	tell("a send beside it", send(fd, "x", 1, MSG_DONTWAIT));
	(void)!write(sockets_pipe[1], "abc", 3);
	pthread_join(thread, NULL);
	end(fd);
}

static void beside_a_splice_that_waits(void)
{
	act(send_beside_a_splice, receive_to_the_end);
}

static void splice_into_a_full_socket(int fd)
{
	int p[2];
	ssize_t n;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (send(fd, much, MUCH, 0) > 0)
		;
	wait_ms(100);
	while (send(fd, much, MUCH, 0) > 0)
		;
	full_pipe(p);
	n = splice(p[0], NULL, fd, NULL, 65536, 0);
	tell("into a full socket", n);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	while (read(p[0], taken, sizeof(taken)) > 0)
		;
	tell("an empty pipe into a full socket", splice(p[0], NULL, fd, NULL, 1, 0));
}

static void sleep_long(int fd)
{
	(void)fd;
	wait_ms(5000);
}

static void into_a_full_socket(void)
{
	act(sleep_long, splice_into_a_full_socket);
}

/* --- pipes that keep packets apart --- */

static int packets_by_the_writer_only;

static void splice_parts_of_packets(int fd)
{
	int p[2];
	fill();
	(void)!pipe2(p, packets_by_the_writer_only ? 0 : O_DIRECT);
	fcntl(p[1], F_SETFL, O_DIRECT);
	(void)!write(p[1], much, 1000);
	(void)!write(p[1], much + 1000, 500);
	tell("part of a packet", splice(p[0], NULL, fd, NULL, 100, 0));
	tell("more of it", splice(p[0], NULL, fd, NULL, 200, SPLICE_F_NONBLOCK));
	tell("the rest, and the next", splice(p[0], NULL, fd, NULL, 5000, SPLICE_F_NONBLOCK));
	tell("nothing", splice(p[0], NULL, fd, NULL, 5000, SPLICE_F_NONBLOCK));
	end(fd);
}

static void from_a_pipe_of_packets(void)
{
	act(splice_parts_of_packets, receive_to_the_end);
}

static void from_a_pipe_whose_writer_makes_packets(void)
{
	packets_by_the_writer_only = 1;
	act(splice_parts_of_packets, receive_to_the_end);
}

static void splice_from_a_fifo_open_for_both(int fd)
{
	char name[64];
	snprintf(name, sizeof(name), "/tmp/names_splice.%d", getpid());
	mkfifo(name, 0600);
	int both = open(name, O_RDWR | O_NONBLOCK);
	unlink(name);
	fill();
	fcntl(both, F_SETFL, O_DIRECT | O_NONBLOCK);
	(void)!write(both, much, 1000);
	send(fd, "before", 6, 0);
	tell("part of a packet", splice(both, NULL, fd, NULL, 100, 0));
	tell("the rest", splice(both, NULL, fd, NULL, 5000, 0));
	tell("nothing", splice(both, NULL, fd, NULL, 5000, 0));
	send(fd, "after", 5, 0);
	end(fd);
}

static void from_a_fifo_that_is_open_for_both(void)
{
	act(splice_from_a_fifo_open_for_both, receive_to_the_end);
}

static void send_a_thousand(int fd)
{
	char byte;
	fill();
	send(fd, much, 1000, 0);
	recv(fd, &byte, 1, 0);
	end(fd);
}

static void splice_into_packets(int fd)
{
	int p[2];
	fill();
	(void)!pipe2(p, O_DIRECT);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	while (recv(fd, taken, 1000, MSG_PEEK) < 1000)
		;
	tell("into a pipe", splice(fd, NULL, p[1], NULL, 600, 0));
	tell("and the rest", splice(fd, NULL, p[1], NULL, 1000, 0));
	tell("a few", read(p[0], taken, 10));
	tell("all others", read(p[0], taken + 10, 2000));
	tell("nothing", read(p[0], taken + 1000, 2000));
	say("%s\n", memcmp(much, taken, 1000) ? "wrong" : "in order");
	for (int n = 0; n < 16; n++)
		(void)!write(p[1], "p", 1);
	tell("into a full pipe", splice(fd, NULL, p[1], NULL, 600, SPLICE_F_NONBLOCK));
	while (read(p[0], taken, 1) == 1)
		;
	send(fd, "x", 1, 0);
	tell("the stream's end", splice(fd, NULL, p[1], NULL, 1000, 0));
}

static void into_a_pipe_of_packets(void)
{
	act(send_a_thousand, splice_into_packets);
}

static void splice_much_into_packets(int fd)
{
	int p[2];
	size_t sum = 0;
	fill();
	(void)!pipe2(p, O_DIRECT);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	wait_ms(100);
	while (sum < MUCH) {
		ssize_t n = splice(fd, NULL, p[1], NULL, MUCH - sum, 0);
		if (n <= 0)
			break;
		for (ssize_t got = 0; got < n;) {
			ssize_t r = read(p[0], taken + sum + got, 999);
			if (r <= 0) {
				tell("read", r);
				return;
			}
			got += r;
		}
		sum += (size_t)n;
	}
	say("%zu bytes, %s\n", sum, memcmp(much, taken, MUCH) ? "wrong" : "in order");
}

static void much_into_a_pipe_of_packets(void)
{
	act(send_much, splice_much_into_packets);
}

/* --- interrupted --- */

static int pipe_of_the_handler = -1;

static void on_alarm(int number)
{
	(void)number;
	if (pipe_of_the_handler >= 0)
		(void)!syscall(SYS_write, pipe_of_the_handler, "late", 4);
}

static void alarm_at(int ms, int flags)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
	struct itimerspec when = {.it_value = {0, ms * 1000000L}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	timer_t timer;
	sigaction(SIGALRM, &action, NULL);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &when, NULL);
}

static void splice_with_alarms(int fd)
{
	int p[2];
	(void)!pipe(p);
	alarm_at(100, 0);
	tell("interrupted", splice(p[0], NULL, fd, NULL, 1000, 0));
	pipe_of_the_handler = p[1];
	alarm_at(100, SA_RESTART);
	tell("begun anew", splice(p[0], NULL, fd, NULL, 1000, 0));
	end(fd);
}

static void interrupted(void)
{
	act(splice_with_alarms, receive_to_the_end);
}

/* --- what is no splice --- */

static void ask_for_the_impossible(int fd)
{
	int p[2], file = open("/etc/passwd", O_RDONLY);
	off64_t offset = 0;
	off_t place = 0;
	(void)!pipe(p);
	(void)!write(p[1], "abc", 3);
	tell("from a file", splice(file, NULL, fd, NULL, 10, 0));
	tell("from a pipe's other end", splice(p[1], NULL, fd, NULL, 10, 0));
	tell("into a pipe's other end", splice(fd, NULL, p[0], NULL, 10, 0));
	tell("with a pipe's offset", splice(p[0], &offset, fd, NULL, 10, 0));
	tell("with a socket's offset", splice(p[0], NULL, fd, &offset, 10, 0));
	tell("with unknown flags", splice(p[0], NULL, fd, NULL, 10, 0x100));
	tell("of no bytes", splice(p[0], NULL, fd, NULL, 0, 0));
	tell("sendfile from a pipe", sendfile(fd, p[0], NULL, 10));
	tell("sendfile from a pipe, at an offset", sendfile(fd, p[0], &place, 10));
	tell("sendfile from the socket itself", sendfile(fd, fd, NULL, 10));
	tell("sendfile from nothing", sendfile(fd, -1, NULL, 10));
	end(fd);
}

static void impossible(void)
{
	act(ask_for_the_impossible, receive_to_the_end);
}

/* --- sendfile --- */

static void send_zeros_between(int fd)
{
	int zeros = open("/dev/zero", O_RDONLY);
	send(fd, "before", 6, 0);
	tell("from a device", sendfile(fd, zeros, NULL, 1000));
	send(fd, "after", 5, 0);
	end(fd);
}

static void sendfile_from_a_device(void)
{
	act(send_zeros_between, receive_to_the_end);
}

static void say_hello(int fd)
{
	char byte;
	send(fd, "hello", 5, 0);
	recv(fd, &byte, 1, 0);
}

static void sendfile_into_a_pipe(int fd)
{
	int p[2];
	char words[16] = {0};
	(void)!pipe(p);
	ssize_t n = sendfile(p[1], fd, NULL, 100);
	tell("from the socket", n);
	if (n > 0)
		(void)!read(p[0], words, sizeof(words));
	say("\"%s\"\n", words);
}

static void sendfile_to_a_pipe(void)
{
	act(say_hello, sendfile_into_a_pipe);
}

static void send_urgent(int fd)
{
	send(fd, "x", 1, MSG_OOB);
	pause();
}

/* Urgent data end a splice, however little came before them. */
static void splice_up_to_urgent_data(int fd)
{
	int p[2], mark = 0;
	(void)!pipe(p);
	for (int64_t end = now_ms() + 5000; !mark && now_ms() < end; usleep(1000))
		ioctl(fd, SIOCATMARK, &mark);
	int64_t since = now_ms();
	tell("at the mark", splice(fd, NULL, p[1], NULL, 100, 0));
	say("%s\n", now_ms() - since < 2000 ? "in time" : "late");
}

static void urgent_data(void)
{
	alarm(10);
	act(send_urgent, splice_up_to_urgent_data);
}

/* --- nothing, which needs no room --- */

static void splice_nothing_into_a_full_socket(int fd)
{
	char path[] = "/tmp/nothing-XXXXXX";
	int p[2], file = mkstemp(path);
	off_t behind = 5;
	unlink(path);
	(void)!pipe(p);
	close(p[1]);
	fill();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int64_t since = now_ms(); now_ms() - since < 300;)
		if (send(fd, much, MUCH, 0) > 0 || send(fd, much, 1, 0) > 0)
			since = now_ms();
	tell("no byte more", send(fd, much, 1, 0));
	fcntl(fd, F_SETFL, 0);
	tell("an empty file", sendfile(fd, file, NULL, MUCH));
	tell("behind its end", sendfile(fd, file, &behind, MUCH));
	tell("a pipe without a writer", splice(p[0], NULL, fd, NULL, MUCH, 0));
}

static void nothing_into_a_full_socket(void)
{
	alarm(10);
	act(sleep_long, splice_nothing_into_a_full_socket);
}

/* --- a file that is read past the page cache: into aligned memory only --- */

static void sendfile_from_a_direct_file(int fd)
{
	char path[] = "/var/tmp/direct-XXXXXX";
	int file = mkstemp(path), direct = open(path, O_RDONLY | O_DIRECT);
	off_t offset = 0;
	unlink(path);
	fill();
	(void)!write(file, much, 65536);
	tell("opened", direct == -1 ? -1 : 0);
	send(fd, much, 3, 0);
	tell("from the start", sendfile(fd, direct, &offset, 8192));
	tell("from where it stands", sendfile(fd, direct, NULL, MUCH));
	tell("at its end", sendfile(fd, direct, NULL, MUCH));
	tell("and then", send(fd, much, 3, 0));
	end(fd);
}

static void sendfile_with_o_direct(void)
{
	act(receive_to_the_end, sendfile_from_a_direct_file);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"into_a_full_pipe", into_a_full_pipe},
		{"more_than_a_pipe_holds", more_than_a_pipe_holds},
		{"waits_for_the_socket", waits_for_the_socket},
		{"exit_while_a_pipe_is_full", exit_while_a_pipe_is_full},
		{"from_an_empty_pipe", from_an_empty_pipe},
		{"from_a_full_pipe", from_a_full_pipe},
		{"beside_a_splice_that_waits", beside_a_splice_that_waits},
		{"into_a_full_socket", into_a_full_socket},
		{"from_a_pipe_of_packets", from_a_pipe_of_packets},
		{"from_a_pipe_whose_writer_makes_packets", from_a_pipe_whose_writer_makes_packets},
		{"from_a_fifo_that_is_open_for_both", from_a_fifo_that_is_open_for_both},
		{"into_a_pipe_of_packets", into_a_pipe_of_packets},
		{"much_into_a_pipe_of_packets", much_into_a_pipe_of_packets},
		{"interrupted", interrupted},
		{"impossible", impossible},
		{"sendfile_from_a_device", sendfile_from_a_device},
		{"sendfile_to_a_pipe", sendfile_to_a_pipe},
		{"urgent_data", urgent_data},
		{"nothing_into_a_full_socket", nothing_into_a_full_socket},
		{"sendfile_with_o_direct", sendfile_with_o_direct},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}

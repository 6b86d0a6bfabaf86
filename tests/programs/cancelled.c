/* cancelled.c - threads that are cancelled in calls on a connection. */
#include "shared_page.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>

/* A call in a thread with a cancellation pending, which acts from then on. */
static void *make_while_cancelled(void *argument)
{
	struct call *call = argument;
	int state;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cancel(pthread_self());
	call->make(call);
	call->over = 1;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	pthread_testcancel();
	return NULL;
}

static int is_cancelled(struct call *call)
{
	void *result;
	pthread_create(&call->thread, NULL, make_while_cancelled, call);
	pthread_join(call->thread, &result);
	return result == PTHREAD_CANCELED;
}

/* --- in each of the first sends of a connection, of which one has it fused --- */

enum { SENDS = 14 };

static void send_then_be_cancelled(struct call *call)
{
	int state;
	for (long i = 0; i < call->result; i++)
		(void)!send(call->fd, "x", 1, 0);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	(void)!send(call->fd, "x", 1, 0);
}

static void connect_often(int port)
{
	for (int i = 0; i <= SENDS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		connect_to(fd, port);
		if (i == SENDS)
			warm(fd, 1);
	}
	pause();
}

static void first_sends(void)
{
	int port, listener = listen_somewhere(&port), cancelled = 0;
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		connect_often(port);
	}
	for (int i = 0; i < SENDS; i++) {
		struct call call = {.make = send_then_be_cancelled, .result = i};
		call.fd = accept(listener, NULL, NULL);
		cancelled += is_cancelled(&call);
	}
	say("%d threads were cancelled\n", cancelled);
	int fd = accept(listener, NULL, NULL);
	no_delay(fd);
	warm(fd, 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* --- in calls that are no cancellation points, and in some that are --- */

static int connection, spare_number, file;

static void enable(void)
{
	int state;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
}

static void ask_error(void)
{
	int error;
	socklen_t length = sizeof(error);
	getsockopt(connection, SOL_SOCKET, SO_ERROR, &error, &length);
}

static void ask_tcp(void)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);
	getsockopt(connection, IPPROTO_TCP, TCP_INFO, &info, &length);
}

static void ask_peer(void)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	getpeername(connection, (struct sockaddr *)&address, &length);
}

static void ask_queued(void)
{
	int queued;
	ioctl(connection, FIONREAD, &queued);
}

static void set_inline(void)
{
	int on = 1;
	setsockopt(connection, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

static void add_to_two_sets(void)
{
	for (int i = 0; i < 2; i++) {
		struct epoll_event event = {.events = EPOLLIN};
		epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, connection, &event);
	}
}

static void send_from_file(void)
{
	off_t offset = 0;
	sendfile(connection, file, &offset, 100);
}

static void fork_once(void)
{
	pid_t child = fork();
	if (child == 0)
		_exit(0);
}

static void select_readable(void)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(connection, &set);
	select(connection + 1, &set, NULL, NULL, NULL);
}

static void pselect_readable(void)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(connection, &set);
	pselect(connection + 1, &set, NULL, NULL, NULL, NULL);
}

static void look_ahead(void)
{
	char byte;
	(void)!recv(connection, &byte, 1, MSG_PEEK);
}

static void shut(void) { shutdown(connection, SHUT_WR); }
static void copy(void) { dup2(connection, spare_number); }
static void copy_over(void) { dup2(spare_number, connection); }
static void close_range_of_it(void) { close_range((unsigned)connection, (unsigned)connection, 0); }
static void close_it(void) { close(connection); }

/* Fused, it is not asked in each single one whether it is to end. */
static void send_often(void)
{
	for (int64_t end = now_ms() + 500; now_ms() < end;)
		(void)!send(connection, "x", 1, MSG_DONTWAIT);
}

static const struct {
	const char *name;
	void (*make)(void);
} calls[] = {
	{"SO_ERROR", ask_error},
	{"TCP_INFO", ask_tcp},
	{"getpeername", ask_peer},
	{"FIONREAD", ask_queued},
	{"SO_OOBINLINE", set_inline},
	{"epoll_ctl", add_to_two_sets},
	{"sendfile", send_from_file},
	{"fork", fork_once},
	{"shutdown", shut},
	{"dup2", copy},
	{"dup2 over it", copy_over},
	{"close_range", close_range_of_it},
	{"close", close_it},
	{"select", select_readable},
	{"pselect", pselect_readable},
	{"recv", look_ahead},
	{"send", send_often},
	{0},
};

static void make_one(struct call *call)
{
	enable();
	calls[call->result].make();
}

/* Asleep, with a byte unread, and with what it does for the other end in its sleep. */
static void leave_unread(int fd)
{
	(void)!send(fd, "unread", 6, 0);
	shared->stage++;
	struct pollfd p = {.fd = fd, .events = POLLPRI};
	poll(&p, 1, 20000);
}

static int number;

static void make_call_of_number(int fd)
{
	struct call call = {.make = make_one, .result = number};
	char byte;
	connection = fd;
	await_stage(number + 1);
	(void)!send(fd, "unread as well", 14, 0);
	int cancelled = is_cancelled(&call);
	say("%s: %s", calls[number].name, call.over ? "came to its end" : "was ended");
	/* What was not closed still receives. */
	say("%s, %zd\n", cancelled ? "" : ", not cancelled", recv(fd, &byte, 1, MSG_DONTWAIT));
	close(fd);
}

static void points(void)
{
	spare_number = open("/dev/null", O_RDONLY);
	file = memfd_create("file", 0);
	(void)!ftruncate(file, 100);
	for (; calls[number].name; number++)
		act(leave_unread, make_call_of_number);
}

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"first-sends", first_sends},
		{"points", points},
		{0},
	};
	share();
	alarm(40);
	return act_out(all, argc, argv);
}
